//! TRUNCATE: all rows of tables at once, without looking at them.

use std::sync::Arc;

use cluster::Table;
use datafusion::sql::sqlparser::ast::{Ident, Statement as Ast, Truncate, TruncateIdentityOption};

use super::ddl::relation;
use super::{Block, Outcome, Session, statement};
use crate::error::{Condition, Error};

impl Session {
    /// One entry for all tables. In a transaction the rows of the moment are deleted, so that ROLLBACK has nothing to bring back.
    pub(super) async fn truncate(&mut self, truncate: &Truncate) -> Result<Outcome, Error> {
        if truncate.partitions.is_some() || truncate.on_cluster.is_some() {
            let message = "TRUNCATE of partitions is not supported";
            return Err(Error::hinted(Condition::FeatureNotSupported, message, "Use drop_chunks, or DELETE."));
        }
        let mut tables: Vec<Arc<Table>> = Vec::new();
        for target in &truncate.table_names {
            let table = match self.table(&relation(&target.name)?) {
                Ok(table) => table,
                Err(_) if truncate.if_exists => continue,
                Err(error) => return Err(error),
            };
            let restarts = matches!(truncate.identity, Some(TruncateIdentityOption::Restart));
            if restarts && table.definition.columns.iter().any(|column| column.identity.is_some()) {
                let message = "TRUNCATE ... RESTART IDENTITY is not supported";
                return Err(Error::hinted(
                    Condition::FeatureNotSupported,
                    message,
                    "Numbers go on where they were; leave RESTART IDENTITY out.",
                ));
            }
            if !tables.iter().any(|known| known.definition.id == table.definition.id) {
                tables.push(table);
            }
        }
        if self.block == Block::None {
            self.engine.node().truncate(&tables).await?;
            // Plans made before read what is gone.
            self.written += 1;
        } else {
            for table in &tables {
                self.delete_all(table).await?;
            }
        }
        Ok(Outcome::Done("TRUNCATE TABLE".to_owned()))
    }

    async fn delete_all(&mut self, table: &Table) -> Result<(), Error> {
        let quoted = |name: &str| Ident::with_quote('"', name).to_string();
        let name = format!("{}.{}", quoted(&table.definition.namespace), quoted(&table.definition.name));
        let parsed = statement::parse(&format!("DELETE FROM {name}"))?.remove(0);
        match parsed.ast.clone().as_deref() {
            Some(ast @ Ast::Delete(_)) => Box::pin(self.change(&parsed, ast, &[])).await.map(drop),
            _ => unreachable!("it was written here"),
        }
    }
}
