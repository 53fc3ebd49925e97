//! Who is in the cluster, and who votes in its groups.
//!
//! The catalog says which nodes there are. The leader of each group lets its members follow: a node of the catalog receives the group's log
//! as a learner, and votes once it has caught up, while there are fewer voters than the tables of the group ask for. Voters are an odd number: a
//! second or fourth one would only be one more that must not fail.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use event::{GroupId, NodeId, limits};
use replication::{Group, GroupStatus, Peer, StateMachine};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::catalog::command::{CatalogCommand, CatalogOutcome, Refusal};
use crate::catalog::{Catalog, NodeRecord};
use crate::ddl::defect;
use crate::error::Error;
use crate::message::{Joined, Joining, Refusal as Refused, Request, from_json, to_json};
use crate::network::{CallError, Network};
use crate::node::{Node, Place};
use crate::placement::Placement;
use crate::tokens::TOKEN_HINT;
use crate::transport::Lane;

/// How often a leader looks at its group's members.
const TICK: Duration = Duration::from_millis(500);
/// Between two tries to join.
const JOIN_RETRY: Duration = Duration::from_millis(500);
/// Why it does not succeed is told this often.
const JOIN_TOLD_EVERY: Duration = Duration::from_secs(30);
/// How long one try to join may take.
const JOIN_WAIT: Duration = Duration::from_secs(30);
/// How long a leader may take to give up its group.
pub(crate) const HAND_OVER_WAIT: Duration = Duration::from_secs(10);
/// A member that has answered its leader within this time can be counted on.
pub(crate) const IS_THERE: Duration = Duration::from_millis(600);
/// A leader and its group hear from each other within this time, many times over.
const HEARD_WITHIN: Duration = Duration::from_secs(3);
/// How long a node may take to say how far it is.
const STATUS_WAIT: Duration = Duration::from_secs(1);

/// Where to look for groups and their voters.
pub(crate) const REPLICAS_HINT: &str = "annal.replicas shows the groups there are, and who votes in them.";

/// How far one replica is, as its node says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// The group.
    pub group: GroupId,
    /// The leader it knows.
    pub leader: Option<NodeId>,
    /// Its term.
    pub term: u64,
    /// The last entry of its log.
    pub last: u64,
    /// The last entry it knows to be committed.
    pub committed: u64,
    /// The last entry applied.
    pub applied: u64,
    /// The last entry of its checkpoint.
    pub checkpoint: u64,
    /// Whether it votes.
    pub votes: bool,
    /// Whether the group can go on, as far as the replica knows: it leads, and a majority has answered it a moment ago, or has heard from the leader.
    #[serde(default)]
    pub quorum: bool,
}

/// Whether a node can be counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It answers.
    Connected,
    /// It does not answer, and did a moment ago.
    Interrupted,
    /// It has not answered for [`limits::NODE_DOWN_AFTER_MS`], or never.
    Down,
}

impl NodeState {
    fn of(answered: bool, silence: Option<Duration>) -> NodeState {
        let is_short = |silence| silence < Duration::from_millis(limits::NODE_DOWN_AFTER_MS);
        match answered {
            true => NodeState::Connected,
            false if silence.is_some_and(is_short) => NodeState::Interrupted,
            false => NodeState::Down,
        }
    }

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            NodeState::Connected => "connected",
            NodeState::Interrupted => "interrupted",
            NodeState::Down => "down",
        }
    }
}

/// A node as another sees it.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Where it is.
    pub record: Arc<NodeRecord>,
    /// Its replicas; `None` when it did not answer.
    pub replicas: Option<Vec<ReplicaStatus>>,
    /// The groups there are, and whether it votes in them, as the asking node knows.
    pub votes: Vec<(GroupId, bool)>,
    /// Whether it can be counted on.
    pub state: NodeState,
    /// Whether it is the one that was asked.
    pub own: bool,
}

/// Asks the nodes at `seeds` to take this one in, until one of them does.
///
/// # Errors
/// [`Error::NotInState`] when one of them says that it never will.
pub(crate) async fn join(network: &Network, seeds: &[String], joining: &Joining) -> Result<Joined, Error> {
    let request = Request::Join { node: to_json(joining) };
    let mut told: BTreeMap<(&str, String), Instant> = BTreeMap::new();
    loop {
        for seed in seeds {
            match network.ask(seed, &request, JOIN_WAIT).await {
                Ok(answer) => match from_json::<Joined>(&answer) {
                    Ok(joined) => return Ok(joined),
                    Err(reason) => tracing::warn!(seed, reason, "an answer to join cannot be read"),
                },
                Err(CallError::Refused(Refused::NotInState { reason, hint })) => {
                    return Err(Error::NotInState { reason, hint });
                }
                Err(error) => {
                    let (now, reason) = (Instant::now(), error.to_string());
                    let key = (seed.as_str(), reason.clone());
                    if told.get(&key).is_none_or(|at| now.duration_since(*at) >= JOIN_TOLD_EVERY) {
                        tracing::warn!(seed, reason, "could not join the cluster; trying again until it works");
                        told.insert(key, now);
                    }
                }
            }
        }
        tokio::time::sleep(JOIN_RETRY).await;
    }
}

/// Takes a node into the catalog; its groups follow.
pub(crate) async fn admit(node: &Node, joining: Joining) -> Result<Joined, Error> {
    let token = node.shown_token(&joining)?;
    node.refuse_copy(&joining).await?;
    let Joining { nonce, address, sql_address, wanted, .. } = joining;
    let record = NodeRecord { nonce, address, sql_address, boot: 0 };
    match node.propose_catalog(CatalogCommand::Join { record: Arc::new(record), wanted, token }).await? {
        CatalogOutcome::Node(id) => {
            tracing::info!(node = %id, "a node joined the cluster");
            Ok(Joined { cluster: node.identity.cluster, node: id })
        }
        CatalogOutcome::Refused(Refusal::NodeExists(id)) => {
            let reason = format!("the cluster has or had a node {id}, and ids are not given twice");
            Err(not_in_state(reason, "Leave out --node-id: a node with an empty data directory gets an id of its own."))
        }
        CatalogOutcome::Refused(Refusal::NoSuchToken) => {
            Err(not_in_state("the join token was never made, is used up, or holds no longer".into(), TOKEN_HINT))
        }
        refused => Err(defect(format!("a node cannot join: {refused:?}"))),
    }
}

/// Runs until the node stops or is gone.
pub(crate) async fn run(node: Weak<Node>, mut stop: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut placement = Placement::default();
    let mut down = BTreeSet::new();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stop.changed() => return,
        }
        let Some(node) = node.upgrade() else { return };
        node.look_for_own_removal();
        node.tell_of_silence(&mut down);
        let tended = tokio::select! {
            tended = node.tend_groups(&mut placement) => tended,
            _ = stop.changed() => return,
        };
        if let Err(error) = tended {
            tracing::debug!(%error, "could not change the members of a group; trying again");
        }
    }
}

/// What a leader does next about its members.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Learn(NodeId),
    Vote(BTreeSet<NodeId>),
    Remove(BTreeSet<NodeId>),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let several = |nodes: &BTreeSet<NodeId>| nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Change::Learn(node) => write!(f, "node {node} follows without a vote"),
            Change::Vote(nodes) => write!(f, "those vote: {}", several(nodes)),
            Change::Remove(nodes) => write!(f, "those follow no more: {}", several(nodes)),
        }
    }
}

/// How many of so many nodes vote where so many voters are wanted: an odd number.
pub(crate) fn voters_among(nodes: usize, wanted: usize) -> usize {
    let most = wanted.min(nodes);
    most - usize::from(most.is_multiple_of(2) && most > 0)
}

/// The next step from the members there are to those there shall be. A voter that has been silent for too long gives its vote to a learner
/// that has caught up, if there is one.
fn next_change(status: &GroupStatus, own: NodeId, nodes: &BTreeSet<NodeId>, wanted: usize) -> Option<Change> {
    let members: BTreeSet<NodeId> = status.voters.union(&status.learners).copied().collect();
    if let Some(new) = nodes.iter().find(|node| !members.contains(node)) {
        return Some(Change::Learn(*new));
    }
    let has_caught_up = |node: &NodeId| {
        *node == own || status.matching.get(node).is_some_and(|at| at + limits::PROMOTE_LAG_ENTRIES >= status.last)
    };
    let is_silent = |node: &NodeId| {
        *node != own
            && status.silent.get(node).is_some_and(|silent| *silent > Duration::from_millis(limits::REPLACE_AFTER_MS))
    };
    let mut staying: BTreeSet<NodeId> = status.voters.intersection(nodes).copied().collect();
    let can_vote = |node: &&NodeId| nodes.contains(node) && has_caught_up(node) && !is_silent(node);
    let ready: BTreeSet<NodeId> = status.learners.iter().filter(can_vote).copied().collect();
    let silent: Vec<NodeId> = staying.iter().filter(|node| is_silent(node)).copied().take(ready.len()).collect();
    staying.retain(|node| !silent.contains(node));
    let mut voters: BTreeSet<NodeId> = staying.union(&ready).copied().collect();
    // As long as the cluster has nodes that can take a vote, nobody gives one up before they are ready to: fewer voters are less safe.
    let wanted = voters_among(nodes.len(), wanted);
    if voters.len() < wanted.min(status.voters.len()) {
        return None;
    }
    // Those that vote go on voting, and the leader among them.
    while voters.len() > wanted || (voters.len() > 1 && voters.len().is_multiple_of(2)) {
        let spare = voters
            .iter()
            .rev()
            .find(|node| !staying.contains(node))
            .or_else(|| voters.iter().rev().find(|node| **node != own));
        let Some(spare) = spare.copied() else { break };
        voters.remove(&spare);
    }
    if !voters.is_empty() && voters != status.voters {
        return Some(Change::Vote(voters));
    }
    let gone: BTreeSet<NodeId> = status.learners.difference(nodes).copied().collect();
    (!gone.is_empty()).then_some(Change::Remove(gone))
}

impl Node {
    /// A node that says it is somewhere else now has moved, unless it is still where it was.
    async fn refuse_copy(&self, joining: &Joining) -> Result<(), Error> {
        let catalog = self.catalog();
        let known = catalog.nodes.iter().find(|(_, known)| known.nonce == joining.nonce);
        let Some((node, known)) = known.filter(|(_, known)| known.address != joining.address) else { return Ok(()) };
        if *node != self.identity.node {
            match self.network.call(*node, Lane::Heartbeat, &Request::Status, STATUS_WAIT).await {
                Ok(_) => {}
                // Somebody starts there, who may be this node: it is asked again until that is known.
                Err(CallError::Refused(Refused::NotLeader(_))) => {
                    return Err(Error::Peer(format!("whoever starts at {} may be node {node}", known.address)));
                }
                Err(_) => return Ok(()),
            }
        }
        let reason = format!("node {node} runs already, at {}", known.address);
        Err(not_in_state(reason, "If the data directory is a copy, delete it; if the node shall move, stop it first."))
    }

    /// Tells the others where this node is now, when that is not where they look for it: until they know, nothing reaches it. Completes only with the
    /// reason why it cannot be there.
    pub(crate) async fn announce(&self, place: &Place) -> Error {
        match self.tell_address(place).await {
            Err(error) => error,
            Ok(()) => std::future::pending().await,
        }
    }

    async fn tell_address(&self, place: &Place) -> Result<(), Error> {
        let known = self.catalog().nodes.get(&self.identity.node).cloned();
        if let Some(known) = known.filter(|known| known.address != place.address) {
            let catalog = self.catalog();
            let others = catalog.nodes.iter().filter(|(node, _)| **node != self.identity.node);
            let others: Vec<String> = others.map(|(_, record)| record.address.clone()).collect();
            let (address, sql_address) = (place.address.clone(), place.sql_address.clone());
            let joining = Joining { nonce: known.nonce, address, sql_address, wanted: None, token: None };
            if !others.is_empty() {
                join(&self.network, &others, &joining).await?;
            }
        }
        Ok(())
    }

    /// Tells the catalog that this node has started, and where it is.
    pub(crate) async fn register(&self, place: &Place) -> Result<(), Error> {
        self.tell_address(place).await?;
        let (node, boot) = (self.identity.node, self.identity.boot);
        let nonce = self.catalog().nodes.get(&node).map_or(self.identity.cluster, |known| known.nonce);
        let (address, sql_address) = (place.address.clone(), place.sql_address.clone());
        let record = Arc::new(NodeRecord { nonce, address, sql_address, boot });
        match self.propose_catalog(CatalogCommand::Boot { node, record }).await? {
            CatalogOutcome::Done => Ok(()),
            refused => Err(defect(format!("a node cannot start: {refused:?}"))),
        }
    }

    /// Says once which members of the groups that this node leads do not answer any more, and once that they do again.
    fn tell_of_silence(&self, down: &mut BTreeSet<NodeId>) {
        let is_down = |silent: &Duration| *silent >= Duration::from_millis(limits::NODE_DOWN_AFTER_MS);
        let led = self.statuses().into_values().filter(|status| status.leader == Some(self.identity.node));
        let mut now: BTreeSet<NodeId> =
            led.flat_map(|status| status.silent).filter(|(_, silent)| is_down(silent)).map(|(node, _)| node).collect();
        // Nobody answers himself.
        now.remove(&self.identity.node);
        for node in now.difference(down) {
            tracing::warn!(%node, "a node does not answer");
        }
        for node in down.difference(&now) {
            tracing::info!(%node, "a node answers again, or is asked by another leader");
        }
        *down = now;
    }

    /// Lets the members of the groups that this node leads follow the catalog.
    async fn tend_groups(&self, placement: &mut Placement) -> Result<(), Error> {
        let catalog = self.catalog();
        if catalog.nodes.is_empty() {
            return Ok(());
        }
        self.tend(&self.catalog, &catalog).await?;
        for data in self.data.values() {
            self.tend(&data.group, &catalog).await?;
        }
        self.level(placement).await;
        if self.host_status().is_full {
            self.give_up_lead().await;
        }
        Ok(())
    }

    async fn tend<M: StateMachine>(&self, group: &Group<M>, catalog: &Catalog) -> Result<(), Error> {
        if !group.leads() {
            return Ok(());
        }
        let nodes = &catalog.nodes;
        let (ids, wanted) = (nodes.keys().copied().collect(), catalog.voters_wanted(group.id()));
        let Some(change) = next_change(&group.status(), self.identity.node, &ids, wanted) else { return Ok(()) };
        tracing::info!(group = %group.id(), %change, "changing the members of a group");
        match change {
            Change::Learn(node) => {
                let address = nodes.get(&node).map(|record| record.address.clone()).unwrap_or_default();
                group.add_learner(node, Peer::new(address)).await?;
            }
            Change::Vote(voters) => group.change_voters(&voters).await?,
            Change::Remove(nodes) => group.remove_learners(&nodes).await?,
        }
        Ok(())
    }

    /// Takes a node out of the cluster, for good: its votes go to others, and nobody listens to it any more.
    ///
    /// # Errors
    /// [`Error::NotInState`] for a node that is not in the cluster, or is the last.
    pub async fn remove_node(&self, node: NodeId) -> Result<(), Error> {
        let nodes = self.catalog_linearizable().await?.nodes.clone();
        if !nodes.contains_key(&node) {
            return Err(not_in_state(
                format!("node {node} is not in the cluster"),
                "annal.nodes shows the nodes there are.",
            ));
        }
        if nodes.len() == 1 {
            return Err(not_in_state("cannot remove the last node of a cluster".into(), "Stop it instead."));
        }
        if node == self.identity.node {
            // Once it has left nobody listens to it, not even to give it up.
            self.hand_over_all().await;
        }
        match self.propose_catalog(CatalogCommand::Leave { node }).await? {
            CatalogOutcome::Done => Ok(()),
            refused => Err(defect(format!("a node cannot leave: {refused:?}"))),
        }
    }

    /// What is known of a group here.
    pub(crate) fn status_of(&self, group: GroupId) -> Result<GroupStatus, Error> {
        Ok(match group {
            GroupId::CATALOG => self.catalog.status(),
            group => self.data_group(group)?.group.status(),
        })
    }

    /// The same of all groups.
    pub(crate) fn statuses(&self) -> BTreeMap<GroupId, GroupStatus> {
        let data = self.data.iter().map(|(group, data)| (*group, data.group.status()));
        std::iter::once((GroupId::CATALOG, self.catalog.status())).chain(data).collect()
    }

    /// Gives the lead of a group to one of its voters; returns once that one leads.
    ///
    /// # Errors
    /// [`Error::NotInState`] when there is no such group, or the node does not vote in it, [`Error::Peer`] when it does not take over.
    pub async fn transfer_leader(&self, group: GroupId, to: NodeId) -> Result<(), Error> {
        let leader = match group {
            GroupId::CATALOG => self.catalog.leader(),
            group => match self.data.get(&group) {
                Some(data) => data.group.leader(),
                None => return Err(not_in_state(format!("there is no group {group}"), REPLICAS_HINT)),
            },
        };
        match leader {
            Some(leader) if leader == self.identity.node => self.hand_over_here(group, to).await?,
            Some(leader) => {
                let request = Request::TransferLeader { group, to };
                let asked = self.network.call(leader, Lane::Heartbeat, &request, HAND_OVER_WAIT);
                asked.await.map_err(|error| match error {
                    CallError::Refused(refusal) => refusal.into_error(group),
                    error => Error::Peer(error.to_string()),
                })?;
            }
            None => return Err(replication::Error::NoLeader(group).into()),
        }
        Ok(())
    }

    /// The same on the leader.
    pub(crate) async fn hand_over_here(&self, group: GroupId, to: NodeId) -> Result<(), Error> {
        match group {
            GroupId::CATALOG => hand_over(&self.catalog, to).await,
            group => hand_over(&self.data_group(group)?.group, to).await,
        }
    }

    /// Gives all groups that this node leads to voters that have caught up, as far as there are any.
    pub(crate) async fn hand_over_all(&self) {
        let groups = std::iter::once(GroupId::CATALOG).chain(self.data.keys().copied());
        let all = groups.map(|group| async move {
            let Ok(status) = self.status_of(group) else { return };
            if status.leader != Some(self.identity.node) {
                return;
            }
            let Some(next) = successor(&status, self.identity.node) else { return };
            if let Err(error) = self.hand_over_here(group, next).await {
                tracing::info!(%group, to = %next, %error, "a group could not be handed over and elects instead");
            }
        });
        let patience = Duration::from_millis(limits::HAND_OVER_WAIT_MS);
        if tokio::time::timeout(patience, futures::future::join_all(all)).await.is_err() {
            tracing::info!("not all groups could be handed over");
        }
    }

    /// How far the replicas of this node are.
    pub fn replica_status(&self) -> Vec<ReplicaStatus> {
        let of = |group: GroupId, status: GroupStatus| ReplicaStatus {
            group,
            quorum: self.has_quorum(&status),
            leader: status.leader,
            term: status.term,
            last: status.last,
            committed: status.committed,
            applied: status.applied,
            checkpoint: status.checkpoint,
            votes: status.voters.contains(&self.identity.node),
        };
        self.statuses().into_iter().map(|(group, status)| of(group, status)).collect()
    }

    /// Whether a majority of the voters has answered this node, when it leads, or it has heard from the leader.
    fn has_quorum(&self, status: &GroupStatus) -> bool {
        let Some(leader) = status.leader else { return false };
        let is_heard = |silence: Option<Duration>| silence.is_some_and(|silence| silence < HEARD_WITHIN);
        if leader != self.identity.node {
            return is_heard(self.network.silence(leader));
        }
        let answers = |node: &&NodeId| **node == leader || is_heard(status.silent.get(*node).copied());
        status.voters.iter().filter(answers).count() > status.voters.len() / 2
    }

    /// Every node of the catalog, asked now how far it is.
    pub async fn nodes(&self) -> Vec<NodeStatus> {
        let catalog = self.catalog();
        let voters = self.statuses().into_iter().map(|(group, status)| (group, status.voters)).collect::<Vec<_>>();
        let voters = &voters;
        let ask = |(node, record): (&NodeId, &Arc<NodeRecord>)| {
            let (node, record) = (*node, Arc::clone(record));
            async move {
                let own = node == self.identity.node;
                let replicas = if own {
                    Some(self.replica_status())
                } else {
                    let answer = self.network.call(node, Lane::Heartbeat, &Request::Status, STATUS_WAIT).await;
                    answer.ok().and_then(|bytes| from_json(&bytes).ok())
                };
                let state = NodeState::of(replicas.is_some(), self.network.silence(node));
                let votes = voters.iter().map(|(group, voters)| (*group, voters.contains(&node))).collect();
                NodeStatus { node, record, replicas, votes, state, own }
            }
        };
        futures::future::join_all(catalog.nodes.iter().map(ask)).await
    }
}

/// The voter besides this one that is best fit to lead.
pub(crate) fn successor(status: &GroupStatus, own: NodeId) -> Option<NodeId> {
    let can_take_over = |node: &NodeId| {
        let is_there = status.silent.get(node).is_some_and(|silent| *silent < IS_THERE);
        *node != own && status.voters.contains(node) && is_there
    };
    let others = status.matching.iter().filter(|(node, _)| can_take_over(node));
    others.max_by_key(|(_, at)| **at).map(|(node, _)| *node)
}

pub(crate) fn not_in_state(reason: String, hint: &str) -> Error {
    Error::NotInState { reason, hint: hint.to_owned() }
}

pub(crate) async fn hand_over<M: StateMachine>(group: &Group<M>, to: NodeId) -> Result<(), Error> {
    if !group.voters().contains(&to) {
        return Err(not_in_state(format!("node {to} does not vote in group {}", group.id()), REPLICAS_HINT));
    }
    group.transfer_leader(to).await?;
    let taken_over = async {
        let mut leader = group.leader();
        while leader != Some(to) {
            group.leader_changes_from(leader).await;
            leader = group.leader();
        }
    };
    let failed = |_| Error::Peer(format!("node {to} did not take over group {}", group.id()));
    tokio::time::timeout(HAND_OVER_WAIT, taken_over).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn check(voters: &[u64], learners: &[u64], caught_up: &[u64], nodes: &[u64], expected: Option<Change>) {
        check_with(limits::VOTERS, voters, learners, caught_up, nodes, expected);
    }

    fn check_with(
        wanted: usize,
        voters: &[u64],
        learners: &[u64],
        caught_up: &[u64],
        nodes: &[u64],
        expected: Option<Change>,
    ) {
        let matching = caught_up.iter().map(|node| (NodeId(*node), 10_000)).collect();
        let status = GroupStatus {
            voters: ids(voters),
            learners: ids(learners),
            matching,
            last: 10_000,
            ..GroupStatus::default()
        };
        let next = next_change(&status, NodeId(1), &ids(nodes), wanted);
        assert_eq!(next, expected, "{voters:?} {learners:?} {nodes:?}");
    }

    #[test]
    fn as_many_vote_as_are_wanted_once_all_of_them_can() {
        assert_eq!([0, 1, 2, 3, 4, 5, 9].map(|nodes| voters_among(nodes, 5)), [0, 1, 1, 3, 3, 5, 5]);
        check_with(5, &[1, 2, 3], &[4, 5], &[2, 3, 4], &[1, 2, 3, 4, 5], None);
        let five = Some(Change::Vote(ids(&[1, 2, 3, 4, 5])));
        check_with(5, &[1, 2, 3], &[4, 5], &[2, 3, 4, 5], &[1, 2, 3, 4, 5], five.clone());
        check_with(5, &[1], &[2, 3, 4, 5], &[2, 3, 4, 5], &[1, 2, 3, 4, 5], five);
        // One of five is taken out: three go on.
        check_with(5, &[1, 2, 3, 4, 5], &[], &[2, 3, 4, 5], &[1, 2, 4, 5], Some(Change::Vote(ids(&[1, 2, 4]))));
        // The table that asked for five is gone.
        check_with(3, &[1, 2, 3, 4, 5], &[], &[2, 3, 4, 5], &[1, 2, 3, 4, 5], Some(Change::Vote(ids(&[1, 2, 3]))));
    }

    #[test]
    fn members_follow_the_catalog_one_step_at_a_time() {
        check(&[1], &[], &[], &[1], None);
        check(&[1], &[], &[], &[1, 2], Some(Change::Learn(NodeId(2))));
        check(&[1], &[2], &[2], &[1, 2], None);
        check(&[1], &[2], &[2], &[1, 2, 3], Some(Change::Learn(NodeId(3))));
        check(&[1], &[2, 3], &[2], &[1, 2, 3], None);
        check(&[1], &[2, 3], &[2, 3], &[1, 2, 3], Some(Change::Vote(ids(&[1, 2, 3]))));
        check(&[1, 2, 3], &[4], &[2, 3, 4], &[1, 2, 3, 4], None);
        check(&[1, 2, 3], &[4], &[2, 3, 4], &[1, 2, 4], Some(Change::Vote(ids(&[1, 2, 4]))));
        check(&[1, 2, 4], &[3], &[2, 4], &[1, 2, 4], Some(Change::Remove(ids(&[3]))));
        // The one that is to take the vote has not caught up: it is waited for.
        check(&[1, 2, 3], &[4], &[2, 3], &[1, 2, 4], None);
    }

    #[test]
    fn a_node_that_does_not_answer_is_interrupted_before_it_is_down() {
        let silence = |ms| Some(Duration::from_millis(ms));
        assert_eq!(NodeState::of(true, None), NodeState::Connected);
        assert_eq!(NodeState::of(false, silence(limits::NODE_DOWN_AFTER_MS - 1)), NodeState::Interrupted);
        assert_eq!(NodeState::of(false, silence(limits::NODE_DOWN_AFTER_MS)), NodeState::Down);
        assert_eq!(NodeState::of(false, None), NodeState::Down);
    }

    #[test]
    fn a_silent_voter_is_replaced_when_another_node_can_vote() {
        let silent = |voters: &[u64], learners: &[u64], silent: u64, expected: Option<Change>| {
            let all = ids(&[1, 2, 3, 4]);
            let status = GroupStatus {
                voters: ids(voters),
                learners: ids(learners),
                matching: all.iter().map(|node| (*node, 10_000)).collect(),
                silent: [(NodeId(silent), Duration::from_millis(limits::REPLACE_AFTER_MS + 1))].into(),
                last: 10_000,
                ..GroupStatus::default()
            };
            let nodes = ids(voters).union(&ids(learners)).copied().collect();
            let next = next_change(&status, NodeId(1), &nodes, limits::VOTERS);
            assert_eq!(next, expected, "{voters:?} {learners:?}");
        };
        silent(&[1, 2, 3], &[4], 2, Some(Change::Vote(ids(&[1, 3, 4]))));
        silent(&[1, 2, 3], &[], 2, None);
        silent(&[1, 2, 3], &[4], 4, None);
        // Whoever asks hears itself.
        silent(&[1, 2, 3], &[4], 1, None);
    }

    #[test]
    fn who_leads_goes_on_voting_when_nodes_leave() {
        check(&[1, 2, 3], &[], &[2, 3], &[1, 2], Some(Change::Vote(ids(&[1]))));
        check(&[1, 2, 3], &[], &[2, 3], &[1], Some(Change::Vote(ids(&[1]))));
    }
}
