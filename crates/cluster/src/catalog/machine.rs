//! The state machine of group 0.

use std::sync::Arc;

use bytes::Bytes;
use event::{Check, Column, Origin};
use parking_lot::RwLock;
use replication::{MachineCheckpoint, StateMachine};
use storage::Error;
use storage::document::{decode_document, encode_document};

use super::command::{CatalogChange, CatalogCommand, CatalogEntry, CatalogOutcome, CatalogStatement};
use super::state::{CatalogState, Prepared};
use super::{Catalog, View};

const MAGIC: &[u8; 8] = b"ANNALCST";
const VERSION: u16 = 1;

/// Where the newest catalog is found.
pub(crate) type PublishedCatalog = Arc<RwLock<Arc<Catalog>>>;

/// Applies catalog entries, and publishes the catalog after each.
pub(crate) struct CatalogMachine {
    state: CatalogState,
    published: PublishedCatalog,
}

impl CatalogMachine {
    pub(crate) fn new(published: PublishedCatalog) -> CatalogMachine {
        CatalogMachine { state: CatalogState::new(), published }
    }

    /// What the group has decided.
    pub(crate) fn state(&self) -> &CatalogState {
        &self.state
    }

    /// A copy of it, with the index of the catalog that shows it.
    pub(crate) fn with_index(&self) -> (CatalogState, u64) {
        (self.state.clone(), self.published.read().index)
    }

    /// The transaction that waits for the decision of its group.
    pub(crate) fn prepared(&self) -> Option<Prepared> {
        self.state.prepared().cloned()
    }

    fn publish(&self, index: u64) {
        *self.published.write() = Arc::new(self.state.catalog(index));
    }
}

/// About what columns and constraints take in an entry.
fn written_bytes(columns: &[Column], checks: &[Check]) -> usize {
    const COLUMN_BYTES: usize = 128;
    let text = |c: &Column| c.name.len() + c.default.as_ref().map_or(0, String::len);
    let columns: usize = columns.iter().map(|c| COLUMN_BYTES + text(c)).sum();
    columns + checks.iter().map(|check| check.name.len() + check.expression.len()).sum::<usize>()
}

/// About what a change takes in an entry.
fn change_bytes(change: &CatalogChange) -> usize {
    match change {
        CatalogChange::Alter { next } => written_bytes(&next.columns, &next.checks),
        CatalogChange::CreateView { view, replaces, .. } => {
            let bytes = |view: &View| written_bytes(&view.columns, &[]) + view.query.len();
            bytes(view) + replaces.as_deref().map_or(0, bytes)
        }
        CatalogChange::Comment { text, .. } => text.as_ref().map_or(0, String::len),
        _ => 0,
    }
}

impl StateMachine for CatalogMachine {
    type Statement = CatalogStatement;
    type Entry = CatalogEntry;
    type Outcome = CatalogOutcome;

    fn encode(time_us: i64, statements: Vec<CatalogStatement>) -> Result<(Bytes, CatalogEntry), Error> {
        let (origins, commands) = statements.into_iter().map(|s| (s.origin, s.command)).unzip();
        let entry = CatalogEntry { time_us, commands, origins };
        Ok((entry.encode()?, entry))
    }

    fn statements(entry: CatalogEntry) -> Vec<CatalogStatement> {
        let statements = entry.commands.into_iter().zip(entry.origins);
        statements.map(|(command, origin)| CatalogStatement { origin, command }).collect()
    }

    fn decode(bytes: &Bytes) -> Result<CatalogEntry, Error> {
        CatalogEntry::decode(bytes)
    }

    fn statement_bytes(statement: &CatalogStatement) -> usize {
        const STEP_BYTES: usize = 64;
        match &statement.command {
            CatalogCommand::Create { spec, .. } => STEP_BYTES + written_bytes(&spec.columns, &spec.checks),
            CatalogCommand::Apply { changes } | CatalogCommand::Prepare { changes, .. } => {
                STEP_BYTES + changes.iter().map(|change| STEP_BYTES + change_bytes(change)).sum::<usize>()
            }
            _ => STEP_BYTES,
        }
    }

    fn origins(entry: &CatalogEntry) -> Vec<Option<Origin>> {
        (0..entry.commands.len()).map(|place| entry.origins.get(place).copied()).collect()
    }

    fn makes_room(statement: &CatalogStatement) -> bool {
        use CatalogChange::{Alter, Comment, CreateView};
        let grows =
            |change: &CatalogChange| matches!(change, Alter { .. } | CreateView { .. } | Comment { text: Some(_), .. });
        match &statement.command {
            CatalogCommand::Create { .. } => false,
            CatalogCommand::Apply { changes } | CatalogCommand::Prepare { changes, .. } => !changes.iter().any(grows),
            _ => true,
        }
    }

    fn time_us(entry: &CatalogEntry) -> i64 {
        entry.time_us
    }

    fn is_cut(_: &CatalogEntry) -> bool {
        false
    }

    fn apply(
        &mut self,
        index: u64,
        entry: &CatalogEntry,
        wanted: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Option<CatalogOutcome>>, Error> {
        let commands = entry.commands.iter().enumerate();
        let outcomes = commands.map(|(place, command)| wanted(place).then(|| self.state.apply(command))).collect();
        self.publish(index);
        Ok(outcomes)
    }

    fn advance(&mut self, _index: u64) {}

    fn checkpoint(&self, applied: u64) -> Result<Option<MachineCheckpoint>, Error> {
        let state = encode_document(MAGIC, VERSION, &self.state)?.into();
        Ok(Some(MachineCheckpoint { index: applied, state }))
    }

    fn checkpoint_index(&self, applied: u64) -> Option<u64> {
        Some(applied)
    }

    fn checkpoint_saved(&mut self, _index: u64) {}

    fn restore(&mut self, index: u64, state: Bytes) -> Result<(), Error> {
        self.state = decode_document(MAGIC, VERSION, &state)?;
        self.publish(index);
        Ok(())
    }
}
