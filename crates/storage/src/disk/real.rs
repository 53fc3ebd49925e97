//! The machine's file system. Each call is one blocking job of the runtime's own pool, at most `DISK_CALLS_MAX` at once; what is written to be synced
//! at once has a thread of its own.
//!
//! Files stay open until closed, so that a removed file can still be read to its end by who holds it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use event::limits::DISK_CALLS_MAX;
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, FlockOperation};
use tokio::sync::Semaphore;

use super::syncer::Syncer;
use super::{DirEntry, Disk, FileId, NotDurable, OpenMode, check_path};
use crate::Error;

/// Name of the file that a process holds locked while the data directory is its own.
const LOCK_FILE: &str = "LOCK";
/// The most parts one `pwritev` takes (IOV_MAX of Linux).
const WRITE_PARTS_MAX: usize = 1024;
/// What [`RealDisk::syncing_in_place`] writes and syncs on the thread that asks: so many bytes at most, as long as syncs take no longer than that.
/// It is the row or two of a client that is alone: where more come together, there are others who have work for the thread meanwhile.
const IN_PLACE_BYTES_MAX: usize = 4 << 10;
const IN_PLACE_SYNC_MAX: Duration = Duration::from_micros(500);
/// A new sync counts for so much of the time that syncs take.
const NEWEST_SHARE: u64 = 4;

/// The machine's file system below a root directory.
#[derive(Debug)]
pub struct RealDisk {
    root: Arc<PathBuf>,
    open: Mutex<OpenFiles>,
    calls: Arc<Semaphore>,
    syncer: Syncer,
    in_place: bool,
    /// How long a write with its sync takes of late, in microseconds.
    sync_us: AtomicU64,
}

#[derive(Debug, Default)]
struct OpenFiles {
    next: u64,
    files: BTreeMap<FileId, Arc<File>>,
}

/// Exclusive possession of a data directory; given up when dropped, or when the process dies.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: Option<File>,
}

impl DirectoryLock {
    /// Possession of a directory that no other process can reach.
    pub(super) fn unshared() -> Self {
        Self { _file: None }
    }
}

impl RealDisk {
    /// The file system below `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: Arc::new(root.into()),
            open: Mutex::new(OpenFiles::default()),
            calls: Arc::new(Semaphore::new(DISK_CALLS_MAX)),
            syncer: Syncer::default(),
            in_place: false,
            sync_us: AtomicU64::new(0),
        }
    }

    /// The same disk, but a small write is synced on the thread that asks while the disk is fast: where a way to another thread and back takes as
    /// long as a third of a sync, and nothing on that thread minds to wait for one. Not for a node whose heartbeats others wait for.
    pub fn syncing_in_place(self) -> Self {
        Self { in_place: true, ..self }
    }

    fn syncs_in_place(&self, parts: &[Bytes]) -> bool {
        let is_fast = || u128::from(self.sync_us.load(Ordering::Relaxed)) <= IN_PLACE_SYNC_MAX.as_micros();
        self.in_place && parts.iter().map(Bytes::len).sum::<usize>() <= IN_PLACE_BYTES_MAX && is_fast()
    }

    fn note_sync(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX / NEWEST_SHARE);
        let before = self.sync_us.load(Ordering::Relaxed);
        self.sync_us.store(before - before / NEWEST_SHARE + took / NEWEST_SHARE, Ordering::Relaxed);
    }

    /// Where it lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, path: &str) -> io::Result<PathBuf> {
        check_path(path)?;
        Ok(self.root.join(path))
    }

    /// Like `path`, with `""` for the root.
    fn dir(&self, dir: &str) -> io::Result<PathBuf> {
        if dir.is_empty() { Ok(self.root.to_path_buf()) } else { self.path(dir) }
    }

    fn file(&self, id: FileId) -> io::Result<Arc<File>> {
        let open = self.open.lock();
        open.files.get(&id).cloned().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "file is not open"))
    }

    /// Runs blocking work on the pool.
    async fn call<T: Send + 'static>(&self, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        let permit = self.calls.clone().acquire_owned().await.expect("the semaphore is never closed");
        let job = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        job.await.map_err(io::Error::other)?
    }
}

#[async_trait]
impl Disk for RealDisk {
    fn lock(&self) -> Result<DirectoryLock, Error> {
        let failed = |source| Error::Io {
            context: format!("could not lock data directory \"{}\"", self.root.display()),
            source,
        };
        create_dir_durably(&self.root, &self.root).map_err(failed)?;
        let path = self.root.join(LOCK_FILE);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = open.map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(failed(in_use(&mut file))),
            Err(errno) => return Err(failed(errno.into())),
        }
        file.set_len(0).map_err(failed)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed)?;
        Ok(DirectoryLock { _file: Some(file) })
    }

    async fn open(&self, path: &str, mode: OpenMode) -> io::Result<FileId> {
        let path = self.path(path)?;
        let file = self
            .call(move || {
                let mut options = OpenOptions::new();
                match mode {
                    OpenMode::Read => options.read(true),
                    OpenMode::Write => options.read(true).write(true),
                    OpenMode::CreateNew => options.read(true).write(true).create_new(true),
                };
                options.open(path)
            })
            .await?;
        let mut open = self.open.lock();
        open.next += 1;
        let id = FileId(open.next);
        open.files.insert(id, Arc::new(file));
        Ok(id)
    }

    async fn close(&self, file: FileId) -> io::Result<()> {
        let closed = self.open.lock().files.remove(&file);
        drop(closed.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "file is not open"))?);
        Ok(())
    }

    fn release(&self, file: FileId) {
        self.open.lock().files.remove(&file);
    }

    async fn read_at(&self, file: FileId, offset: u64, len: usize) -> io::Result<Bytes> {
        let file = self.file(file)?;
        self.call(move || {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, offset)?;
            Ok(Bytes::from(bytes))
        })
        .await
    }

    async fn write_at(&self, file: FileId, offset: u64, parts: Vec<Bytes>) -> io::Result<()> {
        let file = self.file(file)?;
        self.call(move || write_parts(&file, offset, &parts)).await
    }

    async fn sync(&self, file: FileId) -> io::Result<()> {
        let file = self.file(file)?;
        self.call(move || file.sync_data()).await
    }

    async fn write_and_sync(&self, file: FileId, offset: u64, parts: Vec<Bytes>) -> Result<(), NotDurable> {
        let file = self.file(file).map_err(NotDurable::Write)?;
        let in_place = self.syncs_in_place(&parts);
        // Two outcomes in one: that of the sync counts once the write has succeeded.
        let write = move || {
            let begin = Instant::now();
            write_parts(&file, offset, &parts)?;
            Ok((file.sync_data(), begin.elapsed()))
        };
        let written = if in_place { write() } else { self.syncer.run(write).await };
        let (synced, took) = written.map_err(NotDurable::Write)?;
        self.note_sync(took);
        synced.map_err(NotDurable::Sync)
    }

    async fn len(&self, file: FileId) -> io::Result<u64> {
        let file = self.file(file)?;
        self.call(move || Ok(file.metadata()?.len())).await
    }

    /// Growing reserves the blocks where the file system can, so that a full disk shows here and not in a later write.
    async fn set_len(&self, file: FileId, len: u64) -> io::Result<()> {
        let file = self.file(file)?;
        self.call(move || {
            if len > file.metadata()?.len() {
                match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len) {
                    Ok(()) => return Ok(()),
                    Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            file.set_len(len)
        })
        .await
    }

    async fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let dir = self.dir(dir)?;
        self.call(move || sync_directory(&dir)).await
    }

    async fn create_dir_all(&self, dir: &str) -> io::Result<()> {
        let (root, dir) = (self.root.clone(), self.dir(dir)?);
        self.call(move || create_dir_durably(&root, &dir)).await
    }

    async fn list(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        let dir = self.dir(dir)?;
        self.call(move || list_directory(&dir)).await
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path(from)?, self.path(to)?);
        self.call(move || fs::rename(from, to)).await
    }

    async fn remove(&self, path: &str) -> io::Result<()> {
        let path = self.path(path)?;
        self.call(move || fs::remove_file(path)).await
    }
}

fn in_use(file: &mut File) -> io::Error {
    let mut pid = String::new();
    let holder = match file.read_to_string(&mut pid) {
        Ok(_) if !pid.trim().is_empty() => format!("it is in use by process {}", pid.trim()),
        _ => "it is in use by another process".to_owned(),
    };
    io::Error::new(io::ErrorKind::WouldBlock, holder)
}

/// Writes the parts with as few calls as the system allows, going on after short writes.
fn write_parts(file: &File, mut offset: u64, parts: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> =
        parts.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)).collect();
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        let now = rest.len().min(WRITE_PARTS_MAX);
        match rustix::io::pwritev(file, &rest[..now], offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut rest, written);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates `dir` and what is missing above it, then syncs every directory up to `root` that may hold a new entry (and
/// above it when `root` itself was missing). A directory that exists already may come from a process that died before
/// it synced the one above.
fn create_dir_durably(root: &Path, dir: &Path) -> io::Result<()> {
    let top = root.ancestors().find(|above| above.exists()).unwrap_or(root).to_path_buf();
    fs::create_dir_all(dir)?;
    for above in dir.ancestors().skip(1).take_while(|above| above.starts_with(&top)) {
        sync_directory(if above.as_os_str().is_empty() { Path::new(".") } else { above })?;
    }
    Ok(())
}

fn list_directory(dir: &Path) -> io::Result<Vec<DirEntry>> {
    let reading = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut entries = Vec::new();
    for entry in reading {
        let entry = entry?;
        // What is not UTF-8 was not written by us.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let metadata = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let is_dir = metadata.is_dir();
        entries.push(DirEntry { name, len: if is_dir { 0 } else { metadata.len() }, is_dir });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_writes_are_synced_in_place_while_the_disk_is_fast() {
        let (small, large) = ([Bytes::from_static(b"row")], [Bytes::from(vec![0; IN_PLACE_BYTES_MAX + 1])]);
        assert!(!RealDisk::new("never").syncs_in_place(&small), "only where it was asked for");
        let disk = RealDisk::new("never").syncing_in_place();
        assert!(disk.syncs_in_place(&small) && !disk.syncs_in_place(&large));
        disk.note_sync(Duration::from_millis(10));
        assert!(!disk.syncs_in_place(&small), "one slow sync is one too many");
        for _ in 0..20 {
            disk.note_sync(Duration::from_micros(100));
        }
        assert!(disk.syncs_in_place(&small), "fast again");
    }
}
