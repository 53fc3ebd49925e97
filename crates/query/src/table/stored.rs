//! A table of the catalog, event or reference, as a DataFusion table.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use cluster::{Table, TableSnapshot, Uncommitted};
use datafusion::catalog::Session;
use datafusion::common::DFSchema;
use datafusion::datasource::TableProvider;
use datafusion::error::Result;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

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
        let schema = table.definition.arrow_schema();
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
        plan_scan(state, &snapshot, own, &self.segments, projection, filters, limit)
    }
}

/// The leaf that reads what `filters` leave of a snapshot and of the transaction's own rows.
pub(crate) fn plan_scan(
    state: &dyn Session,
    snapshot: &TableSnapshot,
    own: Option<&Uncommitted>,
    segments: &Arc<SegmentSource>,
    projection: Option<&Vec<usize>>,
    filters: &[Expr],
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let definition = &snapshot.table.definition;
    let schema = definition.arrow_schema();
    let df_schema = DFSchema::try_from(Arc::clone(&schema))?;
    let predicate = match conjunction(filters.to_vec()) {
        Some(filter) => Some(state.create_physical_expr(filter, &df_schema)?),
        None => None,
    };
    let (units, pruning) = prune(definition, &schema, units_of(snapshot, own), predicate.as_ref())?;
    let projection = match projection {
        Some(positions) => positions.clone(),
        None => (0..schema.fields().len()).collect(),
    };
    // A limit counts rows after the filters, which the leaf does not evaluate.
    let fetch = if filters.is_empty() { limit } else { None };
    Ok(Arc::new(SplitScanExec::try_new(Scan {
        definition: Arc::clone(definition),
        schema,
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
