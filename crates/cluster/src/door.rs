//! What other nodes ask of this one.
//!
//! Whoever comes with the name of another cluster, or asks for another node, is turned away before anything is done: an address may have
//! changed hands.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use event::{GroupId, NodeId};
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::{Mutex, RwLock};
use replication::{Group, StateMachine};
use storage::SegmentMeta;

use crate::admission::{Admitted, Client};
use crate::catalog::machine::CatalogMachine;
use crate::copies::Copies;
use crate::data::DataMachine;
use crate::error::Error;
use crate::incoming::Incoming;
use crate::membership;
use crate::message::{Envelope, Joining, Opening, RaftCall, Refusal, Reply, Request, from_json, pack, to_json, unseal};
use crate::node::Node;
use crate::peers;
use crate::proof::Proof;
use crate::transport::Messages;

/// Kinds of refused messages that are told of.
const REFUSED_MAX: usize = 64;

/// The receiving side of a node. Cheap to clone.
#[derive(Clone, Default)]
pub struct Door {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    own: OnceLock<(u64, NodeId)>,
    catalog: OnceLock<Arc<Group<CatalogMachine>>>,
    data: RwLock<BTreeMap<GroupId, Arc<Group<DataMachine>>>>,
    copies: OnceLock<Arc<Copies>>,
    node: OnceLock<Weak<Node>>,
    /// Whose messages were refused, and for whom they were: each is told once.
    refused: Mutex<BTreeSet<(NodeId, Option<NodeId>)>>,
}

impl Door {
    /// From now on the door knows whose it is.
    pub(crate) fn introduce(&self, cluster: u64, node: NodeId) {
        self.inner.own.get_or_init(|| (cluster, node));
    }

    pub(crate) fn open_catalog(&self, group: Arc<Group<CatalogMachine>>) {
        self.inner.catalog.get_or_init(|| group);
    }

    pub(crate) fn open_data(&self, group: Arc<Group<DataMachine>>) {
        self.inner.data.write().insert(group.id(), group);
    }

    pub(crate) fn open_copies(&self, copies: Arc<Copies>) {
        self.inner.copies.get_or_init(|| copies);
    }

    pub(crate) fn open_node(&self, node: &Arc<Node>) {
        self.inner.node.get_or_init(|| Arc::downgrade(node));
    }

    /// The data group of that id, when this node has a replica of it and has opened that.
    pub(crate) fn data(&self, group: GroupId) -> Option<Arc<Group<DataMachine>>> {
        self.inner.data.read().get(&group).cloned()
    }

    /// Answers one message of a sender that has proven so much.
    pub async fn call(&self, message: Bytes, proof: &Proof) -> Bytes {
        let answered = match unseal::<Request>(&message) {
            Ok((envelope, request)) => match self.admit(&envelope, proof, &request) {
                Ok(()) => self.answer(envelope.from, request).await,
                Err(refusal) => Err(refusal),
            },
            Err(refusal) => Err(refusal),
        };
        pack(&answered)
    }

    /// Answers a stream of messages, the first of which says what it is for, of a sender that has proven so much.
    pub async fn stream(&self, mut messages: Messages, proof: &Proof) -> BoxStream<'static, Bytes> {
        let refuse = |refusal: Refusal| {
            tracing::debug!(?refusal, "a stream was refused");
            stream::once(std::future::ready(pack::<Reply>(&Err(refusal)))).boxed()
        };
        let Some(first) = messages.next().await else { return stream::empty().boxed() };
        let opening = unseal::<Opening>(&first).and_then(|(envelope, opening)| {
            self.admit_member(&envelope, proof)?;
            Ok(opening)
        });
        match opening {
            // A leader that is refused sees its stream end, and tries again.
            Ok(Opening::Append { group: GroupId::CATALOG }) => match self.inner.catalog.get() {
                Some(catalog) => peers::receive_stream(catalog, messages),
                None => stream::empty().boxed(),
            },
            Ok(Opening::Append { group }) => match self.data(group) {
                Some(group) => peers::receive_stream(&group, messages),
                None => stream::empty().boxed(),
            },
            Ok(Opening::Fetch { name }) => match self.inner.copies.get() {
                Some(copies) => copies.serve(name),
                None => refuse(starting()),
            },
            Err(refusal) => refuse(refusal),
        }
    }

    /// Whether the sender means this node, as one of its cluster or one that wants to become one.
    fn admit(&self, envelope: &Envelope, proof: &Proof, request: &Request) -> Result<(), Refusal> {
        let (Request::Join { node }, None) = (request, envelope.cluster) else {
            return self.admit_member(envelope, proof);
        };
        let Some((_, own)) = self.inner.own.get() else { return Err(starting()) };
        let joining: Joining = from_json(node).map_err(Refusal::Misdirected)?;
        if envelope.to.is_some_and(|to| to != *own) {
            return Err(Refusal::Misdirected(format!("this is node {own}")));
        }
        if !proof.allows(joining.wanted.unwrap_or(NodeId(0))) {
            return Err(Refusal::NotInState {
                reason: "the certificate is bound to a node of another id".into(),
                hint: "Ask for the id that the certificate names with --node-id.".into(),
            });
        }
        Ok(())
    }

    /// Whether the sender means this node, as one of its cluster.
    fn admit_member(&self, envelope: &Envelope, proof: &Proof) -> Result<(), Refusal> {
        let Some((cluster, node)) = self.inner.own.get() else { return Err(starting()) };
        if !proof.allows(envelope.from) {
            if self.is_news(envelope) {
                tracing::warn!(from = %envelope.from, "refusing messages whose sender has the certificate of another node");
            }
            return Err(Refusal::NotInState {
                reason: format!("the certificate shown is not that of node {}", envelope.from),
                hint: "Give the node the certificate that was made for it.".into(),
            });
        }
        let stranger = envelope.cluster != Some(*cluster);
        if let (true, Some(_), Some(meant), Some(copies)) =
            (stranger, envelope.cluster, envelope.to, self.inner.copies.get())
        {
            copies.network().note_mistaken(meant);
        }
        if stranger || envelope.to.is_some_and(|to| to != *node) {
            if self.is_news(envelope) {
                let meant = envelope.to.map(|to| to.0);
                tracing::warn!(from = %envelope.from, meant, stranger, "refusing messages for another node at this address; remove that one if it is gone");
            }
            return Err(Refusal::Misdirected(format!("this is node {node} of another cluster or of another name")));
        }
        if let Some(copies) = self.inner.copies.get() {
            let network = copies.network();
            if network.was_removed(envelope.from) && !self.may_vote(envelope.from) {
                tracing::debug!(from = %envelope.from, "refused a node that was taken out of the cluster");
                return Err(Refusal::Removed);
            }
            network.hears(envelope.from);
        }
        Ok(())
    }

    /// Whether nothing was said yet of messages of that kind that are refused.
    fn is_news(&self, envelope: &Envelope) -> bool {
        let mut refused = self.inner.refused.lock();
        // Whoever makes numbers up fills no memory.
        refused.len() < REFUSED_MAX && refused.insert((envelope.from, envelope.to))
    }

    /// Whether a node votes in a group of this one, as far as is known. The last voter of a group that is removed must be heard until it has
    /// given its vote away.
    fn may_vote(&self, node: NodeId) -> bool {
        let votes_for_catalog = || self.inner.catalog.get().is_some_and(|catalog| catalog.voters().contains(&node));
        let votes_for_data = || self.inner.data.read().values().any(|group| group.voters().contains(&node));
        // Not all groups are there yet before the node is.
        self.inner.node.get().is_none() || votes_for_catalog() || votes_for_data()
    }

    async fn read_index<M: StateMachine>(&self, group: &Group<M>) -> Reply {
        match group.read_index().await {
            Ok(index) => {
                // Whoever asks waits until it knows that so much is committed.
                if let Some(copies) = self.inner.copies.get() {
                    copies.network().commits_wanted.notify_waiters();
                }
                Ok(pack(&index))
            }
            Err(replication::Error::NoLeader(_)) => Err(Refusal::NotLeader(group.leader())),
            Err(error) => Err(error.into()),
        }
    }

    async fn answer(&self, from: NodeId, request: Request) -> Reply {
        match request {
            Request::Raft { group: GroupId::CATALOG, call, body } => {
                let catalog = self.inner.catalog.get().ok_or_else(starting)?;
                peers::receive(catalog, call, &body).await
            }
            Request::Raft { group, call, body } => {
                let replica = self.data(group).ok_or(Refusal::NotLeader(None))?;
                let incoming = match call {
                    RaftCall::Snapshot => Some(self.prepare_snapshot(group, &body).await?),
                    _ => None,
                };
                let received = peers::receive(&replica, call, &body).await;
                if let (Some(incoming), Ok(_)) = (incoming, &received) {
                    incoming.installed();
                }
                received
            }
            Request::Propose { group: GroupId::CATALOG, entry, .. } => propose(&self.node()?.catalog, &entry).await,
            Request::Propose { group, entry, client } => {
                let replica = self.data(group).ok_or(Refusal::NotLeader(None))?;
                let client = client.map(|number| Client { node: from, number });
                let admitted = self.admit_statement(&replica, client, entry.len() as u64)?;
                let proposed = propose(&replica, &entry).await;
                if let (Some(admitted), Ok(_)) = (admitted, &proposed) {
                    admitted.acknowledged();
                }
                proposed
            }
            Request::ReadIndex { group: GroupId::CATALOG } => self.read_index(&self.node()?.catalog).await,
            Request::ReadIndex { group } => {
                let replica = self.data(group).ok_or(Refusal::NotLeader(None))?;
                self.read_index(&replica).await
            }
            Request::Hold { group, segments } => {
                let segments: Vec<SegmentMeta> = from_json(&segments).map_err(Refusal::Misdirected)?;
                let node = self.node()?;
                done(node.hold_for_a_statement(group, segments).await)
            }
            Request::Applied { group: GroupId::CATALOG, index } => applied(&self.node()?.catalog, index).await,
            Request::Applied { group, index } => {
                let replica = self.data(group).ok_or(Refusal::NotLeader(None))?;
                applied(&replica, index).await
            }
            Request::Join { node } => {
                let joining: Joining = from_json(&node).map_err(Refusal::Misdirected)?;
                let joined = membership::admit(self.node()?.as_ref(), joining).await;
                joined.map(|joined| to_json(&joined)).map_err(refusal)
            }
            Request::TransferLeader { group, to } => done(self.node()?.hand_over_here(group, to).await),
            Request::MoveVote { group, from, to } => {
                let moved = self.node()?.move_vote_here(group, from, to).await;
                moved.map(|behind| pack(&behind)).map_err(refusal)
            }
            Request::Flush { group } => done(self.node()?.flush_group(group, false).await),
            Request::Compact { group, table, scope } => {
                done(self.node()?.compact_group(group, table, scope, false).await)
            }
            Request::Scrub { table } => {
                let scrubbed = self.node()?.scrub_aside(table).await;
                scrubbed.map(|scrubbed| to_json(&scrubbed)).map_err(|error| Refusal::Failed(error.to_string()))
            }
            Request::Needs { group, applied, names } => {
                let names: Vec<String> = from_json(&names).map_err(Refusal::Misdirected)?;
                let needed = self.node()?.needs(group, applied, names).await;
                needed.map(|needed| to_json(&needed)).map_err(refusal)
            }
            Request::Status => Ok(to_json(&self.node()?.replica_status())),
            Request::Host => Ok(to_json(&self.node()?.host_status())),
            Request::LostEntries { group, acknowledged } => {
                let here = match group {
                    GroupId::CATALOG => self.inner.catalog.get().map(|catalog| catalog.status().last),
                    _ => self.data(group).map(|group| group.status().last),
                };
                // Whoever says so may be one that leads no longer.
                if let (Some(here), Some(copies)) = (here, self.inner.copies.get())
                    && here < acknowledged
                {
                    copies.network().note_put_back(group, acknowledged, here);
                }
                Ok(Bytes::new())
            }
        }
    }

    /// Lets a statement of another node's connection in, if there is room for it; one without a connection always.
    fn admit_statement(
        &self,
        group: &Group<DataMachine>,
        client: Option<Client>,
        bytes: u64,
    ) -> Result<Option<Admitted>, Refusal> {
        let (Some(client), true, Ok(node)) = (client, group.leads(), self.node()) else { return Ok(None) };
        let Ok(data) = node.data_group(group.id()) else { return Ok(None) };
        match node.admit(data, client, bytes) {
            Ok(mut admitted) => {
                admitted.propose();
                Ok(Some(admitted))
            }
            Err(Error::Excess { retry_ms }) => Err(Refusal::Excess { retry_ms }),
            Err(error) => Err(Refusal::Failed(error.to_string())),
        }
    }

    /// The segments that a snapshot names are fetched before Raft installs it: whoever has installed it has given up the log.
    async fn prepare_snapshot(&self, group: GroupId, body: &[u8]) -> Result<Incoming, Refusal> {
        let copies = self.inner.copies.get().ok_or_else(starting)?;
        let snapshot = peers::snapshot_in::<DataMachine>(body).map_err(Refusal::Misdirected)?;
        let state = replication::snapshot_state(&snapshot).map_err(|e| Refusal::Misdirected(e.to_string()))?;
        let segments = storage::checkpoint_segments(&state).map_err(|e| Refusal::Misdirected(e.to_string()))?;
        copies.prepare_snapshot(group, segments).await.map_err(|error| Refusal::Failed(error.to_string()))
    }

    fn node(&self) -> Result<Arc<Node>, Refusal> {
        self.inner.node.get().and_then(Weak::upgrade).ok_or_else(starting)
    }
}

fn done(result: Result<(), Error>) -> Reply {
    result.map(|()| Bytes::new()).map_err(refusal)
}

fn refusal(error: Error) -> Refusal {
    match error {
        Error::Replication(replication::Error::NoLeader(_)) => Refusal::NotLeader(None),
        Error::Overloaded(reason) => Refusal::Overloaded(reason),
        Error::Excess { retry_ms } => Refusal::Excess { retry_ms },
        Error::DiskFull(reason) => Refusal::DiskFull(reason),
        Error::Limit(reason) => Refusal::Limit(reason),
        Error::NotInState { reason, hint } => Refusal::NotInState { reason, hint },
        error => Refusal::Failed(error.to_string()),
    }
}

fn starting() -> Refusal {
    Refusal::NotLeader(None)
}

async fn propose<M: StateMachine>(group: &Group<M>, entry: &Bytes) -> Reply {
    let unreadable = |reason: String| Refusal::Misdirected(format!("unreadable statement: {reason}"));
    let entry = M::decode(entry).map_err(|error| unreadable(error.to_string()))?;
    let mut statements = M::statements(entry);
    let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
        return Err(unreadable("not one statement".into()));
    };
    match group.propose(statement).await {
        Ok(proposed) => Ok(to_json(&(proposed.index, proposed.outcome))),
        Err(replication::Error::NoLeader(_)) => Err(Refusal::NotLeader(group.leader())),
        Err(error) => Err(error.into()),
    }
}

async fn applied<M: StateMachine>(group: &Group<M>, index: u64) -> Reply {
    group.applied(index).await?;
    Ok(Bytes::new())
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Door({:?})", self.inner.own.get())
    }
}
