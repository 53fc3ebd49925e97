//! The flusher of a data group: decides when to seal, writes frozen rows as segments, checkpoints, purges the log.
//!
//! Seal, encode, put, Install, checkpoint, purge, collect: in this order, each step repeatable after a crash between two.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use event::{GroupId, limits, mutants};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use storage::command::Install;
use storage::encode::{SegmentPlace, encode_segment};
use storage::segment::SegmentRef;
use storage::shards::{Figures, FrozenSeal, FrozenSplit};
use storage::{Command, Outcome};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::ddl::defect;
use crate::error::Error;
use crate::message::Request;
use crate::node::{Counters, DataGroup, Node};
use crate::segments::store_error;
use crate::write::{UNFLUSHED_SEALS_MAX, check_install, install_bytes};

/// How often the flusher looks without being asked.
const TICK: Duration = Duration::from_secs(1);

/// How often a group is measured whose writers wait, or will soon, while the flusher is busy.
const MEASURE_TICK: Duration = Duration::from_millis(20);

/// Asks for a flush now; answered when it is done.
pub(crate) type FlushRequest = oneshot::Sender<Result<(), Error>>;

/// Asks the group's flusher on this node and waits.
async fn request(data: &DataGroup) -> Result<(), Error> {
    let stopped = || Error::ShuttingDown("the flusher has stopped".into());
    let (answer, flushed) = oneshot::channel();
    data.flush.send(answer).await.map_err(|_| stopped())?;
    flushed.await.map_err(|_| stopped())?
}

/// Runs until the node stops or is gone.
pub(crate) async fn run(
    node: Weak<Node>,
    group: GroupId,
    mut requests: mpsc::Receiver<FlushRequest>,
    pressed: Arc<Notify>,
    mut stop: watch::Receiver<bool>,
) {
    let mut tick = tokio::time::interval(TICK);
    let (mut failing, mut under_pressure) = (false, false);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let request = tokio::select! {
            _ = tick.tick() => None,
            _ = pressed.notified() => None,
            request = requests.recv() => request,
            () = relieve(&node, group), if under_pressure => {
                under_pressure = false;
                continue;
            }
            _ = stop.changed() => return,
        };
        let Some(node) = node.upgrade() else { return };
        let Some(data) = node.data.get(&group) else { return };
        let flushed = tokio::select! {
            flushed = node.look(data, request.is_some()) => flushed,
            never = node.keep_measuring(data) => match never {},
            _ = stop.changed() => return,
        };
        under_pressure = node.is_pressed(data);
        let before = std::mem::replace(&mut failing, flushed.is_err());
        data.disk_full.store(matches!(flushed, Err(Error::DiskFull(_))), Ordering::Relaxed);
        if failing {
            // Writers that wait for it are told why.
            data.relieved.notify_waiters();
        }
        match (request, flushed) {
            // Whoever asked tells of the error, unless nobody waits any more.
            (Some(request), flushed) => drop(request.send(flushed)),
            (None, Ok(())) => {}
            (None, Err(Error::ShuttingDown(_))) => return,
            (None, Err(error)) => {
                if !before {
                    tracing::error!(%group, %error, "could not flush; trying again until it works");
                }
                tokio::time::sleep(TICK).await;
            }
        }
    }
}

/// Measures a group until its writers need not wait. Rows of a replica that follows leave memory when its leader says so, whenever that is.
async fn relieve(node: &Weak<Node>, group: GroupId) {
    loop {
        tokio::time::sleep(MEASURE_TICK).await;
        let Some(node) = node.upgrade() else { return };
        let Some(data) = node.data.get(&group) else { return };
        node.measure(data);
        if !node.is_pressed(data) {
            return;
        }
    }
}

impl Node {
    /// Seals a group, writes its segments, installs them, checkpoints, purges the log. By its leader, whom to `ask` when it is another node.
    pub(crate) async fn flush_group(&self, group: GroupId, ask: bool) -> Result<(), Error> {
        let data = self.data_group(group)?;
        if ask && !data.group.leads() {
            return self.ask_for_work(&data.group, Request::Flush { group }).await;
        }
        request(data).await
    }

    /// Looks at the group and does what is due; with `forced`, everything.
    async fn look(&self, data: &DataGroup, forced: bool) -> Result<(), Error> {
        self.release_holds();
        if !data.group.leads() {
            return if forced {
                Err(replication::Error::NoLeader(data.group.id()).into())
            } else {
                self.follow(data).await
            };
        }
        // What a crash or an error left behind a Seal.
        self.write_frozen(data).await?;
        if self.is_due(data, forced) {
            data.garbage_sealed();
            self.step(data, Command::Seal).await?;
            self.write_frozen(data).await?;
        }
        self.checkpoint(data, forced).await?;
        self.measure(data);
        Ok(())
    }

    /// What a replica does that does not lead: it gets the segments of its manifests, and checkpoints by itself.
    async fn follow(&self, data: &DataGroup) -> Result<(), Error> {
        self.measure(data);
        if mutants::is_back("purged early") {
            return self.checkpoint(data, false).await;
        }
        let fetched = self.fetch_missing(data).await;
        if let Err(error) = &fetched {
            tracing::debug!(group = %data.group.id(), %error, "could not get a segment; trying again");
        }
        self.checkpoint(data, false).await?;
        // Who has no room for segments of others has none for its own: it is not given a group.
        fetched.or_else(|error| if matches!(error, Error::DiskFull(_)) { Err(error) } else { Ok(()) })
    }

    fn is_due(&self, data: &DataGroup, forced: bool) -> bool {
        let reader = data.reader();
        let figures = reader.figures();
        let applied = reader.applied();
        let files_held = self.log.files_held(data.group.id());
        if forced {
            // An Install follows its Seal; anything more is news, and so is what a new group begins with.
            return figures.open_rows > 0 || applied > figures.sealed + u64::from(figures.sealed > 0);
        }
        if figures.seals_outstanding >= limits::SEALS_OUTSTANDING_MAX {
            return false;
        }
        // Not again before the last seal's checkpoint has let the log go.
        let saved = figures.checkpointed <= data.group.checkpointed();
        let wanted = self.log.is_full() && (files_held > 0 || figures.open_rows > 0);
        if saved && (wanted || files_held > limits::LOG_FILES_HELD_MAX) {
            return true;
        }
        let now_us = self.clock.now_us();
        let grace_us = (limits::SEAL_WINDOW_GRACE_MS * 1000) as i64;
        let ended_since_us = reader.ended_since_us(now_us.saturating_sub(grace_us));
        let garbage_us = (limits::GARBAGE_AGE_MS * 1000) as i64;
        is_seal_due(&figures, ended_since_us, now_us, self.seal_bytes)
            || data.garbage_since_us().is_some_and(|since| now_us.saturating_sub(since) > garbage_us)
            || applied.saturating_sub(figures.sealed) > limits::SEAL_ENTRIES
    }

    /// Writes the rows of every outstanding seal and installs them, oldest first, in as many entries as it takes.
    async fn write_frozen(&self, data: &DataGroup) -> Result<(), Error> {
        while let Some(FrozenSeal { seal, splits }) = data.reader().frozen() {
            let (mut held, mut bytes, mut left) = (Vec::new(), 0, splits.len());
            for split in splits {
                let segment = self.write_split(data, seal, split).await?;
                bytes += install_bytes(&segment.meta);
                held.push(segment);
                left -= 1;
                if bytes > limits::ENTRY_BYTES_MAX {
                    break;
                }
            }
            self.share(data, &held).await?;
            let segments = held.iter().map(|segment| segment.meta.clone()).collect();
            let install = Install { seal: Some(seal), segments };
            check_install(&install)?;
            // Its fate may be unknown: the rows are then written again, and either of the two entries may come first.
            let installed = self.step(data, Command::Install(install)).await;
            installed.inspect_err(|_| self.promise(held.clone()))?;
            self.counters.seals.fetch_add(u64::from(left == 0), Ordering::Relaxed);
            self.measure(data);
        }
        Ok(())
    }

    /// Encodes one split on the encode runtime and puts it; the handle keeps the object until a manifest does.
    async fn write_split(&self, data: &DataGroup, seal: u64, split: FrozenSplit) -> Result<SegmentRef, Error> {
        let FrozenSplit { shard, table, mut memory } = split;
        if mutants::is_back("hole at flush") && memory.batches.len() > 1 {
            memory.batches.pop();
        }
        let (term, node) = (data.group.term(), self.identity.node);
        let name = format!("{}/{shard}/{}/{seal}-{term}-{node}-{}.parquet", table.id, memory.split, self.next_object());
        let place = SegmentPlace { shard, split: memory.split, seal: Some(seal), name };
        let turn = self.encoder.clone().acquire_owned().await.expect("the semaphore is never closed");
        let encoded = self.encode.spawn(async move {
            let _turn = turn;
            encode_segment(&table, &memory.batches, place)
        });
        let (meta, bytes) = encoded.await.map_err(|e| Error::ShuttingDown(e.to_string()))??;
        self.counters.count_segment(meta.bytes);
        let segment = data.reader().pin(meta);
        let path = Path::from(segment.meta.name.as_str());
        self.store.put(&path, PutPayload::from(bytes)).await.map_err(store_error)?;
        Ok(segment)
    }

    /// Saves the newest complete checkpoint when it is newer than the saved one, and the catalog's with it so that no group
    /// pins the log; then collects what nothing names any more.
    async fn checkpoint(&self, data: &DataGroup, forced: bool) -> Result<(), Error> {
        let saved = data.group.checkpointed();
        let mut newer = false;
        if let Some((seal, segments)) = data.reader().checkpoint_segments().filter(|(seal, _)| *seal > saved) {
            let mut needed: Vec<_> = segments.iter().map(|segment| segment.meta.clone()).collect();
            if mutants::is_back("purged early") {
                needed.clear();
            }
            match self.copies.hold_all(needed).await {
                Ok(()) => {
                    data.held.fetch_max(seal, Ordering::SeqCst);
                    data.group.checkpoint().await?;
                    newer = true;
                }
                // Nobody has it any more when it was merged meanwhile: a newer checkpoint does without it.
                Err(error) => {
                    tracing::debug!(group = %data.group.id(), seal, %error, "a checkpoint waits for a segment")
                }
            }
        }
        let entries = self.catalog.applied_index().saturating_sub(self.catalog.checkpointed());
        let held = self.log.files_held(self.catalog.id()) > limits::LOG_FILES_HELD_MAX;
        if entries > 0 && (newer || held || entries > limits::CATALOG_CHECKPOINT_ENTRIES) {
            self.catalog.checkpoint().await?;
        }
        if newer || forced || self.has_objects_to_collect() { self.collect_orphans().await } else { Ok(()) }
    }

    /// Takes the exact size of the memtables, and lets waiting writers go on when there is room. Only then: a writer that finds none asks for
    /// another look, and they would wake each other without end.
    pub(crate) fn measure(&self, data: &DataGroup) {
        let figures = data.reader().figures();
        let now = figures.open_bytes + figures.frozen_bytes;
        let before = data.unflushed.swap(now, Ordering::Relaxed);
        self.memory.take(now as usize);
        self.memory.give(before as usize);
        if self.takes_more(data) {
            data.relieved.notify_waiters();
        }
    }

    /// Whether a group's rows may grow in memory before some are written as segments.
    pub(crate) fn takes_more(&self, data: &DataGroup) -> bool {
        data.unflushed.load(Ordering::Relaxed) <= self.seal_bytes.saturating_mul(UNFLUSHED_SEALS_MAX)
    }

    /// Lets waiting writers go on as soon as rows have left memory, which on a node that follows happens at any time.
    async fn keep_measuring(&self, data: &DataGroup) -> Infallible {
        loop {
            tokio::time::sleep(MEASURE_TICK).await;
            if self.is_pressed(data) {
                self.measure(data);
            }
        }
    }

    /// Whether writers wait for the flusher, or will soon.
    pub(crate) fn is_pressed(&self, data: &DataGroup) -> bool {
        data.unflushed.load(Ordering::Relaxed) > self.seal_bytes.saturating_mul(UNFLUSHED_SEALS_MAX) / 2
    }

    async fn step(&self, data: &DataGroup, command: Command) -> Result<(), Error> {
        match self.propose(data.group.id(), vec![command]).await?.outcome {
            Outcome::Done { .. } => Ok(()),
            refused => Err(defect(format!("{refused:?}"))),
        }
    }
}

/// Whether rows shall be sealed: by size, by age, or because their window has ended.
fn is_seal_due(figures: &Figures, ended_since_us: Option<i64>, now_us: i64, seal_bytes: u64) -> bool {
    let older_than = |since_us: Option<i64>, ms: u64| {
        since_us.is_some_and(|since| now_us.saturating_sub(since) > (ms * 1000) as i64)
    };
    figures.open_bytes > seal_bytes
        || older_than(figures.open_since_us, limits::SEAL_AGE_MS)
        || older_than(ended_since_us, limits::SEAL_WINDOW_GRACE_MS)
}

impl Counters {
    pub(crate) fn count_segment(&self, bytes: u64) {
        self.segments.fetch_add(1, Ordering::Relaxed);
        self.segment_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use storage::SimulatedDisk;
    use tokio::time::Instant;

    use super::*;
    use crate::testing::start;

    #[tokio::test(start_paused = true)]
    async fn writers_go_on_as_soon_as_rows_have_left_memory() {
        let node = start(Arc::new(SimulatedDisk::new(1)), 1).await;
        let group = GroupId(1);
        let data = node.data_group(group).unwrap();
        // What writers have counted, and memtables hold no longer.
        let bytes = node.seal_bytes * (UNFLUSHED_SEALS_MAX + 1);
        node.memory.take(bytes as usize);
        data.unflushed.store(bytes, Ordering::Relaxed);
        assert!(!node.takes_more(data));
        let (relieved, begun) = (data.relieved.notified(), Instant::now());
        relieve(&Arc::downgrade(&node), group).await;
        relieved.await;
        assert!(node.takes_more(data) && begun.elapsed() < TICK, "before the flusher looks again");
        node.shutdown().await.unwrap();
    }
}
