//! From a data directory to a running node.

use std::collections::BTreeMap;
use std::sync::Arc;

use event::{GroupId, limits};
use object_store::ObjectStore;
use object_store::prefix::PrefixStore;
use parking_lot::{Mutex, RwLock};
use replication::{Group, GroupOptions, Peer};
use storage::Log;
use storage::objects::{CachedObjectStore, DiskObjectStore, SegmentStore};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use crate::catalog::Catalog;
use crate::catalog::command::CatalogCommand;
use crate::catalog::machine::CatalogMachine;
use crate::data::DataMachine;
use crate::directory::{self, CACHE_DIR, CHECKPOINTS_DIR, Identity, LOG_DIR, SEGMENTS_DIR, TMP_DIR};
use crate::error::Error;
use crate::flush::{self, FlushRequest};
use crate::maintenance::{self, CompactRequest};
use crate::node::{Counters, DataGroup, Node, NodeOptions, RemoteSegments};
use crate::peers::Peers;

/// The data groups a cluster is founded with.
const DATA_GROUPS: [GroupId; 1] = [GroupId(1)];

/// A group's own tasks that wait to be run: the flusher's queue and bell, the queue of maintenance.
type PendingTasks = (GroupId, mpsc::Receiver<FlushRequest>, Arc<Notify>, mpsc::Receiver<CompactRequest>);

/// Starts a node; runs on the consensus runtime.
pub(crate) async fn start(options: NodeOptions) -> Result<Arc<Node>, Error> {
    let lock = options.disk.lock().map_err(|e| Error::DataDirectory(e.to_string()))?;
    let identity = directory::open(&options.disk, &options.entropy).await?;
    let (store, segments_place) = open_segments(&options, &identity).await?;
    let log = Log::open_with_file_len(options.disk.clone(), LOG_DIR, options.log_file_bytes).await?;
    let group_options = |group: GroupId| GroupOptions {
        group,
        node: identity.node,
        disk: options.disk.clone(),
        dirs: (CHECKPOINTS_DIR.to_owned(), TMP_DIR.to_owned()),
        log: log.clone(),
        clock: options.clock.clone(),
        runtime: options.consensus.clone(),
        voters: BTreeMap::from([(identity.node, Peer::default())]),
    };
    let published = Arc::new(RwLock::new(Arc::new(Catalog::default())));
    let machine = CatalogMachine::new(published.clone());
    let catalog = Group::open(group_options(GroupId::CATALOG), machine, Peers).await?;
    let mut data = BTreeMap::new();
    let mut pending: Vec<PendingTasks> = Vec::new();
    for group in DATA_GROUPS {
        let machine = DataMachine::new(group);
        let reader = machine.reader();
        let opened = Group::open(group_options(group), machine, Peers).await?;
        let (flush, requests) = mpsc::channel(limits::FLUSH_QUEUE_LEN);
        let (compact, compactions) = mpsc::channel(limits::FLUSH_QUEUE_LEN);
        let pressed = Arc::new(Notify::new());
        data.insert(group, Arc::new(DataGroup::new(opened, reader, pressed.clone(), flush, compact)));
        pending.push((group, requests, pressed, compactions));
    }
    let (stop, stopped) = watch::channel(false);
    let node = Arc::new(Node {
        numbers: crate::numbers::Reserved::default(),
        identity,
        clock: options.clock,
        consensus: options.consensus,
        encode: options.encode,
        seal_bytes: options.seal_bytes as u64,
        log,
        store,
        segments_place,
        catalog,
        published,
        data,
        ddl: Semaphore::new(1),
        hidden: Mutex::default(),
        encoder: Arc::new(Semaphore::new(1)),
        memory: options.memory,
        holds: Mutex::default(),
        counters: Counters::default(),
        stop,
        broken: watch::Sender::new(None),
        lock: Mutex::new(Some(lock)),
    });
    if let Err(error) = prepare(&node).await {
        // The lock goes with the node; what Raft still runs ends with its groups.
        let _ = node.shutdown().await;
        return Err(error);
    }
    for data in node.data.values() {
        node.measure(data);
    }
    for (group, requests, pressed, compactions) in pending {
        let flusher = tokio::spawn(flush::run(Arc::downgrade(&node), group, requests, pressed, stopped.clone()));
        watch_over(&node, flusher, format!("the flusher of group {group} panicked"));
        let maintenance = maintenance::run(Arc::downgrade(&node), group, compactions, stopped.clone());
        watch_over(&node, tokio::spawn(maintenance), format!("the maintenance of group {group} panicked"));
    }
    Ok(node)
}

/// The store of the segments, and what their names are below for readers outside.
async fn open_segments(options: &NodeOptions, identity: &Identity) -> Result<(SegmentStore, String), Error> {
    let disk = options.disk.clone();
    let unusable = |dir: &str| {
        let context = format!("could not open directory \"{dir}\"");
        move |source| storage::Error::Io { context, source }
    };
    let Some(RemoteSegments { store, url, cache_bytes }) = options.remote.clone() else {
        let store = DiskObjectStore::open(disk, SEGMENTS_DIR, TMP_DIR).await.map_err(unusable(SEGMENTS_DIR))?;
        return Ok((store.into(), SEGMENTS_DIR.to_owned()));
    };
    // Nodes that were given the same place keep out of each other's: what a node does not know it deletes.
    let prefix = format!("{:016x}/{}", identity.cluster, identity.node);
    let place = format!("{}/{prefix}", url.trim_end_matches('/'));
    let remote: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(store, prefix.as_str()));
    let store = CachedObjectStore::open(remote, disk, CACHE_DIR, TMP_DIR, cache_bytes);
    Ok((store.await.map_err(unusable(CACHE_DIR))?.into(), place))
}

/// Ends the node when a task of it panics.
fn watch_over(node: &Node, task: JoinHandle<()>, reason: String) {
    let broken = node.broken.clone();
    tokio::spawn(async move {
        if task.await.is_err_and(|e| e.is_panic()) {
            broken.send_replace(Some(reason));
        }
    });
}

/// What must be done before the node serves: found the catalog, check the segments, finish jobs.
async fn prepare(node: &Arc<Node>) -> Result<(), Error> {
    if !node.catalog.inspect(|machine| machine.state().is_founded()).await? {
        node.catalog.propose(CatalogCommand::Found { groups: DATA_GROUPS.to_vec() }).await?;
    }
    node.check_segments().await?;
    node.resume_jobs().await?;
    node.forget_left_schemas();
    node.collect_orphans().await
}
