//! What nodes say to each other: an envelope that names both, and a request or the head of a stream in it.
//!
//! Envelopes and Raft's messages are in postcard, whose fields have no names; what has a JSON form on disk travels in that form. The version
//! is the first byte, so that nodes of another release are refused rather than misread.

use bytes::Bytes;
use event::{GroupId, NodeId, TableId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use storage::SegmentMeta;

use crate::error::Error;
use crate::maintenance::Scope;
use crate::tokens::JoinToken;

/// The first byte of every message.
const VERSION: u8 = 2;

/// Who speaks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Envelope {
    /// The cluster both belong to; `None` from a node that asks to join.
    pub(crate) cluster: Option<u64>,
    /// The sender; 0 when it has no id yet.
    pub(crate) from: NodeId,
    /// Who is meant; `None` for whoever listens at the address.
    pub(crate) to: Option<NodeId>,
}

/// A message of Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RaftCall {
    Append,
    Vote,
    PreVote,
    Snapshot,
    TransferLeader,
}

/// What is asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Raft's own, in postcard.
    Raft { group: GroupId, call: RaftCall, body: Bytes },
    /// A statement for the leader of a group, as an entry. The number of the sender's connection that it comes from, when it may be refused.
    Propose { group: GroupId, entry: Bytes, client: Option<u64> },
    /// The index that a read must wait for; answered by the leader.
    ReadIndex { group: GroupId },
    /// To fetch segments that lie with the sender, and keep them until a manifest names them; JSON of `Vec<SegmentMeta>`.
    Hold { group: GroupId, segments: Bytes },
    /// To wait until an entry of a group is applied.
    Applied { group: GroupId, index: u64 },
    /// To take a node into the cluster; JSON of [`Joining`].
    Join { node: Bytes },
    /// To give up the lead of a group to another node.
    TransferLeader { group: GroupId, to: NodeId },
    /// To give a node's vote in a group to another, once that has caught up; how many entries that lacks.
    MoveVote { group: GroupId, from: NodeId, to: NodeId },
    /// To write all rows of a group in memory as segments.
    Flush { group: GroupId },
    /// To merge the segments of a table in a group.
    Compact { group: GroupId, table: TableId, scope: Scope },
    /// To read all segments of a table, and say what state it has.
    Scrub { table: TableId },
    /// How far the node's replicas are.
    Status,
    /// Which of these objects of the shared store the node needs, for the leader of a group that has applied so much; JSON of `Vec<String>`, and so
    /// is the answer.
    Needs { group: GroupId, applied: u64, names: Bytes },
    /// The state of the node's machine.
    Host,
    /// The leader of a group was told by the node, in another life, that it holds all entries up to `acknowledged`, and now it lacks some.
    LostEntries { group: GroupId, acknowledged: u64 },
}

/// The first message of a stream.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Opening {
    /// Append requests of Raft follow.
    Append { group: GroupId },
    /// Nothing follows; the object comes back in pieces.
    Fetch { name: String },
}

/// What a node that wants to join says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Joining {
    /// Drawn once, so that asking twice gives one node.
    pub(crate) nonce: u64,
    /// Where other nodes reach it.
    pub(crate) address: String,
    /// Where clients reach it.
    pub(crate) sql_address: String,
    /// The id it asks for.
    pub(crate) wanted: Option<NodeId>,
    /// What lets it in.
    #[serde(default)]
    pub(crate) token: Option<JoinToken>,
}

/// What it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Joined {
    pub(crate) cluster: u64,
    pub(crate) node: NodeId,
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// This node does not lead the group, or has no such group; who leads, as far as it knows.
    NotLeader(Option<NodeId>),
    /// Too much waits already.
    Overloaded(String),
    /// The disk is full.
    DiskFull(String),
    /// It cannot be done.
    Limit(String),
    /// It may have been done.
    Unknown(String),
    /// The envelope names another cluster or node, or the message cannot be read.
    Misdirected(String),
    /// Anything else; it was not done.
    Failed(String),
    /// The cluster is not in the state it needs; what to do about it.
    NotInState { reason: String, hint: String },
    /// The sender was taken out of the cluster.
    Removed,
    /// Too many statements are in flight; after how many milliseconds there may be room.
    Excess { retry_ms: u64 },
}

pub(crate) type Reply = Result<Bytes, Refusal>;

/// A message in its envelope.
pub(crate) fn seal<T: Serialize>(envelope: Envelope, content: &T) -> Bytes {
    let bytes = postcard::to_extend(&(envelope, content), vec![VERSION]);
    bytes.expect("messages are made of numbers, bytes and text").into()
}

/// The reverse of [`seal`].
pub(crate) fn unseal<T: DeserializeOwned>(bytes: &[u8]) -> Result<(Envelope, T), Refusal> {
    let misdirected = |reason: String| Refusal::Misdirected(reason);
    match bytes.split_first() {
        Some((&VERSION, rest)) => {
            postcard::from_bytes(rest).map_err(|e| misdirected(format!("unreadable message: {e}")))
        }
        Some((version, _)) => Err(misdirected(format!("message version {version} is not known"))),
        None => Err(misdirected("an empty message".into())),
    }
}

pub(crate) fn pack<T: Serialize>(value: &T) -> Bytes {
    postcard::to_allocvec(value).expect("messages are made of numbers, bytes and text").into()
}

/// # Errors
/// The reason, for bytes that are no such value.
pub(crate) fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    postcard::from_bytes(bytes).map_err(|error| error.to_string())
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).expect("what travels as JSON has a JSON form").into()
}

/// # Errors
/// The reason, for bytes that are no such value.
pub(crate) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// Segments to hold.
pub(crate) fn segments_to_json(segments: &[SegmentMeta]) -> Bytes {
    to_json(&segments)
}

impl Refusal {
    /// As an error of the coordinator.
    pub(crate) fn into_error(self, group: GroupId) -> Error {
        match self {
            Refusal::NotLeader(_) => replication::Error::NoLeader(group).into(),
            Refusal::Overloaded(reason) => Error::Overloaded(reason),
            Refusal::DiskFull(reason) => Error::DiskFull(reason),
            Refusal::Limit(reason) => Error::Limit(reason),
            Refusal::NotInState { reason, hint } => Error::NotInState { reason, hint },
            Refusal::Unknown(reason) => Error::Unknown(reason),
            Refusal::Misdirected(reason) | Refusal::Failed(reason) => Error::Peer(reason),
            Refusal::Excess { retry_ms } => Error::Excess { retry_ms },
            Refusal::Removed => Error::ShuttingDown("it was taken out of the cluster".into()),
        }
    }
}

impl From<replication::Error> for Refusal {
    fn from(error: replication::Error) -> Refusal {
        match error {
            // A group that has stopped here leads nothing, and what it refuses is in no log: another node leads it, or will.
            replication::Error::NoLeader(_) | replication::Error::Stopped { .. } => Refusal::NotLeader(None),
            replication::Error::Overloaded(_) => Refusal::Overloaded(error.to_string()),
            replication::Error::DiskFull(_) => Refusal::DiskFull(error.to_string()),
            replication::Error::Unknown { reason, .. } => Refusal::Unknown(reason),
            replication::Error::Storage(_) => Refusal::Failed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_out_as_it_went_in_and_damage_is_refused() {
        let envelope = Envelope { cluster: Some(7), from: NodeId(1), to: Some(NodeId(2)) };
        let body = Bytes::from_static(b"payload");
        let sealed = seal(envelope, &Request::Raft { group: GroupId(1), call: RaftCall::Append, body });
        let (to, request) = unseal::<Request>(&sealed).unwrap();
        assert_eq!(to, envelope);
        assert!(
            matches!(request, Request::Raft { group: GroupId(1), call: RaftCall::Append, body } if body == "payload")
        );
        for cut in 0..sealed.len() {
            assert!(matches!(unseal::<Request>(&sealed[..cut]), Err(Refusal::Misdirected(_))), "{cut} bytes");
        }
        let mut other = sealed.to_vec();
        other[0] = 9;
        assert!(matches!(unseal::<Request>(&other), Err(Refusal::Misdirected(reason)) if reason.contains("version 9")));
    }
}
