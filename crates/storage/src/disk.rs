//! All file access of a node goes through [`Disk`], so that a simulated one can tear writes and lose unsynced bytes.

mod real;
mod simulated;
mod syncer;

use std::fmt;
use std::io;

use async_trait::async_trait;
use bytes::Bytes;

use crate::Error;

pub use real::{DirectoryLock, RealDisk};
pub use simulated::{Frozen, SimulatedDisk};

/// An open file of a [`Disk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

/// What to do about a file's existence when opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist; reading only.
    Read,
    /// Must exist; reading and writing.
    Write,
    /// Must not exist.
    CreateNew,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Name without the directory.
    pub name: String,
    /// Bytes, 0 for a directory.
    pub len: u64,
    /// Whether it is a directory itself.
    pub is_dir: bool,
}

/// What failed of [`Disk::write_and_sync`].
#[derive(Debug)]
pub enum NotDurable {
    /// The write; nothing was synced.
    Write(io::Error),
    /// The sync: what the disk holds is not known.
    Sync(io::Error),
}

/// The disk below one data directory. Paths are relative to it, with `/` between parts;
/// the root itself is `""` where a directory is meant.
///
/// Asynchronous and completion-based: an implementation may complete each call on a thread of its own or at once.
#[async_trait]
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Takes the data directory for this process, creating it when absent. Fails when another process has it, saying
    /// which. Blocks; to be called once, before anything else.
    fn lock(&self) -> Result<DirectoryLock, Error>;
    /// Opens a file.
    async fn open(&self, path: &str, mode: OpenMode) -> io::Result<FileId>;
    /// Closes it. Unsynced bytes may still be lost afterwards.
    async fn close(&self, file: FileId) -> io::Result<()>;
    /// Closes it from where nothing can be awaited, such as a drop. A file that is not open is left alone.
    fn release(&self, file: FileId);
    /// Reads exactly `len` bytes at `offset`; `UnexpectedEof` when the file is shorter.
    async fn read_at(&self, file: FileId, offset: u64, len: usize) -> io::Result<Bytes>;
    /// Writes all parts, one after the other, starting at `offset`.
    async fn write_at(&self, file: FileId, offset: u64, parts: Vec<Bytes>) -> io::Result<()>;
    /// Makes data and length durable (fdatasync).
    async fn sync(&self, file: FileId) -> io::Result<()>;
    /// `write_at` and then `sync`; one call where the disk can, since each is a way to another thread and back.
    async fn write_and_sync(&self, file: FileId, offset: u64, parts: Vec<Bytes>) -> Result<(), NotDurable> {
        self.write_at(file, offset, parts).await.map_err(NotDurable::Write)?;
        self.sync(file).await.map_err(NotDurable::Sync)
    }
    /// Length in bytes.
    async fn len(&self, file: FileId) -> io::Result<u64>;
    /// Sets the length, filling with zeros or cutting off.
    async fn set_len(&self, file: FileId, len: u64) -> io::Result<()>;
    /// Makes the entries of a directory durable.
    async fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Creates a directory and all above it, durably.
    async fn create_dir_all(&self, dir: &str) -> io::Result<()>;
    /// Lists a directory in name order; empty when it does not exist.
    async fn list(&self, dir: &str) -> io::Result<Vec<DirEntry>>;
    /// Renames a file, replacing the target. Durable only after `sync_dir`.
    async fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Durable only after `sync_dir`.
    async fn remove(&self, path: &str) -> io::Result<()>;
}

/// Refuses a path that could leave the root: absolute, with `..` or `.` parts, or empty parts.
fn check_path(path: &str) -> io::Result<()> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if path.split('/').all(plain) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("path \"{path}\" is not a plain relative path")))
}

/// The directory a path lies in, `""` for the root.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_could_leave_the_root_are_refused() {
        for path in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/./b", "a/", "a\0b"] {
            assert!(check_path(path).is_err(), "{path:?}");
        }
        for path in ["a", "a/b.parquet", "log/0000000001.log", "a..b"] {
            assert!(check_path(path).is_ok(), "{path:?}");
        }
    }
}
