//! Transactions of several groups: prepared in each, decided by one entry in the first of them, concluded in the others (architecture, D13).
//!
//! The first group needs no preparation: its part and the decision are one entry, so that nothing is decided which cannot be done. Who finds a
//! part without its decision asks for the decision not to commit; the first decision holds, whoever made it. A transaction can be
//! committed until a time that its parts name, and decisions not to commit are remembered as long.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use event::{GroupId, StatementId};
use futures::future::join_all;
use storage::command::Joined;
use storage::shards::JointView;
use storage::{Command, Outcome, ShardSnapshot};
use tokio::time::Instant;

use crate::ddl::defect;
use crate::error::Error;
use crate::node::{ClientId, Node};

/// How long a transaction can be committed after its coordinator has begun to commit it.
const COMMIT_WITHIN_US: i64 = 60_000_000;
/// How long a part may wait for its coordinator before somebody else finds out about it.
const COORDINATOR_WAIT: Duration = Duration::from_secs(2);
/// An entry can be too full for what was prepared: it is concluded in the next.
const CONCLUDE_TRIES: usize = 8;
/// Between two looks at a transaction that is decided and not concluded everywhere.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How long a reader waits for such a transaction.
const READER_WAIT: Duration = Duration::from_secs(20);

/// What a transaction does in each group.
pub(crate) type Parts = BTreeMap<GroupId, Vec<Command>>;

/// What became of a commit that did not come to a decision to commit.
pub(crate) enum NotCommitted {
    /// A group refused its part.
    Refused(Outcome),
    /// It is not committed, and never will be.
    Failed(Error),
    /// Nobody knows yet.
    Unknown(Error),
}

/// A commit in all groups.
pub(crate) struct JointCommit {
    /// Rows that came.
    pub(crate) rows: u64,
    /// The entry of each group from which on it is seen there.
    pub(crate) positions: Vec<(GroupId, u64)>,
}

impl Node {
    /// Until when a transaction that begins to commit now can be committed, by the time of entries. That is ahead of this node's clock when the
    /// clock is behind, or when that of a leader was ahead once.
    pub(crate) fn commit_until_us(&self) -> i64 {
        let applied = self.data.values().map(|data| data.group.applied_time_us());
        let newest = applied.chain([self.catalog.applied_time_us()]).fold(self.clock.now_us(), i64::max);
        newest.saturating_add(COMMIT_WITHIN_US)
    }

    /// Commits all parts, or none of them; answers once every group shows its part. The group that decides is the first one: it does not
    /// refuse its part as too much once the others are prepared, as those may what `client` asks. It can do so until `until_us`; with `settle`
    /// the decision is forgotten soon.
    pub(crate) async fn commit_jointly(
        self: &Arc<Self>,
        transaction: StatementId,
        client: Option<ClientId>,
        mut parts: Parts,
        (until_us, settle): (i64, bool),
    ) -> Result<JointCommit, NotCommitted> {
        let Some((decider, own)) = parts.pop_first() else {
            return Ok(JointCommit { rows: 0, positions: Vec::new() });
        };
        let joined = self.prepare_parts(transaction, client, (decider, until_us), &parts).await?;
        let decide = Command::Decide { transaction, commit: true, until_us, joined: joined.clone() };
        let others: Vec<GroupId> = parts.into_keys().collect();
        let decision = match self.propose(decider, own.into_iter().chain([decide]).collect()).await {
            Ok(proposed) => match proposed.outcome {
                Outcome::Done { rows } => (rows, proposed.index),
                refused => {
                    self.forget_parts(transaction, &others).await;
                    return Err(NotCommitted::Refused(refused));
                }
            },
            Err(error @ Error::Unknown(_)) => {
                // The first decision holds, so asking for the other one tells which.
                match self.decide_against(transaction, decider, until_us).await {
                    // How many rows its own part has brought is not told again.
                    Ok((true, index)) => (0, index),
                    Ok((false, _)) => {
                        self.forget_parts(transaction, &others).await;
                        return Err(NotCommitted::Failed(definite(error)));
                    }
                    Err(_) => return Err(NotCommitted::Unknown(error)),
                }
            }
            Err(error) => {
                self.forget_parts(transaction, &others).await;
                return Err(NotCommitted::Failed(error));
            }
        };
        let mut commit = JointCommit { rows: decision.0, positions: vec![(decider, decision.1)] };
        let everywhere: Vec<Joined> =
            joined.into_iter().chain([Joined { group: decider, index: decision.1 }]).collect();
        for concluded in
            join_all(others.iter().map(|group| self.conclude(*group, transaction, true, &everywhere))).await
        {
            let (group, rows, index) = concluded.map_err(|error| NotCommitted::Unknown(goes_on(error)))?;
            commit.rows += rows;
            commit.positions.push((group, index));
        }
        if settle {
            self.settle_soon(transaction, decider);
        }
        Ok(commit)
    }

    /// Prepares a part in each group; when one refuses, all of them are forgotten.
    async fn prepare_parts(
        &self,
        transaction: StatementId,
        client: Option<ClientId>,
        (decider, until_us): (GroupId, i64),
        parts: &Parts,
    ) -> Result<Vec<Joined>, NotCommitted> {
        let prepare = |(group, commands): (&GroupId, &Vec<Command>)| {
            let first = Command::Prepare { transaction, decider, until_us };
            let (group, commands) = (*group, std::iter::once(first).chain(commands.iter().cloned()).collect());
            async move { (group, self.propose_of(client, group, commands).await) }
        };
        let (mut joined, mut failed) = (Vec::new(), None);
        for (group, prepared) in join_all(parts.iter().map(prepare)).await {
            match prepared {
                Ok(proposed) => match proposed.outcome {
                    Outcome::Done { .. } => joined.push(Joined { group, index: proposed.index }),
                    refused => failed = Some(NotCommitted::Refused(refused)),
                },
                // Whether it is prepared or not: without a decision it is never committed, and this is the only one who could ask for it.
                Err(error) => failed = failed.or(Some(NotCommitted::Failed(definite(error)))),
            }
        }
        let Some(failed) = failed else { return Ok(joined) };
        let groups: Vec<GroupId> = parts.keys().copied().collect();
        self.forget_parts(transaction, &groups).await;
        Err(failed)
    }

    /// Forgets parts of a transaction that is not committed. Those that cannot be reached are found later.
    async fn forget_parts(&self, transaction: StatementId, groups: &[GroupId]) {
        for forgotten in join_all(groups.iter().map(|group| self.conclude(*group, transaction, false, &[]))).await {
            if let Err(error) = forgotten {
                tracing::debug!(%transaction, %error, "a part of a transaction is forgotten later");
            }
        }
    }

    async fn conclude(
        &self,
        group: GroupId,
        transaction: StatementId,
        commit: bool,
        joined: &[Joined],
    ) -> Result<(GroupId, u64, u64), Error> {
        for _ in 0..CONCLUDE_TRIES {
            let conclude = Command::Conclude { transaction, commit, joined: joined.to_vec() };
            let proposed = self.propose(group, vec![conclude]).await?;
            match proposed.outcome {
                Outcome::Done { rows } => return Ok((group, rows, proposed.index)),
                Outcome::Conflict => {}
                refused => return Err(defect(format!("transaction {transaction} in group {group}: {refused:?}"))),
            }
        }
        Err(Error::Overloaded(format!("group {group} has no room for a transaction that is decided")))
    }

    /// Decides that a transaction is not committed, unless it is decided already; answers whether it is committed, and with the index of an entry
    /// at which that is decided.
    pub(crate) async fn decide_against(
        &self,
        transaction: StatementId,
        decider: GroupId,
        until_us: i64,
    ) -> Result<(bool, u64), Error> {
        let refuse = Command::Decide { transaction, commit: false, until_us, joined: Vec::new() };
        let proposed = self.propose(decider, vec![refuse]).await?;
        match proposed.outcome {
            Outcome::Conflict => Ok((true, proposed.index)),
            Outcome::Done { .. } => Ok((false, proposed.index)),
            refused => Err(defect(format!("transaction {transaction}: {refused:?}"))),
        }
    }

    /// Waits until transactions that are decided to commit are concluded in these groups, where they are prepared: who reads another of their
    /// groups may have seen them already. Those that are decided later are not waited for.
    pub(crate) async fn follow_decided(&self, groups: &[GroupId]) -> Result<(), Error> {
        let mut waiting = Vec::new();
        for group in groups {
            let view = self.data_group(*group)?.reader().joint();
            waiting.extend(view.prepared.iter().map(|(id, part)| (*group, *id, part.decider)));
        }
        if waiting.is_empty() {
            return Ok(());
        }
        let deciders: BTreeSet<GroupId> = waiting.iter().map(|(.., decider)| *decider).collect();
        self.read_barriers(deciders.iter().copied()).await?;
        let views = deciders.iter().map(|decider| Ok((*decider, self.data_group(*decider)?.reader().joint())));
        let views = views.collect::<Result<BTreeMap<_, _>, Error>>()?;
        waiting.retain(|(_, id, decider)| views.get(decider).is_some_and(|view| view.is_committed(id)));
        let begun = Instant::now();
        loop {
            let mut left = false;
            for (group, id, _) in &waiting {
                left |= self.data_group(*group)?.reader().joint().prepared.contains_key(id);
            }
            if !left {
                return Ok(());
            }
            if begun.elapsed() > READER_WAIT {
                return Err(not_concluded());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Whether parts of transactions wait in these groups, as far as this node has followed them.
    pub(crate) fn has_prepared(&self, groups: &BTreeSet<GroupId>) -> Result<bool, Error> {
        let mut prepared = false;
        for group in groups {
            prepared |= !self.data_group(*group)?.reader().joint().prepared.is_empty();
        }
        Ok(prepared)
    }

    /// Lets the decision about a transaction be forgotten that everybody has followed, without waiting for it.
    fn settle_soon(self: &Arc<Self>, transaction: StatementId, decider: GroupId) {
        let node = Arc::clone(self);
        self.consensus.spawn(async move {
            if let Err(error) = node.settle(transaction, decider).await {
                tracing::debug!(%transaction, %error, "the decision about a transaction is forgotten later");
            }
        });
    }

    /// Ends the transactions that their coordinators have left: those prepared and not decided are not committed, those decided are concluded
    /// where they are not yet. Only what has been seen before, some time ago, was left.
    pub(crate) async fn end_left_transactions(&self) -> Result<(), Error> {
        for (transaction, decider, until_us) in self.left(self.prepared_parts()) {
            // What is known here may be old by now.
            self.read_barriers(self.data.keys().copied()).await?;
            if !self.prepared_parts().iter().any(|(id, ..)| *id == transaction) {
                continue;
            }
            let (commit, _) = self.decide_against(transaction, decider, until_us).await?;
            tracing::info!(%transaction, commit, "ending a transaction of several groups that was left");
            let joined = if commit { self.joined(transaction, decider).await? } else { Vec::new() };
            for (group, data) in &self.data {
                if data.reader().joint().prepared.contains_key(&transaction) {
                    self.conclude(*group, transaction, commit, &joined).await?;
                }
            }
        }
        for (transaction, decider, _) in self.left(self.open_decisions()) {
            self.conclude_everywhere(transaction, decider).await?;
            self.settle(transaction, decider).await?;
        }
        Ok(())
    }

    /// Concludes a transaction that is committed in all its groups: only then its decision may be forgotten.
    pub(crate) async fn conclude_everywhere(&self, transaction: StatementId, decider: GroupId) -> Result<(), Error> {
        let joined = self.joined(transaction, decider).await?;
        for part in &joined {
            self.conclude(part.group, transaction, true, &joined).await?;
        }
        Ok(())
    }

    /// Where a transaction that is committed is prepared; nothing once that is settled.
    async fn joined(&self, transaction: StatementId, decider: GroupId) -> Result<Vec<Joined>, Error> {
        let data = self.data_group(decider)?;
        self.read_barrier(&data.group).await?;
        let decisions = data.reader().decisions();
        Ok(decisions.get(&transaction).map(|decision| decision.joined.clone()).unwrap_or_default())
    }

    /// Whether there may be such transactions.
    pub(crate) fn has_left_transactions(&self) -> bool {
        !self.prepared_parts().is_empty() || !self.open_decisions().is_empty()
    }

    fn prepared_parts(&self) -> Vec<(StatementId, GroupId, i64)> {
        let parts = self.data.values().flat_map(|data| {
            let view = data.reader().joint();
            view.prepared.iter().map(|(id, part)| (*id, part.decider, part.until_us)).collect::<Vec<_>>()
        });
        parts.collect()
    }

    /// Decisions to commit that not everybody may have followed.
    fn open_decisions(&self) -> Vec<(StatementId, GroupId, i64)> {
        let open = self.data.iter().flat_map(|(group, data)| {
            let decisions = data.reader().decisions();
            let open = decisions.iter().filter(|(_, decision)| decision.commit);
            open.map(|(id, decision)| (*id, *group, decision.until_us)).collect::<Vec<_>>()
        });
        // The catalog has its own way to follow what is prepared there.
        let prepared = self.catalog().prepared;
        open.filter(|(transaction, ..)| Some(*transaction) != prepared).collect()
    }

    /// Those that this node has known for longer than their coordinators take.
    fn left(&self, known: Vec<(StatementId, GroupId, i64)>) -> Vec<(StatementId, GroupId, i64)> {
        let now = Instant::now();
        let mut since = self.open_since.lock();
        let is_known = |id: &StatementId| known.iter().any(|(known, ..)| known == id);
        since.retain(|id, first| is_known(id) || now.duration_since(*first) < 2 * COORDINATOR_WAIT);
        let mut left = known;
        left.retain(|(id, ..)| now.duration_since(*since.entry(*id).or_insert(now)) >= COORDINATOR_WAIT);
        left
    }
}

/// Cuts of several groups in which every transaction is whole or not at all.
pub(crate) struct JointCut {
    views: BTreeMap<GroupId, JointView>,
    begun: Instant,
}

impl JointCut {
    pub(crate) fn new() -> JointCut {
        JointCut { views: BTreeMap::new(), begun: Instant::now() }
    }

    /// The next try, after a moment; fails when the reader has waited for too long.
    pub(crate) async fn again(&mut self) -> Result<(), Error> {
        if self.begun.elapsed() > READER_WAIT {
            return Err(self.unfinished());
        }
        self.views.clear();
        tokio::time::sleep(LOOK_AGAIN).await;
        Ok(())
    }

    /// What the reader has waited for.
    fn unfinished(&self) -> Error {
        match self.views.iter().find(|(_, view)| !view.is_whole()) {
            Some((group, view)) => {
                let (from, applied) = (view.whole_from, view.applied);
                Error::Stale(format!("this node is behind in group {group}: it needs entry {from} and has {applied}"))
            }
            None => not_concluded(),
        }
    }

    pub(crate) fn add(&mut self, group: GroupId, view: JointView) {
        self.views.insert(group, view);
    }

    /// Whether a transaction was applied in one of them.
    pub(crate) fn shows(&self, transaction: &StatementId) -> bool {
        let mut traces = self.views.values().flat_map(|view| view.traces.iter());
        traces.any(|trace| trace.transaction == *transaction)
    }

    /// Takes what is not in all groups out of the snapshots of those that have it. False when that cannot be done: the reader looks again.
    pub(crate) fn make_whole(&self, snapshots: &mut [(GroupId, ShardSnapshot)]) -> bool {
        if !self.views.values().all(JointView::is_whole) {
            return false;
        }
        if self.views.len() < 2 {
            return true;
        }
        for (group, view) in &self.views {
            // What came with a snapshot, or is older than the traces, cannot be hidden: the others must have got as far.
            let is_behind =
                |(other, index): (&GroupId, &u64)| self.views.get(other).is_some_and(|v| v.applied < *index);
            if view.untraced.iter().any(is_behind) {
                return false;
            }
            for trace in view.traces.iter() {
                let others = || {
                    let others = trace.joined.iter().filter(|part| part.group != *group);
                    others.filter_map(|part| Some((part, self.views.get(&part.group)?)))
                };
                let lacks = |(part, view): (&Joined, &JointView)| view.lacks(&trace.transaction, part.index);
                if !others().any(lacks) {
                    continue;
                }
                let is_hidden =
                    |(part, view): (&Joined, &JointView)| lacks((part, view)) || view.has_trace_of(&trace.transaction);
                if !trace.can_be_hidden() || !others().all(is_hidden) {
                    return false;
                }
                let own = snapshots.iter_mut().filter(|(of, _)| of == group);
                own.for_each(|(_, snapshot)| trace.hide(snapshot));
            }
            // Decided before this node was started, and so without a trace.
            let is_decided = |id, decider: &GroupId| {
                self.views.get(decider).is_some_and(|view| {
                    view.decisions.get(id).is_some_and(|decision| decision.commit) && !view.has_trace_of(id)
                })
            };
            if view.prepared.iter().any(|(id, part)| is_decided(id, &part.decider)) {
                return false;
            }
        }
        true
    }
}

fn not_concluded() -> Error {
    Error::Stale("a transaction that is committed is not seen in all groups yet".into())
}

/// The transaction was not committed, whatever became of this part of it.
fn definite(error: Error) -> Error {
    match error {
        Error::Unknown(reason) => Error::Peer(format!("the transaction was not committed: {reason}")),
        error => error,
    }
}

/// What was decided is done by the node or its successor: its client is never told that it failed, also when the node stops.
pub(crate) fn goes_on(error: Error) -> Error {
    match error {
        Error::Unknown(_) => error,
        error => Error::Unknown(format!("the transaction goes on after: {error}")),
    }
}
