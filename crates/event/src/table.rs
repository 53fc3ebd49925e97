//! How a table is described: its columns, and whether it holds events or reference rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use crate::constant::Constant;
use crate::ids::{ColumnId, SchemaVersion, TableId};
use crate::types::ColumnType;

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Stays the same when the column is renamed.
    pub id: ColumnId,
    /// The name as SQL sees it, already folded to lower case unless it was quoted.
    pub name: String,
    /// Its name in the files of segments, which stays when the column is renamed; `None` for that of SQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<String>,
    /// What it holds.
    pub column_type: ColumnType,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// The DEFAULT expression as SQL text, evaluated once per statement at the coordinator.
    pub default: Option<String>,
    /// What rows hold that were written before the column was there; `None` for NULL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<Constant>,
}

impl Column {
    /// Its name in the files of segments.
    pub fn stored_name(&self) -> &str {
        self.stored.as_deref().unwrap_or(&self.name)
    }

    /// The column of `rows` that were written before it was there.
    pub fn of_older_rows(&self, rows: usize) -> ArrayRef {
        let initial = self.initial.as_ref().and_then(|value| value.repeated(self.column_type, rows));
        initial.unwrap_or_else(|| new_null_array(&self.column_type.arrow(), rows))
    }
}

/// A CHECK constraint: rows for which the expression is false are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Unique within the table.
    pub name: String,
    /// The boolean expression over the table's columns, as SQL text.
    pub expression: String,
}

/// What is left of a column that was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedColumn {
    /// The id it had.
    pub id: ColumnId,
    /// The name it has in the files of segments that are older.
    pub stored: String,
}

/// A UNIQUE constraint of a reference table: no two rows have the same values in its columns, unless one is NULL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UniqueKey {
    /// Unique within the table.
    pub name: String,
    /// Positions of its columns.
    pub columns: Vec<usize>,
}

/// How segments of a table are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Zstandard, level 1.
    #[default]
    Zstd,
    /// LZ4 raw.
    Lz4,
    /// Snappy.
    Snappy,
    /// None: encodings only.
    None,
}

/// Which of several rows with one primary key is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dedup {
    /// All of them.
    #[default]
    None,
    /// The one that was written first.
    First,
    /// The one that was written last.
    Last,
}

impl Dedup {
    /// Whether all rows are there.
    pub fn is_none(&self) -> bool {
        *self == Dedup::None
    }
}

/// What makes a table an event table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventOptions {
    /// Position of the time column in [`TableDefinition::columns`]; a NOT NULL timestamp or timestamptz.
    pub time_column: usize,
    /// Positions of the series key columns, in order: segments are sorted by them, then by time.
    pub series: Vec<usize>,
    /// Width of a split in microseconds, above 0.
    pub split_interval_us: i64,
    /// Splits are forgotten this long after their window has ended, in microseconds, above 0; `None` keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_us: Option<i64>,
    /// Which row of a primary key is there. Unless all are, the key consists of the series key and the time column.
    #[serde(default, skip_serializing_if = "Dedup::is_none")]
    pub dedup: Dedup,
}

impl EventOptions {
    /// Positions of what segments are sorted by before `__seq`: the series key, then time. With [`EventOptions::dedup`] the primary key.
    pub fn sort_key(&self) -> Vec<usize> {
        self.series.iter().copied().chain([self.time_column]).collect()
    }
}

/// The two kinds of table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableKind {
    /// Rows are events with a time; they lie in time splits.
    Event(EventOptions),
    /// Small replicated rows without a time, all in split 0.
    Reference,
}

/// A table as the catalog keeps it. Immutable: a change makes a new definition with a higher version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDefinition {
    /// Never reused.
    pub id: TableId,
    /// The schema it lies in; `public` unless said otherwise.
    pub namespace: String,
    /// The name within the schema.
    pub name: String,
    /// Grows by one with each schema change, starts at 1.
    pub version: SchemaVersion,
    /// The columns in the order SQL shows them.
    pub columns: Vec<Column>,
    /// Positions of the PRIMARY KEY columns, empty without one.
    pub primary_key: Vec<usize>,
    /// Its UNIQUE constraints, in the order they were written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unique: Vec<UniqueKey>,
    /// Event or reference.
    pub kind: TableKind,
    /// How segments are compressed.
    pub compression: Compression,
    /// CHECK constraints, in the order they were written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// Columns that were dropped: neither their ids nor their names in files are given again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<DroppedColumn>,
}

impl TableDefinition {
    /// The Arrow schema of the table's rows, without system columns.
    pub fn arrow_schema(&self) -> SchemaRef {
        let fields: Vec<Field> = self.columns.iter().map(|c| c.column_type.field(&c.name, c.nullable)).collect();
        Arc::new(Schema::new(fields))
    }

    /// The event options, or `None` for a reference table.
    pub fn event(&self) -> Option<&EventOptions> {
        match &self.kind {
            TableKind::Event(options) => Some(options),
            TableKind::Reference => None,
        }
    }

    /// Which of several rows with one primary key is there.
    pub fn dedup(&self) -> Dedup {
        self.event().map_or(Dedup::None, |options| options.dedup)
    }

    /// Whether rows must be judged by expressions before they are written, besides types and NOT NULL.
    pub fn is_checked(&self) -> bool {
        !self.checks.is_empty()
    }

    /// What no two rows may share: the PRIMARY KEY and UNIQUE constraints of a reference table. Event tables check none.
    pub fn keys(&self) -> Vec<UniqueKey> {
        if self.event().is_some() {
            return Vec::new();
        }
        let primary = (!self.primary_key.is_empty())
            .then(|| UniqueKey { name: self.primary_key_name(), columns: self.primary_key.clone() });
        primary.into_iter().chain(self.unique.iter().cloned()).collect()
    }

    /// The name of the PRIMARY KEY constraint.
    pub fn primary_key_name(&self) -> String {
        format!("{}_pkey", self.name)
    }

    /// The position of the column of that name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }
}
