//! Temporary tables: tables of the session's own schema, which goes with the session.

use std::fmt;
use std::sync::Arc;

use cluster::{Node, Table};
use datafusion::sql::sqlparser::ast::{CreateTable, Ident, ObjectName, ObjectNamePart, OnCommit};

use super::Session;
use super::ddl::folded;
use crate::error::{Condition, Error};

/// How a session calls its own schema.
pub(super) const ALIAS: &str = "pg_temp";

/// The schema of a session, dropped with it.
pub(super) struct TemporarySchema {
    node: Arc<Node>,
    pub(super) name: String,
}

impl fmt::Debug for TemporarySchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Drop for TemporarySchema {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            self.node.forget_temporary_schema(std::mem::take(&mut self.name));
        }
    }
}

impl Session {
    /// A CREATE TEMPORARY TABLE as one of a table in the session's schema.
    ///
    /// # Errors
    /// 42P16 for a table in another schema, 0A000 for ON COMMIT DELETE ROWS.
    pub(super) async fn temporary(&mut self, create: &CreateTable) -> Result<CreateTable, Error> {
        let name = match &create.name.0[..] {
            [name] => name.clone(),
            [ObjectNamePart::Identifier(schema), name] if self.is_temporary(&folded(schema)) => name.clone(),
            _ => {
                let message = "cannot create temporary relation in non-temporary schema";
                return Err(Error::report(Condition::InvalidTableDefinition, message));
            }
        };
        if create.on_commit == Some(OnCommit::DeleteRows) {
            return Err(Error::hinted(
                Condition::FeatureNotSupported,
                "ON COMMIT DELETE ROWS is not supported",
                "Use ON COMMIT DROP, or TRUNCATE the table.",
            ));
        }
        let schema = match &self.temporary {
            Some(temporary) => temporary.name.clone(),
            None => {
                let node = Arc::clone(self.engine().node());
                let name = node.create_temporary_schema().await?;
                self.temporary = Some(TemporarySchema { node, name: name.clone() });
                self.settings.lock().temporary = Some(name.clone());
                self.rebase_changes().await?;
                name
            }
        };
        let schema = ObjectNamePart::Identifier(Ident::with_quote('"', schema));
        Ok(CreateTable { name: ObjectName(vec![schema, name]), temporary: false, ..create.clone() })
    }

    /// Remembers a table that shall go when its transaction is committed.
    pub(super) fn note_on_commit(&mut self, create: &CreateTable, created: &Result<Arc<Table>, cluster::Error>) {
        if let (Some(OnCommit::Drop), Ok(table)) = (&create.on_commit, created) {
            self.on_commit_drop.push(table.definition.id);
        }
    }

    fn is_temporary(&self, schema: &str) -> bool {
        schema == ALIAS || self.temporary.as_ref().is_some_and(|temporary| temporary.name == schema)
    }

    /// Drops the session's temporary tables now.
    pub(super) async fn discard_temporary(&mut self) -> Result<(), Error> {
        let Some(temporary) = &self.temporary else { return Ok(()) };
        let name = temporary.name.clone();
        let dropped = self.changing().await?.drop_contents(&name).map(drop);
        self.changed(dropped).await
    }
}
