//! A leader of three whose voters answer when the test says so.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use event::{GroupId, NodeId, SimulatedClock};
use futures::{Stream, StreamExt};
use openraft::alias::{SnapshotOf, VoteOf};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, VoteRequest, VoteResponse,
};
use openraft::{RaftNetworkFactory, RaftNetworkV2};
use replication::{Confirmed, Error, Group, GroupOptions, Peer, SnapshotBytes, Types};
use storage::{Disk, Log, SimulatedDisk};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::support::{Diary, close, nobody};

/// As many requests of a stream as a voter takes before it has answered the first.
const AHEAD: usize = 8;

/// What both voters have in common with the test.
struct Script {
    confirmed: Arc<Confirmed>,
    /// How many requests of streams each voter may still answer.
    answers: BTreeMap<u64, Semaphore>,
}

impl Script {
    /// Both answer everything.
    fn new() -> Arc<Script> {
        let answers = [2, 3].map(|voter| (voter, Semaphore::new(0))).into();
        let script = Script { confirmed: Arc::default(), answers };
        script.let_all_answer();
        Arc::new(script)
    }

    /// Lets a voter answer one request, or every one.
    fn let_answer(&self, voter: u64, requests: usize) {
        self.answers[&voter].add_permits(requests);
    }

    /// Both answer everything.
    fn let_all_answer(&self) {
        self.answers.keys().for_each(|voter| self.let_answer(*voter, 1000));
    }

    /// From now on both are silent.
    fn silence(&self) {
        for answers in self.answers.values() {
            answers.forget_permits(usize::MAX);
        }
    }

    fn is_silent(&self, voter: u64) -> bool {
        self.answers[&voter].available_permits() == 0
    }
}

struct Voter {
    id: u64,
    script: Arc<Script>,
}

struct Voters(Arc<Script>);

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

/// The leader of three.
async fn lead(script: &Arc<Script>, lease_reads: bool) -> (Arc<Group<Diary>>, Log) {
    let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new(1));
    for dir in ["checkpoints", "tmp"] {
        disk.create_dir_all(dir).await.unwrap();
    }
    let log = Log::open(disk.clone(), "log").await.unwrap();
    let options = GroupOptions {
        group: GroupId(5),
        node: NodeId(1),
        disk,
        dirs: ("checkpoints".into(), "tmp".into()),
        log: log.clone(),
        clock: Arc::new(SimulatedClock::at(0)),
        runtime: tokio::runtime::Handle::current(),
        founders: [1, 2, 3].map(|id| (NodeId(id), Peer::default())).into(),
        confirmed: script.confirmed.clone(),
        lease_reads,
    };
    let group = Group::open(options, Diary::default(), Voters(script.clone())).await.unwrap();
    while group.read_index().await.is_err() {
        pass().await;
    }
    (group, log)
}

/// Time in which everything that can happen does.
async fn pass() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// Both voters got an entry, and their answers reach the leader after it has begun to read: they say nothing of the time since.
#[tokio::test(start_paused = true)]
async fn an_answer_to_an_older_request_confirms_no_read() {
    let script = Script::new();
    let (group, log) = lead(&script, false).await;
    script.silence();
    let written = tokio::spawn({
        let group = group.clone();
        async move { group.propose("a".into()).await }
    });
    pass().await;
    let read = tokio::spawn({
        let group = group.clone();
        async move { group.read_index().await }
    });
    pass().await;
    // The first answer commits the entry, of which the leader then tells both, before the second.
    for voter in [2, 3] {
        script.let_answer(voter, 1);
        pass().await;
    }
    assert!(written.await.unwrap().is_ok(), "a majority has it");
    assert!(matches!(read.await.unwrap(), Err(Error::NoLeader(_))), "nobody has confirmed that it leads");
    script.let_all_answer();
    pass().await;
    assert!(group.read_index().await.is_ok());
    close(group, log).await;
}

/// A leader that was answered a moment ago reads without asking.
#[tokio::test(start_paused = true)]
async fn a_lease_counts_from_the_request_that_was_answered() {
    let script = Script::new();
    let (group, log) = lead(&script, true).await;
    script.silence();
    assert!(group.read_index().await.is_ok(), "within the lease");
    let written = tokio::spawn({
        let group = group.clone();
        async move { group.propose("a".into()).await }
    });
    // Longer than a lease, and not as long as its voters have promised not to vote for another.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for voter in [2, 3] {
        script.let_answer(voter, 1);
        pass().await;
    }
    assert!(written.await.unwrap().is_ok(), "a majority has it");
    assert!(matches!(group.read_index().await, Err(Error::NoLeader(_))), "what was answered is too old");
    close(group, log).await;
}
