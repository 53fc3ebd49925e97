//! Segments kept although nothing may name them: for readers outside the node, which the node cannot see reading, and for statements whose
//! entry may still come.
//!
//! Whoever was given a manifest reads its files for a while. Until then a compaction, a retention or a DROP TABLE takes the segments out of
//! the manifest as always, but their objects stay. Holds end with the process, and how long they last does not depend on the clock of the machine,
//! which may jump.

use std::time::Duration;

use event::limits::HOLDS_MAX;
use storage::segment::SegmentRef;
use tokio::time::Instant;

use crate::error::Error;
use crate::node::{Node, TableSnapshot};

/// How long a node keeps segments that a statement may name whose fate it does not know.
pub(crate) const PROMISE: Duration = Duration::from_secs(600);

/// Segments, and until when they are kept.
#[derive(Debug)]
pub(crate) struct Hold {
    until: Instant,
    _segments: Vec<SegmentRef>,
}

impl Hold {
    /// Keeps segments for so long.
    pub(crate) fn new(duration: Duration, segments: Vec<SegmentRef>) -> Hold {
        Hold { until: Instant::now() + duration, _segments: segments }
    }

    fn is_over(&self) -> bool {
        self.until <= Instant::now()
    }
}

impl Node {
    /// Keeps the objects of all segments of `snapshot` for `for_us` microseconds; answers when that ends by this node's clock, in microseconds
    /// since 1970.
    ///
    /// # Errors
    /// [`Error::Limit`] when [`HOLDS_MAX`] manifests are held already.
    pub fn hold(&self, snapshot: &TableSnapshot, for_us: i64) -> Result<i64, Error> {
        let duration = Duration::from_micros(u64::try_from(for_us).unwrap_or(0));
        let segments = snapshot.shards.iter().flat_map(|shard| shard.segments.iter().cloned()).collect();
        let mut holds = self.holds.lock();
        holds.retain(|hold| !hold.is_over());
        if holds.len() >= HOLDS_MAX {
            return Err(Error::Limit(format!("{HOLDS_MAX} manifests are held already")));
        }
        holds.push(Hold::new(duration, segments));
        Ok(self.clock.now_us().saturating_add(for_us))
    }

    /// Keeps segments of a statement that may be in a log, or may get there.
    pub(crate) fn promise(&self, segments: Vec<SegmentRef>) {
        if !segments.is_empty() {
            self.promises.lock().push(Hold::new(PROMISE, segments));
        }
    }

    /// Lets go of what nobody may count on any more.
    pub(crate) fn release_holds(&self) {
        self.holds.lock().retain(|hold| !hold.is_over());
        self.promises.lock().retain(|hold| !hold.is_over());
        self.copies.release_incoming();
    }
}
