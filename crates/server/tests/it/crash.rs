//! kill -9 while clients write: everything acknowledged is there once, what was deleted stays away, and of a statement all rows or none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::Client;

use crate::TestServer;

/// Tables, one after the other; each is written while the server is killed.
const TABLES: u64 = 5;
/// Times the server is killed while a table is written.
const KILLS_PER_TABLE: u64 = 10;
/// A kill comes after fewer acknowledged statements than this.
const ACKNOWLEDGED_MAX: u64 = 24;
/// And up to so much later, so that it meets statements anywhere.
const LATER_US_MAX: u64 = 20_000;
/// Rows of an INSERT.
const INSERT_ROWS: u64 = 7;
/// Rows of a COPY that fits one entry.
const COPY_ROWS: u64 = 400;
/// Rows of a COPY that does not, and goes the bulk way.
const BULK_ROWS: u64 = 120_000;

/// What the clients of one table know about their statements.
#[derive(Default)]
struct Written {
    /// Rows of each statement that was begun.
    begun: BTreeMap<i64, u64>,
    /// Statements whose success was told.
    acknowledged: BTreeSet<i64>,
    /// Statements whose rows were to be deleted.
    deleting: BTreeSet<i64>,
    /// Those whose deletion was told.
    deleted: BTreeSet<i64>,
}

/// Numbers statements over all writers and rounds.
struct Statements(AtomicU64);

impl Statements {
    fn next(&self) -> i64 {
        i64::try_from(self.0.fetch_add(1, Ordering::Relaxed)).unwrap()
    }
}

/// What the clients of a table share.
struct World {
    table: String,
    statements: Arc<Statements>,
    /// Statements acknowledged since the last start.
    told: AtomicU64,
    written: Mutex<Written>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_statements_survive_50_kills_whole() {
    let mut server = TestServer::start().await;
    let statements = Arc::new(Statements(AtomicU64::new(0)));
    let mut worlds = Vec::new();
    for number in 0..TABLES {
        let table = format!("w{number}");
        let create = format!(
            "CREATE TABLE {table} (ts timestamptz NOT NULL, statement bigint NOT NULL, row bigint NOT NULL, pad text) \
             WITH (split_interval = '1 day')"
        );
        server.connect().await.batch_execute(&create).await.unwrap();
        let world = World { table, statements: statements.clone(), told: AtomicU64::new(0), written: Mutex::default() };
        let world = Arc::new(world);
        for kill in 0..KILLS_PER_TABLE {
            // The first writes also go the bulk way; the segments of the middle are there for deletes and compaction to find.
            write_and_kill(&mut server, &world, if kill == 0 { BULK_ROWS } else { COPY_ROWS }).await;
            server.restart().await;
            check_whole(&server, &world).await;
            if kill == KILLS_PER_TABLE / 2 {
                let compact = format!("SELECT annal.flush(), annal.compact('{}')", world.table);
                server.connect().await.batch_execute(&compact).await.unwrap();
                check_whole(&server, &world).await;
            }
        }
        worlds.push(world);
    }
    for world in &worlds {
        check_whole(&server, world).await;
    }
}

/// Two clients copy, two insert, one deletes, until the server is killed at a random moment.
async fn write_and_kill(server: &mut TestServer, world: &Arc<World>, bulk_rows: u64) {
    world.told.store(0, Ordering::Relaxed);
    let mut tasks = Vec::new();
    for (way, rows) in [(Way::Insert, 1), (Way::Insert, INSERT_ROWS), (Way::Copy, COPY_ROWS), (Way::Copy, bulk_rows)] {
        tasks.push(tokio::spawn(write_until_killed(server.connect().await, way, rows, world.clone())));
    }
    tasks.push(tokio::spawn(delete_until_killed(server.connect().await, world.clone())));
    let (acknowledged, later) = (random(ACKNOWLEDGED_MAX), Duration::from_micros(random(LATER_US_MAX)));
    while world.told.load(Ordering::Relaxed) < acknowledged {
        assert!(tasks.iter().any(|task| !task.is_finished()), "every writer ended before the kill");
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(later).await;
    server.kill().await;
    for task in tasks {
        task.await.unwrap();
    }
}

/// Below `bound`, another number each time.
fn random(bound: u64) -> u64 {
    RandomState::new().build_hasher().finish() % bound
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_was_not_finished_leaves_nothing() {
    let mut server = TestServer::start().await;
    let client = server.connect().await;
    client
        .batch_execute("CREATE TABLE w (ts timestamptz NOT NULL, statement bigint, row bigint, pad text)")
        .await
        .unwrap();
    {
        let sink = client.copy_in::<_, Bytes>("COPY w FROM STDIN").await.unwrap();
        let mut sink = std::pin::pin!(sink);
        // Enough to be staged as segments, but never finished.
        for _ in 0..8 {
            sink.send(Bytes::from(lines(1, BULK_ROWS / 8))).await.unwrap();
        }
        server.kill().await;
    }
    server.restart().await;
    let row = server.connect().await.query_one("SELECT count(*) FROM w", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn restarts_do_not_add_up() {
    let mut server = TestServer::start().await;
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE w (ts timestamptz NOT NULL, v bigint)").await.unwrap();
    for count in 1..=5_i64 {
        let insert = format!("INSERT INTO w VALUES ('2024-01-01T00:00:0{count}Z', {count})");
        server.connect().await.batch_execute(&insert).await.unwrap();
        server.kill().await;
        server.restart().await;
        let row = server.connect().await.query_one("SELECT count(*), count(DISTINCT v) FROM w", &[]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (count, count));
    }
}

/// How rows go in.
#[derive(Clone, Copy)]
enum Way {
    Insert,
    Copy,
}

/// Writes statement after statement until the server is gone.
async fn write_until_killed(client: Client, way: Way, rows: u64, world: Arc<World>) {
    loop {
        let statement = world.statements.next();
        world.written.lock().unwrap().begun.insert(statement, rows);
        let result = match way {
            Way::Insert => client.batch_execute(&insert(&world.table, statement, rows)).await,
            Way::Copy => copy(&client, &world.table, statement, rows).await,
        };
        if !told(result) {
            return;
        }
        world.written.lock().unwrap().acknowledged.insert(statement);
        world.told.fetch_add(1, Ordering::Relaxed);
    }
}

/// Deletes what statements have written until the server is gone.
async fn delete_until_killed(client: Client, world: Arc<World>) {
    loop {
        let victim = {
            let mut written = world.written.lock().unwrap();
            let left: Vec<i64> = written.acknowledged.difference(&written.deleting).copied().collect();
            let victim = (!left.is_empty()).then(|| left[usize::try_from(random(left.len() as u64)).unwrap()]);
            written.deleting.extend(victim);
            victim
        };
        let Some(victim) = victim else {
            if !told(client.batch_execute("SELECT 1").await) {
                return;
            }
            continue;
        };
        let delete = format!("DELETE FROM {} WHERE statement = {victim}", world.table);
        if !told(client.batch_execute(&delete).await) {
            return;
        }
        world.written.lock().unwrap().deleted.insert(victim);
        world.told.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether success was told; otherwise the server is gone, nothing else may go wrong.
fn told(result: Result<(), tokio_postgres::Error>) -> bool {
    if let Err(error) = &result {
        assert!(error.as_db_error().is_none(), "the server refused a statement: {error:?}");
    }
    result.is_ok()
}

fn insert(table: &str, statement: i64, rows: u64) -> String {
    let values = (0..rows).map(|row| format!("('{}', {statement}, {row}, 'x')", instant(row))).collect::<Vec<_>>();
    format!("INSERT INTO {table} VALUES {}", values.join(", "))
}

async fn copy(client: &Client, table: &str, statement: i64, rows: u64) -> Result<(), tokio_postgres::Error> {
    let sink = client.copy_in(&format!("COPY {table} FROM STDIN")).await?;
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::from(lines(statement, rows))).await?;
    sink.finish().await.map(|_| ())
}

fn lines(statement: i64, rows: u64) -> String {
    let mut text = String::new();
    for row in 0..rows {
        writeln!(text, "{}\t{statement}\t{row}\tpadding that makes rows of an ordinary width", instant(row)).unwrap();
    }
    text
}

/// Rows of one statement lie in several splits.
fn instant(row: u64) -> String {
    format!("2024-01-{:02}T00:{:02}:{:02}Z", row % 5 + 1, row / 60 % 60, row % 60)
}

/// Every statement is there whole or not at all, every acknowledged one is there, and no deleted one.
async fn check_whole(server: &TestServer, world: &World) {
    let sql = format!("SELECT statement, count(*), count(DISTINCT row) FROM {} GROUP BY statement", world.table);
    let rows = server.connect().await.query(&sql, &[]).await.unwrap();
    let written = world.written.lock().unwrap();
    let mut there = BTreeSet::new();
    for row in rows {
        let (statement, count, distinct): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        let expected = i64::try_from(written.begun.get(&statement).copied().unwrap_or_default()).unwrap();
        assert_eq!((count, distinct), (expected, expected), "statement {statement} is not whole");
        assert!(!written.deleted.contains(&statement), "statement {statement} was deleted and is there");
        there.insert(statement);
    }
    for statement in written.acknowledged.difference(&written.deleting) {
        assert!(there.contains(statement), "statement {statement} was acknowledged and is lost");
    }
}
