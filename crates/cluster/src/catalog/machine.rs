//! The state machine of group 0.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use event::{Check, Column, ColumnId, GroupId, SchemaVersion, ShardId, TableDefinition, TableId};
use parking_lot::RwLock;
use replication::{MachineCheckpoint, StateMachine};
use serde::{Deserialize, Serialize};
use storage::Error;
use storage::document::{decode_document, encode_document};

use super::command::{CatalogCommand, CatalogEntry, CatalogOutcome};
use super::view::{losers, reaches, readers};
use super::{Catalog, Comments, PUBLIC_SCHEMA, ShardPlacement, Table, TableSpec, View};

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
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    views: BTreeMap<TableId, Arc<View>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    comments: BTreeMap<TableId, Arc<Comments>>,
    /// The next number of each identity column, from 0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    numbers: BTreeMap<TableId, BTreeMap<ColumnId, u64>>,
    /// Schemas besides `public`; their ids are of one range with those of tables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    schemas: BTreeMap<String, TableId>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct TableState {
    stage: Stage,
    table: Arc<Table>,
    /// What the definition is becoming, while altering.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<Arc<TableDefinition>>,
}

/// How far the newest DDL job of a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// The name is taken, the shards are being made.
    Creating,
    /// The name is taken, the shards are being made and filled; without who fills them the table goes.
    Filling,
    /// In use.
    Public,
    /// In use as it was, the shards are being given the next definition.
    Altering,
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
            views: BTreeMap::new(),
            comments: BTreeMap::new(),
            numbers: BTreeMap::new(),
            schemas: BTreeMap::new(),
        };
        CatalogMachine { state, published }
    }

    /// Whether shards can be placed.
    pub(crate) fn is_founded(&self) -> bool {
        !self.state.groups.is_empty()
    }

    /// Jobs that have begun and not ended, in order of their tables.
    ///
    /// A table that is being altered comes with its next definition.
    pub(crate) fn unfinished(&self) -> Vec<(Stage, Arc<Table>)> {
        let tables = self.state.tables.values();
        tables.filter(|t| t.stage != Stage::Public).map(|t| (t.stage, t.coming())).collect()
    }

    fn publish(&self, index: u64) {
        let public = self.state.tables.iter().filter(|(_, t)| matches!(t.stage, Stage::Public | Stage::Altering));
        let tables = public.map(|(id, t)| (*id, t.table.clone())).collect();
        let CatalogState { views, comments, schemas, .. } = &self.state;
        let (views, comments, schemas) = (views.clone(), comments.clone(), schemas.clone());
        *self.published.write() = Arc::new(Catalog { index, tables, views, comments, schemas });
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
            CatalogCommand::Create { spec, filled } => {
                self.create(spec, if *filled { Stage::Filling } else { Stage::Creating })
            }
            CatalogCommand::Publish { table } => {
                self.advance(*table, &[Stage::Creating, Stage::Filling], Stage::Public)
            }
            CatalogCommand::Alter { next } => self.alter(next),
            CatalogCommand::Adopt { table } => self.adopt(*table),
            CatalogCommand::Drop { table } => match readers(&self.views, *table) {
                names if names.is_empty() => self.advance(*table, &[Stage::Public, Stage::Filling], Stage::Dropping),
                names => CatalogOutcome::IsRead(names),
            },
            CatalogCommand::Comment { relation, column, text } => self.comment(*relation, *column, text.as_ref()),
            CatalogCommand::CreateView { view, replaces, seen } => self.create_view(view, replaces.as_ref(), seen),
            CatalogCommand::CreateSchema { name } => self.create_schema(name),
            CatalogCommand::DropSchema { name } => self.drop_schema(name),
            CatalogCommand::Reserve { table, column, count } => self.reserve(*table, *column, *count),
            CatalogCommand::DropView { view } => match readers(&self.views, *view) {
                names if !names.is_empty() => CatalogOutcome::IsRead(names),
                _ if self.views.remove(view).is_some() => {
                    self.comments.remove(view);
                    CatalogOutcome::Done
                }
                _ => CatalogOutcome::NoSuchTable,
            },
            CatalogCommand::Forget { table } => match self.tables.get(table) {
                Some(found) if found.stage == Stage::Dropping => {
                    self.tables.remove(table);
                    self.comments.remove(table);
                    self.numbers.remove(table);
                    CatalogOutcome::Done
                }
                Some(_) => CatalogOutcome::NoSuchTable,
                None => CatalogOutcome::Done,
            },
        }
    }

    fn create_schema(&mut self, name: &str) -> CatalogOutcome {
        if self.has_schema(name) {
            return CatalogOutcome::SchemaExists;
        }
        self.schemas.insert(name.to_owned(), TableId(self.next_table));
        self.next_table += 1;
        CatalogOutcome::Done
    }

    fn drop_schema(&mut self, name: &str) -> CatalogOutcome {
        if !self.schemas.contains_key(name) {
            return CatalogOutcome::NoSuchSchema;
        }
        let tables = self.tables.values().filter(|table| table.stage != Stage::Dropping).map(TableState::coming);
        let tables = tables.filter(|table| table.definition.namespace == name);
        let views = self.views.values().filter(|view| view.namespace == name);
        let tables = tables.map(|table| format!("table {}", table.definition.name));
        let inside: Vec<String> = tables.chain(views.map(|view| format!("view {}", view.name))).collect();
        if !inside.is_empty() {
            return CatalogOutcome::SchemaNotEmpty(inside);
        }
        self.schemas.remove(name);
        CatalogOutcome::Done
    }

    fn has_schema(&self, name: &str) -> bool {
        name == PUBLIC_SCHEMA || self.schemas.contains_key(name)
    }

    fn create(&mut self, spec: &TableSpec, stage: Stage) -> CatalogOutcome {
        if !self.has_schema(&spec.namespace) {
            return CatalogOutcome::NoSuchSchema;
        }
        if self.is_taken(&spec.namespace, &spec.name) {
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
        self.tables.insert(id, TableState { stage, table: table.clone(), next: None });
        CatalogOutcome::Table(table)
    }

    fn comment(&mut self, relation: TableId, column: u32, text: Option<&String>) -> CatalogOutcome {
        let table = self.tables.get(&relation).is_some_and(|table| table.stage != Stage::Dropping);
        if !table && !self.views.contains_key(&relation) {
            return CatalogOutcome::NoSuchTable;
        }
        let comments = Arc::make_mut(self.comments.entry(relation).or_default());
        match text {
            Some(text) => comments.insert(column, text.clone()),
            None => comments.remove(&column),
        };
        if comments.is_empty() {
            self.comments.remove(&relation);
        }
        CatalogOutcome::Done
    }

    fn reserve(&mut self, id: TableId, column: ColumnId, count: u64) -> CatalogOutcome {
        let numbered = |table: &TableState| {
            let definition = &table.coming().definition;
            definition.columns.iter().any(|known| known.id == column && known.identity.is_some())
        };
        if !self.tables.get(&id).is_some_and(numbered) {
            return CatalogOutcome::NoSuchTable;
        }
        let next = self.numbers.entry(id).or_default().entry(column).or_default();
        let first = *next;
        *next += count;
        CatalogOutcome::Reserved { first }
    }

    fn is_taken(&self, namespace: &str, name: &str) -> bool {
        self.tables.values().any(|table| table.takes(namespace, name)) || self.view(namespace, name).is_some()
    }

    fn view(&self, namespace: &str, name: &str) -> Option<&Arc<View>> {
        self.views.values().find(|view| view.namespace == namespace && view.name == name)
    }

    /// A view that takes another's place keeps its id, for those that read it.
    fn create_view(
        &mut self,
        asked: &View,
        replaces: Option<&Arc<View>>,
        seen: &[(TableId, SchemaVersion)],
    ) -> CatalogOutcome {
        let there = |id: &TableId| {
            self.views.contains_key(id) || self.tables.get(id).is_some_and(|table| table.stage != Stage::Dropping)
        };
        let as_seen = |(id, version): &(TableId, SchemaVersion)| {
            let table = self.tables.get(id);
            table.is_some_and(|table| table.next.is_none() && table.table.definition.version == *version)
        };
        if !self.has_schema(&asked.namespace) {
            return CatalogOutcome::NoSuchSchema;
        }
        if !asked.reads.iter().all(there) || !seen.iter().all(as_seen) {
            return CatalogOutcome::SchemaChanged;
        }
        let id = match (self.view(&asked.namespace, &asked.name), replaces) {
            (Some(now), Some(seen)) if now == seen => now.id,
            (_, Some(_)) => return CatalogOutcome::SchemaChanged,
            (_, None) if self.is_taken(&asked.namespace, &asked.name) => return CatalogOutcome::TableExists,
            (_, None) => TableId(self.next_table),
        };
        if reaches(&self.views, &asked.reads, id) {
            return CatalogOutcome::Circular;
        }
        self.next_table += u64::from(replaces.is_none());
        self.views.insert(id, Arc::new(View { id, ..asked.clone() }));
        CatalogOutcome::Done
    }

    /// Settles the next definition of a public table. That it is settled already is fine, so that a job may be repeated.
    fn alter(&mut self, next: &Arc<TableDefinition>) -> CatalogOutcome {
        let others = self.tables.iter().filter(|(id, _)| **id != next.id);
        let taken = others.map(|(_, t)| t).any(|t| t.takes(&next.namespace, &next.name))
            || self.view(&next.namespace, &next.name).is_some();
        let readers = readers(&self.views, next.id);
        let Some(found) = self.tables.get_mut(&next.id) else { return CatalogOutcome::NoSuchTable };
        let losers = losers(&self.views, &found.table.definition, next);
        match found.stage {
            Stage::Public if taken => CatalogOutcome::TableExists,
            // Their queries name it.
            Stage::Public if !readers.is_empty() && found.table.definition.name != next.name => {
                CatalogOutcome::IsRead(readers)
            }
            Stage::Public if !losers.is_empty() => CatalogOutcome::IsRead(losers),
            Stage::Public if found.table.definition.version.0 + 1 == next.version.0 => {
                found.stage = Stage::Altering;
                found.next = Some(next.clone());
                CatalogOutcome::Table(found.coming())
            }
            Stage::Altering if found.next.as_ref() == Some(next) => CatalogOutcome::Table(found.coming()),
            Stage::Public | Stage::Altering => CatalogOutcome::SchemaChanged,
            Stage::Creating | Stage::Filling | Stage::Dropping => CatalogOutcome::NoSuchTable,
        }
    }

    /// Makes the next definition the public one.
    fn adopt(&mut self, id: TableId) -> CatalogOutcome {
        match self.tables.get_mut(&id) {
            Some(found) if matches!(found.stage, Stage::Public | Stage::Altering) => {
                let coming = found.coming();
                let before = std::mem::replace(&mut found.table, coming);
                found.next = None;
                found.stage = Stage::Public;
                let table = found.table.clone();
                self.renumber_comments(&before.definition, &table.definition);
                CatalogOutcome::Table(table)
            }
            _ => CatalogOutcome::NoSuchTable,
        }
    }

    /// Comments stay with their columns when others are dropped.
    fn renumber_comments(&mut self, before: &TableDefinition, now: &TableDefinition) {
        let Some(comments) = self.comments.get_mut(&now.id) else { return };
        let number = |old: u32| {
            let id = before.columns.get(old.checked_sub(1)? as usize)?.id;
            (1..).zip(&now.columns).find(|(_, column)| column.id == id).map(|(number, _)| number)
        };
        let kept = comments.iter().filter_map(|(old, text)| match old {
            0 => Some((0, text.clone())),
            old => Some((number(*old)?, text.clone())),
        });
        let kept: Comments = kept.collect();
        match kept.is_empty() {
            true => _ = self.comments.remove(&now.id),
            false => *comments = Arc::new(kept),
        }
    }

    /// Takes the table from one stage to the next; being there already is fine, so that a job may be repeated.
    fn advance(&mut self, id: TableId, from: &[Stage], to: Stage) -> CatalogOutcome {
        match self.tables.get_mut(&id) {
            Some(found) if from.contains(&found.stage) || found.stage == to => {
                found.stage = to;
                CatalogOutcome::Table(found.table.clone())
            }
            _ => CatalogOutcome::NoSuchTable,
        }
    }
}

impl TableState {
    /// The table as it will be once its job has ended.
    fn coming(&self) -> Arc<Table> {
        match &self.next {
            Some(next) => Arc::new(Table { definition: next.clone(), shards: self.table.shards.clone() }),
            None => self.table.clone(),
        }
    }

    /// Whether no other table may have that name.
    fn takes(&self, namespace: &str, name: &str) -> bool {
        let is_named = |definition: &TableDefinition| definition.namespace == namespace && definition.name == name;
        self.stage != Stage::Dropping
            && (is_named(&self.table.definition) || self.next.as_deref().is_some_and(is_named))
    }
}

/// The definition of a new table: columns are numbered from 1 in their order.
fn define(id: TableId, spec: &TableSpec) -> TableDefinition {
    let columns = spec.columns.iter().zip(1..).map(|(c, id)| Column { id: ColumnId(id), ..c.clone() });
    TableDefinition {
        dropped: Vec::new(),
        id,
        namespace: spec.namespace.clone(),
        name: spec.name.clone(),
        version: SchemaVersion(1),
        columns: columns.collect(),
        primary_key: spec.primary_key.clone(),
        unique: spec.unique.clone(),
        kind: spec.kind.clone(),
        compression: spec.compression,
        checks: spec.checks.clone(),
    }
}

/// About what columns and constraints take in an entry.
fn written_bytes(columns: &[Column], checks: &[Check]) -> usize {
    const COLUMN_BYTES: usize = 128;
    let text = |c: &Column| c.name.len() + c.default.as_ref().map_or(0, String::len);
    let columns: usize = columns.iter().map(|c| COLUMN_BYTES + text(c)).sum();
    columns + checks.iter().map(|check| check.name.len() + check.expression.len()).sum::<usize>()
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
        match command {
            CatalogCommand::Create { spec, .. } => STEP_BYTES + written_bytes(&spec.columns, &spec.checks),
            CatalogCommand::Alter { next } => STEP_BYTES + written_bytes(&next.columns, &next.checks),
            CatalogCommand::CreateView { view, replaces, .. } => {
                let bytes = |view: &View| written_bytes(&view.columns, &[]) + view.query.len();
                STEP_BYTES + bytes(view) + replaces.as_deref().map_or(0, bytes)
            }
            CatalogCommand::Comment { text, .. } => STEP_BYTES + text.as_ref().map_or(0, String::len),
            _ => STEP_BYTES,
        }
    }

    fn makes_room(command: &CatalogCommand) -> bool {
        use CatalogCommand::{Alter, Comment, Create, CreateView};
        !matches!(command, Create { .. } | Alter { .. } | CreateView { .. } | Comment { text: Some(_), .. })
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
