//! A parameter of an operator has the type that PostgreSQL finds for it where that is not the type beside it, or where what stands beside it gets
//! its own type later.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::sql::sqlparser::ast::BinaryOperator;

/// Gives parameters their types before anybody else plans the operator.
#[derive(Debug)]
pub(crate) struct ParametersBeside;

impl ExprPlanner for ParametersBeside {
    fn plan_binary_op(&self, mut expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let (is_left, is_right) = (is_untyped(&expr.left), is_untyped(&expr.right));
        let of_left = is_left.then(|| type_beside(&expr.right, &expr.op, schema)).flatten();
        let of_right = is_right.then(|| type_beside(&expr.left, &expr.op, schema)).flatten();
        for (side, found) in [(&mut expr.left, of_left), (&mut expr.right, of_right)] {
            if let (Expr::Placeholder(parameter), Some(found)) = (side, found) {
                parameter.field = Some(Arc::new(Field::new("", found, true)));
            }
        }
        Ok(PlannerResult::Original(expr))
    }
}

fn is_untyped(expr: &Expr) -> bool {
    matches!(expr, Expr::Placeholder(Placeholder { field: None, .. }))
}

fn type_beside(other: &Expr, op: &BinaryOperator, schema: &DFSchema) -> Option<DataType> {
    use BinaryOperator::{Divide, Minus, Multiply, Plus};
    // A whole number that was written is an integer when it fits one, as it will be.
    if let Expr::Literal(ScalarValue::Int64(Some(number)), _) = other {
        return i32::try_from(*number).is_ok().then_some(DataType::Int32);
    }
    match (other.get_type(schema).ok()?, op) {
        (DataType::Timestamp(..), Plus) => Some(DataType::Interval(IntervalUnit::MonthDayNano)),
        (time @ (DataType::Timestamp(..) | DataType::Date32), Minus) => Some(time),
        (DataType::Interval(_), Multiply | Divide) => Some(DataType::Float64),
        _ => None,
    }
}
