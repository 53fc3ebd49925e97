//! The leaf of every plan over a table: reads the units pruning left, segments through the Parquet reader, the rest from memory.
//!
//! Each of its rows comes from exactly one unit of one snapshot. It evaluates no filter row by row: predicates, also those that other
//! operators compute while the query runs, only save it from reading, and the operators above filter what it gives.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::config::{ConfigOptions, ParquetOptions, TableParquetOptions};
use datafusion::common::stats::Statistics;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::{collect_columns, conjunction_opt, reassign_expr_columns};
use datafusion::physical_expr::{
    EquivalenceProperties, Partitioning, PhysicalExpr, PhysicalSortExpr, split_conjunction,
};
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::{
    Boundedness, CardinalityEffect, EmissionType, ReplaceChildrenOptions, SchedulingType,
};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricValue, MetricsSet};
use datafusion::physical_plan::sort_pushdown::SortOrderPushdownResult;
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use event::TableDefinition;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};

use super::holed::HoledFiles;
use super::layout::{Layout, lay_out};
use super::memory::MemoryBatches;
use super::older::OfFiles;
use super::prune::Pruning;
use super::segments::SegmentSource;
use super::statistics::{may_hold_nan, statistics};
use super::unit::{HoledSegment, ScanUnit};

/// What a scan is made of.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    /// The table.
    pub(crate) definition: Arc<TableDefinition>,
    /// All its columns.
    pub(crate) schema: SchemaRef,
    /// Positions of the columns it gives.
    pub(crate) projection: Vec<usize>,
    /// What it reads.
    pub(crate) units: Arc<[ScanUnit]>,
    /// What it need not read, for EXPLAIN.
    pub(crate) pruning: Pruning,
    /// Over `schema`; rows for which it is not true may be left out.
    pub(crate) predicate: Option<Arc<dyn PhysicalExpr>>,
    /// Rows after which each partition may stop.
    pub(crate) fetch: Option<usize>,
    /// Which end of time to begin at, when somebody above profits from it.
    pub(crate) newest_first: Option<bool>,
    /// Partitions it may have.
    pub(crate) partitions: usize,
    /// How Parquet is read.
    pub(crate) parquet: ParquetOptions,
    /// Where segments are.
    pub(crate) segments: Arc<SegmentSource>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SplitScanExec {
    scan: Scan,
    memory: Vec<Vec<RecordBatch>>,
    /// Reads the segments, one file group for each partition; `None` when there are none.
    files: Option<Arc<DataSourceExec>>,
    /// Reads those that may have deleted rows.
    holed: Option<Arc<HoledFiles>>,
    metrics: ExecutionPlanMetricsSet,
    properties: Arc<PlanProperties>,
}

impl SplitScanExec {
    /// Lays the units out over partitions.
    pub(crate) fn try_new(scan: Scan) -> Result<SplitScanExec> {
        let schema = Arc::new(scan.schema.project(&scan.projection)?);
        let newest_first = scan.newest_first.unwrap_or(false);
        let Layout { files, memory, holed } =
            lay_out(&scan.units, &scan.definition, &scan.projection, scan.partitions, newest_first);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(memory.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        let files = open_files(&scan, files)?;
        let holed = open_holed(&scan, holed, schema)?;
        Ok(SplitScanExec {
            scan,
            memory,
            files,
            holed,
            metrics: ExecutionPlanMetricsSet::new(),
            properties: Arc::new(properties),
        })
    }

    /// What it is made of.
    pub(crate) fn scan(&self) -> &Scan {
        &self.scan
    }

    fn changed(&self, change: impl FnOnce(&mut Scan)) -> Result<Arc<dyn ExecutionPlan>> {
        let mut scan = self.scan.clone();
        change(&mut scan);
        Ok(Arc::new(SplitScanExec::try_new(scan)?))
    }

    /// Rows of one partition, memory first: they need no I/O.
    fn rows(&self, partition: usize, context: &Arc<TaskContext>) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let memory = MemoryBatches::new(
            self.memory[partition].clone(),
            self.schema(),
            self.scan.projection.clone(),
            context.session_config().batch_size(),
        );
        let memory = stream::iter(memory);
        let mut rows = memory.boxed();
        if let Some(files) = &self.files {
            let schema = self.schema();
            let stored = files.execute(partition, Arc::clone(context))?;
            rows = rows.chain(stored.map(move |batch| named(batch?, &schema))).boxed();
        }
        if let Some(holed) = &self.holed {
            rows = rows.chain(holed.rows(partition, context)?).boxed();
        }
        Ok(rows)
    }
}

/// The reader of all segments, with one file group for each partition.
fn open_files(scan: &Scan, groups: Vec<FileGroup>) -> Result<Option<Arc<DataSourceExec>>> {
    if groups.iter().all(FileGroup::is_empty) {
        return Ok(None);
    }
    let source = parquet(scan, stored_schema(scan));
    let config = FileScanConfigBuilder::new(scan.segments.url(), Arc::new(source))
        .with_file_groups(groups)
        .with_expr_adapter(Some(OfFiles::adapter(&scan.definition)))
        .with_limit(scan.fetch)
        .with_projection_indices(Some(scan.projection.clone()))?
        .build();
    Ok(Some(DataSourceExec::from_data_source(config)))
}

fn parquet(scan: &Scan, schema: impl Into<TableSchema>) -> ParquetSource {
    let options = TableParquetOptions { global: scan.parquet.clone(), ..TableParquetOptions::default() };
    let mut source = ParquetSource::new(schema)
        .with_table_parquet_options(options)
        .with_parquet_file_reader_factory(scan.segments.readers());
    if let Some(hint) = scan.parquet.metadata_size_hint {
        source = source.with_metadata_size_hint(hint);
    }
    if let Some(predicate) = footer_predicate(scan) {
        source = source.with_predicate(predicate);
    }
    source
}

/// The reader of segments that may have deleted rows.
fn open_holed(scan: &Scan, groups: Vec<Vec<HoledSegment>>, schema: SchemaRef) -> Result<Option<Arc<HoledFiles>>> {
    let source = |schema| parquet(scan, schema);
    let config = |source, groups| {
        FileScanConfigBuilder::new(scan.segments.url(), Arc::new(source))
            .with_file_groups(groups)
            .with_expr_adapter(Some(OfFiles::adapter(&scan.definition)))
    };
    let holed = HoledFiles::open(groups, &scan.definition, &scan.projection, schema, config, source)?;
    Ok(holed.map(Arc::new))
}

/// The columns of the scan as files call them.
fn stored_schema(scan: &Scan) -> SchemaRef {
    if scan.definition.columns.iter().all(|column| column.stored.is_none()) {
        return Arc::clone(&scan.schema);
    }
    let stored = |(at, field): (usize, &Arc<Field>)| match scan.definition.columns.get(at) {
        Some(column) => Arc::new(field.as_ref().clone().with_name(column.stored_name())),
        None => Arc::clone(field),
    };
    Arc::new(Schema::new(scan.schema.fields().iter().enumerate().map(stored).collect::<Vec<_>>()))
}

/// A batch of files under the names of the scan.
fn named(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)?)
}

/// The conjuncts the Parquet reader may prune by, over the columns as files call them. Its row group and page statistics leave NaN out without saying so: what refers to a
/// column with a NaN in some segment is left to the operators above.
fn footer_predicate(scan: &Scan) -> Option<Arc<dyn PhysicalExpr>> {
    let conjuncts = split_conjunction(scan.predicate.as_ref()?);
    let safe = conjuncts.into_iter().filter(|conjunct| {
        collect_columns(conjunct).iter().all(|column| {
            let position = scan.definition.position(column.name());
            position
                .is_some_and(|position| !scan.units.iter().any(|unit| may_hold_nan(unit, &scan.definition, position)))
        })
    });
    let stored = |part: Arc<dyn PhysicalExpr>| match part.downcast_ref::<Column>() {
        Some(column) => match scan.definition.position(column.name()).map(|at| &scan.definition.columns[at]) {
            Some(known) if known.stored.is_some() => {
                let renamed: Arc<dyn PhysicalExpr> = Arc::new(Column::new(known.stored_name(), column.index()));
                Ok(Transformed::yes(renamed))
            }
            _ => Ok(Transformed::no(part)),
        },
        None => Ok(Transformed::no(part)),
    };
    let safe = conjunction_opt(safe.map(Arc::clone).collect::<Vec<_>>())?;
    safe.transform(stored).data().ok()
}

impl DisplayAs for SplitScanExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pruning { splits, segments, memory } = self.scan.pruning;
        if matches!(format, DisplayFormatType::TreeRender) {
            writeln!(f, "table={}", self.scan.definition.name)?;
            writeln!(f, "splits={}/{}", splits.read, splits.total)?;
            return writeln!(f, "segments={}/{}", segments.read, segments.total);
        }
        write!(f, "SplitScanExec: table={}", self.scan.definition.name)?;
        for (name, tally) in [("splits", splits), ("segments", segments), ("memory splits", memory)] {
            write!(f, ", {name} total={} pruned={} read={}", tally.total, tally.pruned(), tally.read)?;
        }
        let own = self.scan.units.iter().filter(|unit| matches!(unit, ScanUnit::Uncommitted(_)));
        let own_rows: u64 = own.map(ScanUnit::rows).sum();
        if own_rows > 0 {
            write!(f, ", uncommitted rows={own_rows}")?;
        }
        let schema = self.schema();
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, ", projection=[{}]", columns.join(", "))?;
        if let Some(predicate) = &self.scan.predicate {
            write!(f, ", predicate={predicate}")?;
        }
        if let Some(fetch) = self.scan.fetch {
            write!(f, ", fetch={fetch}")?;
        }
        if let Some(newest_first) = self.scan.newest_first {
            write!(f, ", order={}", if newest_first { "newest first" } else { "oldest first" })?;
        }
        Ok(())
    }
}

impl ExecutionPlan for SplitScanExec {
    fn name(&self) -> &'static str {
        "SplitScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        match &self.scan.predicate {
            Some(predicate) => f(predicate),
            None => Ok(TreeNodeRecursion::Continue),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        if !children.is_empty() {
            return internal_err!("a leaf has no children");
        }
        Ok(self)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if !children.is_empty() {
            return internal_err!("a leaf has no children");
        }
        Ok(self)
    }

    /// A second execution reads all files again; partitions of one execution share them out.
    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        self.changed(|_| {})
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition >= self.memory.len() {
            return internal_err!("partition {partition} of {} is asked for", self.memory.len());
        }
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let rows = Limited { rows: self.rows(partition, &context)?, left: self.scan.fetch, metrics };
        let stream: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows));
        Ok(make_cooperative(stream))
    }

    /// Its own counters, and of the Parquet reader those that do not count the same again.
    fn metrics(&self) -> Option<MetricsSet> {
        let mut metrics = self.metrics.clone_inner();
        let files = self.files.as_ref().and_then(|files| files.metrics()).unwrap_or_default();
        let holed = self.holed.as_ref().and_then(|holed| holed.files().metrics()).unwrap_or_default();
        for metric in files.iter().chain(holed.iter()) {
            let again = matches!(
                metric.value(),
                MetricValue::OutputRows(_)
                    | MetricValue::OutputBytes(_)
                    | MetricValue::OutputBatches(_)
                    | MetricValue::ElapsedCompute(_)
                    | MetricValue::StartTimestamp(_)
                    | MetricValue::EndTimestamp(_)
            );
            if !again {
                metrics.push(Arc::clone(metric));
            }
        }
        Some(metrics)
    }

    fn statistics_from_inputs(&self, _inputs: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        if args.partition().is_some() {
            // Partitions share files out while they run.
            return Ok(Arc::new(Statistics::new_unknown(&self.schema())));
        }
        let statistics = statistics(&self.scan.units, &self.scan.definition, &self.scan.projection);
        let statistics = match &self.scan.predicate {
            // Rows left out by row groups and pages are not counted beforehand.
            Some(_) => statistics.to_inexact(),
            None => statistics,
        };
        Ok(Arc::new(statistics.with_fetch(self.scan.fetch, 0, 1)?))
    }

    fn supports_limit_pushdown(&self) -> bool {
        false
    }

    fn with_fetch(&self, fetch: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        self.changed(|scan| scan.fetch = fetch).ok()
    }

    fn fetch(&self) -> Option<usize> {
        self.scan.fetch
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::LowerEqual
    }

    /// Takes in every predicate it does not have yet, for pruning only.
    fn handle_child_pushdown_result(
        &self,
        _phase: FilterPushdownPhase,
        result: ChildPushdownResult,
        _config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let known: Vec<Arc<dyn PhysicalExpr>> =
            self.scan.predicate.iter().flat_map(split_conjunction).map(Arc::clone).collect();
        let mut added = Vec::new();
        for parent in &result.parent_filters {
            let filter = reassign_expr_columns(Arc::clone(&parent.filter), &self.scan.schema)?;
            added.extend(split_conjunction(&filter).into_iter().filter(|part| !known.contains(part)).map(Arc::clone));
        }
        let answer =
            FilterPushdownPropagation::with_parent_pushdown_result(vec![PushedDown::No; result.parent_filters.len()]);
        if added.is_empty() {
            return Ok(answer);
        }
        let predicate = conjunction_opt(known.into_iter().chain(added));
        Ok(answer.with_updated_node(self.changed(|scan| scan.predicate = predicate)?))
    }

    /// Whoever sorts by time and stops early sees the fitting end of time first.
    fn try_pushdown_sort(&self, order: &[PhysicalSortExpr]) -> Result<SortOrderPushdownResult<Arc<dyn ExecutionPlan>>> {
        let time =
            self.scan.definition.event().map(|event| self.scan.definition.columns[event.time_column].name.as_str());
        let leading =
            order.first().and_then(|sort| Some((sort.expr.downcast_ref::<Column>()?, sort.options.descending)));
        match leading {
            Some((column, descending)) if Some(column.name()) == time && self.scan.newest_first != Some(descending) => {
                let inner = self.changed(|scan| scan.newest_first = Some(descending))?;
                Ok(SortOrderPushdownResult::Inexact { inner })
            }
            _ => Ok(SortOrderPushdownResult::Unsupported),
        }
    }
}

/// Rows up to a limit, counted.
struct Limited {
    rows: BoxStream<'static, Result<RecordBatch>>,
    left: Option<usize>,
    metrics: BaselineMetrics,
}

impl Stream for Limited {
    type Item = Result<RecordBatch>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        if self.left == Some(0) {
            return self.metrics.record_poll(std::task::Poll::Ready(None));
        }
        let poll = self.rows.poll_next_unpin(context).map(|item| {
            item.map(|batch| {
                batch.map(|batch| {
                    let Some(left) = self.left else { return batch };
                    let batch = if batch.num_rows() > left { batch.slice(0, left) } else { batch };
                    self.left = Some(left - batch.num_rows());
                    batch
                })
            })
        });
        self.metrics.record_poll(poll)
    }
}
