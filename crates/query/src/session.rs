//! One connection's view: settings, transaction, statements.
//!
//! A [`Session`] is driven by one task. Its futures do their CPU work on the query runtime, so they may be polled on a socket's runtime;
//! dropping a future or a row stream stops the work behind it at its next yield.

use std::pin::Pin;

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use datafusion::common::ScalarValue;
use futures::Stream;

use crate::error::Error;

/// One parsed statement of a message.
#[derive(Clone, Debug)]
pub struct Statement {}

/// A planned statement with its parameters and columns.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The type of each parameter.
    pub parameters: Vec<DataType>,
    /// The columns it will give; `None` when it gives no rows.
    pub columns: Option<SchemaRef>,
}

/// A prepared statement bound to its parameters.
#[derive(Debug)]
pub struct Portal {}

/// Rows as they come.
pub struct Rows {
    /// The columns, named as PostgreSQL names them.
    pub columns: SchemaRef,
    /// The batches. Dropping it stops the query.
    pub batches: Pin<Box<dyn Stream<Item = Result<RecordBatch, Error>> + Send>>,
    /// The command word of the tag: `SELECT`, `EXPLAIN`, `SHOW`.
    pub tag: &'static str,
}

/// What executing a statement leads to.
pub enum Outcome {
    /// Rows.
    Rows(Rows),
    /// No rows; the whole command tag, `INSERT 0 3`.
    Done(String),
    /// COPY … FROM STDIN: feed bytes.
    CopyIn(CopyIn),
    /// COPY … TO STDOUT: encode rows.
    CopyOut(CopyOut),
    /// The empty query.
    Empty,
}

/// Formats of COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    /// Tab-separated with backslash escapes.
    Text,
    /// CSV as PostgreSQL reads and writes it.
    Csv,
}

/// Options of COPY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    /// The format.
    pub format: CopyFormat,
    /// First line names the columns.
    pub header: bool,
    /// Between fields.
    pub delimiter: u8,
    /// Stands for NULL.
    pub null: String,
    /// CSV only.
    pub quote: u8,
    /// CSV only.
    pub escape: u8,
}

/// A COPY … FROM STDIN under way. Dropping it without `finish` leaves nothing of it behind.
#[derive(Debug)]
pub struct CopyIn {
    /// Columns the client must send.
    pub columns: usize,
    /// Its options.
    pub options: CopyOptions,
}

impl CopyIn {
    /// Gives it bytes, cut anywhere. Waits while the decoder is behind. An error ends the COPY; nothing of it stays.
    pub async fn push(&mut self, bytes: Bytes) -> Result<(), Error> {
        let _ = bytes;
        unimplemented!()
    }

    /// End of data: commits (or leaves it to the transaction) and answers with the rows.
    pub async fn finish(self, session: &mut Session) -> Result<u64, Error> {
        let _ = session;
        unimplemented!()
    }
}

/// A COPY … TO STDOUT under way; `wire` encodes the rows in the format asked for.
pub struct CopyOut {
    /// Its options.
    pub options: CopyOptions,
    /// The rows.
    pub rows: Rows,
}

/// A NOTICE or WARNING for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// `NOTICE` or `WARNING`.
    pub severity: &'static str,
    /// SQLSTATE, `00000` for a plain notice.
    pub code: &'static str,
    /// The message.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What ReadyForQuery says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`
    Idle,
    /// `T`
    Active,
    /// `E`
    Failed,
}

/// One connection's session.
#[derive(Debug)]
pub struct Session {}

impl Session {
    /// Parses a message into its statements. An empty message gives one empty statement.
    pub fn parse(&self, sql: &str) -> Result<Vec<Statement>, Error> {
        let _ = sql;
        unimplemented!()
    }

    /// Plans a statement. `parameters` are the types the client named, `None` where the server shall infer.
    pub async fn prepare(&mut self, statement: &Statement, parameters: &[Option<DataType>]) -> Result<Prepared, Error> {
        let _ = (statement, parameters);
        unimplemented!()
    }

    /// Runs a prepared statement. Outside a transaction block, a write commits before this (or the COPY's `finish`) returns,
    /// unless [`Session::begin_implicit`] was called. Errors put an open block into the failed state.
    pub async fn execute(&mut self, prepared: &Prepared, parameters: Vec<ScalarValue>) -> Result<Outcome, Error> {
        let _ = (prepared, parameters);
        unimplemented!()
    }

    /// Several statements of one message run in one implicit transaction, ended by `end_implicit` (or an explicit COMMIT between).
    pub fn begin_implicit(&mut self) {
        unimplemented!()
    }

    /// Commits (`true`) or discards the implicit transaction, if one is still open.
    pub async fn end_implicit(&mut self, commit: bool) -> Result<(), Error> {
        let _ = commit;
        unimplemented!()
    }

    /// Tells the session that a statement failed outside it (encoding, cancel, COPY): an open block becomes failed.
    pub fn statement_failed(&mut self) {
        unimplemented!()
    }

    /// For ReadyForQuery.
    pub fn status(&self) -> TransactionStatus {
        unimplemented!()
    }

    /// The current value of a setting, as SHOW prints it.
    pub fn setting(&self, name: &str) -> Option<String> {
        let _ = name;
        unimplemented!()
    }

    /// Sets a setting as SET does (also from the startup packet).
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let _ = (name, value);
        unimplemented!()
    }

    /// Settings whose change must be reported (ParameterStatus), changed since the last call.
    pub fn take_reported(&mut self) -> Vec<(String, String)> {
        unimplemented!()
    }

    /// Notices since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        unimplemented!()
    }

    /// `statement_timeout` in milliseconds, 0 when off.
    pub fn statement_timeout_ms(&self) -> u64 {
        unimplemented!()
    }
}
