//! What can go wrong on one disk.

use std::io;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk answered with an error; `context` says what was being done to which file.
    #[error("{context}: {source}")]
    Io {
        /// "could not read file \"log/000001.log\""
        context: String,
        /// What the disk said.
        source: io::Error,
    },
    /// Stored bytes are not what was written. Never repaired silently.
    #[error("file \"{file}\" is damaged at offset {offset}: {reason}")]
    Corrupt {
        /// Path below the data directory.
        file: String,
        /// Byte offset of the damage.
        offset: u64,
        /// What does not fit.
        reason: String,
    },
    /// Bytes of a command or checkpoint cannot be decoded.
    #[error("cannot decode {what}: {reason}")]
    Decode {
        /// What was being decoded.
        what: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// Arrow or Parquet refused.
    #[error("could not encode or decode columns: {0}")]
    Columns(String),
    /// A write or sync failed earlier, or the log was closed: nothing is acknowledged any more (architecture, D22).
    #[error("the log is stopped: {0}")]
    Stopped(String),
}

impl Error {
    /// Whether the disk had no room: nothing is damaged, and the same may succeed once there is room.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Error::Io { .. }) && disk_is_full(self)
    }
}

/// Whether this, or what it was caused by, says that the disk has no room.
pub fn disk_is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    let Some(said) = error.downcast_ref::<io::Error>() else { return error.source().is_some_and(disk_is_full) };
    // The source of an error around another is that one's source, not that one.
    matches!(said.kind(), StorageFull | QuotaExceeded) || said.get_ref().is_some_and(|inner| disk_is_full(inner))
}
