//! Rows as Parquet holds them: types that it does not know lie as others.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use event::ColumnType;
use event::interval::{INTERVAL_BYTES, read_intervals, stored_intervals};

use super::columns_error;
use crate::Error;

/// Rows of a table, with intervals as bytes.
pub(crate) fn stored(rows: &RecordBatch) -> Result<RecordBatch, Error> {
    let is_interval = |data_type: &DataType| matches!(data_type, DataType::Interval(_));
    if !rows.schema_ref().fields().iter().any(|field| is_interval(field.data_type())) {
        return Ok(rows.clone());
    }
    let fields = rows.schema_ref().fields().iter().map(|field| match is_interval(field.data_type()) {
        true => Arc::new(field.as_ref().clone().with_data_type(DataType::FixedSizeBinary(INTERVAL_BYTES))),
        false => Arc::clone(field),
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns = rows.columns().iter().map(|column| match is_interval(column.data_type()) {
        true => stored_intervals(column),
        false => Arc::clone(column),
    });
    RecordBatch::try_new(schema, columns.collect()).map_err(columns_error)
}

/// A column of a segment as one of a type, which may be wider.
pub(crate) fn read(column: &ArrayRef, column_type: ColumnType) -> Result<ArrayRef, Error> {
    match column_type {
        ColumnType::Interval => {
            read_intervals(column).ok_or_else(|| Error::Columns(format!("{} is no interval", column.data_type())))
        }
        _ => cast(column, &column_type.arrow()).map_err(columns_error),
    }
}
