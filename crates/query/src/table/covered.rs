//! Drops filters that every row of a scan is known to pass, so that counts over whole splits need no scan.
//!
//! A predicate on time usually cuts at the windows of splits: pruning leaves whole splits, and the filter above has nothing left to do.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::utils::conjunction_opt;
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};

use super::scan::{Scan, SplitScanExec};
use super::statistics::known;
use super::unit::ScanUnit;

/// See the module.
#[derive(Debug)]
pub(crate) struct DropCoveredFilters;

impl PhysicalOptimizerRule for DropCoveredFilters {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| match without_covered(&plan)? {
            Some(changed) => Ok(Transformed::yes(changed)),
            None => Ok(Transformed::no(plan)),
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "DropCoveredFilters"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A filter directly over a scan without the conjuncts that are true for every row; `None` when nothing changes.
fn without_covered(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(filter) = plan.downcast_ref::<FilterExec>() else { return Ok(None) };
    let Some(exec) = filter.input().downcast_ref::<SplitScanExec>() else { return Ok(None) };
    let scan = exec.scan();
    if filter.fetch().is_some() || scan.fetch.is_some() {
        return Ok(None);
    }
    let left = |predicate: &Arc<dyn PhysicalExpr>| -> Vec<Arc<dyn PhysicalExpr>> {
        split_conjunction(predicate).into_iter().filter(|part| !is_covered(part, scan)).map(Arc::clone).collect()
    };
    let kept = left(filter.predicate());
    if kept.len() == split_conjunction(filter.predicate()).len() {
        return Ok(None);
    }
    let read = scan.predicate.as_ref().and_then(|predicate| conjunction_opt(left(predicate)));
    let input: Arc<dyn ExecutionPlan> = Arc::new(SplitScanExec::try_new(Scan { predicate: read, ..scan.clone() })?);
    if let Some(predicate) = conjunction_opt(kept) {
        return Ok(Some(Arc::new(
            FilterExecBuilder::from(filter).with_predicate(predicate).with_input(input).build()?,
        )));
    }
    match filter.projection() {
        None => Ok(Some(input)),
        Some(positions) => {
            let projection = positions.iter().map(|&position| scan.projection[position]).collect();
            let scan = Scan { predicate: None, projection, ..scan.clone() };
            Ok(Some(Arc::new(SplitScanExec::try_new(scan)?)))
        }
    }
}

/// Whether `conjunct`, a comparison of a column with a constant, is true for every row of the scan.
fn is_covered(conjunct: &Arc<dyn PhysicalExpr>, scan: &Scan) -> bool {
    let Some(binary) = conjunct.downcast_ref::<BinaryExpr>() else { return false };
    let (column, operator, literal) = match (column_of(binary.left()), literal_of(binary.right())) {
        (Some(column), Some(literal)) => (column, *binary.op(), literal),
        _ => match (column_of(binary.right()), literal_of(binary.left()), binary.op().swap()) {
            (Some(column), Some(literal), Some(operator)) => (column, operator, literal),
            _ => return false,
        },
    };
    let Some(position) = scan.definition.position(column.name()) else { return false };
    scan.units.iter().all(|unit| covers(unit, scan, position, operator, literal))
}

fn covers(unit: &ScanUnit, scan: &Scan, position: usize, operator: Operator, literal: &ScalarValue) -> bool {
    let known = known(unit, &scan.definition, position);
    let (Some(min), Some(max), Some(0)) = (known.min, known.max, known.nulls) else { return false };
    // Of types other than the column's nothing is concluded.
    if literal.is_null() || literal.data_type() != min.data_type() || literal.data_type().is_floating() {
        return false;
    }
    match operator {
        Operator::Gt => min > *literal,
        Operator::GtEq => min >= *literal,
        Operator::Lt => max < *literal,
        Operator::LtEq => max <= *literal,
        Operator::Eq => min == *literal && max == *literal,
        _ => false,
    }
}

fn column_of(expr: &Arc<dyn PhysicalExpr>) -> Option<&Column> {
    expr.downcast_ref::<Column>()
}

fn literal_of(expr: &Arc<dyn PhysicalExpr>) -> Option<&ScalarValue> {
    expr.downcast_ref::<Literal>().map(Literal::value)
}
