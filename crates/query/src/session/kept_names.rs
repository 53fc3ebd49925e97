//! Names of columns, which stay when what computes them is written otherwise.

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr_rewriter::NamePreserver;

/// Changes an expression of a plan, whose column keeps its name. A grouping set is no column: each of its parts is one.
pub(super) fn changed(
    expr: Expr,
    names: &NamePreserver,
    change: &mut impl FnMut(Expr) -> Result<Transformed<Expr>>,
) -> Result<Transformed<Expr>> {
    if matches!(expr, Expr::GroupingSet(_)) {
        return expr.map_children(|part| changed(part, names, change));
    }
    let name = names.save(&expr);
    Ok(change(expr)?.update_data(|expr| name.restore(expr)))
}
