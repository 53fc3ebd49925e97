//! Statements over a running node.

use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use arrow::util::pretty::pretty_format_batches;
use cluster::{Node, NodeOptions, Table, TableSpec, Uncommitted, WriteSet};
use datafusion::prelude::SessionContext;
use event::{Column, ColumnId, ColumnType, Compression, Entropy, EventOptions, SimulatedClock, TableId, TableKind};
use expect_test::{Expect, expect};
use futures::TryStreamExt;
use storage::RealDisk;
use tokio::runtime::Handle;

use super::*;
use crate::engine::EngineOptions;
use crate::table::Snapshots;

const HOUR_US: i64 = 3_600_000_000;
/// 2013-01-01.
const START_US: i64 = 1_356_998_400_000_000;

async fn engine(dir: &tempfile::TempDir) -> Arc<Engine> {
    let node = Node::start(NodeOptions {
        disk: Arc::new(RealDisk::new(dir.path())),
        clock: Arc::new(SimulatedClock::at(START_US)),
        entropy: Arc::new(Entropy::seeded(7)),
        consensus: Handle::current(),
        encode: Handle::current(),
        seal_bytes: event::limits::SEAL_BYTES,
        data_groups: event::limits::DATA_GROUPS,
        lease_reads: false,
        log_file_bytes: event::limits::LOG_FILE_BYTES,
        memory: cluster::MemoryBudget::new(1 << 30),
        remote: None,
        place: cluster::Place::alone(),
    });
    let node = node.await.unwrap();
    Engine::new(EngineOptions { node, runtime: Handle::current(), memory_bytes: 64 << 20, partitions: 2 })
}

async fn table(engine: &Engine) -> Arc<Table> {
    let column = |name: &str, column_type| Column {
        identity: None,
        modifier: None,
        required: false,
        initial: None,
        stored: None,
        id: ColumnId(0),
        name: name.to_owned(),
        column_type,
        nullable: false,
        default: None,
    };
    let spec = TableSpec {
        namespace: "public".to_owned(),
        name: "t".to_owned(),
        columns: vec![column("ts", ColumnType::TimestampTz), column("v", ColumnType::BigInt)],
        primary_key: Vec::new(),
        primary_key_named: None,
        unique: Vec::new(),
        kind: TableKind::Event(EventOptions {
            time_column: 0,
            series: Vec::new(),
            split_interval_us: HOUR_US,
            retention_us: None,
            dedup: event::Dedup::None,
            sharding: event::Sharding::default(),
        }),
        compression: Compression::Zstd,
        checks: Vec::new(),
        consistency: event::Consistency::Strong,
        replicas: event::Replicas::default(),
    };
    engine.node().create_table(spec).await.unwrap()
}

/// One row an hour.
fn rows(table: &Table, values: std::ops::Range<i64>) -> RecordBatch {
    let times: TimestampMicrosecondArray = values.clone().map(|v| Some(START_US + v * HOUR_US)).collect();
    let values: Int64Array = values.map(Some).collect();
    let columns: Vec<arrow::array::ArrayRef> = vec![Arc::new(times.with_timezone("UTC")), Arc::new(values)];
    RecordBatch::try_new(table.definition.arrow_schema(), columns).unwrap()
}

async fn writing(engine: &Engine, table: &Arc<Table>, values: std::ops::Range<i64>) -> WriteSet {
    let mut statement = engine.node().begin();
    statement.append(table, rows(table, values)).await.unwrap();
    statement
}

async fn insert(engine: &Engine, table: &Arc<Table>, values: std::ops::Range<i64>) {
    writing(engine, table, values).await.commit().await.unwrap();
}

async fn sql_with(
    engine: &Arc<Engine>,
    own: BTreeMap<TableId, Vec<Uncommitted>>,
    sql: &str,
) -> Result<Vec<RecordBatch>> {
    let reads = Arc::new(Reads::new(Arc::new(Snapshots::new(Arc::clone(engine.node()))), own));
    let search_path = vec!["public".to_owned(), "annal".to_owned()];
    let catalog = StatementCatalog::new(engine, "annal", engine.node().catalog(), search_path, reads);
    let mut state = engine.session_state("annal");
    state.register_catalog_list(catalog);
    let context = SessionContext::new_with_state(state);
    let plan = context.sql(sql).await?.create_physical_plan().await?;
    engine.run(plan, context.task_ctx()).try_collect().await
}

async fn check(engine: &Arc<Engine>, sql: &str, expected: Expect) {
    let answer = match sql_with(engine, BTreeMap::new(), sql).await {
        Ok(batches) => pretty_format_batches(&batches).unwrap().to_string(),
        Err(error) => error.strip_backtrace(),
    };
    expected.assert_eq(&(answer + "\n"));
}

fn integer(batches: &[RecordBatch], column: usize) -> i64 {
    batches[0].column(column).as_primitive::<Int64Type>().value(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_scans_of_one_statement_see_one_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir).await;
    let table = table(&engine).await;
    insert(&engine, &table, 0..1).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (engine, table, stop) = (Arc::clone(&engine), Arc::clone(&table), Arc::clone(&stop));
        async move {
            let mut next = 1;
            while !stop.load(Ordering::SeqCst) {
                insert(&engine, &table, next..next + 1).await;
                next += 1;
            }
            next
        }
    });
    let mut last = 0;
    for _ in 0..20 {
        let both = "SELECT (SELECT sum(v * 2) FROM t) AS a, (SELECT sum(v * 2) FROM t WHERE v > -1) AS b, (SELECT count(*) FROM t) AS c";
        let batches = sql_with(&engine, BTreeMap::new(), both).await.unwrap();
        let (a, b, count) = (integer(&batches, 0), integer(&batches, 1), integer(&batches, 2));
        assert_eq!((a, a), (b, count * (count - 1)), "the scans saw {count} rows");
        assert!(count >= last, "a later statement sees no less");
        last = count;
    }
    stop.store(true, Ordering::SeqCst);
    let written = writer.await.unwrap();
    assert_eq!(integer(&sql_with(&engine, BTreeMap::new(), "SELECT count(*) FROM t").await.unwrap(), 0), written);
    engine.node().shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_rows_are_seen_by_their_transaction_alone() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir).await;
    let table = table(&engine).await;
    insert(&engine, &table, 0..3).await;
    let statement = writing(&engine, &table, 3..5).await;
    let own = BTreeMap::from([(table.definition.id, statement.uncommitted(&table))]);
    let count = "SELECT count(*) FROM t WHERE v >= 1";
    assert_eq!(integer(&sql_with(&engine, own, count).await.unwrap(), 0), 4);
    assert_eq!(integer(&sql_with(&engine, BTreeMap::new(), count).await.unwrap(), 0), 2);
    statement.commit().await.unwrap();
    assert_eq!(integer(&sql_with(&engine, BTreeMap::new(), count).await.unwrap(), 0), 4);
    engine.node().shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_show_rows_on_their_way_from_memory_to_segments() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir).await;
    let table = table(&engine).await;
    insert(&engine, &table, 0..3).await;
    let tables =
        "SELECT table_name, kind, time_column, split_interval, shards, rows, memory_rows, segments FROM annal.tables";
    let splits = "SELECT split, window_start, window_end, state, rows, memory_rows, segments FROM annal.splits ORDER BY split LIMIT 1";
    let segments = "SELECT table_name, split, rows, time_min, time_max, length(checksum) AS digits FROM annal.segments ORDER BY split LIMIT 1";
    check(
        &engine,
        tables,
        expect![[r#"
        +------------+-------+-------------+----------------+--------+------+-------------+----------+
        | table_name | kind  | time_column | split_interval | shards | rows | memory_rows | segments |
        +------------+-------+-------------+----------------+--------+------+-------------+----------+
        | t          | event | ts          | 1 hours        | 1      | 3    | 3           | 0        |
        +------------+-------+-------------+----------------+--------+------+-------------+----------+
    "#]],
    )
    .await;
    check(
        &engine,
        splits,
        expect![[r#"
        +--------+----------------------+----------------------+-------+------+-------------+----------+
        | split  | window_start         | window_end           | state | rows | memory_rows | segments |
        +--------+----------------------+----------------------+-------+------+-------------+----------+
        | 376944 | 2013-01-01T00:00:00Z | 2013-01-01T01:00:00Z | open  | 1    | 1           | 0        |
        +--------+----------------------+----------------------+-------+------+-------------+----------+
    "#]],
    )
    .await;
    check(
        &engine,
        "SELECT annal.flush('t') AS flushed",
        expect![[r#"
        +---------+
        | flushed |
        +---------+
        | true    |
        +---------+
    "#]],
    )
    .await;
    check(
        &engine,
        tables,
        expect![[r#"
        +------------+-------+-------------+----------------+--------+------+-------------+----------+
        | table_name | kind  | time_column | split_interval | shards | rows | memory_rows | segments |
        +------------+-------+-------------+----------------+--------+------+-------------+----------+
        | t          | event | ts          | 1 hours        | 1      | 3    | 0           | 3        |
        +------------+-------+-------------+----------------+--------+------+-------------+----------+
    "#]],
    )
    .await;
    check(
        &engine,
        splits,
        expect![[r#"
        +--------+----------------------+----------------------+---------+------+-------------+----------+
        | split  | window_start         | window_end           | state   | rows | memory_rows | segments |
        +--------+----------------------+----------------------+---------+------+-------------+----------+
        | 376944 | 2013-01-01T00:00:00Z | 2013-01-01T01:00:00Z | flushed | 1    | 0           | 1        |
        +--------+----------------------+----------------------+---------+------+-------------+----------+
    "#]],
    )
    .await;
    check(
        &engine,
        segments,
        expect![[r#"
        +------------+--------+------+----------------------+----------------------+--------+
        | table_name | split  | rows | time_min             | time_max             | digits |
        +------------+--------+------+----------------------+----------------------+--------+
        | t          | 376944 | 1    | 2013-01-01T00:00:00Z | 2013-01-01T00:00:00Z | 8      |
        +------------+--------+------+----------------------+----------------------+--------+
    "#]],
    )
    .await;
    check(
        &engine,
        "SELECT shard, table_name, leader IS NOT NULL AS led, lag FROM annal.shards",
        expect![[r#"
        +-------+------------+------+-----+
        | shard | table_name | led  | lag |
        +-------+------------+------+-----+
        | 1     | t          | true | 0   |
        +-------+------------+------+-----+
    "#]],
    )
    .await;
    check(
        &engine,
        "SELECT count(*), sum(v) FROM t",
        expect![[r#"
        +----------+----------+
        | count(*) | sum(t.v) |
        +----------+----------+
        | 3        | 3        |
        +----------+----------+
    "#]],
    )
    .await;
    check(
        &engine,
        "SELECT annal.flush() AS flushed",
        expect![[r#"
        +---------+
        | flushed |
        +---------+
        | true    |
        +---------+
    "#]],
    )
    .await;
    check(
        &engine,
        "SELECT annal.flush('nothing')",
        expect![[r#"
        External error: relation "nothing" does not exist
    "#]],
    )
    .await;
    engine.node().shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_looked_for_along_the_search_path() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir).await;
    table(&engine).await;
    check(
        &engine,
        "SELECT count(*) FROM segments",
        expect![[r#"
        +----------+
        | count(*) |
        +----------+
        | 0        |
        +----------+
    "#]],
    )
    .await;
    check(
        &engine,
        "SELECT count(*) FROM public.t",
        expect![[r#"
        +----------+
        | count(*) |
        +----------+
        | 0        |
        +----------+
    "#]],
    )
    .await;
    check(
        &engine,
        "SELECT count(*) FROM missing",
        expect![[r#"
        Error during planning: table 'annal.public.missing' not found
    "#]],
    )
    .await;
    check(
        &engine,
        "SELECT table_schema, table_name, table_type FROM information_schema.tables \
         WHERE table_schema IN ('public', 'annal') ORDER BY 1, 2",
        expect![[r#"
            +--------------+------------+------------+
            | table_schema | table_name | table_type |
            +--------------+------------+------------+
            | annal        | nodes      | VIEW       |
            | annal        | replicas   | VIEW       |
            | annal        | segments   | VIEW       |
            | annal        | shards     | VIEW       |
            | annal        | splits     | VIEW       |
            | annal        | tables     | VIEW       |
            | public       | t          | BASE TABLE |
            +--------------+------------+------------+
        "#]],
    )
    .await;
    engine.node().shutdown().await.unwrap();
}
