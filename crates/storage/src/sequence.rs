//! Numbers that order the rows of a shard by commit: the entry's index, then the row within the entry.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use event::TableDefinition;

use crate::segment::SEQUENCE_COLUMN;

/// Low bits of a sequence number, which count the rows of one entry and shard.
pub const SEQUENCE_ROW_BITS: u32 = 24;

/// The sequence number of the first row of entry `index`.
///
/// # Panics
/// When `index` needs more than 40 bits; a log never gets there.
pub fn sequence_base(index: u64) -> u64 {
    assert!(index < 1 << (64 - SEQUENCE_ROW_BITS), "log index {index} does not fit into a sequence number");
    index << SEQUENCE_ROW_BITS
}

/// The number of a row within its entry and shard. Rows beyond 2²⁴ − 1, which only a bulk statement can have, share the last
/// number.
pub fn sequence_row(row: u64) -> u64 {
    row.min((1 << SEQUENCE_ROW_BITS) - 1)
}

/// The table's columns, by their stored names, followed by `__seq`: the schema of memtable batches and segment files.
pub fn sequenced_schema(table: &TableDefinition) -> SchemaRef {
    let columns = table.columns.iter().map(|c| Arc::new(c.column_type.field(c.stored_name(), c.nullable)));
    let mut fields: Vec<Arc<Field>> = columns.collect();
    fields.push(Arc::new(Field::new(SEQUENCE_COLUMN, DataType::UInt64, false)));
    Arc::new(Schema::new(fields))
}

/// Adds `__seq` to rows of a table: `base` plus the row's number, the first being `row`. Columns are taken by position and
/// get the names of `schema`, which is a [`sequenced_schema`].
pub fn with_sequence(schema: &SchemaRef, rows: &RecordBatch, base: u64, row: u64) -> Result<RecordBatch, ArrowError> {
    let numbers = (row..row + rows.num_rows() as u64).map(|row| base + sequence_row(row));
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(rows.num_columns() + 1);
    columns.extend_from_slice(rows.columns());
    columns.push(Arc::new(UInt64Array::from_iter_values(numbers)));
    RecordBatch::try_new(Arc::clone(schema), columns)
}
