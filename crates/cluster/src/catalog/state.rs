//! What the catalog group has decided, and how commands change it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use event::{
    Column, ColumnId, GroupId, NodeId, Replicas, SchemaVersion, ShardId, StatementId, TableDefinition, TableId, limits,
    mutants,
};
use serde::{Deserialize, Serialize};

use super::command::{CatalogChange, CatalogCommand, CatalogOutcome, Refusal, ShownToken};
use super::tokens::Tokens;
use super::view::{losers, reaches, readers};
use super::{Catalog, Comments, NodeRecord, PUBLIC_SCHEMA, ShardPlacement, Table, TableSpec, View};

/// PostgreSQL's first oid of a user's object.
const TABLE_ID_FIRST: u64 = 16384;
const SHARD_ID_FIRST: u64 = 1;
/// The node that founds a cluster.
pub(crate) const NODE_ID_FIRST: u64 = 1;

/// Everything the catalog group decides about; the checkpoint is this in JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CatalogState {
    next_table: u64,
    next_shard: u64,
    groups: Vec<GroupId>,
    #[serde(default = "first_node")]
    next_node: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    nodes: BTreeMap<NodeId, Arc<NodeRecord>>,
    /// Every id a node has or had.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    given: BTreeSet<NodeId>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prepared: Option<Prepared>,
    #[serde(default, skip_serializing_if = "Tokens::is_empty")]
    tokens: Tokens,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct TableState {
    stage: Stage,
    table: Arc<Table>,
    /// While it is hidden: the node that makes it, and that node's boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    maker: Option<(NodeId, u64)>,
}

fn first_node() -> u64 {
    NODE_ID_FIRST
}

/// Changes that wait for the decision about their transaction. Nothing else changes meanwhile, so that they can be applied then.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Prepared {
    /// The transaction.
    pub(crate) transaction: StatementId,
    /// The group that decides about it.
    pub(crate) group: GroupId,
    /// Until when that may commit it.
    #[serde(default = "super::command::any_time")]
    pub(crate) until_us: i64,
    changes: Vec<CatalogChange>,
}

/// Who sees a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// Its maker alone: it has no name yet, and goes when its maker does.
    Hidden,
    /// Everybody.
    Public,
    /// Nobody: its shards are being dropped.
    Dropping,
}

impl CatalogState {
    /// Of a cluster that has not begun.
    pub(crate) fn new() -> CatalogState {
        CatalogState {
            next_table: TABLE_ID_FIRST,
            next_shard: SHARD_ID_FIRST,
            groups: Vec::new(),
            next_node: NODE_ID_FIRST,
            nodes: BTreeMap::new(),
            given: BTreeSet::new(),
            tables: BTreeMap::new(),
            views: BTreeMap::new(),
            comments: BTreeMap::new(),
            numbers: BTreeMap::new(),
            schemas: BTreeMap::new(),
            prepared: None,
            tokens: Tokens::default(),
        }
    }

    /// The transaction that is prepared and not decided about, as far as the catalog knows.
    pub(crate) fn prepared(&self) -> Option<&Prepared> {
        self.prepared.as_ref()
    }

    /// The tables that nobody sees, or will see.
    pub(crate) fn unseen(&self) -> Vec<(Stage, Arc<Table>)> {
        let unseen = self.tables.values().filter(|table| table.stage != Stage::Public);
        unseen.map(|table| (table.stage, Arc::clone(&table.table))).collect()
    }

    /// Whether a hidden table is being made by that boot of a node.
    pub(crate) fn is_made_by(&self, table: TableId, maker: (NodeId, u64)) -> bool {
        self.tables.get(&table).and_then(|table| table.maker) == Some(maker)
    }

    /// Whether the maker of a hidden table has gone: it was started again since, or has left the cluster. One that nobody knows has, too.
    pub(crate) fn is_left(&self, table: TableId) -> bool {
        let maker = self.tables.get(&table).and_then(|table| table.maker);
        maker.is_none_or(|(node, boot)| self.nodes.get(&node).is_none_or(|record| record.boot > boot))
    }

    /// What everybody sees of it.
    pub(crate) fn catalog(&self, index: u64) -> Catalog {
        let public = self.tables.iter().filter(|(_, table)| table.stage == Stage::Public);
        let tables = public.map(|(id, table)| (*id, Arc::clone(&table.table))).collect();
        let CatalogState { views, comments, schemas, prepared, nodes, groups, .. } = self;
        let removed = self.given.iter().filter(|node| !nodes.contains_key(node)).copied().collect();
        let (nodes, groups) = (nodes.clone(), groups.clone());
        let prepared = prepared.as_ref().map(|prepared| prepared.transaction);
        let (views, comments, schemas) = (views.clone(), comments.clone(), schemas.clone());
        Catalog { index, tables, views, comments, schemas, nodes, removed, groups, prepared }
    }

    pub(crate) fn apply(&mut self, command: &CatalogCommand) -> CatalogOutcome {
        match command {
            CatalogCommand::Found { groups } => {
                if self.groups.is_empty() {
                    self.groups = groups.clone();
                }
                CatalogOutcome::Done
            }
            CatalogCommand::Join { record, wanted, token } => self.join(record, *wanted, token.as_ref()),
            CatalogCommand::Token { hash, until_us, at_us } => outcome(self.tokens.add(hash, *until_us, *at_us)),
            CatalogCommand::Boot { node, record } => {
                // One that was taken out does not come back.
                if self.nodes.contains_key(node) || !self.given.contains(node) {
                    self.add_node(*node, record);
                }
                CatalogOutcome::Done
            }
            CatalogCommand::Leave { node } => {
                self.nodes.remove(node);
                CatalogOutcome::Done
            }
            CatalogCommand::TakeId => CatalogOutcome::Id(self.take_id()),
            CatalogCommand::Create { spec, maker, near } => {
                CatalogOutcome::Table(self.create(spec, *maker, near.as_deref()))
            }
            CatalogCommand::Discard { table } => self.discard(*table),
            CatalogCommand::Reserve { table, column, count } => self.reserve(*table, *column, *count),
            CatalogCommand::Apply { .. } | CatalogCommand::Prepare { .. } if self.prepared.is_some() => {
                CatalogOutcome::Busy
            }
            CatalogCommand::Apply { changes } => outcome(self.change_all(changes)),
            CatalogCommand::Prepare { transaction, group, changes, until_us } => {
                let tried = self.clone().change_all(changes);
                if tried.is_ok() {
                    let (transaction, group, until_us) = (*transaction, *group, *until_us);
                    self.prepared = Some(Prepared { transaction, group, until_us, changes: changes.clone() });
                }
                outcome(tried)
            }
            CatalogCommand::End { transaction, commit } => {
                match self.prepared.take_if(|prepared| prepared.transaction == *transaction) {
                    Some(prepared) if *commit => outcome(self.change_all(&prepared.changes)),
                    _ => CatalogOutcome::Done,
                }
            }
            CatalogCommand::Forget { table } => match self.tables.get(table) {
                Some(found) if found.stage == Stage::Dropping => {
                    self.tables.remove(table);
                    self.comments.remove(table);
                    self.numbers.remove(table);
                    CatalogOutcome::Done
                }
                Some(_) => no_such_table(*table),
                None => CatalogOutcome::Done,
            },
        }
    }

    /// All changes, or none.
    pub(crate) fn change_all(&mut self, changes: &[CatalogChange]) -> Result<(), Refusal> {
        let mut changed = self.clone();
        changes.iter().try_for_each(|change| changed.change(change))?;
        *self = changed;
        Ok(())
    }

    fn change(&mut self, change: &CatalogChange) -> Result<(), Refusal> {
        match change {
            CatalogChange::Publish { table } => self.publish(*table),
            CatalogChange::Alter { next } => self.alter(next),
            CatalogChange::Drop { table } => self.drop_table(*table),
            CatalogChange::CreateView { view, replaces, seen } => self.create_view(view, replaces.as_ref(), seen),
            CatalogChange::DropView { view } => self.drop_view(*view),
            CatalogChange::CreateSchema { name, id } => self.create_schema(name, *id),
            CatalogChange::DropSchema { name } => self.drop_schema(name),
            CatalogChange::Comment { relation, column, text } => self.comment(*relation, *column, text.as_ref()),
        }
    }

    // Nodes

    fn join(&mut self, record: &Arc<NodeRecord>, wanted: Option<NodeId>, token: Option<&ShownToken>) -> CatalogOutcome {
        let is_same = |known: &NodeRecord| {
            known.nonce == record.nonce || (mutants::is_back("member id reuse") && known.address == record.address)
        };
        let same = self.nodes.iter_mut().find(|(_, known)| is_same(known));
        if let Some((node, known)) = same {
            // It asks again, or is somewhere else by now.
            *known = Arc::new(NodeRecord { boot: known.boot, ..NodeRecord::clone(record) });
            return CatalogOutcome::Node(*node);
        }
        let node = wanted.unwrap_or(NodeId(self.next_node));
        if self.given.contains(&node) || node.0 == 0 {
            return CatalogOutcome::Refused(Refusal::NodeExists(node));
        }
        if let Some(Err(refusal)) = token.map(|token| self.tokens.spend(token)) {
            return CatalogOutcome::Refused(refusal);
        }
        self.add_node(node, record);
        CatalogOutcome::Node(node)
    }

    /// Ids are given once, also those that were asked for.
    fn add_node(&mut self, node: NodeId, record: &Arc<NodeRecord>) {
        self.nodes.insert(node, Arc::clone(record));
        self.given.insert(node);
        while self.given.contains(&NodeId(self.next_node)) {
            self.next_node += 1;
        }
    }

    // Tables

    /// Whether a table can have that name.
    pub(crate) fn check_new(&self, namespace: &str, name: &str) -> Result<(), Refusal> {
        self.check_schema(namespace)?;
        self.check_name(namespace, name)
    }

    fn take_id(&mut self) -> TableId {
        let id = TableId(self.next_table);
        self.next_table += 1;
        id
    }

    fn create(&mut self, spec: &TableSpec, maker: Option<(NodeId, u64)>, near: Option<&[GroupId]>) -> Arc<Table> {
        let id = self.take_id();
        let definition = Arc::new(define(id, spec));
        let table = Arc::new(Table { shards: self.place(&definition, near), definition });
        self.tables.insert(id, TableState { stage: Stage::Hidden, table: Arc::clone(&table), maker });
        table
    }

    /// Takes shards out for a new table. Those of event tables go to the group with the fewest, of those in which as many nodes vote as the table asks
    /// for, rather to one `near` whoever makes the table: that is where its rows will come from, if they come from one node. Reference tables lie in
    /// the first, so that a transaction over several of them is one entry.
    fn place(&mut self, table: &TableDefinition, near: Option<&[GroupId]>) -> Vec<ShardPlacement> {
        assert!(!self.groups.is_empty(), "the catalog is founded before its first table");
        let count = table.event().map_or(1, |options| u64::from(options.sharding.shards));
        let first = self.next_shard;
        self.next_shard += count;
        let groups = match table.event() {
            Some(_) => self.groups_with(table.replicas),
            None => vec![self.groups[0]],
        };
        let Some(near) = near else {
            let group = |shard: u64| groups[(shard % groups.len() as u64) as usize];
            return (first..first + count).map(|s| ShardPlacement { shard: ShardId(s), group: group(s) }).collect();
        };
        let mut hosted = self.event_shards();
        let mut group = || {
            let rank = |group: &GroupId| (hosted.get(group).copied().unwrap_or_default(), !near.contains(group));
            let group = groups.iter().copied().min_by_key(rank).expect("there is a group that can take shards");
            *hosted.entry(group).or_default() += 1;
            group
        };
        (first..first + count).map(|shard| ShardPlacement { shard: ShardId(shard), group: group() }).collect()
    }

    /// How many shards of event tables each group has.
    fn event_shards(&self) -> BTreeMap<GroupId, usize> {
        let mut hosted = BTreeMap::new();
        let there = self.tables.values().filter(|state| state.stage != Stage::Dropping);
        for table in there.map(|state| &state.table).filter(|table| table.definition.event().is_some()) {
            table.shards.iter().for_each(|placement| *hosted.entry(placement.group).or_default() += 1);
        }
        hosted
    }

    /// The groups that can take shards of a table that asks for so many replicas; not empty.
    fn groups_with(&self, replicas: Replicas) -> Vec<GroupId> {
        let wanted = replicas.count().max(limits::VOTERS);
        let tables = || self.tables.values().map(|state| &state.table);
        let is_alike = |group: &GroupId| super::voters_wanted(tables(), *group) == wanted;
        let alike: Vec<GroupId> = self.groups.iter().copied().filter(is_alike).collect();
        match self.groups.last() {
            // The first that asks for more asks it of one group, and the tables of the others do not pay for it.
            Some(last) if alike.is_empty() && wanted > limits::VOTERS => vec![*last],
            _ if alike.is_empty() => self.groups.clone(),
            _ => alike,
        }
    }

    /// A table that somebody else has made, in a copy of the state from before that.
    pub(crate) fn add_hidden(&mut self, table: &Arc<Table>) {
        let hidden = || TableState { stage: Stage::Hidden, table: Arc::clone(table), maker: None };
        self.tables.entry(table.definition.id).or_insert_with(hidden);
    }

    fn discard(&mut self, id: TableId) -> CatalogOutcome {
        let publishes = |change: &CatalogChange| matches!(change, CatalogChange::Publish { table } if *table == id);
        if self.prepared.as_ref().is_some_and(|prepared| prepared.changes.iter().any(publishes)) {
            return CatalogOutcome::Busy;
        }
        match self.tables.get_mut(&id) {
            Some(found) if found.stage != Stage::Public => {
                found.stage = Stage::Dropping;
                CatalogOutcome::Table(Arc::clone(&found.table))
            }
            _ => no_such_table(id),
        }
    }

    fn publish(&mut self, id: TableId) -> Result<(), Refusal> {
        let hidden = self.tables.get(&id).filter(|found| found.stage == Stage::Hidden);
        let hidden = hidden.ok_or_else(|| Refusal::NoSuchTable(id.to_string()))?;
        let definition = Arc::clone(&hidden.table.definition);
        self.check_new(&definition.namespace, &definition.name)?;
        if let Some(table) = self.tables.get_mut(&id) {
            table.stage = Stage::Public;
        }
        Ok(())
    }

    fn alter(&mut self, next: &Arc<TableDefinition>) -> Result<(), Refusal> {
        let found = self.public(next.id).ok_or_else(|| Refusal::NoSuchTable(next.name.clone()))?;
        let (before, name) = (Arc::clone(&found.definition), next.name.clone());
        if before.version.0 + 1 != next.version.0 {
            return Err(Refusal::SchemaChanged(name));
        }
        let renamed = (&before.namespace, &before.name) != (&next.namespace, &next.name);
        if renamed {
            self.check_new(&next.namespace, &next.name)?;
        }
        // Their queries name it.
        let mut needing = if renamed { readers(&self.views, next.id) } else { Vec::new() };
        if needing.is_empty() {
            needing = losers(&self.views, &before, next);
        }
        if !needing.is_empty() {
            return Err(Refusal::IsRead { name, readers: needing });
        }
        self.renumber_comments(&before, next);
        if let Some(table) = self.tables.get_mut(&next.id) {
            let shards = table.table.shards.clone();
            table.table = Arc::new(Table { definition: Arc::clone(next), shards });
        }
        Ok(())
    }

    fn drop_table(&mut self, id: TableId) -> Result<(), Refusal> {
        let name = self.public(id).ok_or_else(|| Refusal::NoSuchTable(id.to_string()))?.definition.name.clone();
        self.check_unread(id, name)?;
        if let Some(table) = self.tables.get_mut(&id) {
            table.stage = Stage::Dropping;
        }
        Ok(())
    }

    fn public(&self, id: TableId) -> Option<&Arc<Table>> {
        self.tables.get(&id).filter(|found| found.stage == Stage::Public).map(|found| &found.table)
    }

    fn reserve(&mut self, id: TableId, column: ColumnId, count: u64) -> CatalogOutcome {
        let numbered = |table: &TableState| {
            let columns = &table.table.definition.columns;
            columns.iter().any(|known| known.id == column && known.identity.is_some())
        };
        if !self.tables.get(&id).is_some_and(numbered) {
            return no_such_table(id);
        }
        let next = self.numbers.entry(id).or_default().entry(column).or_default();
        let first = *next;
        *next += count;
        CatalogOutcome::Reserved { first }
    }

    // Views

    /// A view that takes another's place keeps its id, for those that read it.
    fn create_view(
        &mut self,
        asked: &View,
        replaces: Option<&Arc<View>>,
        seen: &[(TableId, SchemaVersion)],
    ) -> Result<(), Refusal> {
        let as_seen = |(id, version): &(TableId, SchemaVersion)| {
            self.public(*id).is_some_and(|table| table.definition.version == *version)
        };
        self.check_schema(&asked.namespace)?;
        let changed = || Err(Refusal::SchemaChanged(asked.name.clone()));
        if !asked.reads.iter().all(|id| self.is_there(*id)) || !seen.iter().all(as_seen) {
            return changed();
        }
        let id = match (self.view(&asked.namespace, &asked.name), replaces) {
            (Some(now), Some(seen)) if now == seen => now.id,
            (_, Some(_)) => return changed(),
            (_, None) => {
                self.check_name(&asked.namespace, &asked.name)?;
                asked.id
            }
        };
        if reaches(&self.views, &asked.reads, id) {
            return Err(Refusal::Circular(asked.name.clone()));
        }
        self.views.insert(id, Arc::new(View { id, ..asked.clone() }));
        Ok(())
    }

    fn drop_view(&mut self, id: TableId) -> Result<(), Refusal> {
        let name = self.views.get(&id).ok_or_else(|| Refusal::NoSuchTable(id.to_string()))?.name.clone();
        self.check_unread(id, name)?;
        self.views.remove(&id);
        self.comments.remove(&id);
        Ok(())
    }

    fn view(&self, namespace: &str, name: &str) -> Option<&Arc<View>> {
        self.views.values().find(|view| view.namespace == namespace && view.name == name)
    }

    // Schemas

    fn create_schema(&mut self, name: &str, id: TableId) -> Result<(), Refusal> {
        if self.check_schema(name).is_ok() {
            return Err(Refusal::SchemaExists(name.to_owned()));
        }
        self.schemas.insert(name.to_owned(), id);
        Ok(())
    }

    fn drop_schema(&mut self, name: &str) -> Result<(), Refusal> {
        if !self.schemas.contains_key(name) {
            return Err(Refusal::NoSuchSchema(name.to_owned()));
        }
        let tables = self.tables.values().filter(|table| table.stage == Stage::Public).map(|found| &found.table);
        let tables = tables.filter(|table| table.definition.namespace == name);
        let views = self.views.values().filter(|view| view.namespace == name);
        let tables = tables.map(|table| format!("table {}", table.definition.name));
        let relations: Vec<String> = tables.chain(views.map(|view| format!("view {}", view.name))).collect();
        if !relations.is_empty() {
            return Err(Refusal::SchemaNotEmpty { name: name.to_owned(), relations });
        }
        self.schemas.remove(name);
        Ok(())
    }

    fn check_schema(&self, name: &str) -> Result<(), Refusal> {
        if name == PUBLIC_SCHEMA || self.schemas.contains_key(name) {
            return Ok(());
        }
        Err(Refusal::NoSuchSchema(name.to_owned()))
    }

    // Names

    /// Whether no table or view has that name.
    fn check_name(&self, namespace: &str, name: &str) -> Result<(), Refusal> {
        let is_named = |table: &TableState| {
            let definition = &table.table.definition;
            table.stage == Stage::Public && definition.namespace == namespace && definition.name == name
        };
        if self.tables.values().any(is_named) || self.view(namespace, name).is_some() {
            return Err(Refusal::TableExists(name.to_owned()));
        }
        Ok(())
    }

    fn check_unread(&self, id: TableId, name: String) -> Result<(), Refusal> {
        match readers(&self.views, id) {
            readers if readers.is_empty() => Ok(()),
            readers => Err(Refusal::IsRead { name, readers }),
        }
    }

    fn is_there(&self, id: TableId) -> bool {
        self.public(id).is_some() || self.views.contains_key(&id)
    }

    // Comments

    fn comment(&mut self, relation: TableId, column: u32, text: Option<&String>) -> Result<(), Refusal> {
        if !self.is_there(relation) {
            return Err(Refusal::NoSuchTable(relation.to_string()));
        }
        let comments = Arc::make_mut(self.comments.entry(relation).or_default());
        match text {
            Some(text) => comments.insert(column, text.clone()),
            None => comments.remove(&column),
        };
        if comments.is_empty() {
            self.comments.remove(&relation);
        }
        Ok(())
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
}

fn outcome(changed: Result<(), Refusal>) -> CatalogOutcome {
    changed.map_or_else(CatalogOutcome::Refused, |()| CatalogOutcome::Done)
}

fn no_such_table(id: TableId) -> CatalogOutcome {
    CatalogOutcome::Refused(Refusal::NoSuchTable(id.to_string()))
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
        primary_key_named: spec.primary_key_named.clone(),
        unique: spec.unique.clone(),
        kind: spec.kind.clone(),
        compression: spec.compression,
        checks: spec.checks.clone(),
        consistency: spec.consistency,
        replicas: spec.replicas,
    }
}
