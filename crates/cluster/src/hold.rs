//! Segments kept for readers outside the node, which the node cannot see reading.
//!
//! Whoever was given a manifest reads its files for a while. Until then a compaction, a retention or a DROP TABLE takes the segments out of
//! the manifest as always, but their objects stay. Holds end with the process: they are promises to readers, not data.

use event::limits::HOLDS_MAX;
use storage::segment::SegmentRef;

use crate::error::Error;
use crate::node::{Node, TableSnapshot};

/// Segments of one manifest, and until when they are kept.
#[derive(Debug)]
pub(crate) struct Hold {
    until_us: i64,
    _segments: Vec<SegmentRef>,
}

impl Hold {
    /// Keeps segments until that time.
    pub(crate) fn new(until_us: i64, segments: Vec<SegmentRef>) -> Hold {
        Hold { until_us, _segments: segments }
    }
}

impl Node {
    /// Keeps the objects of all segments of `snapshot` for `for_us` microseconds; answers when that ends, in microseconds since 1970.
    ///
    /// # Errors
    /// [`Error::Limit`] when [`HOLDS_MAX`] manifests are held already.
    pub fn hold(&self, snapshot: &TableSnapshot, for_us: i64) -> Result<i64, Error> {
        let now_us = self.clock.now_us();
        let until_us = now_us.saturating_add(for_us);
        let segments = snapshot.shards.iter().flat_map(|shard| shard.segments.iter().cloned()).collect();
        let mut holds = self.holds.lock();
        holds.retain(|hold| hold.until_us > now_us);
        if holds.len() >= HOLDS_MAX {
            return Err(Error::Limit(format!("{HOLDS_MAX} manifests are held already")));
        }
        holds.push(Hold::new(until_us, segments));
        Ok(until_us)
    }

    /// Lets go of what nobody may count on any more.
    pub(crate) fn release_holds(&self) {
        let now_us = self.clock.now_us();
        self.holds.lock().retain(|hold| hold.until_us > now_us);
        self.promises.lock().retain(|hold| hold.until_us > now_us);
        self.copies.release_incoming();
    }
}
