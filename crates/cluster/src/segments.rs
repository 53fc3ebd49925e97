//! The objects of this node: all that manifests name must be there, what nothing names goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use event::limits;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use storage::segment::SegmentRef;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::directory::SEGMENTS_DIR;
use crate::error::Error;
use crate::hold::PROMISE;
use crate::node::{DataGroup, Node};

/// How long a collection waits until entries are applied.
const APPLY_WAIT: Duration = Duration::from_secs(5);

/// How long an object stays that nothing names here any more, where there are other nodes: one that has not fetched it may be behind, and still
/// name it, or have given it to a reader.
const LINGER: Duration = Duration::from_secs(30);

/// Objects that nothing names on this node, and until when they stay all the same.
#[derive(Debug, Default)]
pub(crate) struct Lingering(BTreeMap<String, Lingers>);

#[derive(Clone, Copy, Debug)]
struct Lingers {
    until: Instant,
    /// Nothing named it when the process had started: an entry that comes may.
    left_over: bool,
}

impl Lingering {
    /// Whether the object stays. One that nobody has asked for begins to linger now.
    fn keeps(&mut self, name: &str, is_full: bool) -> bool {
        let begins = || Lingers { until: Instant::now() + LINGER, left_over: false };
        let lingers = self.0.entry(name.to_owned()).or_insert_with(begins);
        // Without room on the disk, readers elsewhere ask again.
        lingers.until > Instant::now() && (lingers.left_over || !is_full)
    }

    fn is_over(&self) -> bool {
        self.0.values().any(|lingers| lingers.until <= Instant::now())
    }
}

/// Every Parquet file begins and ends with it.
const PARQUET_MAGIC: &[u8] = b"PAR1";

impl Node {
    /// The same as [`Node::check_segments`], by the threads that may be busy for long: what is damaged or missing is fetched.
    pub(crate) async fn check_segments_aside(self: &Arc<Self>) -> Result<(), Error> {
        let node = Arc::clone(self);
        let checked = AbortOnDropHandle::new(self.encode.spawn(async move { node.check_segments().await }));
        checked.await.map_err(|error| Error::ShuttingDown(error.to_string()))?
    }

    /// Checks that each segment of each manifest is there with its length and the end of a Parquet file. The checksum is not
    /// read: that would cost reading everything.
    async fn check_segments(&self) -> Result<(), Error> {
        let lengths = self.objects().await?;
        let mut segments = Vec::new();
        for data in self.data.values() {
            segments.extend(data.reader().segments());
        }
        let found = segments.iter().filter(|segment| lengths.contains_key(&segment.meta.name));
        let found: Vec<Path> = found.map(|segment| Path::from(segment.meta.name.as_str())).collect();
        self.store.settle(&found).await.map_err(store_error)?;
        let check = |s: &SegmentRef| self.check_segment(s.clone(), lengths.get(&s.meta.name).copied()).boxed();
        let checks: Vec<_> = segments.iter().map(check).collect();
        stream::iter(checks).buffer_unordered(limits::DISK_CALLS_MAX).try_collect().await
    }

    /// What is missing or damaged here is fetched, if another node has it. When none can be reached that has it, the node starts all the same:
    /// its vote may be what the others wait for, and the segment is asked for again before a checkpoint names it and when somebody reads it.
    async fn check_segment(&self, segment: SegmentRef, length: Option<u64>) -> Result<(), Error> {
        let checked = self.look_at_segment(&segment, length).await;
        if checked.is_err() && !self.network.others().is_empty() {
            tracing::warn!(
                segment = segment.meta.name,
                "a segment is not as it was left, and is fetched from another node"
            );
            if let Err(error) = self.store.verify(&segment.meta).await {
                tracing::warn!(segment = segment.meta.name, %error, "could not get a segment; trying again later");
            }
            return Ok(());
        }
        if checked.is_ok() {
            self.copies.note_held(&segment.meta.name);
        }
        checked
    }

    async fn look_at_segment(&self, segment: &SegmentRef, length: Option<u64>) -> Result<(), Error> {
        let meta = &segment.meta;
        let damaged = |offset: u64, reason: String| {
            let file = format!("{SEGMENTS_DIR}/{}", meta.name);
            Err(Error::Storage(storage::Error::Corrupt { file, offset, reason }))
        };
        let Some(length) = length else {
            return damaged(0, "the manifest names it and it is not there".into());
        };
        if length != meta.bytes {
            return damaged(length.min(meta.bytes), format!("{} bytes expected, {length} there", meta.bytes));
        }
        if !self.store.is_embedded() {
            // A request for each object would hold up the start, and a put elsewhere is whole or not at all.
            return Ok(());
        }
        let end = meta.bytes.saturating_sub(PARQUET_MAGIC.len() as u64);
        let magic =
            self.store.get_range(&Path::from(meta.name.as_str()), end..meta.bytes).await.map_err(store_error)?;
        if magic != PARQUET_MAGIC {
            return damaged(end, "the end of a Parquet file is missing".into());
        }
        Ok(())
    }

    /// Notes the objects that nothing names when the process has started. Among several nodes one of them may be counted on all the same: by a
    /// statement whose entry another node has, or is about to get.
    pub(crate) async fn note_left_over(&self) -> Result<(), Error> {
        // Of a shared store only what no node needs is deleted.
        if self.store.is_embedded() && !self.network.others().is_empty() {
            let unnamed = self.objects().await?.into_keys().filter(|name| !self.wants(name));
            let lingers = Lingers { until: Instant::now() + PROMISE, left_over: true };
            self.lingering.lock().0.extend(unnamed.map(|name| (name, lingers)));
        }
        Ok(())
    }

    /// Whether objects that nothing names have stayed for long enough, and can be collected without waiting for entries to be applied: whoever asks
    /// does so again and again, and has other work to do.
    pub(crate) fn has_objects_to_collect(&self) -> bool {
        let is_applied = |data: &Arc<DataGroup>| {
            let status = data.group.status();
            status.applied >= status.last
        };
        self.lingering.lock().is_over() && self.data.values().all(is_applied)
    }

    /// Whether everything in the logs of this node's replicas is applied that is there now; waits for it a little.
    async fn has_applied_its_logs(&self) -> bool {
        let applied = async {
            for data in self.data.values() {
                data.group.applied(data.group.status().last).await?;
            }
            Ok::<(), replication::Error>(())
        };
        tokio::time::timeout(APPLY_WAIT, applied).await.is_ok_and(|applied| applied.is_ok())
    }

    /// Deletes the objects that no manifest, checkpoint, snapshot or statement holds. Not while entries are in the log that are not applied: they may
    /// name objects.
    pub(crate) async fn collect_orphans(&self) -> Result<(), Error> {
        if !self.store.is_embedded() {
            return self.collect_shared().await;
        }
        let listed = self.objects().await?;
        if !self.has_applied_its_logs().await {
            return Ok(());
        }
        let (alone, is_full) = (self.network.others().is_empty(), self.host_status().is_full);
        self.lingering.lock().0.retain(|name, _| listed.contains_key(name) && !self.wants(name));
        for name in listed.keys() {
            // A statement pins its objects before it puts them, so what is listed and not pinned is nobody's.
            if self.wants(name) || (!alone && self.lingering.lock().keeps(name, is_full)) {
                continue;
            }
            let path = Path::from(name.as_str());
            // Whoever wants it from now on finds it gone, and fetches it.
            let _turn = self.store.turn(&path).await;
            self.copies.note_deleted(name);
            // Who has wanted it since may count on what it was known to be a moment ago.
            if self.wants(name) {
                continue;
            }
            let deleted = self.store.delete(&path).await;
            self.lingering.lock().0.remove(name);
            match deleted {
                Ok(()) => tracing::debug!(object = %name, "deleted an object that nothing names"),
                // Each group's flusher collects, and has listed what another has deleted since.
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(store_error(error)),
            }
        }
        Ok(())
    }

    /// All objects with their lengths.
    pub(crate) async fn objects(&self) -> Result<BTreeMap<String, u64>, Error> {
        let listed = self.store.list(None).map_ok(|object| (object.location.to_string(), object.size));
        listed.try_collect().await.map_err(store_error)
    }
}

pub(crate) fn store_error(error: object_store::Error) -> Error {
    let context = "could not use the segment store".to_owned();
    storage::Error::Io { context, source: std::io::Error::other(error) }.into()
}

#[cfg(test)]
mod tests {
    use object_store::{ObjectStoreExt, PutPayload};
    use storage::RealDisk;

    use super::*;
    use crate::testing::start;

    #[tokio::test(start_paused = true)]
    async fn what_nothing_names_lingers() {
        let mut lingering = Lingering::default();
        assert!(lingering.keeps("a", false) && !lingering.keeps("b", true), "not where there is no room");
        tokio::time::advance(LINGER / 2).await;
        assert!(lingering.keeps("a", false) && !lingering.is_over());
        tokio::time::advance(LINGER / 2).await;
        assert!(!lingering.keeps("a", false) && lingering.is_over());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn several_collect_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let node = start(std::sync::Arc::new(RealDisk::new(dir.path())), 3).await;
        for round in 0..10 {
            for orphan in 0..30 {
                let path = Path::from(format!("1/1/{round}/{orphan}.parquet"));
                node.store.put(&path, PutPayload::from_static(b"nobody's")).await.unwrap();
            }
            let collecting = (0..3).map(|_| {
                let node = node.clone();
                tokio::spawn(async move { node.collect_orphans().await })
            });
            for collected in futures::future::join_all(collecting).await {
                collected.unwrap().unwrap();
            }
            assert!(node.objects().await.unwrap().is_empty(), "round {round}");
        }
        node.shutdown().await.unwrap();
    }
}
