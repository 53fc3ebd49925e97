//! The embedded object store: segments as files below the data directory, fsynced before they count.
//!
//! An object is written under a temporary name, synced, renamed, and its directory synced: once a put returns it
//! survives power loss, and before that nobody sees it. (`object_store::local::LocalFileSystem` syncs nothing.)
//! Paths of the store are plain, so nothing outside its root can be reached.

mod cached;
mod filled;
mod open;
mod proven;
mod segments;
mod turns;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use event::limits::PUTS_MAX;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

pub use self::cached::CachedObjectStore;
pub use self::filled::Fetch;
use self::open::{OpenObject, OpenObjects};
pub use self::proven::{Blocks, Proofs, ProvenSegment, into_own};
pub use self::segments::SegmentStore;
pub use self::turns::Taken;
use crate::Disk;
use crate::disk::OpenMode;

/// Name of the store in its errors.
const STORE: &str = "DiskObjectStore";
/// Bytes a get hands out at once.
const CHUNK_BYTES: u64 = 4 << 20;
/// Ranges of one request nearer to each other than this are read with one call.
const GAP_BYTES_MAX: u64 = 64 << 10;

/// An object store whose objects are files of a [`Disk`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DiskObjectStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    disk: Arc<dyn Disk>,
    root: String,
    temporary: String,
    next_temporary: AtomicU64,
    /// Objects being created that must not exist yet.
    creating: Mutex<BTreeSet<String>>,
    /// Directories made durable by this process; none is ever removed.
    made: Mutex<BTreeSet<String>>,
    open: OpenObjects,
}

impl DiskObjectStore {
    /// The store whose objects lie below the directory `root`, and are put together in the directory `temporary`. What a
    /// process before left in `temporary` is removed.
    pub async fn open(disk: Arc<dyn Disk>, root: &str, temporary: &str) -> io::Result<DiskObjectStore> {
        disk.create_dir_all(root).await?;
        disk.create_dir_all(temporary).await?;
        for entry in disk.list(temporary).await? {
            if entry.name.ends_with(TEMPORARY_SUFFIX) {
                disk.remove(&format!("{temporary}/{}", entry.name)).await?;
            }
        }
        let inner = Inner {
            disk,
            root: root.to_owned(),
            temporary: temporary.to_owned(),
            next_temporary: AtomicU64::new(0),
            creating: Mutex::new(BTreeSet::new()),
            made: Mutex::new(BTreeSet::new()),
            open: OpenObjects::default(),
        };
        Ok(DiskObjectStore { inner: Arc::new(inner) })
    }

    /// Puts several objects, with one sync of each directory they lie in. None of them may be counted on before this
    /// returns; when it fails, some may be there.
    pub async fn put_many(&self, objects: Vec<(Path, PutPayload)>) -> Result<()> {
        let place = |(location, payload): (Path, PutPayload)| async move {
            let file = self.inner.file(&location)?;
            self.inner.place(&location, &file, pieces(payload)).await
        };
        let placed = stream::iter(objects).map(place).buffer_unordered(PUTS_MAX);
        let dirs: BTreeSet<String> = placed.try_collect().await?;
        self.sync_dirs(dirs).await
    }
}

impl DiskObjectStore {
    /// Makes the names of objects durable that were found there: whoever put them may have ended between the rename and its sync. Their bytes are, since
    /// an object has its name only once they are.
    pub(crate) async fn settle(&self, locations: impl IntoIterator<Item = &Path>) -> Result<()> {
        let files: Result<Vec<String>> = locations.into_iter().map(|location| self.inner.file(location)).collect();
        let dirs: BTreeSet<String> = files?.iter().map(|file| self.inner.dir_of(file)).collect();
        self.sync_dirs(dirs).await
    }

    /// Reads the object by its name the next time: an open file goes on to be what it was when it is deleted or replaced by somebody else.
    pub(crate) fn look_again(&self, location: &Path) -> Result<()> {
        self.inner.open.changed(&self.inner.file(location)?);
        Ok(())
    }

    async fn sync_dirs(&self, dirs: BTreeSet<String>) -> Result<()> {
        for dir in dirs {
            let synced = self.inner.disk.sync_dir(&dir).await;
            synced.map_err(|source| failed("sync directory", &dir, source))?;
        }
        Ok(())
    }

    /// Puts an object of unknown length, holding a piece of it at a time.
    ///
    /// # Errors
    /// The stream's own, as it is; the disk's as [`Error::Generic`] of this store.
    pub(crate) async fn put_stream(&self, location: &Path, bytes: BoxStream<'static, Result<Bytes>>) -> Result<()> {
        let file = self.inner.file(location)?;
        let dir = self.inner.place(location, &file, bytes).await?;
        self.inner.disk.sync_dir(&dir).await.map_err(|source| failed("put", location, source))
    }
}

/// How the names of unfinished objects end.
const TEMPORARY_SUFFIX: &str = ".object";

impl Inner {
    /// The file of an object.
    fn file(&self, location: &Path) -> Result<String> {
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        if location.as_ref().split('/').all(plain) {
            return Ok(format!("{}/{location}", self.root));
        }
        Err(Error::NotSupported { source: format!("\"{location}\" is not the name of an object").into() })
    }

    /// The directory of a prefix.
    fn dir(&self, prefix: Option<&Path>) -> Result<String> {
        match prefix {
            Some(prefix) if !prefix.as_ref().is_empty() => self.file(prefix),
            _ => Ok(self.root.clone()),
        }
    }

    /// The directory in which a file lies.
    fn dir_of(&self, file: &str) -> String {
        file.rsplit_once('/').map_or(self.root.as_str(), |(dir, _)| dir).to_owned()
    }

    /// Writes an object and gives it its name; the directory whose sync makes that durable.
    async fn place(&self, location: &Path, file: &str, bytes: BoxStream<'static, Result<Bytes>>) -> Result<String> {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("{}/{number}{TEMPORARY_SUFFIX}", self.temporary);
        let dir = self.dir_of(file);
        let placed = async {
            self.write(location, &temporary, bytes).await?;
            let named = async {
                self.make_dir(&dir).await?;
                match self.disk.rename(&temporary, file).await {
                    // Somebody has removed the directory.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        self.made.lock().remove(&dir);
                        self.make_dir(&dir).await?;
                        self.disk.rename(&temporary, file).await
                    }
                    renamed => renamed,
                }
            };
            named.await.map_err(|source| failed("put", location, source))
        };
        let placed = placed.await;
        self.open.changed(file);
        if placed.is_err() {
            // Room for the next try; what cannot be removed now is when the store is opened again.
            let _ = self.disk.remove(&temporary).await;
        }
        placed.map(|()| dir)
    }

    async fn make_dir(&self, dir: &str) -> io::Result<()> {
        if !self.made.lock().contains(dir) {
            self.disk.create_dir_all(dir).await?;
            self.made.lock().insert(dir.to_owned());
        }
        Ok(())
    }

    async fn write(&self, location: &Path, path: &str, mut bytes: BoxStream<'static, Result<Bytes>>) -> Result<()> {
        let put = |source| failed("put", location, source);
        let file = self.disk.open(path, OpenMode::CreateNew).await.map_err(put)?;
        let written = async {
            let (mut offset, mut waiting, mut more) = (0, Vec::new(), true);
            while more {
                let piece = bytes.try_next().await?;
                more = piece.is_some();
                waiting.extend(piece);
                let len = waiting.iter().map(|piece: &Bytes| piece.len() as u64).sum::<u64>();
                if len >= CHUNK_BYTES || !more {
                    self.disk.write_at(file, offset, std::mem::take(&mut waiting)).await.map_err(put)?;
                    offset += len;
                }
            }
            self.disk.sync(file).await.map_err(put)
        };
        let outcome = written.await;
        self.disk.close(file).await.map_err(put)?;
        outcome
    }

    async fn put(&self, location: &Path, payload: PutPayload) -> Result<()> {
        let file = self.file(location)?;
        let dir = self.place(location, &file, pieces(payload)).await?;
        self.disk.sync_dir(&dir).await.map_err(|source| failed("put", location, source))
    }

    /// Like `put`, if there is no such object. Two at once: one is told that there is.
    async fn create(&self, location: &Path, payload: PutPayload) -> Result<()> {
        let _claim = Claim::take(self, location)?;
        match self.open(location).await {
            Ok(_) => Err(already_exists(location)),
            Err(Error::NotFound { .. }) => self.put(location, payload).await,
            Err(error) => Err(error),
        }
    }

    async fn open(&self, location: &Path) -> Result<Arc<OpenObject>> {
        let path = self.file(location)?;
        let changes = match self.open.get(&path) {
            Ok(object) => return Ok(object),
            Err(changes) => changes,
        };
        let opened = OpenObject::open(&self.disk, &path).await;
        let object = Arc::new(opened.map_err(|source| failed("open", location, source))?);
        self.open.keep(path, &object, changes);
        Ok(object)
    }

    /// Reads a range that lies within the object.
    async fn read(&self, location: &Path, object: &OpenObject, range: Range<u64>) -> Result<Bytes> {
        let len = usize::try_from(range.end - range.start).map_err(|_| too_large(location))?;
        self.disk.read_at(object.file, range.start, len).await.map_err(|source| failed("read", location, source))
    }

    /// The bytes of a range in chunks. The object may be deleted meanwhile.
    fn stream(
        self: Arc<Self>,
        location: Path,
        object: Arc<OpenObject>,
        range: Range<u64>,
    ) -> BoxStream<'static, Result<Bytes>> {
        let state = (self, location, object, range);
        let read_chunk = |(store, location, object, range): (Arc<Inner>, Path, Arc<OpenObject>, Range<u64>)| async move {
            if range.is_empty() {
                return Ok(None);
            }
            let end = range.end.min(range.start + CHUNK_BYTES);
            let chunk = store.read(&location, &object, range.start..end).await?;
            Ok(Some((chunk, (store, location, object, end..range.end))))
        };
        stream::try_unfold(state, read_chunk).boxed()
    }

    async fn delete(&self, location: &Path) -> Result<()> {
        let file = self.file(location)?;
        let removed = self.disk.remove(&file).await;
        self.open.changed(&file);
        removed.map_err(|source| failed("delete", location, source))?;
        let dir = self.dir_of(&file);
        self.disk.sync_dir(&dir).await.map_err(|source| failed("delete", location, source))
    }

    /// What lies in a directory: objects, and the directories below.
    async fn list_dir(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let dir = self.dir(prefix)?;
        let entries = self.disk.list(&dir).await.map_err(|source| failed("list", &dir, source))?;
        let mut listed = ListResult { common_prefixes: Vec::new(), objects: Vec::new() };
        for entry in entries {
            let location = match prefix {
                Some(prefix) => prefix.clone().join(entry.name),
                None => Path::from(entry.name),
            };
            if entry.is_dir {
                listed.common_prefixes.push(location);
            } else {
                listed.objects.push(describe(location, entry.len));
            }
        }
        Ok(listed)
    }

    async fn list_all(&self, prefix: Option<Path>) -> Result<Vec<ObjectMeta>> {
        let mut objects = Vec::new();
        let mut left = vec![prefix];
        while let Some(prefix) = left.pop() {
            let listed = self.list_dir(prefix.as_ref()).await?;
            objects.extend(listed.objects);
            left.extend(listed.common_prefixes.into_iter().map(Some));
        }
        objects.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(objects)
    }
}

/// The right to create one object, given back when dropped.
struct Claim<'a> {
    store: &'a Inner,
    name: String,
}

impl<'a> Claim<'a> {
    fn take(store: &'a Inner, location: &Path) -> Result<Claim<'a>> {
        let name = location.to_string();
        if store.creating.lock().insert(name.clone()) {
            Ok(Claim { store, name })
        } else {
            Err(already_exists(location))
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.store.creating.lock().remove(&self.name);
    }
}

impl fmt::Display for DiskObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{STORE}({})", self.inner.root)
    }
}

#[async_trait]
impl ObjectStore for DiskObjectStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        match opts.mode {
            PutMode::Overwrite => self.inner.put(location, payload).await?,
            PutMode::Create => self.inner.create(location, payload).await?,
            PutMode::Update(_) => return Err(not_supported("conditional updates")),
        }
        Ok(PutResult { e_tag: None, version: None })
    }

    /// Not supported: a segment is put whole, and its size is bounded.
    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(not_supported("multipart uploads"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let object = self.inner.open(location).await?;
        let meta = describe(location.clone(), object.len);
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            Some(range) => range.as_range(meta.size).map_err(|error| generic(error.into()))?,
            None => 0..meta.size,
        };
        let payload = match options.head {
            true => stream::empty().boxed(),
            false => self.inner.clone().stream(location.clone(), object, range.clone()),
        };
        Ok(GetResult { payload: GetResultPayload::Stream(payload), meta, range, attributes: Default::default() })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let object = self.inner.open(location).await?;
        let size = object.len;
        if let Some(range) = ranges.iter().find(|range| range.start > range.end || range.end > size) {
            let reason = format!("range {range:?} is not within \"{location}\" of {size} bytes");
            return Err(generic(reason.into()));
        }
        let fetch = |range: Range<u64>| self.inner.read(location, &object, range);
        object_store::coalesce_ranges(ranges, fetch, GAP_BYTES_MAX).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let inner = self.inner.clone();
        let delete = move |location: Path| {
            let inner = inner.clone();
            async move { inner.delete(&location).await.map(|()| location) }
        };
        locations.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, prefix) = (self.inner.clone(), prefix.cloned());
        let objects =
            async move { inner.list_all(prefix).await.map(|objects| stream::iter(objects.into_iter().map(Ok))) };
        stream::once(objects).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_dir(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let object = self.inner.open(from).await?;
        let all = 0..object.len;
        let chunks: Vec<Bytes> = self.inner.clone().stream(from.clone(), object, all).try_collect().await?;
        match options.mode {
            CopyMode::Overwrite => self.inner.put(to, chunks.into_iter().collect()).await,
            CopyMode::Create => self.inner.create(to, chunks.into_iter().collect()).await,
        }
    }
}

/// A payload as the stream of its parts.
fn pieces(payload: PutPayload) -> BoxStream<'static, Result<Bytes>> {
    stream::iter(payload.into_iter().map(Ok)).boxed()
}

fn describe(location: Path, size: u64) -> ObjectMeta {
    // Objects never change, so one time is as good as another, and the same on every run.
    ObjectMeta { location, last_modified: Default::default(), size, e_tag: None, version: None }
}

fn failed(doing: &str, location: impl fmt::Display, source: io::Error) -> Error {
    let path = location.to_string();
    match source.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path, source: source.into() },
        // Kept an I/O error, so that a full disk can be told from others.
        kind => generic(io::Error::new(kind, format!("could not {doing} \"{path}\": {source}")).into()),
    }
}

fn generic(source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::Generic { store: STORE, source }
}

fn already_exists(location: &Path) -> Error {
    Error::AlreadyExists { path: location.to_string(), source: "the object exists".into() }
}

fn too_large(location: &Path) -> Error {
    generic(format!("\"{location}\" does not fit memory").into())
}

fn not_supported(what: &str) -> Error {
    Error::NotSupported { source: format!("{what} are not supported").into() }
}
