//! What a data group needs now and then besides flushing: merging its segments, and forgetting splits that are past their retention.
//!
//! Both go through the log, so they may be repeated or given up at any point; nobody who writes waits for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use event::split::window_of;
use event::{GroupId, ShardId, SplitId, TableDefinition, TableId, limits};
use serde::{Deserialize, Serialize};
use storage::segment::SegmentRef;
use storage::{Command, Outcome, ShardSnapshot};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::catalog::Table;
use crate::compaction::{Deleted, Merge, Occasion, choose, fits_a_merge, is_worth_a_rewrite};
use crate::ddl::defect;
use crate::error::Error;
use crate::joint::Parts;
use crate::message::Request;
use crate::node::{DataGroup, Node, TableSnapshot};

/// How often it looks without being asked.
const TICK: Duration = Duration::from_secs(2);
/// Beyond so many the segments of a window are merged although writers wait for the flusher.
const SEGMENTS_PRESSED_MAX: usize = 64;
/// The segments of an ended window are merged once no other came for so long.
const GRACE_US: i64 = (limits::SEAL_WINDOW_GRACE_MS * 1000) as i64;

/// Which splits of a table somebody wants to be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Scope {
    /// All with more than one segment.
    All,
    /// Those whose segments hold rows that are not there any more.
    Stale,
}

/// Asks to merge segments of a table; answered when it is done.
#[derive(Debug)]
pub(crate) struct CompactRequest {
    table: TableId,
    scope: Scope,
    answer: oneshot::Sender<Result<(), Error>>,
}

/// What maintenance remembers between two looks; lost when the node starts again.
#[derive(Debug, Default)]
struct Known {
    /// Splits whose segments could not be merged; left alone until somebody asks.
    refused: BTreeSet<(ShardId, SplitId)>,
    /// Splits rewritten for the sake of the request under way.
    purged: BTreeSet<(ShardId, SplitId)>,
    /// How many segments each split has, and since when so many.
    quiet: BTreeMap<(ShardId, SplitId), (usize, i64)>,
}

impl Known {
    /// Notes how many segments a split has; since when it has so many.
    fn quiet_since(&mut self, place: (ShardId, SplitId), segments: usize, now_us: i64) -> i64 {
        let (count, since_us) = self.quiet.entry(place).or_insert((segments, now_us));
        if *count != segments {
            (*count, *since_us) = (segments, now_us);
        }
        *since_us
    }

    /// Forgets what is not there any more.
    fn retain(&mut self, there: impl Fn(&(ShardId, SplitId)) -> bool) {
        self.quiet.retain(|place, _| there(place));
        self.refused.retain(there);
    }
}

/// Runs until the node stops or is gone.
pub(crate) async fn run(
    node: Weak<Node>,
    group: GroupId,
    mut requests: mpsc::Receiver<CompactRequest>,
    mut stop: watch::Receiver<bool>,
) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = Known::default();
    loop {
        let request = tokio::select! {
            _ = tick.tick() => None,
            request = requests.recv() => request,
            _ = stop.changed() => return,
        };
        let Some(node) = node.upgrade() else { return };
        let Some(data) = node.data.get(&group) else { return };
        let forced = request.as_ref().map(|request| (request.table, request.scope));
        let done = tokio::select! {
            done = node.maintain(data, forced, &mut known) => done,
            _ = stop.changed() => return,
        };
        match (request, done) {
            // Whoever asked tells of the error, unless nobody waits any more.
            (Some(request), done) => drop(request.answer.send(done)),
            (None, Ok(()) | Err(Error::ShuttingDown(_) | Error::Replication(_) | Error::Overloaded(_))) => {}
            (None, Err(error)) => tracing::warn!(%group, %error, "could not maintain segments; trying again"),
        }
    }
}

impl Node {
    /// Merges all segments of each split of the table into one, or as few as their size allows; returns once it is done. Rows in memory
    /// stay there.
    pub async fn compact(&self, table: &Table) -> Result<(), Error> {
        self.request_compaction(table, Scope::All).await
    }

    /// Rewrites the splits of the table whose segments hold rows that are deleted, or that others of their key took the place of. Rows
    /// in memory stay there.
    pub async fn purge(&self, table: &Table) -> Result<(), Error> {
        self.request_compaction(table, Scope::Stale).await
    }

    async fn request_compaction(&self, table: &Table, scope: Scope) -> Result<(), Error> {
        let groups: BTreeSet<GroupId> = table.shards.iter().map(|placement| placement.group).collect();
        for group in groups {
            self.compact_group(group, table.definition.id, scope, true).await?;
        }
        Ok(())
    }

    /// The same in one group, by its leader, whom to `ask` when it is another node.
    pub(crate) async fn compact_group(
        &self,
        group: GroupId,
        table: TableId,
        scope: Scope,
        ask: bool,
    ) -> Result<(), Error> {
        let data = self.data_group(group)?;
        if ask && !data.group.leads() {
            return self.ask_for_work(&data.group, Request::Compact { group, table, scope }).await;
        }
        let stopped = || Error::ShuttingDown("maintenance has stopped".into());
        let (answer, compacted) = oneshot::channel();
        let request = CompactRequest { table, scope, answer };
        data.compact.send(request).await.map_err(|_| stopped())?;
        compacted.await.map_err(|_| stopped())?
    }

    /// Forgets the splits of the table whose window ended at or before `before_us`, with all their rows; answers with how many there
    /// were. Late rows for such a window may still come, and begin it anew.
    pub async fn drop_splits(&self, table: &Table, before_us: i64) -> Result<u64, Error> {
        let mut dropped = 0;
        for placement in &table.shards {
            let data = self.data_group(placement.group)?;
            self.read_barrier(&data.group).await?;
            let Some((_, snapshot)) = data.reader().snapshot(placement.shard) else {
                return Err(Error::NoSuchTable(table.definition.name.clone()));
            };
            let expired = expired_splits(&table.definition, &snapshot, before_us);
            if !expired.is_empty() {
                self.expire(data, placement.shard, before_us).await?;
                dropped += expired.len() as u64;
            }
        }
        Ok(dropped)
    }

    /// Forgets all rows of these tables, at once. Who has read them and now wants to change them begins anew.
    pub async fn truncate(self: &Arc<Self>, tables: &[Arc<Table>]) -> Result<(), Error> {
        let mut parts = Parts::new();
        for placement in tables.iter().flat_map(|table| &table.shards) {
            parts.entry(placement.group).or_default().push(Command::Truncate { shard: placement.shard });
        }
        let groups: Vec<GroupId> = parts.keys().copied().collect();
        self.see_through(self.begin().commit_with(parts, None)).await?;
        for group in groups {
            self.data_group(group)?.note_garbage(self.clock.now_us());
        }
        Ok(())
    }

    /// Does what is due, or with a `forced` table all that can be done for it.
    async fn maintain(
        &self,
        data: &DataGroup,
        forced: Option<(TableId, Scope)>,
        known: &mut Known,
    ) -> Result<(), Error> {
        if !data.group.leads() {
            let group = data.group.id();
            return if forced.is_some() { Err(replication::Error::NoLeader(group).into()) } else { Ok(()) };
        }
        if forced.is_some() {
            known.refused.clear();
        }
        known.purged.clear();
        let shards: BTreeSet<ShardId> = data.reader().shards().into_iter().map(|(shard, _)| shard).collect();
        known.retain(|(shard, _)| shards.contains(shard));
        self.retire(data).await?;
        let mut failed = Ok(());
        for (shard, table) in data.reader().shards() {
            if forced.is_some_and(|(forced, _)| forced != table.id) {
                continue;
            }
            while let Some(merge) = self.next_merge(data, shard, &table, forced.map(|(_, scope)| scope), known) {
                let place = (merge.shard, merge.split);
                // Where another leads by now, the manifests here may be old: the same would be merged again and again, in vain.
                if !data.group.leads() {
                    return Err(replication::Error::NoLeader(data.group.id()).into());
                }
                match self.merge(data, merge).await {
                    // When they were gone, the next look sees what is there instead.
                    Ok(_swapped) => {}
                    Err(error @ Error::Storage(_)) => {
                        tracing::error!(shard = %place.0, split = %place.1, %error, "could not merge segments");
                        known.refused.insert(place);
                        failed = failed.and(Err(error));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if forced.is_some() { failed } else { Ok(()) }
    }

    /// Forgets what is past its retention, by this node's clock and by what most voters of the group think the time is: what one wrong clock
    /// would forget cannot be had back.
    async fn retire(&self, data: &DataGroup) -> Result<(), Error> {
        for (shard, table) in data.reader().shards() {
            let Some(retention_us) = table.event().and_then(|options| options.retention_us) else { continue };
            let Some((_, snapshot)) = data.reader().snapshot(shard) else { continue };
            let now_us = self.clock.now_us();
            if expired_splits(&table, &snapshot, now_us.saturating_sub(retention_us)).is_empty() {
                continue;
            }
            let Some(agreed_us) = self.agreed_now_us(&data.group.voters()).await else { continue };
            let before_us = now_us.min(agreed_us).saturating_sub(retention_us);
            let expired = expired_splits(&table, &snapshot, before_us);
            if expired.is_empty() {
                tracing::debug!(%shard, table = table.name, "the clock of this node is ahead of those of others");
            } else {
                self.expire(data, shard, before_us).await?;
                tracing::info!(%shard, table = table.name, splits = expired.len(), "forgot splits past their retention");
            }
        }
        Ok(())
    }

    /// The next merge of a shard that is due.
    fn next_merge(
        &self,
        data: &DataGroup,
        shard: ShardId,
        table: &Arc<TableDefinition>,
        forced: Option<Scope>,
        known: &mut Known,
    ) -> Option<Merge> {
        let (_, snapshot) = data.reader().snapshot(shard)?;
        let now_us = self.clock.now_us();
        let mut splits: BTreeMap<SplitId, Vec<SegmentRef>> = BTreeMap::new();
        for segment in &snapshot.segments {
            splits.entry(segment.meta.split).or_default().push(Arc::clone(segment));
        }
        known.retain(|(other, split)| *other != shard || splits.contains_key(split));
        splits.into_iter().find_map(|(split, segments)| {
            let quiet_us = now_us.saturating_sub(known.quiet_since((shard, split), segments.len(), now_us));
            // Whoever writes waits for the same threads. Not for ever: every query pays for what is left in pieces.
            if forced.is_none() && segments.len() < SEGMENTS_PRESSED_MAX && self.is_pressed(data) {
                return None;
            }
            // The definition may be older than the snapshot: it must know all columns there are.
            let known_columns = segments.iter().all(|segment| segment.meta.version <= table.version);
            if !known_columns || known.refused.contains(&(shard, split)) {
                return None;
            }
            let in_memory = snapshot.memory.iter().any(|memory| memory.split == split);
            let occasion = match forced {
                Some(_) => Occasion::Forced,
                None if !in_memory && quiet_us > GRACE_US && has_ended(table, split, now_us) => Occasion::Ended,
                None => Occasion::Open,
            };
            let deleted = snapshot.deleted.get(&split);
            let stale = || is_stale(table, &segments, deleted.is_some()) && fits_a_merge(&segments);
            if forced == Some(Scope::Stale) && !(stale() && known.purged.insert((shard, split))) {
                return None;
            }
            let holed = deleted.is_some_and(|deleted| !in_memory && is_worth_a_rewrite(&segments, deleted, occasion));
            let whole = holed || forced == Some(Scope::Stale);
            let inputs = if whole { segments.clone() } else { choose(&segments, occasion, !table.dedup().is_none())? };
            let deleted = deleted
                .map(|rows| Deleted { rows: Arc::clone(rows), all: !in_memory && inputs.len() == segments.len() });
            Some(Merge { shard, table: Arc::clone(table), split, inputs, deleted })
        })
    }

    pub(crate) async fn expire(&self, data: &DataGroup, shard: ShardId, before_us: i64) -> Result<(), Error> {
        self.forget(data, vec![Command::Expire { shard, before_us }]).await
    }

    /// Proposes what takes rows away, whose objects nobody names then.
    async fn forget(&self, data: &DataGroup, commands: Vec<Command>) -> Result<(), Error> {
        match self.propose(data.group.id(), commands).await?.outcome {
            Outcome::Done { .. } => {
                data.note_garbage(self.clock.now_us());
                Ok(())
            }
            refused => Err(defect(format!("{refused:?}"))),
        }
    }
}

impl TableSnapshot {
    /// Whether one who reads all rows of its segments would see rows that are not there: those that are deleted, or that others of their
    /// key took the place of.
    pub fn is_stale(&self) -> bool {
        self.shards.iter().any(|shard| {
            let mut splits: BTreeMap<SplitId, Vec<SegmentRef>> = BTreeMap::new();
            for segment in &shard.segments {
                splits.entry(segment.meta.split).or_default().push(Arc::clone(segment));
            }
            let deleted = |split| shard.deleted.contains_key(split);
            splits.iter().any(|(split, segments)| is_stale(&self.table.definition, segments, deleted(split)))
        })
    }
}

fn is_stale(table: &TableDefinition, segments: &[SegmentRef], has_deleted: bool) -> bool {
    let distinct = || match segments {
        [segment] => segment.meta.distinct,
        several => several.is_empty(),
    };
    has_deleted || (!table.dedup().is_none() && !distinct())
}

fn has_ended(table: &TableDefinition, split: SplitId, now_us: i64) -> bool {
    table.event().is_some_and(|options| window_of(split, options.split_interval_us).1 <= now_us)
}

/// The splits with rows whose window ended at or before `before_us`.
fn expired_splits(table: &TableDefinition, snapshot: &ShardSnapshot, before_us: i64) -> BTreeSet<SplitId> {
    let Some(options) = table.event() else { return BTreeSet::new() };
    let memory = snapshot.memory.iter().map(|memory| memory.split);
    let splits = snapshot.segments.iter().map(|segment| segment.meta.split).chain(memory);
    splits.filter(|split| window_of(*split, options.split_interval_us).1 <= before_us).collect()
}
