//! What can go wrong in a Raft group.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No leader is known; may work later.
    #[error("no leader is known for group {0}")]
    NoLeader(event::GroupId),
    /// The group has stopped: the node shuts down or its disk failed.
    #[error("group {group} has stopped: {reason}")]
    Stopped {
        /// The group.
        group: event::GroupId,
        /// Why.
        reason: String,
    },
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}
