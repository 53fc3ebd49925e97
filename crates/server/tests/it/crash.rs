//! kill -9 while clients write: everything acknowledged is there once, and of a statement all rows or none.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::Client;

use crate::TestServer;

/// Times the server is killed on one directory.
const ROUNDS: u64 = 4;
/// Statements acknowledged in a round before the kill.
const ACKNOWLEDGED_MIN: u64 = 12;
/// Rows of an INSERT.
const INSERT_ROWS: u64 = 7;
/// Rows of a COPY that fits one entry.
const COPY_ROWS: u64 = 2_000;
/// Rows of a COPY that does not, and goes the bulk way.
const BULK_ROWS: u64 = 120_000;

/// What one writer knows about its statements.
#[derive(Default)]
struct Written {
    /// Rows of each statement that was begun.
    begun: BTreeMap<i64, u64>,
    /// Statements whose success was told.
    acknowledged: Vec<i64>,
}

/// Numbers statements over all writers and rounds.
struct Statements(AtomicU64);

impl Statements {
    fn next(&self) -> i64 {
        i64::try_from(self.0.fetch_add(1, Ordering::Relaxed)).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_statements_survive_kill_9_whole() {
    let mut server = TestServer::start().await;
    let create = "CREATE TABLE w (ts timestamptz NOT NULL, statement bigint NOT NULL, row bigint NOT NULL, pad text) \
                  WITH (split_interval = '1 day')";
    server.connect().await.batch_execute(create).await.unwrap();
    let statements = Arc::new(Statements(AtomicU64::new(0)));
    let mut all = Written::default();
    for round in 0..ROUNDS {
        let told = Arc::new(AtomicU64::new(0));
        let bulk_rows = if round % 2 == 0 { BULK_ROWS } else { COPY_ROWS };
        let writers = [(Way::Insert, INSERT_ROWS), (Way::Copy, COPY_ROWS), (Way::Copy, bulk_rows)];
        let mut tasks = Vec::new();
        for (way, rows) in writers {
            let client = server.connect().await;
            tasks.push(tokio::spawn(write_until_killed(client, way, rows, statements.clone(), told.clone())));
        }
        while told.load(Ordering::Relaxed) < ACKNOWLEDGED_MIN {
            assert!(tasks.iter().any(|task| !task.is_finished()), "every writer ended before the kill");
            tokio::task::yield_now().await;
        }
        server.kill().await;
        for task in tasks {
            let written = task.await.unwrap();
            all.begun.extend(written.begun);
            all.acknowledged.extend(written.acknowledged);
        }
        server.restart().await;
        check_whole(&server, &all).await;
        if round == 1 {
            server.connect().await.batch_execute("SELECT annal.flush()").await.unwrap();
            check_whole(&server, &all).await;
        }
    }
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
async fn write_until_killed(
    client: Client,
    way: Way,
    rows: u64,
    statements: Arc<Statements>,
    told: Arc<AtomicU64>,
) -> Written {
    let mut written = Written::default();
    loop {
        let statement = statements.next();
        written.begun.insert(statement, rows);
        let result = match way {
            Way::Insert => client.batch_execute(&insert(statement, rows)).await,
            Way::Copy => copy(&client, statement, rows).await,
        };
        match result {
            Ok(()) => written.acknowledged.push(statement),
            Err(error) => {
                assert!(error.as_db_error().is_none(), "the server refused a statement: {error:?}");
                return written;
            }
        }
        told.fetch_add(1, Ordering::Relaxed);
    }
}

fn insert(statement: i64, rows: u64) -> String {
    let values = (0..rows).map(|row| format!("('{}', {statement}, {row}, 'x')", instant(row))).collect::<Vec<_>>();
    format!("INSERT INTO w VALUES {}", values.join(", "))
}

async fn copy(client: &Client, statement: i64, rows: u64) -> Result<(), tokio_postgres::Error> {
    let sink = client.copy_in("COPY w FROM STDIN").await?;
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

/// Every statement is there whole or not at all, and every acknowledged one is there.
async fn check_whole(server: &TestServer, all: &Written) {
    let sql = "SELECT statement, count(*), count(DISTINCT row) FROM w GROUP BY statement";
    let rows = server.connect().await.query(sql, &[]).await.unwrap();
    let mut there = BTreeMap::new();
    for row in rows {
        let (statement, count, distinct): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        let expected = all.begun.get(&statement).copied().unwrap_or_default();
        let expected = i64::try_from(expected).unwrap();
        assert_eq!((count, distinct), (expected, expected), "statement {statement} is not whole");
        there.insert(statement, count);
    }
    for statement in &all.acknowledged {
        assert!(there.contains_key(statement), "statement {statement} was acknowledged and is lost");
    }
}
