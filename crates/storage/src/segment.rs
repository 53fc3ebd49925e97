//! Segments: one immutable Parquet object with rows of exactly one split, and what the manifest says of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use event::{ColumnId, SchemaVersion, ShardId, SplitId, TableId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Name of the hidden column that orders rows by commit: (entry index << 24) | row.
pub const SEQUENCE_COLUMN: &str = "__seq";

/// What the manifest says of one segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentMeta {
    /// Object name below `segments/`: `table/shard/split/seal-term-node-n.parquet`.
    pub name: String,
    /// The table.
    pub table: TableId,
    /// The shard.
    pub shard: ShardId,
    /// The split whose window all rows lie in.
    pub split: SplitId,
    /// The schema version the rows were written with.
    pub version: SchemaVersion,
    /// Rows.
    pub rows: u64,
    /// Size of the object in bytes.
    pub bytes: u64,
    /// CRC-32C of the whole object.
    pub checksum: u32,
    /// Smallest event time in microseconds; `None` for reference tables.
    pub time_min_us: Option<i64>,
    /// Largest event time in microseconds; `None` for reference tables.
    pub time_max_us: Option<i64>,
    /// Added to `__seq` of each row: the entry index << 24 for staged segments, 0 otherwise (also once merged).
    pub sequence_base: u64,
    /// Whether no two of its rows have one primary key; `false` also when nobody looked.
    #[serde(default)]
    pub distinct: bool,
    /// Statistics of each column, in table order.
    pub columns: Vec<ColumnStatistics>,
}

/// Exact statistics of one column of one segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnStatistics {
    /// The column.
    pub column: ColumnId,
    /// NULLs.
    pub nulls: u64,
    /// NaNs, which `min` and `max` leave out; 0 for types without NaN.
    pub nans: u64,
    /// Smallest value that is neither NULL nor NaN.
    pub min: Option<StatisticsValue>,
    /// Largest value that is neither NULL nor NaN.
    pub max: Option<StatisticsValue>,
    /// Sum of the values that are not NULL; `None` when the type has no sum or it overflows.
    pub sum: Option<StatisticsValue>,
}

/// A value in statistics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatisticsValue {
    /// Integers, dates (days) and timestamps (µs); sums of integers.
    Integer(i128),
    /// Floats, as bits so that every value survives JSON.
    FloatBits(u64),
    /// Unscaled decimal.
    Decimal(i128),
    /// Text of at most 64 bytes; longer values give no statistics.
    Text(String),
    /// Boolean.
    Boolean(bool),
}

/// A segment that a manifest, snapshot or statement holds on to. The object stays at least as long as this handle.
#[derive(Debug)]
pub struct Segment {
    /// What the manifest says.
    pub meta: SegmentMeta,
    /// Counts this handle while it lives.
    _pin: Option<Pin>,
}

/// A shared handle.
pub type SegmentRef = Arc<Segment>;

impl Segment {
    /// A handle that keeps no object: for segments that nobody deletes.
    pub fn unpinned(meta: SegmentMeta) -> SegmentRef {
        Arc::new(Segment { meta, _pin: None })
    }
}

/// Counts the handles of each segment of one group, so that an object is deleted only when nothing on this node reads it, and what it must be is
/// known for as long.
#[derive(Clone, Debug, Default)]
pub struct SegmentPins(Arc<Mutex<BTreeMap<String, Pinned>>>);

/// What is known of a segment that has handles.
#[derive(Debug)]
struct Pinned {
    meta: SegmentMeta,
    handles: usize,
}

impl SegmentPins {
    /// A handle that counts until it is dropped.
    pub fn pin(&self, meta: SegmentMeta) -> SegmentRef {
        let mut pinned = self.0.lock();
        pinned.entry(meta.name.clone()).or_insert_with(|| Pinned { meta: meta.clone(), handles: 0 }).handles += 1;
        drop(pinned);
        let pin = Pin { name: meta.name.clone(), pins: self.clone() };
        Arc::new(Segment { meta, _pin: Some(pin) })
    }

    /// The segment of that name, while any handle of it is left.
    pub fn pinned(&self, name: &str) -> Option<SegmentMeta> {
        self.0.lock().get(name).map(|pinned| pinned.meta.clone())
    }

    /// Whether any handle of the segment of that name is left.
    pub fn is_pinned(&self, name: &str) -> bool {
        self.0.lock().contains_key(name)
    }
}

/// One count in [`SegmentPins`].
#[derive(Debug)]
struct Pin {
    name: String,
    pins: SegmentPins,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pinned = self.pins.0.lock();
        let of_name = pinned.get_mut(&self.name).expect("a pin is counted while it lives");
        of_name.handles -= 1;
        if of_name.handles == 0 {
            pinned.remove(&self.name);
        }
    }
}
