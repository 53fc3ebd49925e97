//! One node of the cluster: opens the data directory, runs its groups, answers the coordinator.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use event::{Clock, Entropy, GroupId, NodeId, ShardId, StatementId, TableDefinition, TableId};
use futures::future::{BoxFuture, FutureExt, select_all, try_join_all};
use object_store::ObjectStore;
use parking_lot::Mutex;
use replication::Group;
use storage::disk::DirectoryLock;
use storage::objects::SegmentStore;
use storage::{Disk, Log, ShardSnapshot, ShardsReader};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use crate::admission::{AdmissionStatistics, Gate};
use crate::catalog::machine::{CatalogMachine, PublishedCatalog};
use crate::catalog::{Catalog, ShardPlacement, Table, TableSpec};
use crate::copies::Copies;
use crate::data::{DataMachine, SharedReader};
use crate::directory::Identity;
use crate::error::Error;
use crate::flush::FlushRequest;
use crate::hold::Hold;
use crate::joint::JointCut;
use crate::maintenance::CompactRequest;
use crate::memory::MemoryBudget;
use crate::network::Network;
use crate::numbers::Reserved;
use crate::reading::Freshness;
use crate::routing::Asking;
use crate::segments::Lingering;
use crate::tokens::JoinToken;
use crate::transport::{Isolated, Transport};
use crate::write::WriteSet;

/// What a node needs to start. All I/O, time, randomness and threads come in through here.
pub struct NodeOptions {
    /// The disk below the data directory.
    pub disk: Arc<dyn Disk>,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Random numbers.
    pub entropy: Arc<Entropy>,
    /// Runs Raft, timers, log writer and apply; nothing else may run there.
    pub consensus: Handle,
    /// Runs sorting and Parquet encoding, and whatever reads, checks or copies whole segments.
    pub encode: Handle,
    /// Unflushed bytes of a group above which it is sealed; `limits::SEAL_BYTES` unless a test says otherwise.
    pub seal_bytes: usize,
    /// Bytes of a new file of the log; `limits::LOG_FILE_BYTES` unless a test says otherwise.
    pub log_file_bytes: u64,
    /// Data groups of a cluster that this node founds; `limits::DATA_GROUPS` unless a test or the configuration says otherwise.
    pub data_groups: usize,
    /// Whether reads at a group's leader rely on what its followers promised a moment ago, and do not ask them again.
    pub lease_reads: bool,
    /// What memtables, uncommitted rows and queries share.
    pub memory: Arc<MemoryBudget>,
    /// Where segments lie when not below the data directory.
    pub remote: Option<RemoteSegments>,
    /// The node's place among others.
    pub place: Place,
}

/// How a node is connected to others.
#[derive(Clone, Debug)]
pub struct Place {
    /// Carries messages.
    pub transport: Arc<dyn Transport>,
    /// Where other nodes reach this one; empty when it is alone.
    pub address: String,
    /// Where clients reach it, for others to tell them.
    pub sql_address: String,
    /// Nodes of the cluster that an empty data directory shall belong to; without any it founds one.
    pub join: Vec<String>,
    /// The id that the node must have; a new one asks for it.
    pub wanted: Option<NodeId>,
    /// The token that an empty data directory joins with.
    pub token: Option<JoinToken>,
    /// Whether a node that asks this one to be taken in must have a token.
    pub demands_tokens: bool,
}

impl Place {
    /// Of a node that is alone.
    pub fn alone() -> Place {
        let (address, sql_address) = (String::new(), String::new());
        let (transport, join) = (Arc::new(Isolated), Vec::new());
        Place { transport, address, sql_address, join, wanted: None, token: None, demands_tokens: false }
    }
}

/// An object store elsewhere that takes the segments. A node keeps to a prefix that names its cluster and itself.
#[derive(Clone, Debug)]
pub struct RemoteSegments {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// Its URL, for readers outside.
    pub url: String,
    /// Bytes of copies kept below the data directory.
    pub cache_bytes: u64,
}

/// A consistent cut of one table: one snapshot of each of its shards.
#[derive(Clone, Debug)]
pub struct TableSnapshot {
    /// The table as planned.
    pub table: Arc<Table>,
    /// One snapshot for each shard.
    pub shards: Vec<ShardSnapshot>,
}

/// Figures for metrics and views.
#[derive(Clone, Debug, Default)]
pub struct NodeStatistics {
    /// The log's counters.
    pub log: storage::log::LogStatistics,
    /// Bytes in memtables, frozen rows included.
    pub memtable_bytes: u64,
    /// Rows appended since start.
    pub rows_appended: u64,
    /// Seals this node has written as segments since start.
    pub seals: u64,
    /// Bytes taken of the memory budget.
    pub memory_used: u64,
    /// Bytes of the memory budget.
    pub memory_limit: u64,
    /// Statements admitted and refused.
    pub admission: AdmissionStatistics,
    /// Segments written since start.
    pub segments_written: u64,
    /// Bytes of those segments.
    pub segment_bytes_written: u64,
    /// Segments merged into others since start.
    pub segments_merged: u64,
}

/// What `annal.shards` shows of one shard.
#[derive(Clone, Debug)]
pub struct ShardStatus {
    /// The shard.
    pub shard: ShardId,
    /// Its table.
    pub table: TableId,
    /// Its group.
    pub group: GroupId,
    /// Leader of the group, when known.
    pub leader: Option<event::NodeId>,
    /// Who votes in the group.
    pub voters: BTreeSet<NodeId>,
    /// Current Raft term.
    pub term: u64,
    /// Commit index.
    pub committed: u64,
    /// Applied index.
    pub applied: u64,
}

/// A connection, as its node tells it from others: statements that are too many are refused fairly over connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub(crate) u64);

/// A running node.
pub struct Node {
    pub(crate) identity: Identity,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<Entropy>,
    pub(crate) demands_tokens: bool,
    pub(crate) consensus: Handle,
    pub(crate) encode: Handle,
    pub(crate) seal_bytes: u64,
    pub(crate) log: Log,
    pub(crate) store: SegmentStore,
    /// Which segments are here, and how to get the others.
    pub(crate) copies: Arc<Copies>,
    pub(crate) network: Arc<Network>,
    /// Where other nodes' messages arrive; it keeps what carries them.
    pub(crate) _transport: Arc<dyn Transport>,
    /// Statements that may be asked for again.
    pub(crate) asking: Arc<Mutex<Asking>>,
    /// What the names of objects are below, for readers outside.
    pub(crate) segments_place: String,
    pub(crate) catalog: Arc<Group<CatalogMachine>>,
    pub(crate) published: PublishedCatalog,
    pub(crate) data: BTreeMap<GroupId, Arc<DataGroup>>,
    /// How new its replicas are.
    pub(crate) freshness: Freshness,
    /// Since when this node knows of transactions of several groups that are not ended.
    pub(crate) open_since: Mutex<BTreeMap<StatementId, tokio::time::Instant>>,
    /// One transaction at a time changes the catalog.
    pub(crate) ddl: Semaphore,
    /// Tables that somebody of this node is making before anybody sees them.
    pub(crate) hidden: Mutex<BTreeSet<TableId>>,
    /// Numbers of identity columns that this node may give out.
    pub(crate) numbers: Reserved,
    /// One encoder at a time.
    pub(crate) encoder: Arc<Semaphore>,
    pub(crate) memory: Arc<MemoryBudget>,
    /// What readers outside were promised.
    pub(crate) holds: Mutex<Vec<Hold>>,
    /// What statements of other nodes were promised.
    pub(crate) promises: Mutex<Vec<Hold>>,
    /// Objects that nobody named when it started, and that another node may count on.
    pub(crate) lingering: Mutex<Lingering>,
    pub(crate) counters: Counters,
    pub(crate) stop: watch::Sender<bool>,
    /// Why a task of the node has ended that should not have.
    pub(crate) broken: watch::Sender<Option<String>>,
    pub(crate) lock: Mutex<Option<DirectoryLock>>,
}

/// A data group on this node.
pub(crate) struct DataGroup {
    pub(crate) group: Arc<Group<DataMachine>>,
    /// Who may have statements in flight.
    pub(crate) gate: Arc<Gate>,
    reader: SharedReader,
    /// The seal up to which checkpoints may be written, because their segments are here.
    pub(crate) held: Arc<AtomicU64>,
    /// What the shards had counted when the node was ready.
    rows_replayed: u64,
    /// About how many bytes lie in memtables: exact after each look of the flusher, plus what was committed since.
    pub(crate) unflushed: AtomicU64,
    /// Whether the flusher's last look ended for lack of room on the disk.
    pub(crate) disk_full: AtomicBool,
    /// Asks the flusher to look now.
    pub(crate) pressed: Arc<Notify>,
    /// Tells waiting writers that the flusher has looked.
    pub(crate) relieved: Notify,
    pub(crate) flush: mpsc::Sender<FlushRequest>,
    pub(crate) compact: mpsc::Sender<CompactRequest>,
    /// Since when objects lie there that only a checkpoint still names; 0 when none do.
    garbage_since_us: AtomicI64,
}

/// What this node has counted since it started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    statements: AtomicU64,
    clients: AtomicU64,
    objects: AtomicU64,
    pub(crate) seals: AtomicU64,
    pub(crate) segments: AtomicU64,
    pub(crate) segment_bytes: AtomicU64,
    pub(crate) merged: AtomicU64,
}

impl DataGroup {
    pub(crate) fn new(
        group: Arc<Group<DataMachine>>,
        (reader, held): (SharedReader, Arc<AtomicU64>),
        pressed: Arc<Notify>,
        flush: mpsc::Sender<FlushRequest>,
        compact: mpsc::Sender<CompactRequest>,
    ) -> DataGroup {
        let rows_replayed = reader.read().figures().rows_applied;
        DataGroup {
            group,
            gate: Gate::new(),
            reader,
            held,
            rows_replayed,
            unflushed: AtomicU64::new(0),
            disk_full: AtomicBool::new(false),
            pressed,
            relieved: Notify::new(),
            flush,
            compact,
            garbage_since_us: AtomicI64::new(0),
        }
    }

    /// Segments were taken out of a manifest: the next checkpoint lets their objects go.
    pub(crate) fn note_garbage(&self, now_us: i64) {
        // An earlier time stays.
        let _ = self.garbage_since_us.compare_exchange(0, now_us, Relaxed, Relaxed);
    }

    /// Since when there are such objects.
    pub(crate) fn garbage_since_us(&self) -> Option<i64> {
        Some(self.garbage_since_us.load(Relaxed)).filter(|since| *since != 0)
    }

    /// A seal takes care of them.
    pub(crate) fn garbage_sealed(&self) {
        self.garbage_since_us.store(0, Relaxed);
    }

    pub(crate) fn reader(&self) -> ShardsReader {
        self.reader.read().clone()
    }
}

impl Node {
    /// Opens the data directory (locks it, makes it when empty), replays the log, and waits until what was committed is applied.
    pub async fn start(options: NodeOptions) -> Result<Arc<Node>, Error> {
        let consensus = options.consensus.clone();
        // Tasks of the log and of Raft belong to the runtime they are started on.
        let started = consensus.spawn(crate::start::start(options)).await;
        started.map_err(|e| Error::ShuttingDown(e.to_string()))?
    }

    /// Stops taking writes, syncs the log, releases the lock.
    ///
    /// Groups that it leads are handed over first, so that they need not elect.
    pub async fn shutdown(&self) -> Result<(), Error> {
        if !self.stop.send_replace(true) {
            self.hand_over_all().await;
        }
        let lock = self.lock.lock().take();
        let Some(lock) = lock else { return Ok(()) };
        let groups = self.data.values().map(|data| data.group.clone()).collect();
        stop(groups, self.catalog.clone(), self.log.clone(), lock).await
    }

    /// Completes with the reason when the node can go on no longer: a failed sync, a log that is damaged (D22).
    pub async fn failed(&self) -> String {
        let groups = self.data.values().map(|d| d.group.failed().boxed());
        let others = [self.log.failed().boxed(), self.catalog.failed().boxed(), self.task_failed().boxed()];
        select_all(others.into_iter().chain(groups)).await.0
    }

    /// The node's clock, in microseconds since 1970.
    pub fn now_us(&self) -> i64 {
        self.clock.now_us()
    }

    /// The catalog as this node has it now; no I/O.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.published.read().clone()
    }

    /// The catalog after a read index on group 0: contains every DDL acknowledged before the call.
    pub async fn catalog_linearizable(&self) -> Result<Arc<Catalog>, Error> {
        self.read_barrier(&self.catalog).await?;
        Ok(self.catalog())
    }

    /// Creates a table; answers once it is public.
    ///
    /// # Errors
    /// As [`crate::CatalogChanges::create_table`].
    pub async fn create_table(self: &Arc<Self>, spec: TableSpec) -> Result<Arc<Table>, Error> {
        let mut changes = self.changes().await?;
        let table = changes.create_table(spec).await?;
        changes.commit(None).await?;
        Ok(table)
    }

    /// Gives a table its next definition, whose version follows that of the public one; answers once it is public.
    ///
    /// # Errors
    /// As [`crate::CatalogChanges::alter_table`].
    pub async fn alter_table(self: &Arc<Self>, next: TableDefinition) -> Result<Arc<Table>, Error> {
        let mut changes = self.changes().await?;
        let table = changes.alter_table(next)?;
        changes.commit(None).await?;
        Ok(table)
    }

    /// Drops a table with its rows: invisible at once, objects deleted when nothing names them any more.
    ///
    /// # Errors
    /// As [`crate::CatalogChanges::drop_table`].
    pub async fn drop_table(self: &Arc<Self>, table: TableId) -> Result<(), Error> {
        let mut changes = self.changes().await?;
        changes.drop_table(table)?;
        changes.commit(None).await.map(drop)
    }

    /// Creates a schema.
    ///
    /// # Errors
    /// [`Error::SchemaExists`].
    pub async fn create_schema(self: &Arc<Self>, name: String) -> Result<(), Error> {
        let mut changes = self.changes().await?;
        changes.create_schema(name).await?;
        changes.commit(None).await.map(drop)
    }

    /// Completes once no DDL of this node is being committed: a table that was between two definitions is public as one.
    pub async fn schema_settled(&self) {
        drop(self.ddl.acquire().await);
    }

    /// A connection of its own.
    pub fn client(&self) -> ClientId {
        ClientId(self.counters.clients.fetch_add(1, Relaxed))
    }

    /// Begins a statement or transaction that writes, of a connection that has no other.
    pub fn begin(self: &Arc<Self>) -> WriteSet {
        self.begin_for(self.client())
    }

    /// Begins a statement or transaction that writes.
    pub fn begin_for(self: &Arc<Self>, client: ClientId) -> WriteSet {
        WriteSet::new(self.clone(), self.statement_id(), client)
    }

    /// A linearizable cut of the table: contains every write acknowledged before the call (read index, then apply). The table may be as a
    /// transaction has altered it that is not committed.
    ///
    /// # Errors
    /// [`Error::SchemaChanged`] when the table is another by now, [`Error::NoSuchTable`].
    pub async fn snapshot(&self, table: &Arc<Table>) -> Result<TableSnapshot, Error> {
        self.cut_of_table(table, true).await
    }

    /// The same of several tables, in their order, as one cut: of every transaction it shows all or nothing.
    ///
    /// # Errors
    /// As [`Node::snapshot`].
    pub async fn snapshots(&self, tables: &[Arc<Table>]) -> Result<Vec<TableSnapshot>, Error> {
        self.cut_of_tables(tables, true).await
    }

    /// A cut of the table as this node has it: it waits for nobody, but for what of a transaction is not concluded here yet and cannot be hidden.
    pub(crate) async fn snapshot_here(&self, table: &Arc<Table>) -> Result<TableSnapshot, Error> {
        self.cut_of_table(table, false).await
    }

    async fn cut_of_table(&self, table: &Arc<Table>, newest: bool) -> Result<TableSnapshot, Error> {
        let mut cut = self.cut_of_tables(std::slice::from_ref(table), newest).await?;
        Ok(cut.pop().expect("one snapshot for each table"))
    }

    async fn cut_of_tables(&self, tables: &[Arc<Table>], newest: bool) -> Result<Vec<TableSnapshot>, Error> {
        let mut groups: BTreeMap<GroupId, Vec<ShardId>> = BTreeMap::new();
        let mut table_of: BTreeMap<ShardId, &Arc<Table>> = BTreeMap::new();
        for (table, placement) in tables.iter().flat_map(|table| table.shards.iter().map(move |p| (table, p))) {
            if table_of.insert(placement.shard, table).is_none() {
                groups.entry(placement.group).or_default().push(placement.shard);
            }
        }
        let mut cut = JointCut::new();
        loop {
            if newest {
                self.read_barriers(groups.keys().copied()).await?;
                self.follow_decided(&groups.keys().copied().collect::<Vec<_>>()).await?;
            }
            let mut shards = Vec::with_capacity(table_of.len());
            for (group, wanted) in &groups {
                let (snapshots, view) = self.data_group(*group)?.reader().cut_of(wanted);
                cut.add(*group, view);
                for (shard, snapshot) in wanted.iter().zip(snapshots) {
                    let table = table_of[shard];
                    let Some((definition, snapshot)) = snapshot else {
                        return Err(match newest {
                            true => Error::NoSuchTable(table.definition.name.clone()),
                            false => Error::Stale(format!("this node has no table \"{}\" yet", table.definition.name)),
                        });
                    };
                    shards.push((*group, follow(snapshot, &definition, &table.definition)?));
                }
            }
            if newest && self.is_between(&cut) {
                self.settle_prepared().await?;
            } else if cut.make_whole(&mut shards) {
                let shards: BTreeMap<ShardId, ShardSnapshot> =
                    shards.into_iter().map(|(_, snapshot)| (snapshot.shard, snapshot)).collect();
                // As they are placed.
                let of_table = |table: &Arc<Table>| TableSnapshot {
                    table: Arc::clone(table),
                    shards: table.shards.iter().map(|placement| shards[&placement.shard].clone()).collect(),
                };
                return Ok(tables.iter().map(of_table).collect());
            }
            cut.again().await?;
        }
    }

    /// Waits until everything acknowledged before the call is applied in this node's replicas of the groups.
    pub(crate) async fn read_barriers(&self, groups: impl Iterator<Item = GroupId>) -> Result<(), Error> {
        let replicas: Vec<&Arc<DataGroup>> = groups.map(|group| self.data_group(group)).collect::<Result<_, _>>()?;
        match &replicas[..] {
            [one] => self.read_barrier(&one.group).await.map(drop),
            several => try_join_all(several.iter().map(|data| self.read_barrier(&data.group))).await.map(drop),
        }
    }

    /// Whether rows of a transaction may be there whose changes of the catalog are not.
    fn is_between(&self, cut: &JointCut) -> bool {
        let Some(prepared) = self.catalog().prepared else { return false };
        let is_decided = |data: &Arc<DataGroup>| data.reader().decisions().get(&prepared).is_some_and(|d| d.commit);
        cut.shows(&prepared) || self.data.values().any(is_decided)
    }

    /// One cut of all tables of `catalog` that are as it says, for a transaction that reads repeatably: of every transaction it shows all or
    /// nothing.
    pub async fn cut(&self, catalog: &Catalog) -> Result<Vec<TableSnapshot>, Error> {
        let mut cut = JointCut::new();
        let mut shards = loop {
            self.read_barriers(self.data.keys().copied()).await?;
            self.follow_decided(&self.data.keys().copied().collect::<Vec<_>>()).await?;
            let (mut snapshots, mut definitions) = (Vec::new(), BTreeMap::new());
            for (group, data) in &self.data {
                let (all, view) = data.reader().cut();
                cut.add(*group, view);
                for (definition, snapshot) in all {
                    definitions.insert(snapshot.shard, definition);
                    snapshots.push((*group, snapshot));
                }
            }
            if self.is_between(&cut) {
                self.settle_prepared().await?;
            } else if cut.make_whole(&mut snapshots) {
                let known = snapshots.into_iter().filter_map(|(_, snapshot)| {
                    Some((snapshot.shard, (definitions.remove(&snapshot.shard)?, snapshot)))
                });
                break known.collect::<BTreeMap<_, _>>();
            }
            cut.again().await?;
        };
        let mut snapshots = Vec::new();
        for table in catalog.tables.values() {
            let mut of_table = Vec::with_capacity(table.shards.len());
            for placement in &table.shards {
                match shards.remove(&placement.shard) {
                    Some((definition, snapshot)) if definition.version == table.definition.version => {
                        of_table.push(snapshot);
                    }
                    _ => {}
                }
            }
            if of_table.len() == table.shards.len() {
                snapshots.push(TableSnapshot { table: table.clone(), shards: of_table });
            }
        }
        Ok(snapshots)
    }

    /// Seals every data group, writes its segments, installs them, checkpoints, purges the log; then returns.
    pub async fn flush(&self) -> Result<(), Error> {
        for group in self.data.keys() {
            self.flush_group(*group, true).await?;
        }
        Ok(())
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.identity.node
    }

    /// The store that holds the segments; paths are [`storage::SegmentMeta::name`].
    pub fn segment_store(&self) -> SegmentStore {
        self.store.clone()
    }

    /// Where a reader outside finds a segment: a path below the data directory, or the URL of an object.
    pub fn segment_path(&self, name: &str) -> String {
        format!("{}/{name}", self.segments_place)
    }

    /// What memtables, uncommitted rows and queries share.
    pub fn memory(&self) -> &Arc<MemoryBudget> {
        &self.memory
    }

    /// Figures for metrics.
    pub fn statistics(&self) -> NodeStatistics {
        let mut statistics = NodeStatistics {
            log: self.log.statistics(),
            seals: self.counters.seals.load(Relaxed),
            segments_written: self.counters.segments.load(Relaxed),
            segment_bytes_written: self.counters.segment_bytes.load(Relaxed),
            segments_merged: self.counters.merged.load(Relaxed),
            memory_used: self.memory.used() as u64,
            memory_limit: self.memory.limit() as u64,
            admission: self.admission(),
            ..NodeStatistics::default()
        };
        for data in self.data.values() {
            let figures = data.reader().figures();
            statistics.memtable_bytes += figures.open_bytes + figures.frozen_bytes;
            statistics.rows_appended += figures.rows_applied.saturating_sub(data.rows_replayed);
        }
        statistics
    }

    /// Bytes of a table's segments, and of its rows in memory; no I/O.
    pub fn table_bytes(&self, table: &Table) -> u64 {
        let bytes = |placement: &ShardPlacement| {
            let (_, snapshot) = self.data.get(&placement.group)?.reader().snapshot(placement.shard)?;
            let segments = snapshot.segments.iter().map(|segment| segment.meta.bytes);
            let batches = snapshot.memory.iter().flat_map(|split| &split.batches);
            Some(segments.chain(batches.map(|batch| batch.get_array_memory_size() as u64)).sum::<u64>())
        };
        table.shards.iter().filter_map(bytes).sum()
    }

    /// State of every shard.
    pub fn shards(&self) -> Vec<ShardStatus> {
        let mut shards = Vec::new();
        for (&group, data) in &self.data {
            let status = data.group.status();
            shards.extend(data.reader().shards().into_iter().map(|(shard, definition)| ShardStatus {
                shard,
                table: definition.id,
                group,
                leader: status.leader,
                voters: status.voters.clone(),
                term: status.term,
                committed: status.committed,
                applied: status.applied,
            }));
        }
        shards
    }

    async fn task_failed(&self) -> String {
        let mut broken = self.broken.subscribe();
        let reason = broken.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.expect("the node holds the sender, and waited for a reason")
    }

    pub(crate) fn data_group(&self, group: GroupId) -> Result<&Arc<DataGroup>, Error> {
        self.data.get(&group).ok_or_else(|| Error::Limit(format!("this node has no replica of group {group}")))
    }

    pub(crate) fn statement_id(&self) -> StatementId {
        let counter = self.counters.statements.fetch_add(1, Relaxed);
        StatementId { node: self.identity.node, boot: self.identity.boot, counter }
    }

    /// A number no other object of this boot has in its name.
    pub(crate) fn next_object(&self) -> u64 {
        self.counters.objects.fetch_add(1, Relaxed)
    }

    /// Runs work that must not stop half-way because its caller no longer waits.
    pub(crate) async fn see_through<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        SeenThrough { runtime: self.consensus.clone(), work: Some(Box::pin(work)) }.await
    }
}

/// Work that goes on when nobody waits for it any more. Whoever waits does it himself, without going to another thread; what is left
/// when he stops is done on `runtime`.
struct SeenThrough<T: Send + 'static> {
    runtime: Handle,
    /// `None` once it is done.
    work: Option<BoxFuture<'static, T>>,
}

impl<T: Send + 'static> Future for SeenThrough<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Taken out, so that work that panics is not begun again.
        let mut work = self.work.take().expect("work is not polled after its end");
        let done = work.as_mut().poll(context);
        if done.is_pending() {
            self.work = Some(work);
        }
        done
    }
}

impl<T: Send + 'static> Drop for SeenThrough<T> {
    fn drop(&mut self) {
        if let Some(rest) = self.work.take() {
            self.runtime.spawn(rest);
        }
    }
}

impl TableSnapshot {
    /// The same rows as those of a table that a transaction has altered since.
    ///
    /// # Errors
    /// [`Error::SchemaChanged`] when the table is not one that follows this one.
    pub fn followed_by(&self, table: &Arc<Table>) -> Result<TableSnapshot, Error> {
        let from = &self.table.definition;
        let shards = self.shards.iter().map(|shard| follow(shard.clone(), from, &table.definition));
        Ok(TableSnapshot { table: Arc::clone(table), shards: shards.collect::<Result<_, _>>()? })
    }
}

/// Rows of a definition as those of one that is the same, or follows it.
fn follow(
    snapshot: ShardSnapshot,
    from: &Arc<TableDefinition>,
    to: &Arc<TableDefinition>,
) -> Result<ShardSnapshot, Error> {
    match from.version.cmp(&to.version) {
        Ordering::Equal if Arc::ptr_eq(from, to) || from == to => Ok(snapshot),
        Ordering::Less => Ok(snapshot.adapted(from, to)?),
        _ => Err(Error::SchemaChanged(to.name.clone())),
    }
}

/// Stops the groups, then the log, and only then gives up the directory.
async fn stop(
    groups: Vec<Arc<Group<DataMachine>>>,
    catalog: Arc<Group<CatalogMachine>>,
    log: Log,
    lock: DirectoryLock,
) -> Result<(), Error> {
    // A vote or entry that waits for room on a full disk would keep its group from stopping.
    log.give_up_waiting();
    for group in groups {
        group.shutdown().await;
    }
    catalog.shutdown().await;
    let closed = log.close().await;
    drop(lock);
    Ok(closed?)
}

impl Drop for Node {
    /// A node that was not shut down must not go on writing to a directory it no longer holds.
    fn drop(&mut self) {
        let Some(lock) = self.lock.lock().take() else { return };
        let groups = self.data.values().map(|data| data.group.clone()).collect();
        self.consensus.spawn(stop(groups, self.catalog.clone(), self.log.clone(), lock));
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({}, boot {})", self.identity.node, self.identity.boot)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn seen_through<T: Send>(work: impl Future<Output = T> + Send + 'static) -> SeenThrough<T> {
        SeenThrough { runtime: Handle::current(), work: Some(Box::pin(work)) }
    }

    #[tokio::test]
    async fn work_nobody_waits_for_any_more_is_done() {
        let (begin, begun) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let mut work = seen_through(async move {
            begun.await.unwrap();
            end.send("done").unwrap();
        });
        assert!(futures::poll!(&mut work).is_pending());
        drop(work);
        begin.send(()).unwrap();
        assert_eq!(ended.await.unwrap(), "done");
    }

    #[tokio::test]
    async fn who_waits_does_the_work() {
        let here = tokio::task::try_id();
        assert_eq!(seen_through(async { tokio::task::try_id() }).await, here);
    }
}
