//! What the library does not plan, or plans otherwise, where intervals are: products, differences of times, and what is longer.

use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray, Int64Array, IntervalMonthDayNanoArray};
use arrow::datatypes::{
    DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_fn::SimpleScalarUDF;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Operator, ScalarUDF, Signature, Volatility, binary_expr, cast,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::error::{Condition, Error};

const NS_PER_US: i64 = 1000;
const DAY_US: i64 = 86_400_000_000;
const DAY_NS: f64 = 86_400e9;
const MONTH_DAYS: f64 = 30.0;
const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

static MULTIPLY: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| product("interval_mul", |interval, factor| Some(scaled(interval, factor))));
static DIVIDE: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| product("interval_div", |interval, by| (by != 0.0).then(|| scaled(interval, by.recip()))));
static LENGTH: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let signature = Signature::exact(vec![INTERVAL], Volatility::Immutable);
    let answer = |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let intervals = arrays[0].as_primitive::<IntervalMonthDayNanoType>();
        let lengths = intervals
            .iter()
            .map(|interval| interval.map(|interval| length_us(interval).ok_or_else(too_long)).transpose());
        Ok(ColumnarValue::Array(Arc::new(lengths.collect::<Result<Int64Array>>()?)))
    };
    let function = SimpleScalarUDF::new_with_signature("interval_length", signature, DataType::Int64, Arc::new(answer));
    Arc::new(ScalarUDF::from(function))
});

/// An expression for how long an interval is, in microseconds: by it intervals are ordered, and equal ones may be written in several ways.
pub(crate) fn length(interval: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&LENGTH), vec![interval]))
}

/// Whether a type is that of intervals.
pub(crate) fn is_interval(data_type: &DataType) -> bool {
    *data_type == INTERVAL
}

/// The type of the time at which a date begins.
const BEGIN_OF_DATE: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// Plans products, differences, and what is added to dates.
#[derive(Debug)]
pub(crate) struct IntervalArithmetic;

impl ExprPlanner for IntervalArithmetic {
    fn plan_binary_op(&self, mut expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        use BinaryOperator::{Divide, Eq, Gt, GtEq, Lt, LtEq, Minus, Multiply, NotEq, Plus};
        let is_planned = matches!(expr.op, Multiply | Divide | Plus | Minus | Eq | NotEq | Lt | LtEq | Gt | GtEq);
        if !is_planned {
            return Ok(PlannerResult::Original(expr));
        }
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(expr));
        };
        let call = |function: &Arc<ScalarUDF>, arguments| {
            let call = ScalarFunction::new_udf(Arc::clone(function), arguments);
            Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
        };
        let times = |interval: &Expr, factor: &Expr| {
            vec![cast(interval.clone(), INTERVAL), cast(factor.clone(), DataType::Float64)]
        };
        let is_interval = |data_type: &DataType| matches!(data_type, DataType::Interval(_));
        let is_timestamp = |data_type: &DataType| matches!(data_type, DataType::Timestamp(..));
        match expr.op {
            Multiply if is_interval(&left) && right.is_numeric() => call(&MULTIPLY, times(&expr.left, &expr.right)),
            Multiply if left.is_numeric() && is_interval(&right) => call(&MULTIPLY, times(&expr.right, &expr.left)),
            Divide if is_interval(&left) && right.is_numeric() => call(&DIVIDE, times(&expr.left, &expr.right)),
            // A date has no hours to add to: it is the time at which it begins.
            Plus | Minus if left == DataType::Date32 && is_interval(&right) => {
                expr.left = cast(expr.left, BEGIN_OF_DATE);
                Ok(PlannerResult::Original(expr))
            }
            Plus if is_interval(&left) && right == DataType::Date32 => {
                expr.right = cast(expr.right, BEGIN_OF_DATE);
                Ok(PlannerResult::Original(expr))
            }
            // Text of no type is what can be added: beside an interval or a time, an interval. A difference of times is planned below.
            Plus if is_text(&expr.right) && (is_interval(&left) || is_timestamp(&left)) => {
                expr.right = cast(expr.right, INTERVAL);
                Ok(PlannerResult::Original(expr))
            }
            Plus if is_text(&expr.left) && (is_interval(&right) || is_timestamp(&right)) => {
                expr.left = cast(expr.left, INTERVAL);
                Ok(PlannerResult::Original(expr))
            }
            Minus if is_interval(&left) && is_text(&expr.right) => {
                expr.right = cast(expr.right, INTERVAL);
                Ok(PlannerResult::Original(expr))
            }
            Minus if is_text(&expr.left) && is_interval(&right) => {
                expr.left = cast(expr.left, INTERVAL);
                Ok(PlannerResult::Original(expr))
            }
            Minus => match difference_type(&expr, &left, &right) {
                Some(DataType::Date32) => {
                    // Days, which the library counts in 64 bits.
                    let [left, right] = [expr.left, expr.right].map(|date| cast(date, DataType::Date32));
                    let days = binary_expr(left, Operator::Minus, right);
                    Ok(PlannerResult::Planned(cast(days, DataType::Int32)))
                }
                Some(of) => {
                    let arguments = vec![cast(expr.left, of.clone()), cast(expr.right, of.clone())];
                    call(&difference(of), arguments)
                }
                None => Ok(PlannerResult::Original(expr)),
            },
            Eq | NotEq | Lt | LtEq | Gt | GtEq => {
                if is_interval(&left) && is_text(&expr.right) {
                    expr.right = cast(expr.right, INTERVAL);
                } else if is_interval(&right) && is_text(&expr.left) {
                    expr.left = cast(expr.left, INTERVAL);
                }
                Ok(PlannerResult::Original(expr))
            }
            _ => Ok(PlannerResult::Original(expr)),
        }
    }
}

fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(_)), _))
}

/// The type in which two times are subtracted from each other: that of an instant when one is an instant; `None` when they are not two
/// times.
fn difference_type(expr: &RawBinaryExpr, left: &DataType, right: &DataType) -> Option<DataType> {
    let is_time = |data_type: &DataType| matches!(data_type, DataType::Timestamp(..) | DataType::Date32);
    let are_times = (is_time(left) || is_text(&expr.left)) && (is_time(right) || is_text(&expr.right));
    if !are_times || !(is_time(left) || is_time(right)) {
        return None;
    }
    let any = |which: fn(&DataType) -> bool| which(left) || which(right);
    Some(if any(|side| matches!(side, DataType::Timestamp(_, Some(_)))) {
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
    } else if any(|side| matches!(side, DataType::Timestamp(_, None))) {
        DataType::Timestamp(TimeUnit::Microsecond, None)
    } else {
        DataType::Date32
    })
}

fn difference(of: DataType) -> Arc<ScalarUDF> {
    let answer = |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let (left, right) = (
            arrays[0].as_primitive::<TimestampMicrosecondType>(),
            arrays[1].as_primitive::<TimestampMicrosecondType>(),
        );
        let differences = left.iter().zip(right).map(|pair| match pair {
            (Some(left), Some(right)) => left.checked_sub(right).map(of_us).map(Some).ok_or_else(too_long),
            _ => Ok(None),
        });
        Ok(ColumnarValue::Array(Arc::new(differences.collect::<Result<IntervalMonthDayNanoArray>>()?)))
    };
    let signature = Signature::exact(vec![of.clone(), of], Volatility::Immutable);
    Arc::new(ScalarUDF::from(SimpleScalarUDF::new_with_signature(
        "time_difference",
        signature,
        INTERVAL,
        Arc::new(answer),
    )))
}

/// Days and what is left of microseconds, as the difference of two times has them.
fn of_us(us: i64) -> IntervalMonthDayNano {
    // 292,000 years have fewer days than an i32 counts.
    IntervalMonthDayNano::new(0, (us / DAY_US) as i32, us % DAY_US * NS_PER_US)
}

/// Microseconds of an interval whose months have 30 days.
pub(super) fn length_us(interval: IntervalMonthDayNano) -> Option<i64> {
    let days = i64::from(interval.months) * 30 + i64::from(interval.days);
    days.checked_mul(DAY_US)?.checked_add(interval.nanoseconds / NS_PER_US)
}

/// The average of a sum of intervals.
pub(super) fn divided(sum: IntervalMonthDayNano, by: u64) -> IntervalMonthDayNano {
    scaled(sum, (by as f64).recip())
}

pub(super) fn too_long() -> DataFusionError {
    DataFusionError::External(Box::new(Error::report(Condition::DatetimeOverflow, "interval out of range")))
}

fn product(name: &str, compute: fn(IntervalMonthDayNano, f64) -> Option<IntervalMonthDayNano>) -> Arc<ScalarUDF> {
    let answer = Arc::new(move |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let intervals = arrays[0].as_primitive::<IntervalMonthDayNanoType>();
        let factors = arrays[1].as_primitive::<Float64Type>();
        let products = intervals.iter().zip(factors).map(|pair| match pair {
            (Some(interval), Some(factor)) => compute(interval, factor).map(Some).ok_or_else(division_by_zero),
            _ => Ok(None),
        });
        let products: IntervalMonthDayNanoArray = products.collect::<Result<_>>()?;
        Ok(ColumnarValue::Array(Arc::new(products)))
    });
    let signature = Signature::exact(vec![INTERVAL, DataType::Float64], Volatility::Immutable);
    Arc::new(ScalarUDF::from(SimpleScalarUDF::new_with_signature(name, signature, INTERVAL, answer)))
}

fn division_by_zero() -> DataFusionError {
    DataFusionError::External(Box::new(Error::report(Condition::DivisionByZero, "division by zero")))
}

/// As PostgreSQL: a part of a month becomes days of which a month has 30, a part of a day becomes time.
fn scaled(interval: IntervalMonthDayNano, factor: f64) -> IntervalMonthDayNano {
    let months = f64::from(interval.months) * factor;
    let days = f64::from(interval.days) * factor + months.fract() * MONTH_DAYS;
    // Rounded to microseconds, so that what floats cannot hold does not show.
    let ns = ((interval.nanoseconds as f64 * factor + days.fract() * DAY_NS) / 1e3).round() * 1e3;
    IntervalMonthDayNano::new(months.trunc() as i32, days.trunc() as i32, ns as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(interval: (i32, i32, i64), factor: f64, expected: (i32, i32, i64)) {
        let scaled = scaled(IntervalMonthDayNano::new(interval.0, interval.1, interval.2), factor);
        assert_eq!((scaled.months, scaled.days, scaled.nanoseconds), expected);
    }

    #[test]
    fn parts_go_to_the_next_smaller_unit() {
        check((0, 0, 60_000_000_000), 90.0, (0, 0, 5_400_000_000_000));
        check((1, 0, 0), 1.5, (1, 15, 0));
        check((0, 1, 0), 0.5, (0, 0, 43_200_000_000_000));
        check((0, 0, 1_000_000_000), 0.1, (0, 0, 100_000_000));
        check((0, 7, 0), -2.0, (0, -14, 0));
    }
    #[test]
    fn a_difference_is_days_and_time_and_as_long() {
        for us in [0, 1, -1, DAY_US, -DAY_US - 5, i64::MAX, i64::MIN + 1] {
            let interval = of_us(us);
            assert_eq!(length_us(interval), Some(us));
            assert!(interval.nanoseconds.abs() < DAY_US * NS_PER_US);
        }
        assert_eq!(length_us(IntervalMonthDayNano::new(1, 0, 0)), length_us(IntervalMonthDayNano::new(0, 30, 0)));
        assert_eq!(length_us(IntervalMonthDayNano::new(i32::MAX, 0, 0)), None);
    }
}
