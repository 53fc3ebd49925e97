//! What the library can take apart of a subquery that depends on the rows around it.

use datafusion::common::tree_node::{TransformedResult, TreeNode};
use datafusion::common::{JoinType, Result};
use datafusion::logical_expr::expr::BinaryExpr;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator, Subquery};
use datafusion::optimizer::decorrelate::PullUpCorrelatedExpr;

/// A subquery without the conditions by which it depends on the rows around it; `None` where the library does not know how to pull them out, and
/// where it does so although they decide what a window, a limit, DISTINCT or the other side of a join sees.
pub(super) fn pulled_up(
    subquery: &LogicalPlan,
    mut pull_up: PullUpCorrelatedExpr,
) -> Result<Option<(LogicalPlan, PullUpCorrelatedExpr)>> {
    if looks_at_all(subquery) {
        return Ok(None);
    }
    let pulled = subquery.clone().rewrite(&mut pull_up).data()?;
    // Rows that differ in what must be equal to a column outside are those of different rows there.
    let apart = pull_up.join_filters.iter().all(is_equality);
    let is_known = pull_up.can_pull_up && (apart || !subquery.exists(|plan| Ok(is_distinct(plan)))?);
    Ok(is_known.then_some((pulled, pull_up)))
}

fn depends(plan: &LogicalPlan) -> bool {
    !plan.all_out_ref_exprs().is_empty()
}

/// Whether something gives another result when conditions below it are asked above it, or is not looked into.
fn looks_at_all(plan: &LogicalPlan) -> bool {
    let here = match plan {
        LogicalPlan::Join(join) => match join.join_type {
            JoinType::Inner => false,
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => depends(&join.right),
            _ => depends(plan),
        },
        LogicalPlan::Window(_) | LogicalPlan::Limit(_) | LogicalPlan::Subquery(_) => depends(plan),
        _ => false,
    };
    let is_join = matches!(plan, LogicalPlan::Join(_));
    // What stands behind LATERAL in a join depends on the other side of it.
    here || plan.inputs().into_iter().any(|input| !(is_join && lateral(input).is_some()) && looks_at_all(input))
}

/// The subquery that stands behind LATERAL.
pub(super) fn lateral(plan: &LogicalPlan) -> Option<&Subquery> {
    match plan {
        LogicalPlan::Subquery(subquery) => Some(subquery),
        LogicalPlan::SubqueryAlias(alias) => lateral(&alias.input),
        _ => None,
    }
}

fn is_distinct(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Distinct(_)) && depends(plan)
}

fn is_equality(condition: &Expr) -> bool {
    matches!(condition, Expr::BinaryExpr(BinaryExpr { op: Operator::Eq, .. }))
}
