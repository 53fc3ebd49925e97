//! What windows are parted and sorted by, and aggregates sorted by, as columns where it is computed.
//!
//! The library looks in the plan for the order that it has asked for, by the expression. Arithmetic that is checked, and what keeps a division from some
//! rows, is written in another way by then. So it is computed below, and the order is one of columns.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::Result;
use datafusion::common::alias::AliasGenerator;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Sort as SortNode};
use datafusion::optimizer::AnalyzerRule;

/// How such columns are called.
const KEY: &str = "__annal_key";

/// Computes keys apart.
#[derive(Debug)]
pub(crate) struct KeysApart {
    names: AliasGenerator,
}

impl Default for KeysApart {
    fn default() -> KeysApart {
        KeysApart { names: AliasGenerator::new() }
    }
}

impl AnalyzerRule for KeysApart {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Window(_) | LogicalPlan::Aggregate(_) => self.apart(plan),
            LogicalPlan::Sort(sort) if sort.expr.iter().any(|key| asks(&key.expr)) => self.sorted(sort),
            other => Ok(Transformed::no(other)),
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "keys_apart"
    }
}

impl KeysApart {
    fn apart(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let [input] = plan.inputs()[..] else { return Ok(Transformed::no(plan)) };
        let names = NamePreserver::new(&plan);
        let mut keys: Vec<(Expr, String)> = Vec::new();
        let mut exprs = Vec::new();
        for expr in plan.expressions() {
            let name = names.save(&expr);
            let settled = expr.transform_up(|expr| Ok(self.of_call(expr, &mut keys)))?.data;
            exprs.push(name.restore(settled));
        }
        if keys.is_empty() {
            return Ok(Transformed::no(plan));
        }
        let columns = input.schema().columns().into_iter().map(Expr::Column);
        let keys = keys.into_iter().map(|(key, name)| key.alias(name));
        let below =
            LogicalPlanBuilder::from(input.clone()).project(columns.chain(keys).collect::<Vec<_>>())?.build()?;
        let original = plan.schema().columns();
        let is_window = matches!(plan, LogicalPlan::Window(_));
        let plan = plan.with_new_exprs(exprs, vec![below])?;
        if !is_window {
            return Ok(Transformed::yes(plan));
        }
        let restored = LogicalPlanBuilder::from(plan).project(original.into_iter().map(Expr::Column))?.build()?;
        Ok(Transformed::yes(restored))
    }

    /// The value of a subquery is not known yet where the library asks whether rows are in an order.
    fn sorted(&self, mut sort: SortNode) -> Result<Transformed<LogicalPlan>> {
        let original = sort.input.schema().columns();
        let mut below: Vec<Expr> = original.iter().cloned().map(Expr::Column).collect();
        for key in sort.expr.iter_mut().filter(|key| asks(&key.expr)) {
            let name = self.names.next(KEY);
            let column = Expr::Column(Column::new_unqualified(&name));
            below.push(std::mem::replace(&mut key.expr, column).alias(name));
        }
        sort.input = Arc::new(LogicalPlanBuilder::from(Arc::unwrap_or_clone(sort.input)).project(below)?.build()?);
        let sorted = LogicalPlanBuilder::from(LogicalPlan::Sort(sort));
        Ok(Transformed::yes(sorted.project(original.into_iter().map(Expr::Column))?.build()?))
    }

    fn of_call(&self, expr: Expr, keys: &mut Vec<(Expr, String)>) -> Transformed<Expr> {
        let before = keys.len();
        let mut column = |key: &mut Expr| {
            if !is_computed(key) {
                return;
            }
            let known = keys.iter().find(|(known, _)| known == key).map(|(_, name)| name.clone());
            let name = known.unwrap_or_else(|| {
                let name = self.names.next(KEY);
                keys.push((key.clone(), name.clone()));
                name
            });
            *key = Expr::Column(Column::new_unqualified(name));
        };
        let sorted = |sort: &mut Vec<Sort>, column: &mut dyn FnMut(&mut Expr)| {
            for key in sort {
                column(&mut key.expr);
            }
        };
        let mut expr = expr;
        match &mut expr {
            Expr::WindowFunction(call) => {
                call.params.partition_by.iter_mut().for_each(&mut column);
                sorted(&mut call.params.order_by, &mut column);
            }
            // What is distinct is sorted by what it is.
            Expr::AggregateFunction(call) if !call.params.distinct => sorted(&mut call.params.order_by, &mut column),
            _ => {}
        }
        let changed = keys.len() > before;
        if changed { Transformed::yes(expr) } else { Transformed::no(expr) }
    }
}

fn is_computed(key: &Expr) -> bool {
    let computes = |part: &Expr| {
        matches!(
            part,
            Expr::BinaryExpr(_) | Expr::Negative(_) | Expr::Case(_) | Expr::Cast(_) | Expr::ScalarFunction(_)
        )
    };
    let is_computed = || key.exists(|part| Ok(computes(part))).unwrap_or(false) && !key.column_refs().is_empty();
    !key.contains_outer() && (asks(key) || is_computed())
}

/// Whether a key is computed by the value of a subquery.
fn asks(key: &Expr) -> bool {
    key.exists(|part| Ok(matches!(part, Expr::ScalarSubquery(_)))).unwrap_or(false)
}
