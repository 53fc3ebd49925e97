//! One statement or transaction on its way into the log.
//!
//! Rows up to `limits::ENTRY_BYTES_MAX` are kept and committed as `Append`s of one entry. What grows beyond goes the bulk way:
//! every `limits::STAGE_BYTES_MAX` of rows is sorted per split into staged segments, and one `Install` makes all visible.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use storage::segment::SegmentRef;

use crate::catalog::Table;
use crate::error::Error;

/// The receipt of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Rows written.
    pub rows: u64,
    /// The log index of the entry.
    pub index: u64,
}

/// The uncommitted rows of one statement or transaction. Dropping it discards them; staged objects are deleted.
#[derive(Debug)]
pub struct WriteSet {}

/// Own, uncommitted rows of one table, for reading inside the transaction.
#[derive(Clone, Debug, Default)]
pub struct Uncommitted {
    /// Rows in memory: the table's columns, without system columns.
    pub batches: Vec<RecordBatch>,
    /// Rows already staged.
    pub segments: Vec<SegmentRef>,
}

impl WriteSet {
    /// Adds validated rows (the table's columns in order). Waits while staging is behind.
    pub async fn append(&mut self, table: &Arc<Table>, rows: RecordBatch) -> Result<(), Error> {
        let _ = (table, rows);
        unimplemented!()
    }

    /// The rows of `table` written so far.
    pub fn uncommitted(&self, table: &Table) -> Uncommitted {
        let _ = table;
        unimplemented!()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }

    /// Commits everything as one entry; answers after commit, fsync and apply.
    pub async fn commit(self) -> Result<Commit, Error> {
        unimplemented!()
    }
}
