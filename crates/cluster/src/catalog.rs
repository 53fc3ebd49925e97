//! The catalog as every node has it in memory: tables, shards, nodes. Replicated by group 0.

pub(crate) mod command;
pub(crate) mod machine;
pub(crate) mod state;
mod tokens;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use event::{
    Check, Column, Compression, Consistency, GroupId, NodeId, Replicas, ShardId, StatementId, TableDefinition, TableId,
    TableKind, UniqueKey, limits,
};
use serde::{Deserialize, Serialize};

pub use self::view::View;

/// What CREATE TABLE asks for; ids and version are given by apply.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TableSpec {
    /// The schema it shall lie in.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its columns; their ids are ignored.
    pub columns: Vec<Column>,
    /// Positions of the PRIMARY KEY columns.
    pub primary_key: Vec<usize>,
    /// The name of that constraint, if it is given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_key_named: Option<String>,
    /// Its UNIQUE constraints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unique: Vec<UniqueKey>,
    /// Event or reference.
    pub kind: TableKind,
    /// How segments are compressed.
    pub compression: Compression,
    /// Its CHECK constraints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// How new queries read it.
    pub consistency: Consistency,
    /// How many nodes shall vote on its rows.
    #[serde(default)]
    pub replicas: Replicas,
}

/// Where a shard lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardPlacement {
    /// The shard.
    pub shard: ShardId,
    /// The group that hosts it.
    pub group: GroupId,
}

/// What the catalog knows of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Drawn by the node when it was made.
    pub nonce: u64,
    /// Where other nodes reach it; empty when it is alone.
    pub address: String,
    /// Where clients reach it.
    pub sql_address: String,
    /// How often it has been started.
    pub boot: u64,
}

/// A public table: definition and shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The definition.
    pub definition: Arc<TableDefinition>,
    /// Its shards; one unless DDL says more.
    pub shards: Vec<ShardPlacement>,
}

/// One version of the catalog; immutable.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// The log index of group 0 it stands at.
    pub index: u64,
    /// Public tables by id.
    pub tables: BTreeMap<TableId, Arc<Table>>,
    /// Views by id.
    pub views: BTreeMap<TableId, Arc<View>>,
    /// What is said about tables and views.
    pub comments: BTreeMap<TableId, Arc<Comments>>,
    /// Schemas besides `public`, with their ids.
    pub schemas: BTreeMap<String, TableId>,
    /// The nodes of the cluster.
    pub nodes: BTreeMap<NodeId, Arc<NodeRecord>>,
    /// Nodes that were taken out of it, for good.
    pub(crate) removed: BTreeSet<NodeId>,
    /// The data groups shards are placed on.
    pub groups: Vec<GroupId>,
    /// A transaction whose changes are made when its group has decided so.
    pub(crate) prepared: Option<StatementId>,
}

/// The schema that is always there.
pub const PUBLIC_SCHEMA: &str = "public";

/// Comments by number of the column, from 1; 0 is the relation's own.
pub type Comments = BTreeMap<u32, String>;

impl Catalog {
    /// Whether tables and views can lie in a schema of that name.
    pub fn has_schema(&self, name: &str) -> bool {
        name == PUBLIC_SCHEMA || self.schemas.contains_key(name)
    }

    /// The public table of that name.
    pub fn table(&self, namespace: &str, name: &str) -> Option<&Arc<Table>> {
        self.tables.values().find(|t| t.definition.namespace == namespace && t.definition.name == name)
    }

    /// How many nodes shall vote in a group, once there are so many: as any of its tables asks for. No table can do without the catalog, so
    /// that votes as the table that asks for most.
    pub(crate) fn voters_wanted(&self, group: GroupId) -> usize {
        voters_wanted(self.tables.values(), group)
    }

    /// The view of that name.
    pub fn view(&self, namespace: &str, name: &str) -> Option<&Arc<View>> {
        self.views.values().find(|view| view.namespace == namespace && view.name == name)
    }

    /// The views that read a table or view, in order of their ids.
    pub fn readers(&self, id: TableId) -> impl Iterator<Item = &Arc<View>> {
        self.views.values().filter(move |view| view.reads.contains(&id))
    }
}

/// How many nodes shall vote in a group that hosts some of these tables.
fn voters_wanted<'a>(tables: impl Iterator<Item = &'a Arc<Table>>, group: GroupId) -> usize {
    let is_hosted = |table: &&Arc<Table>| {
        group == GroupId::CATALOG || table.shards.iter().any(|placement| placement.group == group)
    };
    let asked = tables.filter(is_hosted).map(|table| table.definition.replicas.count());
    asked.max().unwrap_or_default().max(limits::VOTERS)
}
