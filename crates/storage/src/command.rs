//! What an entry of a data group says. The bytes of an entry are the bytes in the log and to the peers.

pub(crate) mod codec;
mod columns;
mod fields;
mod plain;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use event::{GroupId, Origin, ShardId, SplitId, StatementId, TableDefinition};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::segment::SegmentMeta;
use crate::sequences::SequenceSet;

/// One Raft entry of a data group: the statements that were waiting together, each with its own identity and result.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The proposer's clock in microseconds, never below that of the entry before (architecture, D19).
    pub time_us: i64,
    /// The statements, applied in order.
    pub statements: Vec<Statement>,
}

/// One statement or transaction: all its commands apply, or none.
#[derive(Clone, Debug)]
pub struct Statement {
    /// Who asked.
    pub origin: Origin,
    /// What to do.
    pub commands: Vec<Command>,
}

/// A command to the shards of a group.
#[derive(Clone, Debug)]
pub enum Command {
    /// Adds validated rows (without system columns) of one table to one shard.
    Append {
        /// Where to.
        shard: ShardId,
        /// The schema version the rows were validated against; another one is refused.
        version: event::SchemaVersion,
        /// The rows.
        rows: RecordBatch,
    },
    /// Freezes every memtable of every shard of the group, after all statements of the entry. The entry's index is the seal's
    /// number.
    Seal,
    /// Puts segments into the manifests.
    Install(Install),
    /// Deletes rows of one shard, as evaluated by whoever proposed it.
    Delete(Delete),
    /// Creates a shard, changes its schema, or drops it; idempotent by version.
    Schema(SchemaChange),
    /// Swaps segments of one split for others with the same rows.
    Replace(Replace),
    /// Forgets the splits of a shard whose window ends at or before a time, rows in memory and all.
    Expire {
        /// The shard.
        shard: ShardId,
        /// The time, by the clock of whoever proposed it (architecture, D19), in microseconds.
        before_us: i64,
    },
    /// Refuses the statement when rows came to a shard after the index at which its proposer looked at all of them. For tables with keys,
    /// and for constraints that rows are to obey which are there.
    Expect {
        /// The shard.
        shard: ShardId,
        /// The index.
        index: u64,
    },
    /// Forgets all rows of a shard that came before.
    Truncate {
        /// The shard.
        shard: ShardId,
    },
    /// First command of a statement whose others are one group's part of a transaction of several: they are checked, and kept until
    /// [`Command::Conclude`]. Meanwhile statements are refused that would change what they were evaluated against.
    Prepare {
        /// The transaction.
        transaction: StatementId,
        /// The group that decides about it.
        decider: GroupId,
        /// Until when that may commit it, by entry time in microseconds.
        until_us: i64,
    },
    /// Applies the part of a transaction that was prepared, or forgets it, as its decider has decided. Without such a part nothing happens.
    Conclude {
        /// The transaction.
        transaction: StatementId,
        /// Whether it is committed.
        commit: bool,
        /// Where it is prepared and decided.
        joined: Vec<Joined>,
    },
    /// Decides about a transaction of several groups, or one that changes the catalog as well: with the statement's other commands, or not
    /// at all. The first decision holds, a statement with the other one is refused; it is remembered until [`Command::Settle`], and one not
    /// to commit until nobody can ask for the other any more.
    Decide {
        /// The transaction.
        transaction: StatementId,
        /// Whether it is committed.
        commit: bool,
        /// Entry time in microseconds after which it is committed no more.
        until_us: i64,
        /// Where else it is prepared.
        joined: Vec<Joined>,
    },
    /// Forgets the decision to commit a transaction: everybody has followed it.
    Settle {
        /// The transaction.
        transaction: StatementId,
    },
}

/// The place of a transaction of several groups in one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The group.
    pub group: GroupId,
    /// Index of the entry that prepares it there, or decides about it.
    pub index: u64,
}

/// What compaction makes of segments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replace {
    /// The shard.
    pub shard: ShardId,
    /// The split that all these segments belong to.
    pub split: SplitId,
    /// Names of the segments whose rows the others hold. When one is not in the manifest any more, nothing happens.
    pub inputs: Vec<String>,
    /// The segments that take their place; none when no row is left.
    pub outputs: Vec<SegmentMeta>,
    /// Deleted rows of the inputs that the outputs do not hold any more.
    #[serde(default, skip_serializing_if = "SequenceSet::is_empty")]
    pub purged: SequenceSet,
}

/// Rows that are there no longer. The statement is refused when one of them was deleted since they were read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// The shard.
    pub shard: ShardId,
    /// The schema version they were read with.
    pub version: event::SchemaVersion,
    /// The index of the snapshot they were read from.
    pub read: u64,
    /// Their sequence numbers by split, ascending. Those with [`crate::sequences::OWN_ROW`] are rows the statement itself installs.
    pub splits: Vec<(SplitId, SequenceSet)>,
}

/// Segments to be put into manifests at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Install {
    /// The seal whose frozen rows these segments replace, all rows of each split they name; `None` for the staged rows of a bulk
    /// statement.
    pub seal: Option<u64>,
    /// The segments.
    pub segments: Vec<SegmentMeta>,
}

/// A change of one shard's schema.
#[derive(Clone, Debug)]
pub enum SchemaChange {
    /// The shard exists from now on, or has the newer definition.
    Put {
        /// The shard.
        shard: ShardId,
        /// The table's definition.
        table: Arc<TableDefinition>,
    },
    /// The shard and its rows are gone.
    Drop {
        /// The shard.
        shard: ShardId,
    },
}

impl Entry {
    /// The entry's bytes: versioned, each statement framed, rows as Arrow IPC (LZ4 from 4 KiB). Rows of one shard and schema
    /// version share one message, whichever statements they belong to.
    pub fn encode(&self) -> Result<bytes::Bytes, Error> {
        codec::encode(self)
    }

    /// The reverse of [`Entry::encode`]. Large columns that did not compress point into `bytes`. Untrusted bytes give an
    /// error, never a panic.
    pub fn decode(bytes: &bytes::Bytes) -> Result<Entry, Error> {
        codec::decode(bytes)
    }
}
