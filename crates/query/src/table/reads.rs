//! What one statement (or transaction) reads: each table's snapshot, opened once, and the transaction's own rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster::{Node, Table, TableSnapshot, Uncommitted};
use datafusion::error::{DataFusionError, Result};
use event::TableId;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

/// The snapshots of one statement. A table's snapshot is opened by the first scan of it and shared by all others, so two scans of
/// one table never see different rows. A transaction that reads repeatably keeps one `Reads` for all its statements.
#[derive(Debug)]
pub(crate) struct Reads {
    node: Arc<Node>,
    snapshots: Mutex<BTreeMap<TableId, Arc<OnceCell<Arc<TableSnapshot>>>>>,
    uncommitted: BTreeMap<TableId, Uncommitted>,
}

impl Reads {
    /// Nothing opened yet; `uncommitted` are the transaction's own rows, by table.
    pub(crate) fn new(node: Arc<Node>, uncommitted: BTreeMap<TableId, Uncommitted>) -> Reads {
        Reads { node, snapshots: Mutex::default(), uncommitted }
    }

    /// The statement's snapshot of `table`, opened now if no scan needed it before.
    pub(crate) async fn snapshot(&self, table: &Arc<Table>) -> Result<Arc<TableSnapshot>> {
        let cell = Arc::clone(self.snapshots.lock().entry(table.definition.id).or_default());
        let snapshot = cell
            .get_or_try_init(|| async {
                self.node.snapshot(table).await.map(Arc::new).map_err(|e| DataFusionError::External(Box::new(e)))
            })
            .await?;
        Ok(Arc::clone(snapshot))
    }

    /// The transaction's own rows of `table`.
    pub(crate) fn uncommitted(&self, table: TableId) -> Option<&Uncommitted> {
        self.uncommitted.get(&table)
    }
}
