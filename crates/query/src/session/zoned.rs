//! What depends on the session's time zone: the fields of a timestamptz, where it is cut off, and the date and the time that a clock shows.
//!
//! The library does all of that in UTC. In another zone an instant goes through `timezone(zone, instant)`, what clocks there show, and what is
//! cut off comes back the same way. In UTC nothing is changed, so that predicates prune as ever.

use std::ops::ControlFlow;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{BinaryExpr, Cast, ScalarFunction};
use datafusion::logical_expr::{Expr, ExprSchemable, Operator, cast, lit};
use datafusion::sql::sqlparser::ast::{
    Expr as Written, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Statement as Ast, Value, VisitMut,
    VisitorMut,
};

use super::insert::parse_expression;
use super::pg_catalog::{SAME_OFFSET, same_offset, timezone};
use crate::functions::{EXTRACT, is_within_day, shift};
use crate::text::Zone;

/// Fields that are the same wherever clocks are.
const ABSOLUTE: [&str; 4] = ["epoch", "timezone", "timezone_hour", "timezone_minute"];

/// The expression as the zone has it, `None` when it does not depend on it.
pub(super) fn in_zone(expr: &Expr, zone: &Zone, schema: &DFSchema) -> Option<Expr> {
    if *zone == Zone::UTC {
        return None;
    }
    let is_instant = |expr: &Expr| matches!(expr.get_type(schema), Ok(DataType::Timestamp(_, Some(_))));
    match expr {
        Expr::Cast(Cast { expr: inner, field }) if is_instant(inner) => {
            let shown =
                matches!(field.data_type(), DataType::Date32 | DataType::Time64(_) | DataType::Timestamp(_, None));
            let local = || Box::new(through(zone, inner.as_ref().clone()));
            shown.then(|| Expr::Cast(Cast { expr: local(), field: field.clone() }))
        }
        // What clocks there show, or the date that begins there, is an instant.
        Expr::Cast(Cast { expr: inner, field }) if matches!(field.data_type(), DataType::Timestamp(_, Some(_))) => {
            let shown = inner.get_type(schema);
            let local = DataType::Timestamp(TimeUnit::Microsecond, None);
            let local = match shown {
                Ok(DataType::Timestamp(TimeUnit::Microsecond, None)) => inner.as_ref().clone(),
                Ok(DataType::Timestamp(_, None) | DataType::Date32) => cast(inner.as_ref().clone(), local),
                _ => return None,
            };
            Some(Expr::Cast(Cast { expr: Box::new(through(zone, local)), field: field.clone() }))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) => {
            let is_interval = |expr: &Expr| matches!(expr.get_type(schema), Ok(DataType::Interval(_)));
            match (left.as_ref(), right.as_ref()) {
                (instant, interval) if is_instant(instant) && is_interval(interval) => {
                    let interval = interval.clone();
                    let by = if *op == Operator::Minus { Expr::Negative(Box::new(interval)) } else { interval };
                    Some(shifted(zone, instant.clone(), by))
                }
                (interval, instant) if *op == Operator::Plus && is_interval(interval) && is_instant(instant) => {
                    Some(shifted(zone, instant.clone(), interval.clone()))
                }
                _ => None,
            }
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let [field, time] = args.as_slice() else { return None };
            if !is_instant(time) {
                return None;
            }
            let call = || {
                let args = vec![field.clone(), through(zone, time.clone())];
                Expr::ScalarFunction(ScalarFunction::new_udf(func.clone(), args))
            };
            match func.name() {
                "date_part" | EXTRACT if !is_absolute(field) => Some(call()),
                // Within a day clocks keep their distance from UTC, which tells equal hours apart.
                "date_trunc" if text(field).is_some_and(is_within_day) => {
                    let args = vec![name_of(zone), call(), time.clone()];
                    Some(Expr::ScalarFunction(ScalarFunction::new_udf(same_offset(), args)))
                }
                "date_trunc" => Some(through(zone, call())),
                _ => None,
            }
        }
        _ => None,
    }
}

fn is_absolute(field: &Expr) -> bool {
    text(field).is_some_and(|name| ABSOLUTE.iter().any(|known| name.eq_ignore_ascii_case(known)))
}

fn text(field: &Expr) -> Option<&str> {
    match field {
        Expr::Literal(ScalarValue::Utf8(Some(name)), _) => Some(name),
        _ => None,
    }
}

/// What clocks show at an instant, or the instant at which they show it.
fn through(zone: &Zone, time: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(timezone(), vec![name_of(zone), time]))
}

/// A zone as `timezone` takes it.
fn name_of(zone: &Zone) -> Expr {
    lit(match zone {
        // There an offset counts west of UTC, as POSIX has it.
        Zone::Fixed(seconds) => Zone::Fixed(-seconds).to_string(),
        named => named.to_string(),
    })
}

/// An instant moved by an interval as clocks of the zone are.
fn shifted(zone: &Zone, instant: Expr, interval: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(shift(), vec![lit(zone.to_string()), instant, interval]))
}

/// `date_trunc(field, time, zone)` cuts off in that zone; the library's function takes none. The columns of the statement are named already.
pub(super) fn cut_off_in_zone(statement: &mut Ast) {
    let _all = VisitMut::visit(statement, &mut Calls);
}

struct Calls;

impl VisitorMut for Calls {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Written) -> ControlFlow<()> {
        if let Written::Function(Function { name, args: FunctionArguments::List(list), .. }) = expr
            && name.to_string().eq_ignore_ascii_case("date_trunc")
            && let [
                FunctionArg::Unnamed(FunctionArgExpr::Expr(field)),
                FunctionArg::Unnamed(FunctionArgExpr::Expr(time)),
                FunctionArg::Unnamed(FunctionArgExpr::Expr(zone)),
            ] = list.args.as_slice()
        {
            let instant = format!("CAST({time} AS timestamptz)");
            let cut_off = format!("date_trunc({field}, timezone({zone}, {instant}))");
            let text = match field {
                Written::Value(value) if matches!(&value.value, Value::SingleQuotedString(field) if is_within_day(field)) =>
                {
                    format!("{SAME_OFFSET}({zone}, {cut_off}, {instant})")
                }
                _ => format!("timezone({zone}, {cut_off})"),
            };
            if let Ok(call) = parse_expression(&text) {
                *expr = call;
            }
        }
        ControlFlow::Continue(())
    }
}
