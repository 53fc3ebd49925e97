//! Objects that other nodes hold as well: what is not here is fetched from them when it is first read.
//!
//! A fetched object is written like any other, so it is here whole and durable, or not at all.

use std::collections::BTreeMap;
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
use parking_lot::Mutex;

use super::segments::Kind;

/// Gives the bytes of an object that is not here, checked when they end.
pub type Fetch = dyn Fn(Path) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes>>>> + Send + Sync;

/// An object store that others fill. Cheap to clone.
#[derive(Clone)]
pub(super) struct FilledObjectStore {
    own: Arc<dyn ObjectStore>,
    kind: Kind,
    fetch: Arc<Fetch>,
    /// Objects being fetched; who comes later waits for the one who fetches.
    fetching: Arc<Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

impl FilledObjectStore {
    pub(super) fn new(own: Arc<dyn ObjectStore>, kind: Kind, fetch: Arc<Fetch>) -> FilledObjectStore {
        FilledObjectStore { own, kind, fetch, fetching: Arc::default() }
    }

    /// Fetches an object unless somebody did meanwhile.
    async fn fill(&self, location: &Path) -> Result<()> {
        let name = location.to_string();
        let turn = Arc::clone(self.fetching.lock().entry(name.clone()).or_default());
        let filled = {
            let _turn = turn.lock().await;
            match self.own.head(location).await {
                Err(Error::NotFound { .. }) => self.replace(location).await,
                there => there.map(drop),
            }
        };
        self.fetching.lock().remove(&name);
        filled
    }

    /// Fetches an object, and puts it in the place of the one that is here.
    pub(super) async fn replace(&self, location: &Path) -> Result<()> {
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
