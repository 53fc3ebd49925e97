//! Rows of one split that are not in a segment yet, as the Arrow batches they arrived in.
//!
//! Small batches are merged with their neighbours of like size, `FAN_IN` at a time, so that n one-row appends leave O(log n) small batches and
//! copy each row O(log n) times. Batches at or above `MERGED_ROWS_MAX` stay as they came.

#[cfg(test)]
mod tests;

use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use event::{SplitId, TableDefinition};

use crate::Error;
use crate::routing::{SplitRows, split_rows};
use crate::row_bytes;
use crate::sequences::SequenceSet;
use crate::snapshot::MemorySplit;

/// Batches are not merged beyond this many rows.
const MERGED_ROWS_MAX: usize = 8192;
/// So many batches of like size become one. Merging costs a fixed time for each column, which one-row statements would pay every other time
/// if it were two.
const FAN_IN: usize = 8;

/// Rows of one split. All batches have one schema: the table's columns and `__seq`.
#[derive(Clone, Debug)]
pub(crate) struct Memtable {
    batches: Vec<RecordBatch>,
    rows: u64,
    bytes: u64,
    time_min_us: Option<i64>,
    time_max_us: Option<i64>,
    /// Time of the entry with the first row.
    since_us: i64,
}

impl Memtable {
    /// Without rows; the first ones come with an entry of time `since_us`.
    pub(crate) fn new(since_us: i64) -> Self {
        Self { batches: Vec::new(), rows: 0, bytes: 0, time_min_us: None, time_max_us: None, since_us }
    }

    /// Adds rows after those already there.
    pub(crate) fn append(&mut self, rows: SplitRows) {
        self.rows += rows.rows.num_rows() as u64;
        self.bytes += row_bytes(&rows.rows) as u64;
        self.time_min_us = smaller(self.time_min_us, rows.time_min_us);
        self.time_max_us = larger(self.time_max_us, rows.time_max_us);
        self.batches.push(rows.rows);
        self.merge_tail();
    }

    /// Merges the last batches while there are enough that are no larger than the last of them, by order of magnitude.
    fn merge_tail(&mut self) {
        while let Some(start) = self.mergeable_tail() {
            let schema = self.batches[start].schema();
            let merged =
                concat_batches(&schema, &self.batches[start..]).expect("batches of a memtable have one schema");
            self.batches.truncate(start);
            self.batches.push(merged);
        }
    }

    /// Where the last batches begin that shall be merged, if any shall.
    fn mergeable_tail(&self) -> Option<usize> {
        let magnitude = |batch: &RecordBatch| batch.num_rows().max(1).ilog(FAN_IN);
        let last = magnitude(self.batches.last()?);
        let mut rows = 0;
        let alike = self.batches.iter().rev().take_while(|batch| {
            rows += batch.num_rows();
            magnitude(batch) <= last && rows <= MERGED_ROWS_MAX
        });
        let count = alike.count();
        (count >= FAN_IN).then(|| self.batches.len() - count)
    }

    /// Gives every batch another schema, column by column.
    pub(crate) fn adapt(
        &mut self,
        schema: &SchemaRef,
        adapt: impl Fn(&RecordBatch) -> Result<RecordBatch, ArrowError>,
    ) -> Result<(), ArrowError> {
        self.batches = self.batches.iter().map(adapt).collect::<Result<_, _>>()?;
        self.bytes = self.batches.iter().map(|batch| row_bytes(batch) as u64).sum();
        assert!(self.batches.iter().all(|batch| batch.schema_ref() == schema), "every batch has the new schema");
        Ok(())
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn since_us(&self) -> i64 {
        self.since_us
    }

    /// The rows as a reader sees them, frozen or still open. Batches are shared, not copied.
    pub(crate) fn read(&self, split: SplitId, frozen: bool) -> MemorySplit {
        MemorySplit {
            split,
            rows: self.rows,
            open_rows: if frozen { 0 } else { self.rows },
            time_min_us: self.time_min_us,
            time_max_us: self.time_max_us,
            batches: self.batches.clone(),
        }
    }
}

impl MemorySplit {
    /// The rows that are not deleted.
    ///
    /// # Errors
    /// When the batches are not those of a memtable of `table`.
    pub fn without(&self, deleted: &SequenceSet, table: &TableDefinition) -> Result<MemorySplit, Error> {
        let columns = |error: ArrowError| Error::Columns(error.to_string());
        let mut left = MemorySplit { rows: 0, batches: Vec::new(), ..self.clone() };
        (left.time_min_us, left.time_max_us) = (None, None);
        for batch in &self.batches {
            let batch = deleted.filter(batch, 0).map_err(columns)?;
            for part in split_rows(table, &batch)? {
                left.rows += part.rows.num_rows() as u64;
                left.time_min_us = smaller(left.time_min_us, part.time_min_us);
                left.time_max_us = larger(left.time_max_us, part.time_max_us);
                left.batches.push(part.rows);
            }
        }
        Ok(left)
    }

    /// Adds rows of the same split that were committed later.
    pub(crate) fn extend(&mut self, later: MemorySplit) {
        assert_eq!(self.split, later.split, "rows of one split");
        self.rows += later.rows;
        self.open_rows += later.open_rows;
        self.time_min_us = smaller(self.time_min_us, later.time_min_us);
        self.time_max_us = larger(self.time_max_us, later.time_max_us);
        self.batches.extend(later.batches);
    }
}

fn smaller(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    a.into_iter().chain(b).min()
}

fn larger(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    a.into_iter().chain(b).max()
}
