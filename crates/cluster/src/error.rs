//! What can go wrong in a cluster.

use event::{GroupId, NodeId};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// CREATE TABLE of a name that exists.
    #[error("relation \"{0}\" already exists")]
    TableExists(String),
    /// The table is not, or no longer, in the catalog.
    #[error("relation \"{0}\" does not exist")]
    NoSuchTable(String),
    /// CREATE OR REPLACE VIEW of a view that would read itself.
    #[error("infinite recursion detected in rules for relation \"{0}\"")]
    CircularView(String),
    /// There is a schema of that name.
    #[error("schema \"{0}\" already exists")]
    SchemaExists(String),
    /// There is no schema of that name.
    #[error("schema \"{0}\" does not exist")]
    NoSuchSchema(String),
    /// A schema that shall go has tables or views.
    #[error("schema \"{name}\" is not empty: {}", relations.join(", "))]
    SchemaNotEmpty {
        /// Its name.
        name: String,
        /// What is in it.
        relations: Vec<String>,
    },
    /// Views read the table or view that shall go or change its name.
    #[error("relation \"{name}\" is read by {}", readers.join(", "))]
    IsRead {
        /// The table or view.
        name: String,
        /// Names of the views.
        readers: Vec<String>,
    },
    /// The statement was planned against another schema version; plan again.
    #[error("the schema of relation \"{0}\" has changed")]
    SchemaChanged(String),
    /// Rows that the statement changes were changed by another one since it read them.
    #[error("could not serialize access due to concurrent update")]
    Conflict,
    /// A bounded queue or memory budget is full; may work later.
    #[error("{0}")]
    Overloaded(String),
    /// Too many statements are in flight; nothing was done.
    #[error("too many statements are in flight")]
    Excess {
        /// After how many milliseconds there may be room.
        retry_ms: u64,
    },
    /// The disk has no room; may work later.
    #[error("{0}")]
    DiskFull(String),
    /// The statement is beyond what one entry of one group can hold.
    #[error("{0}")]
    Limit(String),
    /// The cluster is not in the state that the request needs.
    #[error("{reason}")]
    NotInState {
        /// What is not as it should be.
        reason: String,
        /// What to do about it.
        hint: String,
    },
    /// This node was taken out of the cluster, for good.
    #[error("node {0} was taken out of the cluster")]
    Removed(NodeId),
    /// This node has founded an empty cluster where another cluster has a node, whose data directory is not there.
    #[error("another cluster has its node {0} at this address, and the data directory is not that node's")]
    Mistaken(NodeId),
    /// The data directory is an older one of this node, as of a restored backup: it may not vote with it, nor be counted on.
    #[error(
        "the data directory is older than what this node has acknowledged: of group {group} it holds entries up to {here}, and has \
         acknowledged {acknowledged}"
    )]
    PutBack {
        /// The group that told.
        group: GroupId,
        /// Up to which entry the node had said that it holds the log.
        acknowledged: u64,
        /// Up to which it does.
        here: u64,
    },
    /// The node is stopping, or has stopped after a failed sync.
    #[error("the node is shutting down: {0}")]
    ShuttingDown(String),
    /// The statement may or may not have been committed.
    #[error("the outcome of the statement is unknown: {0}")]
    Unknown(String),
    /// What this node has is, or may be, older than what is asked for.
    #[error("{0}")]
    Stale(String),
    /// Another node could not do its part; may work later.
    #[error("{0}")]
    Peer(String),
    /// The data directory cannot be used: in use by another process, of another format.
    #[error("{0}")]
    DataDirectory(String),
    /// Raft refused or failed.
    #[error(transparent)]
    Replication(replication::Error),
    /// The disk failed.
    #[error(transparent)]
    Storage(storage::Error),
}

impl Error {
    /// Whether this node has no place in its cluster with the data directory that it has, so that it is of no use to start it again.
    pub fn is_final(&self) -> bool {
        matches!(self, Error::Removed(_) | Error::Mistaken(_) | Error::PutBack { .. })
    }

    /// Whether the same may work a moment later, with this node as it is.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Error::Overloaded(_)
            | Error::Excess { .. }
            | Error::Unknown(_)
            | Error::Stale(_)
            | Error::Peer(_)
            | Error::Replication(replication::Error::NoLeader(_)) => true,
            Error::TableExists(_)
            | Error::NoSuchTable(_)
            | Error::CircularView(_)
            | Error::SchemaExists(_)
            | Error::NoSuchSchema(_)
            | Error::SchemaNotEmpty { .. }
            | Error::IsRead { .. }
            | Error::SchemaChanged(_)
            | Error::Conflict
            | Error::DiskFull(_)
            | Error::Limit(_)
            | Error::NotInState { .. }
            | Error::Removed(_)
            | Error::Mistaken(_)
            | Error::PutBack { .. }
            | Error::ShuttingDown(_)
            | Error::DataDirectory(_)
            | Error::Replication(_)
            | Error::Storage(_) => false,
        }
    }
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        if error.is_disk_full() { Error::DiskFull(error.to_string()) } else { Error::Storage(error) }
    }
}

impl From<replication::Error> for Error {
    fn from(error: replication::Error) -> Self {
        match error {
            replication::Error::Stopped { reason, .. } => Error::ShuttingDown(reason),
            replication::Error::Unknown { reason, .. } => Error::Unknown(reason),
            replication::Error::Overloaded(_) => Error::Overloaded(error.to_string()),
            replication::Error::DiskFull(_) => Error::DiskFull(error.to_string()),
            replication::Error::Storage(error) => error.into(),
            replication::Error::NoLeader(_) => Error::Replication(error),
        }
    }
}
