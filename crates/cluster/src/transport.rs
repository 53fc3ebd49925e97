//! How bytes get from one node to another.
//!
//! A transport knows addresses and bytes, nothing of what they mean. Two exist: gRPC, and the simulated network of tests. What arrives goes to
//! the [`Door`] of the node.

mod simulated;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use self::simulated::SimulatedNetwork;
use crate::door::Door;

/// Messages of one kind that share a connection, so that no kind waits behind another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Heartbeats, votes and read barriers: small, and the group's life depends on them.
    Heartbeat,
    /// Entries of the log, and statements on their way to a leader.
    Log,
    /// Segments and snapshots.
    Bulk,
}

/// Why a message was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// It was not delivered.
    #[error("could not reach \"{address}\": {reason}")]
    Unreachable {
        /// Where to.
        address: String,
        /// Why.
        reason: String,
    },
    /// It may have been delivered; its answer was not.
    #[error("lost the connection to \"{address}\": {reason}")]
    Lost {
        /// Where to.
        address: String,
        /// Why.
        reason: String,
    },
}

/// A stream of messages.
pub type Messages = BoxStream<'static, Bytes>;
/// A stream of answers, which ends at the first error.
pub type Answers = BoxStream<'static, Result<Bytes, TransportError>>;

/// Carries messages to other nodes.
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Begins to deliver what arrives for this node.
    async fn serve(&self, door: Door);

    /// Sends one message and waits for its answer.
    async fn call(&self, address: &str, lane: Lane, message: Bytes, timeout: Duration)
    -> Result<Bytes, TransportError>;

    /// Sends messages in order; the answers come in order, too. The other side reads on only as fast as it works.
    async fn stream(&self, address: &str, lane: Lane, messages: Messages) -> Result<Answers, TransportError>;
}

/// The transport of a node that is alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Isolated;

impl Isolated {
    fn refuse<T>(address: &str) -> Result<T, TransportError> {
        let reason = "this node has no address for other nodes".to_owned();
        Err(TransportError::Unreachable { address: address.to_owned(), reason })
    }
}

#[async_trait]
impl Transport for Isolated {
    async fn serve(&self, _door: Door) {}

    async fn call(&self, address: &str, _: Lane, _: Bytes, _: Duration) -> Result<Bytes, TransportError> {
        Self::refuse(address)
    }

    async fn stream(&self, address: &str, _: Lane, _: Messages) -> Result<Answers, TransportError> {
        Self::refuse(address)
    }
}
