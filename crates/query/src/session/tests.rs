//! Sessions against a real node.

use std::sync::Arc;

use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use cluster::{Node, NodeOptions};
use datafusion::common::ScalarValue;
use event::{Entropy, SystemClock};
use futures::StreamExt;
use storage::RealDisk;
use tokio::runtime::Handle;

use super::*;
use crate::engine::EngineOptions;

/// Numbers that look random and are the same in every run.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

pub(super) struct World {
    directory: tempfile::TempDir,
    engine: Arc<Engine>,
}

pub(super) async fn world() -> World {
    world_on(&Handle::current(), &Handle::current()).await
}

/// A node whose consensus and whose queries have threads of their own.
async fn world_on(consensus: &Handle, queries: &Handle) -> World {
    let directory = tempfile::tempdir().expect("a directory");
    let engine = engine(&directory, consensus, queries).await;
    World { directory, engine }
}

async fn engine(directory: &tempfile::TempDir, consensus: &Handle, queries: &Handle) -> Arc<Engine> {
    let node = Node::start(NodeOptions {
        disk: Arc::new(RealDisk::new(directory.path())),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(Entropy::from_os()),
        consensus: consensus.clone(),
        encode: Handle::current(),
        seal_bytes: 64 << 20,
        data_groups: event::limits::DATA_GROUPS,
        lease_reads: false,
        log_file_bytes: event::limits::LOG_FILE_BYTES,
        memory: cluster::MemoryBudget::new(1 << 30),
        remote: None,
        place: cluster::Place::alone(),
    })
    .await
    .expect("the node starts");
    Engine::new(EngineOptions { node, runtime: queries.clone(), memory_bytes: 256 << 20, partitions: 2 })
}

impl World {
    /// The node stopped and started again.
    pub(super) async fn restarted(self) -> World {
        self.engine.node().shutdown().await.expect("the node stops");
        drop(self.engine);
        let engine = engine(&self.directory, &Handle::current(), &Handle::current()).await;
        World { directory: self.directory, engine }
    }

    pub(super) fn session(&self) -> Session {
        self.engine.session("me", "annal")
    }
}

/// What a statement that works gives.
pub(super) async fn tag(session: &mut Session, sql: &str) -> String {
    run(session, sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
}

/// Runs all statements of a message and shows what each gives.
pub(super) async fn run(session: &mut Session, sql: &str) -> Result<String, Error> {
    let mut shown = Vec::new();
    for statement in session.parse(sql).await? {
        let prepared = session.prepare(&statement, &[]).await?;
        let outcome = session.execute(&prepared, Vec::new()).await?;
        shown.push(show(outcome).await?);
    }
    Ok(shown.join("\n"))
}

async fn show(outcome: Outcome) -> Result<String, Error> {
    let rows = match outcome {
        Outcome::Rows(rows) => rows,
        Outcome::CopyOut(copy) => copy.rows,
        Outcome::Done(tag) => return Ok(tag),
        Outcome::Empty => return Ok("(empty)".to_owned()),
        Outcome::CopyIn(copy) => return Ok(format!("copy in of {} columns", copy.columns)),
    };
    table(rows).await
}

async fn table(mut rows: Rows) -> Result<String, Error> {
    let names: Vec<&str> = rows.columns.fields().iter().map(|field| field.name().as_str()).collect();
    let mut lines = vec![names.join("|")];
    while let Some(batch) = rows.batches.next().await {
        let batch = batch?;
        let options = FormatOptions::default().with_null("NULL");
        let columns: Vec<ArrayFormatter<'_>> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).expect("printable")).collect();
        for row in 0..batch.num_rows() {
            lines.push(columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|"));
        }
    }
    Ok(lines.join("\n"))
}

async fn ok(session: &mut Session, sql: &str, expected: &str) {
    match run(session, sql).await {
        Ok(shown) => assert_eq!(shown, expected, "{sql}"),
        Err(error) => panic!("{sql}: {error:?}"),
    }
}

async fn no(session: &mut Session, sql: &str, condition: Condition, message: &str) -> Box<crate::error::Report> {
    match run(session, sql).await {
        Err(error) => {
            let report = Box::new(error.into_report());
            assert_eq!((report.condition, report.message.as_str()), (condition, message), "{sql}");
            report
        }
        Ok(done) => panic!("{sql}: not refused: {done}"),
    }
}

const M: &str =
    "create table m (ts timestamptz not null, dev text, v double precision, n integer default 7) with (series = 'dev')";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_inserted_is_selected() {
    let world = world().await;
    let mut s = world.session();
    ok(&mut s, M, "CREATE TABLE").await;
    ok(
        &mut s,
        "insert into m values ('2013-01-01 00:00:00Z', 'a', 1.5, 1), ('2013-01-02', 'b', -2, default)",
        "INSERT 0 2",
    )
    .await;
    ok(&mut s, "insert into m (dev, ts) values ('c', '2013-01-03 00:00:00+02')", "INSERT 0 1").await;
    ok(&mut s, "insert into m select ts + interval '12 hours', dev, v * 2, n from m where dev = 'a'", "INSERT 0 1")
        .await;
    ok(&mut s, "select dev, v, n from m order by ts", "dev|v|n\na|1.5|1\na|3.0|1\nb|-2.0|7\nc|NULL|7").await;
    ok(&mut s, "select count(*), 1, 1 from m", "count|?column?|?column?\n4|1|1").await;
    ok(&mut s, "insert into m values (now(), upper('x'), 1 + 1, 2.6)", "INSERT 0 1").await;
    ok(&mut s, "select dev, v, n from m where ts > '2020-01-01'", "dev|v|n\nX|2.0|3").await;
    ok(&mut s, "drop table m", "DROP TABLE").await;
    let report = no(&mut s, "select * from m", Condition::UndefinedTable, "relation \"m\" does not exist").await;
    assert_eq!(report.position, Some(15));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_buffer_what_they_write() {
    let world = world().await;
    let (mut s, mut other) = (world.session(), world.session());
    ok(&mut s, M, "CREATE TABLE").await;
    ok(&mut s, "begin; insert into m values ('2013-01-01', 'a', 1, 1)", "BEGIN\nINSERT 0 1").await;
    assert_eq!(s.status(), TransactionStatus::Active);
    ok(&mut s, "select count(*) from m", "count\n1").await;
    ok(&mut other, "select count(*) from m", "count\n0").await;
    ok(&mut s, "rollback; select count(*) from m", "ROLLBACK\ncount\n0").await;
    ok(&mut s, "begin; insert into m values ('2013-01-01', 'a', 1, 1); commit", "BEGIN\nINSERT 0 1\nCOMMIT").await;
    ok(&mut other, "select count(*) from m", "count\n1").await;
    ok(&mut s, "begin", "BEGIN").await;
    no(
        &mut s,
        "insert into m values (null, 'a', 1, 1)",
        Condition::NotNullViolation,
        "null value in column \"ts\" of relation \"m\" violates not-null constraint",
    )
    .await;
    assert_eq!(s.status(), TransactionStatus::Failed);
    no(
        &mut s,
        "select 1",
        Condition::InFailedTransaction,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
    .await;
    ok(&mut s, "commit", "ROLLBACK").await;
    assert_eq!(s.status(), TransactionStatus::Idle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_postgresqls() {
    let world = world().await;
    let mut s = world.session();
    ok(&mut s, M, "CREATE TABLE").await;
    no(&mut s, M, Condition::DuplicateTable, "relation \"m\" already exists").await;
    no(
        &mut s,
        "insert into m values ('x')",
        Condition::InvalidDatetimeFormat,
        "invalid input syntax for type timestamp with time zone: \"x\"",
    )
    .await;
    no(
        &mut s,
        "insert into m (ts, n) values ('2013-01-01', 'x')",
        Condition::InvalidTextRepresentation,
        "invalid input syntax for type integer: \"x\"",
    )
    .await;
    no(
        &mut s,
        "insert into m (ts, n) values ('2013-01-01', 3000000000)",
        Condition::NumericOutOfRange,
        "value \"3000000000\" is out of range for type integer",
    )
    .await;
    no(
        &mut s,
        "insert into m (ts, x) values ('2013-01-01', 1)",
        Condition::UndefinedColumn,
        "column \"x\" of relation \"m\" does not exist",
    )
    .await;
    let report = no(&mut s, "select dve from m", Condition::UndefinedColumn, "column \"dve\" does not exist").await;
    assert_eq!(report.hint.as_deref(), Some("Perhaps you meant to reference the column \"m.dev\"."));
    assert_eq!(report.position, Some(8));
    no(&mut s, "select 1/0", Condition::DivisionByZero, "division by zero").await;
    let report =
        no(&mut s, "select cuont(*) from m", Condition::UndefinedFunction, "function \"cuont\" does not exist").await;
    assert_eq!(report.hint.as_deref(), Some("Perhaps you meant the function \"count\"."));
    no(&mut s, "select 'x'::int", Condition::InvalidTextRepresentation, "invalid input syntax for type integer: \"x\"")
        .await;
    let message = "UPDATE of event table \"m\" is not supported: it has no primary key";
    no(&mut s, "update m set v = 1", Condition::FeatureNotSupported, message).await;
    no(
        &mut s,
        "create table r (ts timestamptz not null, id int unique)",
        Condition::FeatureNotSupported,
        "unique constraints of event tables are not supported",
    )
    .await;
    no(
        &mut s,
        "create table o (ts timestamptz not null) with (shards = 4)",
        Condition::InvalidTableDefinition,
        "a table with several shards needs columns that say the shard of a row",
    )
    .await;
    no(
        &mut s,
        "copy m to '/tmp/x'",
        Condition::FeatureNotSupported,
        "COPY to or from a file or program of the server is not supported",
    )
    .await;
    no(
        &mut s,
        "create external table x stored as csv location '/etc/passwd'",
        Condition::SyntaxError,
        "syntax error at or near \"csv\"",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_is_there_whole_or_not_at_all() {
    let world = world().await;
    let mut s = world.session();
    ok(&mut s, M, "CREATE TABLE").await;
    for (data, expected) in [
        ("2013-01-01,a,1,2\n2013-01-02,,,\n", Ok(2)),
        ("2013-01-01,a,1,2\n2013-01-02,b,x,1\n", Err("COPY m, line 2, column v: \"x\"")),
    ] {
        let statement = s.parse("copy m from stdin (format csv)").await.expect("valid").remove(0);
        let prepared = s.prepare(&statement, &[]).await.expect("valid");
        let Outcome::CopyIn(mut copy) = s.execute(&prepared, Vec::new()).await.expect("valid") else {
            panic!("a copy")
        };
        copy.push(Bytes::from(data)).await.expect("the decoder takes it");
        let outcome = copy.finish(&mut s).await;
        let outcome = outcome.map_err(|error| match error {
            Error::Reported(report) => report.context.unwrap_or_default(),
            other => panic!("{other:?}"),
        });
        assert_eq!(outcome, expected.map_err(str::to_owned));
    }
    ok(&mut s, "copy m to stdout", "ts|dev|v|n\n2013-01-01T00:00:00Z|a|1.0|2\n2013-01-02T00:00:00Z|NULL|NULL|NULL")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_are_inferred() {
    let world = world().await;
    let mut s = world.session();
    ok(&mut s, M, "CREATE TABLE").await;
    ok(&mut s, "insert into m values ('2013-01-01', 'a', 1, 1)", "INSERT 0 1").await;
    let statement = s.parse("select v from m where ts >= $1 and dev = $2 limit $3").await.expect("valid").remove(0);
    let prepared = s.prepare(&statement, &[]).await.expect("valid");
    assert_eq!(*prepared.parameters[1].data_type(), DataType::Utf8);
    assert!(matches!(prepared.parameters[0].data_type(), DataType::Timestamp(_, Some(_))));
    let values = vec![
        ScalarValue::TimestampMicrosecond(Some(0), Some("UTC".into())),
        ScalarValue::Utf8(Some("a".to_owned())),
        ScalarValue::Int64(Some(5)),
    ];
    let outcome = s.execute(&prepared, values).await.expect("valid");
    assert_eq!(show(outcome).await.expect("rows"), "v\n1.0");
    let statement = s.parse("insert into m values ($1, $2, $3, $4)").await.expect("valid").remove(0);
    let prepared = s.prepare(&statement, &[]).await.expect("valid");
    let types: Vec<_> = prepared.parameters[2..].iter().map(|field| field.data_type()).collect();
    assert_eq!(types, [&DataType::Float64, &DataType::Int32]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_and_catalog() {
    let world = world().await;
    let mut s = world.session();
    ok(&mut s, "set timezone = 'Europe/Berlin'; show timezone", "SET\nTimeZone\nEurope/Berlin").await;
    ok(&mut s, "show transaction isolation level", "transaction_isolation\nread committed").await;
    ok(
        &mut s,
        "select current_setting('server_version_num'), set_config('a.b', 'x', false)",
        "current_setting|set_config\n150018|x",
    )
    .await;
    ok(&mut s, "show a.b", "a.b\nx").await;
    ok(&mut s, M, "CREATE TABLE").await;
    ok(
        &mut s,
        "select n.nspname, c.relname from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.relname = 'm'",
        "nspname|relname\npublic|m",
    )
    .await;
    ok(
        &mut s,
        "select column_name from information_schema.columns where table_name = 'm' order by ordinal_position",
        "column_name\nts\ndev\nv\nn",
    )
    .await;
    ok(&mut s, "select current_database(), current_user", "current_database|current_user\nannal|me").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn intervals_are_multiplied() {
    let world = world().await;
    let mut s = world.session();
    ok(
        &mut s,
        "select '2026-01-01T00:00:00Z'::timestamptz + i * interval '90 minutes' as t from generate_series(0, 1) as g(i)",
        "t\n2026-01-01T00:00:00Z\n2026-01-01T01:30:00Z",
    )
    .await;
    no(&mut s, "select interval '1 day' / 0", Condition::DivisionByZero, "division by zero").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_shows_what_is_pruned() {
    let world = world().await;
    let mut s = world.session();
    ok(&mut s, M, "CREATE TABLE").await;
    ok(&mut s, "insert into m values ('2013-01-01', 'a', 1, 1), ('2013-01-05', 'a', 1, 1)", "INSERT 0 2").await;
    ok(&mut s, "select annal.flush()", "flush\ntrue").await;
    let plan = run(&mut s, "explain select * from m where ts >= '2013-01-05'").await.expect("a plan");
    assert!(plan.starts_with("QUERY PLAN\n"), "{plan}");
    assert!(plan.contains("total=2") && plan.contains("pruned=1"), "{plan}");
    for (predicate, pruned) in [
        ("extract(year from ts) = 2014", 2),
        ("extract(year from ts) > 2012.0", 0),
        ("extract(year from ts) in (2012, 2014)", 2),
        ("date_part('year', ts) < 2013", 2),
        ("2013 = date_part('year', ts)", 0),
        ("ts >= make_timestamptz(2013, 1, 5, 0, 0, 0)", 1),
        ("ts >= to_timestamp('5.1.2013', 'DD.MM.YYYY')", 1),
        ("ts >= '2013-01-05'::timestamptz(3)", 1),
    ] {
        let plan = run(&mut s, &format!("explain select * from m where {predicate}")).await.expect("a plan");
        assert!(plan.contains(&format!("splits total=2 pruned={pruned}")), "{predicate}: {plan}");
    }
}

/// A runtime of one thread.
fn one_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread")
}

/// Keeps the only thread of a runtime until the sender is dropped.
async fn hold(runtime: &Handle) -> std::sync::mpsc::Sender<()> {
    let (release, held) = std::sync::mpsc::channel();
    let (begun, is_held) = tokio::sync::oneshot::channel();
    runtime.spawn(async move {
        begun.send(()).expect("the test waits");
        // An error: the sender is gone.
        let _released = held.recv();
    });
    is_held.await.expect("the thread is free");
    release
}

#[tokio::test(flavor = "multi_thread")]
async fn long_messages_are_parsed_where_queries_run() {
    let queries = one_thread();
    let world = world_on(&Handle::current(), queries.handle()).await;
    let s = world.session();
    let long = format!("insert into m values {}", vec!["('2013-01-01', 'a', 1, 1)"; 1000].join(", "));
    let release = hold(queries.handle()).await;
    assert!(futures::poll!(std::pin::pin!(s.parse("select 1"))).is_ready(), "a short one needs no other thread");
    let mut parsed = std::pin::pin!(s.parse(&long));
    assert!(futures::poll!(&mut parsed).is_pending(), "a long one waits for the thread of the queries");
    drop(release);
    assert_eq!(parsed.await.expect("valid").len(), 1);
    queries.shutdown_background();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_says_that_it_is_under_way() {
    let consensus = one_thread();
    let world = world_on(consensus.handle(), &Handle::current()).await;
    let mut s = world.session();
    ok(&mut s, M, "CREATE TABLE").await;
    let committing = s.committing();
    let is_committing = || committing.load(std::sync::atomic::Ordering::SeqCst);
    let statement = s.parse("insert into m values ('2013-01-01', 'a', 1, 1)").await.expect("valid").remove(0);
    let prepared = s.prepare(&statement, &[]).await.expect("valid");
    // Nothing is decided while consensus has no thread.
    let release = hold(consensus.handle()).await;
    let mut inserted = std::pin::pin!(s.execute(&prepared, Vec::new()));
    let under_way = async {
        while !is_committing() {
            assert!(futures::poll!(&mut inserted).is_pending());
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), under_way).await.expect("the commit begins");
    assert!(futures::poll!(&mut inserted).is_pending());
    drop(release);
    assert_eq!(show(inserted.await.expect("committed")).await.expect("a tag"), "INSERT 0 1");
    assert!(!is_committing());
    drop(world);
    consensus.shutdown_background();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_see_what_others_do() {
    let world = world().await;
    let (mut one, mut other) = (world.session(), world.session());
    one.serves(7, None);
    other.serves(8, Some(([127, 0, 0, 1], 4000).into()));
    ok(&mut other, "begin; select 1", "BEGIN\n?column?\n1").await;
    other.waits();
    let listed = "select pid, state, wait_event, client_addr, client_port, xact_start = query_start as open \
                  from pg_stat_activity order by pid";
    ok(
        &mut one,
        listed,
        "pid|state|wait_event|client_addr|client_port|open\n7|active|NULL|NULL|NULL|true\n\
         8|idle in transaction|ClientRead|127.0.0.1|4000|false",
    )
    .await;
    ok(&mut one, "select query from pg_stat_activity where pid = 8", "query\nselect 1").await;
    drop(other);
    ok(&mut one, "select count(*) from pg_stat_activity", "count\n1").await;
}
