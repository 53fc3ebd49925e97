//! What an entry of the catalog group says.
//!
//! What everybody sees changes by [`CatalogChange`]s, any number of them at once. Around them are steps that nobody sees: a table is made
//! with its shards before it is published, and goes from the shards after it was dropped (architecture, D15).

use std::sync::Arc;

use bytes::Bytes;
use event::{ColumnId, GroupId, NodeId, Origin, SchemaVersion, StatementId, TableDefinition, TableId};
use serde::{Deserialize, Serialize};
use storage::Error;
use storage::document::{decode_document, encode_document};

use super::{NodeRecord, Table, TableSpec, View};

const MAGIC: &[u8; 8] = b"ANNALCAT";
const VERSION: u16 = 1;

/// One entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CatalogEntry {
    /// The proposer's clock in microseconds.
    pub(crate) time_us: i64,
    pub(crate) commands: Vec<CatalogCommand>,
    /// Who asked for each command; none in entries of before that was written.
    #[serde(default)]
    pub(crate) origins: Vec<Origin>,
}

/// A command on its way into the log.
#[derive(Clone, Debug)]
pub(crate) struct CatalogStatement {
    pub(crate) origin: Origin,
    pub(crate) command: CatalogCommand,
}

/// One command to the catalog.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CatalogCommand {
    /// The data groups that shards are placed on. Ignored once there are any.
    Found {
        /// In placement order, not empty.
        groups: Vec<GroupId>,
    },
    /// Takes a node into the cluster. One with the same nonce is in already.
    Join {
        /// What is known of it.
        record: Arc<NodeRecord>,
        /// The id it asks for, which nobody may have had.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wanted: Option<NodeId>,
        /// The token that lets it in, and is used up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<ShownToken>,
    },
    /// Another join token.
    Token {
        /// The SHA-256 of the token.
        hash: String,
        /// Until when it holds, in microseconds since 1970.
        until_us: i64,
        /// The time at the node that made it.
        at_us: i64,
    },
    /// A node has started.
    Boot {
        /// The node.
        node: NodeId,
        /// Where it is now, and which boot this is.
        record: Arc<NodeRecord>,
    },
    /// Takes a node out of the cluster, for good.
    Leave {
        /// The node.
        node: NodeId,
    },
    /// Takes an id out, for a view or a schema.
    TakeId,
    /// First step of CREATE TABLE: a table with ids and shards that nobody sees, and that has no name yet.
    Create {
        /// What was asked for.
        spec: Box<TableSpec>,
        /// Whose table it is until it is published: a node and its boot.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        maker: Option<(NodeId, u64)>,
        /// The groups that its node leads: of those that have as few shards as others, it is placed in one of these. None in entries of before
        /// that was written, whose shards went from group to group.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        near: Option<Vec<GroupId>>,
    },
    /// The table that nobody sees will never be published.
    Discard {
        /// The table.
        table: TableId,
    },
    /// Takes numbers of an identity column out.
    Reserve {
        /// The table.
        table: TableId,
        /// The column.
        column: ColumnId,
        /// How many.
        count: u64,
    },
    /// Changes the catalog, as a whole or not at all.
    Apply {
        /// In order.
        changes: Vec<CatalogChange>,
    },
    /// Makes sure that these changes can be applied whenever their transaction is decided about. Until then there are no others.
    Prepare {
        /// The transaction.
        transaction: StatementId,
        /// The group that decides about it.
        group: GroupId,
        /// In order.
        changes: Vec<CatalogChange>,
        /// Until when that may commit it, by its entry time in microseconds.
        #[serde(default = "any_time")]
        until_us: i64,
    },
    /// Ends a transaction that was prepared.
    End {
        /// The transaction.
        transaction: StatementId,
        /// Whether its changes are applied.
        commit: bool,
    },
    /// Last step of DROP TABLE: its shards are gone.
    Forget {
        /// The table.
        table: TableId,
    },
}

/// A join token that somebody shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShownToken {
    /// Its SHA-256.
    pub(crate) hash: String,
    /// When it was shown, by the clock of the node that was asked, in microseconds since 1970.
    pub(crate) at_us: i64,
}

/// Of releases that said nothing of it.
pub(crate) fn any_time() -> i64 {
    i64::MAX
}

/// One change of what everybody sees.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CatalogChange {
    /// CREATE TABLE: a table that was made takes its name.
    Publish {
        /// The table.
        table: TableId,
    },
    /// ALTER TABLE.
    Alter {
        /// The next definition; its version follows that of the one before.
        next: Arc<TableDefinition>,
    },
    /// DROP TABLE: the name is free. Its shards go afterwards.
    Drop {
        /// The table.
        table: TableId,
    },
    /// CREATE VIEW.
    CreateView {
        /// What was asked for, with an id of its own.
        view: Arc<View>,
        /// The view whose place and id it takes, as the proposer saw it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaces: Option<Arc<View>>,
        /// The tables it reads, as the proposer saw them.
        #[serde(default)]
        seen: Vec<(TableId, SchemaVersion)>,
    },
    /// DROP VIEW.
    DropView {
        /// The view.
        view: TableId,
    },
    /// CREATE SCHEMA.
    CreateSchema {
        /// Its name.
        name: String,
        /// Its id.
        id: TableId,
    },
    /// DROP SCHEMA, which must be empty.
    DropSchema {
        /// Its name.
        name: String,
    },
    /// COMMENT ON.
    Comment {
        /// The table or view.
        relation: TableId,
        /// The number of the column, from 1; 0 for the relation itself.
        column: u32,
        /// What to say; `None` takes it back.
        text: Option<String>,
    },
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CatalogOutcome {
    /// Done, or done before.
    Done,
    /// An id that nothing else has.
    Id(TableId),
    /// The id of a node.
    Node(NodeId),
    /// The table that was made.
    Table(Arc<Table>),
    /// The numbers from `first` on are the proposer's.
    Reserved {
        /// The first of them, from 0.
        first: u64,
    },
    /// A transaction is prepared and not decided about.
    Busy,
    /// Nothing was changed.
    Refused(Refusal),
}

/// Why a change cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Refusal {
    /// The name is taken.
    TableExists(String),
    /// The definition does not follow the one that is there, or what a view shall read or replace is another by now.
    SchemaChanged(String),
    /// Views read it.
    IsRead {
        /// The table or view.
        name: String,
        /// Names of the views.
        readers: Vec<String>,
    },
    /// There is a schema of that name.
    SchemaExists(String),
    /// There is no schema of that name.
    NoSuchSchema(String),
    /// The schema holds tables or views.
    SchemaNotEmpty {
        /// Its name.
        name: String,
        /// What is in it.
        relations: Vec<String>,
    },
    /// The view would read itself.
    Circular(String),
    /// There is no such table or view.
    NoSuchTable(String),
    /// A node has or had that id.
    NodeExists(NodeId),
    /// The join token was never made, was used, or holds no longer.
    NoSuchToken,
    /// Too many join tokens wait to be used.
    TooManyTokens,
}

impl CatalogEntry {
    pub(crate) fn encode(&self) -> Result<Bytes, Error> {
        Ok(encode_document(MAGIC, VERSION, self)?.into())
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<CatalogEntry, Error> {
        decode_document(MAGIC, VERSION, bytes)
    }
}
