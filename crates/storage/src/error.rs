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
