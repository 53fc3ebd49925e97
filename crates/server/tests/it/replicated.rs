//! Three nodes under load while something happens to one of them, or to all: what was acknowledged is there once, on every node.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::TestCluster;
use crate::load::{BETWEEN, under_load};
use crate::server::annal;
use crate::three::{configured, make_certificates, write_configuration};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_killed_again_and_again() {
    under_load(TestCluster::start().await, async |cluster, load| {
        for _ in 0..3 {
            let leader = cluster.leader(0).await;
            cluster.node_mut(leader).kill().await;
            // The two that are left elect one of them and go on.
            load.more(BETWEEN).await;
            let health = "SELECT DISTINCT quorum, voters, voters_connected FROM annal.shards";
            let other = cluster.connect((leader + 1) % 3).await;
            let row = other.query_one(health, &[]).await.unwrap();
            assert_eq!((row.get::<_, &str>(0), row.get::<_, i64>(1), row.get::<_, i64>(2)), ("degraded", 3, 2));
            cluster.node_mut(leader).restart().await;
            load.find(cluster);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_leader_is_passed_over_and_follows_when_it_wakes() {
    under_load(TestCluster::start().await, async |cluster, load| {
        let leader = cluster.leader(0).await;
        cluster.node(leader).signal(Signal::STOP);
        load.more(BETWEEN).await;
        cluster.node(leader).signal(Signal::CONT);
        load.more(BETWEEN).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_are_killed_at_once() {
    under_load(TestCluster::start().await, async |cluster, load| {
        load.stop();
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
    let certificates = |authority: &str, names: &[&str]| make_certificates(&dir.path().join(authority), names);
    let nodes = certificates("ours", &["one", "two", "three"]);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(nodes[0].join("node-key.pem")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600, "nobody else reads a key");
    let files = [0, 1, 2].map(|place| write_configuration(&nodes[place]));
    let cluster = TestCluster::start_configured(&files).await;
    let client = cluster.connect(1).await;
    client.batch_execute("CREATE TABLE e (ts timestamptz NOT NULL); INSERT INTO e VALUES (now())").await.unwrap();
    let count = cluster.connect(2).await.query_one("SELECT count(*) FROM e", &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 1);
    // Neither a node without certificate nor one of another authority is heard, nor one that is to be another node than its certificate says.
    let stranger = write_configuration(&certificates("theirs", &["stranger"])[0]);
    let other = write_configuration(&certificates("ours", &["9"])[0]);
    for (number, flags) in [vec![], configured(&stranger), configured(&other)].into_iter().enumerate() {
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
    let (mut process, mut said, lines) = start_local(dir.path());
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
    assert!(said.any(|line| line == "node 2 has ended for good, as its log says, and is not started again"));
    rustix::process::kill_process(rustix::process::Pid::from_child(&process), Signal::TERM).unwrap();
    assert!(process.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_cluster_takes_in_a_new_node_where_a_disk_was_lost_also_the_first_one() {
    let dir = tempfile::tempdir().unwrap();
    let stop = |mut process: Child| {
        rustix::process::kill_process(rustix::process::Pid::from_child(&process), Signal::TERM).unwrap();
        assert!(process.wait().unwrap().success());
    };
    let (process, _said, lines) = start_local(dir.path());
    let dsn = lines[1].split('"').nth(1).unwrap().to_owned();
    let connect = async || {
        let (client, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    };
    let sql = "CREATE TABLE e (ts timestamptz NOT NULL); INSERT INTO e VALUES (now())";
    let client = connect().await;
    client.batch_execute(sql).await.unwrap();
    // What only one has voted on goes with its disk.
    let all_vote = "SELECT bool_and(votes AND term IS NOT NULL) AND count(DISTINCT node) = 3 FROM annal.replicas";
    while !client.query_one(all_vote, &[]).await.unwrap().get::<_, bool>(0) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop(process);
    std::fs::remove_dir_all(dir.path().join("node-1")).unwrap();
    let (process, _said, lines) = start_local(dir.path());
    assert!(lines[0].starts_with("node 4: ") && lines[1].starts_with("node 2: "), "{lines:?}");
    let client = connect().await;
    client.batch_execute("SELECT annal.remove_node(1)").await.unwrap();
    let nodes = "SELECT string_agg(node::text, ' ' ORDER BY node) FROM annal.nodes WHERE state = 'connected'";
    assert_eq!(client.query_one(nodes, &[]).await.unwrap().get::<_, &str>(0), "2 3 4");
    assert_eq!(client.query_one("SELECT count(*) FROM e", &[]).await.unwrap().get::<_, i64>(0), 1);
    stop(process);
}

/// A cluster of three nodes from one command: its process, what it says from now on, and where the nodes are.
fn start_local(data: &Path) -> (Child, impl Iterator<Item = String>, Vec<String>) {
    let mut command = annal(["cluster", "start", "--nodes", "3", "--port", "0", "--data"]);
    let mut process = command.arg(data).spawn().unwrap();
    let mut said = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
    let lines: Vec<String> = said.by_ref().take_while(|line| !line.contains("Ctrl-C")).collect();
    if lines.len() < 3 {
        let logs = (1..=3).map(|node| std::fs::read_to_string(data.join(format!("node-{node}.log"))));
        panic!("only {lines:?} was said, and in the logs {:?}", logs.collect::<Vec<_>>());
    }
    (process, said, lines)
}
