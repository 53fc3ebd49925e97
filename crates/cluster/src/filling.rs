//! A table that is filled before anybody sees it.

use std::sync::Arc;

use crate::catalog::Table;
use crate::error::Error;
use crate::node::Node;

/// A new table that only its maker knows. Dropped without [`Filling::publish`], also by a crash, the table goes with its rows.
pub struct Filling {
    node: Arc<Node>,
    table: Arc<Table>,
}

impl Filling {
    pub(crate) fn new(node: Arc<Node>, table: Arc<Table>) -> Filling {
        node.fillings.lock().insert(table.definition.id);
        Filling { node, table }
    }

    /// The table, to be written to.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Drops the table now, rather than when somebody finds it left.
    ///
    /// # Errors
    /// When a step of the job did not commit; the table goes later.
    pub async fn discard(self) -> Result<(), Error> {
        let node = Arc::clone(&self.node);
        node.see_through(async move { self.node.run_drop(self.table.definition.id).await }).await
    }

    /// Shows the table to everybody.
    ///
    /// # Errors
    /// When the step of the job did not commit; the table goes then, or is there if its fate is unknown.
    pub async fn publish(self) -> Result<(), Error> {
        let node = Arc::clone(&self.node);
        node.see_through(async move { self.node.run_publish(&self.table).await }).await
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        self.node.fillings.lock().remove(&self.table.definition.id);
    }
}

impl std::fmt::Debug for Filling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Filling({})", self.table.definition.name)
    }
}
