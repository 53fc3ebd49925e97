//! Transaction blocks: BEGIN to COMMIT, savepoints, isolation, and the rows a block has written.
//!
//! A block's writes are one [`WriteSet`], committed as one entry; its DDL is staged beside it, see [`super::changing`]. A savepoint marks a place in it; going back to one takes back what was
//! written since. Who writes holds the set, so that a statement that is dropped half way leaves it to the block, to be rolled back to a
//! savepoint.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cluster::{CatalogChanges, ChangesMark, Commit, Mark, WriteSet};
use datafusion::sql::sqlparser::ast::{
    ObjectType, SetExpr, Statement as Ast, TransactionAccessMode, TransactionIsolationLevel, TransactionMode,
};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::settings::Settings;
use super::{Block, Outcome, Session, tokens};
use crate::error::{Condition, Error};
use crate::table::Snapshots;

/// A block's write set in the hands of the statement that writes.
pub(crate) type Writing = OwnedMutexGuard<WriteSet>;

/// How much a block sees of others' commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Isolation {
    /// As READ COMMITTED.
    ReadUncommitted,
    /// Each statement sees what was committed before it.
    #[default]
    ReadCommitted,
    /// Every statement sees what was committed before the first.
    RepeatableRead,
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isolation::ReadUncommitted => "read uncommitted",
            Isolation::ReadCommitted => "read committed",
            Isolation::RepeatableRead => "repeatable read",
        })
    }
}

/// The characteristics of a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Modes {
    isolation: Isolation,
    read_only: bool,
}

impl Modes {
    /// What `default_transaction_isolation` and `default_transaction_read_only` say.
    fn default_of(settings: &Settings) -> Modes {
        let isolation = match settings.get("default_transaction_isolation").as_deref() {
            Some("read uncommitted") => Isolation::ReadUncommitted,
            Some("repeatable read") => Isolation::RepeatableRead,
            _ => Isolation::ReadCommitted,
        };
        let read_only = settings.get("default_transaction_read_only").as_deref() == Some("on");
        Modes { isolation, read_only }
    }

    /// These with what a statement says.
    fn with(mut self, said: &[TransactionMode]) -> Result<Modes, Error> {
        for mode in said {
            match mode {
                TransactionMode::AccessMode(access) => self.read_only = *access == TransactionAccessMode::ReadOnly,
                TransactionMode::IsolationLevel(level) => self.isolation = isolation(*level)?,
            }
        }
        Ok(self)
    }
}

fn isolation(level: TransactionIsolationLevel) -> Result<Isolation, Error> {
    Ok(match level {
        TransactionIsolationLevel::ReadUncommitted => Isolation::ReadUncommitted,
        TransactionIsolationLevel::ReadCommitted => Isolation::ReadCommitted,
        TransactionIsolationLevel::RepeatableRead => Isolation::RepeatableRead,
        TransactionIsolationLevel::Serializable | TransactionIsolationLevel::Snapshot => {
            return Err(Error::hinted(
                Condition::FeatureNotSupported,
                format!("isolation level {level} is not supported"),
                "Use REPEATABLE READ.",
            ));
        }
    })
}

/// A savepoint: what to go back to.
pub(super) struct Savepoint {
    name: String,
    /// `None` when the block had not written.
    mark: Option<Mark>,
    /// `None` when the block had not changed the catalog.
    changes: Option<ChangesMark>,
    settings: Settings,
    modes: Modes,
}

impl Session {
    pub(super) fn is_read_only(&self) -> bool {
        self.current_modes().read_only
    }

    pub(super) fn isolation(&self) -> Isolation {
        self.current_modes().isolation
    }

    fn current_modes(&self) -> Modes {
        match self.block {
            Block::Explicit { .. } => self.modes,
            Block::None | Block::Implicit => Modes::default_of(&self.settings.lock()),
        }
    }

    /// Before each statement: a transaction that only reads writes nothing, and one that reads repeatably takes its snapshots.
    pub(super) async fn note_begun(&mut self, ast: &Ast) -> Result<(), Error> {
        let writes = writing(ast);
        if let Some(what) = writes
            && self.is_read_only()
        {
            let message = format!("cannot execute {what} in a read-only transaction");
            return Err(Error::report(Condition::ReadOnlyTransaction, message));
        }
        let reads = matches!(ast, Ast::Query(_) | Ast::Explain { .. } | Ast::Copy { .. } | Ast::Declare { .. });
        if writes.is_none() && !reads {
            return Ok(());
        }
        let explicit = matches!(self.block, Block::Explicit { .. });
        self.begun = explicit;
        if explicit && self.modes.isolation == Isolation::RepeatableRead && self.pinned.is_none() {
            let catalog = self.engine.node().catalog();
            let snapshots = self.engine.node().cut(&catalog).await?;
            self.pinned = Some(Arc::new(Snapshots::pinned(Arc::clone(self.engine.node()), snapshots)));
        }
        Ok(())
    }

    // Blocks

    pub(super) fn begin(&mut self, said: &[TransactionMode]) -> Result<Outcome, Error> {
        let modes = self.current_modes().with(said)?;
        if matches!(self.block, Block::Explicit { .. }) {
            self.notice("WARNING", "25001", "there is already a transaction in progress");
        } else {
            self.block = Block::Explicit { failed: false };
            self.started = Some(chrono::Utc::now());
            self.modes = modes;
            self.begun = false;
        }
        Ok(Outcome::Done("BEGIN".to_owned()))
    }

    pub(super) async fn commit(&mut self, chain: bool) -> Result<Outcome, Error> {
        self.check_chain("COMMIT", chain)?;
        if self.block == (Block::Explicit { failed: true }) {
            return self.rollback(chain);
        }
        if !matches!(self.block, Block::Explicit { .. }) {
            self.notice("WARNING", "25P01", "there is no transaction in progress");
        }
        let modes = self.modes;
        if let Err(error) = Box::pin(self.hold_cursors()).await {
            self.rollback(false)?;
            return Err(error);
        }
        let outcome = self.commit_writes().await;
        self.end_block(outcome.is_ok());
        outcome?;
        self.chain(chain, modes);
        Ok(Outcome::Done("COMMIT".to_owned()))
    }

    pub(super) fn rollback(&mut self, chain: bool) -> Result<Outcome, Error> {
        self.check_chain("ROLLBACK", chain)?;
        if !matches!(self.block, Block::Explicit { .. }) {
            self.notice("WARNING", "25P01", "there is no transaction in progress");
        }
        let modes = self.modes;
        self.writes = None;
        self.drop_changes();
        self.end_block(false);
        self.chain(chain, modes);
        Ok(Outcome::Done("ROLLBACK".to_owned()))
    }

    /// Forgets everything of the open block but what it committed.
    pub(super) fn end_block(&mut self, committed: bool) {
        self.block = Block::None;
        self.savepoints.clear();
        self.on_commit_drop.clear();
        self.end_cursors(committed);
        self.begun = false;
        if self.pinned.take().is_some() {
            // A plan made in the block reads its snapshots.
            self.written += 1;
        }
        self.settings.lock().end_transaction(committed);
    }

    fn check_chain(&self, what: &str, chain: bool) -> Result<(), Error> {
        if chain { self.refuse_outside_block(&format!("{what} AND CHAIN")) } else { Ok(()) }
    }

    /// AND CHAIN: the next block begins at once, with the same characteristics.
    fn chain(&mut self, chain: bool, modes: Modes) {
        if chain {
            self.block = Block::Explicit { failed: false };
            self.started = Some(chrono::Utc::now());
            self.modes = modes;
        }
    }

    /// SET TRANSACTION, SET SESSION CHARACTERISTICS.
    pub(super) fn set_transaction(&mut self, said: &[TransactionMode], session: bool) -> Result<(), Error> {
        if session {
            let defaults = Modes::default_of(&self.settings.lock()).with(said)?;
            let read_only = if defaults.read_only { "on" } else { "off" };
            let mut settings = self.settings.lock();
            settings.set("default_transaction_isolation", &defaults.isolation.to_string())?;
            settings.set("default_transaction_read_only", read_only)?;
            drop(settings);
            self.end_single();
            return Ok(());
        }
        if !matches!(self.block, Block::Explicit { .. }) {
            self.notice("WARNING", "25P01", "SET TRANSACTION can only be used in transaction blocks");
            return Ok(());
        }
        let modes = self.modes.with(said)?;
        if self.begun && modes.isolation != self.modes.isolation {
            let message = "SET TRANSACTION ISOLATION LEVEL must be called before any query";
            return Err(Error::report(Condition::ActiveTransaction, message));
        }
        if self.begun && self.modes.read_only && !modes.read_only {
            let message = "transaction read-write mode must be set before any query";
            return Err(Error::report(Condition::ActiveTransaction, message));
        }
        self.modes = modes;
        Ok(())
    }

    fn refuse_outside_block(&self, what: &str) -> Result<(), Error> {
        if matches!(self.block, Block::Explicit { .. }) {
            return Ok(());
        }
        Err(Error::report(Condition::NoActiveTransaction, format!("{what} can only be used in transaction blocks")))
    }

    // Savepoints

    pub(super) async fn savepoint(&mut self, name: String) -> Result<Outcome, Error> {
        self.refuse_outside_block("SAVEPOINT")?;
        let mark = match &self.writes {
            Some(writes) => Some(writes.lock().await.mark()),
            None => None,
        };
        let settings = self.settings.lock().clone();
        let changes = self.changes.as_ref().map(CatalogChanges::mark);
        self.savepoints.push(Savepoint { name, mark, changes, settings, modes: self.modes });
        Ok(Outcome::Done("SAVEPOINT".to_owned()))
    }

    /// ROLLBACK TO: takes back what was done since, keeps the savepoint, forgets those after it, and heals a failed block.
    pub(super) async fn roll_back_to(&mut self, name: &str) -> Result<Outcome, Error> {
        self.refuse_outside_block("ROLLBACK TO SAVEPOINT")?;
        let at = self.savepoint_named(name)?;
        self.savepoints.truncate(at + 1);
        self.roll_back_cursors(at);
        let Savepoint { mark, changes, settings, modes, .. } = &self.savepoints[at];
        self.settings.lock().return_to(settings);
        self.modes = *modes;
        match (&self.writes, mark) {
            (Some(writes), Some(mark)) => writes.lock().await.roll_back_to(mark).await?,
            _ => self.writes = None,
        }
        match (&mut self.changes, *changes) {
            (Some(changes), Some(mark)) => changes.roll_back_to(mark),
            _ => self.changes = None,
        }
        self.show_changes();
        self.block = Block::Explicit { failed: false };
        Ok(Outcome::Done("ROLLBACK".to_owned()))
    }

    pub(super) fn release(&mut self, name: &str) -> Result<Outcome, Error> {
        self.refuse_outside_block("RELEASE SAVEPOINT")?;
        let at = self.savepoint_named(name)?;
        self.savepoints.truncate(at);
        self.release_cursors(at);
        Ok(Outcome::Done("RELEASE".to_owned()))
    }

    /// The newest savepoint of that name.
    fn savepoint_named(&self, name: &str) -> Result<usize, Error> {
        self.savepoints
            .iter()
            .rposition(|savepoint| savepoint.name == name)
            .ok_or_else(|| Error::report(Condition::InvalidSavepoint, format!("savepoint \"{name}\" does not exist")))
    }

    // What the block wrote

    /// The write set of the open block, or a new one. Waits until a COPY that was cancelled has let go of it.
    pub(super) async fn take_writes(&mut self) -> Writing {
        let engine = &self.engine;
        let begin = || Arc::new(Mutex::new(engine.node().begin_for(self.client)));
        let writes = self.writes.get_or_insert_with(begin);
        Arc::clone(writes).lock_owned().await
    }

    /// Keeps the rows of a statement for the block's COMMIT, or commits them now.
    pub(crate) async fn finish_write(&mut self, writes: Writing) -> Result<(), Error> {
        let is_keyed = writes.is_keyed();
        drop(writes);
        self.written += 1;
        match self.block {
            Block::None => self.commit_writes().await,
            // Drivers take an error that only COMMIT finds, which is Sync for them, for the end of the connection.
            Block::Explicit { .. } | Block::Implicit if is_keyed => Box::pin(self.check_keys()).await,
            Block::Explicit { .. } | Block::Implicit => Ok(()),
        }
    }

    pub(super) async fn commit_writes(&mut self) -> Result<(), Error> {
        if self.writes.is_none() && self.changes.is_none() {
            return Ok(());
        }
        if !self.on_commit_drop.is_empty() {
            Box::pin(self.drop_on_commit()).await?;
        }
        // Most write to no table with keys. What is still held is looked at when it is free.
        let keyed =
            self.writes.as_ref().is_some_and(|writes| writes.try_lock().map_or(true, |writes| writes.is_keyed()));
        let settled = match keyed {
            true => Box::pin(self.settle_keys()).await,
            false => Ok(Vec::new()),
        };
        let demanded = match (&settled, &self.changes) {
            (Ok(_), Some(_)) => Box::pin(self.settle_demands()).await,
            _ => Ok(()),
        };
        let (writes, changes) = (self.writes.take(), self.changes.take());
        if changes.is_some() {
            self.show_changes();
        }
        let _turns = settled?;
        demanded?;
        // Nobody holds it but a COPY that failed, and the block of that is never committed.
        let free = |writes| {
            let stopped =
                || Error::report(Condition::Internal, "a statement of the transaction is still being stopped");
            Arc::into_inner(writes).map(Mutex::into_inner).ok_or_else(stopped)
        };
        let writes = writes.map(free).transpose()?.filter(|writes| !writes.is_empty());
        self.committing.store(true, Ordering::SeqCst);
        let outcome = match (changes, writes) {
            (Some(changes), writes) => Box::pin(changes.commit(writes)).await,
            (None, Some(writes)) => writes.commit().await,
            (None, None) => Ok(Commit::default()),
        };
        self.committing.store(false, Ordering::SeqCst);
        self.note_commit(&outcome?);
        Ok(())
    }

    /// What was committed is seen by this session from now on, and by those that are given its token.
    fn note_commit(&mut self, commit: &Commit) {
        if commit.positions.is_empty() {
            return;
        }
        for (group, index) in &commit.positions {
            tokens::add(&mut self.written_up_to, *group, *index);
        }
        let last = commit.positions.iter().copied().collect();
        self.settings.lock().tell("annal.last_commit", tokens::write(&last));
    }
}

/// What a statement that writes is called.
fn writing(ast: &Ast) -> Option<&'static str> {
    Some(match ast {
        Ast::Insert(_) => "INSERT",
        Ast::Update(_) => "UPDATE",
        Ast::Delete(_) => "DELETE",
        Ast::Query(query) => match query.body.as_ref() {
            SetExpr::Delete(_) => "DELETE",
            SetExpr::Update(_) => "UPDATE",
            _ => return None,
        },
        Ast::Copy { to: false, .. } => "COPY FROM",
        Ast::CreateTable(_) => "CREATE TABLE",
        Ast::CreateView { .. } => "CREATE VIEW",
        Ast::CreateSchema { .. } => "CREATE SCHEMA",
        Ast::AlterTable(_) => "ALTER TABLE",
        Ast::Comment { .. } => "COMMENT",
        Ast::Truncate(_) => "TRUNCATE TABLE",
        Ast::Drop { object_type: ObjectType::Table, .. } => "DROP TABLE",
        Ast::Drop { object_type: ObjectType::View, .. } => "DROP VIEW",
        Ast::Drop { object_type: ObjectType::Schema, .. } => "DROP SCHEMA",
        _ => return None,
    })
}
