//! The state of one data group: its shards with memtables, frozen rows and manifests; a pure function of its log.
//!
//! One owner applies entries through [`Shards`]; any number of [`ShardsReader`]s take consistent cuts meanwhile. An entry becomes
//! visible as a whole. `apply` reads no clock, no disk and no segment.
//!
//! A `Seal` freezes all rows and captures the manifests; an `Install` of that seal swaps the frozen rows of whole splits for
//! segments, in the live manifests and in every captured state that holds those rows. The one that leaves no frozen rows
//! completes the checkpoint of the seal. Seals install in order.

mod apply;
pub(crate) mod joint;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use event::{GroupId, SchemaVersion, ShardId, StatementId, TableDefinition};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

pub use self::joint::{Decision, JointView, Prepared, Reach, Trace};
use self::state::State;
use crate::Error;
use crate::checkpoint::{Checkpoint, CheckpointBody};
use crate::command::Entry;
use crate::segment::{SegmentMeta, SegmentPins, SegmentRef};
use crate::sequence::sequenced_schema;
use crate::snapshot::{MemorySplit, ShardSnapshot};

/// What a statement's commands led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Applied.
    Done {
        /// Rows appended or installed.
        rows: u64,
    },
    /// Not applied: the shard has another schema version (or was dropped, `None`).
    SchemaMismatch {
        /// The shard's own version.
        version: Option<SchemaVersion>,
    },
    /// Not applied: what it would have replaced is not there any more.
    Superseded,
    /// Not applied: what it was evaluated against has changed since. To be evaluated again.
    Conflict,
    /// Not applied: the statement contradicts the state it was made for. A defect of whoever proposed it.
    Invalid {
        /// What does not fit.
        reason: String,
    },
}

/// All shards of one data group.
#[derive(Debug)]
pub struct Shards {
    state: Arc<RwLock<State>>,
    pins: SegmentPins,
}

impl Shards {
    /// A group without shards, before its first entry.
    pub fn new(group: GroupId) -> Shards {
        Shards { state: Arc::new(RwLock::new(State::new(group))), pins: SegmentPins::default() }
    }

    /// The state a checkpoint holds; the next entry to apply is the one after its seal.
    ///
    /// # Errors
    /// [`Error::Decode`] when the bytes are no sound checkpoint of this group.
    pub fn restore(group: GroupId, bytes: &[u8]) -> Result<Shards, Error> {
        Shards::new(group).restored(bytes)
    }

    /// The same in the place of these shards: what readers of them hold on to stays held.
    ///
    /// # Errors
    /// As [`Shards::restore`].
    pub fn restored(&self, bytes: &[u8]) -> Result<Shards, Error> {
        let group = self.state.read().group;
        let state = State::restore(group, CheckpointBody::decode(bytes)?, &self.pins)?;
        Ok(Shards { state: Arc::new(RwLock::new(state)), pins: self.pins.clone() })
    }

    /// The seal of the newest complete checkpoint that is not above `seal`.
    pub fn checkpoint_seal_up_to(&self, seal: u64) -> Option<u64> {
        self.state.read().newest_checkpoint(seal).map(|(_, captured)| captured.seal)
    }

    /// The newest complete checkpoint whose seal is not above `seal`.
    pub fn checkpoint_up_to(&self, seal: u64) -> Option<Checkpoint> {
        let newest = self.state.read().newest_checkpoint(seal);
        newest.map(|(group, captured)| captured.encode(group))
    }

    /// Applies the entry at `index`: one outcome for each statement, in order. A statement applies as a whole or leaves no trace.
    ///
    /// # Panics
    /// When `index` is not above every index applied before.
    pub fn apply(&mut self, index: u64, entry: &Entry) -> Vec<Outcome> {
        let outcomes = self.apply_some(index, entry, &|_| true);
        outcomes.into_iter().map(|outcome| outcome.expect("every statement was applied")).collect()
    }

    /// The same for those statements of the entry that are `wanted`, by their place in it; the others have no outcome and leave no trace.
    ///
    /// # Panics
    /// As [`Shards::apply`].
    pub fn apply_some(&mut self, index: u64, entry: &Entry, wanted: &dyn Fn(usize) -> bool) -> Vec<Option<Outcome>> {
        self.state.write().apply(index, entry, wanted, &self.pins)
    }

    /// Passes an index whose entry has nothing for the shards (a blank or membership entry of Raft).
    pub fn advance(&mut self, index: u64) {
        self.state.write().advance(index);
    }

    /// A handle for readers.
    pub fn reader(&self) -> ShardsReader {
        ShardsReader { state: Arc::clone(&self.state), pins: self.pins.clone() }
    }

    /// The newest complete checkpoint.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.reader().checkpoint()
    }

    /// Says that the checkpoint of `seal` is durable, so that a restart never begins with an older one: what only older ones
    /// name is live no longer.
    pub fn checkpoint_saved(&mut self, seal: u64) {
        self.state.write().checkpoint_saved(seal);
    }
}

/// A consistent cut of a shard, with the definition its rows in memory follow.
pub type ShardCut = (Arc<TableDefinition>, ShardSnapshot);

/// Reads the state of a group while entries are being applied.
#[derive(Clone, Debug)]
pub struct ShardsReader {
    state: Arc<RwLock<State>>,
    pins: SegmentPins,
}

/// Rows frozen by a seal that is not wholly installed.
#[derive(Clone, Debug)]
pub struct FrozenSeal {
    /// Index of the Seal entry.
    pub seal: u64,
    /// The rows of each shard and split that are not installed yet, in ascending order. Without any, an Install without segments
    /// completes the seal.
    pub splits: Vec<FrozenSplit>,
}

/// Frozen rows of one split.
#[derive(Clone, Debug)]
pub struct FrozenSplit {
    /// The shard.
    pub shard: ShardId,
    /// The definition the rows follow.
    pub table: Arc<TableDefinition>,
    /// The rows.
    pub memory: MemorySplit,
}

/// Figures of a group, for the flusher and for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Shards of the group.
    pub shards: u64,
    /// Rows in memory that no seal has frozen.
    pub open_rows: u64,
    /// Bytes of those rows.
    pub open_bytes: u64,
    /// Splits with such rows.
    pub open_splits: u64,
    /// Time of the oldest entry with such rows, in microseconds.
    pub open_since_us: Option<i64>,
    /// Frozen rows that wait for their Install.
    pub frozen_rows: u64,
    /// Bytes of those rows.
    pub frozen_bytes: u64,
    /// Seals that wait for their Install.
    pub seals_outstanding: usize,
    /// Index of the last Seal applied, or of the checkpoint restored; 0 without one.
    pub sealed: u64,
    /// Seal of the newest complete checkpoint; 0 without one.
    pub checkpointed: u64,
    /// Segments in the live manifests.
    pub segments: u64,
    /// Bytes of those segments.
    pub segment_bytes: u64,
    /// Rows appended or installed by statements since the state was made or restored.
    pub rows_applied: u64,
}

impl ShardsReader {
    /// The last index applied.
    pub fn applied(&self) -> u64 {
        self.state.read().applied()
    }

    /// A consistent cut of one shard with the definition its memory follows; `None` when there is no such shard.
    pub fn snapshot(&self, shard: ShardId) -> Option<ShardCut> {
        self.state.read().snapshot(shard)
    }

    /// A consistent cut of all shards of the group.
    pub fn cut(&self) -> (Vec<ShardCut>, JointView) {
        let state = self.state.read();
        let all = state.definitions().into_iter();
        (all.filter_map(|(shard, _)| state.snapshot(shard)).collect(), state.joint())
    }

    /// Transactions that were decided about and that not everybody may have followed yet.
    pub fn decisions(&self) -> Arc<BTreeMap<StatementId, Decision>> {
        Arc::clone(&self.state.read().decisions)
    }

    /// What the group knows of transactions of several groups.
    pub fn joint(&self) -> JointView {
        self.state.read().joint()
    }

    /// Cuts of some shards at one moment, and what the group knows then of transactions of several groups. `None` stands for a shard that
    /// is not there.
    pub fn cut_of(&self, shards: &[ShardId]) -> (Vec<Option<ShardCut>>, JointView) {
        let state = self.state.read();
        (shards.iter().map(|shard| state.snapshot(*shard)).collect(), state.joint())
    }

    /// The shards of the group with their definitions, in ascending order.
    pub fn shards(&self) -> Vec<(ShardId, Arc<TableDefinition>)> {
        self.state.read().definitions()
    }

    /// The oldest seal that is not wholly installed, with the rows that are left.
    pub fn frozen(&self) -> Option<FrozenSeal> {
        self.state.read().frozen()
    }

    /// Figures of the group now.
    pub fn figures(&self) -> Figures {
        self.state.read().figures()
    }

    /// Entry time of the oldest unfrozen row among the splits whose window ended at or before `now_us`.
    pub fn ended_since_us(&self, now_us: i64) -> Option<i64> {
        self.state.read().ended_since_us(now_us)
    }

    /// The newest complete checkpoint.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let newest = self.state.read().newest_checkpoint(u64::MAX);
        newest.map(|(group, captured)| captured.encode(group))
    }

    /// The segments that the newest complete checkpoint names, with its seal.
    pub fn checkpoint_segments(&self) -> Option<(u64, Vec<SegmentRef>)> {
        let (_, captured) = self.state.read().newest_checkpoint(u64::MAX)?;
        let segments = captured.manifests.values().flat_map(|manifest| &manifest.segments);
        let waiting = captured.prepared.values().flat_map(|part| &part.segments);
        Some((captured.seal, segments.chain(waiting).cloned().collect()))
    }

    /// The segments that live manifests name, and those that parts of transactions will install.
    pub fn segments(&self) -> Vec<SegmentRef> {
        let state = self.state.read();
        let live = state.shards.values().flat_map(|shard| &shard.manifest.segments);
        live.chain(state.prepared.values().flat_map(|part| &part.segments)).cloned().collect()
    }

    /// What is known of the segment of that name, while anything on this node holds it, as [`ShardsReader::is_pinned`] says.
    pub fn pinned(&self, name: &str) -> Option<SegmentMeta> {
        self.pins.pinned(name)
    }

    /// Names of all segments that the live manifests, a captured state, or a complete checkpoint names, in order. Says nothing
    /// of entries not applied yet: collect garbage only after the log has been replayed.
    pub fn live_segments(&self) -> Vec<String> {
        self.state.read().live_segments()
    }

    /// A handle on a segment that no manifest names yet: a staged one, or one just encoded.
    pub fn pin(&self, meta: SegmentMeta) -> SegmentRef {
        self.pins.pin(meta)
    }

    /// Whether anything on this node holds the segment of that name: manifest, checkpoint, snapshot or statement.
    pub fn is_pinned(&self, name: &str) -> bool {
        self.pins.is_pinned(name)
    }
}

impl ShardSnapshot {
    /// The same rows as those of a definition that follows theirs, which may be one that no shard has yet.
    ///
    /// # Errors
    /// [`Error::Columns`] when rows of `from` cannot be read as rows of `to`.
    pub fn adapted(&self, from: &TableDefinition, to: &TableDefinition) -> Result<ShardSnapshot, Error> {
        if !state::can_adapt(from, to) {
            return Err(Error::Columns(format!("rows of table \"{}\" do not fit its next definition", from.name)));
        }
        let schema = sequenced_schema(to);
        let memory = self.memory.iter().map(|split| state::adapt_split(split.clone(), from, to, &schema));
        Ok(ShardSnapshot { memory: memory.collect(), ..self.clone() })
    }
}

/// Rows of one definition, without numbers, as rows of one that follows it.
///
/// # Errors
/// [`Error::Columns`] when they cannot be read so.
pub fn adapt(rows: &RecordBatch, from: &TableDefinition, to: &TableDefinition) -> Result<RecordBatch, Error> {
    state::adapt_rows(rows, from, to, &to.arrow_schema()).map_err(|error| Error::Columns(error.to_string()))
}
