//! The tables of a simulation, and rows for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use cluster::TableSpec;
use event::split::{split_of, window_of};
use event::{Column, ColumnId, ColumnType, Compression, EventOptions, TableKind};
use rand::Rng;
use rand::rngs::StdRng;

/// One day: events fall into a handful of splits.
pub(crate) const SPLIT_US: i64 = 86_400_000_000;
/// Where event times begin.
pub(crate) const TIMES_US: i64 = 1_699_000_000_000_000;
/// Payload of the rows of a bulk statement, so that few rows exceed an entry.
pub(crate) const BULK_PAYLOAD_BYTES: usize = 64 << 10;

/// `count` rows with ids from `first` on, and of each id when its window ends.
pub(crate) fn rows(rng: &mut StdRng, first: i64, count: usize, payload: usize) -> (RecordBatch, BTreeMap<i64, i64>) {
    let ids: Vec<i64> = (first..first + count as i64).collect();
    let times: Vec<i64> = ids.iter().map(|_| TIMES_US + rng.random_range(0..4 * SPLIT_US)).collect();
    let ends = times.iter().map(|time| window_of(split_of(*time, SPLIT_US), SPLIT_US).1);
    let ends = ids.iter().copied().zip(ends).collect();
    let payloads: Vec<String> = ids.iter().map(|_| text(rng.random(), payload)).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
        Arc::new(Int64Array::from(ids.clone())),
        Arc::new(StringArray::from(payloads)),
    ];
    let schema = event::TableDefinition {
        dropped: Vec::new(),
        id: event::TableId(0),
        namespace: String::new(),
        name: String::new(),
        version: event::SchemaVersion(1),
        columns: spec("").columns,
        primary_key: Vec::new(),
        primary_key_named: None,
        unique: Vec::new(),
        kind: TableKind::Reference,
        compression: Compression::Zstd,
        checks: Vec::new(),
        consistency: event::Consistency::Strong,
        replicas: event::Replicas::default(),
    }
    .arrow_schema();
    (RecordBatch::try_new(schema, columns).expect("columns fit the schema"), ends)
}

/// Text that does not compress to nothing. Drawing each letter from the generator would take most of a run's time.
fn text(seed: u64, len: usize) -> String {
    let mut state = seed;
    let letter = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + (state >> 59) as u8 % 26)
    };
    (0..len).map(letter).collect()
}

/// The same with its rows spread over shards of two groups.
pub(crate) fn spread(name: &str) -> TableSpec {
    let mut spread = spec(name);
    if let TableKind::Event(options) = &mut spread.kind {
        options.sharding = event::Sharding { shards: 2, by: vec![1] };
    }
    spread
}

/// A table of events with a text of each.
pub(crate) fn spec(name: &str) -> TableSpec {
    let column = |id, name: &str, column_type, nullable| Column {
        identity: None,
        modifier: None,
        required: false,
        initial: None,
        stored: None,
        id: ColumnId(id),
        name: name.to_string(),
        column_type,
        nullable,
        default: None,
    };
    TableSpec {
        namespace: "public".to_string(),
        name: name.to_string(),
        columns: vec![
            column(1, "ts", ColumnType::TimestampTz, false),
            column(2, "id", ColumnType::BigInt, false),
            column(3, "payload", ColumnType::Text, true),
        ],
        primary_key: Vec::new(),
        primary_key_named: None,
        unique: Vec::new(),
        kind: TableKind::Event(EventOptions {
            time_column: 0,
            series: vec![1],
            split_interval_us: SPLIT_US,
            retention_us: None,
            dedup: event::Dedup::None,
            sharding: event::Sharding::default(),
        }),
        compression: Compression::Zstd,
        checks: Vec::new(),
        consistency: event::Consistency::Strong,
        replicas: event::Replicas::default(),
    }
}
