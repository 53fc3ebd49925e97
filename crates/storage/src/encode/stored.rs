//! Rows as Parquet holds them: types that it does not know lie as others.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::Schema;
use event::ColumnType;
use event::interval::{has_intervals, read_intervals, stored_intervals, stored_type};

use super::columns_error;
use crate::Error;

/// Rows of a table, with intervals as bytes.
pub(crate) fn stored(rows: &RecordBatch) -> Result<RecordBatch, Error> {
    if !rows.schema_ref().fields().iter().any(|field| has_intervals(field.data_type())) {
        return Ok(rows.clone());
    }
    let fields = rows.schema_ref().fields().iter().map(|field| match has_intervals(field.data_type()) {
        true => Arc::new(field.as_ref().clone().with_data_type(stored_type(field.data_type()))),
        false => Arc::clone(field),
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns = rows.columns().iter().map(|column| match has_intervals(column.data_type()) {
        true => stored_intervals(column),
        false => Arc::clone(column),
    });
    RecordBatch::try_new(schema, columns.collect()).map_err(columns_error)
}

/// A column of a segment as one of a type, which may be wider.
pub(crate) fn read(column: &ArrayRef, column_type: ColumnType) -> Result<ArrayRef, Error> {
    match column_type.arrow() {
        wanted if wanted == *column.data_type() => Ok(Arc::clone(column)),
        wanted if has_intervals(&wanted) => {
            read_intervals(column).ok_or_else(|| Error::Columns(format!("{} holds no intervals", column.data_type())))
        }
        wanted => cast(column, &wanted).map_err(columns_error),
    }
}
