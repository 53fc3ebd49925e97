//! The pieces a snapshot consists of: segments, splits in memory, and the transaction's own rows.

use arrow::record_batch::RecordBatch;
use cluster::{TableSnapshot, Uncommitted};
use event::{ShardId, SplitId};
use storage::segment::SegmentRef;
use storage::snapshot::MemorySplit;

/// What a scan reads or skips as one piece.
#[derive(Clone, Debug)]
pub(crate) enum ScanUnit {
    /// A segment of the snapshot, or one staged by the transaction.
    Segment(SegmentRef),
    /// Rows of one split still in memory.
    Memory {
        /// The shard they belong to.
        shard: ShardId,
        /// The rows.
        rows: MemorySplit,
    },
    /// The transaction's own rows, not yet cut into splits.
    Uncommitted(Vec<RecordBatch>),
}

impl ScanUnit {
    /// Rows, exactly.
    pub(crate) fn rows(&self) -> u64 {
        match self {
            ScanUnit::Segment(segment) => segment.meta.rows,
            ScanUnit::Memory { rows, .. } => rows.rows,
            ScanUnit::Uncommitted(batches) => batches.iter().map(|b| b.num_rows() as u64).sum(),
        }
    }

    /// The split it lies in; own rows have none yet.
    pub(crate) fn split(&self) -> Option<(ShardId, SplitId)> {
        match self {
            ScanUnit::Segment(segment) => Some((segment.meta.shard, segment.meta.split)),
            ScanUnit::Memory { shard, rows } => Some((*shard, rows.split)),
            ScanUnit::Uncommitted(_) => None,
        }
    }

    /// Smallest and largest event time in microseconds, when known.
    pub(crate) fn time_us(&self) -> Option<(i64, i64)> {
        match self {
            ScanUnit::Segment(segment) => segment.meta.time_min_us.zip(segment.meta.time_max_us),
            ScanUnit::Memory { rows, .. } => rows.time_min_us.zip(rows.time_max_us),
            ScanUnit::Uncommitted(_) => None,
        }
    }

    /// The batches, for what lies in memory.
    pub(crate) fn batches(&self) -> &[RecordBatch] {
        match self {
            ScanUnit::Segment(_) => &[],
            ScanUnit::Memory { rows, .. } => &rows.batches,
            ScanUnit::Uncommitted(batches) => batches,
        }
    }
}

/// All pieces of a snapshot and of the transaction's own rows. Together they hold each visible row once.
pub(crate) fn units_of(snapshot: &TableSnapshot, own: Option<&Uncommitted>) -> Vec<ScanUnit> {
    let mut units = Vec::new();
    for shard in &snapshot.shards {
        units.extend(shard.segments.iter().cloned().map(ScanUnit::Segment));
        units.extend(shard.memory.iter().cloned().map(|rows| ScanUnit::Memory { shard: shard.shard, rows }));
    }
    if let Some(own) = own {
        units.extend(own.segments.iter().cloned().map(ScanUnit::Segment));
        if !own.batches.is_empty() {
            units.push(ScanUnit::Uncommitted(own.batches.clone()));
        }
    }
    units
}
