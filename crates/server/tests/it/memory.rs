//! More work than there is memory for: writes wait or are refused, queries are refused, and the process is never killed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::SinkExt;
use tokio::task::JoinHandle;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::TestServer;

/// What the control group of the server allows; the node takes half of it for its budget.
const GROUP_BYTES: u64 = 640 << 20;
/// Clients that copy at once, each in a transaction of its own.
const WRITERS: usize = 6;
/// Rows of a writer, of about a kilobyte: together they are more than the budget.
const WRITER_ROWS: usize = 60_000;
/// Clients that group by what hardly repeats.
const READERS: usize = 4;

/// A control group for memory, of the version this system has; removed when dropped.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// `None` where the system lets nobody make one.
    fn new() -> Option<MemoryGroup> {
        let name = format!("annal-test-{}", std::process::id());
        let versions = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        versions.into_iter().find_map(|(mount, limit)| {
            let dir = PathBuf::from(mount).join(&name);
            std::fs::create_dir(&dir).ok()?;
            let group = MemoryGroup(dir);
            let bounded =
                group.0.join(limit).exists() && std::fs::write(group.0.join(limit), GROUP_BYTES.to_string()).is_ok();
            bounded.then_some(group)
        })
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A group that still has a process stays until the system stops.
        let _left = std::fs::remove_dir(&self.0);
    }
}

/// A refusal for want of room, which a client may try again.
fn is_refusal(error: &Error) -> bool {
    let limits = [SqlState::OUT_OF_MEMORY, SqlState::CONFIGURATION_LIMIT_EXCEEDED];
    error.as_db_error().is_some_and(|error| limits.contains(error.code()) && error.hint().is_some())
}

async fn write(server: Arc<TestServer>, writer: usize) -> Result<u64, Error> {
    let client = server.connect().await;
    client.batch_execute("BEGIN").await?;
    let mut sink = std::pin::pin!(client.copy_in("COPY t FROM STDIN").await?);
    let text = "x".repeat(1000);
    for from in (0..WRITER_ROWS).step_by(1000) {
        let line = |row: usize| format!("2026-01-01 00:00:00Z\t{}\t{text}\n", writer * WRITER_ROWS + row);
        let chunk: String = (from..from + 1000).map(line).collect();
        sink.send(Bytes::from(chunk)).await?;
    }
    let rows = sink.finish().await?;
    client.batch_execute("COMMIT").await?;
    Ok(rows)
}

async fn read(server: Arc<TestServer>) -> Result<u64, Error> {
    let client = server.connect().await;
    // Unordered, so that all groups must be held.
    let sql = "SELECT count(*) FROM (SELECT 1 FROM generate_series(1, 8000000) AS n GROUP BY n::bigint * 7919 % 20000003) groups";
    Ok(u64::try_from(client.query_one(sql, &[]).await?.get::<_, i64>(0)).expect("a count"))
}

/// Looks at the memory of the server until told to stop; the most it saw.
fn watch(server: Arc<TestServer>, stop: Arc<AtomicBool>) -> JoinHandle<u64> {
    tokio::spawn(async move {
        let most = AtomicU64::new(0);
        while !stop.load(Ordering::Relaxed) {
            most.fetch_max(server.anonymous_bytes(), Ordering::Relaxed);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        most.into_inner()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_work_than_memory_is_refused_and_never_kills() {
    let group = MemoryGroup::new();
    let server = match &group {
        // The process joins its group before it looks how much memory there is.
        Some(group) => {
            let join = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", group.0.display());
            TestServer::start_under(&["sh", "-c", &join]).await
        }
        None => {
            let config = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(config.path(), format!("memory = \"{} MiB\"", GROUP_BYTES >> 21)).unwrap();
            TestServer::start_with(&["--config", config.path().to_str().unwrap()]).await
        }
    };
    let (_, page) = server.http_get("/metrics").await;
    assert!(page.contains(&format!("annal_memory_limit_bytes {}", GROUP_BYTES / 2)), "{page}");
    let server = Arc::new(server);
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE t (ts timestamptz NOT NULL, n bigint, text text)").await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = watch(server.clone(), stop.clone());
    let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(write(server.clone(), writer))).collect();
    let readers: Vec<_> = (0..READERS).map(|_| tokio::spawn(read(server.clone()))).collect();
    let mut written = 0;
    for writer in writers {
        match writer.await.unwrap() {
            Ok(rows) => written += rows,
            Err(error) => assert!(is_refusal(&error), "{error:?}"),
        }
    }
    let mut refused = 0;
    for reader in readers {
        match reader.await.unwrap() {
            Ok(groups) => assert_eq!(groups, 8_000_000),
            Err(error) => {
                assert!(is_refusal(&error), "{error:?}");
                refused += 1;
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    let most = watcher.await.unwrap();
    eprintln!(
        "{written} rows written, {refused} queries refused, {} MiB at most, group: {}",
        most >> 20,
        group.is_some()
    );
    assert!(refused > 0, "all queries at once need more than there is");
    assert!(most < GROUP_BYTES, "{most} bytes");
    let row = client.query_one("SELECT count(*), count(DISTINCT n) FROM t", &[]).await.unwrap();
    let (count, distinct): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!((count, distinct), (written as i64, written as i64), "whole statements or none");
    client.batch_execute("INSERT INTO t VALUES (now(), -1, 'after')").await.unwrap();
}
