//! Settings, signals, exit codes, health: the process as its operator meets it.

use std::path::Path;
use std::process::Output;

use rustix::process::Signal;

use crate::TestServer;
use crate::server::annal;

/// Runs a server that cannot start, and gives what it left behind.
fn refused(args: &[&str]) -> (i32, String) {
    let Output { status, stderr, .. } = annal(["server", "--http", "off"]).args(args).output().unwrap();
    (status.code().expect("the process ends by itself"), String::from_utf8(stderr).unwrap())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

#[test]
fn a_typo_in_the_configuration_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("annal.toml");
    std::fs::write(&config, "listen = \"127.0.0.1:0\"\ndata_dri = \"x\"\n").unwrap();
    let (code, stderr) = refused(&["--config", text(&config)]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("line 2: unknown key \"data_dri\""), "{stderr}");
    assert!(stderr.contains("hint: did you mean \"data_dir\"?"), "{stderr}");
}

#[test]
fn addresses_beyond_loopback_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (code, stderr) = refused(&["--data", text(dir.path()), "--listen", "0.0.0.0:0"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("which other machines can reach"), "{stderr}");
    assert!(stderr.contains("--insecure"), "{stderr}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was touched");
}

#[test]
fn a_wrong_command_line_has_its_own_exit_code() {
    let (code, stderr) = refused(&["--lisen", "127.0.0.1:0"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("--listen"), "{stderr}");
}

#[tokio::test]
async fn beyond_loopback_works_when_told() {
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), "insecure = true\nlisten = \"0.0.0.0:0\"\n").unwrap();
    let server = TestServer::start_with(&["--config", text(config.path())]).await;
    assert_eq!(server.http_get("/readyz").await.0, 200);
}

#[tokio::test]
async fn a_data_directory_has_one_process() {
    let server = TestServer::start().await;
    let (code, stderr) = refused(&["--data", text(server.data_dir()), "--listen", "127.0.0.1:0"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("in use"), "{stderr}");
    assert!(stderr.contains(text(server.data_dir())), "{stderr}");
    let row = server.connect().await.query_one("SELECT 1::bigint", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 1, "the first process is untouched");
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let server = TestServer::start().await;
    let dir = tempfile::tempdir().unwrap();
    let address = server.address().to_string();
    let (code, stderr) = refused(&["--data", text(dir.path()), "--listen", &address]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains(&format!("could not listen on {address}")), "{stderr}");
}

#[tokio::test]
async fn sigterm_ends_in_order_and_the_data_stays() {
    let mut server = TestServer::start().await;
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE t (ts timestamptz NOT NULL, v bigint)").await.unwrap();
    client
        .batch_execute("INSERT INTO t VALUES ('2024-01-01T00:00:00Z', 1), ('2024-01-02T00:00:00Z', 2)")
        .await
        .unwrap();
    assert_eq!(server.stop().await.code(), Some(0));
    assert!(client.batch_execute("SELECT 1").await.is_err(), "the connection is closed");
    server.restart().await;
    let row = server.connect().await.query_one("SELECT sum(v)::bigint FROM t", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 3);
}

#[tokio::test]
async fn sigterm_cancels_what_outlives_its_grace() {
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), "shutdown_grace = \"100 ms\"\n").unwrap();
    let mut server = TestServer::start_with(&["--config", text(config.path())]).await;
    let endless = crate::starvation::begin_endless_query(&server).await;
    assert_eq!(server.stop().await.code(), Some(0));
    assert!(endless.await.unwrap().is_err(), "the statement was cancelled");
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), "shutdown_grace = \"24 h\"\n").unwrap();
    let mut server = TestServer::start_with(&["--config", text(config.path())]).await;
    let endless = crate::starvation::begin_endless_query(&server).await;
    server.signal(Signal::INT);
    while server.http_get("/readyz").await.0 == 200 {
        tokio::task::yield_now().await;
    }
    server.signal(Signal::INT);
    assert_eq!(server.ended().await.code(), Some(1));
    assert!(endless.await.unwrap().is_err());
}

#[tokio::test]
async fn health_and_metrics_tell_what_happens() {
    let server = TestServer::start().await;
    assert_eq!(server.http_get("/livez").await, (200, "live\n".to_owned()));
    assert_eq!(server.http_get("/readyz").await, (200, "ready\n".to_owned()));
    assert_eq!(server.http_get("/nothing").await.0, 404);
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE t (ts timestamptz NOT NULL, v bigint)").await.unwrap();
    client
        .batch_execute("INSERT INTO t VALUES ('2024-01-01T00:00:00Z', 1), ('2024-01-02T00:00:00Z', 2)")
        .await
        .unwrap();
    let before = metrics(&server).await;
    assert_eq!(before("annal_ingest_rows_total"), 2.0);
    assert!(before("annal_log_syncs_total") > 0.0);
    assert!(before("annal_log_sync_seconds_total") > 0.0);
    assert!(before("annal_memtable_bytes") > 0.0);
    assert_eq!(before("annal_segments_written_total"), 0.0);
    client.batch_execute("SELECT annal.flush()").await.unwrap();
    let after = metrics(&server).await;
    assert_eq!(after("annal_segments_written_total"), 2.0, "one segment for each of the two days");
    assert!(after("annal_seals_total") > before("annal_seals_total"));
    assert!(after("annal_segment_bytes_total") > 0.0);
    assert_eq!(after("annal_memtable_bytes"), 0.0);
}

/// The counters of `/metrics`, by name.
async fn metrics(server: &TestServer) -> impl Fn(&str) -> f64 + use<> {
    let (status, page) = server.http_get("/metrics").await;
    assert_eq!(status, 200);
    move |name| {
        let line = page.lines().find(|line| line.split([' ', '{']).next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("no metric \"{name}\" in\n{page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}
