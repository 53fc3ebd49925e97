//! Raft's messages to other nodes: the one file of this crate that speaks openraft's names.
//!
//! A node whose groups have no other voter sends none. Until a transport exists, a message to a peer fails and names it.

use std::future::Future;

use openraft::alias::{SnapshotOf, VoteOf};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{RaftNetworkFactory, RaftNetworkV2};
use replication::{Peer, SnapshotBytes, StateMachine, Types};

/// Connects a group to its peers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers;

/// The way to one peer.
#[derive(Debug)]
pub(crate) struct PeerConnection {
    node: u64,
    address: String,
}

impl PeerConnection {
    fn unreachable<M: StateMachine>(&self) -> Unreachable<Types<M>> {
        Unreachable::from_string(format!("no connection to node {} at \"{}\"", self.node, self.address))
    }
}

impl<M: StateMachine> RaftNetworkFactory<Types<M>> for Peers {
    type Network = PeerConnection;

    async fn new_client(&mut self, target: u64, node: &Peer) -> PeerConnection {
        PeerConnection { node: target, address: node.addr.clone() }
    }
}

impl<M: StateMachine> RaftNetworkV2<Types<M>> for PeerConnection {
    type SnapshotData = SnapshotBytes;

    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<Types<M>>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<M>>, RPCError<Types<M>>> {
        Err(self.unreachable::<M>().into())
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<Types<M>>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types<M>>, RPCError<Types<M>>> {
        Err(self.unreachable::<M>().into())
    }

    async fn pre_vote(
        &mut self,
        _rpc: VoteRequest<Types<M>>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types<M>>, RPCError<Types<M>>> {
        Err(self.unreachable::<M>().into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: VoteOf<Types<M>>,
        _snapshot: SnapshotOf<Types<M>, SnapshotBytes>,
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types<M>>, StreamingError<Types<M>>> {
        Err(self.unreachable::<M>().into())
    }
}
