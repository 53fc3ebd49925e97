//! Objects that lie elsewhere, with copies on this disk of those read or written last.
//!
//! The store elsewhere is the truth: a put counts when it says so, and copies may go at any time. An object is fetched whole when it is first
//! read, once however many ask for it meanwhile, since a segment is verified whole before it is believed. The least recently read copies make room.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

use super::DiskObjectStore;
use super::turns::Turns;
use crate::Disk;

/// An object store with copies here. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CachedObjectStore {
    remote: Arc<dyn ObjectStore>,
    copies: Arc<Copies>,
}

#[derive(Debug)]
struct Copies {
    local: DiskObjectStore,
    bytes_max: u64,
    kept: Mutex<Kept>,
    /// Objects being fetched; who comes later waits for the one who fetches.
    fetching: Turns,
}

#[derive(Debug, Default)]
struct Kept {
    copies: BTreeMap<String, Copy>,
    bytes: u64,
    uses: u64,
}

#[derive(Debug)]
struct Copy {
    bytes: u64,
    last_use: u64,
}

impl Kept {
    /// Marks a copy as read now; whether there is one.
    fn touch(&mut self, name: &str) -> bool {
        self.uses += 1;
        let now = self.uses;
        self.copies.get_mut(name).map(|copy| copy.last_use = now).is_some()
    }

    fn add(&mut self, name: String, bytes: u64) {
        self.uses += 1;
        let copy = Copy { bytes, last_use: self.uses };
        self.bytes += bytes;
        self.bytes -= self.copies.insert(name, copy).map_or(0, |before| before.bytes);
    }

    fn remove(&mut self, name: &str) -> bool {
        let removed = self.copies.remove(name);
        self.bytes -= removed.as_ref().map_or(0, |copy| copy.bytes);
        removed.is_some()
    }

    /// Takes the least recently read copies out until the rest is no more than `bytes_max`; their names.
    fn evict(&mut self, bytes_max: u64) -> Vec<String> {
        let mut evicted = Vec::new();
        while self.bytes > bytes_max {
            let oldest = self.copies.iter().min_by_key(|(_, copy)| copy.last_use).map(|(name, _)| name.clone());
            let oldest = oldest.expect("what has bytes has a name");
            self.remove(&oldest);
            evicted.push(oldest);
        }
        evicted
    }
}

impl CachedObjectStore {
    /// The objects of `remote`, with at most `bytes_max` of copies in the directory `root` of `disk`; copies of a process before are used.
    ///
    /// # Errors
    /// When the directory cannot be made or listed.
    pub async fn open(
        remote: Arc<dyn ObjectStore>,
        disk: Arc<dyn Disk>,
        root: &str,
        temporary: &str,
        bytes_max: u64,
    ) -> io::Result<CachedObjectStore> {
        let local = DiskObjectStore::open(disk, root, temporary).await?;
        let mut kept = Kept::default();
        let found: Vec<ObjectMeta> = local.list(None).try_collect().await.map_err(io::Error::other)?;
        for object in found {
            kept.add(object.location.to_string(), object.size);
        }
        let copies = Copies { local, bytes_max, kept: Mutex::new(kept), fetching: Turns::default() };
        copies.make_room().await;
        Ok(CachedObjectStore { remote, copies: Arc::new(copies) })
    }

    /// Gives up the copy of an object, which is fetched anew when it is read next; whether there was one.
    pub async fn forget(&self, location: &Path) -> bool {
        self.copies.forget(location).await
    }

    /// Bytes of copies there are.
    pub fn copied_bytes(&self) -> u64 {
        self.copies.kept.lock().bytes
    }

    /// Where to read an object: the copies, once it has one, or the store elsewhere when it does not fit.
    async fn source(&self, location: &Path) -> Result<&dyn ObjectStore> {
        let name = location.to_string();
        if self.copies.kept.lock().touch(&name) {
            return Ok(&self.copies.local);
        }
        let fetched = {
            let _turn = self.copies.fetching.take(&name).await;
            self.fetch(location).await
        };
        Ok(if fetched? { &self.copies.local } else { self.remote.as_ref() })
    }

    /// Copies an object, unless somebody did just now; whether there is a copy.
    async fn fetch(&self, location: &Path) -> Result<bool> {
        if self.copies.kept.lock().touch(location.as_ref()) {
            return Ok(true);
        }
        let object = self.remote.get(location).await?;
        let bytes = object.meta.size;
        if bytes > self.copies.bytes_max {
            return Ok(false);
        }
        match self.copies.local.put_stream(location, object.into_stream()).await {
            Ok(()) => {
                self.copies.kept.lock().add(location.to_string(), bytes);
                self.copies.make_room().await;
                Ok(true)
            }
            // No room for a copy is no reason not to read; no connection is.
            Err(error) if is_local(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether this disk failed, not the store elsewhere.
fn is_local(error: &Error) -> bool {
    matches!(error, Error::Generic { store, .. } if *store == super::STORE)
}

impl Copies {
    async fn forget(&self, location: &Path) -> bool {
        let known = self.kept.lock().remove(location.as_ref());
        if known {
            self.delete(location).await;
        }
        known
    }

    async fn make_room(&self) {
        let evicted = self.kept.lock().evict(self.bytes_max);
        for name in evicted {
            self.delete(&Path::from(name)).await;
        }
    }

    /// A copy that stays although nobody knows it is found when the store is opened again.
    async fn delete(&self, location: &Path) {
        match self.local.delete(location).await {
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(error) => tracing::warn!(object = %location, %error, "could not delete the copy of an object"),
        }
    }

    async fn keep(&self, location: &Path, payload: PutPayload) {
        let bytes = payload.content_length() as u64;
        if bytes > self.bytes_max {
            return;
        }
        match self.local.put(location, payload).await {
            Ok(_) => {
                self.kept.lock().add(location.to_string(), bytes);
                self.make_room().await;
            }
            Err(error) => tracing::warn!(object = %location, %error, "could not keep a copy of an object"),
        }
    }
}

impl fmt::Display for CachedObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CachedObjectStore({})", self.remote)
    }
}

#[async_trait]
impl ObjectStore for CachedObjectStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let put = self.remote.put_opts(location, payload.clone(), opts).await?;
        // Most likely to be read next: what was written last.
        self.copies.keep(location, payload).await;
        Ok(put)
    }

    /// Not supported: a segment is put whole, and its size is bounded.
    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(super::not_supported("multipart uploads"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if options.head {
            return self.remote.get_opts(location, options).await;
        }
        match self.source(location).await?.get_opts(location, options.clone()).await {
            // The copy went just now.
            Err(Error::NotFound { .. }) => self.remote.get_opts(location, options).await,
            read => read,
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match self.source(location).await?.get_ranges(location, ranges).await {
            Err(Error::NotFound { .. }) => self.remote.get_ranges(location, ranges).await,
            read => read,
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let copies = Arc::clone(&self.copies);
        let forget = move |location: Path| {
            let copies = Arc::clone(&copies);
            async move {
                copies.forget(&location).await;
                Ok(location)
            }
        };
        self.remote.delete_stream(locations).and_then(forget).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.remote.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.remote.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.remote.copy_opts(from, to, options).await
    }
}
