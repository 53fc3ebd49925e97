//! Where the segments of a node lie: in the embedded store, or elsewhere with copies here.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, Result};

use event::limits::PUTS_MAX;

use super::filled::{Fetch, FilledObjectStore};
use super::proven::{BlockSums, Blocks};
use super::turns::Taken;
use super::{CachedObjectStore, DiskObjectStore};
use crate::Error;
use crate::segment::SegmentMeta;

/// The store of a node's segments. Cheap to clone; reads and deletes as any [`ObjectStore`].
#[derive(Clone, Debug)]
pub struct SegmentStore {
    objects: Arc<dyn ObjectStore>,
    kind: Kind,
    /// The same objects with what other nodes hold.
    filled: Option<FilledObjectStore>,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Embedded(DiskObjectStore),
    Cached(CachedObjectStore),
}

impl From<DiskObjectStore> for SegmentStore {
    fn from(store: DiskObjectStore) -> SegmentStore {
        SegmentStore { objects: Arc::new(store.clone()), kind: Kind::Embedded(store), filled: None }
    }
}

impl From<CachedObjectStore> for SegmentStore {
    fn from(store: CachedObjectStore) -> SegmentStore {
        SegmentStore { objects: Arc::new(store.clone()), kind: Kind::Cached(store), filled: None }
    }
}

impl Deref for SegmentStore {
    type Target = dyn ObjectStore;

    fn deref(&self) -> &Self::Target {
        self.objects.as_ref()
    }
}

impl fmt::Display for SegmentStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.objects.fmt(f)
    }
}

impl SegmentStore {
    /// The same store where other nodes give what is not here.
    pub fn filled(&self, fetch: Arc<Fetch>) -> SegmentStore {
        let filled = FilledObjectStore::new(Arc::clone(&self.objects), self.kind.clone(), fetch);
        SegmentStore { objects: Arc::new(filled.clone()), kind: self.kind.clone(), filled: Some(filled) }
    }

    /// Returns once the object is here and durable, fetching it from another node when it is not.
    ///
    /// # Errors
    /// Those of the store; [`object_store::Error::NotFound`] when no node has it.
    pub async fn hold(&self, location: &Path) -> Result<()> {
        match &self.filled {
            Some(filled) => filled.fill(location).await,
            None => self.head(location).await.map(drop),
        }
    }

    /// Makes durable what was found here after a start. The process before may have ended between giving an object its name and syncing that.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn settle(&self, found: &[Path]) -> Result<()> {
        match &self.kind {
            Kind::Embedded(store) => store.settle(found).await,
            // A put elsewhere is whole and durable, or not at all.
            Kind::Cached(_) => Ok(()),
        }
    }

    /// Keeps the object from being fetched until the answer is dropped, so that one that nobody wants is deleted, or wanted again, and not
    /// both; waits while somebody fetches it. `None` in a store that fetches nothing.
    pub async fn turn(&self, location: &Path) -> Option<Taken> {
        match &self.filled {
            Some(filled) => Some(filled.turn(location).await),
            None => None,
        }
    }

    /// The same store, for those who know nothing but object stores.
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects)
    }

    /// Whether the objects are files of this node.
    pub fn is_embedded(&self) -> bool {
        matches!(self.kind, Kind::Embedded(_))
    }

    /// Whether the object is a file of this node now; one that lies elsewhere always counts.
    pub async fn is_here(&self, name: &str) -> bool {
        match &self.kind {
            Kind::Embedded(files) => {
                let location = Path::from(name);
                files.look_again(&location).is_ok() && files.head(&location).await.is_ok()
            }
            Kind::Cached(_) => true,
        }
    }

    /// Gives up the copy here of an object that lies elsewhere, if there is one.
    pub async fn forget_copy(&self, location: &Path) {
        if let Kind::Cached(store) = &self.kind {
            store.forget(location).await;
        }
    }

    /// Puts several objects, embedded ones with one sync of each directory. None of them may be counted on before this returns; when it
    /// fails, some may be there.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn put_many(&self, objects: Vec<(Path, PutPayload)>) -> Result<()> {
        match &self.kind {
            Kind::Embedded(store) => store.put_many(objects).await,
            Kind::Cached(store) => {
                let put = |(location, payload): (Path, PutPayload)| async move { store.put(&location, payload).await };
                stream::iter(objects).map(put).buffer_unordered(PUTS_MAX).try_for_each(|_| async { Ok(()) }).await
            }
        }
    }

    /// Checks length and checksum of a whole segment, holding a piece of it at a time. A damaged copy of an object that lies elsewhere is
    /// fetched again, and so is a damaged object that another node has sound.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the file.
    pub async fn verify(&self, meta: &SegmentMeta) -> std::result::Result<(), Error> {
        self.blocks(meta).await.map(drop)
    }

    /// The same, with checksums of its blocks.
    ///
    /// # Errors
    /// As [`SegmentStore::verify`].
    pub async fn blocks(&self, meta: &SegmentMeta) -> std::result::Result<Blocks, Error> {
        match verify(self, meta).await {
            Ok(blocks) => Ok(blocks),
            Err(error) => self.fetch_again(meta, error).await,
        }
    }

    /// The same, and whether something had to be fetched again.
    ///
    /// # Errors
    /// As [`SegmentStore::verify`].
    pub async fn verify_or_mend(&self, meta: &SegmentMeta) -> std::result::Result<bool, Error> {
        match verify(self, meta).await {
            Ok(_) => Ok(false),
            Err(error) => self.fetch_again(meta, error).await.map(|_| true),
        }
    }

    async fn fetch_again(&self, meta: &SegmentMeta, error: Error) -> std::result::Result<Blocks, Error> {
        match (&error, &self.kind) {
            (Error::Corrupt { .. }, Kind::Cached(store)) if store.forget(&Path::from(meta.name.as_str())).await => {
                tracing::warn!(segment = %meta.name, "the copy of a segment was damaged and is fetched again");
                verify(self, meta).await
            }
            _ => self.mend(meta, error).await,
        }
    }

    /// Puts another node's object in the place of a damaged one.
    async fn mend(&self, meta: &SegmentMeta, error: Error) -> std::result::Result<Blocks, Error> {
        let (Error::Corrupt { .. }, Some(filled)) = (&error, &self.filled) else { return Err(error) };
        if let Err(error_there) = filled.replace(&Path::from(meta.name.as_str())).await {
            tracing::error!(segment = %meta.name, error = %error_there, "a segment is damaged, and no other node has it sound");
            return Err(error);
        }
        tracing::warn!(segment = %meta.name, "a segment was damaged and is replaced by another node's");
        verify(self, meta).await
    }
}

/// What a store that could not read a segment means.
pub(super) fn unreadable(meta: &SegmentMeta, error: object_store::Error) -> Error {
    let file = format!("segments/{}", meta.name);
    let corrupt = |reason| Error::Corrupt { file: file.clone(), offset: 0, reason };
    match error {
        object_store::Error::NotFound { .. } => corrupt("the file is missing".to_owned()),
        // The file ends while it is read: shorter than its own length says, or than that was when it was opened.
        error if is_cut_off(&error) => corrupt(error.to_string()),
        error => Error::Io { context: format!("could not read file \"{file}\""), source: std::io::Error::other(error) },
    }
}

async fn verify(store: &SegmentStore, meta: &SegmentMeta) -> std::result::Result<Blocks, Error> {
    let corrupt = |offset, reason| Error::Corrupt { file: format!("segments/{}", meta.name), offset, reason };
    let unreadable = |error| unreadable(meta, error);
    let location = Path::from(meta.name.as_str());
    // What is missing or cut off here is damage, also where another node would give the object.
    let here: &dyn ObjectStore = match &store.kind {
        Kind::Embedded(files) => {
            files.look_again(&location).map_err(unreadable)?;
            files
        }
        Kind::Cached(_) => store.objects.as_ref(),
    };
    let mut stream = here.get(&location).await.map_err(unreadable)?.into_stream();
    let (mut bytes, mut checksum, mut blocks) = (0u64, 0u32, BlockSums::default());
    while let Some(chunk) = stream.try_next().await.map_err(unreadable)? {
        bytes += chunk.len() as u64;
        checksum = crc32c::crc32c_append(checksum, &chunk);
        blocks.push(&chunk);
    }
    if bytes != meta.bytes {
        return Err(corrupt(bytes.min(meta.bytes), format!("{} bytes expected, {bytes} there", meta.bytes)));
    }
    if checksum != meta.checksum {
        return Err(corrupt(0, format!("checksum {:08x} expected, {checksum:08x} found", meta.checksum)));
    }
    Ok(blocks.finish())
}

/// Whether a file ended before what was read of it.
pub(super) fn is_cut_off(error: &object_store::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::UnexpectedEof;
        }
        cause = error.source();
    }
    false
}
