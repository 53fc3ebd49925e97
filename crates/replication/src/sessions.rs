//! What became of the statements that may be asked for again.
//!
//! A coordinator that does not hear of its statement sends it again, perhaps to another leader, and the log may hold it twice. The first
//! time decides; every later one gets that outcome. What a coordinator has settled is forgotten, so that memory is bounded by what is under
//! way, and a copy of a settled statement that arrives late is passed over. (Ongaro, Consensus: Bridging Theory and Practice, section 6.3,
//! with the watermark of Lee et al., Implementing Linearizability at Large Scale and Low Latency, SOSP 2015.)

use std::collections::BTreeMap;

use event::{NodeId, Origin, mutants};
use serde::{Deserialize, Serialize};

/// The remembered statements of every coordinator. Part of the applied state, and of its checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(serialize = "O: Serialize", deserialize = "O: Deserialize<'de>"))]
pub(crate) struct Sessions<O> {
    coordinators: BTreeMap<NodeId, Session<O>>,
}

/// Those of one coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Session<O> {
    /// Its newest boot: nobody asks again for a statement of an earlier one.
    boot: u64,
    /// Counters below this are settled.
    settled: u64,
    /// Outcomes by counter, with the index of the entry.
    outcomes: BTreeMap<u64, (u64, O)>,
}

/// What is known of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known<O> {
    /// It was not seen before.
    New,
    /// An entry has had it.
    Before {
        /// The index of that entry.
        index: u64,
        /// What became of it.
        outcome: O,
    },
    /// Nobody waits for it any more.
    Settled,
}

impl<O> Default for Sessions<O> {
    fn default() -> Self {
        Self { coordinators: BTreeMap::new() }
    }
}

impl<O: Clone> Sessions<O> {
    /// What is known of the statement; forgets what its coordinator has settled.
    pub(crate) fn look(&mut self, origin: Origin) -> Known<O> {
        let Origin { id, settled } = origin;
        let new = || Session { boot: id.boot, settled: 0, outcomes: BTreeMap::new() };
        let session = self.coordinators.entry(id.node).or_insert_with(new);
        if id.boot < session.boot {
            return Known::Settled;
        }
        if id.boot > session.boot {
            *session = new();
        }
        if settled > session.settled {
            session.settled = settled;
            session.outcomes = session.outcomes.split_off(&settled);
        }
        if id.counter < session.settled {
            return Known::Settled;
        }
        match session.outcomes.get(&id.counter) {
            Some(_) if mutants::is_back("applied twice") => Known::New,
            Some((index, outcome)) => Known::Before { index: *index, outcome: outcome.clone() },
            None => Known::New,
        }
    }

    /// Remembers what became of a new statement in the entry at `index`.
    pub(crate) fn remember(&mut self, origin: Origin, index: u64, outcome: O) {
        if let Some(session) = self.coordinators.get_mut(&origin.id.node) {
            session.outcomes.insert(origin.id.counter, (index, outcome));
        }
    }
}

#[cfg(test)]
mod tests {
    use event::StatementId;

    use super::*;

    fn origin(boot: u64, counter: u64, settled: u64) -> Origin {
        Origin { id: StatementId { node: NodeId(1), boot, counter }, settled }
    }

    #[test]
    fn a_statement_asked_for_twice_keeps_its_first_outcome() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.look(origin(1, 7, 5)), Known::New);
        sessions.remember(origin(1, 7, 5), 40, "first");
        assert_eq!(sessions.look(origin(1, 7, 5)), Known::Before { index: 40, outcome: "first" });
        assert_eq!(sessions.look(origin(1, 6, 5)), Known::New, "an earlier one may come later");
    }

    #[test]
    fn what_is_settled_is_forgotten_and_passed_over() {
        let mut sessions = Sessions::default();
        sessions.look(origin(1, 7, 5));
        sessions.remember(origin(1, 7, 5), 40, ());
        assert_eq!(sessions.look(origin(1, 9, 8)), Known::New);
        assert_eq!(sessions.look(origin(1, 7, 5)), Known::Settled, "a late copy is not a new statement");
        assert!(sessions.coordinators[&NodeId(1)].outcomes.is_empty());
    }

    #[test]
    fn nobody_waits_for_statements_of_an_earlier_boot() {
        let mut sessions = Sessions::default();
        sessions.look(origin(1, 7, 5));
        sessions.remember(origin(1, 7, 5), 40, ());
        assert_eq!(sessions.look(origin(2, 0, 0)), Known::New);
        assert_eq!(sessions.look(origin(1, 8, 5)), Known::Settled);
        let other = Origin { id: StatementId { node: NodeId(2), boot: 1, counter: 8 }, settled: 0 };
        assert_eq!(sessions.look(other), Known::New);
    }
}
