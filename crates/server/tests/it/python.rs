//! Programs of others, in Python: readers of the Parquet files while the server writes, and a driver.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::TestServer;

/// Manifests that are read while rows are written.
const MANIFESTS: usize = 3;
const ROWS_OF_A_STATEMENT: i64 = 10;

/// The Python environment that scripts/setup-tests.sh prepares.
pub(crate) fn environment() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("there is a home directory"));
    cache.unwrap_or_else(|| home().join(".cache")).join("annal/venv")
}

/// Runs a script of this directory with the interpreter that scripts/setup-tests.sh prepares; what it prints.
async fn python(script: &str, argument: &str, input: &str) -> String {
    let interpreter = environment().join("bin/python");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/python").join(script);
    let mut child = Command::new(&interpreter)
        .arg(script)
        .arg(argument)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("scripts/setup-tests.sh prepares Python");
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    assert!(output.status.success(), "{}", text(output.stderr));
    text(output.stdout)
}

/// Writes statements of ten rows, each with numbers of its own, until told to stop; late ones and new ones.
async fn write(server: Arc<TestServer>, acknowledged: Arc<AtomicI64>, stop: Arc<AtomicBool>) {
    let client = server.connect().await;
    while !stop.load(Ordering::Relaxed) {
        let statement = acknowledged.load(Ordering::Relaxed);
        let hour = statement % 5;
        let rows: Vec<String> = (0..ROWS_OF_A_STATEMENT)
            .map(|row| format!("('2026-01-01 0{hour}:00:00Z', {statement}, {})", statement * ROWS_OF_A_STATEMENT + row))
            .collect();
        client.batch_execute(&format!("INSERT INTO t VALUES {}", rows.join(", "))).await.unwrap();
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_is_a_consistent_table_for_other_readers() {
    let server = Arc::new(TestServer::start().await);
    let client = server.connect().await;
    let create =
        "CREATE TABLE t (ts timestamptz NOT NULL, statement bigint, n bigint) WITH (split_interval = '1 hour')";
    client.batch_execute(create).await.unwrap();
    let (acknowledged, stop) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = tokio::spawn(write(server.clone(), acknowledged.clone(), stop.clone()));
    let data_dir = server.data_dir().to_str().unwrap().to_owned();
    let mut manifest = String::new();
    for _ in 0..MANIFESTS {
        let before = acknowledged.load(Ordering::Relaxed);
        manifest = client.query_one("SELECT annal.manifest('t', interval '5 min')", &[]).await.unwrap().get(0);
        let printed = python("read_manifest.py", &data_dir, &manifest).await;
        for line in printed.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [rows, numbers, parts] = [1, 2, 3].map(|word| words[word].parse::<i64>().expect("a number"));
            assert!(rows >= before * ROWS_OF_A_STATEMENT, "{line}: {before} statements were acknowledged before");
            assert_eq!((numbers, parts), (rows, 0), "{line}");
        }
        assert_eq!(printed.lines().count(), 2, "{printed}");
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    // The files were promised, whatever happens to the table.
    client.batch_execute("DROP TABLE t; SELECT annal.flush()").await.unwrap();
    assert_eq!(python("read_manifest.py", &data_dir, &manifest).await.lines().count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psycopg_works() {
    let server = TestServer::start().await;
    python("driver.py", &server.dsn(), "").await;
}

/// The same script on the real thing: what it asks for is PostgreSQL's behaviour, not ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psycopg_works_the_same_on_postgresql() {
    let database = crate::oracle::database("psycopg").await;
    python("driver.py", database.dsn(), "").await;
}
