//! `x IS TRUE` and its kin in what a plan computes, as the library computes them.
//!
//! It says of them that they are never NULL, and of what it computes in their place that it may be where `x` may be. An aggregate over such a column
//! is refused then: its input is not what was planned. So they are planned as what they become.

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::{Expr, Operator, binary_expr, lit};

/// The expression in the operators that are computed.
pub(super) fn as_computed(expr: Expr) -> Result<Transformed<Expr>> {
    let is = |expr: Expr, value: bool| Transformed::yes(binary_expr(expr, Operator::IsNotDistinctFrom, lit(value)));
    let is_not = |expr: Expr, value: bool| Transformed::yes(binary_expr(expr, Operator::IsDistinctFrom, lit(value)));
    expr.transform_up(|expr| {
        Ok(match expr {
            Expr::IsTrue(tested) => is(*tested, true),
            Expr::IsFalse(tested) => is(*tested, false),
            Expr::IsNotTrue(tested) => is_not(*tested, true),
            Expr::IsNotFalse(tested) => is_not(*tested, false),
            Expr::IsUnknown(tested) => Transformed::yes(tested.is_null()),
            Expr::IsNotUnknown(tested) => Transformed::yes(tested.is_not_null()),
            other => Transformed::no(other),
        })
    })
}
