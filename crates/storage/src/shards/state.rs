//! What a group's log prefix leads to: manifests, memtables, seals under way, and complete checkpoints.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use event::split::window_of;
use event::{GroupId, ShardId, SplitId, StatementId, TableDefinition};

use super::joint::{Decision, JointView, Prepared, Reach, Trace};
use super::{Figures, FrozenSeal, FrozenSplit};
use crate::Error;
use crate::checkpoint::{Checkpoint, CheckpointBody, PreparedBody, ShardBody};
use crate::memtable::Memtable;
use crate::segment::{SegmentMeta, SegmentPins, SegmentRef};
use crate::sequence::sequenced_schema;
use crate::sequences::SequenceSet;
use crate::snapshot::{MemorySplit, ShardSnapshot};

/// The state of one group.
#[derive(Debug)]
pub(super) struct State {
    pub(super) group: GroupId,
    pub(super) applied: u64,
    pub(super) shards: BTreeMap<ShardId, Shard>,
    /// Shards that never come back, so that a late `Put` does not revive one.
    pub(super) dropped: Arc<BTreeSet<ShardId>>,
    /// Transactions that were decided about and that not everybody may have followed yet.
    pub(super) decisions: Arc<BTreeMap<StatementId, Decision>>,
    /// Parts of transactions that wait for the decision of another group.
    pub(super) prepared: Arc<BTreeMap<StatementId, Arc<Prepared>>>,
    /// Transactions of several groups that were applied lately; readers alone ask for them, and a restart forgets them.
    pub(super) traces: Arc<Vec<Arc<Trace>>>,
    /// How far into other groups reach all transactions that were applied here, and those of them without a trace.
    pub(super) reach: Arc<Reach>,
    pub(super) untraced: Arc<Reach>,
    /// Seals without their Install, oldest first.
    pub(super) seals: VecDeque<PendingSeal>,
    /// Complete checkpoints, oldest first; all but the newest wait until that is saved.
    pub(super) checkpoints: VecDeque<Captured>,
    /// See [`JointView::whole_from`].
    pub(super) whole_from: u64,
    pub(super) rows_applied: u64,
}

/// One shard.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) manifest: Arc<Manifest>,
    /// Schema of its memtables.
    pub(super) schema: SchemaRef,
    /// Rows not frozen by any seal.
    pub(super) open: BTreeMap<SplitId, Memtable>,
}

/// A shard's definition and segments. Shared with captured states, copied when it changes.
#[derive(Clone, Debug)]
pub(super) struct Manifest {
    pub(super) table: Arc<TableDefinition>,
    /// In the order of split and name, so that equal manifests have equal bytes whatever the order of installs.
    pub(super) segments: Vec<SegmentRef>,
    /// Splits that ended at or before this time were forgotten once; rows that came later may be there again.
    pub(super) expired_us: Option<i64>,
    /// Rows that are deleted and still in segments or memory.
    pub(super) deleted: BTreeMap<SplitId, Arc<SequenceSet>>,
    /// Index of the last entry that took numbers out of `deleted`, 0 without one.
    pub(super) purged: u64,
    /// Index of the last entry that took all rows away, 0 without one.
    pub(super) truncated: u64,
    /// Index of the last entry that brought rows, 0 without one: who has looked at all of them wants to know.
    pub(super) appended: u64,
}

impl Manifest {
    /// Of a new shard.
    pub(super) fn new(table: Arc<TableDefinition>) -> Self {
        Self {
            table,
            segments: Vec::new(),
            expired_us: None,
            deleted: BTreeMap::new(),
            purged: 0,
            truncated: 0,
            appended: 0,
        }
    }

    /// More rows of a split are deleted.
    pub(super) fn delete(&mut self, split: SplitId, rows: &SequenceSet) {
        let deleted = self.deleted.entry(split).or_default();
        *deleted = Arc::new(deleted.union(rows));
    }

    /// Rows that were deleted are in no segment any more.
    pub(super) fn purge(&mut self, split: SplitId, rows: &SequenceSet, index: u64) {
        let Some(deleted) = self.deleted.get_mut(&split).filter(|_| !rows.is_empty()) else { return };
        *deleted = Arc::new(deleted.without(rows));
        if deleted.is_empty() {
            self.deleted.remove(&split);
        }
        self.purged = index;
    }

    pub(super) fn insert(&mut self, segment: SegmentRef) {
        let meta = &segment.meta;
        let before = |other: &SegmentMeta| (other.split, other.name.as_str()) < (meta.split, meta.name.as_str());
        let position = self.segments.partition_point(|other| before(&other.meta));
        self.segments.insert(position, segment);
    }
}

/// The part of the state that a checkpoint keeps.
#[derive(Clone, Debug)]
pub(super) struct Captured {
    pub(super) seal: u64,
    pub(super) manifests: BTreeMap<ShardId, Arc<Manifest>>,
    pub(super) dropped: Arc<BTreeSet<ShardId>>,
    pub(super) decisions: Arc<BTreeMap<StatementId, Decision>>,
    pub(super) prepared: Arc<BTreeMap<StatementId, Arc<Prepared>>>,
    pub(super) reach: Arc<Reach>,
    /// See [`State::whole_from`]; 0 when that is no later than the seal.
    pub(super) whole_from: u64,
}

/// A seal whose rows are still in memory.
#[derive(Debug)]
pub(super) struct PendingSeal {
    pub(super) captured: Captured,
    pub(super) frozen: BTreeMap<ShardId, FrozenShard>,
}

/// Rows of one shard that a seal froze.
#[derive(Debug)]
pub(super) struct FrozenShard {
    /// The definition at the seal, which the rows follow even when the shard has a newer one.
    pub(super) table: Arc<TableDefinition>,
    pub(super) splits: BTreeMap<SplitId, Memtable>,
}

impl Captured {
    pub(super) fn encode(&self, group: GroupId) -> Checkpoint {
        let shards = self.manifests.iter().map(|(shard, manifest)| ShardBody {
            shard: *shard,
            table: Arc::clone(&manifest.table),
            segments: manifest.segments.iter().map(|segment| segment.meta.clone()).collect(),
            expired_us: manifest.expired_us,
            deleted: manifest.deleted.iter().map(|(split, rows)| (*split, Arc::clone(rows))).collect(),
            purged: manifest.purged,
            truncated: manifest.truncated,
            appended: manifest.appended,
        });
        let dropped = self.dropped.iter().copied().collect();
        let decided = self.decisions.iter().map(|(transaction, decision)| (*transaction, decision.clone())).collect();
        let prepared = self.prepared.iter().map(|(id, part)| PreparedBody::of(*id, part)).collect();
        let decisions = Vec::new();
        let (seal, shards) = (self.seal, shards.collect());
        let reach = self.reach.iter().map(|(group, index)| (*group, *index)).collect();
        let whole_from = self.whole_from;
        CheckpointBody { group, seal, shards, dropped, decisions, decided, prepared, reach, whole_from }.encode()
    }
}

impl Shard {
    pub(super) fn new(manifest: Manifest) -> Self {
        let schema = sequenced_schema(&manifest.table);
        Self { manifest: Arc::new(manifest), schema, open: BTreeMap::new() }
    }
}

impl State {
    pub(super) fn new(group: GroupId) -> Self {
        Self {
            group,
            applied: 0,
            shards: BTreeMap::new(),
            dropped: Arc::default(),
            decisions: Arc::default(),
            prepared: Arc::default(),
            traces: Arc::default(),
            reach: Arc::default(),
            untraced: Arc::default(),
            seals: VecDeque::new(),
            checkpoints: VecDeque::new(),
            whole_from: 0,
            rows_applied: 0,
        }
    }

    pub(super) fn restore(group: GroupId, body: CheckpointBody, pins: &SegmentPins) -> Result<Self, Error> {
        if body.group != group {
            let reason = format!("it belongs to group {}, not {group}", body.group);
            return Err(Error::Decode { what: "checkpoint", reason });
        }
        let mut state = State::new(group);
        state.applied = body.seal;
        state.whole_from = body.whole_from;
        state.dropped = Arc::new(body.dropped.into_iter().collect());
        let any_time = |commit| Decision { commit, until_us: i64::MAX, joined: Vec::new() };
        let older = body.decisions.into_iter().map(|(transaction, commit)| (transaction, any_time(commit)));
        state.decisions = Arc::new(older.chain(body.decided).collect());
        let prepared = body.prepared.into_iter().map(|part| part.restore(pins));
        state.prepared = Arc::new(prepared.collect::<Result<_, Error>>()?);
        state.reach = Arc::new(body.reach.into_iter().collect());
        // What they did is in the manifests, and cannot be told from the rest any more.
        state.untraced = Arc::clone(&state.reach);
        for ShardBody { shard, table, segments, expired_us, deleted, purged, truncated, appended } in body.shards {
            let segments = segments.into_iter().map(|meta| pins.pin(meta)).collect();
            let deleted = deleted.into_iter().collect();
            state.shards.insert(
                shard,
                Shard::new(Manifest { table, segments, expired_us, deleted, purged, truncated, appended }),
            );
        }
        state.checkpoints.push_back(state.capture(body.seal));
        Ok(state)
    }

    /// The manifests as they are now, shared.
    pub(super) fn capture(&self, seal: u64) -> Captured {
        let manifests = self.shards.iter().map(|(id, shard)| (*id, Arc::clone(&shard.manifest))).collect();
        let (dropped, decisions) = (Arc::clone(&self.dropped), Arc::clone(&self.decisions));
        let (prepared, reach) = (Arc::clone(&self.prepared), Arc::clone(&self.reach));
        let whole_from = if self.whole_from > seal { self.whole_from } else { 0 };
        Captured { seal, manifests, dropped, decisions, prepared, reach, whole_from }
    }

    /// Whether the segment's rows were forgotten after that seal froze them, or may have been.
    pub(super) fn is_forgotten(&self, seal: u64, meta: &SegmentMeta) -> bool {
        let manifest = self.shards.get(&meta.shard).map(|shard| &shard.manifest);
        manifest.is_some_and(|manifest| {
            let end = manifest.table.event().map(|options| window_of(meta.split, options.split_interval_us).1);
            let has_expired = end.zip(manifest.expired_us).is_some_and(|(end, expired)| end <= expired);
            has_expired || seal < manifest.truncated
        })
    }

    pub(super) fn applied(&self) -> u64 {
        self.applied
    }

    pub(super) fn definitions(&self) -> Vec<(ShardId, Arc<TableDefinition>)> {
        self.shards.iter().map(|(id, shard)| (*id, Arc::clone(&shard.manifest.table))).collect()
    }

    pub(super) fn snapshot(&self, id: ShardId) -> Option<(Arc<TableDefinition>, ShardSnapshot)> {
        let shard = self.shards.get(&id)?;
        let mut memory: BTreeMap<SplitId, MemorySplit> = BTreeMap::new();
        let mut add = |rows: MemorySplit| match memory.get_mut(&rows.split) {
            Some(earlier) => earlier.extend(rows),
            None => drop(memory.insert(rows.split, rows)),
        };
        for frozen in self.seals.iter().filter_map(|seal| seal.frozen.get(&id)) {
            for (split, rows) in &frozen.splits {
                add(adapt_split(rows.read(*split, true), &frozen.table, &shard.manifest.table, &shard.schema));
            }
        }
        for (split, rows) in &shard.open {
            add(rows.read(*split, false));
        }
        let snapshot = ShardSnapshot {
            shard: id,
            index: self.applied,
            segments: shard.manifest.segments.clone(),
            memory: memory.into_values().collect(),
            deleted: shard.manifest.deleted.clone(),
        };
        Some((Arc::clone(&shard.manifest.table), snapshot))
    }

    pub(super) fn frozen(&self) -> Option<FrozenSeal> {
        let pending = self.seals.front()?;
        let mut splits = Vec::new();
        for (shard, frozen) in &pending.frozen {
            for (split, rows) in &frozen.splits {
                splits.push(FrozenSplit {
                    shard: *shard,
                    table: Arc::clone(&frozen.table),
                    memory: rows.read(*split, true),
                });
            }
        }
        Some(FrozenSeal { seal: pending.captured.seal, splits })
    }

    /// The newest complete checkpoint, shared; turning it into bytes needs no lock.
    pub(super) fn newest_checkpoint(&self, up_to: u64) -> Option<(GroupId, Captured)> {
        let newest = self.checkpoints.iter().rev().find(|captured| captured.seal <= up_to)?;
        Some((self.group, newest.clone()))
    }

    pub(super) fn checkpoint_saved(&mut self, seal: u64) {
        self.checkpoints.retain(|captured| captured.seal >= seal);
    }

    /// What a reader of several groups needs beside snapshots of the same moment.
    pub(super) fn joint(&self) -> JointView {
        JointView {
            applied: self.applied,
            prepared: Arc::clone(&self.prepared),
            decisions: Arc::clone(&self.decisions),
            traces: Arc::clone(&self.traces),
            untraced: Arc::clone(&self.untraced),
            whole_from: self.whole_from,
        }
    }

    pub(super) fn live_segments(&self) -> Vec<String> {
        let live = self.shards.values().map(|shard| &shard.manifest);
        let captured = self.seals.iter().map(|seal| &seal.captured).chain(&self.checkpoints);
        let prepared = captured.clone().map(|captured| &captured.prepared).chain([&self.prepared]);
        let waiting = prepared.flat_map(|parts| parts.values()).flat_map(|part| &part.segments);
        let manifests = live.chain(captured.flat_map(|captured| captured.manifests.values()));
        let segments = manifests.flat_map(|manifest| &manifest.segments).chain(waiting);
        let names: BTreeSet<&str> = segments.map(|segment| segment.meta.name.as_str()).collect();
        names.into_iter().map(str::to_owned).collect()
    }

    pub(super) fn figures(&self) -> Figures {
        let mut figures = Figures {
            shards: self.shards.len() as u64,
            seals_outstanding: self.seals.len(),
            checkpointed: self.checkpoints.back().map_or(0, |captured| captured.seal),
            rows_applied: self.rows_applied,
            ..Figures::default()
        };
        figures.sealed = self.seals.back().map_or(figures.checkpointed, |seal| seal.captured.seal);
        for shard in self.shards.values() {
            for rows in shard.open.values() {
                figures.open_rows += rows.rows();
                figures.open_bytes += rows.bytes();
                figures.open_splits += 1;
                let since = figures.open_since_us.map_or(rows.since_us(), |since| since.min(rows.since_us()));
                figures.open_since_us = Some(since);
            }
            figures.segments += shard.manifest.segments.len() as u64;
            figures.segment_bytes += shard.manifest.segments.iter().map(|segment| segment.meta.bytes).sum::<u64>();
        }
        for rows in self.seals.iter().flat_map(|seal| seal.frozen.values()).flat_map(|shard| shard.splits.values()) {
            figures.frozen_rows += rows.rows();
            figures.frozen_bytes += rows.bytes();
        }
        figures
    }

    pub(super) fn ended_since_us(&self, now_us: i64) -> Option<i64> {
        let mut since = None;
        for shard in self.shards.values() {
            let Some(options) = shard.manifest.table.event() else { continue };
            let ended = |split: &SplitId| window_of(*split, options.split_interval_us).1 <= now_us;
            let oldest = shard.open.iter().filter(|(split, _)| ended(split)).map(|(_, rows)| rows.since_us()).min();
            since = since.into_iter().chain(oldest).min();
        }
        since
    }
}

/// Whether rows of `from` can be read as rows of `to`: same kind of table, same time and splits, columns only added (nullable),
/// dropped, renamed or relaxed.
pub(super) fn can_adapt(from: &TableDefinition, to: &TableDefinition) -> bool {
    let same_splits = match (from.event(), to.event()) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            let time = |table: &TableDefinition, position: usize| table.columns[position].id;
            a.split_interval_us == b.split_interval_us && time(from, a.time_column) == time(to, b.time_column)
        }
        _ => false,
    };
    let can_read = |column: &event::Column| match from.columns.iter().find(|old| old.id == column.id) {
        Some(old) => old.column_type.widens_to(column.column_type) && (column.nullable || !old.nullable),
        None => column.nullable || column.initial.is_some(),
    };
    same_splits && to.columns.iter().all(can_read)
}

/// Rows of `from` as rows of the definition whose schema is `schema`, with or without `__seq`: columns matched by id, new ones with what
/// older rows hold there, those of wider types cast.
pub(super) fn adapt_rows(
    rows: &RecordBatch,
    from: &TableDefinition,
    to: &TableDefinition,
    schema: &SchemaRef,
) -> Result<RecordBatch, ArrowError> {
    let fits =
        |old: &event::Column, new: &event::Column| old.id == new.id && old.column_type.widens_to(new.column_type);
    let old = |column: &event::Column| from.columns.iter().position(|old| fits(old, column));
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(to.columns.len() + 1);
    for column in &to.columns {
        columns.push(match old(column) {
            Some(position) => cast(rows.column(position), &column.column_type.arrow())?,
            None => column.of_older_rows(rows.num_rows()),
        });
    }
    columns.extend(rows.columns().get(from.columns.len()).cloned());
    RecordBatch::try_new(Arc::clone(schema), columns)
}

/// The rows of a split as those of a definition that follows theirs, whose sequenced schema is `schema`.
pub(super) fn adapt_split(
    mut rows: MemorySplit,
    from: &TableDefinition,
    to: &TableDefinition,
    schema: &SchemaRef,
) -> MemorySplit {
    if from.version != to.version {
        let adapt = |batch: &RecordBatch| adapt_rows(batch, from, to, schema);
        let adapted: Result<_, _> = rows.batches.iter().map(adapt).collect();
        rows.batches = adapted.expect("a shard takes only definitions its rows can be adapted to");
    }
    rows
}
