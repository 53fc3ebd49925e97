//! What ends the process, as the operator reads it on stderr, and the exit code that goes with it.
//!
//! Exit codes are an interface: supervisors decide by them. They are listed in docs/operating.md.

use std::net::SocketAddr;

/// The exit code of a process that could not start or whose command failed.
pub(crate) const EXIT_FAILURE: u8 = 1;
/// The exit code of a node that stopped itself because it can no longer vouch for its disk (D22). A supervisor
/// restarts it, and recovery starts from what is really on disk.
pub(crate) const EXIT_NODE_FAILED: u8 = 70;

/// The exit code of a node that has no place in its cluster, or in the one that looks for it: to start it again as it is is of no use.
pub(crate) const EXIT_CAST_OUT: u8 = 77;

/// A reason to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration file or a flag is wrong.
    #[error("{0}")]
    Settings(#[from] crate::settings::SettingsError),
    /// The PostgreSQL or HTTP address cannot be listened on.
    #[error("could not listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Threads or signals could not be set up.
    #[error("could not start: {0}")]
    Start(#[from] std::io::Error),
    /// The node could not open its data directory or form its groups.
    #[error("could not open data directory \"{data_dir}\": {source}")]
    Open {
        /// The directory.
        data_dir: String,
        /// What the node said.
        source: cluster::Error,
    },
    /// The store for the segments cannot be used as configured.
    #[error("could not use \"storage.url\": {source}")]
    Remote {
        /// What is missing.
        source: object_store::Error,
    },
    /// A certificate cannot be read or made.
    #[error("could not use certificate file \"{path}\": {source}")]
    Certificate {
        /// The file or directory.
        path: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The processes of `annal cluster` cannot be started or do not run.
    #[error("{0}")]
    Cluster(String),
    /// The node could not stop cleanly; nothing acknowledged is lost.
    #[error("could not stop cleanly: {0}")]
    Stop(cluster::Error),
    /// The node stopped itself (D22).
    #[error("the node stopped itself: {0}")]
    NodeFailed(String),
    /// The cluster does not take the node in.
    #[error("could not join the cluster: {reason}")]
    NotTakenIn {
        /// Why not.
        reason: String,
        /// What to do about it.
        hint: String,
    },
    /// The node was taken out of the cluster, or is mistaken for another one's.
    #[error("{0}")]
    CastOut(cluster::Error),
    /// The demonstration could not go on.
    #[error("the demonstration failed: {0}")]
    Demo(String),
    /// A statement of `annal sql` failed.
    #[error("{message}")]
    Sql {
        /// What the server said, with its SQLSTATE and the statement.
        message: String,
        /// What the server advises.
        hint: Option<String>,
    },
}

impl Error {
    /// The code the process exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::NodeFailed(_) => EXIT_NODE_FAILED,
            Error::CastOut(_) => EXIT_CAST_OUT,
            Error::Settings(_)
            | Error::Listen { .. }
            | Error::Start(_)
            | Error::Open { .. }
            | Error::NotTakenIn { .. }
            | Error::Remote { .. }
            | Error::Certificate { .. }
            | Error::Cluster(_)
            | Error::Stop(_)
            | Error::Demo(_)
            | Error::Sql { .. } => EXIT_FAILURE,
        }
    }

    /// What the operator can do about it, when there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Settings(error) => error.hint.clone(),
            Error::Sql { hint, .. } => hint.clone(),
            Error::Listen { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => {
                Some("another process listens there; choose another address with --listen or --http".to_owned())
            }
            Error::NodeFailed(_) => {
                Some("restart the process: everything acknowledged is recovered from disk".to_owned())
            }
            Error::NotTakenIn { hint, .. } => Some(hint.clone()),
            Error::CastOut(cluster::Error::Mistaken(_)) => Some(
                "start with that node's data directory, or, when that is lost, with an empty one and --join, which makes it a new node"
                    .to_owned(),
            ),
            Error::CastOut(_) => Some(
                "its data directory is of no more use: to bring the machine back, start with an empty one and --join"
                    .to_owned(),
            ),
            Error::Listen { .. }
            | Error::Start(_)
            | Error::Open { .. }
            | Error::Remote { .. }
            | Error::Certificate { .. }
            | Error::Cluster(_)
            | Error::Stop(_)
            | Error::Demo(_) => None,
        }
    }
}
