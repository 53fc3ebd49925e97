//! `GROUP BY ROLLUP (time_bucket('1 day', ts), k % 2)`: what grouping sets are computed by becomes columns below, so that they are of columns alone.
//!
//! Whoever settles types afterwards gives what is written otherwise the name it had. A set of groups has no name, and with one the library knows
//! it no more.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Projection};

/// How such columns are called.
const GROUP: &str = "__annal_group";

/// Computes the keys of a plan's grouping sets below them. Before `grouping(...)` is resolved.
pub(super) fn apart(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Aggregate(aggregate) if matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)]) => {
            over_columns(aggregate)
        }
        other => Ok(Transformed::no(other)),
    })
    .data()
}

fn over_columns(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let computed = grouping_set_to_exprlist(&aggregate.group_expr)?;
    let computed: Vec<Expr> = computed.into_iter().filter(|key| !matches!(key, Expr::Column(_))).cloned().collect();
    if computed.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let name = |at: usize| format!("{GROUP}_{at}");
    let columns = aggregate.input.schema().columns().into_iter().map(Expr::Column);
    let keys = computed.iter().enumerate().map(|(at, key)| key.clone().alias(name(at)));
    let below = Projection::try_new(columns.chain(keys).collect(), Arc::clone(&aggregate.input))?;
    let as_column = |expr: Expr| match computed.iter().position(|key| *key == expr) {
        Some(at) => Transformed::new(Expr::Column(Column::new_unqualified(name(at))), true, TreeNodeRecursion::Jump),
        None => Transformed::no(expr),
    };
    let in_set = |set: Expr| set.transform_down(|expr| Ok(as_column(expr))).data();
    let group_expr = aggregate.group_expr.into_iter().map(in_set).collect::<Result<Vec<_>>>()?;
    let in_call = |expr: Expr| match expr {
        Expr::AggregateFunction(mut call) if call.func.name() == "grouping" => {
            call.params.args = call.params.args.into_iter().map(|argument| as_column(argument).data).collect();
            Ok(Transformed::yes(Expr::AggregateFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    };
    let in_calls = |expr: Expr| expr.transform_down(in_call).data();
    let aggr_expr = aggregate.aggr_expr.into_iter().map(in_calls).collect::<Result<Vec<_>>>()?;
    let grouped = Aggregate::try_new(Arc::new(LogicalPlan::Projection(below)), group_expr, aggr_expr)?;
    // Nobody has asked for the number of the set yet, and once it is resolved it is not given any more.
    let restored = aggregate.schema.iter().zip(grouped.schema.columns());
    let restored = restored.filter(|((_, field), _)| field.name() != Aggregate::INTERNAL_GROUPING_ID);
    let restored =
        restored.map(|((table, field), column)| Expr::Column(column).alias_qualified(table.cloned(), field.name()));
    let restored = Projection::try_new(restored.collect(), Arc::new(LogicalPlan::Aggregate(grouped)))?;
    Ok(Transformed::yes(LogicalPlan::Projection(restored)))
}
