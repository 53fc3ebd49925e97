//! Lines of COPY data cut into blocks of whole records, so that blocks can be decoded side by side.
//!
//! Looking for the ends of records is a small part of decoding them: where no quote and no backslash is in sight, the last line end of a
//! piece is all that is needed.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use event::TableDefinition;

use super::decoder::{Decoder, RECORD_BYTES_MAX};
use crate::error::Error;
use crate::session::{CopyFormat, CopyOptions};
use crate::text::Zone;

/// A block is full when its whole records have so many bytes.
const BLOCK_BYTES: usize = 256 << 10;

/// Cuts the data of one COPY.
#[derive(Debug)]
pub(crate) struct Blocks {
    options: CopyOptions,
    waiting: Vec<u8>,
    /// Of them, what is whole records.
    whole: usize,
    quoted: bool,
    escaped: bool,
    /// Lines in the blocks cut so far.
    lines: u64,
}

/// Whole records, but for the last one of the data, which may lack its line end; and what an error must know of those before.
#[derive(Debug)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    lines_before: u64,
}

/// What became of a block.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// Its rows.
    pub(crate) batches: Vec<RecordBatch>,
    /// Whether it holds the mark that ends the data; what comes after it does not count.
    pub(crate) ended: bool,
}

impl Blocks {
    pub(crate) fn new(options: CopyOptions) -> Blocks {
        Blocks { options, waiting: Vec::new(), whole: 0, quoted: false, escaped: false, lines: 0 }
    }

    /// Takes bytes cut anywhere; a block when one is full.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Option<Block> {
        if let Some(end) = self.last_end(bytes) {
            self.whole = self.waiting.len() + end;
        }
        self.waiting.extend_from_slice(bytes);
        // A record without end is found to be too long by who decodes it.
        let too_long = self.waiting.len() - self.whole > RECORD_BYTES_MAX;
        match self.whole >= BLOCK_BYTES || too_long {
            true => Some(self.cut(if too_long { self.waiting.len() } else { self.whole })),
            false => None,
        }
    }

    /// What is left, perhaps nothing.
    pub(crate) fn finish(mut self) -> Block {
        self.cut(self.waiting.len())
    }

    fn cut(&mut self, end: usize) -> Block {
        let rest = self.waiting.split_off(end);
        let bytes = std::mem::replace(&mut self.waiting, rest);
        let lines_before = self.lines;
        self.lines += memchr::memchr_iter(b'\n', &bytes).count() as u64;
        self.whole = 0;
        Block { bytes, lines_before }
    }

    /// Where the last record that ends in `bytes` ends. They come after all that was looked at before.
    fn last_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let special = match self.options.format {
            CopyFormat::Text => b'\\',
            CopyFormat::Csv => self.options.quote,
        };
        if !self.quoted && !self.escaped && memchr::memchr(special, bytes).is_none() {
            return memchr::memrchr(b'\n', bytes).map(|at| at + 1);
        }
        let mut end = None;
        for (at, byte) in bytes.iter().enumerate() {
            if self.ends_record(*byte) {
                end = Some(at + 1);
            }
        }
        end
    }

    /// Whether a record ends with this byte.
    fn ends_record(&mut self, byte: u8) -> bool {
        let CopyOptions { format, quote, escape, .. } = self.options;
        let escaped = std::mem::take(&mut self.escaped);
        if format == CopyFormat::Text {
            self.escaped = !escaped && byte == b'\\';
            return !escaped && byte == b'\n';
        }
        if escaped && (byte == quote || byte == escape) {
            // Data: an escape inside quotes was before it.
            return false;
        }
        if self.quoted && byte == escape && escape != quote {
            self.escaped = true;
        } else if byte == quote {
            // A doubled quote leaves and enters at once.
            self.quoted = !self.quoted;
        }
        byte == b'\n' && !self.quoted
    }
}

impl Block {
    /// Reads the rows, for the columns of `table` at the positions `targets`.
    ///
    /// # Errors
    /// The first bad record, with line and column as context.
    pub(crate) fn decode(
        self,
        table: Arc<TableDefinition>,
        targets: Vec<usize>,
        options: &CopyOptions,
        zone: Zone,
    ) -> Result<Decoded, Error> {
        let options = CopyOptions { header: options.header && self.lines_before == 0, ..options.clone() };
        let mut decoder = Decoder::new(table, targets, options, zone).after(self.lines_before);
        let mut batches = decoder.push(&self.bytes)?;
        batches.extend(decoder.finish()?);
        Ok(Decoded { batches, ended: decoder.has_ended() })
    }
}

#[cfg(test)]
mod tests;
