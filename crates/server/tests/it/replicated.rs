//! Three nodes under load while something happens to one of them, or to all: what was acknowledged is there once, on every node.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tokio_postgres::Client;

use crate::TestCluster;
use crate::server::annal;

/// Rows of one statement.
const ROWS: i64 = 5;
/// Statements that must be acknowledged between two blows.
const BETWEEN: usize = 30;

/// What writers know.
#[derive(Default)]
struct Written {
    /// Where clients find the nodes; another place after each restart.
    dsns: Mutex<Vec<String>>,
    begun: AtomicI64,
    acknowledged: Mutex<BTreeSet<i64>>,
    stop: AtomicBool,
}

impl Written {
    fn find(&self, cluster: &TestCluster) {
        *self.dsns.lock().unwrap() = cluster.dsns();
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Waits until so many more statements were acknowledged.
    async fn more(&self, statements: usize) {
        let goal = self.count() + statements;
        while self.count() < goal {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Writes numbered statements to whichever of the nodes takes them, from that place on, until told to stop.
async fn write(written: Arc<Written>, first: usize) {
    let mut at = first + 2;
    while !written.stop.load(Ordering::Relaxed) {
        at += 1;
        let dsn = {
            let dsns = written.dsns.lock().unwrap();
            dsns[at % dsns.len()].clone()
        };
        let Ok((client, connection)) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let connection = tokio::spawn(connection);
        while !written.stop.load(Ordering::Relaxed) {
            let statement = written.begun.fetch_add(1, Ordering::Relaxed);
            let insert =
                format!("INSERT INTO e SELECT now(), {statement}, part FROM generate_series(1, {ROWS}) AS parts(part)");
            if client.batch_execute(&insert).await.is_err() {
                // Its fate may be unknown: it is there whole or not at all.
                break;
            }
            written.acknowledged.lock().unwrap().insert(statement);
        }
        connection.abort();
    }
}

/// Every acknowledged statement whole and once, no other in part, the same on every node.
async fn check(cluster: &TestCluster, written: &Written) {
    let mut all = Vec::new();
    for place in 0..3 {
        let client = cluster.connect(place).await;
        let rows = client
            .query("SELECT statement, count(*), count(DISTINCT part) FROM e GROUP BY statement ORDER BY statement", &[])
            .await
            .unwrap();
        let rows: Vec<(i64, i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        for (statement, rows, parts) in &rows {
            assert_eq!((*rows, *parts), (ROWS, ROWS), "node {}: statement {statement} in part or twice", place + 1);
        }
        let there: BTreeSet<i64> = rows.iter().map(|(statement, ..)| *statement).collect();
        let missing: Vec<i64> = written.acknowledged.lock().unwrap().difference(&there).copied().collect();
        assert!(missing.is_empty(), "node {}: acknowledged and not there: {missing:?}", place + 1);
        all.push(rows);
    }
    assert!(all.iter().all(|rows| *rows == all[0]), "the nodes differ");
}

async fn create(cluster: &TestCluster) -> Client {
    let client = cluster.connect(1).await;
    client.batch_execute("CREATE TABLE e (ts timestamptz NOT NULL, statement bigint, part bigint)").await.unwrap();
    client
}

/// Two writers, and what shall happen while they write.
async fn under_load<F: AsyncFnOnce(&mut TestCluster, &Written)>(blows: F) {
    let mut cluster = TestCluster::start().await;
    let _client = create(&cluster).await;
    let written = Arc::new(Written::default());
    written.find(&cluster);
    let writers: Vec<_> = [0, 2].map(|first| tokio::spawn(write(Arc::clone(&written), first))).into();
    written.more(BETWEEN).await;
    blows(&mut cluster, &written).await;
    written.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    check(&cluster, &written).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_killed_again_and_again() {
    under_load(async |cluster, written| {
        for _ in 0..3 {
            let leader = cluster.leader(0).await;
            cluster.node_mut(leader).kill().await;
            // The two that are left elect one of them and go on.
            written.more(BETWEEN).await;
            let health = "SELECT DISTINCT quorum, voters, voters_connected FROM annal.shards";
            let other = cluster.connect((leader + 1) % 3).await;
            let row = other.query_one(health, &[]).await.unwrap();
            assert_eq!((row.get::<_, &str>(0), row.get::<_, i64>(1), row.get::<_, i64>(2)), ("degraded", 3, 2));
            cluster.node_mut(leader).restart().await;
            written.find(cluster);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_leader_is_passed_over_and_follows_when_it_wakes() {
    under_load(async |cluster, written| {
        let leader = cluster.leader(0).await;
        cluster.node(leader).signal(Signal::STOP);
        written.more(BETWEEN).await;
        cluster.node(leader).signal(Signal::CONT);
        written.more(BETWEEN).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_are_killed_at_once() {
    under_load(async |cluster, written| {
        written.stop.store(true, Ordering::Relaxed);
        for place in 0..3 {
            cluster.node(place).signal(Signal::KILL);
        }
        for place in 0..3 {
            cluster.node_mut(place).ended().await;
        }
        // None is ready without another.
        let [first, second, third] = cluster.all_mut();
        tokio::join!(first.restart(), second.restart(), third.restart());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_certificates_let_nobody_else_in() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = |authority: &str, names: &[&str]| {
        let place = dir.path().join(authority);
        let made = annal(
            ["cert", "--dir"]
                .map(OsStr::new)
                .into_iter()
                .chain([place.as_os_str()])
                .chain(names.iter().map(OsStr::new)),
        );
        let made = { made }.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let key = place.join(names[0]).join("node-key.pem");
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(key).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "nobody else reads a key");
        names.iter().map(|name| place.join(name)).collect::<Vec<_>>()
    };
    let configure = |own: &Path| {
        let file = own.join("annal.toml");
        let path = |name: &str| own.join(name).display().to_string();
        let [authority, certificate, key] = ["authority.pem", "node.pem", "node-key.pem"].map(path);
        let text = format!("[cluster]\nauthority = {authority:?}\ncertificate = {certificate:?}\nkey = {key:?}\n");
        std::fs::write(&file, text).unwrap();
        file
    };
    let nodes = certificates("ours", &["one", "two", "three"]);
    let files = [0, 1, 2].map(|place| configure(&nodes[place]));
    let cluster = TestCluster::start_configured(&files).await;
    let client = create(&cluster).await;
    client.batch_execute("INSERT INTO e VALUES (now(), 1, 1)").await.unwrap();
    let count = cluster.connect(2).await.query_one("SELECT count(*) FROM e", &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 1);
    // Neither a node without certificate nor one of another authority is heard, nor one that is to be another node than its certificate says.
    let stranger = configure(&certificates("theirs", &["stranger"])[0]);
    let other = configure(&certificates("ours", &["9"])[0]);
    let with = |file: &Path| vec!["--config".to_owned(), file.display().to_string()];
    for (number, flags) in [vec![], with(&stranger), with(&other)].into_iter().enumerate() {
        let data = dir.path().join(format!("stranger-{number}"));
        let mut command =
            annal(["server", "--listen", "127.0.0.1:0", "--http", "off", "--cluster-listen", "127.0.0.1:0"]);
        command.arg("--join").arg(cluster.seed()).arg("--data").arg(&data).args(flags);
        let mut process = command.stdout(Stdio::null()).spawn().unwrap();
        let mut said = BufReader::new(process.stderr.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("could not join the cluster")));
        assert!(!data.join("identity.json").exists(), "it belongs to nobody");
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let nodes = client.query_one("SELECT count(*) FROM annal.nodes WHERE state = 'connected'", &[]).await.unwrap();
    assert_eq!(nodes.get::<_, i64>(0), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_from_one_command_restarts_what_fails_and_stops_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = annal(["cluster", "start", "--nodes", "3", "--port", "0", "--data"]);
    let mut process = command.arg(dir.path()).spawn().unwrap();
    let mut said = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
    let lines: Vec<String> = said.by_ref().take_while(|line| !line.contains("Ctrl-C")).collect();
    let dsn = |node: usize| lines[node].split('"').nth(1).unwrap().to_owned();
    let (client, connection) = tokio_postgres::connect(&dsn(2), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("CREATE TABLE e (ts timestamptz NOT NULL); INSERT INTO e VALUES (now())").await.unwrap();
    let lock = std::fs::read_to_string(dir.path().join("node-1/LOCK")).unwrap();
    let pid = rustix::process::Pid::from_raw(lock.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    assert!(said.next().unwrap().contains("node 1 ended with signal"));
    client.batch_execute("INSERT INTO e VALUES (now())").await.unwrap();
    loop {
        // It comes back at the same address.
        if let Ok((again, connection)) = tokio_postgres::connect(&dsn(0), tokio_postgres::NoTls).await {
            tokio::spawn(connection);
            assert_eq!(again.query_one("SELECT count(*) FROM e", &[]).await.unwrap().get::<_, i64>(0), 2);
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    client.batch_execute("SELECT annal.remove_node(2)").await.unwrap();
    assert!(said.any(|line| line == "node 2 was taken out of the cluster and is not started again"));
    rustix::process::kill_process(rustix::process::Pid::from_child(&process), Signal::TERM).unwrap();
    assert!(process.wait().unwrap().success());
}
