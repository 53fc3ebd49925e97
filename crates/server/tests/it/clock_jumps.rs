//! The clock of one of three machines jumps by hours, or for good: nothing is lost or forgotten early, nobody is elected for it, transactions
//! commit and tokens hold.
//!
//! Each server runs with libfaketime, which adds to the wall clock what a file says, and leaves the monotonic clock alone.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use crate::load::{BETWEEN, PATIENCE, under_load};
use crate::server::Setup;
use crate::{TestCluster, TestServer};

/// Becomes the server with the library in it, which Debian's package has in a directory named after the processor.
const WITH_CLOCK: &str =
    r#"LD_PRELOAD=$(ls /usr/lib/*/faketime/libfaketimeMT.so.1) && export LD_PRELOAD && exec "$0" "$@""#;
const HOUR_S: i64 = 3600;
const DAY_S: i64 = 24 * HOUR_S;
/// A load makes a busy machine elect now and then without any clock.
const TRIES: usize = 5;
const POLL: Duration = Duration::from_millis(50);

/// The clocks of three machines.
struct Clocks(TempDir);

impl Clocks {
    /// All of them are right.
    fn new() -> Clocks {
        let clocks = Clocks(tempfile::tempdir().unwrap());
        (0..3).for_each(|place| clocks.jump(place, 0));
        clocks
    }

    fn file(&self, place: usize) -> PathBuf {
        self.0.path().join(format!("clock-{place}"))
    }

    /// From now on the clock of that machine is wrong by so many seconds.
    fn jump(&self, place: usize, seconds: i64) {
        let new = self.0.path().join("new");
        std::fs::write(&new, format!("{seconds:+}")).unwrap();
        std::fs::rename(new, self.file(place)).unwrap();
    }

    /// Three nodes that go by these clocks.
    async fn start(&self) -> TestCluster {
        let setup = |place: usize| {
            let file = format!("FAKETIME_TIMESTAMP_FILE={}", self.file(place).display());
            let words = ["env", &file, "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "sh", "-c", WITH_CLOCK];
            Setup { wrapper: words.map(str::to_owned).into(), ..Setup::default() }
        };
        TestCluster::start_as([0, 1, 2].map(setup)).await
    }
}

/// By how many seconds the clock of a node differs from the test's.
async fn error_s(node: &TestServer) -> i64 {
    let now = "SELECT CAST(extract(epoch FROM clock_timestamp()) AS bigint)";
    let theirs: i64 = node.connect().await.query_one(now, &[]).await.unwrap().get(0);
    let ours = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    theirs - i64::try_from(ours.as_secs()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_jump_under_load() {
    let clocks = Clocks::new();
    under_load(clocks.start().await, async |cluster, load| {
        let mut calm = false;
        for _ in 0..TRIES {
            let leader = cluster.leader(0).await;
            let (behind, right) = ((leader + 1) % 3, (leader + 2) % 3);
            let terms = cluster.figures(right, "annal_replica_term").await;
            clocks.jump(leader, HOUR_S);
            clocks.jump(behind, -HOUR_S);
            assert!((error_s(cluster.node(leader)).await - HOUR_S).abs() < 60, "the leader's clock is ahead");
            assert!((error_s(cluster.node(behind)).await + HOUR_S).abs() < 60, "and another behind");
            load.more(BETWEEN).await;
            // Times of entries go on from that of the clock that was ahead, also for those whose clock is right or behind.
            for place in [behind, right, leader] {
                let client = cluster.connect(place).await;
                let begun = Instant::now();
                while let Err(error) = load.write_joint(&client).await {
                    assert!(
                        begun.elapsed() < PATIENCE,
                        "node {} commits nothing over two groups: {error:?}",
                        place + 1
                    );
                    tokio::time::sleep(POLL).await;
                }
            }
            clocks.jump(leader, -24 * HOUR_S);
            load.more(BETWEEN).await;
            (0..3).for_each(|place| clocks.jump(place, 0));
            load.more(BETWEEN).await;
            calm |= cluster.figures(right, "annal_replica_term").await == terms;
            if calm {
                break;
            }
        }
        assert!(calm, "each jump of a clock made somebody elect");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_clock_is_days_ahead_forgets_nothing_early() {
    let clocks = Clocks::new();
    let cluster = clocks.start().await;
    cluster.settled().await;
    let leader = cluster.leader(0).await;
    let client = cluster.connect((leader + 1) % 3).await;
    let create = async |table: &str, age: &str| {
        let sql = format!(
            "CREATE TABLE {table} (ts timestamptz NOT NULL) WITH (split_interval = '1 hour', retention = '1 day'); \
             INSERT INTO {table} SELECT now() - interval '{age}' FROM generate_series(1, 100)"
        );
        // A transaction whose coordinator is behind the times of entries may be refused once, with 40001.
        let begun = Instant::now();
        while let Err(error) = client.batch_execute(&sql).await {
            assert!(begun.elapsed() < PATIENCE, "{error:?}");
            tokio::time::sleep(POLL).await;
        }
    };
    for table in ["live", "b", "c"] {
        create(table, "0 hours").await;
    }
    clocks.jump(leader, 3 * DAY_S);
    // The fourth table lies in the group of the first: a look of its leader goes over both, in that order.
    create("old", "48 hours").await;
    let count = async |table: &str| {
        client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get::<_, i64>(0)
    };
    let begun = Instant::now();
    while count("old").await > 0 {
        assert!(begun.elapsed() < PATIENCE, "old rows are forgotten, as most clocks say");
        tokio::time::sleep(POLL).await;
    }
    assert_eq!(count("live").await, 100, "only by the clock of the leader are these old too");
    assert_eq!(cluster.leader(leader).await, leader, "it was the leader who looked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_a_right_clock_gave_lets_a_node_in_while_others_are_wrong() {
    let clocks = Clocks::new();
    let cluster = clocks.start().await;
    clocks.jump(1, DAY_S);
    clocks.jump(2, -DAY_S);
    let made = cluster.connect(0).await.query_one("SELECT annal.join_token()", &[]).await.unwrap();
    let flags = ["--cluster-listen", "127.0.0.1:0", "--join", &cluster.seed(), "--join-token", made.get(0)];
    let fourth = TestServer::start_with(&flags).await;
    let nodes = fourth.connect().await.query_one("SELECT count(*) FROM annal.nodes", &[]).await.unwrap();
    assert_eq!(nodes.get::<_, i64>(0), 4);
}
