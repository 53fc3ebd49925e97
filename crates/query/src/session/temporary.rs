//! Temporary tables: tables of the session's own schema, which goes with the session.

use std::fmt;
use std::sync::Arc;

use cluster::Node;
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
    /// 42P16 for a table in another schema, 0A000 for what shall happen at COMMIT.
    pub(super) async fn temporary(&mut self, create: &CreateTable) -> Result<CreateTable, Error> {
        self.refuse_in_block("CREATE TEMPORARY TABLE").await?;
        let name = match &create.name.0[..] {
            [name] => name.clone(),
            [ObjectNamePart::Identifier(schema), name] if self.is_temporary(&folded(schema)) => name.clone(),
            _ => {
                let message = "cannot create temporary relation in non-temporary schema";
                return Err(Error::report(Condition::InvalidTableDefinition, message));
            }
        };
        if !matches!(create.on_commit, None | Some(OnCommit::PreserveRows)) {
            return Err(Error::hinted(
                Condition::FeatureNotSupported,
                "ON COMMIT DROP and DELETE ROWS are not supported",
                "Temporary tables go when the session ends, or with DISCARD TEMP.",
            ));
        }
        let schema = match &self.temporary {
            Some(temporary) => temporary.name.clone(),
            None => {
                let node = Arc::clone(self.engine().node());
                let name = node.create_temporary_schema().await?;
                self.temporary = Some(TemporarySchema { node, name: name.clone() });
                self.settings.lock().temporary = Some(name.clone());
                name
            }
        };
        let schema = ObjectNamePart::Identifier(Ident::with_quote('"', schema));
        Ok(CreateTable { name: ObjectName(vec![schema, name]), temporary: false, on_commit: None, ..create.clone() })
    }

    fn is_temporary(&self, schema: &str) -> bool {
        schema == ALIAS || self.temporary.as_ref().is_some_and(|temporary| temporary.name == schema)
    }

    /// Drops the session's temporary tables now.
    pub(super) async fn discard_temporary(&mut self) -> Result<(), Error> {
        let Some(temporary) = &self.temporary else { return Ok(()) };
        let dropped = temporary.node.drop_schema_with_contents(&temporary.name).await;
        self.settings.lock().temporary = None;
        if let Some(mut temporary) = self.temporary.take() {
            match dropped {
                // Nothing is left to be dropped with it.
                Ok(_) => std::mem::take(&mut temporary.name),
                Err(error) => return Err(error.into()),
            };
        }
        Ok(())
    }
}
