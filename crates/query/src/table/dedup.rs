//! Tables that keep one row of each key: which of their pieces may share keys, and the operator that leaves one row of each.
//!
//! Rows of one key have one time, so pieces share keys only where their times overlap. A segment that was written without two rows of one
//! key and overlaps nothing is read as it is.

use std::fmt;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::{SortOptions, max, min};
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    Distribution, EquivalenceProperties, LexRequirement, OrderingRequirements, PhysicalExpr, PhysicalSortRequirement,
};
use datafusion::physical_plan::InputDistributionRequirements;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use event::{Dedup, TableDefinition};
use futures::{StreamExt, stream};
use storage::dedup::Survivors;

use super::unit::{HoledSegment, ScanUnit};

/// The units that hold one row of each of their keys and share none with others, and those that may not.
pub(crate) fn part(units: Vec<ScanUnit>, definition: &TableDefinition) -> (Vec<ScanUnit>, Vec<ScanUnit>) {
    let mut timed: Vec<((i64, i64), ScanUnit)> =
        units.into_iter().map(|unit| (time_us(&unit, definition), unit)).collect();
    timed.sort_by_key(|(time, _)| *time);
    let (mut alone, mut shared) = (Vec::new(), Vec::new());
    let mut overlapping: Vec<ScanUnit> = Vec::new();
    let mut end = i64::MIN;
    let mut close = |overlapping: &mut Vec<ScanUnit>| match overlapping.as_slice() {
        [unit] if is_distinct(unit) => alone.append(overlapping),
        _ => shared.append(overlapping),
    };
    for ((first, last), unit) in timed {
        if first > end {
            close(&mut overlapping);
        }
        end = end.max(last);
        overlapping.push(unit);
    }
    close(&mut overlapping);
    (alone, shared)
}

/// Smallest and largest event time; all there are when nobody knows.
fn time_us(unit: &ScanUnit, definition: &TableDefinition) -> (i64, i64) {
    let own = || {
        let at = definition.event()?.time_column;
        let times = unit.batches().iter().map(|batch| batch.column(at).as_primitive::<TimestampMicrosecondType>());
        times.filter_map(|times| min(times).zip(max(times))).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    };
    unit.time_us().or_else(own).unwrap_or((i64::MIN, i64::MAX))
}

fn is_distinct(unit: &ScanUnit) -> bool {
    match unit {
        ScanUnit::Segment(segment) | ScanUnit::Holed(HoledSegment { segment, .. }) => segment.meta.distinct,
        ScanUnit::Memory { .. } | ScanUnit::Uncommitted(_) => false,
    }
}

/// Leaves one row of each key.
#[derive(Debug)]
pub(crate) struct DedupExec {
    input: Arc<dyn ExecutionPlan>,
    dedup: Dedup,
    /// Positions of the key in the input.
    key: Vec<usize>,
    /// Position of `__seq` in the input.
    sequence: usize,
    metrics: ExecutionPlanMetricsSet,
    properties: Arc<PlanProperties>,
}

impl DedupExec {
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, dedup: Dedup, key: Vec<usize>, sequence: usize) -> DedupExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        let metrics = ExecutionPlanMetricsSet::new();
        DedupExec { input, dedup, key, sequence, metrics, properties: Arc::new(properties) }
    }

    fn over(&self, children: &[Arc<dyn ExecutionPlan>]) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = children else { return internal_err!("DedupExec has one child") };
        Ok(Arc::new(DedupExec::new(Arc::clone(input), self.dedup, self.key.clone(), self.sequence)))
    }

    fn column(&self, at: usize) -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new(self.input.schema().field(at).name(), at))
    }
}

impl DisplayAs for DedupExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.input.schema();
        let key: Vec<&str> = self.key.iter().map(|at| schema.field(*at).name().as_str()).collect();
        let keeps = if self.dedup == Dedup::First { "first" } else { "last" };
        write!(f, "DedupExec: keeps={keeps}, key=[{}]", key.join(", "))
    }
}

impl ExecutionPlan for DedupExec {
    fn name(&self) -> &'static str {
        "DedupExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        let key = self.key.iter().map(|at| self.column(*at)).collect();
        InputDistributionRequirements::new(vec![Distribution::KeyPartitioned(key)])
    }

    /// By key, then in the order of writing.
    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        let options = SortOptions { descending: false, nulls_first: false };
        let columns = self.key.iter().chain([&self.sequence]);
        let order = columns.map(|at| PhysicalSortRequirement::new(self.column(*at), Some(options)));
        vec![LexRequirement::new(order).map(OrderingRequirements::new)]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let mut recursion = TreeNodeRecursion::Continue;
        for at in &self.key {
            recursion = recursion.visit_sibling(|| f(&self.column(*at)))?;
        }
        Ok(recursion)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.over(&children)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.over(&children)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.input.schema();
        let survivors = Survivors::new(&schema, self.key.clone(), self.dedup)?;
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let input = Some(self.input.execute(partition, context)?);
        let rows = stream::try_unfold((input, survivors, metrics), |(mut input, mut survivors, metrics)| async move {
            let Some(rows) = &mut input else { return Ok(None) };
            let left = match rows.next().await {
                Some(rows) => {
                    let _timer = metrics.elapsed_compute().timer();
                    survivors.push(rows?)?
                }
                None => {
                    input = None;
                    let Some(last) = survivors.finish() else { return Ok(None) };
                    last
                }
            };
            metrics.record_output(left.num_rows());
            Ok(Some((left, (input, survivors, metrics))))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::LowerEqual
    }
}
