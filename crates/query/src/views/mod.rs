//! The schema `annal`: what the node is made of, as views. Their rows are computed from the node when a scan is planned.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use cluster::{Catalog, Node, TableSnapshot};
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{SchemaProvider, Session};
use datafusion::datasource::{TableProvider, TableType};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;

use crate::engine::Engine;

mod columns;
mod nodes;
mod segments;
mod shards;
mod splits;
mod tables;

/// The views over the tables of `catalog`.
pub(crate) fn schema(engine: &Arc<Engine>, catalog: &Arc<Catalog>) -> Arc<dyn SchemaProvider> {
    Arc::new(Views { node: Arc::clone(engine.node()), catalog: Arc::clone(catalog) })
}

/// All views, in the order they are listed.
const ALL: [View; 6] = [View::Tables, View::Shards, View::Splits, View::Segments, View::Nodes, View::Replicas];

/// One of the views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// One row for each table.
    Tables,
    /// One row for each shard.
    Shards,
    /// One row for each split that has rows.
    Splits,
    /// One row for each segment.
    Segments,
    /// One row for each node of the cluster.
    Nodes,
    /// One row for each replica of each node.
    Replicas,
}

impl View {
    fn name(self) -> &'static str {
        match self {
            View::Tables => "tables",
            View::Shards => "shards",
            View::Splits => "splits",
            View::Segments => "segments",
            View::Nodes => "nodes",
            View::Replicas => "replicas",
        }
    }

    fn schema(self) -> SchemaRef {
        match self {
            View::Tables => tables::schema(),
            View::Shards => shards::schema(),
            View::Splits => splits::schema(),
            View::Segments => segments::schema(),
            View::Nodes => nodes::schema(),
            View::Replicas => nodes::replica_schema(),
        }
    }
}

struct Views {
    node: Arc<Node>,
    catalog: Arc<Catalog>,
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Views").field("index", &self.catalog.index).finish_non_exhaustive()
    }
}

#[async_trait]
impl SchemaProvider for Views {
    fn table_names(&self) -> Vec<String> {
        ALL.iter().map(|view| view.name().to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let view = ALL.into_iter().find(|view| view.name() == name);
        Ok(view.map(|view| {
            let (node, catalog) = (Arc::clone(&self.node), Arc::clone(&self.catalog));
            Arc::new(ViewTable { view, node, catalog }) as Arc<dyn TableProvider>
        }))
    }

    fn table_exist(&self, name: &str) -> bool {
        ALL.iter().any(|view| view.name() == name)
    }
}

struct ViewTable {
    view: View,
    node: Arc<Node>,
    catalog: Arc<Catalog>,
}

impl ViewTable {
    /// A snapshot of every table of the catalog. A table dropped meanwhile is left out.
    async fn snapshots(&self) -> Result<Vec<TableSnapshot>> {
        let mut snapshots = Vec::with_capacity(self.catalog.tables.len());
        for table in self.catalog.tables.values() {
            match self.node.snapshot(table).await {
                Ok(snapshot) => snapshots.push(snapshot),
                Err(cluster::Error::NoSuchTable(_)) => {}
                Err(error) => return Err(DataFusionError::External(Box::new(error))),
            }
        }
        Ok(snapshots)
    }

    async fn rows(&self) -> Result<RecordBatch> {
        match self.view {
            View::Tables => tables::rows(&self.snapshots().await?),
            View::Shards => shards::rows(&self.catalog, &self.node.shards(), &self.node.nodes().await),
            View::Splits => splits::rows(&self.snapshots().await?),
            View::Nodes => nodes::rows(&self.node.nodes().await),
            View::Replicas => nodes::replica_rows(&self.node.nodes().await),
            View::Segments => segments::rows(&self.snapshots().await?, |name| self.node.segment_path(name)),
        }
    }
}

impl fmt::Debug for ViewTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewTable").field("view", &self.view).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for ViewTable {
    fn schema(&self) -> SchemaRef {
        self.view.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = self.rows().await?;
        Ok(MemorySourceConfig::try_new_exec(&[vec![rows]], self.schema(), projection.cloned())?)
    }
}
