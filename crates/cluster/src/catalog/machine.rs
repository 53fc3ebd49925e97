//! The state machine of group 0.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use event::{Column, ColumnId, GroupId, SchemaVersion, ShardId, TableDefinition, TableId};
use parking_lot::RwLock;
use replication::{MachineCheckpoint, StateMachine};
use serde::{Deserialize, Serialize};
use storage::Error;
use storage::document::{decode_document, encode_document};

use super::command::{CatalogCommand, CatalogEntry, CatalogOutcome};
use super::{Catalog, ShardPlacement, Table, TableSpec};

const MAGIC: &[u8; 8] = b"ANNALCST";
const VERSION: u16 = 1;

/// PostgreSQL's first oid of a user's object.
const TABLE_ID_FIRST: u64 = 16384;
const SHARD_ID_FIRST: u64 = 1;

/// Where the newest catalog is found.
pub(crate) type PublishedCatalog = Arc<RwLock<Arc<Catalog>>>;

/// Applies catalog entries, and publishes the catalog after each.
pub(crate) struct CatalogMachine {
    state: CatalogState,
    published: PublishedCatalog,
}

/// Everything the catalog group decides about; the checkpoint is this in JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct CatalogState {
    next_table: u64,
    next_shard: u64,
    groups: Vec<GroupId>,
    tables: BTreeMap<TableId, TableState>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct TableState {
    stage: Stage,
    table: Arc<Table>,
}

/// How far the newest DDL job of a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// The name is taken, the shards are being made.
    Creating,
    /// In use.
    Public,
    /// The name is free, the shards are being dropped.
    Dropping,
}

impl CatalogMachine {
    pub(crate) fn new(published: PublishedCatalog) -> CatalogMachine {
        let state = CatalogState {
            next_table: TABLE_ID_FIRST,
            next_shard: SHARD_ID_FIRST,
            groups: Vec::new(),
            tables: BTreeMap::new(),
        };
        CatalogMachine { state, published }
    }

    /// Whether shards can be placed.
    pub(crate) fn is_founded(&self) -> bool {
        !self.state.groups.is_empty()
    }

    /// Jobs that have begun and not ended, in order of their tables.
    pub(crate) fn unfinished(&self) -> Vec<(Stage, Arc<Table>)> {
        let tables = self.state.tables.values();
        tables.filter(|t| t.stage != Stage::Public).map(|t| (t.stage, t.table.clone())).collect()
    }

    fn publish(&self, index: u64) {
        let public = self.state.tables.iter().filter(|(_, t)| t.stage == Stage::Public);
        let tables = public.map(|(id, t)| (*id, t.table.clone())).collect();
        *self.published.write() = Arc::new(Catalog { index, tables });
    }
}

impl CatalogState {
    fn apply(&mut self, command: &CatalogCommand) -> CatalogOutcome {
        match command {
            CatalogCommand::Found { groups } => {
                if self.groups.is_empty() {
                    self.groups = groups.clone();
                }
                CatalogOutcome::Done
            }
            CatalogCommand::Create { spec } => self.create(spec),
            CatalogCommand::Publish { table } => self.advance(*table, Stage::Creating, Stage::Public),
            CatalogCommand::Drop { table } => self.advance(*table, Stage::Public, Stage::Dropping),
            CatalogCommand::Forget { table } => match self.tables.get(table) {
                Some(found) if found.stage == Stage::Dropping => {
                    self.tables.remove(table);
                    CatalogOutcome::Done
                }
                Some(_) => CatalogOutcome::NoSuchTable,
                None => CatalogOutcome::Done,
            },
        }
    }

    fn create(&mut self, spec: &TableSpec) -> CatalogOutcome {
        let taken = |t: &TableState| {
            let definition = &t.table.definition;
            t.stage != Stage::Dropping && definition.namespace == spec.namespace && definition.name == spec.name
        };
        if self.tables.values().any(taken) {
            return CatalogOutcome::TableExists;
        }
        let id = TableId(self.next_table);
        self.next_table += 1;
        let shard = ShardId(self.next_shard);
        self.next_shard += 1;
        assert!(!self.groups.is_empty(), "the catalog is founded before its first table");
        let group = self.groups[(shard.0 % self.groups.len() as u64) as usize];
        let definition = Arc::new(define(id, spec));
        let table = Arc::new(Table { definition, shards: vec![ShardPlacement { shard, group }] });
        self.tables.insert(id, TableState { stage: Stage::Creating, table: table.clone() });
        CatalogOutcome::Table(table)
    }

    /// Takes the table from one stage to the next; being there already is fine, so that a job may be repeated.
    fn advance(&mut self, id: TableId, from: Stage, to: Stage) -> CatalogOutcome {
        match self.tables.get_mut(&id) {
            Some(found) if found.stage == from || found.stage == to => {
                found.stage = to;
                CatalogOutcome::Table(found.table.clone())
            }
            _ => CatalogOutcome::NoSuchTable,
        }
    }
}

/// The definition of a new table: columns are numbered from 1 in their order.
fn define(id: TableId, spec: &TableSpec) -> TableDefinition {
    let columns = spec.columns.iter().zip(1..).map(|(c, id)| Column { id: ColumnId(id), ..c.clone() });
    TableDefinition {
        id,
        namespace: spec.namespace.clone(),
        name: spec.name.clone(),
        version: SchemaVersion(1),
        columns: columns.collect(),
        primary_key: spec.primary_key.clone(),
        kind: spec.kind.clone(),
        compression: spec.compression,
        checks: spec.checks.clone(),
    }
}

impl StateMachine for CatalogMachine {
    type Statement = CatalogCommand;
    type Entry = CatalogEntry;
    type Outcome = CatalogOutcome;

    fn encode(time_us: i64, commands: Vec<CatalogCommand>) -> Result<(Bytes, CatalogEntry), Error> {
        let entry = CatalogEntry { time_us, commands };
        Ok((entry.encode()?, entry))
    }

    fn decode(bytes: &Bytes) -> Result<CatalogEntry, Error> {
        CatalogEntry::decode(bytes)
    }

    fn statement_bytes(command: &CatalogCommand) -> usize {
        const STEP_BYTES: usize = 64;
        const COLUMN_BYTES: usize = 128;
        match command {
            CatalogCommand::Create { spec } => {
                let text = |c: &Column| c.name.len() + c.default.as_ref().map_or(0, String::len);
                let checks: usize = spec.checks.iter().map(|check| check.name.len() + check.expression.len()).sum();
                STEP_BYTES + spec.columns.iter().map(|c| COLUMN_BYTES + text(c)).sum::<usize>() + checks
            }
            _ => STEP_BYTES,
        }
    }

    fn makes_room(command: &CatalogCommand) -> bool {
        !matches!(command, CatalogCommand::Create { .. })
    }

    fn time_us(entry: &CatalogEntry) -> i64 {
        entry.time_us
    }

    fn is_cut(_: &CatalogEntry) -> bool {
        false
    }

    fn apply(&mut self, index: u64, entry: &CatalogEntry) -> Result<Vec<CatalogOutcome>, Error> {
        let outcomes = entry.commands.iter().map(|command| self.state.apply(command)).collect();
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
