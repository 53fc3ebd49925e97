//! What columns get that a statement says nothing of.

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::Schema;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use cluster::Node;
use datafusion::common::{DFSchema, DataFusionError, ScalarValue};
use datafusion::logical_expr::Volatility;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::sqlparser::ast::{self, TimezoneInfo, VisitMut, VisitorMut};
use event::{Column, ColumnType, Identity, TableDefinition, TableId};
use parking_lot::Mutex;

use super::insert::parse_expression;
use super::report::{self, Known};
use super::rows::{assign, default_column};
use super::{Session, calls, checks, modifiers};
use crate::error::{Condition, Error};
use crate::text::{Zone, parse_timestamptz, write};

/// Where clocks show what they show nowhere else.
const ELSEWHERE: Zone = Zone::Fixed(1);

/// What one column gets.
#[derive(Clone, Debug)]
pub(crate) enum DefaultValue {
    /// The same in all rows of the statement.
    Value(ScalarValue),
    /// A number of its own for each row.
    Numbers(Numbers),
    /// What an expression gives that is computed for each row.
    Each(Arc<dyn PhysicalExpr>),
}

/// The numbers of an identity column.
#[derive(Clone)]
pub(crate) struct Numbers {
    node: Arc<Node>,
    table: TableId,
    identity: Identity,
    /// What PostgreSQL calls the sequence.
    name: String,
    /// Numbers that were taken for the statement when it began.
    taken: Arc<Mutex<Range<u64>>>,
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

/// A DEFAULT whose literals of timestamptz name the instants that they are in this zone; `None` for one in which every zone reads the same.
pub(super) fn default_in_zone(expression: &str, column_type: ColumnType, zone: Zone) -> Option<String> {
    let mut parsed = parse_expression(expression).ok()?;
    let mut instants = Instants { zone, changed: false };
    if let (ast::Expr::Value(value), ColumnType::TimestampTz) = (&mut parsed, column_type) {
        instants.settle(&mut value.value);
    }
    let _all = VisitMut::visit(&mut parsed, &mut instants);
    instants.changed.then(|| parsed.to_string())
}

struct Instants {
    zone: Zone,
    changed: bool,
}

impl Instants {
    fn settle(&mut self, literal: &mut ast::Value) {
        let ast::Value::SingleQuotedString(text) = literal else { return };
        // What is no time is refused by whoever reads it.
        let (Ok(here), Ok(elsewhere)) = (parse_timestamptz(text, &self.zone), parse_timestamptz(text, &ELSEWHERE))
        else {
            return;
        };
        if here != elsewhere {
            text.clear();
            write::timestamptz(text, here, &Zone::UTC);
            self.changed = true;
        }
    }
}

impl VisitorMut for Instants {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        let is_instant = |sql: &ast::DataType| {
            matches!(sql, ast::DataType::Timestamp(_, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone))
        };
        match expr {
            ast::Expr::TypedString(typed) if is_instant(&typed.data_type) => self.settle(&mut typed.value.value),
            ast::Expr::Cast { expr, data_type, .. } if is_instant(data_type) => {
                if let ast::Expr::Value(value) = expr.as_mut() {
                    self.settle(&mut value.value);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Session {
    /// A DEFAULT that is another for each row, as `random()` is; `None` for one that is the same in all rows of a statement.
    pub(super) async fn each_default(&self, expression: &str) -> Result<Option<DefaultValue>, Error> {
        let mut parsed = parse_expression(expression)?;
        calls::rewrite(&mut parsed)?;
        modifiers::apply(&mut parsed)?;
        let functions = self.base.scalar_functions();
        let is_volatile = |name: &str| {
            functions.get(&name.to_lowercase()).is_some_and(|f| f.signature().volatility == Volatility::Volatile)
        };
        let found = ast::visit_expressions(&parsed, |part| match part {
            ast::Expr::Function(call) if is_volatile(&call.name.to_string()) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        if found.is_continue() {
            return Ok(None);
        }
        let state = self.begun(self.planning_state());
        let planned = self.engine().work(async move {
            let nothing = Arc::new(DFSchema::empty());
            let expr = checks::analyzed(&state, parsed, &nothing)?;
            state.create_physical_expr(expr, &nothing)
        });
        planned
            .await
            .map(|expr| Some(DefaultValue::Each(expr)))
            .map_err(|error| report::report(error, "", 0, &Known::default()))
    }
}

impl DefaultValue {
    /// NULL.
    pub(crate) fn none() -> DefaultValue {
        DefaultValue::Value(ScalarValue::Null)
    }

    /// The numbers of `column`, which has an identity, for `rows` rows and more if need be.
    ///
    /// # Errors
    /// When the catalog gives none.
    pub(crate) async fn numbers(
        node: &Arc<Node>,
        table: &TableDefinition,
        (column, identity): (&Column, Identity),
        rows: u64,
    ) -> Result<DefaultValue, Error> {
        let taken = if rows > 0 { node.take_numbers(table.id, column.id, rows).await? } else { 0..0 };
        let (node, name, taken) = (Arc::clone(node), sequence_name(table, column), Arc::new(Mutex::new(taken)));
        Ok(DefaultValue::Numbers(Numbers { node, table: table.id, identity, name, taken }))
    }

    /// The values of `count` rows.
    ///
    /// # Errors
    /// 22xxx for a value that does not fit the column, 2200H when its numbers are used up.
    pub(crate) fn column(&self, column: &Column, count: usize) -> Result<ArrayRef, Error> {
        match self {
            DefaultValue::Value(value) => default_column(value, column, count),
            DefaultValue::Numbers(numbers) => numbers.take(column, count),
            DefaultValue::Each(expression) => {
                let options = RecordBatchOptions::new().with_row_count(Some(count));
                let rows = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options);
                let values = rows.map_err(DataFusionError::from).and_then(|rows| expression.evaluate(&rows));
                let values = values.and_then(|values| values.into_array(count));
                let values = values.map_err(|error| report::report(error, "", 0, &Known::default()))?;
                assign(&values, column, Zone::UTC)
            }
        }
    }

    /// The value of one row.
    ///
    /// # Errors
    /// As [`DefaultValue::column`].
    pub(crate) fn one(&self, column: &Column) -> Result<ScalarValue, Error> {
        match self {
            DefaultValue::Value(value) => Ok(value.clone()),
            DefaultValue::Numbers(_) | DefaultValue::Each(_) => {
                ScalarValue::try_from_array(&self.column(column, 1)?, 0)
                    .map_err(|error| Error::report(Condition::Internal, error.to_string()))
            }
        }
    }
}

impl Numbers {
    fn take(&self, column: &Column, count: usize) -> Result<ArrayRef, Error> {
        let count = count as u64;
        let mut numbers = {
            let mut taken = self.taken.lock();
            let end = taken.end.min(taken.start + count);
            let first = std::mem::replace(&mut taken.start, end);
            first..end
        };
        let missing = count - (numbers.end - numbers.start);
        let mut more = 0..0;
        if missing > 0 {
            more = self.node.take_numbers_waiting(self.table, column.id, missing)?;
        }
        let largest = match column.column_type {
            ColumnType::SmallInt => i64::from(i16::MAX),
            ColumnType::Integer => i64::from(i32::MAX),
            _ => i64::MAX,
        };
        let end = if more.is_empty() { numbers.end } else { more.end };
        let last = i64::try_from(end).ok().and_then(|end| self.identity.start.checked_add(end - 1));
        if count > 0 && last.is_none_or(|last| last > largest) {
            let message = format!("nextval: reached maximum value of sequence \"{}\" ({largest})", self.name);
            return Err(Error::report(Condition::SequenceLimitExceeded, message));
        }
        let all = numbers.by_ref().chain(more).map(|number| self.identity.start + number.cast_signed());
        let numbers = Int64Array::from_iter_values(all);
        cast(&numbers, &column.column_type.arrow())
            .map_err(|error| Error::report(Condition::Internal, error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_those_of_the_zone_where_they_are_written() {
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        let settled = |text: &str| default_in_zone(text, ColumnType::TimestampTz, berlin);
        assert_eq!(settled("'2024-01-01 12:00'").as_deref(), Some("'2024-01-01 11:00:00+00'"));
        assert_eq!(
            settled("timestamptz '2024-07-01' + interval '1 day'").as_deref(),
            Some("TIMESTAMPTZ '2024-06-30 22:00:00+00' + CAST('1 day' AS INTERVAL)")
        );
        assert_eq!(settled("'2024-01-01 12:00+00'"), None);
        assert_eq!(settled("now()"), None);
        assert_eq!(default_in_zone("'2024-01-01 12:00'", ColumnType::Timestamp, berlin), None);
    }
}
