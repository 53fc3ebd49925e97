//! Since when a majority has confirmed a leader: by what it sent and heard itself.
//!
//! A leader may read what it has applied when nobody else can have led when the read began. Raft's own measure of that takes the newest request that
//! says no more than an answer for the one that was answered: an answer that lay in the socket of a leader which was stopped would count for
//! requests it sends after it goes on, and the leader would read what is old by then. Here an answer counts from when its own request was sent.
//!
//! Beside it, how much of the log each has said that it holds: who holds less later has lost what others rely on.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use event::NodeId;
use parking_lot::Mutex;
use tokio::time::Instant;

/// The newest request of this leader that each voter has answered, and what each holds of the log.
#[derive(Debug, Default)]
pub struct Confirmed {
    answered: Mutex<BTreeMap<NodeId, Answered>>,
    held: Mutex<BTreeMap<NodeId, Held>>,
}

/// Up to which entry a node holds the log of the leader of a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    term: u64,
    index: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Answered {
    term: u64,
    sent: Instant,
}

impl Confirmed {
    /// `node` has accepted a request that this node sent then, as the leader of `term`.
    pub fn note(&self, node: NodeId, term: u64, sent: Instant) {
        let answer = Answered { term, sent };
        let mut answered = self.answered.lock();
        let newest = answered.entry(node).or_insert(answer);
        *newest = answer.max(*newest);
    }

    /// `node` has told this node, the leader of `term`, that it holds all entries up to `index`, durable.
    pub fn note_held(&self, node: NodeId, term: u64, index: u64) {
        let told = Held { term, index };
        let mut held = self.held.lock();
        let most = held.entry(node).or_insert(told);
        *most = told.max(*most);
    }

    /// Up to which entry `node` has told the leader of `term` that it holds the log, when the one at `index`, which it lacks now, is among them. A
    /// log loses entries when another leads, never under the same leader.
    pub fn lost(&self, node: NodeId, term: u64, index: u64) -> Option<u64> {
        let held = self.held.lock().get(&node).copied()?;
        (held.term == term && index <= held.index).then_some(held.index)
    }

    /// The newest time at which nobody led in a later term, as far as `own`, the leader of `term`, knows: a majority of each of the `quorums`, itself
    /// counted where it votes, has accepted requests that it sent then or later.
    pub(crate) fn since(&self, own: NodeId, term: u64, quorums: &[BTreeSet<u64>]) -> Option<Instant> {
        let answered = self.answered.lock();
        let now = Instant::now();
        let time_of = |node: &u64| match NodeId(*node) {
            node if node == own => Some(now),
            node => answered.get(&node).filter(|answer| answer.term == term).map(|answer| answer.sent),
        };
        let since = |voters: &BTreeSet<u64>| {
            let mut times: Vec<Instant> = voters.iter().filter_map(time_of).collect();
            times.sort_unstable_by_key(|time| Reverse(*time));
            times.get(voters.len() / 2).copied()
        };
        quorums.iter().map(since).min().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// How many seconds ago, for the leader 1.
    fn since(confirmed: &Confirmed, term: u64, quorums: &[&[u64]]) -> Option<u64> {
        let quorums: Vec<BTreeSet<u64>> = quorums.iter().map(|voters| voters.iter().copied().collect()).collect();
        confirmed.since(NodeId(1), term, &quorums).map(|since| since.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_majority_of_every_quorum_confirms() {
        let confirmed = Confirmed::default();
        assert_eq!(since(&confirmed, 4, &[&[1]]), Some(0));
        assert_eq!(since(&confirmed, 4, &[&[1, 2, 3]]), None);
        confirmed.note(NodeId(2), 4, Instant::now());
        tokio::time::advance(Duration::from_secs(5)).await;
        confirmed.note(NodeId(3), 4, Instant::now());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(since(&confirmed, 4, &[&[1, 2, 3]]), Some(2), "one other is enough");
        assert_eq!(since(&confirmed, 4, &[&[1, 2, 3, 4, 5]]), Some(7), "two others are");
        assert_eq!(since(&confirmed, 4, &[&[2, 3]]), Some(7), "without a vote of its own");
        assert_eq!(since(&confirmed, 4, &[&[1, 2, 3], &[1, 2, 4]]), Some(7), "a joint membership");
        assert_eq!(since(&confirmed, 4, &[&[1, 2, 3], &[1, 4, 5]]), None);
        assert_eq!(since(&confirmed, 5, &[&[1, 2, 3]]), None, "another term");
    }

    #[test]
    fn who_lacks_what_it_held_under_the_same_leader_has_lost_it() {
        let confirmed = Confirmed::default();
        assert_eq!(confirmed.lost(NodeId(2), 4, 1), None);
        confirmed.note_held(NodeId(2), 4, 9);
        confirmed.note_held(NodeId(2), 4, 7);
        assert_eq!(confirmed.lost(NodeId(2), 4, 9), Some(9));
        assert_eq!(confirmed.lost(NodeId(2), 4, 10), None, "never held");
        assert_eq!(confirmed.lost(NodeId(3), 4, 9), None, "another node");
        assert_eq!(confirmed.lost(NodeId(2), 5, 9), None, "another leader may have taken it away");
        confirmed.note_held(NodeId(2), 5, 3);
        assert_eq!(confirmed.lost(NodeId(2), 5, 9), None);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_come_late_take_nothing_back() {
        let confirmed = Confirmed::default();
        let old = Instant::now();
        tokio::time::advance(Duration::from_secs(5)).await;
        confirmed.note(NodeId(2), 4, Instant::now());
        confirmed.note(NodeId(2), 4, old);
        confirmed.note(NodeId(2), 3, Instant::now());
        assert_eq!(since(&confirmed, 4, &[&[1, 2, 3]]), Some(0));
    }
}
