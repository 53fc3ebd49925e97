//! What columns get that a statement says nothing of.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::compute::cast;
use cluster::Node;
use datafusion::common::ScalarValue;
use event::{Column, ColumnType, Identity, TableDefinition, TableId};

use super::rows::default_column;
use crate::error::{Condition, Error};

/// What one column gets.
#[derive(Clone, Debug)]
pub(crate) enum DefaultValue {
    /// The same in all rows of the statement.
    Value(ScalarValue),
    /// A number of its own for each row.
    Numbers(Numbers),
}

/// The numbers of an identity column.
#[derive(Clone)]
pub(crate) struct Numbers {
    node: Arc<Node>,
    table: TableId,
    identity: Identity,
    /// What PostgreSQL calls the sequence.
    name: String,
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Numbers").field(&self.name).finish()
    }
}

/// The name of an identity column's sequence.
pub(super) fn sequence_name(table: &TableDefinition, column: &Column) -> String {
    format!("{}_{}_seq", table.name, column.name)
}

impl DefaultValue {
    /// NULL.
    pub(crate) fn none() -> DefaultValue {
        DefaultValue::Value(ScalarValue::Null)
    }

    /// The numbers of `column`, which has an identity.
    pub(crate) fn numbers(node: &Arc<Node>, table: &TableDefinition, column: &Column, identity: Identity) -> Self {
        let (node, name) = (Arc::clone(node), sequence_name(table, column));
        DefaultValue::Numbers(Numbers { node, table: table.id, identity, name })
    }

    /// The values of `count` rows.
    ///
    /// # Errors
    /// 22xxx for a value that does not fit the column, 2200H when its numbers are used up.
    pub(crate) fn column(&self, column: &Column, count: usize) -> Result<ArrayRef, Error> {
        match self {
            DefaultValue::Value(value) => default_column(value, column, count),
            DefaultValue::Numbers(numbers) => numbers.take(column, count),
        }
    }

    /// The value of one row.
    ///
    /// # Errors
    /// As [`DefaultValue::column`].
    pub(crate) fn one(&self, column: &Column) -> Result<ScalarValue, Error> {
        match self {
            DefaultValue::Value(value) => Ok(value.clone()),
            DefaultValue::Numbers(numbers) => ScalarValue::try_from_array(&numbers.take(column, 1)?, 0)
                .map_err(|error| Error::report(Condition::Internal, error.to_string())),
        }
    }
}

impl Numbers {
    fn take(&self, column: &Column, count: usize) -> Result<ArrayRef, Error> {
        let taken = self.node.take_numbers(self.table, column.id, count as u64)?;
        let largest = match column.column_type {
            ColumnType::SmallInt => i64::from(i16::MAX),
            ColumnType::Integer => i64::from(i32::MAX),
            _ => i64::MAX,
        };
        let last = i64::try_from(taken.end).ok().and_then(|end| self.identity.start.checked_add(end - 1));
        if !taken.is_empty() && last.is_none_or(|last| last > largest) {
            let message = format!("nextval: reached maximum value of sequence \"{}\" ({largest})", self.name);
            return Err(Error::report(Condition::SequenceLimitExceeded, message));
        }
        let numbers = Int64Array::from_iter_values(taken.map(|number| self.identity.start + number.cast_signed()));
        cast(&numbers, &column.column_type.arrow())
            .map_err(|error| Error::report(Condition::Internal, error.to_string()))
    }
}
