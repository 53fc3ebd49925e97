//! From a data directory to a running node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use event::{GroupId, Origin, StatementId, limits};
use object_store::ObjectStore;
use object_store::prefix::PrefixStore;
use parking_lot::{Mutex, RwLock};
use replication::{Group, GroupOptions, Peer};
use storage::Log;
use storage::objects::{CachedObjectStore, DiskObjectStore, SegmentStore};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use crate::catalog::Catalog;
use crate::catalog::command::{CatalogCommand, CatalogStatement};
use crate::catalog::machine::{CatalogMachine, PublishedCatalog};
use crate::copies::Copies;
use crate::data::DataMachine;
use crate::ddl;
use crate::directory::{self, CACHE_DIR, CHECKPOINTS_DIR, FIRST_NODE, Identity, LOG_DIR, SEGMENTS_DIR, TMP_DIR};
use crate::door::Door;
use crate::error::Error;
use crate::flush::{self, FlushRequest};
use crate::maintenance::{self, CompactRequest};
use crate::membership;
use crate::message::{Joined, Joining};
use crate::network::Network;
use crate::node::{Counters, DataGroup, Node, NodeOptions, Place, RemoteSegments};
use crate::peers::Peers;
use crate::removal;

/// Between two looks at a catalog that says nothing yet.
const CATALOG_RETRY: Duration = Duration::from_millis(20);

/// Between two tries to tell the catalog of this start.
const REGISTER_RETRY: Duration = Duration::from_millis(200);

/// A group's own tasks that wait to be run: the flusher's queue and bell, the queue of maintenance.
type PendingTasks = (GroupId, mpsc::Receiver<FlushRequest>, Arc<Notify>, mpsc::Receiver<CompactRequest>);

/// Starts a node; runs on the consensus runtime.
pub(crate) async fn start(options: NodeOptions) -> Result<Arc<Node>, Error> {
    let lock = options.disk.lock().map_err(|e| Error::DataDirectory(e.to_string()))?;
    let published = Arc::new(RwLock::new(Arc::new(Catalog::default())));
    let network = Arc::new(Network::new(options.place.transport.clone(), published.clone()));
    let identity = identify(&options, &network).await?;
    network.introduce(identity.cluster, identity.node);
    let seeds = options.place.join.clone();
    tokio::spawn(removal::watch(Arc::downgrade(&network), seeds));
    let door = Door::default();
    door.introduce(identity.cluster, identity.node);
    let (own, segments_place) = open_segments(&options, &identity).await?;
    let (copies, store) = Copies::new(own, network.clone(), options.encode.clone());
    door.open_copies(copies.clone());
    let log = Log::open_with_file_len(options.disk.clone(), LOG_DIR, options.log_file_bytes).await?;
    let founder = (identity.node, Peer::new(options.place.address.clone()));
    let group_options = |group: GroupId| GroupOptions {
        group,
        node: identity.node,
        disk: options.disk.clone(),
        dirs: (CHECKPOINTS_DIR.to_owned(), TMP_DIR.to_owned()),
        log: log.clone(),
        clock: options.clock.clone(),
        runtime: options.consensus.clone(),
        founders: (identity.node == FIRST_NODE).then(|| founder.clone()).into_iter().collect(),
        confirmed: Arc::default(),
        lease_reads: options.lease_reads,
    };
    let peers = |options: &GroupOptions| Peers {
        group: options.group,
        network: network.clone(),
        confirmed: options.confirmed.clone(),
    };
    let machine = CatalogMachine::new(published.clone());
    let of_catalog = group_options(GroupId::CATALOG);
    let to_peers = peers(&of_catalog);
    let catalog = Group::open(of_catalog, machine, to_peers).await?;
    door.open_catalog(catalog.clone());
    options.place.transport.serve(door.clone()).await;
    let groups = tokio::select! {
        groups = data_groups(&catalog, &identity, &published, options.data_groups) => groups?,
        outcast = network.cast_out() => return Err(outcast),
    };
    let mut data = BTreeMap::new();
    let mut pending: Vec<PendingTasks> = Vec::new();
    for group in groups {
        let machine = DataMachine::new(group);
        let (reader, held) = (machine.reader(), machine.held());
        copies.watch(reader.clone());
        let of_group = group_options(group);
        let to_peers = peers(&of_group);
        let opened = Group::open(of_group, machine, to_peers).await?;
        door.open_data(opened.clone());
        let (flush, requests) = mpsc::channel(limits::FLUSH_QUEUE_LEN);
        let (compact, compactions) = mpsc::channel(limits::FLUSH_QUEUE_LEN);
        let pressed = Arc::new(Notify::new());
        data.insert(group, Arc::new(DataGroup::new(opened, (reader, held), pressed.clone(), flush, compact)));
        pending.push((group, requests, pressed, compactions));
    }
    let (stop, stopped) = watch::channel(false);
    let node = Arc::new(Node {
        numbers: crate::numbers::Reserved::default(),
        identity,
        clock: options.clock,
        entropy: options.entropy,
        demands_tokens: options.place.demands_tokens,
        consensus: options.consensus,
        encode: options.encode,
        seal_bytes: options.seal_bytes as u64,
        log,
        store,
        copies,
        network,
        _transport: options.place.transport.clone(),
        asking: Arc::default(),
        segments_place,
        catalog,
        published,
        data,
        freshness: crate::reading::Freshness::default(),
        open_since: Mutex::default(),
        ddl: Semaphore::new(1),
        hidden: Mutex::default(),
        encoder: Arc::new(Semaphore::new(1)),
        memory: options.memory,
        holds: Mutex::default(),
        promises: Mutex::default(),
        lingering: Mutex::default(),
        counters: Counters::default(),
        stop,
        broken: watch::Sender::new(None),
        lock: Mutex::new(Some(lock)),
    });
    door.open_node(&node);
    let prepared = tokio::select! {
        prepared = prepare(&node, &options.place) => prepared,
        outcast = node.cast_out() => Err(outcast),
        // Of what is tried again some would never come to an end on a disk that has failed.
        reason = node.failed() => Err(Error::ShuttingDown(reason)),
    };
    if let Err(error) = prepared {
        // Whatever failed, this is why.
        let error = if node.network.is_outcast() { node.cast_out().await } else { error };
        // The lock goes with the node; what Raft still runs ends with its groups.
        let _ = node.shutdown().await;
        return Err(error);
    }
    for data in node.data.values() {
        node.measure(data);
    }
    let jobs = tokio::spawn(ddl::run(Arc::downgrade(&node), stopped.clone()));
    watch_over(&node, jobs, "the task of left jobs panicked".to_owned());
    for (group, requests, pressed, compactions) in pending {
        let flusher = tokio::spawn(flush::run(Arc::downgrade(&node), group, requests, pressed, stopped.clone()));
        watch_over(&node, flusher, format!("the flusher of group {group} panicked"));
        let maintenance = maintenance::run(Arc::downgrade(&node), group, compactions, stopped.clone());
        watch_over(&node, tokio::spawn(maintenance), format!("the maintenance of group {group} panicked"));
    }
    Ok(node)
}

/// Who the directory belongs to. An empty one founds a cluster, or joins the one it shall belong to: it asks until it is taken in, or told that it
/// cannot be.
async fn identify(options: &NodeOptions, network: &Network) -> Result<Identity, Error> {
    let Place { address, sql_address, join, wanted, token, .. } = &options.place;
    if let Some(identity) = directory::open(&options.disk).await? {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != identity.node) {
            let message = format!("the data directory belongs to node {}, not to node {wanted}", identity.node);
            return Err(Error::DataDirectory(message));
        }
        return Ok(identity);
    }
    if join.is_empty() {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != FIRST_NODE) {
            let message = format!("the node that founds a cluster is node {FIRST_NODE}, not node {wanted}");
            return Err(Error::DataDirectory(message));
        }
        return directory::take(&options.disk, options.entropy.next_u64(), FIRST_NODE).await;
    }
    let nonce = directory::nonce(&options.disk, options.entropy.next_u64()).await?;
    let (address, sql_address) = (address.clone(), sql_address.clone());
    let joining = Joining { nonce, address, sql_address, wanted: *wanted, token: token.clone() };
    let Joined { cluster, node } = membership::join(network, join, &joining).await?;
    directory::take(&options.disk, cluster, node).await
}

/// The data groups there are, once the catalog says so: the founder writes it, the others are told.
async fn data_groups(
    catalog: &Group<CatalogMachine>,
    identity: &Identity,
    published: &PublishedCatalog,
    wanted: usize,
) -> Result<Vec<GroupId>, Error> {
    loop {
        let groups = published.read().groups.clone();
        if !groups.is_empty() {
            return Ok(groups);
        }
        if identity.node == FIRST_NODE && catalog.leads() {
            // Its counter is beyond those of all statements that are settled.
            let id = StatementId { node: identity.node, boot: identity.boot, counter: u64::MAX };
            let groups = (1..=wanted.max(1) as u64).map(GroupId).collect();
            let command = CatalogCommand::Found { groups };
            catalog.propose(CatalogStatement { origin: Origin { id, settled: 0 }, command }).await?;
        }
        tokio::select! {
            () = tokio::time::sleep(CATALOG_RETRY) => {}
            reason = catalog.failed() => return Err(Error::ShuttingDown(reason)),
        }
    }
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
    // All nodes of the cluster share the place, and clusters keep out of each other's: what none of its nodes knows it deletes.
    let prefix = format!("{:016x}", identity.cluster);
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

/// What must be done before the node serves: wait for what was committed, check the segments, finish jobs.
async fn prepare(node: &Arc<Node>, place: &Place) -> Result<(), Error> {
    tokio::select! {
        ready = node.catalog.ready() => ready?,
        refused = node.announce(place) => return Err(refused),
    }
    // Who leads may change, or fail, in the middle of it: that is no reason to end.
    while let Err(error) = node.register(place).await {
        if !error.may_pass() {
            return Err(error);
        }
        tracing::info!(%error, "the catalog does not know yet that this node has started; trying again");
        tokio::time::sleep(REGISTER_RETRY).await;
    }
    // A node that has just joined becomes a member while it waits.
    let tend = membership::run(Arc::downgrade(node), node.stop.subscribe());
    watch_over(node, tokio::spawn(tend), "the membership task panicked".to_owned());
    for data in node.data.values() {
        data.group.ready().await?;
    }
    node.check_segments_aside().await?;
    if let Err(error) = node.resume_left_jobs().await {
        if !error.may_pass() {
            return Err(error);
        }
        tracing::info!(%error, "could not take up what was left; the node's task does so later");
    }
    node.forget_left_schemas();
    node.note_left_over().await?;
    node.collect_orphans().await
}
