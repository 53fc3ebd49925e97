//! What can go wrong in a Raft group.

use event::GroupId;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No leader is known; may work later.
    #[error("no leader is known for group {0}")]
    NoLeader(GroupId),
    /// The group has stopped: the node shuts down or its disk failed.
    #[error("group {group} has stopped: {reason}")]
    Stopped {
        /// The group.
        group: GroupId,
        /// Why.
        reason: String,
    },
    /// Too many statements wait for the group; may work later.
    #[error("too many statements wait for group {0}")]
    Overloaded(GroupId),
    /// The disk has no room for the log; nothing was proposed, may work later.
    #[error("could not extend the log of group {0}: no space left on device")]
    DiskFull(GroupId),
    /// The statement was proposed, and the group stopped before its fate was known.
    #[error("group {group} stopped while the statement was being committed: {reason}")]
    Unknown {
        /// The group.
        group: GroupId,
        /// Why.
        reason: String,
    },
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}
