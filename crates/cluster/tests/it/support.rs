//! A node for tests: a table of events, rows that say who wrote them, and reading them back.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use cluster::{Commit, Error, MemoryBudget, Node, NodeOptions, Place, Table, TableSnapshot, TableSpec};
use event::{Clock, Column, ColumnId, ColumnType, Compression, Entropy, EventOptions, SimulatedClock, TableKind};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use storage::{Disk, RealDisk};
use tokio::runtime::Handle;

/// Memory no test needs.
const MEMORY_BYTES: usize = 1 << 30;
pub(crate) const HOUR_US: i64 = 3_600_000_000;
/// 2013-01-01, where the rows of most tests lie.
pub(crate) const START_US: i64 = 1_356_998_400_000_000;

/// A node with the default seal size, on `disk`.
pub(crate) async fn start(disk: Arc<dyn Disk>) -> Result<Arc<Node>, Error> {
    start_with(disk, Arc::new(SimulatedClock::at(START_US)), event::limits::SEAL_BYTES).await
}

pub(crate) async fn start_with_memory(disk: Arc<dyn Disk>, memory_bytes: usize) -> Result<Arc<Node>, Error> {
    start_whole(disk, Arc::new(SimulatedClock::at(START_US)), event::limits::SEAL_BYTES, memory_bytes).await
}

pub(crate) async fn start_with(
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    seal_bytes: usize,
) -> Result<Arc<Node>, Error> {
    start_whole(disk, clock, seal_bytes, MEMORY_BYTES).await
}

/// A node whose log files are small, so that they are soon used up and used again.
pub(crate) async fn start_small_log(disk: Arc<dyn Disk>) -> Result<Arc<Node>, Error> {
    const LOG_FILE_BYTES: u64 = 8 << 10;
    Node::start(NodeOptions { log_file_bytes: LOG_FILE_BYTES, ..options(disk, MEMORY_BYTES) }).await
}

pub(crate) fn options(disk: Arc<dyn Disk>, memory_bytes: usize) -> NodeOptions {
    NodeOptions {
        disk,
        clock: Arc::new(SimulatedClock::at(START_US)),
        entropy: Arc::new(Entropy::seeded(7)),
        consensus: Handle::current(),
        encode: Handle::current(),
        seal_bytes: event::limits::SEAL_BYTES,
        data_groups: event::limits::DATA_GROUPS,
        lease_reads: false,
        log_file_bytes: event::limits::LOG_FILE_BYTES,
        memory: MemoryBudget::new(memory_bytes),
        remote: None,
        place: Place::alone(),
    }
}

async fn start_whole(
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    seal_bytes: usize,
    memory_bytes: usize,
) -> Result<Arc<Node>, Error> {
    Node::start(NodeOptions { clock, seal_bytes, ..options(disk, memory_bytes) }).await
}

pub(crate) fn real_disk(dir: &tempfile::TempDir) -> Arc<dyn Disk> {
    Arc::new(RealDisk::new(dir.path()))
}

fn column(name: &str, column_type: ColumnType, nullable: bool) -> Column {
    Column {
        identity: None,
        modifier: None,
        required: false,
        initial: None,
        id: ColumnId(0),
        name: name.into(),
        stored: None,
        column_type,
        nullable,
        default: None,
    }
}

/// `(ts, sensor, value)`, one split an hour, series `sensor`.
pub(crate) fn events(name: &str) -> TableSpec {
    TableSpec {
        namespace: "public".into(),
        name: name.into(),
        columns: vec![
            column("ts", ColumnType::TimestampTz, false),
            column("sensor", ColumnType::Text, true),
            column("value", ColumnType::BigInt, true),
        ],
        primary_key: vec![],
        primary_key_named: None,
        unique: Vec::new(),
        kind: TableKind::Event(EventOptions {
            time_column: 0,
            series: vec![1],
            split_interval_us: HOUR_US,
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

/// The same with its rows spread over `shards` shards by their sensor.
pub(crate) fn spread(name: &str, shards: u32) -> TableSpec {
    let mut spec = events(name);
    let TableKind::Event(options) = &mut spec.kind else { unreachable!("it has events") };
    options.sharding = event::Sharding { shards, by: vec![1] };
    spec
}

/// One row of each of `sensors` sensors, all with that value.
pub(crate) fn one_of_each(sensors: usize, value: i64) -> RecordBatch {
    let all: Vec<RecordBatch> = (0..sensors).map(|sensor| rows(&format!("s{sensor:02}"), value..value + 1)).collect();
    arrow::compute::concat_batches(&all[0].schema(), &all).unwrap()
}

/// Rows `values`, one a second from `START_US` + the value, all of one sensor.
pub(crate) fn rows(sensor: &str, values: std::ops::Range<i64>) -> RecordBatch {
    let table = events("t");
    let fields = table.columns.iter().map(|c| arrow::datatypes::Field::new(&c.name, c.column_type.arrow(), c.nullable));
    let schema = Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()));
    let times = TimestampMicrosecondArray::from_iter_values(values.clone().map(|v| START_US + v * 1_000_000));
    let sensors = StringArray::from_iter_values(values.clone().map(|_| sensor));
    let numbers = Int64Array::from_iter_values(values);
    let columns = vec![Arc::new(times.with_timezone("UTC")) as _, Arc::new(sensors) as _, Arc::new(numbers) as _];
    RecordBatch::try_new(schema, columns).unwrap()
}

pub(crate) async fn insert(node: &Arc<Node>, table: &Arc<Table>, rows: RecordBatch) -> Result<Commit, Error> {
    let mut statement = node.begin();
    statement.append(table, rows).await?;
    statement.commit().await
}

/// How often each `(sensor, value)` is in the table, read as a client's query would: memory and Parquet.
pub(crate) async fn read(node: &Arc<Node>, table: &Arc<Table>) -> BTreeMap<(String, i64), u64> {
    let snapshot = node.snapshot(table).await.unwrap();
    count(node, &snapshot).await
}

pub(crate) async fn count(node: &Arc<Node>, snapshot: &TableSnapshot) -> BTreeMap<(String, i64), u64> {
    let mut found = BTreeMap::new();
    let store = node.segment_store();
    for shard in &snapshot.shards {
        let there = |split: event::SplitId, batch: &RecordBatch, base: u64| match shard.deleted.get(&split) {
            Some(deleted) => deleted.filter(batch, base).unwrap(),
            None => batch.clone(),
        };
        for memory in &shard.memory {
            memory.batches.iter().for_each(|batch| add(&mut found, &there(memory.split, batch, 0)));
        }
        for segment in &shard.segments {
            let object = store.get(&Path::from(segment.meta.name.as_str())).await.unwrap();
            let bytes = object.bytes().await.unwrap();
            storage::encode::verify_segment(&segment.meta, &bytes).unwrap();
            for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
                let meta = &segment.meta;
                add(&mut found, &there(meta.split, &batch.unwrap(), meta.sequence_base));
            }
        }
    }
    found
}

fn add(found: &mut BTreeMap<(String, i64), u64>, batch: &RecordBatch) {
    assert!(batch.num_columns() >= 4, "three columns, any that were added, and the sequence");
    let times = batch.column(0).as_primitive::<TimestampMicrosecondType>();
    let sensors = batch.column(1).as_string::<i32>();
    let values = batch.column(2).as_primitive::<Int64Type>();
    for row in 0..batch.num_rows() {
        assert!(!times.is_null(row));
        *found.entry((sensors.value(row).to_owned(), values.value(row))).or_default() += 1;
    }
}

/// `(sensor, value)` of each of `rows`, once.
pub(crate) fn once(sensor: &str, values: std::ops::Range<i64>) -> BTreeMap<(String, i64), u64> {
    values.map(|value| ((sensor.to_owned(), value), 1)).collect()
}

/// Names of all objects in the node's segment store.
pub(crate) async fn objects(node: &Arc<Node>) -> Vec<String> {
    use futures::TryStreamExt;
    let listed = node.segment_store().list(None).map_ok(|o| o.location.to_string());
    let mut names: Vec<String> = listed.try_collect().await.unwrap();
    names.sort();
    names
}

/// Waits until `condition` holds, and fails after half a minute.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    for _ in 0..3000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("still not so: {what}");
}

/// Rows `values` like [`rows`], each made `bytes` larger by its sensor's name.
pub(crate) fn wide_rows(values: std::ops::Range<i64>, bytes: usize) -> RecordBatch {
    rows(&"x".repeat(bytes), values)
}

/// The table's name in the node's catalog.
pub(crate) fn find(node: &Arc<Node>, name: &str) -> Option<Arc<Table>> {
    node.catalog().table("public", name).cloned()
}
