//! What an entry of the catalog group says: the steps of DDL jobs (architecture, D15).

use std::sync::Arc;

use bytes::Bytes;
use event::{ColumnId, GroupId, SchemaVersion, TableDefinition, TableId};
use serde::{Deserialize, Serialize};
use storage::Error;
use storage::document::{decode_document, encode_document};

use super::{Table, TableSpec, View};

const MAGIC: &[u8; 8] = b"ANNALCAT";
const VERSION: u16 = 1;

/// One entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CatalogEntry {
    /// The proposer's clock in microseconds.
    pub(crate) time_us: i64,
    pub(crate) commands: Vec<CatalogCommand>,
}

/// One step of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CatalogCommand {
    /// The data groups that shards are placed on. Ignored once there are any.
    Found {
        /// In placement order, not empty.
        groups: Vec<GroupId>,
    },
    /// First step of CREATE TABLE: name and ids are taken, nobody sees the table yet.
    Create {
        /// What was asked for.
        spec: TableSpec,
        /// Whether rows come first: such a table is dropped when its node forgets about it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        filled: bool,
    },
    /// Last step of CREATE TABLE: its shards exist, everybody sees it.
    Publish {
        /// The table.
        table: TableId,
    },
    /// First step of ALTER TABLE: the next definition is settled, everybody still sees the one before.
    Alter {
        /// The next definition; its version follows that of the public one.
        next: Arc<TableDefinition>,
    },
    /// Last step of ALTER TABLE: its shards have the next definition, everybody sees it.
    Adopt {
        /// The table.
        table: TableId,
    },
    /// First step of DROP TABLE: nobody sees it any more, the name is free.
    Drop {
        /// The table.
        table: TableId,
    },
    /// All of CREATE VIEW.
    CreateView {
        /// What was asked for.
        view: View,
        /// The view whose place it takes, as the proposer saw it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaces: Option<Arc<View>>,
        /// The tables it reads, as the proposer saw them.
        #[serde(default)]
        seen: Vec<(TableId, SchemaVersion)>,
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
    /// All of CREATE SCHEMA.
    CreateSchema {
        /// Its name.
        name: String,
    },
    /// All of DROP SCHEMA, which must be empty.
    DropSchema {
        /// Its name.
        name: String,
    },
    /// All of DROP VIEW.
    DropView {
        /// The view.
        view: TableId,
    },
    /// All of COMMENT ON.
    Comment {
        /// The table or view.
        relation: TableId,
        /// The number of the column, from 1; 0 for the relation itself.
        column: u32,
        /// What to say; `None` takes it back.
        text: Option<String>,
    },
    /// Last step of DROP TABLE: its shards are gone.
    Forget {
        /// The table.
        table: TableId,
    },
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CatalogOutcome {
    /// Done, or done before.
    Done,
    /// The table as it will be once published, or as it was.
    Table(Arc<Table>),
    /// The name is taken.
    TableExists,
    /// The definition does not follow the one that is public.
    SchemaChanged,
    /// Views of these names read it.
    IsRead(Vec<String>),
    /// The numbers from `first` on are the proposer's.
    Reserved {
        /// The first of them, from 0.
        first: u64,
    },
    /// There is a schema of that name.
    SchemaExists,
    /// There is no schema of that name.
    NoSuchSchema,
    /// The schema holds these tables and views.
    SchemaNotEmpty(Vec<String>),
    /// The view would read itself.
    Circular,
    /// There is no such table in a stage the command applies to.
    NoSuchTable,
}

impl CatalogEntry {
    pub(crate) fn encode(&self) -> Result<Bytes, Error> {
        Ok(encode_document(MAGIC, VERSION, self)?.into())
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<CatalogEntry, Error> {
        decode_document(MAGIC, VERSION, bytes)
    }
}
