//! Scans over snapshots made by hand: segments in a store in memory, splits in memory, own rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use async_trait::async_trait;
use cluster::{ShardPlacement, Table, TableSnapshot, Uncommitted};
use datafusion::catalog::{MemTable, Session};
use datafusion::datasource::{TableProvider, TableType};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use event::split::split_of;
use event::{
    Column, ColumnId, ColumnType, Compression, EventOptions, GroupId, SchemaVersion, ShardId, SplitId, TableDefinition,
    TableId, TableKind,
};
use expect_test::{Expect, expect};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use proptest::prelude::*;
use storage::SimulatedDisk;
use storage::encode::{SegmentPlace, encode_segment};
use storage::objects::{DiskObjectStore, SegmentStore};
use storage::segment::{Segment, SegmentRef};
use storage::snapshot::{MemorySplit, ShardSnapshot};

use super::segments::SegmentSource;
use super::stored::{Wanted, plan_scan};
use crate::engine::Environment;
use crate::functions::Functions;

const HOUR_US: i64 = 3_600_000_000;
/// 2013-07-01 00:00 UTC.
const START_US: i64 = 1_372_636_800_000_000;
const SHARD: ShardId = ShardId(1);

/// Time, device, value, number.
type Row = (i64, Option<&'static str>, Option<f64>, Option<i64>);

fn definition() -> TableDefinition {
    let column = |id, name: &str, column_type, nullable| Column {
        identity: None,
        modifier: None,
        required: false,
        initial: None,
        stored: None,
        id: ColumnId(id),
        name: name.to_owned(),
        column_type,
        nullable,
        default: None,
    };
    TableDefinition {
        dropped: Vec::new(),
        id: TableId(16384),
        namespace: "public".to_owned(),
        name: "m".to_owned(),
        version: SchemaVersion(1),
        columns: vec![
            column(1, "ts", ColumnType::TimestampTz, false),
            column(2, "dev", ColumnType::Text, true),
            column(3, "v", ColumnType::Double, true),
            column(4, "n", ColumnType::BigInt, true),
        ],
        primary_key: Vec::new(),
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

fn table() -> Arc<Table> {
    let shards = vec![ShardPlacement { shard: SHARD, group: GroupId(1) }];
    Arc::new(Table { definition: Arc::new(definition()), shards })
}

fn columns(rows: &[Row]) -> Vec<ArrayRef> {
    vec![
        Arc::new(rows.iter().map(|r| Some(r.0)).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        Arc::new(rows.iter().map(|r| r.1).collect::<StringArray>()),
        Arc::new(rows.iter().map(|r| r.2).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|r| r.3).collect::<Int64Array>()),
    ]
}

fn batch(rows: &[Row]) -> RecordBatch {
    RecordBatch::try_new(definition().arrow_schema(), columns(rows)).unwrap()
}

fn sequenced(rows: &[Row]) -> RecordBatch {
    let mut columns = columns(rows);
    columns.push(Arc::new((0..rows.len() as u64).collect::<UInt64Array>()));
    RecordBatch::try_new(storage::sequence::sequenced_schema(&definition()), columns).unwrap()
}

fn by_split(rows: &[Row]) -> BTreeMap<SplitId, Vec<Row>> {
    let mut splits: BTreeMap<SplitId, Vec<Row>> = BTreeMap::new();
    for row in rows {
        splits.entry(split_of(row.0, HOUR_US)).or_default().push(*row);
    }
    splits
}

/// A snapshot under construction, and the environment that reads it.
struct World {
    store: SegmentStore,
    environment: Environment,
    segments: Vec<SegmentRef>,
    memory: Vec<MemorySplit>,
    own: Uncommitted,
}

fn nothing() -> Uncommitted {
    Uncommitted { shard: ShardId(1), batches: Vec::new(), segments: Vec::new(), deleted: BTreeMap::new() }
}

impl World {
    fn new() -> World {
        World::with_memory(64 << 20)
    }

    fn with_memory(bytes: usize) -> World {
        let opened = DiskObjectStore::open(Arc::new(SimulatedDisk::new(1)), "segments", "tmp");
        let store = SegmentStore::from(futures::executor::block_on(opened).unwrap());
        let memory = crate::memory::QueryMemory::new(bytes, cluster::MemoryBudget::new(1 << 30));
        let environment = Environment::new(store.clone(), memory, 2, Functions::pure());
        World { store, environment, segments: Vec::new(), memory: Vec::new(), own: nothing() }
    }

    /// Adds a segment for each split that `rows` lie in.
    async fn flushed(&mut self, rows: &[Row]) {
        for (split, rows) in by_split(rows) {
            let segment = self.segment(split, &rows).await;
            self.segments.push(segment);
        }
    }

    async fn segment(&self, split: SplitId, rows: &[Row]) -> SegmentRef {
        let name = format!("16384/1/{split}/{}.parquet", self.segments.len() + self.own.segments.len());
        let place = SegmentPlace { shard: SHARD, split, seal: None, name };
        let (meta, bytes) = encode_segment(&definition(), &[sequenced(rows)], place).unwrap();
        self.store.put(&Path::from(meta.name.as_str()), bytes.into()).await.unwrap();
        Segment::unpinned(meta)
    }

    /// Adds rows in memory, one batch for each of them.
    fn appended(&mut self, rows: &[Row]) {
        for (split, rows) in by_split(rows) {
            self.memory.push(MemorySplit {
                split,
                rows: rows.len() as u64,
                open_rows: rows.len() as u64,
                time_min_us: rows.iter().map(|row| row.0).min(),
                time_max_us: rows.iter().map(|row| row.0).max(),
                batches: rows.iter().map(|row| sequenced(std::slice::from_ref(row))).collect(),
            });
        }
    }

    fn context(&self) -> SessionContext {
        let shard = ShardSnapshot {
            index: 7,
            segments: self.segments.clone(),
            memory: self.memory.clone(),
            shard: SHARD,
            deleted: BTreeMap::new(),
        };
        let pinned = Pinned {
            snapshot: TableSnapshot { table: table(), shards: vec![shard] },
            own: self.own.clone(),
            segments: Arc::clone(self.environment.segments()),
        };
        let context = SessionContext::new_with_state(self.environment.session_state("annal"));
        let catalog = datafusion::catalog::MemoryCatalogProvider::new();
        let schema = Arc::new(datafusion::catalog::MemorySchemaProvider::new());
        datafusion::catalog::CatalogProvider::register_schema(&catalog, "public", schema).unwrap();
        context.register_catalog("annal", Arc::new(catalog));
        context.register_table("m", Arc::new(pinned)).unwrap();
        context
    }

    async fn sql(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        self.context().sql(sql).await?.collect().await
    }

    async fn check(&self, sql: &str, expected: Expect) {
        let answer = match self.sql(sql).await {
            Ok(batches) => pretty_format_batches(&batches).unwrap().to_string(),
            Err(error) => error.strip_backtrace(),
        };
        expected.assert_eq(&(answer + "\n"));
    }

    /// The physical plan without what is not ours.
    async fn check_plan(&self, sql: &str, expected: Expect) {
        let plan = self.context().sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        expected.assert_eq(&datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string());
    }
}

/// A table whose snapshot is given.
#[derive(Debug)]
struct Pinned {
    snapshot: TableSnapshot,
    own: Uncommitted,
    segments: Arc<SegmentSource>,
}

#[async_trait]
impl TableProvider for Pinned {
    fn schema(&self) -> SchemaRef {
        self.snapshot.table.definition.arrow_schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = Wanted { schema: &self.schema(), projection, filters, limit, all: false };
        plan_scan(state, &self.snapshot, std::slice::from_ref(&self.own), &self.segments, wanted)
    }
}

/// One row for each hour from `hours`, on device `a`, with the hour as its value.
fn hourly(hours: std::ops::Range<i64>) -> Vec<Row> {
    hours.map(|hour| (START_US + hour * HOUR_US + 60_000_000, Some("a"), Some(hour as f64), Some(hour))).collect()
}

async fn two_days() -> World {
    let mut world = World::new();
    world.flushed(&hourly(0..46)).await;
    world.appended(&hourly(46..48));
    world
}

#[tokio::test]
async fn an_hour_of_two_days_reads_one_split() {
    let world = two_days().await;
    world
        .check_plan("SELECT v FROM m WHERE ts >= '2013-07-01 10:00:00' AND ts < '2013-07-01 11:00:00'", expect![[r#"
            ProjectionExec: expr=[v@1 as v]
              SplitScanExec: table=m, splits total=48 pruned=47 read=1, segments total=46 pruned=45 read=1, memory splits total=2 pruned=2 read=0, projection=[ts, v]
        "#]])
        .await;
    world
        .check_plan("SELECT v FROM m WHERE ts BETWEEN '2013-07-01T10:30:00Z' AND '2013-07-01T12:30:00Z'", expect![[r#"
            ProjectionExec: expr=[v@1 as v]
              SplitScanExec: table=m, splits total=48 pruned=46 read=2, segments total=46 pruned=44 read=2, memory splits total=2 pruned=2 read=0, projection=[ts, v]
        "#]])
        .await;
    world.check_plan("SELECT v FROM m WHERE ts > TIMESTAMP '2013-07-02 22:30:00'", expect![[r#"
        ProjectionExec: expr=[v@1 as v]
          SplitScanExec: table=m, splits total=48 pruned=47 read=1, segments total=46 pruned=46 read=0, memory splits total=2 pruned=1 read=1, projection=[ts, v]
    "#]]).await;
    world.check_plan("SELECT v FROM m WHERE ts > TIMESTAMPTZ '2013-07-02 22:30:00Z'", expect![[r#"
        ProjectionExec: expr=[v@1 as v]
          SplitScanExec: table=m, splits total=48 pruned=47 read=1, segments total=46 pruned=46 read=0, memory splits total=2 pruned=1 read=1, projection=[ts, v]
    "#]]).await;
    world.check_plan("SELECT v FROM m WHERE ts > now() - INTERVAL '1 hour'", expect![[r#"
        ProjectionExec: expr=[v@1 as v]
          SplitScanExec: table=m, splits total=48 pruned=48 read=0, segments total=46 pruned=46 read=0, memory splits total=2 pruned=2 read=0, projection=[ts, v]
    "#]]).await;
    world
        .check_plan("SELECT v FROM m WHERE ts >= time_bucket('1 day', TIMESTAMPTZ '2013-07-02 22:30:00Z')", expect![[r#"
            ProjectionExec: expr=[v@1 as v]
              SplitScanExec: table=m, splits total=48 pruned=24 read=24, segments total=46 pruned=24 read=22, memory splits total=2 pruned=0 read=2, projection=[ts, v]
        "#]])
        .await;
    world.check_plan("SELECT v FROM m WHERE n = 7 AND dev = 'a'", expect![[r#"
        FilterExec: n@2 = 7 AND dev@0 = a, projection=[v@1]
          RepartitionExec: partitioning=RoundRobinBatch(2), input_partitions=1
            SplitScanExec: table=m, splits total=48 pruned=45 read=3, segments total=46 pruned=45 read=1, memory splits total=2 pruned=0 read=2, projection=[dev, v, n], predicate=n@3 = 7 AND dev@1 = a
    "#]]).await;
}

#[tokio::test]
async fn counts_and_bounds_come_from_the_manifest() {
    let mut world = World::new();
    world.flushed(&hourly(0..46)).await;
    world.check_plan("SELECT count(*), min(ts), max(ts), sum(n), min(v), count(v) FROM m", expect![[r#"
        ProjectionExec: expr=[46 as count(*), 1372636860000000 as min(m.ts), 1372798860000000 as max(m.ts), 1035 as sum(m.n), 0 as min(m.v), 46 as count(m.v)]
          PlaceholderRowExec
    "#]]).await;
    world
        .check_plan(
            "SELECT count(*) FROM m WHERE ts >= '2013-07-01 10:00:00' AND ts < '2013-07-01 20:00:00'",
            expect![[r#"
                ProjectionExec: expr=[10 as count(*)]
                  PlaceholderRowExec
            "#]],
        )
        .await;
    world
        .check(
            "SELECT count(*), min(ts), max(ts), sum(n), min(v), count(v) FROM m",
            expect![[r#"
        +----------+----------------------+----------------------+----------+----------+------------+
        | count(*) | min(m.ts)            | max(m.ts)            | sum(m.n) | min(m.v) | count(m.v) |
        +----------+----------------------+----------------------+----------+----------+------------+
        | 46       | 2013-07-01T00:01:00Z | 2013-07-02T21:01:00Z | 1035     | 0.0      | 46         |
        +----------+----------------------+----------------------+----------+----------+------------+
    "#]],
        )
        .await;
    world
        .check(
            "SELECT count(*) FROM m WHERE ts >= '2013-07-01 10:00:00' AND ts < '2013-07-01 20:00:00'",
            expect![[r#"
            +----------+
            | count(*) |
            +----------+
            | 10       |
            +----------+
        "#]],
        )
        .await;
    world.appended(&hourly(46..48));
    world
        .check(
            "SELECT count(*), min(ts), max(ts), sum(n), min(v), count(v) FROM m",
            expect![[r#"
        +----------+----------------------+----------------------+----------+----------+------------+
        | count(*) | min(m.ts)            | max(m.ts)            | sum(m.n) | min(m.v) | count(m.v) |
        +----------+----------------------+----------------------+----------+----------+------------+
        | 48       | 2013-07-01T00:01:00Z | 2013-07-02T23:01:00Z | 1128     | 0.0      | 48         |
        +----------+----------------------+----------------------+----------+----------+------------+
    "#]],
        )
        .await;
}

#[tokio::test]
async fn the_newest_rows_are_found_from_the_newest_end() {
    let world = two_days().await;
    world.check_plan("SELECT n FROM m ORDER BY ts DESC LIMIT 2", expect![[r#"
        ProjectionExec: expr=[n@1 as n]
          SortExec: TopK(fetch=2), expr=[ts@0 DESC], preserve_partitioning=[false]
            SplitScanExec: table=m, splits total=48 pruned=0 read=48, segments total=46 pruned=0 read=46, memory splits total=2 pruned=0 read=2, projection=[ts, n], predicate=DynamicFilter [ empty ], order=newest first
    "#]]).await;
    world
        .check(
            "SELECT n FROM m ORDER BY ts DESC LIMIT 2",
            expect![[r#"
        +----+
        | n  |
        +----+
        | 47 |
        | 46 |
        +----+
    "#]],
        )
        .await;
    world
        .check(
            "SELECT count(*) FROM (SELECT * FROM m LIMIT 5)",
            expect![[r#"
        +----------+
        | count(*) |
        +----------+
        | 5        |
        +----------+
    "#]],
        )
        .await;
}

#[tokio::test]
async fn explain_analyze_counts_what_was_read() {
    let world = two_days().await;
    let batches = world.sql("EXPLAIN ANALYZE SELECT v FROM m WHERE n >= 40").await.unwrap();
    let text = pretty_format_batches(&batches).unwrap().to_string();
    let scan = text.lines().find(|line| line.contains("SplitScanExec")).expect("the scan is shown");
    for figure in [
        "segments total=46 pruned=40 read=6",
        "output_rows=8,",
        "row_groups_pruned_statistics=6 total",
        "bytes_scanned=",
    ] {
        assert!(scan.contains(figure), "{figure} in {scan}");
    }
}

#[tokio::test]
async fn own_rows_are_read_with_those_of_the_snapshot() {
    let mut world = two_days().await;
    world.own.batches.push(sequenced(&hourly(100..103)));
    let staged = hourly(200..201);
    let segment = world.segment(split_of(staged[0].0, HOUR_US), &staged).await;
    world.own.segments.push(segment);
    world
        .check(
            "SELECT count(*), max(n) FROM m",
            expect![[r#"
        +----------+----------+
        | count(*) | max(m.n) |
        +----------+----------+
        | 52       | 200      |
        +----------+----------+
    "#]],
        )
        .await;
    world
        .check(
            "SELECT n FROM m WHERE n >= 47 ORDER BY n",
            expect![[r#"
        +-----+
        | n   |
        +-----+
        | 47  |
        | 100 |
        | 101 |
        | 102 |
        | 200 |
        +-----+
    "#]],
        )
        .await;
}

#[tokio::test]
async fn functions_by_time_work_over_a_table() {
    let world = two_days().await;
    world
        .check(
            "SELECT time_bucket('12 hours', ts) AS b, count(*), first(n, ts), last(n, ts), avg(v), \
             percentile_cont(0.5) WITHIN GROUP (ORDER BY v) AS median FROM m GROUP BY b ORDER BY b",
            expect![[r#"
                +----------------------+----------+-----------------+----------------+----------+--------+
                | b                    | count(*) | first(m.n,m.ts) | last(m.n,m.ts) | avg(m.v) | median |
                +----------------------+----------+-----------------+----------------+----------+--------+
                | 2013-07-01T00:00:00Z | 12       | 0               | 11             | 5.5      | 5.5    |
                | 2013-07-01T12:00:00Z | 12       | 12              | 23             | 17.5     | 17.5   |
                | 2013-07-02T00:00:00Z | 12       | 24              | 35             | 29.5     | 29.5   |
                | 2013-07-02T12:00:00Z | 12       | 36              | 47             | 41.5     | 41.5   |
                +----------------------+----------+-----------------+----------------+----------+--------+
            "#]],
        )
        .await;
    world
        .check(
            "SELECT first(n, ts), last(dev, ts), first_value(n ORDER BY ts) FROM m",
            expect![[r#"
        +-----------------+------------------+-------------------------------------------------+
        | first(m.n,m.ts) | last(m.dev,m.ts) | first_value(m.n) ORDER BY [m.ts ASC NULLS LAST] |
        +-----------------+------------------+-------------------------------------------------+
        | 0               | a                | 0                                               |
        +-----------------+------------------+-------------------------------------------------+
    "#]],
        )
        .await;
    world
        .check("SELECT date_bin(INTERVAL '1 day', ts) AS d, date_trunc('day', ts) = date_bin(INTERVAL '1 day', ts) AS e, count(*) FROM m GROUP BY d, e ORDER BY d", expect![[r#"
            +----------------------+------+----------+
            | d                    | e    | count(*) |
            +----------------------+------+----------+
            | 2013-07-01T00:00:00Z | true | 24       |
            | 2013-07-02T00:00:00Z | true | 24       |
            +----------------------+------+----------+
        "#]])
        .await;
}

#[tokio::test]
async fn flipped_bytes_are_an_error_that_names_the_file() {
    let mut world = World::new();
    // Of several values: one alone is known from its statistics.
    let rows: Vec<Row> = (0..3).map(|at| (START_US + at, Some("a"), Some(at as f64), Some(at))).collect();
    world.flushed(&rows).await;
    let path = Path::from(world.segments[0].meta.name.as_str());
    let mut bytes = world.store.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
    bytes[20] ^= 1;
    // Once before anybody has read the segment, and once after it was read and found sound.
    let mut sound = world.store.get(&path).await.unwrap().bytes().await.unwrap();
    for found_sound in [false, true] {
        if found_sound {
            world.store.put(&path, std::mem::take(&mut sound).into()).await.unwrap();
            assert_eq!(world.sql("SELECT v FROM m").await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
        }
        world.store.put(&path, bytes.clone().into()).await.unwrap();
        let error = world.sql("SELECT v FROM m").await.unwrap_err();
        let mut causes = std::iter::successors(Some(&error as &dyn std::error::Error), |cause| cause.source());
        let corrupt = causes.find_map(|cause| cause.downcast_ref::<storage::Error>()).expect("the cause is kept");
        assert!(
            matches!(corrupt, storage::Error::Corrupt { file, .. } if *file == format!("segments/{path}")),
            "{found_sound}: {corrupt}"
        );
    }

    world.store.delete(&path).await.unwrap();
    let error = world.sql("SELECT n FROM m").await.unwrap_err().to_string();
    assert!(error.contains(path.as_ref()), "{error}");
}

#[tokio::test]
async fn a_query_that_needs_too_much_memory_is_refused() {
    let mut world = World::with_memory(1 << 20);
    let rows: Vec<Row> = (0..40_000).map(|i| (START_US + i, Some("a"), Some(i as f64), Some(i))).collect();
    world.flushed(&rows).await;
    let distinct = world.sql("SELECT n, count(DISTINCT v) FROM m GROUP BY n");
    let error = tokio::time::timeout(std::time::Duration::from_secs(60), distinct).await.expect("it ends").unwrap_err();
    assert!(matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)), "{error}");
}

#[tokio::test]
async fn no_file_can_be_named_as_a_table() {
    let world = World::new();
    for sql in ["CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 'file:///etc/'", "SELECT * FROM '/etc/passwd'"] {
        assert!(world.sql(sql).await.is_err(), "{sql}");
    }
    let local = datafusion::execution::object_store::ObjectStoreUrl::local_filesystem();
    assert!(world.context().runtime_env().object_store(&local).is_err());
}

fn row() -> impl Strategy<Value = Row> {
    let time = (0i64..6, 0i64..60).prop_map(|(hour, minute)| START_US + hour * HOUR_US + minute * 60_000_000);
    let device = proptest::option::weighted(0.9, proptest::sample::select(vec!["a", "b", "cc", ""]));
    let values = vec![0.0, -0.0, 1.5, -2.0, f64::NAN, f64::INFINITY];
    let value = proptest::option::weighted(0.8, proptest::sample::select(values));
    (time, device, value, proptest::option::weighted(0.8, -5i64..5))
}

fn conjunct() -> impl Strategy<Value = String> {
    let comparison = proptest::sample::select(vec!["=", "<", "<=", ">", ">=", "<>"]);
    let operand = prop_oneof![
        (0i64..6, 0i64..60).prop_map(|(h, m)| ("ts", format!("'2013-07-01 {h:02}:{m:02}:00'"))),
        proptest::sample::select(vec!["a", "b", "cc", "", "d"]).prop_map(|d| ("dev", format!("'{d}'"))),
        proptest::sample::select(vec!["0", "-0.0", "1.5", "-2", "3", "'NaN'"]).prop_map(|v| ("v", v.to_owned())),
        (-6i64..6).prop_map(|n| ("n", n.to_string())),
    ];
    prop_oneof![
        6 => (operand, comparison).prop_map(|((column, value), comparison)| format!("{column} {comparison} {value}")),
        1 => proptest::sample::select(vec!["dev", "v", "n"]).prop_map(|column| format!("{column} IS NULL")),
        1 => proptest::sample::select(vec!["dev", "v", "n"]).prop_map(|column| format!("{column} IS NOT NULL")),
        1 => Just("dev LIKE 'c%'".to_owned()),
        1 => Just("n IN (1, 2, 3)".to_owned()),
    ]
}

fn predicate() -> impl Strategy<Value = String> {
    proptest::collection::vec((conjunct(), any::<bool>()), 1..4).prop_map(|parts| {
        let mut sql = String::new();
        for (position, (part, or)) in parts.iter().enumerate() {
            if position > 0 {
                sql.push_str(if *or { " OR " } else { " AND " });
            }
            sql.push_str(part);
        }
        sql
    })
}

/// All rows in one table that prunes nothing.
async fn unpruned(rows: &[Row], sql: &str) -> String {
    let context = SessionContext::new_with_config(
        datafusion::prelude::SessionConfig::new()
            .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false)
            .with_target_partitions(1),
    );
    let table = MemTable::try_new(definition().arrow_schema(), vec![vec![batch(rows)]]).unwrap();
    context.register_table("m", Arc::new(table)).unwrap();
    pretty_format_batches(&context.sql(sql).await.unwrap().collect().await.unwrap()).unwrap().to_string()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However rows are dealt to segments, memory and own rows, a pruned scan answers like one that reads everything.
    #[test]
    fn a_pruned_answer_is_the_unpruned_answer(
        rows in proptest::collection::vec((row(), 0usize..4), 0..40),
        predicates in proptest::collection::vec(predicate(), 4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let part = |wanted: usize| rows.iter().filter(|(_, p)| *p == wanted).map(|(row, _)| *row).collect::<Vec<Row>>();
            let mut world = World::new();
            world.flushed(&part(0)).await;
            world.flushed(&part(1)).await;
            world.appended(&part(2));
            if !part(3).is_empty() {
                world.own.batches.push(sequenced(&part(3)));
            }
            let all: Vec<Row> = (0..4).flat_map(part).collect();
            for predicate in predicates {
                for sql in [
                    format!("SELECT ts, dev, v, n FROM m WHERE {predicate} ORDER BY ts, dev, v, n"),
                    format!("SELECT count(*), min(ts), max(n), sum(n), min(v), count(dev) FROM m WHERE {predicate}"),
                    format!("SELECT ts FROM m WHERE {predicate} ORDER BY ts DESC LIMIT 3"),
                ] {
                    let pruned = pretty_format_batches(&world.sql(&sql).await.unwrap()).unwrap().to_string();
                    assert_eq!(pruned, unpruned(&all, &sql).await, "{sql}");
                }
            }
            let whole = "SELECT count(*), min(ts), max(ts), min(n), max(n), sum(n), max(v), max(dev), count(v) FROM m";
            let answer = pretty_format_batches(&world.sql(whole).await.unwrap()).unwrap().to_string();
            assert_eq!(answer, unpruned(&all, whole).await);
        });
    }
}
