//! INTERSECT ALL and EXCEPT ALL count: of m and n equal rows there are as many as the smaller number, and as many as are left of m without n.
//!
//! The library plans both as joins that ask only whether there is an equal row. Where copies are numbered among their equals, the third copy is
//! found where the other side has a third one as well.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, JoinType, NullEquality, Result};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Distinct, Expr, ExprFunctionExt, Join, LogicalPlan, LogicalPlanBuilder};

/// The number of a copy, on either side.
const COPIES: [&str; 2] = ["annal_left_copy", "annal_right_copy"];

/// Numbers the copies of the rows of such joins. Only set operations make NULL equal to NULL before a plan is optimized, and those without ALL have
/// no equal rows on their left.
pub(super) fn count(plan: LogicalPlan) -> Result<LogicalPlan> {
    Ok(plan.transform_up_with_subqueries(count_one)?.data)
}

fn count_one(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Join(join) = &plan else { return Ok(Transformed::no(plan)) };
    let is_set_operation = matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull;
    if !is_set_operation || matches!(join.left.as_ref(), LogicalPlan::Distinct(Distinct::All(_))) {
        return Ok(Transformed::no(plan));
    }
    let Join { left, right, on, join_type, schema, .. } = join;
    let (left_keys, right_keys): (Vec<Expr>, Vec<Expr>) = on.iter().cloned().unzip();
    let [left, right] = [(left, &left_keys, COPIES[0]), (right, &right_keys, COPIES[1])]
        .map(|(side, keys, name)| numbered(side, keys, name));
    let with_copies = |keys: Vec<Expr>, name: &str| {
        let columns = keys.into_iter().map(|key| key.try_as_col().cloned());
        columns.chain([Some(Column::from_name(name))]).collect::<Option<Vec<_>>>()
    };
    let (Some(left_keys), Some(right_keys)) = (with_copies(left_keys, COPIES[0]), with_copies(right_keys, COPIES[1]))
    else {
        return Ok(Transformed::no(plan));
    };
    let joined = LogicalPlanBuilder::from(left?).join_detailed(
        right?,
        *join_type,
        (left_keys, right_keys),
        None,
        NullEquality::NullEqualsNull,
    )?;
    Ok(Transformed::yes(joined.project(schema.columns().into_iter().map(Expr::Column))?.build()?))
}

/// The rows with the number of each among its equals.
fn numbered(side: &Arc<LogicalPlan>, columns: &[Expr], name: &str) -> Result<LogicalPlan> {
    let number = row_number().partition_by(columns.to_vec()).build()?.alias(name);
    LogicalPlanBuilder::from(Arc::clone(side)).window([number])?.build()
}
