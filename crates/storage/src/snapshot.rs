//! What a reader pins of one shard: a manifest version and a prefix of the memtable.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use arrow::record_batch::RecordBatch;
use event::{ShardId, SplitId};

use crate::segment::SegmentRef;
use crate::sequences::SequenceSet;

/// One consistent cut of a shard: `segments` and `memory` without the `deleted` rows hold each of its rows exactly once.
#[derive(Clone, Debug)]
pub struct ShardSnapshot {
    /// The shard.
    pub shard: ShardId,
    /// The log index up to which everything is in and beyond which nothing is.
    pub index: u64,
    /// The segments, in no particular order.
    pub segments: Vec<SegmentRef>,
    /// Rows not yet in segments (open and frozen), by split.
    pub memory: Vec<MemorySplit>,
    /// Rows of `segments` and `memory` that are deleted, by split.
    pub deleted: BTreeMap<SplitId, Arc<SequenceSet>>,
}

/// Rows of one split that are still in memory. The batches have the table's columns followed by `__seq`.
#[derive(Clone, Debug)]
pub struct MemorySplit {
    /// The split.
    pub split: SplitId,
    /// Rows in all.
    pub rows: u64,
    /// Those that no seal has frozen yet; the rest are being written as a segment.
    pub open_rows: u64,
    /// Smallest event time in microseconds; `None` for reference tables.
    pub time_min_us: Option<i64>,
    /// Largest event time in microseconds; `None` for reference tables.
    pub time_max_us: Option<i64>,
    /// The rows, in commit order.
    pub batches: Vec<RecordBatch>,
}

impl ShardSnapshot {
    /// A checksum of the state at this index: the segments, the rows in memory and what is deleted. Replicas that have applied the same
    /// entries have the same.
    pub fn checksum(&self) -> u32 {
        let mut names: Vec<(&str, u32)> =
            self.segments.iter().map(|s| (s.meta.name.as_str(), s.meta.checksum)).collect();
        names.sort_unstable();
        let mut sum = 0;
        for (name, checksum) in names {
            sum = crc32c::crc32c_append(sum, name.as_bytes());
            sum = crc32c::crc32c_append(sum, &checksum.to_le_bytes());
        }
        for split in &self.memory {
            sum = crc32c::crc32c_append(sum, &split.split.0.to_le_bytes());
            sum = crc32c::crc32c_append(sum, &split.rows.to_le_bytes());
            let sequences = split.batches.iter().filter_map(|batch| batch.columns().last());
            for numbers in sequences.filter_map(|column| column.as_primitive_opt::<UInt64Type>()) {
                sum =
                    numbers.values().iter().fold(sum, |sum, number| crc32c::crc32c_append(sum, &number.to_le_bytes()));
            }
        }
        for (split, rows) in &self.deleted {
            sum = crc32c::crc32c_append(sum, &split.0.to_le_bytes());
            sum = crc32c::crc32c_append(sum, format!("{rows:?}").as_bytes());
        }
        sum
    }
}
