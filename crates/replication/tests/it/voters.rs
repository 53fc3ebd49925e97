//! A network to voters that grant every vote and answer the leader when a test says so.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use event::NodeId;
use futures::{Stream, StreamExt};
use openraft::alias::{SnapshotOf, VoteOf};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, VoteRequest, VoteResponse,
};
use openraft::{RaftNetworkFactory, RaftNetworkV2};
use replication::{Confirmed, Peer, SnapshotBytes, Types};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::support::Diary;

/// The node under test.
pub(crate) const LEADER: NodeId = NodeId(1);
/// As many requests of a stream as a voter takes before it has answered the first.
const AHEAD: usize = 8;

/// What the voters have in common with the test.
pub(crate) struct Script {
    pub(crate) confirmed: Arc<Confirmed>,
    /// How many requests of streams each voter may still answer.
    answers: BTreeMap<u64, Semaphore>,
}

impl Script {
    /// Voters beside the leader, which answer everything.
    pub(crate) fn new(voters: impl IntoIterator<Item = u64>) -> Arc<Script> {
        let answers = voters.into_iter().map(|voter| (voter, Semaphore::new(0))).collect();
        let script = Script { confirmed: Arc::default(), answers };
        script.let_all_answer();
        Arc::new(script)
    }

    /// Who votes, the leader among them.
    pub(crate) fn voters(&self) -> BTreeMap<NodeId, Peer> {
        self.answers.keys().copied().chain([LEADER.0]).map(|voter| (NodeId(voter), Peer::default())).collect()
    }

    /// Lets a voter answer so many requests more.
    pub(crate) fn let_answer(&self, voter: u64, requests: usize) {
        self.answers[&voter].add_permits(requests);
    }

    /// All answer everything.
    pub(crate) fn let_all_answer(&self) {
        self.answers.keys().for_each(|voter| self.let_answer(*voter, 1000));
    }

    /// From now on all are silent.
    pub(crate) fn silence(&self) {
        for answers in self.answers.values() {
            answers.forget_permits(usize::MAX);
        }
    }

    fn is_silent(&self, voter: u64) -> bool {
        self.answers[&voter].available_permits() == 0
    }
}

/// The way to one of them.
pub(crate) struct Voter {
    id: u64,
    script: Arc<Script>,
}

/// The network of a group whose other voters follow a script.
pub(crate) struct Voters(pub(crate) Arc<Script>);

impl RaftNetworkFactory<Types<Diary>> for Voters {
    type Network = Voter;

    async fn new_client(&mut self, target: u64, _node: &Peer) -> Voter {
        Voter { id: target, script: self.0.clone() }
    }
}

impl RaftNetworkV2<Types<Diary>> for Voter {
    type SnapshotData = SnapshotBytes;

    /// A heartbeat.
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types<Diary>>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<Diary>>, RPCError<Types<Diary>>> {
        if self.script.is_silent(self.id) {
            return Err(nobody().into());
        }
        self.script.confirmed.note(NodeId(self.id), rpc.vote.leader_id.term, Instant::now());
        Ok(AppendEntriesResponse::Success)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<Types<Diary>>, RPCError<Types<Diary>>>>, RPCError<Types<Diary>>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types<Diary>>> + Send + Unpin + 'static,
    {
        let (id, script) = (self.id, self.script.clone());
        let answers = input.map(move |request| {
            let (script, sent) = (script.clone(), Instant::now());
            async move {
                script.answers[&id].acquire().await.unwrap().forget();
                script.confirmed.note(NodeId(id), request.vote.leader_id.term, sent);
                let last = request.entries.last().map(|entry| entry.log_id);
                Ok(Ok(last.or(request.prev_log_id)))
            }
        });
        Box::pin(async move { Ok(answers.buffered(AHEAD).boxed() as BoxStream<'s, _>) })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types<Diary>>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types<Diary>>, RPCError<Types<Diary>>> {
        Ok(VoteResponse::new(rpc.vote, None, true))
    }

    async fn full_snapshot(
        &mut self,
        _vote: VoteOf<Types<Diary>>,
        _snapshot: SnapshotOf<Types<Diary>, SnapshotBytes>,
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types<Diary>>, StreamingError<Types<Diary>>> {
        Err(nobody().into())
    }
}

fn nobody() -> Unreachable<Types<Diary>> {
    Unreachable::from_string("nobody answers")
}
