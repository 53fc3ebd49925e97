//! Schemas of sessions: what is in them goes when the session ends, or when the node starts again after a crash.

use std::sync::Arc;

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

    /// Drops a schema with all that is in it.
    ///
    /// # Errors
    /// [`Error::NoSuchSchema`].
    pub async fn drop_schema_with_contents(self: &Arc<Self>, name: String) -> Result<(), Error> {
        let mut changes = self.changes().await?;
        changes.drop_schema_with_contents(name)?;
        changes.commit(None).await.map(drop)
    }

    /// Drops the schema of a session that does not wait for it.
    pub fn forget_temporary_schema(self: &Arc<Self>, name: String) {
        let node = Arc::clone(self);
        self.consensus.spawn(async move {
            match node.drop_schema_with_contents(name.clone()).await {
                Ok(()) | Err(Error::ShuttingDown(_)) => {}
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
