//! Segments of snapshots on their way in: fetched before Raft installs the snapshot, and kept until it has.
//!
//! No manifest names them before, so that a collection of orphans would take them away between the two. A leader that gives up a snapshot sends
//! it again: what was fetched for the one before is still there.

use std::sync::Arc;
use std::time::Duration;

use event::GroupId;
use storage::SegmentMeta;
use storage::segment::SegmentRef;
use tokio::time::Instant;

use crate::copies::Copies;
use crate::error::Error;

/// How long segments of a snapshot are kept that was not installed, unless another of its group arrives.
const PATIENCE: Duration = Duration::from_secs(600);

/// The segments of the newest snapshot that was sent to a group.
#[derive(Debug)]
pub(crate) struct Kept {
    since: Instant,
    segments: Vec<SegmentRef>,
}

/// A snapshot whose segments are here and stay.
#[derive(Debug)]
pub(crate) struct Incoming {
    copies: Arc<Copies>,
    group: GroupId,
    kept: Arc<Kept>,
}

impl Incoming {
    /// The group's manifests keep the segments from now on, or Raft had no use for them.
    pub(crate) fn installed(self) {
        let mut incoming = self.copies.incoming.lock();
        // Unless the next one is on its way already.
        if incoming.get(&self.group).is_some_and(|newest| Arc::ptr_eq(newest, &self.kept)) {
            incoming.remove(&self.group);
        }
    }
}

impl Copies {
    /// Returns once all segments that a snapshot names are here, which stay until it is installed. When it is not, because whoever sent it
    /// gave up, they stay for a while.
    ///
    /// # Errors
    /// When no other node has one of them.
    pub(crate) async fn prepare_snapshot(
        self: &Arc<Self>,
        group: GroupId,
        segments: Vec<SegmentMeta>,
    ) -> Result<Incoming, Error> {
        let pinned = segments.iter().map(|meta| self.pins.pin(meta.clone())).collect();
        let kept = Arc::new(Kept { since: Instant::now(), segments: pinned });
        let before = self.incoming.lock().insert(group, Arc::clone(&kept));
        self.hold_all(segments).await?;
        drop(before);
        Ok(Incoming { copies: Arc::clone(self), group, kept })
    }

    /// Whether a snapshot on its way in needs the segment of that name.
    pub(crate) fn is_incoming(&self, name: &str) -> bool {
        self.pins.is_pinned(name)
    }

    /// Lets go of the segments of snapshots that nobody has sent again.
    pub(crate) fn release_incoming(&self) {
        self.incoming.lock().retain(|group, kept| {
            let stays = kept.since.elapsed() < PATIENCE;
            if !stays {
                tracing::debug!(%group, segments = kept.segments.len(), "a snapshot was never installed");
            }
            stays
        });
    }
}
