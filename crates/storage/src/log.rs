//! The node's write-ahead log: one sequence of files for all groups, group commit, one fdatasync for many appends.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use event::GroupId;

use crate::{Disk, Error};

/// One Raft entry as the log sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Position in the group's log.
    pub index: u64,
    /// Opaque to this crate: Raft's leader id of the entry (term and what else it needs), fixed 16 bytes.
    pub term: [u8; 16],
    /// Opaque to this crate: tells the kinds of payload apart (blank, membership, normal).
    pub kind: u8,
    /// The entry itself.
    pub payload: Bytes,
}

/// What the log knows of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupLog {
    /// The last vote saved, opaque bytes.
    pub vote: Option<Bytes>,
    /// The last commit position saved (not synced), opaque bytes.
    pub committed: Option<Bytes>,
    /// (index, term) below and including which everything is purged.
    pub purged: Option<(u64, [u8; 16])>,
    /// (index, term) of the last record, the purge point when there is none above it.
    pub last: Option<(u64, [u8; 16])>,
}

/// Counters since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStatistics {
    /// fdatasync calls.
    pub syncs: u64,
    /// Sum of their durations in microseconds.
    pub sync_us: u64,
    /// Bytes written, frames and all.
    pub bytes_written: u64,
    /// Records appended.
    pub records: u64,
}

/// The completion of an append or vote: called once, with the outcome of the sync that covers it.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// The log of one node. Cheap to clone; the last clone dropped closes it.
#[derive(Clone, Debug)]
pub struct Log {}

impl Log {
    /// Opens the log below `dir`, creating it when absent: cuts a torn tail, refuses rot with file and offset.
    pub async fn open(disk: Arc<dyn Disk>, dir: &str) -> Result<Log, Error> {
        let _ = (disk, dir);
        unimplemented!()
    }

    /// The groups the log holds anything of.
    pub fn groups(&self) -> Vec<GroupId> {
        unimplemented!()
    }

    /// What is known of `group`.
    pub fn group(&self, group: GroupId) -> GroupLog {
        let _ = group;
        unimplemented!()
    }

    /// Appends records with consecutive indexes right after the group's last one. They are readable when this returns;
    /// `done` is called once they are synced. Waits while the queue is full.
    pub async fn append(&self, group: GroupId, records: Vec<LogRecord>, done: Done) -> Result<(), Error> {
        let _ = (group, records, done);
        unimplemented!()
    }

    /// Saves the group's vote; durable when this returns.
    pub async fn save_vote(&self, group: GroupId, vote: Bytes) -> Result<(), Error> {
        let _ = (group, vote);
        unimplemented!()
    }

    /// Saves the group's commit position with the next write; not synced for its own sake.
    pub async fn save_committed(&self, group: GroupId, committed: Bytes) -> Result<(), Error> {
        let _ = (group, committed);
        unimplemented!()
    }

    /// Forgets all records of `group` above `index` (all when `None`); ordered with the appends around it.
    pub async fn truncate_after(&self, group: GroupId, index: Option<u64>) -> Result<(), Error> {
        let _ = (group, index);
        unimplemented!()
    }

    /// Forgets all records of `group` up to and including `index`, and deletes files nobody needs any more.
    pub async fn purge(&self, group: GroupId, index: u64, term: [u8; 16]) -> Result<(), Error> {
        let _ = (group, index, term);
        unimplemented!()
    }

    /// Reads records of `range`, at least one when the first exists, stopping once `bytes_max` is passed.
    pub async fn read(&self, group: GroupId, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogRecord>, Error> {
        let _ = (group, range, bytes_max);
        unimplemented!()
    }

    /// Counters since the log was opened.
    pub fn statistics(&self) -> LogStatistics {
        unimplemented!()
    }

    /// Writes and syncs what waits, then stops the writer.
    pub async fn close(&self) -> Result<(), Error> {
        unimplemented!()
    }
}
