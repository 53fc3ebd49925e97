//! The pieces a snapshot consists of: segments, splits in memory, and the transaction's own rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use cluster::{TableSnapshot, Uncommitted};
use event::{ShardId, SplitId};
use storage::SequenceSet;
use storage::segment::SegmentRef;
use storage::sequences::OWN_ROW;
use storage::snapshot::MemorySplit;

/// A segment with the rows of its split that are deleted.
#[derive(Clone, Debug)]
pub(crate) struct HoledSegment {
    /// The segment.
    pub(crate) segment: SegmentRef,
    /// Sequence numbers of rows that are not there any more, of this segment and of others.
    pub(crate) deleted: Arc<SequenceSet>,
    /// What a number in the file needs to be one of those.
    pub(crate) base: u64,
}

/// What a scan reads or skips as one piece.
#[derive(Clone, Debug)]
pub(crate) enum ScanUnit {
    /// A segment of the snapshot, or one staged by the transaction.
    Segment(SegmentRef),
    /// A segment some of whose rows may be deleted.
    Holed(HoledSegment),
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
    /// Rows, exactly; of a segment that may have deleted ones at most so many.
    pub(crate) fn rows(&self) -> u64 {
        match self {
            ScanUnit::Segment(segment) | ScanUnit::Holed(HoledSegment { segment, .. }) => segment.meta.rows,
            ScanUnit::Memory { rows, .. } => rows.rows,
            ScanUnit::Uncommitted(batches) => batches.iter().map(|b| b.num_rows() as u64).sum(),
        }
    }

    /// The split it lies in; own rows have none yet.
    pub(crate) fn split(&self) -> Option<(ShardId, SplitId)> {
        match self {
            ScanUnit::Segment(segment) | ScanUnit::Holed(HoledSegment { segment, .. }) => {
                Some((segment.meta.shard, segment.meta.split))
            }
            ScanUnit::Memory { shard, rows } => Some((*shard, rows.split)),
            ScanUnit::Uncommitted(_) => None,
        }
    }

    /// Smallest and largest event time in microseconds, when known.
    pub(crate) fn time_us(&self) -> Option<(i64, i64)> {
        match self {
            ScanUnit::Segment(segment) | ScanUnit::Holed(HoledSegment { segment, .. }) => {
                segment.meta.time_min_us.zip(segment.meta.time_max_us)
            }
            ScanUnit::Memory { rows, .. } => rows.time_min_us.zip(rows.time_max_us),
            ScanUnit::Uncommitted(_) => None,
        }
    }

    /// The same, its rows read without their numbers where that is possible.
    pub(crate) fn unnumbered(self) -> ScanUnit {
        match self {
            ScanUnit::Holed(HoledSegment { segment, deleted, .. }) if deleted.is_empty() => ScanUnit::Segment(segment),
            unit => unit,
        }
    }

    /// The batches, for what lies in memory.
    pub(crate) fn batches(&self) -> &[RecordBatch] {
        match self {
            ScanUnit::Segment(_) | ScanUnit::Holed(_) => &[],
            ScanUnit::Memory { rows, .. } => &rows.batches,
            ScanUnit::Uncommitted(batches) => batches,
        }
    }
}

/// All pieces of a snapshot and of the transaction's own rows. Together they hold each visible row once. With `numbered` every segment is
/// read with its rows' sequence numbers.
pub(crate) fn units_of(
    snapshot: &TableSnapshot,
    own: &[Uncommitted],
    numbered: bool,
) -> Result<Vec<ScanUnit>, storage::Error> {
    let definition = &snapshot.table.definition;
    let nothing = BTreeMap::new();
    let mut units = Vec::new();
    for shard in &snapshot.shards {
        let own_deleted = own.iter().find(|own| own.shard == shard.shard).map_or(&nothing, |own| &own.deleted);
        let deleted = |split: SplitId| match (shard.deleted.get(&split), own_deleted.get(&split)) {
            (Some(committed), None) => Some(Arc::clone(committed)),
            (committed, Some(own)) => Some(Arc::new(committed.map_or_else(|| own.clone(), |rows| rows.union(own)))),
            (None, None) => None,
        };
        for segment in &shard.segments {
            units.push(of_segment(segment, deleted(segment.meta.split), segment.meta.sequence_base, numbered));
        }
        for rows in &shard.memory {
            let rows = match deleted(rows.split) {
                Some(deleted) => rows.without(&deleted, definition)?,
                None => rows.clone(),
            };
            if rows.rows > 0 {
                units.push(ScanUnit::Memory { shard: shard.shard, rows });
            }
        }
    }
    let mut in_memory = Vec::new();
    for own in own {
        for segment in &own.segments {
            let deleted = own.deleted.get(&segment.meta.split).map(|rows| Arc::new(rows.clone()));
            units.push(of_segment(segment, deleted, OWN_ROW, numbered));
        }
        let deleted = own.deleted.values().fold(SequenceSet::default(), |all, rows| all.union(rows));
        for batch in &own.batches {
            in_memory.push(deleted.filter(batch, 0).map_err(|error| storage::Error::Columns(error.to_string()))?);
        }
    }
    if in_memory.iter().any(|batch| batch.num_rows() > 0) {
        units.push(ScanUnit::Uncommitted(in_memory));
    }
    Ok(units)
}

fn of_segment(segment: &SegmentRef, deleted: Option<Arc<SequenceSet>>, base: u64, numbered: bool) -> ScanUnit {
    match deleted {
        None if !numbered => ScanUnit::Segment(Arc::clone(segment)),
        deleted => {
            ScanUnit::Holed(HoledSegment { segment: Arc::clone(segment), deleted: deleted.unwrap_or_default(), base })
        }
    }
}
