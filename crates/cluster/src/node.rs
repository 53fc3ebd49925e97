//! One node of the cluster: opens the data directory, runs its groups, answers the coordinator.

use std::sync::Arc;

use event::{Clock, Entropy, ShardId, TableId};
use storage::{Disk, ShardSnapshot};

use crate::catalog::{Catalog, Table, TableSpec};
use crate::error::Error;
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
    pub consensus: tokio::runtime::Handle,
    /// Runs sorting and Parquet encoding.
    pub encode: tokio::runtime::Handle,
    /// Unflushed bytes of a group above which it is sealed; `limits::SEAL_BYTES` unless a test says otherwise.
    pub seal_bytes: usize,
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
    /// Seals applied since start.
    pub seals: u64,
    /// Segments written since start.
    pub segments_written: u64,
    /// Bytes of those segments.
    pub segment_bytes_written: u64,
}

/// What `annal.shards` shows of one shard.
#[derive(Clone, Debug)]
pub struct ShardStatus {
    /// The shard.
    pub shard: ShardId,
    /// Its table.
    pub table: TableId,
    /// Its group.
    pub group: event::GroupId,
    /// Leader of the group, when known.
    pub leader: Option<event::NodeId>,
    /// Current Raft term.
    pub term: u64,
    /// Commit index.
    pub committed: u64,
    /// Applied index.
    pub applied: u64,
}

/// A running node.
#[derive(Debug)]
pub struct Node {}

impl Node {
    /// Opens the data directory (locks it, makes it when empty), replays the log, and waits until its groups lead.
    pub async fn start(options: NodeOptions) -> Result<Arc<Node>, Error> {
        let _ = options;
        unimplemented!()
    }

    /// Stops taking writes, syncs the log, releases the lock.
    pub async fn shutdown(&self) -> Result<(), Error> {
        unimplemented!()
    }

    /// Completes with the reason when the node can go on no longer: a failed sync, a log that is damaged (D22).
    pub async fn failed(&self) -> String {
        unimplemented!()
    }

    /// The catalog as this node has it now; no I/O.
    pub fn catalog(&self) -> Arc<Catalog> {
        unimplemented!()
    }

    /// The catalog after a read index on group 0: contains every DDL acknowledged before the call.
    pub async fn catalog_linearizable(&self) -> Result<Arc<Catalog>, Error> {
        unimplemented!()
    }

    /// Creates a table; answers once it is public (D15).
    pub async fn create_table(&self, spec: TableSpec) -> Result<Arc<Table>, Error> {
        let _ = spec;
        unimplemented!()
    }

    /// Drops a table with its rows (D15): invisible at once, objects deleted when nothing names them any more.
    pub async fn drop_table(&self, table: TableId) -> Result<(), Error> {
        let _ = table;
        unimplemented!()
    }

    /// Begins a statement or transaction that writes.
    pub fn begin(self: &Arc<Self>) -> WriteSet {
        unimplemented!()
    }

    /// A linearizable cut of the table: contains every write acknowledged before the call (read index, then apply).
    pub async fn snapshot(&self, table: &Arc<Table>) -> Result<TableSnapshot, Error> {
        let _ = table;
        unimplemented!()
    }

    /// Seals every data group, writes its segments, installs them, checkpoints, purges the log; then returns.
    pub async fn flush(&self) -> Result<(), Error> {
        unimplemented!()
    }

    /// The store that holds the segments; paths are [`storage::SegmentMeta::name`].
    pub fn segment_store(&self) -> Arc<dyn object_store::ObjectStore> {
        unimplemented!()
    }

    /// Figures for metrics.
    pub fn statistics(&self) -> NodeStatistics {
        unimplemented!()
    }

    /// State of every shard.
    pub fn shards(&self) -> Vec<ShardStatus> {
        unimplemented!()
    }
}
