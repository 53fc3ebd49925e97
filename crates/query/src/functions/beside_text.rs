//! `1 + '2'`: text beside a number in arithmetic is a number of that type, which the library does not plan.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, cast, lit};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::text::parse_numeric;

/// Casts the text, so that whoever plans the operator next finds two numbers.
#[derive(Debug)]
pub(crate) struct NumbersBesideText;

impl ExprPlanner for NumbersBesideText {
    fn plan_binary_op(&self, mut expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        use BinaryOperator::{Divide, Minus, Modulo, Multiply, Plus};
        if matches!(expr.op, Plus | Minus | Multiply | Divide | Modulo) {
            let number = |beside: &Expr, side: &Expr| is_text(beside).then(|| number_type(side, schema)).flatten();
            let (left, right) = (number(&expr.left, &expr.right), number(&expr.right, &expr.left));
            match (left, right) {
                (Some(number), _) => expr.left = read_as(expr.left, number),
                (_, Some(number)) => expr.right = read_as(expr.right, number),
                (None, None) => {}
            }
        }
        Ok(PlannerResult::Original(expr))
    }
}

/// Beside a numeric it has the digits that it has.
fn read_as(text: Expr, number: DataType) -> Expr {
    match (&number, text.as_literal().and_then(|text| text.try_as_str().flatten()).map(parse_numeric)) {
        (DataType::Decimal128(..), Some(Ok(numeric))) => lit(numeric),
        _ => cast(text, number),
    }
}

fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(_)), _))
}

/// The type of a number. A whole one that was written is an integer when it fits one, as it will be.
fn number_type(expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    match expr {
        Expr::Literal(ScalarValue::Int64(Some(number)), _) if i32::try_from(*number).is_ok() => Some(DataType::Int32),
        other => other.get_type(schema).ok().filter(DataType::is_numeric),
    }
}
