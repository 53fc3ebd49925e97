//! COPY … FROM STDIN: from bytes cut anywhere to batches of a table's columns, as PostgreSQL reads them.

mod decoder;
mod fields;
mod tuples;

pub use decoder::Decoder;
pub use tuples::{SIGNATURE, TupleDecoder};

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use event::TableDefinition;

use crate::error::Error;
use crate::session::CopyEncoding;
use crate::text::Zone;

/// Decodes the data of one COPY, however they are encoded.
#[derive(Debug)]
pub(crate) enum Input {
    /// Lines of text or CSV.
    Lines(Box<Decoder>),
    /// Binary tuples.
    Tuples(Box<TupleDecoder>),
}

impl Input {
    /// For the columns of `table` at the positions `targets`, in the order the client sends them.
    pub(crate) fn new(table: Arc<TableDefinition>, targets: Vec<usize>, encoding: CopyEncoding, zone: Zone) -> Input {
        match encoding {
            CopyEncoding::Lines(options) => Input::Lines(Box::new(Decoder::new(table, targets, options, zone))),
            CopyEncoding::Binary => Input::Tuples(Box::new(TupleDecoder::new(table, targets))),
        }
    }

    /// Takes bytes cut anywhere and gives the batches that became full.
    ///
    /// # Errors
    /// The first bad record.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<RecordBatch>, Error> {
        match self {
            Input::Lines(decoder) => decoder.push(bytes),
            Input::Tuples(decoder) => decoder.push(bytes),
        }
    }

    /// End of data. Gives the rows that are left.
    ///
    /// # Errors
    /// As [`Input::push`].
    pub(crate) fn finish(&mut self) -> Result<Option<RecordBatch>, Error> {
        match self {
            Input::Lines(decoder) => decoder.finish(),
            Input::Tuples(decoder) => decoder.finish(),
        }
    }
}
