//! Groups and distinct rows of intervals, of which equal ones may be written in several ways: `1 day` and `24:00:00` are one group.
//!
//! The library groups what is equal part by part. So rows are grouped by how long an interval is, and what is shown is one of the group.

use std::sync::Arc;

use datafusion::common::alias::AliasGenerator;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinConstraint, Result, ScalarValue};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, Distinct, Expr, ExprSchemable, LogicalPlan, Projection, lit, when};
use datafusion::optimizer::AnalyzerRule;

use crate::functions;
use crate::functions::interval::{is_interval, length};

/// What the interval that is shown for a group is called below.
const SHOWN: &str = "__annal_shown";

/// Groups by how long intervals are.
#[derive(Debug)]
pub(crate) struct GroupIntervals {
    names: AliasGenerator,
}

impl Default for GroupIntervals {
    fn default() -> GroupIntervals {
        GroupIntervals { names: AliasGenerator::new() }
    }
}

impl AnalyzerRule for GroupIntervals {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let grouped = plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Aggregate(aggregate) => self.grouped(aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) if has_intervals(&input) => {
                let columns = input.schema().columns().into_iter().map(Expr::Column).collect();
                self.grouped(Aggregate::try_new(input, columns, Vec::new())?)
            }
            LogicalPlan::Distinct(Distinct::On(mut distinct)) => {
                let schema = Arc::clone(distinct.input.schema());
                let by_length = |expr: Expr| if is_one(&expr, &schema) { length(expr) } else { expr };
                distinct.on_expr = distinct.on_expr.into_iter().map(by_length).collect();
                for sort in distinct.sort_expr.iter_mut().flatten() {
                    sort.expr = by_length(std::mem::take(&mut sort.expr));
                }
                Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::On(distinct))))
            }
            // INTERSECT and EXCEPT join rows by their columns.
            LogicalPlan::Join(mut join) if join.join_constraint == JoinConstraint::On => {
                for (left, right) in &mut join.on {
                    if is_one(left, join.left.schema()) && is_one(right, join.right.schema()) {
                        *left = length(std::mem::take(left));
                        *right = length(std::mem::take(right));
                    }
                }
                Ok(Transformed::yes(LogicalPlan::Join(join)))
            }
            other => Ok(Transformed::no(other)),
        });
        grouped.data()
    }

    fn name(&self) -> &'static str {
        "group_intervals"
    }
}

impl GroupIntervals {
    fn grouped(&self, aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
        let input = Arc::clone(&aggregate.input);
        let keys: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
        if !keys.iter().any(|key| is_one(key, input.schema())) {
            return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
        }
        let by_length = |expr: Expr| {
            expr.transform_down(|expr| match keys.contains(&expr) && is_one(&expr, input.schema()) {
                true => Ok(Transformed::new(length(expr.unalias()), true, TreeNodeRecursion::Jump)),
                false => Ok(Transformed::no(expr)),
            })
            .data()
        };
        let group_expr = aggregate.group_expr.into_iter().map(by_length).collect::<Result<Vec<_>>>()?;
        let mut aggr_expr = aggregate.aggr_expr;
        let mut shown = Vec::new();
        for key in &keys {
            shown.push(is_one(key, input.schema()).then(|| self.names.next(SHOWN)));
            if let Some(Some(name)) = shown.last() {
                let key = key.clone().unalias();
                aggr_expr.push(functions::first().call(vec![key.clone(), length(key)]).alias(name));
            }
        }
        let original = aggregate.schema;
        let grouped = Arc::new(LogicalPlan::Aggregate(Aggregate::try_new(input, group_expr, aggr_expr)?));
        let columns = grouped.schema().columns();
        let restored = original.iter().zip(columns).enumerate().map(|(place, ((table, field), column))| {
            let value = match shown.get(place) {
                Some(Some(name)) => {
                    // A set of groups that leaves the key out has none of its values.
                    let none = lit(ScalarValue::try_from(field.data_type())?);
                    let one = Expr::Column(Column::new_unqualified(name));
                    when(Expr::Column(column).is_null(), none).otherwise(one)?
                }
                _ => Expr::Column(column),
            };
            Ok(value.alias_qualified(table.cloned(), field.name()))
        });
        let restored = restored.collect::<Result<Vec<_>>>()?;
        Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(restored, grouped)?)))
    }
}

fn is_one(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|data_type| is_interval(&data_type))
}

fn has_intervals(plan: &LogicalPlan) -> bool {
    plan.schema().fields().iter().any(|field| is_interval(field.data_type()))
}
