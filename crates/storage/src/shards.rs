//! The state of one data group: its shards with memtables, frozen rows and manifests; a pure function of its log.

/// What a statement's commands led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Applied.
    Done {
        /// Rows appended or installed.
        rows: u64,
    },
    /// Not applied: the shard has another schema version (or was dropped, `None`).
    SchemaMismatch {
        /// The shard's own version.
        version: Option<event::SchemaVersion>,
    },
}

/// All shards of one data group.
#[derive(Debug)]
pub struct Shards {}
