//! Functions that give rows, of columns of the tables before them in FROM: `FROM t, unnest(t.list) AS u`.
//!
//! The planner has them as a join with a subquery that refers to the other side, which the optimizer takes apart only where the subquery
//! reads a table. One that does nothing but compute and unnest is computed over the rows of the other side instead: each of them is there
//! once for every row that is made of it.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, JoinType, Result, TableReference, UnnestOptions};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, LogicalPlanBuilder, Projection, Unnest};

use super::pull_up::lateral;

/// Keeps what is computed on the way apart from the columns of the other side.
const COMPUTED: &str = "annal_lateral";

/// The plan without such joins.
pub(super) fn flatten(plan: LogicalPlan) -> Result<LogicalPlan> {
    let flat = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Join(join) => match flat(&join)? {
            Some(flat) => Ok(Transformed::yes(flat)),
            None => Ok(Transformed::no(LogicalPlan::Join(join))),
        },
        other => Ok(Transformed::no(other)),
    });
    Ok(flat?.data)
}

fn flat(join: &Join) -> Result<Option<LogicalPlan>> {
    let Some(subquery) = lateral(&join.right) else { return Ok(None) };
    if join.join_type != JoinType::Inner || !join.on.is_empty() {
        return Ok(None);
    }
    let Some(made) = over(&subquery.subquery, &join.left)? else { return Ok(None) };
    let width = join.left.schema().fields().len();
    let columns = made.schema().columns();
    let named = join
        .right
        .schema()
        .iter()
        .zip(&columns[width..])
        .map(|((table, field), column)| Expr::Column(column.clone()).alias_qualified(table.cloned(), field.name()));
    let all = columns[..width].iter().cloned().map(Expr::Column).chain(named);
    let plan = LogicalPlanBuilder::from(made).project(all.collect::<Vec<_>>())?;
    match &join.filter {
        Some(filter) => plan.filter(filter.clone())?.build().map(Some),
        None => plan.build().map(Some),
    }
}

/// `plan`, which refers to `left`, over the rows of `left`: its columns come behind those. `None` when it does more than compute and unnest.
fn over(plan: &LogicalPlan, left: &Arc<LogicalPlan>) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => Ok(Some(left.as_ref().clone())),
        LogicalPlan::Projection(projection) => {
            let Some(below) = Below::of(&projection.input, left)? else { return Ok(None) };
            projected(projection, below)
        }
        LogicalPlan::Unnest(unnest) => {
            let Some(below) = Below::of(&unnest.input, left)? else { return Ok(None) };
            unnested(unnest, below).map(Some)
        }
        _ => Ok(None),
    }
}

/// What is computed over the rows of the other side so far.
struct Below<'p> {
    /// As the subquery has it.
    original: &'p LogicalPlan,
    left: &'p LogicalPlan,
    made: LogicalPlan,
}

impl<'p> Below<'p> {
    fn of(original: &'p Arc<LogicalPlan>, left: &'p Arc<LogicalPlan>) -> Result<Option<Below<'p>>> {
        Ok(over(original, left)?.map(|made| Below { original, left, made }))
    }

    /// The columns of the other side.
    fn passed(&self) -> impl Iterator<Item = Column> {
        self.made.schema().columns().into_iter().take(self.left.schema().fields().len())
    }

    /// Where a column of the subquery is now.
    fn place(&self, column: &Column) -> Result<Column> {
        let at = self.left.schema().fields().len() + self.original.schema().index_of_column(column)?;
        Ok(self.made.schema().columns().swap_remove(at))
    }

    /// An expression of the subquery with the columns there are now; `None` when it refers to more than the other side.
    fn settled(&self, expr: &Expr) -> Result<Option<Expr>> {
        let settled = expr.clone().transform_up(|expr| match expr {
            Expr::OuterReferenceColumn(_, column) if self.left.schema().has_column(&column) => {
                Ok(Transformed::yes(Expr::Column(column)))
            }
            Expr::Column(column) => Ok(Transformed::yes(Expr::Column(self.place(&column)?))),
            other => Ok(Transformed::no(other)),
        })?;
        Ok((!settled.data.contains_outer()).then_some(settled.data))
    }
}

fn projected(projection: &Projection, below: Below<'_>) -> Result<Option<LogicalPlan>> {
    let mut exprs: Vec<Expr> = below.passed().map(Expr::Column).collect();
    for (expr, field) in projection.expr.iter().zip(projection.schema.fields()) {
        let Some(settled) = below.settled(expr)? else { return Ok(None) };
        exprs.push(settled.unalias().alias_qualified(Some(TableReference::bare(COMPUTED)), field.name()));
    }
    LogicalPlanBuilder::from(below.made).project(exprs)?.build().map(Some)
}

fn unnested(unnest: &Unnest, below: Below<'_>) -> Result<LogicalPlan> {
    let columns = unnest.exec_columns.iter().map(|column| below.place(column)).collect::<Result<_>>()?;
    let mut options: UnnestOptions = unnest.options.clone();
    for recursion in &mut options.recursions {
        recursion.input_column = below.place(&recursion.input_column)?;
    }
    Unnest::try_new(Arc::new(below.made), columns, options).map(LogicalPlan::Unnest)
}
