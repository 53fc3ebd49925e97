//! One Raft group on this node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use event::{Clock, GroupId, NodeId, limits, mutants};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::network::NetSnapshot;
use openraft::storage::RaftStateMachine;
use openraft::{
    ChangeMembers, Config, Instant as _, LinearizerOption, Raft, RaftMetrics, RaftNetworkFactory, ReadPolicy,
    SnapshotPolicy,
};
use storage::{Disk, Log};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::checkpoint::{CheckpointFile, Room};
use crate::confirmed::Confirmed;
use crate::error::Error;
use crate::log_store::LogStore;
use crate::machine::StateMachine;
use crate::proposer::{Proposed, Proposer, Waiting, stopped};
use crate::state::Applied;
use crate::types::{Peer, SnapshotBytes, Types};

const HEARTBEAT_MS: u64 = 150;
/// A follower that has not heard its leader waits for the longest of these times, in which it grants nobody a vote, and then for one drawn between
/// them: a group whose leader has died is led again within about 2.5 s.
const ELECTION_MIN_MS: u64 = 600;
const ELECTION_MAX_MS: u64 = 1300;
const SNAPSHOT_TIMEOUT_MS: u64 = 60_000;
/// How long to wait for a checkpoint before asking for it again.
const CHECKPOINT_RETRY: Duration = Duration::from_secs(5);

/// With [`GroupOptions::lease_reads`], a leader that a majority answered within this time reads without asking them again: none of them grants a vote
/// for [`ELECTION_MAX_MS`] after it has answered, so that there is no other leader. What is between the two is for clocks that go at different rates.
const LEASE: Duration = Duration::from_millis(300);
/// A node that has been restarted does not know any more whom it has answered. So it neither grants a vote nor asks for one before what it may have
/// promised has ended.
const QUIET_AFTER_START: Duration = Duration::from_millis(2 * LEASE.as_millis() as u64);

/// A voter that has not answered its leader for so long is not waited for.
pub const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// What a group needs of its node.
pub struct GroupOptions {
    /// The group.
    pub group: GroupId,
    /// This node.
    pub node: NodeId,
    /// The disk for the checkpoint.
    pub disk: Arc<dyn Disk>,
    /// The directory of checkpoints, and that of files not yet complete.
    pub dirs: (String, String),
    /// The node's log.
    pub log: Log,
    /// Wall-clock time for entries.
    pub clock: Arc<dyn Clock>,
    /// Where all tasks of the group run.
    pub runtime: Handle,
    /// The voters it is founded with when it has no entries at all; empty when others have founded it, who will call.
    pub founders: BTreeMap<NodeId, Peer>,
    /// Where whoever carries the group's messages notes what was answered.
    pub confirmed: Arc<Confirmed>,
    /// Whether this node, while it leads, reads without asking a majority as long as one has answered it a moment ago. Right as long as the node's
    /// monotonic clock does not stand still: not where a virtual machine may be suspended.
    pub lease_reads: bool,
}

/// What is known of a group at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// The leader, when known.
    pub leader: Option<NodeId>,
    /// The current term.
    pub term: u64,
    /// The last index known to be committed.
    pub committed: u64,
    /// The last index applied.
    pub applied: u64,
    /// The last index of the newest checkpoint.
    pub checkpoint: u64,
    /// The last index in the log, committed or not.
    pub last: u64,
    /// Who votes, by the newest membership known.
    pub voters: BTreeSet<NodeId>,
    /// Who receives the log without a vote.
    pub learners: BTreeSet<NodeId>,
    /// On the leader, the last index that each other member is known to hold.
    pub matching: BTreeMap<NodeId, u64>,
    /// On the leader, how long ago each other member answered.
    pub silent: BTreeMap<NodeId, Duration>,
}

/// By how many entries parts of a group are behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lags {
    /// Entries known to be committed that are not applied here.
    pub unapplied: u64,
    /// On the leader, entries that the slowest of the voters lacks that have answered within [`ANSWERS_WITHIN`]; 0 elsewhere.
    pub behind: u64,
}

/// A group that replicates the machine `M`.
pub struct Group<M: StateMachine> {
    group: GroupId,
    node: NodeId,
    raft: Raft<Types<M>, Applied<M>>,
    queue: parking_lot::Mutex<Option<mpsc::Sender<Waiting<M>>>>,
    budget: Arc<Semaphore>,
    room: Room,
    log: Log,
    /// The newest time applied.
    applied_time_us: Arc<AtomicI64>,
    runtime: Handle,
    /// Closed when the proposer has ended, true when by a panic.
    panicked: watch::Receiver<bool>,
    confirmed: Arc<Confirmed>,
    lease_reads: bool,
    /// The last term in which this node has asked another to take over: from then on that one may lead, whatever was promised.
    handed_over: AtomicU64,
    /// Until when no votes are granted.
    quiet_until: Instant,
}

impl<M: StateMachine> Group<M> {
    /// Recovers checkpoint and log, and takes part in the group. [`Group::ready`] says when what was committed is applied here.
    pub async fn open<N>(options: GroupOptions, machine: M, network: N) -> Result<Arc<Group<M>>, Error>
    where
        N: RaftNetworkFactory<Types<M>>,
        N::Network: NetSnapshot<Types<M>, SnapshotData = SnapshotBytes>,
    {
        let runtime = options.runtime.clone();
        let group = options.group;
        // Raft spawns its tasks where it is built.
        let opened = runtime.spawn(Self::open_here(options, machine, network)).await;
        opened.map_err(|e| Error::Stopped { group, reason: e.to_string() })?
    }

    async fn open_here<N>(options: GroupOptions, machine: M, network: N) -> Result<Arc<Group<M>>, Error>
    where
        N: RaftNetworkFactory<Types<M>>,
        N::Network: NetSnapshot<Types<M>, SnapshotData = SnapshotBytes>,
    {
        let GroupOptions { group, node, disk, dirs, log, clock, runtime, founders, confirmed, lease_reads } = options;
        let file = CheckpointFile::new(disk, &dirs.0, &dirs.1, group);
        let room = file.room();
        let (log, records) = (LogStore::new(log.clone(), group), log);
        let applied = Applied::recover(group, machine, file, &log).await?;
        let applied_time_us = applied.time_us();
        let fatal = |e: &dyn fmt::Display| Error::Stopped { group, reason: e.to_string() };
        let raft = Raft::new(node.0, Arc::new(config(group)), network, log, applied).await.map_err(|e| fatal(&e))?;
        let mut quiet_until = Instant::now();
        if !raft.is_initialized().await.map_err(|e| fatal(&e))? {
            let members: BTreeMap<u64, Peer> = founders.into_iter().map(|(id, peer)| (id.0, peer)).collect();
            if !members.is_empty() {
                raft.initialize(members).await.map_err(|e| fatal(&e))?;
            }
        } else if raft.voter_ids().eq([node.0]) {
            // Nobody else can lead: no reason to wait for the election timeout.
            raft.trigger().elect(false).await.map_err(|e| fatal(&e))?;
        } else if !mutants::is_back("lease forgotten") {
            quiet_until += QUIET_AFTER_START;
        }
        tokio::spawn({
            let raft = raft.clone();
            async move {
                tokio::time::sleep_until(quiet_until).await;
                raft.runtime_config().elect(true);
            }
        });
        let (sender, queue) = mpsc::channel(limits::PROPOSE_QUEUE_LEN);
        let (raft_here, time_us) = (raft.clone(), applied_time_us.clone());
        let proposer =
            Proposer { group, raft: raft_here, queue, clock, applied_time_us: time_us, log: records.clone() };
        let proposer = tokio::spawn(proposer.run());
        let (ended, panicked) = watch::channel(false);
        tokio::spawn(async move {
            if proposer.await.is_err_and(|e| e.is_panic()) {
                ended.send_replace(true);
            }
        });
        Ok(Arc::new(Group {
            group,
            node,
            raft,
            queue: parking_lot::Mutex::new(Some(sender)),
            budget: Arc::new(Semaphore::new(limits::PROPOSE_QUEUE_BYTES)),
            room,
            log: records,
            applied_time_us,
            runtime,
            panicked,
            confirmed,
            lease_reads,
            handed_over: AtomicU64::new(0),
            quiet_until,
        }))
    }

    /// Waits until everything that was committed when the node stopped is applied here; needs a leader.
    pub async fn ready(&self) -> Result<(), Error> {
        let recovered = self.raft.wait_for_recovery(None).await;
        recovered.map(drop).map_err(|e| Error::Stopped { group: self.group, reason: e.to_string() })
    }

    /// Raft itself, for the one who carries its messages.
    pub fn raft(&self) -> &Raft<Types<M>, impl RaftStateMachine<Types<M>, SnapshotData = SnapshotBytes> + use<M>> {
        &self.raft
    }

    /// Waits until everything in the log is durable here that is there now.
    pub async fn log_synced(&self) -> Result<(), Error> {
        self.log.synced().await.map_err(Error::Storage)
    }

    /// Waits until the entry at `index` is applied here.
    pub async fn applied(&self, index: u64) -> Result<(), Error> {
        let applied = self.raft.wait(None).applied_index_at_least(Some(index), "an index").await;
        applied.map(drop).map_err(|e| Error::Stopped { group: self.group, reason: e.to_string() })
    }

    /// Gives the log to another node, without a vote. For the leader.
    pub async fn add_learner(&self, node: NodeId, peer: Peer) -> Result<(), Error> {
        let added = self.raft.add_learner(node.0, peer, false).await;
        added.map(drop).map_err(|e| stopped(self.group, e))
    }

    /// Makes exactly these members the voters, through a joint membership; who votes no longer becomes a learner. For the leader.
    pub async fn change_voters(&self, voters: &BTreeSet<NodeId>) -> Result<(), Error> {
        let voters: BTreeSet<u64> = voters.iter().map(|node| node.0).collect();
        let changed = self.raft.change_membership(voters, true).await;
        changed.map(drop).map_err(|e| stopped(self.group, e))
    }

    /// Takes learners out of the group. For the leader.
    pub async fn remove_learners(&self, nodes: &BTreeSet<NodeId>) -> Result<(), Error> {
        let nodes: BTreeSet<u64> = nodes.iter().map(|node| node.0).collect();
        let removed = self.raft.change_membership(ChangeMembers::RemoveNodes(nodes), true).await;
        removed.map(drop).map_err(|e| stopped(self.group, e))
    }

    /// Asks a voter to take over; answers once it has been asked. For the leader.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), Error> {
        let group = self.group;
        if to == self.node {
            // Raft would take no statements until it has handed over to itself, which never happens where nobody else votes.
            return Ok(());
        }
        // Before it is asked: whoever reads meanwhile looks at this afterwards.
        self.handed_over.fetch_max(self.term(), Ordering::SeqCst);
        let asked = self.raft.trigger().transfer_leader(to.0).await;
        asked.map_err(|fatal| Error::Stopped { group, reason: fatal.to_string() })
    }

    /// Which group this is.
    pub fn id(&self) -> GroupId {
        self.group
    }

    /// Commits a statement; answers after commit, sync and apply. Waits while `limits::PROPOSE_QUEUE_BYTES` wait already,
    /// and refuses when `limits::PROPOSE_QUEUE_LEN` statements do.
    pub async fn propose(&self, statement: M::Statement) -> Result<Proposed<M::Outcome>, Error> {
        let group = self.group;
        let bytes = M::statement_bytes(&statement);
        let share = u32::try_from(bytes.clamp(1, limits::ENTRY_BYTES_MAX)).expect("an entry is far below 4 GiB");
        let budget = self.budget.clone().acquire_many_owned(share).await;
        let _budget = budget.map_err(|_| self.stopping())?;
        let (answer, outcome) = oneshot::channel();
        let sender = self.queue.lock().clone().ok_or_else(|| self.stopping())?;
        sender.try_send(Waiting { statement, bytes, answer, _budget }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded(group),
            mpsc::error::TrySendError::Closed(_) => self.stopping(),
        })?;
        drop(sender);
        let unknown = |reason: &str| Error::Unknown { group, reason: reason.to_owned() };
        if !self.leads() {
            return outcome.await.map_err(|_| unknown("the node stops"))?;
        }
        tokio::select! {
            outcome = outcome => outcome.map_err(|_| unknown("the node stops"))?,
            // Raft may never say what became of entries of a leader that is none any more: a snapshot may take their place.
            () = self.leader_changes_from(Some(self.node)) => Err(unknown("the leader changed")),
        }
    }

    /// Waits until everything acknowledged before the call is applied here, and returns the index that covers it.
    pub async fn read_index(&self) -> Result<u64, Error> {
        let group = self.group;
        if mutants::is_back("lease read") && self.leads() {
            return Ok(self.status().applied);
        }
        let asked = Instant::now();
        let by_index = || LinearizerOption::from(ReadPolicy::ReadIndex);
        let mut how = if self.lease_reads { LinearizerOption::new(Some(LEASE), true) } else { by_index() };
        let barrier = loop {
            let barrier = self.raft.get_read_linearizer(how).await.map_err(|e| stopped(group, e))?;
            if self.is_confirmed(asked) {
                break barrier;
            }
            // What Raft took for an answer was one to an older request.
            how = by_index();
        };
        let index = barrier.read_log_id().index();
        let ready = barrier.await_ready(&self.raft).await;
        ready.map_err(|fatal| Error::Stopped { group, reason: fatal.to_string() })?;
        Ok(index)
    }

    /// Whether nobody else had led when a read began, at `asked`. To be looked at when Raft has told what to read up to.
    fn is_confirmed(&self, asked: Instant) -> bool {
        let metrics = self.raft.metrics();
        let m = metrics.borrow_watched();
        let quorums = m.membership_config.membership().get_joint_config();
        let Some(since) = self.confirmed.since(self.node, m.current_term, quorums) else { return false };
        let by_lease = || since.elapsed() < LEASE && self.handed_over.load(Ordering::SeqCst) < m.current_term;
        since >= asked || (self.lease_reads && by_lease())
    }

    /// Looks at the machine from its apply task, between two entries.
    pub async fn inspect<V, F>(&self, look: F) -> Result<V, Error>
    where
        F: FnOnce(&M) -> V + Send + 'static,
        V: Send + 'static,
    {
        let looked = self
            .raft
            .with_state_machine(move |applied| {
                let value = look(&applied.machine);
                Box::pin(async move { value })
            })
            .await;
        looked.map_err(|fatal| Error::Stopped { group: self.group, reason: fatal.to_string() })
    }

    /// Writes the newest checkpoint the machine can give, then purges the log below it, or soon after when that is being sent to somebody. Returns its
    /// index.
    ///
    /// # Errors
    /// [`Error::DiskFull`] while there is no room for it; it is then written as soon as there is.
    pub async fn checkpoint(&self) -> Result<u64, Error> {
        let group = self.group;
        let fatal = |reason: String| Error::Stopped { group, reason };
        let index = self.raft.with_state_machine(|applied| {
            let index = applied.checkpoint_index();
            Box::pin(async move { index })
        });
        let Some(index) = index.await.map_err(|e| fatal(e.to_string()))? else {
            return Ok(self.checkpointed());
        };
        loop {
            self.raft.trigger().snapshot().await.map_err(|e| fatal(e.to_string()))?;
            let reached = |m: &RaftMetrics<Types<M>>| {
                m.snapshot.is_some_and(|l| l.index >= index) && m.purged.is_some_and(|l| l.index >= index)
            };
            match self.raft.wait(Some(CHECKPOINT_RETRY)).metrics(reached, "checkpoint and purge").await {
                Ok(_) => break,
                // The writer goes on trying; whoever asked need not wait for it.
                Err(openraft::metrics::WaitError::Timeout(..)) if self.room.is_missing() => {
                    return Err(Error::DiskFull(group));
                }
                // A leader puts a purge off while it sends what is purged, and one that leads no longer comes back to it with its next checkpoint.
                Err(openraft::metrics::WaitError::Timeout(..)) if self.checkpointed() >= index => break,
                Err(openraft::metrics::WaitError::Timeout(..)) => {}
                Err(e) => return Err(fatal(e.to_string())),
            }
        }
        let saved = self.raft.with_state_machine(move |applied| {
            applied.checkpoint_saved(index);
            Box::pin(async {})
        });
        saved.await.map_err(|e| fatal(e.to_string()))?;
        Ok(index)
    }

    /// What is known now; no I/O.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.raft.metrics();
        let m = metrics.borrow_watched();
        let membership = m.membership_config.membership();
        let nodes = |ids: &mut dyn Iterator<Item = u64>| ids.map(NodeId).collect::<BTreeSet<NodeId>>();
        let matching =
            m.replication.iter().flatten().map(|(node, at)| (NodeId(*node), at.as_ref().map_or(0, |l| l.index)));
        let heard = m.heartbeat.iter().flatten();
        let silent = heard.map(|(node, at)| (NodeId(*node), at.as_ref().map_or(Duration::MAX, |at| at.elapsed())));
        GroupStatus {
            leader: m.current_leader.map(NodeId),
            term: m.current_term,
            committed: m.local_committed.map_or(0, |l| l.index),
            applied: m.last_applied.map_or(0, |l| l.index),
            checkpoint: m.snapshot.map_or(0, |l| l.index),
            last: m.last_log_index.unwrap_or(0),
            voters: nodes(&mut membership.voter_ids()),
            learners: nodes(&mut membership.learner_ids()),
            matching: matching.collect(),
            silent: silent.collect(),
        }
    }

    /// By how much parts of the group are behind now; no I/O.
    pub fn lags(&self) -> Lags {
        let metrics = self.raft.metrics();
        let m = metrics.borrow_watched();
        let index = |id: &Option<_>| id.as_ref().map_or(0, |l: &crate::types::LogId| l.index);
        let last = m.last_log_index.unwrap_or(0);
        let answers = |node: &u64| {
            let heard = m.heartbeat.as_ref().and_then(|heard| heard.get(node)?.as_ref());
            heard.is_some_and(|at| at.elapsed() < ANSWERS_WITHIN)
        };
        let voters = m.membership_config.membership().voter_ids().filter(|node| *node != self.node.0 && answers(node));
        let matching = |node: u64| m.replication.as_ref().and_then(|all| all.get(&node)).map_or(0, index);
        Lags {
            unapplied: index(&m.local_committed).saturating_sub(index(&m.last_applied)),
            behind: voters.map(|node| last.saturating_sub(matching(node))).max().unwrap_or(0),
        }
    }

    /// The last index of the newest checkpoint, 0 without one.
    pub fn checkpointed(&self) -> u64 {
        self.raft.metrics().borrow_watched().snapshot.map_or(0, |l| l.index)
    }

    /// The last index applied, 0 without one.
    pub fn applied_index(&self) -> u64 {
        self.raft.metrics().borrow_watched().last_applied.map_or(0, |l| l.index)
    }

    /// The time of the newest entry applied, in microseconds since 1970: it never goes back, whatever the clocks of leaders do.
    pub fn applied_time_us(&self) -> i64 {
        self.applied_time_us.load(Ordering::SeqCst)
    }

    /// The current term.
    pub fn term(&self) -> u64 {
        self.raft.metrics().borrow_watched().current_term
    }

    /// Who votes, by the newest membership known.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        let seldom = self.raft.server_metrics();
        let seldom = seldom.borrow_watched();
        seldom.membership_config.membership().voter_ids().map(NodeId).collect()
    }

    /// The leader, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.raft.server_metrics().borrow_watched().current_leader.map(NodeId)
    }

    /// Completes when the leader that this node knows is another than `leader`, at once when it is so already.
    pub async fn leader_changes_from(&self, leader: Option<NodeId>) {
        // These change seldom; Raft's other metrics would wake whoever waits with every entry.
        let mut seldom = self.raft.server_metrics();
        while seldom.borrow_watched().current_leader.map(NodeId) == leader {
            if seldom.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Whether this node may not grant a vote yet that its leader has not asked for, because it does not know what it promised before it was
    /// restarted.
    pub fn keeps_quiet(&self) -> bool {
        Instant::now() < self.quiet_until
    }

    /// Whether this node leads the group, as far as it knows.
    pub fn leads(&self) -> bool {
        self.leader() == Some(self.node)
    }

    /// Completes with the reason once the group has stopped for an error. Never completes after a clean shutdown.
    pub async fn failed(&self) -> String {
        tokio::select! {
            reason = self.raft_failed() => reason,
            () = self.proposer_panicked() => format!("the proposer of group {} panicked", self.group),
        }
    }

    async fn proposer_panicked(&self) {
        let mut panicked = self.panicked.clone();
        if panicked.wait_for(|panicked| *panicked).await.is_err() {
            std::future::pending().await
        }
    }

    async fn raft_failed(&self) -> String {
        // These change seldom, and their sender goes with Raft's task; the others would wake this one with every entry.
        let mut seldom = self.raft.server_metrics();
        while seldom.changed().await.is_ok() {}
        let state = self.raft.metrics().borrow_watched().running_state.clone();
        match state {
            Err(openraft::errors::Fatal::Stopped) => std::future::pending().await,
            Err(fatal) => fatal.to_string(),
            Ok(()) => format!("the task of group {} has ended", self.group),
        }
    }

    /// Takes no more statements and stops Raft. Statements in flight get [`Error::Unknown`].
    pub async fn shutdown(&self) {
        self.queue.lock().take();
        self.budget.close();
        self.room.give_up();
        // Only fails when Raft's task panicked, which `failed` reports.
        let _ = self.raft.shutdown().await;
    }

    fn stopping(&self) -> Error {
        Error::Stopped { group: self.group, reason: "the node stops".into() }
    }
}

impl<M: StateMachine> Drop for Group<M> {
    /// Raft's tasks would go on without anybody to ask them.
    fn drop(&mut self) {
        let raft = self.raft.clone();
        self.runtime.spawn(async move { raft.shutdown().await });
    }
}

impl<M: StateMachine> fmt::Debug for Group<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({})", self.group)
    }
}

/// Checkpoints are ours to trigger, nothing is kept below them, and a restarted leader is elected anew.
fn config(group: GroupId) -> Config {
    let config = Config {
        cluster_name: format!("group {group}"),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MIN_MS,
        election_timeout_max: ELECTION_MAX_MS,
        install_snapshot_timeout: SNAPSHOT_TIMEOUT_MS,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        // Not before it may: see `QUIET_AFTER_START`.
        enable_elect: false,
        ..Config::default()
    };
    config.validate().expect("the constants fit together")
}
