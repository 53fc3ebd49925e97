//! Schemas of sessions: what is in them goes when the session ends, or when the node starts again after a crash.

use std::sync::Arc;

use event::TableId;

use crate::catalog::Catalog;
use crate::error::Error;
use crate::node::Node;

/// What the names of all of them begin with.
const PREFIX: &str = "pg_temp_";

impl Node {
    /// Makes the schema of a session, and answers with its name.
    ///
    /// # Errors
    /// When the step did not commit.
    pub async fn create_temporary_schema(self: &Arc<Self>) -> Result<String, Error> {
        let id = self.statement_id();
        let name = format!("{PREFIX}{}_{}_{}", id.node, id.boot, id.counter);
        self.create_schema(name.clone()).await?;
        Ok(name)
    }

    /// Drops a schema with all that is in it, and the views that read that; answers with what went, each as `table t` or `view v`.
    ///
    /// # Errors
    /// [`Error::NoSuchSchema`]; when a step did not commit, the rest is there still.
    pub async fn drop_schema_with_contents(self: &Arc<Self>, name: &str) -> Result<Vec<String>, Error> {
        let catalog = self.catalog();
        let tables = catalog.tables.values().filter(|table| table.definition.namespace == name);
        let views = catalog.views.values().filter(|view| view.namespace == name);
        let inside: Vec<TableId> = tables.map(|table| table.definition.id).chain(views.map(|view| view.id)).collect();
        let mut dropped = Vec::new();
        for id in inside {
            self.drop_with_readers(id, &mut dropped).await?;
        }
        self.drop_schema(name.to_owned()).await?;
        Ok(dropped)
    }

    async fn drop_with_readers(self: &Arc<Self>, id: TableId, dropped: &mut Vec<String>) -> Result<(), Error> {
        let mut going = vec![id];
        while let Some(last) = going.last().copied() {
            let catalog = self.catalog();
            if let Some(reader) = catalog.readers(last).next() {
                going.push(reader.id);
                continue;
            }
            going.pop();
            if let Some(view) = catalog.views.get(&last) {
                self.drop_view(Arc::clone(view)).await?;
                dropped.push(format!("view {}", view.name));
            } else if let Some(table) = catalog.tables.get(&last) {
                self.drop_table(last).await?;
                dropped.push(format!("table {}", table.definition.name));
            }
        }
        Ok(())
    }

    /// Drops the schema of a session that does not wait for it.
    pub fn forget_temporary_schema(self: &Arc<Self>, name: String) {
        let node = Arc::clone(self);
        self.consensus.spawn(async move {
            match node.drop_schema_with_contents(&name).await {
                Ok(_) | Err(Error::ShuttingDown(_)) => {}
                Err(error) => tracing::warn!(schema = name, %error, "temporary tables are dropped at the next start"),
            }
        });
    }

    /// Forgets what sessions left when this node ended without ceremony.
    pub(crate) fn forget_left_schemas(self: &Arc<Self>) {
        for name in left(&self.catalog(), self.identity.node.0, self.identity.boot) {
            self.forget_temporary_schema(name);
        }
    }
}

/// Schemas of earlier boots of a node.
fn left(catalog: &Catalog, node: u64, boot: u64) -> Vec<String> {
    let own = format!("{PREFIX}{node}_");
    let now = format!("{own}{boot}_");
    catalog.schemas.keys().filter(|name| name.starts_with(&own) && !name.starts_with(&now)).cloned().collect()
}
