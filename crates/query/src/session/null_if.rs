//! `NULLIF(a, b)`: the value `a` of `a = b`, which is NULL where they are equal.
//!
//! The library compares both as the one type that it finds for them, and gives that. In PostgreSQL they are compared as `=` compares them, and
//! the result has the type that the first has there: an integer beside a bigint stays one, beside a double it is a double.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, cast, lit, when};

use super::numbers;

/// What a call of NULLIF compares; `None` for anything else, and where the value would be another each time, or is not known yet.
pub(super) fn of_call(expr: &Expr) -> Option<(Expr, Expr)> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return None };
    let [value, other] = args.as_slice() else { return None };
    let is_open = |part: &Expr| Ok(matches!(part, Expr::Placeholder(_)));
    if func.name() != "nullif" || value.is_volatile() || value.exists(is_open).unwrap_or(true) {
        return None;
    }
    Some((value.clone(), other.clone()))
}

/// NULL where `equal`, else the value in the type in which it is compared with `other`.
///
/// # Errors
/// Internal.
pub(super) fn equal(value: Expr, equal: Expr, other: Expr, schema: &DFSchema) -> Result<Expr> {
    when(equal, lit(ScalarValue::Null)).otherwise(as_compared(value, &other, schema))
}

fn as_compared(value: Expr, other: &Expr, schema: &DFSchema) -> Expr {
    let (Ok(of_value), Ok(of_other)) = (value.get_type(schema), other.get_type(schema)) else { return value };
    let is_exact = |data_type: &DataType| data_type.is_integer() || data_type.is_decimal();
    match (&of_value, &of_other) {
        (exact, DataType::Float32 | DataType::Float64) if is_exact(exact) => cast(value, DataType::Float64),
        (integer, numeric) if integer.is_integer() && numeric.is_decimal() => numbers::to_any_numeric(value, schema),
        // A text that is written is one of the other's type.
        (DataType::Utf8, other) if !other.is_string() && !other.is_null() && matches!(value, Expr::Literal(..)) => {
            cast(value, other.clone())
        }
        _ => value,
    }
}
