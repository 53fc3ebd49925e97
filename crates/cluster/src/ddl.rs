//! DDL as jobs of the catalog group (architecture, D15): each step is an entry, each step may be repeated.

use std::sync::Arc;

use event::{SchemaVersion, TableDefinition, TableId};
use storage::command::SchemaChange;
use storage::{Command, Outcome, Statement};

use crate::catalog::command::{CatalogCommand, CatalogOutcome};
use crate::catalog::machine::{CatalogMachine, Stage};
use crate::catalog::{Table, TableSpec, View};
use crate::error::Error;
use crate::filling::Filling;
use crate::node::Node;

impl Node {
    /// CREATE TABLE: take the name, make the shards, publish.
    pub(crate) async fn run_create(&self, spec: TableSpec) -> Result<Arc<Table>, Error> {
        let _turn = self.ddl.acquire().await.expect("the semaphore is never closed");
        let (namespace, name) = (spec.namespace.clone(), spec.name.clone());
        match self.catalog.propose(CatalogCommand::Create { spec, filled: false }).await?.outcome {
            CatalogOutcome::Table(table) => self.finish_create(&table).await.map_err(goes_on),
            CatalogOutcome::TableExists => Err(Error::TableExists(name)),
            CatalogOutcome::NoSuchSchema => Err(Error::NoSuchSchema(namespace)),
            refused => Err(defect(format!("table {name} cannot be created: {refused:?}"))),
        }
    }

    /// The first half of CREATE TABLE AS: name and shards, for whoever asked to fill.
    pub(crate) async fn run_create_hidden(self: &Arc<Self>, spec: TableSpec) -> Result<Filling, Error> {
        let _turn = self.ddl.acquire().await.expect("the semaphore is never closed");
        let (namespace, name) = (spec.namespace.clone(), spec.name.clone());
        match self.catalog.propose(CatalogCommand::Create { spec, filled: true }).await?.outcome {
            CatalogOutcome::Table(table) => {
                let filling = Filling::new(Arc::clone(self), table);
                self.put(filling.table()).await?;
                Ok(filling)
            }
            CatalogOutcome::TableExists => Err(Error::TableExists(name)),
            CatalogOutcome::NoSuchSchema => Err(Error::NoSuchSchema(namespace)),
            refused => Err(defect(format!("table {name} cannot be created: {refused:?}"))),
        }
    }

    /// The second half: everybody sees the table, with all its rows.
    pub(crate) async fn run_publish(&self, table: &Table) -> Result<(), Error> {
        let _turn = self.ddl.acquire().await.expect("the semaphore is never closed");
        let id = table.definition.id;
        match self.catalog.propose(CatalogCommand::Publish { table: id }).await?.outcome {
            CatalogOutcome::Table(_) => Ok(()),
            refused => Err(defect(format!("table {id} cannot be published: {refused:?}"))),
        }
    }

    /// ALTER TABLE: settle the next definition, give it to the shards, make it public. `next` follows the public definition.
    pub(crate) async fn run_alter(&self, next: TableDefinition) -> Result<Arc<Table>, Error> {
        let _turn = self.ddl.acquire().await.expect("the semaphore is never closed");
        let name = next.name.clone();
        match self.catalog.propose(CatalogCommand::Alter { next: Arc::new(next) }).await?.outcome {
            CatalogOutcome::Table(table) => self.finish_alter(&table).await.map_err(goes_on),
            CatalogOutcome::TableExists => Err(Error::TableExists(name)),
            CatalogOutcome::SchemaChanged => Err(Error::SchemaChanged(name)),
            CatalogOutcome::IsRead(readers) => Err(Error::IsRead { name, readers }),
            _ => Err(Error::NoSuchTable(name)),
        }
    }

    /// DROP TABLE: hide it, drop the shards, forget it.
    pub(crate) async fn run_drop(&self, table: TableId) -> Result<(), Error> {
        let _turn = self.ddl.acquire().await.expect("the semaphore is never closed");
        let name = self.catalog().tables.get(&table).map(|t| t.definition.name.clone());
        match self.catalog.propose(CatalogCommand::Drop { table }).await?.outcome {
            CatalogOutcome::Table(table) => self.finish_drop(&table).await.map_err(goes_on),
            CatalogOutcome::IsRead(readers) => Err(Error::IsRead { name: name.unwrap_or_default(), readers }),
            _ => Err(Error::NoSuchTable(name.unwrap_or_else(|| table.to_string()))),
        }
    }

    /// CREATE VIEW, in one step.
    pub(crate) async fn run_create_view(
        &self,
        view: View,
        replaces: Option<Arc<View>>,
        seen: Vec<(TableId, SchemaVersion)>,
    ) -> Result<(), Error> {
        let _turn = self.ddl.acquire().await.expect("the semaphore is never closed");
        let (namespace, name) = (view.namespace.clone(), view.name.clone());
        match self.catalog.propose(CatalogCommand::CreateView { view, replaces, seen }).await?.outcome {
            CatalogOutcome::Done => Ok(()),
            CatalogOutcome::TableExists => Err(Error::TableExists(name)),
            CatalogOutcome::Circular => Err(Error::CircularView(name)),
            CatalogOutcome::NoSuchSchema => Err(Error::NoSuchSchema(namespace)),
            _ => Err(Error::SchemaChanged(name)),
        }
    }

    /// CREATE SCHEMA, in one step.
    pub(crate) async fn run_create_schema(&self, name: String) -> Result<(), Error> {
        let _turn = self.ddl.acquire().await.expect("the semaphore is never closed");
        match self.catalog.propose(CatalogCommand::CreateSchema { name: name.clone() }).await?.outcome {
            CatalogOutcome::Done => Ok(()),
            _ => Err(Error::SchemaExists(name)),
        }
    }

    /// DROP SCHEMA, in one step.
    pub(crate) async fn run_drop_schema(&self, name: String) -> Result<(), Error> {
        let _turn = self.ddl.acquire().await.expect("the semaphore is never closed");
        match self.catalog.propose(CatalogCommand::DropSchema { name: name.clone() }).await?.outcome {
            CatalogOutcome::Done => Ok(()),
            CatalogOutcome::SchemaNotEmpty(relations) => Err(Error::SchemaNotEmpty { name, relations }),
            _ => Err(Error::NoSuchSchema(name)),
        }
    }

    /// DROP VIEW, in one step.
    pub(crate) async fn run_drop_view(&self, view: &View) -> Result<(), Error> {
        let _turn = self.ddl.acquire().await.expect("the semaphore is never closed");
        let name = view.name.clone();
        match self.catalog.propose(CatalogCommand::DropView { view: view.id }).await?.outcome {
            CatalogOutcome::Done => Ok(()),
            CatalogOutcome::IsRead(readers) => Err(Error::IsRead { name, readers }),
            _ => Err(Error::NoSuchTable(name)),
        }
    }

    /// COMMENT ON, in one step.
    pub(crate) async fn run_comment(&self, relation: TableId, column: u32, text: Option<String>) -> Result<(), Error> {
        let _turn = self.ddl.acquire().await.expect("the semaphore is never closed");
        match self.catalog.propose(CatalogCommand::Comment { relation, column, text }).await?.outcome {
            CatalogOutcome::Done => Ok(()),
            _ => Err(Error::NoSuchTable(relation.to_string())),
        }
    }

    /// Takes up the jobs that a crash or an error left between two steps.
    pub(crate) async fn resume_jobs(&self) -> Result<(), Error> {
        let _turn = self.ddl.acquire().await.expect("the semaphore is never closed");
        for (stage, table) in self.left_jobs().await? {
            tracing::info!(table = %table.definition.name, ?stage, "resuming a DDL job");
            match stage {
                Stage::Creating => drop(self.finish_create(&table).await?),
                Stage::Altering => drop(self.finish_alter(&table).await?),
                Stage::Dropping => self.finish_drop(&table).await?,
                Stage::Filling => {
                    self.catalog.propose(CatalogCommand::Drop { table: table.definition.id }).await?;
                    self.finish_drop(&table).await?;
                }
                Stage::Public => {}
            }
        }
        Ok(())
    }

    pub(crate) async fn has_unfinished_jobs(&self) -> Result<bool, Error> {
        Ok(!self.left_jobs().await?.is_empty())
    }

    /// Jobs that nobody of this node is about to end.
    async fn left_jobs(&self) -> Result<Vec<(Stage, Arc<Table>)>, Error> {
        let mut jobs = self.catalog.inspect(CatalogMachine::unfinished).await?;
        let fillings = self.fillings.lock();
        jobs.retain(|(stage, table)| *stage != Stage::Filling || !fillings.contains(&table.definition.id));
        Ok(jobs)
    }

    async fn finish_create(&self, table: &Arc<Table>) -> Result<Arc<Table>, Error> {
        let id = table.definition.id;
        self.put(table).await?;
        match self.catalog.propose(CatalogCommand::Publish { table: id }).await?.outcome {
            CatalogOutcome::Table(table) => Ok(table),
            refused => Err(defect(format!("table {id} cannot be published: {refused:?}"))),
        }
    }

    async fn finish_alter(&self, table: &Arc<Table>) -> Result<Arc<Table>, Error> {
        let id = table.definition.id;
        self.put(table).await?;
        match self.catalog.propose(CatalogCommand::Adopt { table: id }).await?.outcome {
            CatalogOutcome::Table(table) => Ok(table),
            refused => Err(defect(format!("table {id} cannot be altered: {refused:?}"))),
        }
    }

    /// Gives the definition to all shards.
    async fn put(&self, table: &Arc<Table>) -> Result<(), Error> {
        for placement in &table.shards {
            let change = SchemaChange::Put { shard: placement.shard, table: table.definition.clone() };
            match self.change_schema(placement.group, change).await? {
                Outcome::Done { .. } => {}
                refused => {
                    let id = table.definition.id;
                    return Err(defect(format!("shard {} of table {id}: {refused:?}", placement.shard)));
                }
            }
        }
        Ok(())
    }

    async fn finish_drop(&self, table: &Arc<Table>) -> Result<(), Error> {
        for placement in &table.shards {
            self.change_schema(placement.group, SchemaChange::Drop { shard: placement.shard }).await?;
        }
        let forgotten = self.catalog.propose(CatalogCommand::Forget { table: table.definition.id }).await?;
        match forgotten.outcome {
            CatalogOutcome::Done => Ok(()),
            refused => Err(defect(format!("table {} cannot be forgotten: {refused:?}", table.definition.id))),
        }
    }

    async fn change_schema(&self, group: event::GroupId, change: SchemaChange) -> Result<Outcome, Error> {
        let statement = Statement { id: self.statement_id(), commands: vec![Command::Schema(change)] };
        Ok(self.data_group(group)?.group.propose(statement).await?.outcome)
    }
}

/// A job that has begun is finished by the node or its successor, whatever its client was told.
fn goes_on(error: Error) -> Error {
    match error {
        Error::ShuttingDown(_) | Error::Unknown(_) => error,
        error => Error::Unknown(format!("the job goes on after: {error}")),
    }
}

/// A state machine refused what its own state had asked for.
pub(crate) fn defect(reason: String) -> Error {
    Error::Storage(storage::Error::Decode { what: "the outcome of a command", reason })
}
