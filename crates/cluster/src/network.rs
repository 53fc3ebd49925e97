//! What a node says to others: who they are, where they are, and the envelopes around it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use event::{GroupId, NodeId};
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::catalog::machine::PublishedCatalog;
use crate::error::Error;
use crate::message::{Envelope, Opening, Refusal, Reply, Request, seal};
use crate::transport::{Lane, Messages, Transport, TransportError};

/// How long a node may take to hear that it was put back.
const TELL_WAIT: Duration = Duration::from_secs(1);

/// Speaks to other nodes in the name of this one.
pub(crate) struct Network {
    transport: Arc<dyn Transport>,
    /// This node, once it knows who it is.
    own: OnceLock<(u64, NodeId)>,
    catalog: PublishedCatalog,
    /// When each node was last heard.
    heard: Mutex<BTreeMap<NodeId, Instant>>,
    /// Since when this node could have heard others.
    since: Instant,
    /// Why this node has no place in a cluster, once that is known.
    outcast: watch::Sender<Option<Outcast>>,
    /// Who has lost entries of which group, as far as this node has led it.
    put_back: Mutex<BTreeSet<(NodeId, GroupId)>>,
    /// Somebody waits to hear what is committed in a group that this node leads.
    pub(crate) commits_wanted: Arc<Notify>,
}

/// Why a node has to end, and why it is of no use to start it again as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcast {
    /// It was taken out of the cluster.
    Removed,
    /// It has founded a cluster of its own where another cluster has a node of this id.
    Mistaken(NodeId),
    /// Its data directory is an older one of this node: of a group it holds entries up to `here`, and has acknowledged more.
    PutBack { group: GroupId, acknowledged: u64, here: u64 },
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// It never arrived.
    #[error("{0}")]
    Unreachable(String),
    /// It may have arrived.
    #[error("{0}")]
    Lost(String),
    /// It arrived and was not done.
    #[error("refused: {0:?}")]
    Refused(Refusal),
}

impl From<TransportError> for CallError {
    fn from(error: TransportError) -> CallError {
        match error {
            TransportError::Unreachable { .. } => CallError::Unreachable(error.to_string()),
            TransportError::Lost { .. } => CallError::Lost(error.to_string()),
        }
    }
}

impl Network {
    pub(crate) fn new(transport: Arc<dyn Transport>, catalog: PublishedCatalog) -> Network {
        let (since, outcast) = (Instant::now(), watch::Sender::new(None));
        let (own, heard, put_back) = (OnceLock::new(), Mutex::default(), Mutex::default());
        Network { transport, own, catalog, heard, since, outcast, put_back, commits_wanted: Arc::default() }
    }

    /// The node has just said something.
    pub(crate) fn hears(&self, node: NodeId) {
        self.heard.lock().insert(node, Instant::now());
    }

    /// How long a node has been silent; `None` when it was never heard.
    pub(crate) fn silence(&self, node: NodeId) -> Option<Duration> {
        self.heard.lock().get(&node).map(Instant::elapsed)
    }

    /// For how long this node has heard from no other.
    pub(crate) fn alone_for(&self) -> Duration {
        let heard = self.heard.lock();
        heard.values().max().map_or_else(|| self.since.elapsed(), Instant::elapsed)
    }

    /// This node was taken out of the cluster.
    pub(crate) fn note_removed(&self) {
        if self.outcast.send_replace(Some(Outcast::Removed)).is_none() {
            tracing::warn!("this node was taken out of the cluster");
        }
    }

    /// A node of another cluster takes this one for its node `meant`. One that has an empty cluster of its own was started on an empty disk in
    /// the place of that node: to go on would be to answer from nothing where there is data.
    pub(crate) fn note_mistaken(&self, meant: NodeId) {
        let is_empty = {
            let catalog = self.catalog.read();
            catalog.nodes.len() <= 1 && catalog.tables.is_empty()
        };
        if is_empty && self.outcast.send_replace(Some(Outcast::Mistaken(meant))).is_none() {
            tracing::warn!(%meant, "another cluster has a node at this address");
        }
    }

    /// The log of a group ends at `here` on this node, which has acknowledged more: whatever it says of its groups may be old.
    pub(crate) fn note_put_back(&self, group: GroupId, acknowledged: u64, here: u64) {
        let put_back = Outcast::PutBack { group, acknowledged, here };
        if self.outcast.send_replace(Some(put_back)).is_none() {
            tracing::warn!(%group, acknowledged, here, "the data directory is older than what this node has acknowledged");
        }
    }

    /// Tells a node that it lacks what it had acknowledged to this one.
    pub(crate) async fn tell_of_lost_entries(&self, to: NodeId, address: &str, group: GroupId, acknowledged: u64) {
        if self.put_back.lock().insert((to, group)) {
            tracing::error!(node = %to, %group, acknowledged, "a node has lost entries that it had acknowledged; replace it");
        }
        let request = Request::LostEntries { group, acknowledged };
        // It is told again with its next answer.
        let _ = self.call_at(to, address, Lane::Heartbeat, &request, TELL_WAIT).await;
    }

    pub(crate) fn is_outcast(&self) -> bool {
        self.outcast.borrow().is_some()
    }

    /// Completes once this node is known to have no place in its cluster, with the reason.
    pub(crate) async fn cast_out(&self) -> Error {
        let mut outcast = self.outcast.subscribe();
        let known = outcast.wait_for(Option::is_some).await.expect("the sender is held");
        match *known {
            Some(Outcast::Mistaken(meant)) => Error::Mistaken(meant),
            Some(Outcast::PutBack { group, acknowledged, here }) => Error::PutBack { group, acknowledged, here },
            Some(Outcast::Removed) | None => Error::Removed(self.own.get().map_or(NodeId(0), |(_, node)| *node)),
        }
    }

    /// This node has an id.
    pub(crate) fn introduce(&self, cluster: u64, node: NodeId) {
        self.own.get_or_init(|| (cluster, node));
    }

    /// Whether the catalog says that the node was taken out of the cluster.
    pub(crate) fn was_removed(&self, node: NodeId) -> bool {
        self.catalog.read().removed.contains(&node)
    }

    /// All nodes but this one.
    pub(crate) fn others(&self) -> Vec<NodeId> {
        let own = self.own.get().map(|(_, node)| *node);
        self.catalog.read().nodes.keys().copied().filter(|node| Some(*node) != own).collect()
    }

    /// Where all nodes but this one are, as far as the catalog knows.
    pub(crate) fn other_addresses(&self) -> Vec<String> {
        self.others().into_iter().map(|node| self.address(node, "")).filter(|address| !address.is_empty()).collect()
    }

    fn address(&self, node: NodeId, fallback: &str) -> String {
        let catalog = self.catalog.read();
        let known = catalog.nodes.get(&node).map(|record| record.address.clone());
        known.filter(|address| !address.is_empty()).unwrap_or_else(|| fallback.to_owned())
    }

    fn envelope(&self, to: Option<NodeId>) -> Envelope {
        match self.own.get() {
            Some((cluster, from)) => Envelope { cluster: Some(*cluster), from: *from, to },
            None => Envelope { cluster: None, from: NodeId(0), to },
        }
    }

    /// Asks a node that the catalog knows.
    pub(crate) async fn call(
        &self,
        to: NodeId,
        lane: Lane,
        request: &Request,
        ttl: Duration,
    ) -> Result<Bytes, CallError> {
        self.call_at(to, "", lane, request, ttl).await
    }

    /// Asks a node that is at `address` unless the catalog knows better.
    pub(crate) async fn call_at(
        &self,
        to: NodeId,
        address: &str,
        lane: Lane,
        request: &Request,
        ttl: Duration,
    ) -> Result<Bytes, CallError> {
        self.send(&self.address(to, address), Some(to), lane, request, ttl).await
    }

    /// Asks whoever listens at `address`.
    pub(crate) async fn ask(&self, address: &str, request: &Request, ttl: Duration) -> Result<Bytes, CallError> {
        self.send(address, None, Lane::Log, request, ttl).await
    }

    async fn send(
        &self,
        address: &str,
        to: Option<NodeId>,
        lane: Lane,
        request: &Request,
        ttl: Duration,
    ) -> Result<Bytes, CallError> {
        let sealed = seal(self.envelope(to), request);
        let answer = self.transport.call(address, lane, sealed, ttl).await?;
        let reply: Reply = crate::message::unpack(&answer).map_err(CallError::Lost)?;
        // Another node may listen there by now.
        if let (Some(to), false) = (to, matches!(reply, Err(Refusal::Misdirected(_)))) {
            self.hears(to);
        }
        if reply == Err(Refusal::Removed) {
            self.note_removed();
        }
        reply.map_err(CallError::Refused)
    }

    /// Opens a stream to a node.
    pub(crate) async fn stream_at(
        &self,
        to: NodeId,
        address: &str,
        lane: Lane,
        opening: &Opening,
        messages: Messages,
    ) -> Result<BoxStream<'static, Result<Bytes, CallError>>, CallError> {
        let first = seal(self.envelope(Some(to)), opening);
        let messages = stream::once(std::future::ready(first)).chain(messages).boxed();
        let answers = self.transport.stream(&self.address(to, address), lane, messages).await?;
        Ok(answers.map(|answer| answer.map_err(CallError::from)).boxed())
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Network({:?})", self.own.get())
    }
}
