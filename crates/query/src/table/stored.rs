//! A table of the catalog, event or reference, as a DataFusion table.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use cluster::{Table, TableSnapshot, Uncommitted};
use datafusion::catalog::Session;
use datafusion::common::DFSchema;
use datafusion::datasource::TableProvider;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use storage::sequence::sequenced_schema;

use super::prune::prune;
use super::reads::Reads;
use super::scan::{Scan, SplitScanExec};
use super::segments::SegmentSource;
use super::unit::units_of;

/// One table within one statement.
#[derive(Debug)]
pub(crate) struct StoredTable {
    table: Arc<Table>,
    schema: SchemaRef,
    reads: Arc<Reads>,
    segments: Arc<SegmentSource>,
}

impl StoredTable {
    pub(crate) fn new(table: Arc<Table>, reads: Arc<Reads>, segments: Arc<SegmentSource>) -> StoredTable {
        let schema = match reads.numbers(table.definition.id) {
            true => sequenced_schema(&table.definition),
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
        let wanted = Wanted { schema: &self.schema, projection, filters, limit };
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
}

/// The leaf that reads what is wanted of a snapshot and of the transaction's own rows.
pub(crate) fn plan_scan(
    state: &dyn Session,
    snapshot: &TableSnapshot,
    own: Option<&Uncommitted>,
    segments: &Arc<SegmentSource>,
    Wanted { schema, projection, filters, limit }: Wanted<'_>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let definition = &snapshot.table.definition;
    let df_schema = DFSchema::try_from(Arc::clone(schema))?;
    let predicate = match conjunction(filters.to_vec()) {
        Some(filter) => Some(state.create_physical_expr(filter, &df_schema)?),
        None => None,
    };
    let numbered = schema.fields().len() > definition.columns.len();
    let units = units_of(snapshot, own, numbered).map_err(|error| DataFusionError::External(Box::new(error)))?;
    let (units, pruning) = prune(definition, schema, units, predicate.as_ref())?;
    let projection = match projection {
        Some(positions) => positions.clone(),
        None => (0..schema.fields().len()).collect(),
    };
    // A limit counts rows after the filters, which the leaf does not evaluate.
    let fetch = if filters.is_empty() { limit } else { None };
    Ok(Arc::new(SplitScanExec::try_new(Scan {
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
    })?))
}
