//! The types Raft is told of: payload, answer, ids.

use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use openraft::RaftTypeConfig;
use openraft::impls::leader_id_adv;
use openraft::raft::responder::Responder;
use openraft::vote::RaftLeaderId;
use serde::{Deserialize, Serialize};

use crate::machine::StateMachine;
use crate::runtime::Runtime;

/// Another node as Raft's membership knows it.
pub type Peer = openraft::BasicNode;
/// What a checkpoint is when it travels: the bytes of its file.
pub type SnapshotBytes = Bytes;

pub(crate) type LeaderId = leader_id_adv::LeaderId<u64, u64>;
pub(crate) type LogId = openraft::LogId<LeaderId>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type Payload<M> = openraft::EntryPayload<Proposal<M>, u64, Peer>;
pub(crate) type Entry<M> = openraft::Entry<LeaderId, Payload<M>>;
pub(crate) type StoredMembership = openraft::StoredMembership<LeaderId, u64, Peer>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, u64, Peer>;
pub(crate) type Snapshot = openraft::Snapshot<LeaderId, u64, Peer, SnapshotBytes>;

/// Raft's type configuration for a group that replicates the machine `M`. Never holds a value.
pub struct Types<M>(PhantomData<fn() -> M>);

impl<M: StateMachine> RaftTypeConfig for Types<M> {
    type D = Proposal<M>;
    type R = Answer<M>;
    type NodeId = u64;
    type Node = Peer;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload<M>;
    type Entry = openraft::Entry<<LeaderId as RaftLeaderId>::Committed, Payload<M>>;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = OnCompletion<T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// What is done with the answer to a write, by the task that applied it: one wake less than a task that waits for the answer. It is
/// dropped without being called when Raft stops first.
pub struct OnCompletion<T>(Box<dyn FnOnce(T) + Send>);

impl<T> OnCompletion<T> {
    /// `act` must be short and must not block: the next entry waits for it.
    pub(crate) fn new(act: impl FnOnce(T) + Send + 'static) -> OnCompletion<T> {
        OnCompletion(Box::new(act))
    }
}

impl<C: RaftTypeConfig, T: Send + 'static> Responder<C, T> for OnCompletion<T> {
    fn on_complete(self, answer: T) {
        (self.0)(answer);
    }
}

/// The payload of an entry: its bytes and, on the node that proposed it, what they mean.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Proposal<M: StateMachine> {
    /// The entry as it lies in the log and travels to peers.
    pub(crate) bytes: Bytes,
    /// The same, decoded; `None` once it has been anywhere else.
    #[serde(skip)]
    pub(crate) decoded: Option<Arc<M::Entry>>,
}

impl<M: StateMachine> Proposal<M> {
    pub(crate) fn from_bytes(bytes: Bytes) -> Self {
        Self { bytes, decoded: None }
    }
}

impl<M: StateMachine> Clone for Proposal<M> {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), decoded: self.decoded.clone() }
    }
}

impl<M: StateMachine> fmt::Debug for Proposal<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

impl<M: StateMachine> fmt::Display for Proposal<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What became of a statement, and the index of the entry that decided it; `None` when nobody waits for it any more.
pub(crate) type Applying<O> = Option<(u64, O)>;

/// What apply answers: one for each statement of the entry.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Answer<M: StateMachine> {
    pub(crate) outcomes: Vec<Applying<M::Outcome>>,
}

// Raft asks these of its configuration type, which has no values to compare.

impl<M> fmt::Debug for Types<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Types")
    }
}

impl<M> Clone for Types<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Types<M> {}

impl<M> Default for Types<M> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<M> PartialEq for Types<M> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<M> Eq for Types<M> {}

impl<M> PartialOrd for Types<M> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<M> Ord for Types<M> {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}
