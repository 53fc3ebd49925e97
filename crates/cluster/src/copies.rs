//! Segments held by several nodes.
//!
//! Whoever writes a segment has a majority of the group's voters hold it before an entry names it (decision 0007). What a node lacks it fetches
//! from one that has it: ahead of time, before its next checkpoint, and when somebody reads it. A fetched segment has the length and checksum
//! that the manifest says, or it is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use event::{GroupId, NodeId, limits};
use futures::stream::{self, BoxStream, FuturesUnordered, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt};
use parking_lot::{Mutex, RwLock};
use storage::SegmentMeta;
use storage::objects::SegmentStore;
use storage::segment::{SegmentPins, SegmentRef};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::data::SharedReader;
use crate::error::Error;
use crate::incoming::Kept;
use crate::message::{Opening, Refusal, Reply, Request, pack, segments_to_json, unpack};
use crate::network::Network;
use crate::node::{DataGroup, Node};
use crate::segments::store_error;
use crate::transport::Lane;

/// How long other nodes may take to fetch what a statement has written.
const HOLD_WAIT: Duration = Duration::from_secs(60);
/// Segments fetched at once.
const FETCHES_MAX: usize = 2;

/// The segments of this node, and those it can get.
pub(crate) struct Copies {
    /// What is here.
    own: SegmentStore,
    /// The same with what others have.
    filled: OnceLock<SegmentStore>,
    network: Arc<Network>,
    /// Where segments are read, checked and written: as bulky as encoding them, and the group's life does not depend on it.
    encode: Handle,
    /// Manifests that say what a segment must be.
    readers: RwLock<Vec<SharedReader>>,
    /// Segments that no manifest here names yet.
    expected: Mutex<BTreeMap<String, SegmentMeta>>,
    /// Names of segments known to be here.
    held: Mutex<BTreeSet<String>>,
    /// What snapshots need that are not installed yet.
    pub(crate) pins: SegmentPins,
    pub(crate) incoming: Mutex<BTreeMap<GroupId, Arc<Kept>>>,
}

impl Copies {
    /// What is in `own`, and the same store where others give what is missing.
    pub(crate) fn new(own: SegmentStore, network: Arc<Network>, encode: Handle) -> (Arc<Copies>, SegmentStore) {
        let copies = Arc::new(Copies {
            own,
            filled: OnceLock::new(),
            network,
            encode,
            readers: RwLock::default(),
            expected: Mutex::default(),
            held: Mutex::default(),
            pins: SegmentPins::default(),
            incoming: Mutex::default(),
        });
        let weak = Arc::downgrade(&copies);
        let fetch = move |location: Path| {
            let copies = Weak::upgrade(&weak);
            Box::pin(async move {
                let gone = || not_found(&location, "the node stops".into());
                copies.ok_or_else(gone)?.fetch(location.clone()).await
            }) as _
        };
        let filled = copies.filled.get_or_init(|| copies.own.filled(Arc::new(fetch))).clone();
        (copies, filled)
    }

    pub(crate) fn watch(&self, reader: SharedReader) {
        self.readers.write().push(reader);
    }

    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// Whether the segment is known to be here.
    pub(crate) fn is_held(&self, name: &str) -> bool {
        self.held.lock().contains(name)
    }

    /// The segment is here and durable.
    pub(crate) fn note_held(&self, name: &str) {
        self.held.lock().insert(name.to_owned());
    }

    pub(crate) fn note_deleted(&self, name: &str) {
        self.held.lock().remove(name);
    }

    /// Returns once all of them are here, fetching what is not.
    pub(crate) async fn hold_all(self: &Arc<Self>, segments: Vec<SegmentMeta>) -> Result<(), Error> {
        let missing: Vec<SegmentMeta> = segments.into_iter().filter(|meta| !self.is_held(&meta.name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let copies = Arc::clone(self);
        let held = self.encode.spawn(async move {
            let holds = stream::iter(missing).map(|meta| copies.hold(meta));
            holds.buffer_unordered(FETCHES_MAX).try_collect::<()>().await
        });
        AbortOnDropHandle::new(held).await.map_err(|error| Error::ShuttingDown(error.to_string()))?
    }

    async fn hold(&self, meta: SegmentMeta) -> Result<(), Error> {
        let (name, path) = (meta.name.clone(), Path::from(meta.name.as_str()));
        self.expected.lock().insert(name.clone(), meta);
        let filled = self.filled().hold(&path).await;
        self.expected.lock().remove(&name);
        filled.map_err(store_error)?;
        self.note_held(&name);
        Ok(())
    }

    /// Fetches a segment from the first node that has it.
    async fn fetch(&self, location: Path) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
        let name = location.to_string();
        let Some(meta) = self.what(&name) else { return Err(not_found(&location, "no manifest names it".into())) };
        let mut reasons = Vec::new();
        for node in self.network.others() {
            match self.fetch_from(node, &name).await {
                Ok(pieces) => return Ok(checked(pieces, meta)),
                Err(reason) => reasons.push(format!("node {node}: {reason}")),
            }
        }
        Err(not_found(&location, format!("no node has it ({})", reasons.join(", "))))
    }

    async fn fetch_from(&self, node: NodeId, name: &str) -> Result<BoxStream<'static, Result<Bytes, String>>, String> {
        let opening = Opening::Fetch { name: name.to_owned() };
        let opened = self.network.stream_at(node, "", Lane::Bulk, &opening, stream::empty().boxed()).await;
        let mut pieces = opened.map_err(|error| error.to_string())?;
        let first = pieces.next().await.ok_or("no answer")?.map_err(|error| error.to_string())?;
        let reply: Reply = unpack(&first)?;
        reply.map_err(|refusal| format!("{refusal:?}"))?;
        Ok(pieces.map(|piece| piece.map_err(|error| error.to_string())).boxed())
    }

    /// What a segment of that name must be, as whoever holds it here says: a manifest, or a snapshot that is read although the manifest has lost it
    /// since.
    fn what(&self, name: &str) -> Option<SegmentMeta> {
        if let Some(meta) = self.expected.lock().get(name) {
            return Some(meta.clone());
        }
        let readers = self.readers.read();
        readers.iter().find_map(|reader| reader.read().pinned(name))
    }

    /// Gives a segment that is here to another node, as fast as that takes it.
    pub(crate) fn serve(self: &Arc<Self>, name: String) -> BoxStream<'static, Bytes> {
        let (sender, mut pieces) = mpsc::channel(limits::SERVED_PIECES_MAX);
        let copies = Arc::clone(self);
        self.encode.spawn(async move {
            let mut read = copies.read(name).await;
            while let Some(piece) = read.next().await {
                if sender.send(piece).await.is_err() {
                    return;
                }
            }
        });
        stream::poll_fn(move |context| pieces.poll_recv(context)).boxed()
    }

    /// The answer to who wants a segment that is here, and its pieces.
    async fn read(&self, name: String) -> BoxStream<'static, Bytes> {
        let path = Path::from(name.as_str());
        let refused = |error: StoreError| {
            let reply: Reply = Err(Refusal::Failed(error.to_string()));
            stream::once(std::future::ready(pack(&reply))).boxed()
        };
        // Whoever asks takes the first that answers: what is damaged here is left to others.
        if let Some(meta) = self.what(&name)
            && let Err(error) = self.check(&path, meta).await
        {
            return refused(error);
        }
        let object = match self.own.get(&path).await {
            Ok(object) => object,
            Err(error) => return refused(error),
        };
        let reply: Reply = Ok(Bytes::new());
        // A piece that cannot be read ends the stream early; the other side counts.
        let pieces = object.into_stream().take_while(|piece| std::future::ready(piece.is_ok()));
        let pieces =
            pieces.filter_map(|piece| std::future::ready(piece.ok())).flat_map(|piece| stream::iter(cut(piece)));
        stream::once(std::future::ready(pack(&reply))).chain(pieces).boxed()
    }

    /// Reads a segment that is here from end to end.
    async fn check(&self, path: &Path, meta: SegmentMeta) -> Result<(), StoreError> {
        let pieces = self.own.get(path).await?.into_stream().map(|piece| piece.map_err(|error| error.to_string()));
        checked(pieces.boxed(), meta).try_for_each(|_| std::future::ready(Ok(()))).await
    }

    fn filled(&self) -> SegmentStore {
        self.filled.get().expect("set when the copies are made").clone()
    }
}

/// Pieces that fit a message.
fn cut(mut piece: Bytes) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    while piece.len() > limits::PEER_PIECE_BYTES {
        pieces.push(piece.split_to(limits::PEER_PIECE_BYTES));
    }
    pieces.push(piece);
    pieces
}

/// The pieces, with an error at their end unless they are the whole segment.
fn checked(
    pieces: BoxStream<'static, Result<Bytes, String>>,
    meta: SegmentMeta,
) -> BoxStream<'static, Result<Bytes, StoreError>> {
    let failed = |reason: String| StoreError::Generic { store: "Copies", source: reason.into() };
    let state = Some((pieces, meta, 0u64, 0u32));
    let checked = stream::try_unfold(state, move |state| async move {
        let Some((mut pieces, meta, mut bytes, mut checksum)) = state else { return Ok(None) };
        match pieces.next().await {
            Some(piece) => {
                let piece = piece.map_err(failed)?;
                bytes += piece.len() as u64;
                checksum = crc32c::crc32c_append(checksum, &piece);
                Ok(Some((piece, Some((pieces, meta, bytes, checksum)))))
            }
            None if bytes == meta.bytes && checksum == meta.checksum => Ok(None),
            None => {
                Err(failed(format!("segment \"{}\" came with {bytes} bytes and checksum {checksum:08x}", meta.name)))
            }
        }
    });
    checked.boxed()
}

fn not_found(location: &Path, reason: String) -> StoreError {
    StoreError::NotFound { path: location.to_string(), source: reason.into() }
}

impl Node {
    /// Returns once a majority of the group's voters hold the segments, which lie here.
    ///
    /// # Errors
    /// [`Error::Peer`] when too few can be reached.
    pub(crate) async fn share(&self, data: &DataGroup, segments: &[SegmentRef]) -> Result<(), Error> {
        for segment in segments {
            self.copies.note_held(&segment.meta.name);
        }
        let voters = data.group.voters();
        let majority = voters.len() / 2 + 1;
        let mut needed = majority.saturating_sub(usize::from(voters.contains(&self.identity.node)));
        if needed == 0 || segments.is_empty() {
            return Ok(());
        }
        let metas: Vec<SegmentMeta> = segments.iter().map(|segment| segment.meta.clone()).collect();
        let request = Arc::new(Request::Hold { group: data.group.id(), segments: segments_to_json(&metas) });
        let mut asked = FuturesUnordered::new();
        for voter in voters.into_iter().filter(|voter| *voter != self.identity.node) {
            let (network, request) = (Arc::clone(&self.network), Arc::clone(&request));
            // Those that are not waited for go on all the same.
            let call = async move { (voter, network.call(voter, Lane::Bulk, &request, HOLD_WAIT).await) };
            asked.push(self.consensus.spawn(call));
        }
        let mut reasons = Vec::new();
        while needed > 0 {
            match asked.next().await {
                Some(Ok((_, Ok(_)))) => needed -= 1,
                Some(Ok((voter, Err(error)))) => reasons.push(format!("node {voter}: {error}")),
                Some(Err(error)) => reasons.push(error.to_string()),
                None => {
                    let reasons = reasons.join(", ");
                    return Err(Error::Peer(format!("too few replicas could take a segment ({reasons})")));
                }
            }
        }
        Ok(())
    }

    /// Fetches segments that an entry is about to name, and keeps them for a while.
    pub(crate) async fn hold_for_a_statement(&self, group: GroupId, segments: Vec<SegmentMeta>) -> Result<(), Error> {
        let reader = self.data_group(group)?.reader();
        if self.promises.lock().len() >= limits::PROMISES_MAX {
            return Err(Error::Overloaded("too many segments wait for a manifest that names them".into()));
        }
        self.promise(segments.iter().map(|meta| reader.pin(meta.clone())).collect());
        self.copies.hold_all(segments).await
    }

    /// Fetches what a group's manifests name, and parts of transactions, and is not here. What no node has may be named no longer soon.
    pub(crate) async fn fetch_missing(&self, data: &DataGroup) -> Result<(), Error> {
        let segments = data.reader().segments().into_iter();
        let missing: Vec<SegmentMeta> =
            segments.filter(|segment| !self.copies.is_held(&segment.meta.name)).map(|s| s.meta.clone()).collect();
        self.copies.hold_all(missing).await
    }
}

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Copies({})", self.own)
    }
}

#[cfg(test)]
mod tests {
    use event::{SchemaVersion, ShardId, SplitId, TableId};
    use object_store::PutPayload;
    use storage::SimulatedDisk;
    use storage::objects::DiskObjectStore;

    use super::*;
    use crate::transport::Isolated;

    const BYTES: &[u8] = b"a segment";

    /// The copies of a node with one segment, whose bulk work `encode` does.
    async fn copies(encode: Handle) -> (Arc<Copies>, SegmentMeta) {
        let store = DiskObjectStore::open(Arc::new(SimulatedDisk::new(1)), "segments", "tmp").await.unwrap();
        store.put(&Path::from("a"), PutPayload::from_static(BYTES)).await.unwrap();
        let network = Arc::new(Network::new(Arc::new(Isolated), Arc::default()));
        let segment = SegmentMeta {
            name: "a".into(),
            table: TableId(1),
            shard: ShardId(1),
            split: SplitId(0),
            version: SchemaVersion(1),
            rows: 1,
            bytes: BYTES.len() as u64,
            checksum: crc32c::crc32c(BYTES),
            time_min_us: None,
            time_max_us: None,
            sequence_base: 0,
            distinct: false,
            columns: vec![],
        };
        (Copies::new(store.into(), network, encode).0, segment)
    }

    #[tokio::test]
    async fn segments_of_a_snapshot_stay_until_it_is_installed() {
        let (copies, segment) = copies(Handle::current()).await;
        let given_up = copies.prepare_snapshot(GroupId(1), vec![segment.clone()]).await.unwrap();
        drop(given_up);
        assert!(copies.is_incoming("a"), "it is sent again");
        let first = copies.prepare_snapshot(GroupId(1), vec![segment.clone()]).await.unwrap();
        let second = copies.prepare_snapshot(GroupId(1), vec![segment]).await.unwrap();
        first.installed();
        assert!(copies.is_incoming("a"), "the newer one needs it");
        second.installed();
        assert!(!copies.is_incoming("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_that_is_never_installed_keeps_nothing_for_ever() {
        let (copies, segment) = copies(Handle::current()).await;
        drop(copies.prepare_snapshot(GroupId(1), vec![segment]).await.unwrap());
        copies.release_incoming();
        assert!(copies.is_incoming("a"));
        tokio::time::advance(Duration::from_secs(601)).await;
        copies.release_incoming();
        assert!(!copies.is_incoming("a"));
    }

    #[test]
    fn segments_are_read_and_fetched_by_the_encode_threads_only() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (consensus, encode) = (runtime(), runtime());
        consensus.block_on(async {
            let (copies, segment) = copies(encode.handle().clone()).await;
            let mut holding = Box::pin(copies.hold_all(vec![segment]));
            let mut served = copies.serve("a".to_owned());
            // Whatever could go on without the other threads does.
            for _ in 0..100 {
                assert!(futures::poll!(&mut holding).is_pending());
                assert!(futures::poll!(served.next()).is_pending());
                tokio::task::yield_now().await;
            }
            std::thread::spawn(move || encode.block_on(async { tokio::time::sleep(Duration::from_secs(5)).await }));
            holding.await.unwrap();
            assert_eq!(served.collect::<Vec<_>>().await, [pack::<Reply>(&Ok(Bytes::new())), Bytes::from_static(BYTES)]);
        });
    }
}
