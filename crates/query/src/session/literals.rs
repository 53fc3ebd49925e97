//! Text literals read as PostgreSQL reads them, and timestamps as fine as the tables keep them.
//!
//! Where a statement compares or casts a text literal, the library would read it in its own syntax, in UTC, and refuse it in its own
//! words. After types are settled and before anything is folded, each such literal becomes a value of its type here.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};
use datafusion::optimizer::AnalyzerRule;
use datafusion::sql::sqlparser::ast::{DataType as SqlType, TimezoneInfo};

use crate::error::Error;
use crate::text::{Zone, parse_scalar};

/// Turns casts of text literals into values.
#[derive(Debug)]
pub(crate) struct ReadLiterals;

impl AnalyzerRule for ReadLiterals {
    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let zone = config.execution.time_zone.as_deref().and_then(Zone::parse).unwrap_or(Zone::UTC);
        let read = plan.transform_up_with_subqueries(|plan| {
            let names = NamePreserver::new(&plan);
            let changed = plan.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(expr.transform_up(|expr| value_of(expr, &zone))?.update_data(|expr| name.restore(expr)))
            })?;
            if changed.transformed { changed.map_data(LogicalPlan::recompute_schema) } else { Ok(changed) }
        });
        Ok(read?.data)
    }

    fn name(&self) -> &'static str {
        "read_literals"
    }
}

fn value_of(expr: Expr, zone: &Zone) -> Result<Transformed<Expr>> {
    let Expr::Cast(Cast { expr: inner, field }) = &expr else { return Ok(Transformed::no(expr)) };
    let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = inner.as_ref() else { return Ok(Transformed::no(expr)) };
    if !is_read(field.data_type()) {
        return Ok(Transformed::no(expr));
    }
    let value = parse_scalar(text, field.data_type(), zone)
        .map_err(|refused| DataFusionError::External(Box::new(Error::Reported(refused))))?;
    Ok(Transformed::yes(Expr::Literal(value, None)))
}

/// A number that is a column of the result is an integer when it fits one; the library has them all as bigint, and a client that asks
/// for an integer would be refused.
pub(crate) fn narrow(plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Projection(projection) = plan else { return Ok(plan) };
    let narrow_one = |expr: Expr| match expr {
        Expr::Literal(ScalarValue::Int64(Some(number)), facts) => match i32::try_from(number) {
            Ok(number) => Expr::Literal(ScalarValue::Int32(Some(number)), facts),
            Err(_) => Expr::Literal(ScalarValue::Int64(Some(number)), facts),
        },
        other => other,
    };
    let columns = projection.expr.into_iter().map(|expr| match expr {
        Expr::Alias(mut alias) => {
            alias.expr = Box::new(narrow_one(*alias.expr));
            Expr::Alias(alias)
        }
        other => other,
    });
    Ok(LogicalPlan::Projection(Projection::try_new(columns.collect(), projection.input)?))
}

/// The types whose text form is PostgreSQL's business; intervals and lists are read by the library.
fn is_read(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal128(_, _)
            | DataType::Boolean
            | DataType::Date32
            | DataType::Timestamp(_, _)
    )
}

/// Timestamps of SQL are microseconds, as in tables: coarser than the library's own, and with PostgreSQL's range.
#[derive(Debug)]
pub(crate) struct Microseconds(pub(crate) Option<Arc<dyn TypePlanner>>);

impl TypePlanner for Microseconds {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        let zone = match sql_type {
            SqlType::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) | SqlType::Datetime(_) => None,
            SqlType::Timestamp(_, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => Some("UTC".into()),
            _ => return self.0.as_ref().map_or(Ok(None), |next| next.plan_type_field(sql_type)),
        };
        let data_type = DataType::Timestamp(TimeUnit::Microsecond, zone);
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}
