//! Writers of numbered statements through every node and readers that check what they see, while something happens to a cluster; and the exact
//! check of the whole afterwards.
//!
//! A statement writes a few rows into one table; each fourth one writes into a second table as well, which lies in another group. What holds for
//! each read: every statement that was acknowledged or read before it began is there, each with all its rows and none twice, in both tables or
//! in neither.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

use crate::TestCluster;
use crate::server::Entrance;

/// Rows of one statement in a table.
const ROWS: i64 = 5;
/// Each statement whose number is a multiple of this writes into both tables.
const JOINT: i64 = 4;
/// Statements that must be acknowledged between two blows.
pub(crate) const BETWEEN: usize = 30;
/// After a statement or a connection that failed.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two reads of a reader.
const READ_PAUSE: Duration = Duration::from_millis(200);
/// What has not come by then does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);
/// The rows of all statements in the first table, and in both, as (statement, rows, different rows).
const READ_FIRST: &str = "SELECT statement, count(*), count(DISTINCT part) FROM e GROUP BY statement";
const READ_BOTH: &str = "SELECT statement, count(*), count(DISTINCT part) FROM \
    (SELECT statement, part FROM e UNION ALL SELECT statement, part FROM f) GROUP BY statement";
const CREATE: &str = "CREATE TABLE e (ts timestamptz NOT NULL, statement bigint, part bigint, pad text);
    CREATE TABLE f (ts timestamptz NOT NULL, statement bigint, part bigint)";

/// What writers and readers know.
#[derive(Default)]
pub(crate) struct Load {
    /// Where clients find the nodes; other places after restarts.
    entrances: Mutex<Vec<Entrance>>,
    begun: AtomicI64,
    acknowledged: Mutex<BTreeSet<i64>>,
    /// Statements that a reader has seen.
    seen: Mutex<BTreeSet<i64>>,
    reads: AtomicUsize,
    /// How often statements failed, by SQLSTATE; nothing for connections that broke.
    failures: Mutex<BTreeMap<String, usize>>,
    /// Bytes of text that each statement brings along.
    pad_bytes: AtomicUsize,
    stop: AtomicBool,
}

/// Runs `blows` while there is a load on the cluster, then checks what is there.
pub(crate) async fn under_load<F: AsyncFnOnce(&mut TestCluster, &Arc<Load>)>(mut cluster: TestCluster, blows: F) {
    cluster.connect(1).await.batch_execute(CREATE).await.unwrap();
    let load = Arc::new(Load::default());
    load.find(&cluster);
    let mut tasks = Vec::new();
    for place in 0..3 {
        tasks.push(tokio::spawn(Arc::clone(&load).write_all(place)));
        tasks.push(tokio::spawn(Arc::clone(&load).read_all(place)));
    }
    load.more(BETWEEN).await;
    blows(&mut cluster, &load).await;
    load.stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    load.check(&cluster).await;
}

impl Load {
    /// Learns where the nodes are by now.
    pub(crate) fn find(&self, cluster: &TestCluster) {
        *self.entrances.lock().unwrap() = cluster.entrances();
    }

    /// No statement begins after those that are under way.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// From now on statements bring so much text along, that nothing makes much shorter.
    pub(crate) fn pad(&self, bytes: usize) {
        self.pad_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Waits until so many more statements were acknowledged, and at least one more read has succeeded.
    pub(crate) async fn more(&self, statements: usize) {
        let count = || self.acknowledged.lock().unwrap().len();
        let (goal, reads) = (count() + statements, self.reads.load(Ordering::Relaxed));
        let begun = Instant::now();
        while count() < goal || self.reads.load(Ordering::Relaxed) == reads {
            let failures = self.failures.lock().unwrap().clone();
            assert!(
                begun.elapsed() < PATIENCE,
                "of {statements} statements {} are to come, or a read: {failures:?}",
                goal - count()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// How often statements failed with that state.
    pub(crate) fn failed_with(&self, state: &SqlState) -> usize {
        self.failures.lock().unwrap().get(state.code()).copied().unwrap_or(0)
    }

    /// Writes one statement through a client.
    pub(crate) async fn write(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        let statement = self.begun.fetch_add(1, Ordering::Relaxed);
        self.write_numbered(client, statement).await
    }

    /// The same with one that writes into both tables.
    pub(crate) async fn write_joint(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        // Nobody gets the numbers between.
        let mut numbers = std::iter::repeat_with(|| self.begun.fetch_add(1, Ordering::Relaxed));
        let statement = numbers.find(|number| number % JOINT == 0).expect("they go on for ever");
        self.write_numbered(client, statement).await
    }

    async fn write_numbered(&self, client: &Client, statement: i64) -> Result<(), tokio_postgres::Error> {
        let pad = noise(statement as u64, self.pad_bytes.load(Ordering::Relaxed));
        let rows = format!("FROM generate_series(1, {ROWS}) AS parts(part)");
        let mut sql =
            format!("INSERT INTO e SELECT now(), {statement}, part, CASE part WHEN 1 THEN '{pad}' END {rows}");
        if statement % JOINT == 0 {
            // One message is one transaction.
            sql += &format!("; INSERT INTO f SELECT now(), {statement}, part + {ROWS} {rows}");
        }
        client.batch_execute(&sql).await.inspect_err(|error| {
            let state = error.code().map(|state| state.code().to_owned()).unwrap_or_default();
            *self.failures.lock().unwrap().entry(state).or_default() += 1;
        })?;
        self.acknowledged.lock().unwrap().insert(statement);
        Ok(())
    }

    /// Reads the first table, and then both in one statement, and checks them; gives what is there.
    pub(crate) async fn read(&self, client: &Client) -> Result<BTreeSet<i64>, tokio_postgres::Error> {
        let expected = self.expected();
        self.verify(&expected, &client.query(READ_FIRST, &[]).await?, |_| ROWS);
        let expected = self.expected();
        let rows = client.query(READ_BOTH, &[]).await?;
        let whole = |statement: i64| if statement % JOINT == 0 { 2 * ROWS } else { ROWS };
        let there = self.verify(&expected, &rows, whole);
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(there)
    }

    /// What a read that begins now must find.
    fn expected(&self) -> BTreeSet<i64> {
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        acknowledged.union(&self.seen.lock().unwrap()).copied().collect()
    }

    /// Checks what was read; gives the statements that are there.
    fn verify(&self, expected: &BTreeSet<i64>, rows: &[Row], whole: impl Fn(i64) -> i64) -> BTreeSet<i64> {
        let begun = self.begun.load(Ordering::Relaxed);
        let mut there = BTreeSet::new();
        for row in rows {
            let (statement, rows, parts): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
            let whole = whole(statement);
            assert_eq!((rows, parts), (whole, whole), "statement {statement} is there in part or twice");
            assert!(statement < begun, "nobody has written statement {statement}");
            there.insert(statement);
        }
        let missing: Vec<&i64> = expected.difference(&there).collect();
        assert!(missing.is_empty(), "acknowledged or read before, and not there: {missing:?}");
        self.seen.lock().unwrap().extend(&there);
        there
    }

    /// The node at `place`, or others as often as it was moved on.
    async fn connect(&self, place: usize) -> Option<Client> {
        let entrance = {
            let entrances = self.entrances.lock().unwrap();
            entrances[place % entrances.len()].clone()
        };
        let client = entrance.connect().await.ok();
        if client.is_none() {
            tokio::time::sleep(PAUSE).await;
        }
        client
    }

    /// Writes through one node after the other, from that place on; to the next where one fails.
    async fn write_all(self: Arc<Self>, first: usize) {
        for place in first.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let Some(client) = self.connect(place).await else { continue };
            // What fails may be there nevertheless: whole or not at all.
            while self.write(&client).await.is_ok() {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Reads in the same way.
    async fn read_all(self: Arc<Self>, first: usize) {
        for place in first.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let Some(client) = self.connect(place).await else { continue };
            while !self.stop.load(Ordering::Relaxed) && self.read(&client).await.is_ok() {
                tokio::time::sleep(READ_PAUSE).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Every acknowledged statement whole and once, no other in part, the same on every node, by what each of them reads and by its replicas.
    async fn check(&self, cluster: &TestCluster) {
        let begun = Instant::now();
        loop {
            let mut all = Vec::new();
            for place in 0..3 {
                match self.read(&cluster.connect(place).await).await {
                    Ok(there) => all.push(there),
                    Err(error) => assert!(begun.elapsed() < PATIENCE, "node {} cannot be read: {error:?}", place + 1),
                }
            }
            // What was not acknowledged may still come to be there.
            if all.len() == 3 && all.iter().all(|there| *there == all[0]) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "the nodes differ: {all:?}");
            tokio::time::sleep(PAUSE).await;
        }
        let client = cluster.connect(0).await;
        for table in ["e", "f"] {
            // Fails where replicas differ, or a segment is damaged that no node has sound.
            client.batch_execute(&format!("SELECT annal.scrub('{table}')")).await.unwrap();
        }
    }
}

/// Text without quotes that does not compress to much less than its length, another for each seed.
pub(crate) fn noise(seed: u64, bytes: usize) -> String {
    let mut state = seed + 1;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + (state >> 57) as u8 % 75)
    };
    (0..bytes).map(|_| letter()).collect()
}
