//! What one statement (or transaction) reads: each table's snapshot, opened once, and the transaction's own rows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Node, ReadLevel, Table, TableSnapshot, Uncommitted};
use datafusion::datasource::TableProvider;
use datafusion::error::{DataFusionError, Result};
use event::TableId;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

/// Each table's snapshot, opened when first needed and shared by all scans of it, so that two scans of one table never see different
/// rows.
#[derive(Debug)]
pub(crate) struct Snapshots {
    node: Arc<Node>,
    /// What the session is content with; a table may be content with less. `None` reads the newest of all.
    level: Option<ReadLevel>,
    /// How old what was read may be, when all of that is known.
    staleness: Mutex<Option<Duration>>,
    opened: Mutex<BTreeMap<TableId, Arc<OnceCell<Arc<TableSnapshot>>>>>,
}

impl Snapshots {
    /// Nothing opened yet.
    pub(crate) fn new(node: Arc<Node>) -> Snapshots {
        Snapshots { node, level: None, staleness: Mutex::new(Some(Duration::ZERO)), opened: Mutex::default() }
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
        let cell = |snapshot: TableSnapshot| {
            (snapshot.table.definition.id, Arc::new(OnceCell::new_with(Some(Arc::new(snapshot)))))
        };
        let opened = snapshots.into_iter().map(cell).collect();
        Snapshots { opened: Mutex::new(opened), ..Snapshots::new(node) }
    }

    async fn of(&self, table: &Arc<Table>) -> Result<Arc<TableSnapshot>> {
        let cell = Arc::clone(self.opened.lock().entry(table.definition.id).or_default());
        let snapshot = cell
            .get_or_try_init(|| async {
                let level = self.level.clone().map_or_else(ReadLevel::strong, |level| ReadLevel {
                    consistency: level.consistency.max(table.definition.consistency),
                    ..level
                });
                let snapshot = self.node.snapshot_at(table, &level).await;
                let (snapshot, age) = snapshot.map_err(|e| DataFusionError::External(Box::new(e)))?;
                let mut oldest = self.staleness.lock();
                *oldest = oldest.zip(age).map(|(a, b)| a.max(b));
                Ok::<_, DataFusionError>(Arc::new(snapshot))
            })
            .await?;
        if snapshot.table.definition.version == table.definition.version {
            return Ok(Arc::clone(snapshot));
        }
        // The transaction that keeps the snapshot may have altered the table since.
        snapshot.followed_by(table).map(Arc::new).map_err(|error| DataFusionError::External(Box::new(error)))
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
