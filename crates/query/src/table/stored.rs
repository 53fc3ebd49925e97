//! A table of the catalog, event or reference, as a DataFusion table.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use cluster::{Table, TableSnapshot, Uncommitted};
use datafusion::catalog::Session;
use datafusion::common::DFSchema;
use datafusion::datasource::TableProvider;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::ProjectionExpr;
use datafusion::physical_expr::utils::{collect_columns, conjunction_opt};
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;
use event::TableDefinition;
use storage::segment::SEQUENCE_COLUMN;

use super::dedup::{DedupExec, part};
use super::prune::prune;
use super::reads::Reads;
use super::scan::{Scan, SplitScanExec};
use super::segments::SegmentSource;
use super::unit::{ScanUnit, units_of};

/// One table within one statement.
#[derive(Debug)]
pub(crate) struct StoredTable {
    table: Arc<Table>,
    schema: SchemaRef,
    reads: Arc<Reads>,
    segments: Arc<SegmentSource>,
}

impl StoredTable {
    /// What the table is.
    pub(crate) fn definition(&self) -> &TableDefinition {
        &self.table.definition
    }

    pub(crate) fn new(table: Arc<Table>, reads: Arc<Reads>, segments: Arc<SegmentSource>) -> StoredTable {
        let schema = match reads.numbers(table.definition.id) {
            true => numbered_schema(&table.definition),
            false => table.definition.arrow_schema(),
        };
        StoredTable { table, schema, reads, segments }
    }
}

#[async_trait]
impl TableProvider for StoredTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Every filter helps to prune; none is evaluated row by row in the leaf.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let snapshot = self.reads.snapshot(&self.table).await?;
        let own = self.reads.uncommitted(self.table.definition.id);
        let wanted = Wanted { schema: &self.schema, projection, filters, limit, all: self.reads.gives_all_rows() };
        plan_scan(state, &snapshot, own, &self.segments, wanted)
    }
}

/// What a plan wants of a table.
pub(crate) struct Wanted<'a> {
    /// The columns there are: the table's, with `__seq` or without.
    pub(crate) schema: &'a SchemaRef,
    /// Those it wants; all when it does not say.
    pub(crate) projection: Option<&'a Vec<usize>>,
    /// Rows for which one of these is not true may be left out.
    pub(crate) filters: &'a [Expr],
    /// Rows after which it may stop.
    pub(crate) limit: Option<usize>,
    /// Whether it wants rows that others of their key took the place of.
    pub(crate) all: bool,
}

/// The leaf that reads what is wanted of a snapshot and of the transaction's own rows.
pub(crate) fn plan_scan(
    state: &dyn Session,
    snapshot: &TableSnapshot,
    own: &[Uncommitted],
    segments: &Arc<SegmentSource>,
    Wanted { schema, projection, filters, limit, all }: Wanted<'_>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let definition = &snapshot.table.definition;
    let df_schema = DFSchema::try_from(Arc::clone(schema))?;
    let predicate = match conjunction(filters.to_vec()) {
        Some(filter) => Some(state.create_physical_expr(filter, &df_schema)?),
        None => None,
    };
    let numbered = schema.fields().len() > definition.columns.len();
    let projection = match projection {
        Some(positions) => positions.clone(),
        None => (0..schema.fields().len()).collect(),
    };
    let leaf =
        |schema: &SchemaRef, units: Vec<ScanUnit>, projection, predicate: Option<Arc<dyn PhysicalExpr>>, fetch| {
            let (units, pruning) = prune(definition, schema, units, predicate.as_ref())?;
            SplitScanExec::try_new(Scan {
                definition: Arc::clone(definition),
                schema: Arc::clone(schema),
                projection,
                units: units.into(),
                pruning,
                predicate,
                fetch,
                newest_first: None,
                partitions: state.config().target_partitions(),
                parquet: state.config_options().execution.parquet.clone(),
                segments: Arc::clone(segments),
            })
        };
    // A limit counts rows after the filters, which the leaf does not evaluate.
    let fetch = limit.filter(|_| filters.is_empty());
    let deduped = definition.event().filter(|options| !options.dedup.is_none() && !all);
    let units = units_of(snapshot, own, numbered || deduped.is_some());
    let units = units.map_err(|error| DataFusionError::External(Box::new(error)))?;
    let Some(options) = deduped else { return Ok(Arc::new(leaf(schema, units, projection, predicate, fetch)?)) };

    // Of a key all rows must be looked at, or none: what is not about the key is judged above.
    let key = options.sort_key();
    let keyed = predicate.iter().flat_map(split_conjunction).filter(|part| is_about(part, definition, &key));
    let keyed = conjunction_opt(keyed.map(Arc::clone).collect::<Vec<_>>());
    let (units, _) = prune(definition, schema, units, keyed.as_ref())?;
    let (alone, shared) = part(units, definition);
    let alone = if numbered { alone } else { alone.into_iter().map(ScanUnit::unnumbered).collect() };
    let is_shared = !shared.is_empty();
    let is_alone = !alone.is_empty();
    let survivors = || -> Result<Arc<dyn ExecutionPlan>> {
        let sequence = definition.columns.len();
        let mut read = projection.clone();
        for needed in key.iter().chain([&sequence]) {
            if !read.contains(needed) {
                read.push(*needed);
            }
        }
        let place = |at: &usize| read.iter().position(|position| position == at).unwrap_or_default();
        let (key, sequence) = (key.iter().map(place).collect(), place(&sequence));
        let input = leaf(&numbered_schema(definition), shared, read.clone(), keyed, None)?;
        let dedup: Arc<dyn ExecutionPlan> = Arc::new(DedupExec::new(Arc::new(input), options.dedup, key, sequence));
        let wanted = (0..projection.len()).map(|at| {
            let name = dedup.schema().field(at).name().clone();
            ProjectionExpr { expr: Arc::new(Column::new(&name, at)), alias: name }
        });
        let wanted: Vec<ProjectionExpr> = wanted.collect();
        Ok(Arc::new(ProjectionExec::try_new(wanted, dedup)?))
    };
    match (is_alone, is_shared) {
        (_, false) => Ok(Arc::new(leaf(schema, alone, projection, predicate, fetch)?)),
        (false, true) => survivors(),
        (true, true) => {
            let survivors = survivors()?;
            UnionExec::try_new(vec![Arc::new(leaf(schema, alone, projection, predicate, fetch)?), survivors])
        }
    }
}

/// The table's columns followed by `__seq`.
fn numbered_schema(definition: &TableDefinition) -> SchemaRef {
    let mut fields: Vec<_> = definition.arrow_schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(SEQUENCE_COLUMN, DataType::UInt64, false)));
    Arc::new(Schema::new(fields))
}

/// Whether a predicate names nothing but columns of the key.
fn is_about(predicate: &Arc<dyn PhysicalExpr>, definition: &TableDefinition, key: &[usize]) -> bool {
    let in_key = |name: &str| definition.position(name).is_some_and(|at| key.contains(&at));
    !is_volatile(predicate) && collect_columns(predicate).iter().all(|column| in_key(column.name()))
}
