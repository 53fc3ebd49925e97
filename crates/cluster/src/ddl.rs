//! What DDL does to shards, and the steps that are left when somebody stopped between two of them (architecture, D15).

use std::sync::{Arc, Weak};
use std::time::Duration;

use event::{GroupId, StatementId, TableId};
use storage::command::SchemaChange;
use storage::{Command, Outcome};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::catalog::Table;
use crate::catalog::command::{CatalogCommand, CatalogOutcome};
use crate::catalog::machine::CatalogMachine;
use crate::catalog::state::Stage;
use crate::error::Error;
use crate::node::Node;
use crate::write::Commit;

/// How long another node that has prepared a transaction may take to end it, before somebody else does.
const COORDINATOR_WAIT: Duration = Duration::from_secs(2);
/// How often the leader of the catalog looks for jobs that were left.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Takes up left jobs until the node stops or is gone. Apart from everything else: a group without a leader holds this up, and nothing more.
pub(crate) async fn run(node: Weak<Node>, mut stop: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stop.changed() => return,
        }
        let Some(node) = node.upgrade() else { return };
        let resumed = tokio::select! {
            resumed = node.resume_left_jobs() => resumed,
            _ = stop.changed() => return,
        };
        if let Err(error) = resumed {
            tracing::debug!(%error, "could not take up what was left; trying again");
        }
    }
}

impl Node {
    /// Takes up what a crash or an error left between two steps.
    async fn resume_jobs(&self) -> Result<(), Error> {
        let _turn = self.ddl.acquire().await.expect("the semaphore is never closed");
        self.end_prepared().await?;
        self.end_left_transactions().await?;
        for (stage, table) in self.left_tables().await? {
            tracing::info!(table = table.definition.name, ?stage, "dropping what is left of a table");
            if stage == Stage::Hidden {
                self.discard(table.definition.id).await?;
            } else {
                self.finish_drop(&table).await?;
            }
        }
        Ok(())
    }

    /// Jobs whose coordinator gave up between two steps; none is running while a turn is free.
    pub(crate) async fn resume_left_jobs(&self) -> Result<(), Error> {
        let idle = self.catalog.leads() && self.ddl.available_permits() > 0;
        if !idle || !self.has_unfinished_jobs().await? {
            return Ok(());
        }
        self.resume_jobs().await
    }

    async fn has_unfinished_jobs(&self) -> Result<bool, Error> {
        let prepared = self.catalog().prepared.is_some();
        Ok(prepared || self.has_left_transactions() || !self.left_tables().await?.is_empty())
    }

    /// Tables that nobody sees, and that no node is making.
    async fn left_tables(&self) -> Result<Vec<(Stage, Arc<Table>)>, Error> {
        let own = (self.identity.node, self.identity.boot);
        let unseen = self.catalog.inspect(move |machine| {
            let state = machine.state();
            let of = |(stage, table): (Stage, Arc<Table>)| {
                let id = table.definition.id;
                (stage, table, state.is_made_by(id, own), state.is_left(id))
            };
            state.unseen().into_iter().map(of).collect::<Vec<_>>()
        });
        let unseen = unseen.await?;
        let hidden = self.hidden.lock();
        let is_left = |stage: Stage, table: &Table, own: bool, left: bool| {
            stage != Stage::Hidden || if own { !hidden.contains(&table.definition.id) } else { left }
        };
        let left = unseen.into_iter().filter(|(stage, table, own, left)| is_left(*stage, table, *own, *left));
        Ok(left.map(|(stage, table, ..)| (stage, table)).collect())
    }

    /// Ends the transaction that is prepared, as its group has decided; one that nobody has decided about is not committed. To be called
    /// by who has the turn. Answers whether it is committed, when there is one.
    pub(crate) async fn end_prepared(&self) -> Result<Option<bool>, Error> {
        let Some(prepared) = self.catalog().prepared else { return Ok(None) };
        if prepared.node != self.identity.node && self.ends_by_itself(prepared).await {
            return Ok(None);
        }
        let Some(prepared) = self.catalog.inspect(CatalogMachine::prepared).await? else { return Ok(None) };
        let (transaction, group) = (prepared.transaction, prepared.group);
        let (commit, _) = self.decide_against(transaction, group, prepared.until_us).await?;
        tracing::info!(%transaction, commit, "ending a transaction that was left");
        if commit {
            self.conclude_everywhere(transaction, group).await?;
        }
        self.end(transaction, group, commit).await?;
        Ok(Some(commit))
    }

    /// Gives the coordinator of a transaction the time to end it.
    async fn ends_by_itself(&self, transaction: StatementId) -> bool {
        let ended = async {
            while self.catalog().prepared == Some(transaction) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(COORDINATOR_WAIT, ended).await.is_ok()
    }

    /// Ends the transaction that is prepared, if there is one, before somebody sees half of it.
    pub(crate) async fn settle_prepared(&self) -> Result<(), Error> {
        let _turn = self.ddl.acquire().await.expect("the semaphore is never closed");
        self.end_prepared().await.map(drop)
    }

    /// Lets the catalog follow the decision about a transaction.
    pub(crate) async fn end(&self, transaction: StatementId, group: GroupId, commit: bool) -> Result<(), Error> {
        match self.propose_catalog(CatalogCommand::End { transaction, commit }).await? {
            CatalogOutcome::Done => {}
            refused => return Err(defect(format!("transaction {transaction} cannot end: {refused:?}"))),
        }
        if let Err(error) = self.settle(transaction, group).await {
            tracing::warn!(%transaction, %error, "the decision about a transaction is forgotten later");
        }
        Ok(())
    }

    pub(crate) async fn settle(&self, transaction: StatementId, group: GroupId) -> Result<(), Error> {
        self.change_shards(group, vec![Command::Settle { transaction }]).await.map(drop)
    }

    /// Drops a table that was never published.
    pub(crate) async fn discard(&self, table: TableId) -> Result<(), Error> {
        match self.propose_catalog(CatalogCommand::Discard { table }).await? {
            CatalogOutcome::Table(table) => self.finish_drop(&table).await,
            // It is published, or may be.
            _ => Ok(()),
        }
    }

    /// Gives the definition to all shards.
    pub(crate) async fn put(&self, table: &Arc<Table>) -> Result<(), Error> {
        for placement in &table.shards {
            let change = SchemaChange::Put { shard: placement.shard, table: table.definition.clone() };
            self.change_shards(placement.group, vec![Command::Schema(change)]).await?;
        }
        Ok(())
    }

    /// Drops the shards of a table, and forgets it.
    pub(crate) async fn finish_drop(&self, table: &Arc<Table>) -> Result<(), Error> {
        for placement in &table.shards {
            let change = SchemaChange::Drop { shard: placement.shard };
            self.change_shards(placement.group, vec![Command::Schema(change)]).await?;
        }
        match self.propose_catalog(CatalogCommand::Forget { table: table.definition.id }).await? {
            CatalogOutcome::Done => Ok(()),
            refused => Err(defect(format!("table {} cannot be forgotten: {refused:?}", table.definition.id))),
        }
    }

    /// Commands that no shard refuses unless something is wrong, or another decision was first.
    pub(crate) async fn change_shards(&self, group: GroupId, commands: Vec<Command>) -> Result<Commit, Error> {
        match self.propose_to_shards(group, commands).await? {
            (Outcome::Done { rows }, index) => Ok(Commit { rows, positions: vec![(group, index)] }),
            (Outcome::Conflict, _) => Err(Error::Conflict),
            (refused, _) => Err(defect(format!("a change of shards of group {group}: {refused:?}"))),
        }
    }

    async fn propose_to_shards(&self, group: GroupId, commands: Vec<Command>) -> Result<(Outcome, u64), Error> {
        let proposed = self.propose(group, commands).await?;
        Ok((proposed.outcome, proposed.index))
    }
}

/// A state machine refused what its own state had asked for.
pub(crate) fn defect(reason: String) -> Error {
    Error::Storage(storage::Error::Decode { what: "the outcome of a command", reason })
}
