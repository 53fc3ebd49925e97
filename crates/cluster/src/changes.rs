//! DDL of a transaction: staged, seen by the transaction alone, and made at its COMMIT together with its rows (architecture, D13, D15).
//!
//! Without rows and without a change of what shards hold, one entry of the catalog makes all changes. Else there are three: the catalog
//! prepares the changes, an entry of the data group brings rows and definitions and decides about them, the catalog makes them. Who finds
//! the first without the third asks the data group. What belongs to other groups as well is prepared in those and decided by the same entry.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use event::{GroupId, SchemaVersion, ShardId, StatementId, TableDefinition, TableId};
use storage::Command;
use storage::command::SchemaChange;

use crate::catalog::command::{CatalogChange, CatalogCommand, CatalogOutcome, Refusal};
use crate::catalog::machine::CatalogMachine;
use crate::catalog::state::{CatalogState, Stage};
use crate::catalog::{Catalog, Table, TableSpec, View};
use crate::ddl::defect;
use crate::error::Error;
use crate::hidden::HiddenTable;
use crate::joint::{Parts, goes_on};
use crate::node::{Node, TableSnapshot};
use crate::write::{Commit, WriteSet};

/// Transactions of other nodes that one waits for, one after the other, before it gives up.
const BUSY_TRIES_MAX: usize = 16;

/// What a transaction would make of the catalog. Dropping it takes everything back.
pub struct CatalogChanges {
    node: Arc<Node>,
    transaction: StatementId,
    /// The state that the changes were tried on last, and the index of the catalog that shows it.
    base: (CatalogState, u64),
    changes: Vec<CatalogChange>,
    /// The state with the changes.
    state: CatalogState,
    catalog: Arc<Catalog>,
    /// The tables it made, also those that it dropped again.
    hidden: Vec<HiddenTable>,
    /// Shards whose rows were looked at, with their group and the index of the snapshot.
    looked_at: BTreeMap<ShardId, (GroupId, u64)>,
}

/// A place in [`CatalogChanges`].
#[derive(Clone, Copy, Debug)]
pub struct ChangesMark(usize);

impl Node {
    /// Begins to change the catalog.
    ///
    /// # Errors
    /// When the node is stopping.
    pub async fn changes(self: &Arc<Self>) -> Result<CatalogChanges, Error> {
        let base = self.catalog.inspect(CatalogMachine::with_index).await?;
        let (state, catalog) = (base.0.clone(), Arc::new(base.0.catalog(base.1)));
        let (node, transaction) = (Arc::clone(self), self.statement_id());
        let (changes, hidden, looked_at) = Default::default();
        Ok(CatalogChanges { node, transaction, base, changes, state, catalog, hidden, looked_at })
    }
}

impl CatalogChanges {
    /// The catalog as the transaction sees it.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// A place to go back to.
    pub fn mark(&self) -> ChangesMark {
        ChangesMark(self.changes.len())
    }

    /// Takes back what was changed since `mark`.
    pub fn roll_back_to(&mut self, mark: ChangesMark) {
        self.changes.truncate(mark.0);
        // The catalog is not read again, so what fitted then fits now.
        if let Err(refusal) = self.replay() {
            tracing::error!(?refusal, "a change that was possible is not any more");
        }
    }

    /// Follows what others have changed meanwhile.
    ///
    /// # Errors
    /// When the changes cannot be made any more.
    pub async fn rebase(&mut self) -> Result<(), Error> {
        if self.node.catalog().index == self.base.1 {
            return Ok(());
        }
        self.base = self.node.catalog.inspect(CatalogMachine::with_index).await?;
        self.replay().map_err(|refusal| self.refused(refusal))
    }

    fn replay(&mut self) -> Result<(), Refusal> {
        let mut state = self.base.0.clone();
        state.change_all(&self.changes)?;
        self.show(state);
        Ok(())
    }

    fn show(&mut self, state: CatalogState) {
        self.catalog = Arc::new(state.catalog(self.base.1));
        self.state = state;
    }

    fn change(&mut self, change: CatalogChange) -> Result<(), Error> {
        let mut state = self.state.clone();
        state.change_all(std::slice::from_ref(&change)).map_err(|refusal| self.refused(refusal))?;
        self.changes.push(change);
        self.show(state);
        Ok(())
    }

    /// CREATE TABLE. Its shards are made now, and go again unless it is committed.
    ///
    /// # Errors
    /// [`Error::TableExists`], [`Error::NoSuchSchema`].
    pub async fn create_table(&mut self, spec: TableSpec) -> Result<Arc<Table>, Error> {
        self.state.check_new(&spec.namespace, &spec.name).map_err(|refusal| self.refused(refusal))?;
        let node = Arc::clone(&self.node);
        let hidden = node.see_through(make(Arc::clone(&node), spec)).await?;
        let table = Arc::clone(hidden.table());
        self.hidden.push(hidden);
        node.put(&table).await?;
        self.base.0.add_hidden(&table);
        self.state.add_hidden(&table);
        self.change(CatalogChange::Publish { table: table.definition.id })?;
        Ok(table)
    }

    /// ALTER TABLE: `next` follows the definition that the transaction sees. Answers with the table as it sees it from now on.
    ///
    /// # Errors
    /// [`Error::SchemaChanged`] when it does not, [`Error::TableExists`], [`Error::IsRead`].
    pub fn alter_table(&mut self, next: TableDefinition) -> Result<Arc<Table>, Error> {
        let id = next.id;
        self.change(CatalogChange::Alter { next: Arc::new(next) })?;
        Ok(Arc::clone(&self.catalog.tables[&id]))
    }

    /// The rows of a table obey its definition, all that are in the snapshot: when others came since, the commit fails with
    /// [`Error::Conflict`].
    pub fn rows_obey(&mut self, read: &TableSnapshot) {
        for (placement, snapshot) in read.table.shards.iter().zip(&read.shards) {
            self.looked_at.insert(placement.shard, (placement.group, snapshot.index));
        }
    }

    /// DROP TABLE.
    ///
    /// # Errors
    /// [`Error::IsRead`], [`Error::NoSuchTable`].
    pub fn drop_table(&mut self, table: TableId) -> Result<(), Error> {
        self.change(CatalogChange::Drop { table })
    }

    /// CREATE VIEW, or with `replaces` CREATE OR REPLACE. `seen` are the versions of tables it was made for.
    ///
    /// # Errors
    /// [`Error::TableExists`] for a name that is taken, [`Error::SchemaChanged`] when something it reads is gone or changed, or the view it
    /// replaces is another by now, [`Error::CircularView`] when it would read itself.
    pub async fn create_view(
        &mut self,
        view: View,
        replaces: Option<Arc<View>>,
        seen: Vec<(TableId, SchemaVersion)>,
    ) -> Result<(), Error> {
        let id = match &replaces {
            Some(replaced) => replaced.id,
            None => self.take_id().await?,
        };
        self.change(CatalogChange::CreateView { view: Arc::new(View { id, ..view }), replaces, seen })
    }

    /// DROP VIEW.
    ///
    /// # Errors
    /// [`Error::IsRead`] when other views read it, [`Error::NoSuchTable`].
    pub fn drop_view(&mut self, view: TableId) -> Result<(), Error> {
        self.change(CatalogChange::DropView { view })
    }

    /// CREATE SCHEMA.
    ///
    /// # Errors
    /// [`Error::SchemaExists`].
    pub async fn create_schema(&mut self, name: String) -> Result<(), Error> {
        let id = self.take_id().await?;
        self.change(CatalogChange::CreateSchema { name, id })
    }

    /// DROP SCHEMA, which must be empty.
    ///
    /// # Errors
    /// [`Error::NoSuchSchema`], [`Error::SchemaNotEmpty`].
    pub fn drop_schema(&mut self, name: String) -> Result<(), Error> {
        self.change(CatalogChange::DropSchema { name })
    }

    /// Drops a schema with all that is in it, and the views that read that; answers with what went, each as `table t` or `view v`.
    ///
    /// # Errors
    /// [`Error::NoSuchSchema`].
    pub fn drop_schema_with_contents(&mut self, name: String) -> Result<Vec<String>, Error> {
        let dropped = self.drop_contents(&name)?;
        self.drop_schema(name)?;
        Ok(dropped)
    }

    /// The same without the schema itself.
    ///
    /// # Errors
    /// None but those of the node.
    pub fn drop_contents(&mut self, name: &str) -> Result<Vec<String>, Error> {
        let tables = self.catalog.tables.values().filter(|table| table.definition.namespace == name);
        let views = self.catalog.views.values().filter(|view| view.namespace == name);
        let inside: Vec<TableId> = tables.map(|table| table.definition.id).chain(views.map(|view| view.id)).collect();
        let mut dropped = Vec::new();
        for id in inside {
            dropped.extend(self.drop_readers(id)?.into_iter().map(|view| format!("view {}", view.name)));
            if let Some(view) = self.catalog.views.get(&id).cloned() {
                self.drop_view(id)?;
                dropped.push(format!("view {}", view.name));
            } else if let Some(table) = self.catalog.tables.get(&id).cloned() {
                self.drop_table(id)?;
                dropped.push(format!("table {}", table.definition.name));
            }
        }
        Ok(dropped)
    }

    /// Drops the views that read a table or view, those that read them first; answers with what went.
    ///
    /// # Errors
    /// None but those of the node.
    pub fn drop_readers(&mut self, id: TableId) -> Result<Vec<Arc<View>>, Error> {
        let mut dropped = Vec::new();
        let mut going: Vec<TableId> = self.catalog.readers(id).map(|view| view.id).collect();
        going.reverse();
        while let Some(last) = going.last().copied() {
            if let Some(reader) = self.catalog.readers(last).next() {
                going.push(reader.id);
                continue;
            }
            going.pop();
            // It may have gone as a reader of another.
            if let Some(view) = self.catalog.views.get(&last).cloned() {
                self.drop_view(last)?;
                dropped.push(view);
            }
        }
        Ok(dropped)
    }

    /// COMMENT ON a table or view, or with `column` above 0 on its column of that number; `None` takes it back.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`].
    pub fn comment(&mut self, relation: TableId, column: u32, text: Option<String>) -> Result<(), Error> {
        self.change(CatalogChange::Comment { relation, column, text })
    }

    /// Makes all changes together with what `writes` holds, or none of it; answers once everybody sees them.
    ///
    /// # Errors
    /// When others have changed what these changes are about, and what committing rows says.
    pub async fn commit(self, writes: Option<WriteSet>) -> Result<Commit, Error> {
        let node = Arc::clone(&self.node);
        node.see_through(self.commit_whole(writes)).await
    }

    async fn commit_whole(mut self, writes: Option<WriteSet>) -> Result<Commit, Error> {
        let mut writes = writes;
        if let Some(writes) = &mut writes {
            // Rows of tables that are dropped as well.
            writes.keep_tables(|table| self.catalog.tables.contains_key(&table));
        }
        let writes = writes.filter(|writes| !writes.is_empty());
        let nothing = Commit::default();
        if self.changes.is_empty() {
            return match writes {
                Some(writes) => writes.commit().await,
                None => Ok(nothing),
            };
        }
        let node = Arc::clone(&self.node);
        let _turn = node.ddl.acquire().await.expect("the semaphore is never closed");
        node.end_prepared().await?;
        let altered = self.altered();
        let commit = if altered.is_empty() && writes.is_none() {
            let changes = std::mem::take(&mut self.changes);
            self.propose(CatalogCommand::Apply { changes: changes.clone() }).await?;
            self.changes = changes;
            nothing
        } else {
            self.decide(altered, writes).await?
        };
        node.wait_for_followers().await;
        for (stage, table) in self.state.unseen() {
            let id = table.definition.id;
            let dropped = |change: &CatalogChange| matches!(change, CatalogChange::Drop { table } if *table == id);
            if stage == Stage::Dropping
                && self.changes.iter().any(dropped)
                && let Err(error) = node.finish_drop(&table).await
            {
                tracing::warn!(table = table.definition.name, %error, "what is left of a table is dropped later");
            }
        }
        Ok(commit)
    }

    /// The shards that get another definition.
    fn altered(&self) -> BTreeMap<ShardId, (GroupId, Arc<TableDefinition>)> {
        let mut altered = BTreeMap::new();
        for change in &self.changes {
            let CatalogChange::Alter { next } = change else { continue };
            let Some(table) = self.catalog.tables.get(&next.id) else { continue };
            for placement in &table.shards {
                altered.insert(placement.shard, (placement.group, Arc::clone(&table.definition)));
            }
        }
        altered
    }

    /// Prepares, decides, and makes the changes.
    async fn decide(
        &mut self,
        altered: BTreeMap<ShardId, (GroupId, Arc<TableDefinition>)>,
        writes: Option<WriteSet>,
    ) -> Result<Commit, Error> {
        let mut puts = Parts::new();
        for (shard, (group, index)) in &self.looked_at {
            puts.entry(*group).or_default().push(Command::Expect { shard: *shard, index: *index });
        }
        for (shard, (group, table)) in altered {
            puts.entry(group).or_default().push(Command::Schema(SchemaChange::Put { shard, table }));
        }
        let written = writes.as_ref().map(WriteSet::groups).unwrap_or_default();
        let group = puts.keys().copied().chain(written).min();
        let group = group.ok_or_else(|| defect("a transaction that does nothing is decided about".to_owned()))?;
        let transaction = self.transaction;
        // Said before anybody can find the transaction: whoever gives it up later knows how long that has to be remembered.
        let until_us = self.node.commit_until_us();
        let changes = self.changes.clone();
        self.propose(CatalogCommand::Prepare { transaction, group, changes, until_us }).await?;
        let writes = writes.unwrap_or_else(|| self.node.begin());
        match writes.commit_with(puts, Some((transaction, until_us))).await {
            Ok(commit) => {
                self.node.end(transaction, group, true).await.map_err(goes_on)?;
                Ok(commit)
            }
            // The decision that holds is the first; ours may be there all the same.
            Err(error) => match self.node.end_prepared().await {
                Ok(Some(true)) => Ok(Commit::default()),
                Ok(_) => Err(error),
                Err(_) => Err(goes_on(error)),
            },
        }
    }

    /// One at a time changes the catalog: others of this node have no turn, those of other nodes are waited for.
    async fn propose(&self, command: CatalogCommand) -> Result<(), Error> {
        for _ in 0..BUSY_TRIES_MAX {
            match self.node.propose_catalog(command.clone()).await? {
                CatalogOutcome::Refused(refusal) => return Err(self.refused(refusal)),
                CatalogOutcome::Busy => drop(self.node.end_prepared().await?),
                _ => return Ok(()),
            }
        }
        Err(Error::Overloaded("other transactions change the catalog".into()))
    }

    async fn take_id(&self) -> Result<TableId, Error> {
        match self.node.propose_catalog(CatalogCommand::TakeId).await? {
            CatalogOutcome::Id(id) => Ok(id),
            refused => Err(defect(format!("there is no id: {refused:?}"))),
        }
    }

    fn refused(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::TableExists(name) => Error::TableExists(name),
            Refusal::SchemaChanged(name) => Error::SchemaChanged(name),
            Refusal::IsRead { name, readers } => Error::IsRead { name, readers },
            Refusal::SchemaExists(name) => Error::SchemaExists(name),
            Refusal::NoSuchSchema(name) => Error::NoSuchSchema(name),
            Refusal::SchemaNotEmpty { name, relations } => Error::SchemaNotEmpty { name, relations },
            Refusal::Circular(name) => Error::CircularView(name),
            Refusal::NoSuchTable(id) => Error::NoSuchTable(self.name_of(id)),
            refusal @ (Refusal::NodeExists(_) | Refusal::NoSuchToken | Refusal::TooManyTokens) => {
                defect(format!("a change of the catalog: {refusal:?}"))
            }
        }
    }

    /// The name of a table or view that was there.
    fn name_of(&self, id: String) -> String {
        let is = |known: &TableId| known.to_string() == id;
        let table = self.catalog.tables.iter().find(|(known, _)| is(known));
        let view = self.catalog.views.iter().find(|(known, _)| is(known));
        let name = table.map(|(_, table)| &table.definition.name).or(view.map(|(_, view)| &view.name));
        name.cloned().unwrap_or(id)
    }
}

/// Makes a table that nobody sees.
async fn make(node: Arc<Node>, spec: TableSpec) -> Result<HiddenTable, Error> {
    // Who drops tables that were left takes it for one of them until it is known whose it is.
    let _turn = node.ddl.acquire().await.expect("the semaphore is never closed");
    let maker = Some((node.identity.node, node.identity.boot));
    let led = node.data.iter().filter(|(_, data)| data.group.leads());
    let near = Some(led.map(|(group, _)| *group).collect());
    match node.propose_catalog(CatalogCommand::Create { spec: Box::new(spec), maker, near }).await? {
        CatalogOutcome::Table(table) => Ok(HiddenTable::new(Arc::clone(&node), table)),
        refused => Err(defect(format!("a table cannot be made: {refused:?}"))),
    }
}

impl fmt::Debug for CatalogChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CatalogChanges({}, {} of them)", self.transaction, self.changes.len())
    }
}
