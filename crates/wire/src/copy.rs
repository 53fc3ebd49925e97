//! COPY: data from the client into the session, rows of the session as lines or binary tuples to the client.

use bytes::{BufMut, Bytes, BytesMut};
use pgwire::messages::PgWireFrontendMessage as Message;
use pgwire::messages::copy::{CopyData, CopyDone, CopyInResponse, CopyOutResponse};
use query::copy::SIGNATURE;
use query::{CopyEncoding, CopyFormat, CopyIn, CopyOptions, CopyOut, Rows};

use crate::connection::Connection;
use crate::error::Failure;
use crate::guard::{Guard, Stopped};
use crate::rows::{Encoder, Format};
use crate::simple::next_batch;

/// Ends binary data.
const END_OF_TUPLES: i16 = -1;
/// COPY data is handed to the decoder in pieces of at most this.
const PIECE_BYTES_MAX: usize = 256 << 10;

impl Connection<'_> {
    /// Takes COPY data until the client says that it is done.
    pub(crate) async fn copy_in(&mut self, guard: &Guard, mut copy: CopyIn) -> Result<(), Stopped> {
        let columns = column_count(copy.columns)?;
        let format = format_code(&copy.encoding);
        self.socket.put(&CopyInResponse::new(format, columns, vec![i16::from(format); copy.columns]));
        guard.run(self.socket.flush()).await?;
        loop {
            match guard.run(self.socket.message()).await? {
                Message::CopyData(message) => {
                    self.door.metrics.copy_bytes.inc_by(message.data.len() as u64);
                    for piece in pieces(message.data) {
                        guard.run(copy.push(piece)).await?;
                    }
                }
                Message::CopyDone(_) => break,
                Message::CopyFail(message) => {
                    return Err(Failure::new("57014", format!("COPY from stdin failed: {}", message.message)).into());
                }
                // Sent by clients that did not notice that their statement was a COPY.
                Message::Flush(_) | Message::Sync(_) => {}
                _ => return Err(Failure::protocol("unexpected message during COPY from stdin").into()),
            }
        }
        // Not interrupted: the commit may be decided already, and the client must hear how.
        let rows = copy.finish(&mut self.session).await?;
        self.door.metrics.copy_rows.inc_by(rows);
        self.complete(format!("COPY {rows}"));
        Ok(())
    }

    /// Sends rows in the encoding the client asked for.
    pub(crate) async fn copy_out(&mut self, guard: &Guard, copy: CopyOut) -> Result<(), Stopped> {
        let CopyOut { encoding, rows } = copy;
        let width = rows.columns.fields().len();
        let format = format_code(&encoding);
        self.socket.put(&CopyOutResponse::new(format, column_count(width)?, vec![i16::from(format); width]));
        let sent = match encoding {
            CopyEncoding::Lines(options) => self.send_lines(guard, options, rows).await?,
            CopyEncoding::Binary => self.send_tuples(guard, rows).await?,
        };
        self.door.metrics.rows_sent.inc_by(sent);
        self.socket.put(&CopyDone::new());
        self.complete(format!("COPY {sent}"));
        Ok(())
    }

    async fn send_lines(&mut self, guard: &Guard, options: CopyOptions, mut rows: Rows) -> Result<u64, Stopped> {
        let width = rows.columns.fields().len();
        let mut line = Line { options, text: String::new(), is_first: true, is_single: width == 1 };
        if line.options.header {
            for field in rows.columns.fields() {
                line.push(Some(field.name()));
            }
            self.socket.put(&CopyData::new(line.take()));
        }
        let mut sent = 0_u64;
        while let Some(batch) = guard.run(next_batch(&mut rows)).await? {
            let mut encoder = Encoder::new(&batch, self.session.zone())?;
            for row in 0..encoder.rows() {
                encoder.fields(row, |field| line.push(field));
                self.send_data(guard, line.take()).await?;
                sent += 1;
            }
        }
        Ok(sent)
    }

    async fn send_tuples(&mut self, guard: &Guard, mut rows: Rows) -> Result<u64, Stopped> {
        let formats = vec![Format::Binary; rows.columns.fields().len()];
        // The header goes with the first tuple, as PostgreSQL sends it: clients count on it.
        let mut data = BytesMut::from(&SIGNATURE[..]);
        data.put_bytes(0, 8);
        let mut sent = 0;
        while let Some(batch) = guard.run(next_batch(&mut rows)).await? {
            let mut encoder = Encoder::new(&batch, self.session.zone())?;
            for row in 0..encoder.rows() {
                encoder.tuple(&mut data, row, &formats);
                self.send_data(guard, data.split().freeze()).await?;
                sent += 1;
            }
        }
        data.put_i16(END_OF_TUPLES);
        self.send_data(guard, data.freeze()).await?;
        Ok(sent)
    }

    /// Queues data, and sends what is queued when it is enough.
    async fn send_data(&mut self, guard: &Guard, data: Bytes) -> Result<(), Stopped> {
        self.socket.put(&CopyData::new(data));
        if self.socket.is_full() {
            guard.run(self.socket.flush()).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// The format of all columns, as the messages that begin a COPY tell it.
fn format_code(encoding: &CopyEncoding) -> i8 {
    match encoding {
        CopyEncoding::Lines(_) => 0,
        CopyEncoding::Binary => 1,
    }
}

/// Data in pieces that may wait for the decoder: they outlive their message, whose bytes are given back to the budget of all clients.
fn pieces(data: Bytes) -> impl Iterator<Item = Bytes> {
    let is_small = data.len() <= PIECE_BYTES_MAX;
    let whole = is_small.then(|| data.clone());
    let starts = (0..data.len()).step_by(PIECE_BYTES_MAX).filter(move |_| !is_small);
    let cut = starts.map(move |at| Bytes::copy_from_slice(&data[at..data.len().min(at + PIECE_BYTES_MAX)]));
    whole.into_iter().chain(cut)
}

fn column_count(columns: usize) -> Result<i16, Failure> {
    i16::try_from(columns).map_err(|_| Failure::new("54011", "too many columns"))
}

/// A line of COPY output under construction.
struct Line {
    options: CopyOptions,
    text: String,
    is_first: bool,
    is_single: bool,
}

impl Line {
    fn push(&mut self, field: Option<&str>) {
        if !std::mem::take(&mut self.is_first) {
            self.text.push(char::from(self.options.delimiter));
        }
        match (field, self.options.format) {
            (None, _) => self.text.push_str(&self.options.null),
            (Some(field), CopyFormat::Text) => self.push_escaped(field),
            (Some(field), CopyFormat::Csv) => self.push_quoted(field),
        }
    }

    fn push_escaped(&mut self, field: &str) {
        for c in field.chars() {
            let letter = match c {
                '\\' => '\\',
                '\u{8}' => 'b',
                '\u{c}' => 'f',
                '\n' => 'n',
                '\r' => 'r',
                '\t' => 't',
                '\u{b}' => 'v',
                c if c == char::from(self.options.delimiter) => c,
                c => {
                    self.text.push(c);
                    continue;
                }
            };
            self.text.extend(['\\', letter]);
        }
    }

    fn push_quoted(&mut self, field: &str) {
        let (quote, escape) = (char::from(self.options.quote), char::from(self.options.escape));
        let special = [char::from(self.options.delimiter), quote, '\n', '\r'];
        // A lone `\.` would end the data.
        let ends_data = self.is_single && field == "\\.";
        if field != self.options.null && !field.contains(special) && !ends_data {
            self.text.push_str(field);
            return;
        }
        self.text.push(quote);
        for c in field.chars() {
            if c == quote || c == escape {
                self.text.push(escape);
            }
            self.text.push(c);
        }
        self.text.push(quote);
    }

    /// The line with its end.
    fn take(&mut self) -> Bytes {
        self.text.push('\n');
        self.is_first = true;
        let bytes = BytesMut::from(self.text.as_bytes()).freeze();
        self.text.clear();
        bytes
    }
}

#[cfg(test)]
mod tests;
