//! Objects that other nodes hold as well: what is not here is fetched from them when it is first read.
//!
//! A fetched object is written like any other, so it is here whole and durable, or not at all.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::segments::Kind;
use super::turns::{Taken, Turns};

/// Gives the bytes of an object that is not here, checked when they end.
pub type Fetch = dyn Fn(Path) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes>>>> + Send + Sync;

/// An object store that others fill. Cheap to clone.
#[derive(Clone)]
pub(super) struct FilledObjectStore {
    own: Arc<dyn ObjectStore>,
    kind: Kind,
    fetch: Arc<Fetch>,
    /// Objects being fetched; who comes later waits for the one who fetches.
    fetching: Turns,
}

impl FilledObjectStore {
    pub(super) fn new(own: Arc<dyn ObjectStore>, kind: Kind, fetch: Arc<Fetch>) -> FilledObjectStore {
        FilledObjectStore { own, kind, fetch, fetching: Turns::default() }
    }

    /// Keeps others from fetching an object until it is dropped; waits for one that is being fetched.
    pub(super) async fn turn(&self, location: &Path) -> Taken {
        self.fetching.take(location.as_ref()).await
    }

    /// Fetches an object unless it is here. Once this returns the object is durable: one that another is fetching just now is waited for,
    /// since it may have its name before that has been synced, and so it may when its fetch was given up.
    pub(super) async fn fill(&self, location: &Path) -> Result<()> {
        let _turn = self.turn(location).await;
        match (self.own.head(location).await, &self.kind) {
            (Err(Error::NotFound { .. }), _) => self.fetch(location).await,
            (Ok(_), Kind::Embedded(store)) => store.settle([location]).await,
            (there, _) => there.map(drop),
        }
    }

    /// Fetches an object, and puts it in the place of the one that is here.
    pub(super) async fn replace(&self, location: &Path) -> Result<()> {
        let _turn = self.turn(location).await;
        self.fetch(location).await
    }

    /// The work of whoever has the turn.
    async fn fetch(&self, location: &Path) -> Result<()> {
        let mut bytes = (self.fetch)(location.clone()).await?;
        match &self.kind {
            Kind::Embedded(store) => store.put_stream(location, bytes).await,
            Kind::Cached(store) => {
                let mut whole = BytesMut::new();
                while let Some(piece) = bytes.try_next().await? {
                    whole.extend_from_slice(&piece);
                }
                store.put(location, PutPayload::from(whole.freeze())).await.map(drop)
            }
        }
    }
}

impl fmt::Debug for FilledObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FilledObjectStore({:?})", self.own)
    }
}

impl fmt::Display for FilledObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FilledObjectStore({})", self.own)
    }
}

#[async_trait]
impl ObjectStore for FilledObjectStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.own.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.own.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match self.own.get_opts(location, options.clone()).await {
            Err(Error::NotFound { .. }) => {
                self.fill(location).await?;
                self.own.get_opts(location, options).await
            }
            read => read,
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match self.own.get_ranges(location, ranges).await {
            Err(Error::NotFound { .. }) => {
                self.fill(location).await?;
                self.own.get_ranges(location, ranges).await
            }
            read => read,
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.own.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.own.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.own.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.own.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use futures::StreamExt;
    use futures::stream;

    use super::*;
    use crate::objects::{DiskObjectStore, SegmentStore};
    use crate::{Disk, SimulatedDisk};

    async fn store(disk: Arc<SimulatedDisk>) -> SegmentStore {
        let disk: Arc<dyn Disk> = disk;
        let own = SegmentStore::from(DiskObjectStore::open(disk, "segments", "tmp").await.unwrap());
        let pieces = || stream::iter([Ok(Bytes::from_static(b"from another node"))]).boxed();
        own.filled(Arc::new(move |_| Box::pin(async move { Ok(pieces()) })))
    }

    /// A fetch that is given up between the name and its sync leaves an object that the next power failure may take away.
    #[tokio::test]
    async fn what_is_found_after_a_fetch_was_given_up_is_durable_once_it_is_held() {
        let path = Path::from("a/b");
        for seed in 0..20 {
            let disk = Arc::new(SimulatedDisk::new(seed));
            let store = store(disk.clone()).await;
            let mut context = Context::from_waker(Waker::noop());
            {
                let mut fetching = pin!(store.get(&path));
                while disk.len_of("segments/a/b").is_err() {
                    let _ = fetching.as_mut().poll(&mut context);
                }
            }
            store.hold(&path).await.unwrap();
            for power_loss in 0..20 {
                assert!(disk.crash(power_loss).len_of("segments/a/b").is_ok(), "seed {seed}, power loss {power_loss}");
            }
        }
    }

    /// Whoever is told that an object is held may tell others: power loss does not take it away any more.
    #[tokio::test]
    async fn what_is_held_while_another_fetches_it_is_durable() {
        let path = Path::from("a/b");
        for seed in 0..20 {
            let disk = Arc::new(SimulatedDisk::new(seed));
            let store = store(disk.clone()).await;
            let mut context = Context::from_waker(Waker::noop());
            let (mut fetching, mut holding) = (pin!(store.get(&path)), None);
            let mut fetched = false;
            loop {
                fetched = fetched || fetching.as_mut().poll(&mut context).is_ready();
                // Asked as soon as there is something to be found.
                if disk.len_of("segments/a/b").is_ok() || holding.is_some() {
                    let holding = holding.get_or_insert_with(|| Box::pin(store.hold(&path)));
                    if let std::task::Poll::Ready(held) = holding.as_mut().poll(&mut context) {
                        held.unwrap();
                        break;
                    }
                }
            }
            for power_loss in 0..20 {
                assert!(disk.crash(power_loss).len_of("segments/a/b").is_ok(), "seed {seed}, power loss {power_loss}");
            }
        }
    }
}
