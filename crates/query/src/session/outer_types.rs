//! Types of the columns outside of a subquery that it refers to.
//!
//! The planner writes them into the reference. Once types are settled as PostgreSQL has them, an expression of a derived table is another one's
//! column of another type, and the subquery would compare with what is not there.

use arrow::datatypes::FieldRef;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ExprSchema, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, Subquery};

/// `plan`, which may refer to the rows of `outer`, with references of the types that those have.
///
/// # Errors
/// Internal.
pub(super) fn retyped(plan: LogicalPlan, outer: &DFSchema) -> Result<LogicalPlan> {
    if plan.all_out_ref_exprs().is_empty() {
        return Ok(plan);
    }
    let retyped = plan.transform_up_with_subqueries(|plan| {
        let changed = plan.map_expressions(|expr| expr.transform_up(|part| Ok(reference(part, outer))))?;
        changed.transform_data(|plan| match plan {
            LogicalPlan::Subquery(subquery) => {
                let references = subquery.outer_ref_columns.into_iter().map(|part| reference(part, outer).data);
                let outer_ref_columns = references.collect();
                Ok(Transformed::yes(LogicalPlan::Subquery(Subquery { outer_ref_columns, ..subquery })))
            }
            plan => plan.recompute_schema().map(Transformed::yes),
        })
    });
    Ok(retyped?.data)
}

fn reference(expr: Expr, outer: &DFSchema) -> Transformed<Expr> {
    let Expr::OuterReferenceColumn(field, column) = expr else { return Transformed::no(expr) };
    match now(outer, &column).filter(|now| *now != field) {
        Some(now) => Transformed::yes(Expr::OuterReferenceColumn(now, column)),
        None => Transformed::no(Expr::OuterReferenceColumn(field, column)),
    }
}

/// What the outer rows have by that name.
fn now(outer: &DFSchema, column: &Column) -> Option<FieldRef> {
    outer.field_from_column(column).ok().cloned()
}
