//! Raft's messages to and from other nodes: the one file of this crate that speaks openraft's names.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use event::{GroupId, NodeId};
use futures::stream::{self, BoxStream, Stream, StreamExt};
use openraft::alias::{SnapshotOf, VoteOf};
use openraft::base::{BoxFuture, BoxStream as RaftStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use openraft::{RaftNetworkFactory, RaftNetworkV2};
use parking_lot::Mutex;
use replication::{Confirmed, Group, Peer, SnapshotBytes, StateMachine, Types};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::message::{Opening, RaftCall, Refusal, Reply, Request, pack, unpack};
use crate::network::{CallError, Network};
use crate::transport::Lane;

/// How long a follower may wait to hear that entries are committed which it has: what comes next says so, too.
const COMMIT_DELAY: Duration = Duration::from_millis(1);
/// How long the other side of a stream may take for an answer, until it is known how long it takes. A connection that is broken is noticed by the
/// transport: this is for whoever is there and does not answer.
const PATIENCE_MIN: Duration = Duration::from_secs(2);
/// Beyond this nobody waits, however slow the way is.
const PATIENCE_MAX: Duration = Duration::from_secs(120);

/// Connects a group to its peers.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    pub(crate) group: GroupId,
    pub(crate) network: Arc<Network>,
    /// Where answers are noted.
    pub(crate) confirmed: Arc<Confirmed>,
}

/// The way to one peer.
#[derive(Debug)]
pub(crate) struct PeerConnection {
    group: GroupId,
    node: NodeId,
    /// Where it was when it became a member; the catalog may know a newer place.
    address: String,
    lane: Lane,
    network: Arc<Network>,
    confirmed: Arc<Confirmed>,
    patience: Arc<Patience>,
}

impl Peers {
    fn connection(&self, node: u64, peer: &Peer, lane: Lane) -> PeerConnection {
        let (group, network, confirmed) = (self.group, self.network.clone(), self.confirmed.clone());
        let (node, address, patience) = (NodeId(node), peer.addr.clone(), Arc::default());
        PeerConnection { group, node, address, lane, network, confirmed, patience }
    }
}

/// How long one peer may take for an answer, learned from how long it takes.
///
/// A request holds as much as one read of the log: on a slow way, to a slow disk or beside much other work its answer takes seconds. Whoever gave
/// up after a fixed time would send the same request again, for ever, and the peer would never catch up.
#[derive(Debug)]
struct Patience(Mutex<Duration>);

impl Default for Patience {
    fn default() -> Self {
        Patience(Mutex::new(PATIENCE_MIN))
    }
}

impl Patience {
    fn now(&self) -> Duration {
        *self.0.lock()
    }

    /// An answer came after so long: the next may take twice that.
    fn answered_after(&self, took: Duration) {
        *self.0.lock() = (took * 2).clamp(PATIENCE_MIN, PATIENCE_MAX);
    }

    /// None came.
    fn exhausted(&self) {
        let mut patience = self.0.lock();
        *patience = (*patience * 2).min(PATIENCE_MAX);
    }
}

impl<M: StateMachine> RaftNetworkFactory<Types<M>> for Peers {
    type Network = PeerConnection;

    async fn new_client(&mut self, target: u64, node: &Peer) -> PeerConnection {
        self.connection(target, node, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Peer) -> PeerConnection {
        self.connection(target, node, Lane::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Peer) -> PeerConnection {
        self.connection(target, node, Lane::Bulk)
    }
}

impl PeerConnection {
    async fn call<M, Q, A>(&self, lane: Lane, call: RaftCall, body: &Q, ttl: Duration) -> Result<A, RPCError<Types<M>>>
    where
        M: StateMachine,
        Q: Serialize,
        A: DeserializeOwned,
    {
        let request = Request::Raft { group: self.group, call, body: pack(body) };
        let answered = self.network.call_at(self.node, &self.address, lane, &request, ttl).await;
        let bytes = answered.map_err(|error| unreachable::<M>(&error))?;
        unpack(&bytes).map_err(|reason| Unreachable::from_string(reason).into())
    }
}

impl PeerConnection {
    /// A peer that lacks the entry at `index` may never have had it. One that said that it has it was put back to an older state: what it has
    /// acknowledged and voted is not what it knows. It is told, and counts as gone; Raft takes that for a defect of its own.
    fn check_lost<M: StateMachine>(&self, term: u64, index: u64) -> Result<(), RPCError<Types<M>>> {
        let Some(held) = self.confirmed.lost(self.node, term, index) else { return Ok(()) };
        let (network, node, address, group) = (self.network.clone(), self.node, self.address.clone(), self.group);
        tokio::spawn(async move { network.tell_of_lost_entries(node, &address, group, held).await });
        let reason = format!("node {node} lacks entry {index} of group {group}, and has acknowledged {held}");
        Err(Unreachable::from_string(reason).into())
    }
}

/// When each request of a stream was sent that has no answer yet, oldest first.
type Unanswered = Arc<Mutex<VecDeque<Instant>>>;

fn unreachable<M: StateMachine>(error: &CallError) -> RPCError<Types<M>> {
    match error {
        CallError::Lost(_) => RPCError::Network(NetworkError::from_string(error.to_string())),
        _ => RPCError::Unreachable(Unreachable::from_string(error.to_string())),
    }
}

impl<M: StateMachine> RaftNetworkV2<Types<M>> for PeerConnection {
    type SnapshotData = SnapshotBytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types<M>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<M>>, RPCError<Types<M>>> {
        let sent = Instant::now();
        let answer = self.call(self.lane, RaftCall::Append, &rpc, option.soft_ttl()).await?;
        let term = rpc.vote.leader_id.term;
        match &answer {
            AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_) => {
                self.confirmed.note(self.node, term, sent);
            }
            AppendEntriesResponse::Conflict => {
                let lacking = rpc.prev_log_id.map_or(0, |before| before.index);
                self.check_lost(term, lacking)?;
            }
            AppendEntriesResponse::HigherVote(_) => {}
        }
        Ok(answer)
    }

    /// Heartbeats go one by one. Entries go through one stream, as many at once as the other side takes.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<RaftStream<'s, Result<StreamAppendResult<Types<M>>, RPCError<Types<M>>>>, RPCError<Types<M>>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types<M>>> + Send + Unpin + 'static,
    {
        if self.lane == Lane::Heartbeat {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            // Raft waits before it tries again by giving out the first request late: whoever fails without having asked for one is asked again
            // at once, without end.
            let mut input = input;
            let Some(first) = input.next().await else { return Ok(stream::empty().boxed() as RaftStream<'s, _>) };
            let term = first.vote.leader_id.term;
            let input = stream::once(std::future::ready(first)).chain(input);
            let stale = Arc::new(AtomicBool::new(false));
            let input = until_stale(input, stale.clone());
            let input = with_what_follows(input, Arc::clone(&self.network.commits_wanted));
            let unanswered = Unanswered::default();
            let sent = unanswered.clone();
            let requests = input.map(move |request| {
                sent.lock().push_back(Instant::now());
                pack(&request)
            });
            let opening = Opening::Append { group: self.group };
            let opened = self.network.stream_at(self.node, &self.address, self.lane, &opening, requests.boxed()).await;
            let answers = opened.map_err(|error| unreachable::<M>(&error))?;
            let answers = impatient(answers, unanswered, self.patience.clone());
            let end = stream::once(async move { stale.load(Ordering::SeqCst) });
            let end = end.filter(|stale| std::future::ready(*stale));
            let purged = || Err(CallError::Unreachable("the entries that follow are purged".into()));
            let answers = answers.chain(end.map(move |_| purged()));
            let answers = answers.map(move |answer| {
                let (sent, bytes) = answer.map_err(|error| unreachable::<M>(&error))?;
                let answer = unpack::<StreamAppendResult<Types<M>>>(&bytes);
                let answer = answer.map_err(|reason| RPCError::Unreachable(Unreachable::from_string(reason)))?;
                match &answer {
                    Ok(held) => {
                        self.confirmed.note(self.node, term, sent);
                        self.confirmed.note_held(self.node, term, held.as_ref().map_or(0, |held| held.index));
                    }
                    Err(StreamAppendError::Conflict(lacking)) => self.check_lost(term, lacking.index)?,
                    Err(_) => {}
                }
                Ok(answer)
            });
            Ok(answers.boxed() as RaftStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types<M>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<M>>, RPCError<Types<M>>> {
        self.call(Lane::Heartbeat, RaftCall::Vote, &rpc, option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types<M>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<M>>, RPCError<Types<M>>> {
        self.call(Lane::Heartbeat, RaftCall::PreVote, &rpc, option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types<M>>,
        snapshot: SnapshotOf<Types<M>, SnapshotBytes>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types<M>>, StreamingError<Types<M>>> {
        let Snapshot { meta, snapshot } = snapshot;
        let body = (vote, meta, snapshot);
        tokio::select! {
            sent = self.call::<M, _, _>(Lane::Bulk, RaftCall::Snapshot, &body, option.hard_ttl()) => {
                sent.map_err(|error: RPCError<Types<M>>| match error {
                    RPCError::Network(error) => StreamingError::Network(error),
                    other => StreamingError::Unreachable(Unreachable::from_string(other.to_string())),
                })
            }
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types<M>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types<M>>, RPCError<Types<M>>> {
        self.call(Lane::Heartbeat, RaftCall::TransferLeader, &req, option.soft_ttl()).await
    }
}

/// Ends a stream of requests once one says no more than the one before, and notes that.
///
/// Raft sends requests without entries when the commit index changes, and when the entries that it wants to send are purged: those without end,
/// from where the stream once began, although it has sent a snapshot meanwhile and knows what comes after it. It looks for that when a stream
/// fails.
fn until_stale<M: StateMachine>(
    requests: impl Stream<Item = AppendEntriesRequest<Types<M>>> + Send,
    stale: Arc<AtomicBool>,
) -> impl Stream<Item = AppendEntriesRequest<Types<M>>> + Send {
    let mut before = None;
    requests.take_while(move |request| {
        let said = request.entries.is_empty().then_some((request.prev_log_id, request.leader_commit));
        let is_stale = said.is_some() && said == before;
        before = said;
        stale.fetch_or(is_stale, Ordering::SeqCst);
        std::future::ready(!is_stale)
    })
}

/// Leaves out what only says that more is committed, when the next request says so, too: after each entry Raft sends one of those, which costs all
/// nodes as much as the entry itself. It waits for the next one for [`COMMIT_DELAY`], unless it is `wanted` at once. The first request is never
/// left out, since Raft waits for its answer.
fn with_what_follows<M: StateMachine>(
    requests: impl Stream<Item = AppendEntriesRequest<Types<M>>> + Send + 'static,
    wanted: Arc<Notify>,
) -> impl Stream<Item = AppendEntriesRequest<Types<M>>> + Send {
    let requests = Box::pin(requests.peekable());
    stream::unfold((requests, false), move |(mut requests, begun)| {
        let wanted = Arc::clone(&wanted);
        async move {
            let mut request = requests.next().await?;
            if begun && request.entries.is_empty() {
                let mut delay = pin!(tokio::time::sleep(COMMIT_DELAY));
                while request.entries.is_empty() {
                    let follows = tokio::select! {
                        biased;
                        next = requests.as_mut().peek() => next.is_some(),
                        () = wanted.notified() => false,
                        () = &mut delay => false,
                    };
                    if !follows {
                        break;
                    }
                    request = requests.next().await?;
                }
            }
            Some((request, (requests, true)))
        }
    })
}

/// Gives each answer of a stream with the time at which its request was sent. Ends a stream that leaves its oldest request unanswered for too
/// long, or for ever: with an error, after which Raft waits before the next one.
fn impatient(
    answers: BoxStream<'static, Result<Bytes, CallError>>,
    unanswered: Unanswered,
    patience: Arc<Patience>,
) -> impl Stream<Item = Result<(Instant, Bytes), CallError>> + Send {
    // Who answers one request after the other works on the oldest since the answer before.
    let since = Instant::now();
    stream::unfold(Some((answers, since)), move |state| {
        let (unanswered, patience) = (unanswered.clone(), patience.clone());
        async move {
            let (mut answers, mut since) = state?;
            loop {
                let answer = tokio::time::timeout_at(since + patience.now(), answers.next()).await;
                let sent = unanswered.lock().front().copied();
                match (answer, sent) {
                    (Ok(Some(Ok(answer))), Some(sent)) => {
                        unanswered.lock().pop_front();
                        patience.answered_after(sent.max(since).elapsed());
                        return Some((Ok((sent, answer)), Some((answers, Instant::now()))));
                    }
                    (Ok(Some(Ok(_))), None) => {
                        return Some((Err(CallError::Lost("an answer that nobody asked for".into())), None));
                    }
                    (Ok(Some(Err(error))), _) => return Some((Err(error), None)),
                    // Whoever refuses a stream ends it. Without an error Raft would open the next one at once, and the next.
                    (Ok(None), Some(_)) => {
                        return Some((Err(CallError::Unreachable("the other side ended the stream".into())), None));
                    }
                    (Ok(None), None) => return None,
                    // Nothing was asked all the time.
                    (Err(_), None) => since = Instant::now(),
                    (Err(_), Some(sent)) if sent > since => since = sent,
                    (Err(_), Some(_)) => {
                        let reason = format!("no answer within {:?}", patience.now());
                        patience.exhausted();
                        return Some((Err(CallError::Lost(reason)), None));
                    }
                }
            }
        }
    })
}

/// Hands one of Raft's messages to the group it is for.
pub(crate) async fn receive<M: StateMachine>(group: &Group<M>, call: RaftCall, body: &[u8]) -> Reply {
    let unreadable = |reason: String| Refusal::Misdirected(format!("unreadable message of Raft: {reason}"));
    let failed = |error: &dyn std::fmt::Display| Refusal::Failed(error.to_string());
    let raft = group.raft();
    match call {
        RaftCall::Append => {
            let request = unpack(body).map_err(unreadable)?;
            raft.append_entries(request).await.map(|answer| pack(&answer)).map_err(|e| failed(&e))
        }
        RaftCall::Vote => {
            let request: VoteRequest<Types<M>> = unpack(body).map_err(unreadable)?;
            // Whom the leader itself has asked to take over need not wait for what was promised to that.
            if group.keeps_quiet() && !request.leadership_transfer {
                return Err(keeps_quiet());
            }
            raft.vote(request).await.map(|answer| pack(&answer)).map_err(|e| failed(&e))
        }
        RaftCall::PreVote if group.keeps_quiet() => Err(keeps_quiet()),
        RaftCall::PreVote => {
            let request = unpack(body).map_err(unreadable)?;
            raft.pre_vote(request).await.map(|answer| pack(&answer)).map_err(|e| failed(&e))
        }
        RaftCall::Snapshot => {
            let (vote, meta, snapshot) = unpack(body).map_err(unreadable)?;
            let installed = raft.install_full_snapshot(vote, Snapshot { meta, snapshot }).await;
            // Raft says at once that it needs no snapshot when it knows that the entries are committed and has them, synced or not; and the leader
            // then counts them as held.
            group.log_synced().await.map_err(|e| failed(&e))?;
            installed.map(|answer| pack(&answer)).map_err(|e| failed(&e))
        }
        RaftCall::TransferLeader => {
            let request = unpack(body).map_err(unreadable)?;
            raft.handle_transfer_leader(request).await.map(|answer| pack(&answer)).map_err(|e| failed(&e))
        }
    }
}

fn keeps_quiet() -> Refusal {
    Refusal::Failed("this node was started a moment ago and grants no vote yet".into())
}

/// The bytes of the snapshot in such a message, for one who must prepare for it.
pub(crate) fn snapshot_in<M: StateMachine>(body: &[u8]) -> Result<SnapshotBytes, String> {
    type Sent<M> = (VoteOf<Types<M>>, openraft::alias::SnapshotMetaOf<Types<M>>, SnapshotBytes);
    unpack::<Sent<M>>(body).map(|(_, _, snapshot)| snapshot)
}

/// Appends what a leader sends, in order; ends when the leader does, or at the first request that does not fit.
pub(crate) fn receive_stream<M: StateMachine>(
    group: &Group<M>,
    requests: BoxStream<'static, Bytes>,
) -> BoxStream<'static, Bytes> {
    // What cannot be read ends the stream: the leader begins another.
    let requests = requests.map(|bytes| unpack::<AppendEntriesRequest<Types<M>>>(&bytes));
    let requests =
        requests.take_while(|request| futures::future::ready(request.is_ok())).filter_map(|r| async { r.ok() });
    let answers = group.raft().stream_append(requests.boxed());
    answers
        .take_while(|answer| futures::future::ready(answer.is_ok()))
        .filter_map(|a| async { a.ok() })
        .map(|a| pack(&a))
        .boxed()
}

#[cfg(test)]
mod tests {
    use openraft::impls::leader_id_adv::LeaderId;
    use openraft::{LogId, Vote};

    use super::*;
    use crate::catalog::machine::CatalogMachine;

    /// Without entries: the commit index, after an entry that the other side has.
    fn request(prev: u64, commit: u64) -> AppendEntriesRequest<Types<CatalogMachine>> {
        let leader_id = LeaderId { term: 1, node_id: 1 };
        let at = |index| Some(LogId { leader_id, index });
        let vote = Vote { leader_id, committed: true };
        AppendEntriesRequest { vote, prev_log_id: at(prev), leader_commit: at(commit), entries: Vec::new() }
    }

    #[tokio::test]
    async fn a_stream_that_repeats_itself_ends() {
        let said = [(3, 5), (3, 6), (4, 6), (4, 6), (4, 7)];
        let stale = Arc::new(AtomicBool::new(false));
        let requests = stream::iter(said).map(|(prev, commit)| request(prev, commit));
        assert_eq!(until_stale(requests, stale.clone()).count().await, 3);
        assert!(stale.load(Ordering::SeqCst));
    }

    fn with_entries(prev: u64, commit: u64) -> AppendEntriesRequest<Types<CatalogMachine>> {
        let log_id = LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index: prev + 1 };
        let entries = vec![openraft::Entry { log_id, payload: openraft::EntryPayload::Blank }];
        AppendEntriesRequest { entries, ..request(prev, commit) }
    }

    /// Gives requests to the stream that leaves some out, and takes what it lets through.
    struct Through {
        requests: tokio::sync::mpsc::UnboundedSender<AppendEntriesRequest<Types<CatalogMachine>>>,
        wanted: Arc<Notify>,
        sent: BoxStream<'static, AppendEntriesRequest<Types<CatalogMachine>>>,
    }

    fn through() -> Through {
        let (requests, mut received) = tokio::sync::mpsc::unbounded_channel();
        let received = stream::poll_fn(move |context| received.poll_recv(context));
        let wanted = Arc::new(Notify::new());
        Through { requests, wanted: wanted.clone(), sent: with_what_follows(received, wanted).boxed() }
    }

    impl Through {
        fn put(&self, request: AppendEntriesRequest<Types<CatalogMachine>>) {
            self.requests.send(request).unwrap();
        }

        /// How many entries the next request has, and what it says is committed.
        async fn next(&mut self) -> (usize, u64) {
            let request = self.sent.next().await.unwrap();
            (request.entries.len(), request.leader_commit.unwrap().index)
        }
    }

    /// An answer that was long on its way says what the other side promised long ago.
    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_from_when_its_request_was_sent() {
        let (answers, mut received) = tokio::sync::mpsc::unbounded_channel();
        let received = stream::poll_fn(move |context| received.poll_recv(context)).boxed();
        let (unanswered, first) = (Unanswered::default(), Instant::now());
        let mut timed = impatient(received, unanswered.clone(), Arc::default()).boxed();
        unanswered.lock().push_back(first);
        tokio::time::advance(Duration::from_secs(1)).await;
        unanswered.lock().push_back(Instant::now());
        answers.send(Ok(Bytes::from_static(b"1"))).unwrap();
        assert_eq!(timed.next().await, Some(Ok((first, Bytes::from_static(b"1")))));
        answers.send(Ok(Bytes::from_static(b"2"))).unwrap();
        assert_eq!(timed.next().await.unwrap().unwrap().0, first + Duration::from_secs(1));
        answers.send(Ok(Bytes::from_static(b"3"))).unwrap();
        assert!(matches!(timed.next().await, Some(Err(CallError::Lost(_)))), "nobody asked");
        assert_eq!(timed.next().await, None);
    }

    /// What was sent a moment ago is not late because nothing was sent for a long time before.
    #[tokio::test(start_paused = true)]
    async fn the_wait_for_an_answer_begins_with_what_was_asked() {
        let (unanswered, begun) = (Unanswered::default(), Instant::now());
        let mut timed = impatient(stream::pending().boxed(), unanswered.clone(), Arc::default()).boxed();
        let asked = begun + PATIENCE_MIN * 7 / 4;
        let ask = async {
            tokio::time::sleep_until(asked).await;
            unanswered.lock().push_back(Instant::now());
        };
        let (answer, ()) = tokio::join!(timed.next(), ask);
        assert!(matches!(answer, Some(Err(CallError::Lost(_)))));
        assert_eq!(begun.elapsed(), asked + PATIENCE_MIN - begun);
    }

    /// One who needs ten seconds for each request would otherwise be sent the first one for ever.
    #[tokio::test(start_paused = true)]
    async fn whoever_is_slow_is_waited_for_longer_each_time() {
        let (patience, took) = (Arc::new(Patience::default()), Duration::from_secs(10));
        let mut attempts = 0;
        loop {
            attempts += 1;
            let answer = stream::once(tokio::time::sleep(took)).map(|()| Ok(Bytes::new()));
            let unanswered = Unanswered::new(Mutex::new(VecDeque::from([Instant::now()])));
            let mut timed = impatient(answer.boxed(), unanswered, patience.clone()).boxed();
            if timed.next().await.unwrap().is_ok() {
                break;
            }
        }
        assert_eq!((attempts, patience.now()), (4, took * 2));
        patience.answered_after(Duration::ZERO);
        assert_eq!(patience.now(), PATIENCE_MIN);
        patience.answered_after(PATIENCE_MAX);
        patience.exhausted();
        assert_eq!(patience.now(), PATIENCE_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_goes_with_the_entries_that_follow() {
        let mut t = through();
        t.put(request(3, 1));
        assert_eq!(t.next().await, (0, 1), "the first is answered");
        t.put(request(3, 2));
        t.put(request(3, 3));
        t.put(with_entries(3, 3));
        assert_eq!(t.next().await, (1, 3));
        let begun = tokio::time::Instant::now();
        t.put(request(4, 4));
        assert_eq!((t.next().await, begun.elapsed() >= COMMIT_DELAY), ((0, 4), true), "nothing follows");
        t.put(request(4, 5));
        drop(t.requests);
        assert_eq!(t.sent.next().await.unwrap().leader_commit.unwrap().index, 5);
        assert!(t.sent.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_is_wanted_goes_at_once() {
        let mut t = through();
        t.put(request(3, 1));
        t.next().await;
        let begun = tokio::time::Instant::now();
        t.put(request(3, 2));
        let wanted = t.wanted.clone();
        let (sent, ()) = tokio::join!(t.next(), async { wanted.notify_waiters() });
        assert_eq!((sent, begun.elapsed()), ((0, 2), Duration::ZERO));
    }
}
