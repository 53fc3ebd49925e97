//! Where the replicas that vote lie, and who leads: as the cluster levels it by itself, and as an operator asks.
//!
//! Every node of the catalog has a replica of every group. So what moves is a vote: to a node that has caught up, in one change of the
//! membership, after which the node that had it goes on as a learner, which serves reads.

use std::collections::BTreeMap;
use std::time::Duration;

use event::{GroupId, NodeId, limits};
use replication::{Group, GroupStatus, StateMachine};
use tokio::time::Instant;

use crate::error::Error;
use crate::membership::{HAND_OVER_WAIT, IS_THERE, REPLICAS_HINT, hand_over, not_in_state, successor};
use crate::message::{Request, unpack};
use crate::network::CallError;
use crate::node::Node;
use crate::transport::Lane;

/// Looks on end at which something must be so before it is acted on.
const STEADY_LOOKS: u32 = 6;
/// How often whoever moves a replica looks how far it is.
const MOVE_TICK: Duration = Duration::from_millis(200);

/// What a node remembers from one look at its groups to the next.
#[derive(Debug, Default)]
pub(crate) struct Placement {
    spread: Spread,
    balance: Balance,
}

/// Which groups of this node shall be led by others, so that each voter leads about as many: the voters take turns in the order of the groups.
#[derive(Debug, Default)]
struct Spread {
    /// For how many looks on end a group was led here that another node could lead instead.
    looks: BTreeMap<GroupId, u32>,
}

impl Spread {
    /// Whom to give the group to, if it is led here and another node has been fit to lead it for a while. One that has just come back shall
    /// show that it stays, and a group is not handed to and fro.
    fn next_leader(&mut self, group: GroupId, status: &GroupStatus, own: NodeId) -> Option<NodeId> {
        let turn = (group.0.saturating_sub(1) as usize).checked_rem(status.voters.len());
        let preferred = turn.and_then(|turn| status.voters.iter().nth(turn)).copied().filter(|node| *node != own);
        let Some(preferred) = preferred.filter(|node| status.leader == Some(own) && is_fit(status, *node)) else {
            self.looks.remove(&group);
            return None;
        };
        let looks = self.looks.entry(group).or_default();
        *looks += 1;
        if *looks < STEADY_LOOKS {
            return None;
        }
        self.looks.remove(&group);
        Some(preferred)
    }
}

/// A vote that goes from one node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Move {
    group: GroupId,
    from: NodeId,
    to: NodeId,
}

/// Which vote goes where, so that each node has about as many.
#[derive(Debug, Default)]
struct Balance {
    /// The move that was found at the last look, and for how many looks on end.
    found: Option<(Move, u32)>,
}

impl Balance {
    /// A move that has been the next one for a while. All nodes find the same one; the leader of its group makes it.
    fn next(&mut self, groups: &BTreeMap<GroupId, GroupStatus>) -> Option<Move> {
        let next = next_move(groups);
        let looks = match self.found {
            Some((before, looks)) if Some(before) == next => looks + 1,
            _ => 1,
        };
        self.found = next.map(|next| (next, looks));
        next.filter(|_| looks >= STEADY_LOOKS)
    }
}

/// From the node with the most votes to the one with the fewest, as long as they differ by more than one: then a move makes them more equal, and the
/// next one does not take it back. A vote in a group that the node does not lead is taken before one in a group that it leads.
fn next_move(groups: &BTreeMap<GroupId, GroupStatus>) -> Option<Move> {
    let is_settled = |status: &GroupStatus| status.leader.is_some() && status.voters.len() == limits::VOTERS;
    if !groups.values().all(is_settled) {
        return None;
    }
    let mut votes: BTreeMap<NodeId, usize> = BTreeMap::new();
    for status in groups.values() {
        for node in status.voters.union(&status.learners) {
            *votes.entry(*node).or_default() += usize::from(status.voters.contains(node));
        }
    }
    let (most, fewest) = (*votes.values().max()?, *votes.values().min()?);
    if most < fewest + 2 {
        return None;
    }
    let to = *votes.iter().find(|(_, votes)| **votes == fewest)?.0;
    let moves = groups.iter().filter(|(_, status)| status.learners.contains(&to)).flat_map(|(group, status)| {
        let loaded = status.voters.iter().filter(|node| votes.get(node) == Some(&most));
        loaded.map(move |from| (status.leader == Some(*from), Move { group: *group, from: *from, to }))
    });
    moves.min_by_key(|(leads, next)| (*leads, next.group, next.from)).map(|(_, next)| next)
}

impl Node {
    /// Gives groups that are led here to those whose turn it is, and votes of nodes with many to nodes with few: while all members answer, since
    /// who is away for a moment shall come back to what it had.
    pub(crate) async fn level(&self, placement: &mut Placement) {
        let own = self.identity.node;
        for data in self.data.values() {
            let group = data.group.id();
            let Some(next) = placement.spread.next_leader(group, &data.group.status(), own) else { continue };
            if !self.has_room(next).await {
                continue;
            }
            tracing::info!(%group, to = %next, "giving a group to the node that is to lead it");
            if let Err(error) = self.hand_over_here(group, next).await {
                tracing::info!(%group, to = %next, %error, "a group could not be handed over");
            }
        }
        let groups = self.statuses();
        let Some(Move { group, from, to }) = placement.balance.next(&groups) else { return };
        let Some(status) = groups.get(&group).filter(|status| status.leader == Some(own)) else { return };
        let members = status.voters.union(&status.learners).filter(|node| **node != own);
        if members.into_iter().any(|node| !answers(status, *node)) {
            return;
        }
        tracing::info!(%group, %from, %to, "moving a vote to a node that has fewer");
        if let Err(error) = self.move_vote_here(group, from, to).await {
            tracing::info!(%group, %from, %to, %error, "a vote could not be moved yet");
        }
    }

    /// Whether another node says that its disk has room.
    async fn has_room(&self, node: NodeId) -> bool {
        self.ask_host(node).await.is_some_and(|host| !host.is_full)
    }

    /// Gives the groups that this node leads, and would refuse rows for, to voters that have room, as far as there are any.
    pub(crate) async fn give_up_lead(&self) {
        for (group, status) in self.statuses() {
            if status.leader != Some(self.identity.node) {
                continue;
            }
            let others = status.voters.iter().copied().filter(|node| *node != self.identity.node);
            for next in others.filter(|node| is_fit(&status, *node)) {
                if !self.has_room(next).await {
                    continue;
                }
                tracing::warn!(%group, to = %next, "giving up a group for want of room on the disk");
                match self.hand_over_here(group, next).await {
                    Ok(()) => break,
                    Err(error) => tracing::info!(%group, to = %next, %error, "a group could not be handed over"),
                }
            }
        }
    }

    /// Moves a replica that votes from one node to another: waits until that one has caught up, and gives it the vote of the first, which goes on as
    /// a learner. Returns once it is so. [`Node::nodes`] shows how far the replicas are meanwhile.
    ///
    /// # Errors
    /// [`Error::NotInState`] when there is no such group or node, `from` does not vote in it, or `to` does already.
    pub async fn move_replica(&self, group: GroupId, from: NodeId, to: NodeId) -> Result<(), Error> {
        if group != GroupId::CATALOG && !self.data.contains_key(&group) {
            return Err(not_in_state(format!("there is no group {group}"), REPLICAS_HINT));
        }
        if let Some(stranger) = [from, to].into_iter().find(|node| !self.catalog().nodes.contains_key(node)) {
            let reason = format!("node {stranger} is not in the cluster");
            return Err(not_in_state(reason, "annal.nodes shows the nodes there are."));
        }
        let patience = Duration::from_millis(limits::LEADER_WAIT_MS);
        let mut heard = Instant::now();
        loop {
            match self.ask_to_move(group, from, to).await {
                Ok(0) => return Ok(()),
                Ok(behind) => {
                    heard = Instant::now();
                    tracing::debug!(%group, %to, behind, "a replica that is to vote catches up");
                }
                Err(Error::Replication(replication::Error::NoLeader(_))) if heard.elapsed() < patience => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(MOVE_TICK).await;
        }
    }

    /// By how many entries the replica is behind that is to vote; 0 when it does.
    async fn ask_to_move(&self, group: GroupId, from: NodeId, to: NodeId) -> Result<u64, Error> {
        let no_leader = || Error::from(replication::Error::NoLeader(group));
        let leader = self.status_of(group)?.leader.ok_or_else(no_leader)?;
        if leader == self.identity.node {
            return self.move_vote_here(group, from, to).await;
        }
        let request = Request::MoveVote { group, from, to };
        match self.network.call(leader, Lane::Heartbeat, &request, HAND_OVER_WAIT).await {
            Ok(behind) => unpack(&behind).map_err(Error::Peer),
            Err(CallError::Refused(refusal)) => Err(refusal.into_error(group)),
            // It may have ended since.
            Err(_) => Err(no_leader()),
        }
    }

    /// The same on the leader.
    pub(crate) async fn move_vote_here(&self, group: GroupId, from: NodeId, to: NodeId) -> Result<u64, Error> {
        match group {
            GroupId::CATALOG => move_vote(&self.catalog, self.identity.node, from, to).await,
            group => move_vote(&self.data_group(group)?.group, self.identity.node, from, to).await,
        }
    }
}

async fn move_vote<M: StateMachine>(group: &Group<M>, own: NodeId, from: NodeId, to: NodeId) -> Result<u64, Error> {
    let (id, status) = (group.id(), group.status());
    if status.leader != Some(own) {
        return Err(replication::Error::NoLeader(id).into());
    }
    match (status.voters.contains(&from), status.voters.contains(&to)) {
        // Asked for again, after an answer that was lost.
        (false, true) => return Ok(0),
        (true, true) => return Err(not_in_state(format!("node {to} votes in group {id} already"), REPLICAS_HINT)),
        (false, false) => return Err(not_in_state(format!("node {from} does not vote in group {id}"), REPLICAS_HINT)),
        (true, false) => {}
    }
    let behind = status.last.saturating_sub(status.matching.get(&to).copied().unwrap_or(0));
    if behind > limits::PROMOTE_LAG_ENTRIES || !answers(&status, to) {
        return Ok(behind.max(1));
    }
    if from == own {
        // A leader that votes no longer would have to give up in the middle of it.
        let next = successor(&status, own).ok_or(replication::Error::NoLeader(id))?;
        hand_over(group, next).await?;
        return Err(replication::Error::NoLeader(id).into());
    }
    let mut voters = status.voters;
    voters.remove(&from);
    voters.insert(to);
    group.change_voters(&voters).await?;
    tracing::info!(group = %id, %from, %to, "a vote was moved");
    Ok(0)
}

/// Whether a leader sees that a member answers and has nearly caught up.
fn is_fit(status: &GroupStatus, node: NodeId) -> bool {
    answers(status, node)
        && status.matching.get(&node).is_some_and(|at| at + limits::PROMOTE_LAG_ENTRIES >= status.last)
}

/// Whether a member has answered its leader a moment ago.
fn answers(status: &GroupStatus, node: NodeId) -> bool {
    status.silent.get(&node).is_some_and(|silent| *silent < IS_THERE)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    /// Groups with these voters, the first of whom leads, in a cluster of so many nodes.
    fn groups(nodes: u64, voters: &[[u64; 3]]) -> BTreeMap<GroupId, GroupStatus> {
        let all: BTreeSet<NodeId> = (1..=nodes).map(NodeId).collect();
        let status = |voters: &[u64; 3]| GroupStatus {
            leader: Some(NodeId(voters[0])),
            voters: ids(voters),
            learners: all.difference(&ids(voters)).copied().collect(),
            ..GroupStatus::default()
        };
        (0..).map(GroupId).zip(voters.iter().map(status)).collect()
    }

    /// The votes of each node once no move is left.
    fn levelled(nodes: u64, voters: &[[u64; 3]]) -> Vec<usize> {
        let mut groups = groups(nodes, voters);
        let mut moves = 0;
        while let Some(Move { group, from, to }) = next_move(&groups) {
            let status = groups.get_mut(&group).unwrap();
            assert!(status.voters.remove(&from) && status.voters.insert(to));
            assert!(status.learners.remove(&to) && status.learners.insert(from));
            moves += 1;
            assert!(moves < 20, "it has an end");
        }
        let of = |node: u64| groups.values().filter(|status| status.voters.contains(&NodeId(node))).count();
        (1..=nodes).map(of).collect()
    }

    #[test]
    fn votes_are_levelled_over_all_nodes_and_then_stay() {
        assert_eq!(levelled(3, &[[1, 2, 3]; 4]), [4, 4, 4]);
        assert_eq!(levelled(4, &[[1, 2, 3]; 4]), [3, 3, 3, 3]);
        let mut of_seven = levelled(7, &[[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]]);
        of_seven.sort_unstable();
        assert_eq!(of_seven, [1, 1, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn a_vote_where_the_node_does_not_lead_goes_first_and_only_after_a_while() {
        let groups = groups(4, &[[1, 2, 3], [1, 2, 3], [3, 1, 2], [2, 3, 1]]);
        let mut balance = Balance::default();
        for _ in 1..STEADY_LOOKS {
            assert_eq!(balance.next(&groups), None);
        }
        let expected = Move { group: GroupId(0), from: NodeId(2), to: NodeId(4) };
        assert_eq!(balance.next(&groups), Some(expected));
        let without_leader: BTreeMap<_, _> =
            groups.into_iter().map(|(group, status)| (group, GroupStatus { leader: None, ..status })).collect();
        assert_eq!(balance.next(&without_leader), None, "nothing is moved while a group elects");
    }

    #[test]
    fn voters_take_turns_to_lead_once_they_are_steady() {
        let status = |leader: u64, fit: &[u64]| GroupStatus {
            voters: ids(&[1, 2, 3]),
            leader: Some(NodeId(leader)),
            matching: ids(&[1, 2, 3]).into_iter().map(|node| (node, 10_000)).collect(),
            silent: ids(fit).into_iter().map(|node| (node, Duration::ZERO)).collect(),
            last: 10_000,
            ..GroupStatus::default()
        };
        let mut spread = Spread::default();
        let mut look = |group: u64, fit: &[u64]| spread.next_leader(GroupId(group), &status(1, fit), NodeId(1));
        assert!((0..20).all(|_| look(1, &[2, 3]).is_none()), "the first group is this node's");
        for _ in 1..STEADY_LOOKS {
            assert_eq!(look(2, &[2, 3]), None);
        }
        assert_eq!(look(2, &[3]), None, "it was silent for a moment: it begins anew");
        for _ in 1..STEADY_LOOKS {
            assert_eq!(look(2, &[2, 3]), None);
        }
        assert_eq!(look(2, &[2, 3]), Some(NodeId(2)));
        assert_eq!(look(2, &[2, 3]), None, "not again at once");
        assert_eq!(Spread::default().next_leader(GroupId(2), &status(2, &[2]), NodeId(1)), None, "who leads says it");
    }
}
