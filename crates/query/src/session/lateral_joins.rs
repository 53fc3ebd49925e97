//! `JOIN LATERAL (SELECT ...)` that depends on the rows before it in a way that the library cannot take apart.

use datafusion::common::alias::AliasGenerator;
use datafusion::common::{JoinType, Result};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::decorrelate::PullUpCorrelatedExpr;

use super::dependent::{self, all_renamed};
use super::pull_up::{lateral, pulled_up};

/// The join with the subquery evaluated for all rows of the other side at once; `None` for a join that is none of these.
pub(super) fn apart(join: &Join, names: &AliasGenerator) -> Result<Option<LogicalPlan>> {
    let Some(subquery) = lateral(&join.right) else { return Ok(None) };
    let is_known = matches!(join.join_type, JoinType::Inner | JoinType::Left) && join.on.is_empty();
    if !is_known || subquery.subquery.all_out_ref_exprs().is_empty() || can_be_joined(&subquery.subquery)? {
        return Ok(None);
    }
    let Some(apart) = dependent::apart(&subquery.subquery, &join.left, names, false)? else { return Ok(None) };
    let columns = all_renamed(&subquery.subquery, join.right.schema().columns());
    let filter = conjunction(join.filter.clone().into_iter().chain([apart.condition()]));
    let keys = apart.keys();
    let right = LogicalPlanBuilder::from(apart.plan).project(columns.chain(keys).collect::<Vec<_>>())?.build()?;
    let joined = LogicalPlanBuilder::from(join.left.as_ref().clone()).join_on(right, join.join_type, filter)?;
    joined.project(join.schema.columns().into_iter().map(Expr::Column))?.build().map(Some)
}

/// Whether the library takes it apart. HAVING it does not know there.
fn can_be_joined(subquery: &LogicalPlan) -> Result<bool> {
    let pulled = pulled_up(subquery, PullUpCorrelatedExpr::new().with_need_handle_count_bug(true))?;
    Ok(pulled.is_some_and(|(_, pull_up)| pull_up.pull_up_having_expr.is_none()))
}
