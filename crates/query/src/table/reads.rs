//! What one statement (or transaction) reads: each table's snapshot, opened once, and the transaction's own rows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Node, ReadLevel, Table, TableSnapshot, Uncommitted};
use datafusion::datasource::TableProvider;
use datafusion::error::{DataFusionError, Result};
use event::{Consistency, TableId};
use parking_lot::Mutex;

/// Each table's snapshot, opened when first needed and shared by all scans of it, so that two scans of one table never see different
/// rows. Tables that the statement names are opened together, as one cut: it sees every transaction whole.
#[derive(Debug)]
pub(crate) struct Snapshots {
    node: Arc<Node>,
    /// What the session is content with; a table may be content with less. `None` reads the newest of all.
    level: Option<ReadLevel>,
    /// How old what was read may be, when all of that is known.
    staleness: Mutex<Option<Duration>>,
    /// Tables that were looked up by name, of which not all need be read.
    named: Mutex<BTreeMap<TableId, Arc<Table>>>,
    opened: tokio::sync::Mutex<BTreeMap<TableId, Arc<TableSnapshot>>>,
}

impl Snapshots {
    /// Nothing opened yet.
    pub(crate) fn new(node: Arc<Node>) -> Snapshots {
        let (named, opened) = (Mutex::default(), tokio::sync::Mutex::default());
        Snapshots { node, level: None, staleness: Mutex::new(Some(Duration::ZERO)), named, opened }
    }

    /// The same, read at a level.
    pub(crate) fn at_least_as_new_as(mut self, level: ReadLevel) -> Snapshots {
        self.level = Some(level);
        self
    }

    /// How old what was read so far may be; `None` when that is not known.
    pub(crate) fn staleness(&self) -> Option<Duration> {
        *self.staleness.lock()
    }

    /// All tables of one moment, for a transaction that reads repeatably. A table made later is opened when it is needed.
    pub(crate) fn pinned(node: Arc<Node>, snapshots: Vec<TableSnapshot>) -> Snapshots {
        let opened = snapshots.into_iter().map(|snapshot| (snapshot.table.definition.id, Arc::new(snapshot)));
        Snapshots { opened: tokio::sync::Mutex::new(opened.collect()), ..Snapshots::new(node) }
    }

    /// The statement may read that table.
    fn name(&self, table: &Arc<Table>) {
        self.named.lock().insert(table.definition.id, Arc::clone(table));
    }

    fn level_of(&self, table: &Table) -> ReadLevel {
        self.level.clone().map_or_else(ReadLevel::strong, |level| ReadLevel {
            consistency: level.consistency.max(table.definition.consistency),
            ..level
        })
    }

    async fn of(&self, table: &Arc<Table>) -> Result<Arc<TableSnapshot>> {
        let mut opened = self.opened.lock().await;
        let snapshot = match opened.get(&table.definition.id) {
            Some(snapshot) => Arc::clone(snapshot),
            None => self.open(&mut opened, table).await?,
        };
        drop(opened);
        if snapshot.table.definition.version == table.definition.version {
            return Ok(snapshot);
        }
        // The transaction that keeps the snapshot may have altered the table since.
        snapshot.followed_by(table).map(Arc::new).map_err(|error| DataFusionError::External(Box::new(error)))
    }

    /// Opens a table, and with it what else is named and read as strictly.
    async fn open(
        &self,
        opened: &mut BTreeMap<TableId, Arc<TableSnapshot>>,
        table: &Arc<Table>,
    ) -> Result<Arc<TableSnapshot>> {
        let level = self.level_of(table);
        if level.consistency == Consistency::Strong {
            let is_strong = |other: &&Arc<Table>| self.level_of(other).consistency == Consistency::Strong;
            let is_new = |other: &&Arc<Table>| !opened.contains_key(&other.definition.id);
            let others: Vec<Arc<Table>> =
                self.named.lock().values().filter(is_strong).filter(is_new).cloned().collect();
            let others = others.into_iter().filter(|other| other.definition.id != table.definition.id);
            let together: Vec<Arc<Table>> = std::iter::once(Arc::clone(table)).chain(others).collect();
            // When one of the others cannot be read any more, whoever reads that is told.
            if together.len() > 1
                && let Ok(snapshots) = self.node.snapshots(&together).await
            {
                let snapshots =
                    snapshots.into_iter().map(|snapshot| (snapshot.table.definition.id, Arc::new(snapshot)));
                opened.extend(snapshots);
                return Ok(Arc::clone(&opened[&table.definition.id]));
            }
        }
        let (snapshot, age) =
            self.node.snapshot_at(table, &level).await.map_err(|e| DataFusionError::External(Box::new(e)))?;
        {
            let mut oldest = self.staleness.lock();
            *oldest = oldest.zip(age).map(|(a, b)| a.max(b));
        }
        let snapshot = Arc::new(snapshot);
        opened.insert(table.definition.id, Arc::clone(&snapshot));
        Ok(snapshot)
    }
}

/// What one statement reads: snapshots, its own or those its transaction keeps, and the transaction's own rows.
#[derive(Clone, Debug)]
pub(crate) struct Reads {
    snapshots: Arc<Snapshots>,
    uncommitted: BTreeMap<TableId, Vec<Uncommitted>>,
    /// The table whose rows are given with their sequence numbers.
    numbered: Option<TableId>,
    /// Whether rows are given that others of their key took the place of.
    all: bool,
    /// Tables of the statement's own, by name.
    named: BTreeMap<&'static str, Arc<dyn TableProvider>>,
}

impl Reads {
    /// `uncommitted` are the transaction's own rows, by table.
    pub(crate) fn new(snapshots: Arc<Snapshots>, uncommitted: BTreeMap<TableId, Vec<Uncommitted>>) -> Reads {
        Reads { snapshots, uncommitted, numbered: None, all: false, named: BTreeMap::new() }
    }

    /// The same, with a column `__seq` in that table.
    pub(crate) fn with_numbers(mut self, table: TableId) -> Reads {
        self.numbered = Some(table);
        self
    }

    /// The same, with rows that others of their key took the place of.
    pub(crate) fn with_all_rows(mut self) -> Reads {
        self.all = true;
        self
    }

    /// Whether rows are given that others of their key took the place of.
    pub(crate) fn gives_all_rows(&self) -> bool {
        self.all
    }

    /// The same, with a table of the statement's own, which comes before all others of that name.
    pub(crate) fn with_named(mut self, name: &'static str, table: Arc<dyn TableProvider>) -> Reads {
        self.named.insert(name, table);
        self
    }

    /// The statement's own table of that name.
    pub(crate) fn named(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        self.named.get(name).map(Arc::clone)
    }

    /// Whether that table has a column `__seq`.
    pub(crate) fn numbers(&self, table: TableId) -> bool {
        self.numbered == Some(table)
    }

    /// The statement may read that table: it is opened with the first one that is.
    pub(crate) fn name(&self, table: &Arc<Table>) {
        self.snapshots.name(table);
    }

    /// The statement's snapshot of `table`, opened now if no scan needed it before.
    pub(crate) async fn snapshot(&self, table: &Arc<Table>) -> Result<Arc<TableSnapshot>> {
        self.snapshots.of(table).await
    }

    /// How old what was read so far may be; `None` when that is not known.
    pub(crate) fn staleness(&self) -> Option<Duration> {
        self.snapshots.staleness()
    }

    /// The transaction's own rows of `table`, by shard.
    pub(crate) fn uncommitted(&self, table: TableId) -> &[Uncommitted] {
        self.uncommitted.get(&table).map(Vec::as_slice).unwrap_or_default()
    }
}
