//! A table between CREATE and COMMIT.

use std::sync::Arc;

use crate::catalog::Table;
use crate::node::Node;

/// A new table that only its maker knows. Unless it was published by then, it goes when this is dropped, and also after a crash.
pub(crate) struct HiddenTable {
    node: Arc<Node>,
    table: Arc<Table>,
}

impl HiddenTable {
    pub(crate) fn new(node: Arc<Node>, table: Arc<Table>) -> HiddenTable {
        node.hidden.lock().insert(table.definition.id);
        HiddenTable { node, table }
    }

    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.table
    }
}

impl Drop for HiddenTable {
    fn drop(&mut self) {
        let id = self.table.definition.id;
        self.node.hidden.lock().remove(&id);
        if self.node.catalog().tables.contains_key(&id) {
            return;
        }
        let node = Arc::clone(&self.node);
        self.node.consensus.spawn(async move {
            if let Err(error) = node.discard(id).await {
                tracing::debug!(table = %id, %error, "a table that was not published is dropped later");
            }
        });
    }
}
