//! Of the rows of one key, the one that is there: the first or the last that was written.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use event::Dedup;

/// Takes rows in the order of their keys and, within a key, of their sequence numbers; gives one row of each key.
#[derive(Debug)]
pub struct Survivors {
    dedup: Dedup,
    converter: RowConverter,
    /// Positions of the key's columns.
    key: Vec<usize>,
    /// The row that stands for the key seen last, of which more may come.
    open: Option<RecordBatch>,
}

impl Survivors {
    /// For rows of `schema`, whose key are the columns at `key`.
    ///
    /// # Errors
    /// When a column of the key cannot be compared.
    pub fn new(schema: &Schema, key: Vec<usize>, dedup: Dedup) -> Result<Survivors, ArrowError> {
        let fields = key.iter().map(|at| SortField::new(schema.field(*at).data_type().clone())).collect();
        Ok(Survivors { dedup, converter: RowConverter::new(fields)?, key, open: None })
    }

    /// The survivors of all keys that are complete now.
    ///
    /// # Errors
    /// When the rows are not of the schema.
    pub fn push(&mut self, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        if rows.num_rows() == 0 || self.dedup.is_none() {
            return Ok(rows);
        }
        let rows = match self.open.take() {
            Some(open) => concat_batches(&rows.schema(), [&open, &rows])?,
            None => rows,
        };
        let keys = keys(&self.converter, &self.key, &rows)?;
        let last = rows.num_rows() - 1;
        let starts = |row: usize| row == 0 || keys.row(row - 1) != keys.row(row);
        let survivor = match self.dedup {
            Dedup::First => (0..=last).rev().find(|row| starts(*row)).unwrap_or(0),
            Dedup::Last | Dedup::None => last,
        };
        let survives = |row: usize| match self.dedup {
            Dedup::First => row < survivor && starts(row),
            Dedup::Last | Dedup::None => row < last && starts(row + 1),
        };
        let survives: BooleanArray = (0..=last).map(|row| Some(survives(row))).collect();
        let complete = filter_record_batch(&rows, &survives)?;
        self.open = Some(rows.slice(survivor, 1));
        Ok(complete)
    }

    /// The survivor of the last key, once all rows came.
    pub fn finish(&mut self) -> Option<RecordBatch> {
        self.open.take()
    }
}

/// Whether no two rows, which come in the order of their keys, have the same.
///
/// # Errors
/// When a column of the key cannot be compared.
pub fn are_distinct(rows: &RecordBatch, key: &[usize]) -> Result<bool, ArrowError> {
    let fields = key.iter().map(|at| SortField::new(rows.column(*at).data_type().clone())).collect();
    let keys = keys(&RowConverter::new(fields)?, key, rows)?;
    Ok((1..rows.num_rows()).all(|row| keys.row(row - 1) != keys.row(row)))
}

fn keys(converter: &RowConverter, key: &[usize], rows: &RecordBatch) -> Result<Rows, ArrowError> {
    let columns: Vec<_> = key.iter().map(|at| Arc::clone(rows.column(*at))).collect();
    converter.convert_columns(&columns)
}
