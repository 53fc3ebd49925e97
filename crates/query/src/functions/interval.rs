//! `interval * number`, `number * interval` and `interval / number`, which the library does not plan.

use std::sync::Arc;

use arrow::array::{AsArray, IntervalMonthDayNanoArray};
use arrow::datatypes::{DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::logical_expr::expr_fn::SimpleScalarUDF;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{ColumnarValue, Expr, ExprSchemable, ScalarUDF, Signature, Volatility, cast};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::error::{Condition, Error};

const DAY_NS: f64 = 86_400e9;
const MONTH_DAYS: f64 = 30.0;
const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// Plans the products.
#[derive(Debug)]
pub(crate) struct IntervalProducts {
    multiply: Arc<ScalarUDF>,
    divide: Arc<ScalarUDF>,
}

impl IntervalProducts {
    /// The planner with its two functions.
    pub(crate) fn new() -> IntervalProducts {
        IntervalProducts {
            multiply: function("interval_mul", |interval, factor| Some(scaled(interval, factor))),
            divide: function("interval_div", |interval, by| (by != 0.0).then(|| scaled(interval, by.recip()))),
        }
    }
}

impl ExprPlanner for IntervalProducts {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if !matches!(expr.op, BinaryOperator::Multiply | BinaryOperator::Divide) {
            return Ok(PlannerResult::Original(expr));
        }
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(expr));
        };
        let is_interval = |data_type: &DataType| matches!(data_type, DataType::Interval(_));
        let (function, interval, factor) = match expr.op {
            BinaryOperator::Multiply if is_interval(&left) && right.is_numeric() => {
                (&self.multiply, &expr.left, &expr.right)
            }
            BinaryOperator::Multiply if left.is_numeric() && is_interval(&right) => {
                (&self.multiply, &expr.right, &expr.left)
            }
            BinaryOperator::Divide if is_interval(&left) && right.is_numeric() => {
                (&self.divide, &expr.left, &expr.right)
            }
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let arguments = vec![cast(interval.clone(), INTERVAL), cast(factor.clone(), DataType::Float64)];
        Ok(PlannerResult::Planned(Expr::ScalarFunction(datafusion::logical_expr::expr::ScalarFunction::new_udf(
            Arc::clone(function),
            arguments,
        ))))
    }
}

fn function(name: &str, compute: fn(IntervalMonthDayNano, f64) -> Option<IntervalMonthDayNano>) -> Arc<ScalarUDF> {
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
}
