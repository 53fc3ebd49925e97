//! DDL in transactions: what a statement changes in the catalog is staged, seen by this session alone, and made at COMMIT.

use std::fmt;
use std::sync::{Arc, Weak};

use cluster::{Catalog, CatalogChanges, Table};
use parking_lot::Mutex;

use super::{Block, Session};
use crate::engine::Engine;
use crate::error::Error;

/// The catalog as a session sees it, for its functions.
#[derive(Clone)]
pub(crate) struct Visible {
    engine: Weak<Engine>,
    /// With what the open transaction has changed, when it has.
    changed: Arc<Mutex<Option<Arc<Catalog>>>>,
}

impl Visible {
    pub(crate) fn new(engine: &Arc<Engine>) -> Visible {
        Visible { engine: Arc::downgrade(engine), changed: Arc::default() }
    }

    /// The engine, unless it has ended.
    pub(crate) fn engine(&self) -> Option<Arc<Engine>> {
        self.engine.upgrade()
    }

    /// What the session sees now.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        let changed = self.changed.lock().clone();
        changed.unwrap_or_else(|| self.engine().map_or_else(Arc::default, |engine| engine.node().catalog()))
    }
}

impl fmt::Debug for Visible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Visible").finish_non_exhaustive()
    }
}

impl Session {
    /// The catalog as the session sees it.
    pub(super) fn visible(&self) -> Arc<Catalog> {
        self.visible.catalog()
    }

    /// Before a statement: what was changed in the transaction follows what others have changed.
    ///
    /// # Errors
    /// When both do not go together.
    pub(super) async fn rebase_changes(&mut self) -> Result<(), Error> {
        if let Some(changes) = &mut self.changes {
            changes.rebase().await?;
            self.show_changes();
        }
        Ok(())
    }

    /// What the transaction changes in the catalog, to change more.
    pub(super) async fn changing(&mut self) -> Result<&mut CatalogChanges, Error> {
        let begun = match self.changes {
            Some(_) => None,
            None => Some(self.engine.node().changes().await?),
        };
        let changes = match begun {
            Some(begun) => self.changes.insert(begun),
            None => self.changes.as_mut().expect("it was there just now"),
        };
        changes.rebase().await?;
        Ok(changes)
    }

    /// After a change: keeps it for COMMIT, or commits it now.
    pub(super) async fn changed<T>(&mut self, outcome: Result<T, cluster::Error>) -> Result<T, Error> {
        self.show_changes();
        match outcome {
            Ok(done) if self.block == Block::None => Box::pin(self.commit_writes()).await.map(|()| done),
            Ok(done) => Ok(done),
            Err(error) => {
                if self.block == Block::None {
                    self.drop_changes();
                }
                Err(error.into())
            }
        }
    }

    /// Before COMMIT: drops the temporary tables that were made for the transaction alone.
    pub(super) async fn drop_on_commit(&mut self) -> Result<(), Error> {
        for id in std::mem::take(&mut self.on_commit_drop) {
            // It may have gone with a savepoint.
            if self.visible().tables.contains_key(&id) {
                let changes = self.changing().await?;
                changes.drop_readers(id)?;
                changes.drop_table(id)?;
                self.show_changes();
            }
        }
        Ok(())
    }

    /// After ALTER TABLE: rows that the transaction has written follow the definition.
    pub(super) async fn follow(&mut self, table: &Arc<Table>) -> Result<(), Error> {
        match &self.writes {
            Some(writes) => Ok(writes.lock().await.follow(table)?),
            None => Ok(()),
        }
    }

    /// Takes back what the transaction has changed in the catalog.
    pub(super) fn drop_changes(&mut self) {
        self.on_commit_drop.clear();
        if self.changes.take().is_some() {
            self.show_changes();
        }
    }

    /// Shows what was changed to whatever looks at the catalog. Plans made before are of another one.
    pub(super) fn show_changes(&mut self) {
        let changed = self.changes.as_ref().map(|changes| Arc::clone(changes.catalog()));
        *self.visible.changed.lock() = changed;
        self.known_checks = None;
        self.written += 1;
    }
}
