//! How new what a read gives must be (architecture, D21).
//!
//! Every replica applies the same entries in the same order, so a cut of one is always a state that the group had. What differs is how old it may be.
//! A barrier asks the leader: when it is passed, everything that was acknowledged before it began is here. The time a barrier began is
//! kept, by the clock that never goes back: what is read later is at most as old as that. So a bound is kept exactly, also by a node
//! that was paused or cut off: who cannot pass a barrier in time refuses to read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use event::{Consistency, GroupId};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::catalog::Table;
use crate::error::Error;
use crate::node::{Node, TableSnapshot};

/// Entries of groups up to which something is to be seen.
pub type Positions = BTreeMap<GroupId, u64>;

/// What a read asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadLevel {
    /// How new.
    pub consistency: Consistency,
    /// The bound of [`Consistency::Bounded`].
    pub max_staleness: Duration,
    /// What must be seen in any case: a session's own writes, or those that a commit token names.
    pub at_least: Positions,
}

impl ReadLevel {
    /// Everything that was acknowledged before the read.
    pub fn strong() -> ReadLevel {
        ReadLevel { consistency: Consistency::Strong, max_staleness: Duration::ZERO, at_least: Positions::new() }
    }
}

/// When this node's replicas last were as new as their leaders.
#[derive(Debug, Default)]
pub(crate) struct Freshness(Mutex<BTreeMap<GroupId, Instant>>);

impl Freshness {
    /// A barrier that began at `since` was passed.
    pub(crate) fn note(&self, group: GroupId, since: Instant) {
        let mut known = self.0.lock();
        let last = known.entry(group).or_insert(since);
        *last = (*last).max(since);
    }

    /// Everything that was committed in the group before then is here.
    fn as_of(&self, group: GroupId) -> Option<Instant> {
        self.0.lock().get(&group).copied()
    }

    fn age_of(&self, group: GroupId) -> Option<Duration> {
        self.as_of(group).map(|as_of| as_of.elapsed())
    }
}

impl Node {
    /// A cut of the table that is as new as `level` says, and how old it may be: a time within which everything acknowledged before is in;
    /// `None` when that is not known.
    ///
    /// # Errors
    /// As [`Node::snapshot`]; [`Error::Stale`] when this node cannot be as new as it must be.
    pub async fn snapshot_at(
        &self,
        table: &Arc<Table>,
        level: &ReadLevel,
    ) -> Result<(TableSnapshot, Option<Duration>), Error> {
        if level.consistency == Consistency::Strong {
            return Ok((self.snapshot(table).await?, Some(Duration::ZERO)));
        }
        let groups: BTreeSet<GroupId> = table.shards.iter().map(|placement| placement.group).collect();
        for group in &groups {
            self.wait_for_level(*group, level).await?;
        }
        let as_of = groups.iter().map(|group| self.freshness.as_of(*group)).collect::<Option<Vec<_>>>();
        let as_of = as_of.and_then(|times| times.into_iter().min());
        // What is prepared here may have been committed by another group before then.
        let is_known = match level.consistency {
            Consistency::Bounded => {
                let waits = |_| Error::Stale("a transaction waits for its decision or its conclusion".into());
                let groups: Vec<GroupId> = groups.into_iter().collect();
                tokio::time::timeout(level.max_staleness, self.follow_decided(&groups)).await.map_err(waits)??;
                true
            }
            _ => !self.has_prepared(&groups)?,
        };
        let snapshot = self.snapshot_here(table).await?;
        // After the cut: a node that was paused before it has grown older.
        let staleness = as_of.filter(|_| is_known).map(|as_of| as_of.elapsed());
        if level.consistency == Consistency::Bounded && staleness.is_none_or(|age| age > level.max_staleness) {
            let message = format!("this node could be older than {} ms", level.max_staleness.as_millis());
            return Err(Error::Stale(message));
        }
        Ok((snapshot, staleness))
    }

    async fn wait_for_level(&self, group: GroupId, level: &ReadLevel) -> Result<(), Error> {
        let replica = &self.data_group(group)?.group;
        if let Some(index) = level.at_least.get(&group).filter(|index| **index > replica.applied_index()) {
            let wait = Duration::from_millis(event::limits::LEADER_WAIT_MS);
            let stale = |_| Error::Stale(format!("this node has not applied entry {index} of group {group} yet"));
            tokio::time::timeout(wait, replica.applied(*index)).await.map_err(stale)??;
        }
        let is_bounded = level.consistency == Consistency::Bounded;
        // Half of the bound is left for what follows.
        let is_new = |age: Duration| age <= level.max_staleness / 2;
        if !is_bounded || self.freshness.age_of(group).is_some_and(is_new) {
            return Ok(());
        }
        let passed = tokio::time::timeout(level.max_staleness, self.read_barrier(replica)).await;
        match (passed, self.freshness.age_of(group)) {
            (Ok(Ok(_)), _) => Ok(()),
            // What is known of before may still do.
            (_, Some(age)) if age <= level.max_staleness => Ok(()),
            _ => Err(Error::Stale(format!(
                "group {group} has no leader that this node can ask, and it could be older than {} ms",
                level.max_staleness.as_millis()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn freshness_is_that_of_the_latest_barrier() {
        let freshness = Freshness::default();
        assert_eq!(freshness.age_of(GroupId(1)), None);
        let first = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        freshness.note(GroupId(1), Instant::now());
        // One that began earlier and took longer.
        freshness.note(GroupId(1), first);
        tokio::time::advance(Duration::from_millis(10)).await;
        assert_eq!(freshness.age_of(GroupId(1)), Some(Duration::from_millis(10)));
        assert_eq!(freshness.age_of(GroupId(2)), None);
    }
}
