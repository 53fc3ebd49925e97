//! Where the replicas that vote lie, and who leads: as the cluster levels it by itself, and as an operator asks.
//!
//! Every node of the catalog has a replica of every group. So what moves is a vote: to a node that has caught up, in one change of the
//! membership, after which the node that had it goes on as a learner, which serves reads.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use event::{GroupId, NodeId, limits};
use replication::{Group, GroupStatus, StateMachine};
use tokio::time::Instant;

use crate::error::Error;
use crate::load::Loads;
use crate::membership::{HAND_OVER_WAIT, IS_THERE, REPLICAS_HINT, hand_over, not_in_state, successor, voters_among};
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
    loads: Loads,
    spread: Spread,
    balance: Balance,
}

/// What a node leads or votes for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Share {
    load: u64,
    groups: usize,
}

impl Share {
    fn add(&mut self, load: u64) {
        self.load += load;
        self.groups += 1;
    }
}

/// How much a move is worth, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// The more loaded of both nodes has a fifth less to do after it: so much. Nothing goes to and fro for small differences, and a move is never
    /// taken back for what it has changed itself.
    Load(u64),
    /// Where one group has nearly all load, the others are levelled by their number, while nobody has more to do than one had before: so much
    /// will the other node have.
    Number(u64),
}

impl Worth {
    /// Of giving a group with this load away.
    fn of(load: u64, from: Share, to: Share) -> Option<Worth> {
        let (before, there) = (from.load.max(to.load), to.load + load);
        let after = from.load.saturating_sub(load).max(there);
        if after.saturating_mul(5) <= before.saturating_mul(4) {
            return Some(Worth::Load(after));
        }
        (from.groups >= to.groups + 2 && there <= before).then_some(Worth::Number(there))
    }
}

/// Which groups of this node shall be led by others, so that each voter leads for about as much load.
#[derive(Debug, Default)]
struct Spread {
    /// For how many looks on end a node was fit to lead a group of this one.
    fit: BTreeMap<(GroupId, NodeId), u32>,
    /// For how many looks on end some group would better be led by another node.
    uneven: u32,
}

impl Spread {
    /// The group that this node shall give up, and to whom. Only to a node that has been fit to lead it for a while: one that has just come back
    /// shall show that it stays.
    fn next(
        &mut self,
        groups: &BTreeMap<GroupId, GroupStatus>,
        own: NodeId,
        loads: &Loads,
    ) -> Option<(GroupId, NodeId)> {
        let mut leads: BTreeMap<NodeId, Share> = BTreeMap::new();
        for (group, leader) in groups.iter().filter_map(|(group, status)| Some((group, status.leader?))) {
            leads.entry(leader).or_default().add(loads.of(*group));
        }
        let share = |node: NodeId| leads.get(&node).copied().unwrap_or_default();
        let (mut fit, mut is_uneven, mut best) = (BTreeMap::new(), false, None);
        for (group, status) in groups.iter().filter(|(_, status)| status.leader == Some(own)) {
            for to in status.voters.iter().copied().filter(|node| *node != own && is_fit(status, *node)) {
                let looks = self.fit.get(&(*group, to)).map_or(1, |looks| looks.saturating_add(1));
                fit.insert((*group, to), looks);
                let Some(worth) = Worth::of(loads.of(*group), share(own), share(to)) else { continue };
                is_uneven = true;
                if looks >= STEADY_LOOKS {
                    best = best.into_iter().chain([(worth, *group, to)]).min();
                }
            }
        }
        self.fit = fit;
        self.uneven = if is_uneven { self.uneven.saturating_add(1) } else { 0 };
        let (_, group, to) = best.filter(|_| self.uneven >= STEADY_LOOKS)?;
        self.uneven = 0;
        Some((group, to))
    }
}

/// A vote that goes from one node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Move {
    group: GroupId,
    from: NodeId,
    to: NodeId,
}

/// Which vote goes where, so that each node votes for about as much load.
#[derive(Debug, Default)]
struct Balance {
    /// For how many looks on end some vote would better lie elsewhere.
    uneven: u32,
}

impl Balance {
    /// A move that is worth it, after moves were for a while. Nodes find about the same one; the leader of its group makes it.
    fn next(
        &mut self,
        groups: &BTreeMap<GroupId, GroupStatus>,
        wanted: impl Fn(GroupId) -> usize,
        loads: &Loads,
    ) -> Option<Move> {
        let next = next_move(groups, wanted, loads);
        self.uneven = if next.is_some() { self.uneven.saturating_add(1) } else { 0 };
        next.filter(|_| self.uneven >= STEADY_LOOKS)
    }
}

/// The move from one node to another that is worth most. A vote in a group that the node does not lead is taken before one in a group that it
/// leads. Nothing is moved while a group elects or has fewer voters than it shall have.
fn next_move(
    groups: &BTreeMap<GroupId, GroupStatus>,
    wanted: impl Fn(GroupId) -> usize,
    loads: &Loads,
) -> Option<Move> {
    let mut votes: BTreeMap<NodeId, Share> = BTreeMap::new();
    for (group, status) in groups {
        let members = status.voters.union(&status.learners);
        let is_whole = status.voters.len() == voters_among(members.clone().count(), wanted(*group));
        if status.leader.is_none() || !is_whole || status.voters.len() < limits::VOTERS {
            return None;
        }
        for node in members {
            let share = votes.entry(*node).or_default();
            if status.voters.contains(node) {
                share.add(loads.of(*group));
            }
        }
    }
    let mut moves = Vec::new();
    for (group, status) in groups {
        for (from, to) in status.voters.iter().flat_map(|from| status.learners.iter().map(move |to| (*from, *to))) {
            if let Some(worth) = Worth::of(loads.of(*group), votes[&from], votes[&to]) {
                // Of moves that are worth the same, those of who has most to those of who has least.
                let (least, most) = (votes[&to], Reverse(votes[&from]));
                moves.push((worth, status.leader == Some(from), most, least, Move { group: *group, from, to }));
            }
        }
    }
    moves.into_iter().min().map(|(.., next)| next)
}

impl Node {
    /// Gives groups that are led here to nodes that lead for less load, and votes of nodes that vote for much to nodes that vote for little: those
    /// while all members answer, since who is away for a moment shall come back to what it had.
    pub(crate) async fn level(&self, placement: &mut Placement) {
        let own = self.identity.node;
        let mut led = self.statuses();
        for (group, data) in &self.data {
            let applied = led.get(group).map_or(0, |status| status.applied);
            placement.loads.look(*group, data.reader().figures().rows_applied, applied);
        }
        // The catalog is led by whoever was elected: it has little to do.
        led.remove(&GroupId::CATALOG);
        if let Some((group, to)) = placement.spread.next(&led, own, &placement.loads)
            && self.has_room(to).await
        {
            tracing::info!(%group, %to, "giving a group to a node that leads for less load");
            if let Err(error) = self.hand_over_here(group, to).await {
                tracing::info!(%group, %to, %error, "a group could not be handed over");
            }
        }
        let (groups, catalog) = (self.statuses(), self.catalog());
        let wanted = |group| catalog.voters_wanted(group);
        let Some(Move { group, from, to }) = placement.balance.next(&groups, wanted, &placement.loads) else { return };
        let Some(status) = groups.get(&group).filter(|status| status.leader == Some(own)) else { return };
        let members = status.voters.union(&status.learners).filter(|node| **node != own);
        if members.into_iter().any(|node| !answers(status, *node)) {
            return;
        }
        tracing::info!(%group, %from, %to, "moving a vote to a node that has less to do");
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

    /// Groups as loaded as is said, in thousands of rows a second; those that are not named are idle.
    fn loads(loads: &[(u64, u32)]) -> Loads {
        let mut seen = Loads::default();
        for (group, rows) in loads {
            seen.set(GroupId(*group), rows * 1_000);
        }
        seen
    }

    fn three(_: GroupId) -> usize {
        limits::VOTERS
    }

    /// The votes of each node once no move is left.
    fn levelled(nodes: u64, voters: &[[u64; 3]], loads: &Loads) -> Vec<usize> {
        let mut groups = groups(nodes, voters);
        let mut moves = 0;
        while let Some(Move { group, from, to }) = next_move(&groups, three, loads) {
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
        let idle = Loads::default();
        assert_eq!(levelled(3, &[[1, 2, 3]; 4], &idle), [4, 4, 4]);
        assert_eq!(levelled(4, &[[1, 2, 3]; 4], &idle), [3, 3, 3, 3]);
        let mut of_seven = levelled(7, &[[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]], &idle);
        of_seven.sort_unstable();
        assert_eq!(of_seven, [1, 1, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn votes_for_busy_groups_are_levelled_first_and_those_for_idle_ones_by_number() {
        let levelled = |busy: &[(u64, u32)]| {
            let mut votes = levelled(5, &[[1, 2, 3]; 4], &loads(busy));
            votes.sort_unstable();
            votes
        };
        assert_eq!(levelled(&[(2, 500), (3, 500)]), [2, 2, 2, 3, 3]);
        assert_eq!(levelled(&[(2, 500)]), [2, 2, 2, 3, 3], "whoever votes for the busy one does so anyway");
    }

    #[test]
    fn a_vote_where_the_node_does_not_lead_goes_first_and_only_after_a_while() {
        let groups = groups(4, &[[1, 2, 3], [1, 2, 3], [3, 1, 2], [2, 3, 1]]);
        let (mut balance, idle) = (Balance::default(), Loads::default());
        for _ in 1..STEADY_LOOKS {
            assert_eq!(balance.next(&groups, three, &idle), None);
        }
        let expected = Move { group: GroupId(0), from: NodeId(2), to: NodeId(4) };
        assert_eq!(balance.next(&groups, three, &idle), Some(expected));
        let of_five = self::groups(5, &[[1, 2, 3]; 4]);
        for _ in 0..STEADY_LOOKS {
            assert_eq!(balance.next(&of_five, |_| 5, &idle), None, "groups are to get two voters more first");
        }
        let without_leader: BTreeMap<_, _> =
            groups.into_iter().map(|(group, status)| (group, GroupStatus { leader: None, ..status })).collect();
        assert_eq!(balance.next(&without_leader, three, &idle), None, "nothing is moved while a group elects");
    }

    /// Groups that these nodes lead, of whose voters these are fit.
    fn led(leaders: &[u64], fit: &[u64]) -> BTreeMap<GroupId, GroupStatus> {
        let status = |leader: &u64| GroupStatus {
            voters: ids(&[1, 2, 3]),
            leader: Some(NodeId(*leader)),
            matching: ids(&[1, 2, 3]).into_iter().map(|node| (node, 10_000)).collect(),
            silent: ids(fit).into_iter().map(|node| (node, Duration::ZERO)).collect(),
            last: 10_000,
            ..GroupStatus::default()
        };
        (1..).map(GroupId).zip(leaders.iter().map(status)).collect()
    }

    /// What a node gives away at the look at which it must, if it ever does.
    fn given(groups: &BTreeMap<GroupId, GroupStatus>, own: u64, loads: &Loads) -> Option<(u64, u64)> {
        let mut spread = Spread::default();
        for _ in 1..STEADY_LOOKS {
            assert_eq!(spread.next(groups, NodeId(own), loads), None, "not before it is steady");
        }
        spread.next(groups, NodeId(own), loads).map(|(group, to)| (group.0, to.0))
    }

    #[test]
    fn idle_groups_are_led_by_as_many_nodes_as_there_are() {
        let idle = Loads::default();
        assert_eq!(given(&led(&[1, 1, 1], &[2, 3]), 1, &idle), Some((1, 2)));
        assert_eq!(given(&led(&[2, 1, 1], &[2, 3]), 1, &idle), Some((2, 3)));
        assert_eq!(given(&led(&[2, 3, 1], &[2, 3]), 1, &idle), None);
        assert_eq!(given(&led(&[2, 1, 1], &[2]), 1, &idle), None, "the third is away");
        assert_eq!(given(&led(&[2, 1, 1], &[2, 3]), 2, &idle), None, "who leads gives");
    }

    #[test]
    fn a_node_that_leads_for_much_load_gives_away_what_makes_it_most_even() {
        let loads = loads(&[(1, 400), (2, 300), (3, 200), (4, 100)]);
        assert_eq!(given(&led(&[1, 1, 2, 3], &[2, 3]), 1, &loads), Some((2, 3)), "700, 200, 100 become 400, 200, 400");
        assert_eq!(given(&led(&[1, 3, 2, 3], &[2, 3]), 1, &loads), None);
        assert_eq!(given(&led(&[1, 3, 2, 3], &[1, 2]), 3, &loads), Some((4, 2)), "400, 200, 400 become 400, 300, 300");
        assert_eq!(given(&led(&[1, 3, 2, 2], &[1, 2]), 3, &loads), None);
        // One that is busy alone stays where it is: it would only be another node's. Idle ones beside it go where there are fewer.
        assert_eq!(given(&led(&[1, 2, 3, 3], &[2, 3]), 1, &loads), None);
        let busy = self::loads(&[(1, 500)]);
        assert_eq!(given(&led(&[1, 1, 2], &[2, 3]), 1, &busy), Some((2, 3)));
        assert_eq!(given(&led(&[1, 2, 3], &[2, 3]), 1, &busy), None);
    }

    #[test]
    fn a_node_that_was_away_for_a_moment_begins_anew() {
        let (idle, mut spread) = (Loads::default(), Spread::default());
        let mut look = |fit: &[u64]| spread.next(&led(&[2, 1, 1], fit), NodeId(1), &idle);
        for _ in 1..STEADY_LOOKS {
            assert_eq!(look(&[2, 3]), None);
        }
        assert_eq!(look(&[2]), None);
        for _ in 1..STEADY_LOOKS {
            assert_eq!(look(&[2, 3]), None);
        }
        assert_eq!(look(&[2, 3]), Some((GroupId(2), NodeId(3))));
        assert_eq!(look(&[2, 3]), None, "not again at once");
    }
}
