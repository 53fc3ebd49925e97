//! A sync of the log fails: the node acknowledges nothing more, ends with its own exit code, and recovers from disk (D22).

use crate::TestServer;

/// The exit code of a node that stopped itself (docs/operating.md).
pub(crate) const EXIT_NODE_FAILED: i32 = 70;
/// The syncs of a thread fail from this one on (strace counts by thread); starting and making the table take fewer.
const FIRST_FAILED_SYNC: u32 = 30;
/// By then some thread has had that many.
const STATEMENTS_MAX: i64 = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_ends_the_process_and_loses_nothing() {
    let inject = format!("inject=fdatasync:error=EIO:when={FIRST_FAILED_SYNC}+");
    let strace = ["strace", "-f", "--seccomp-bpf", "-q", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", &inject];
    let mut server = TestServer::start_under(&strace).await;
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE t (ts timestamptz NOT NULL, v bigint)").await.unwrap();
    let mut acknowledged = 0_i64;
    while client.batch_execute(&format!("INSERT INTO t VALUES (now(), {acknowledged})")).await.is_ok() {
        acknowledged += 1;
        assert!(acknowledged < STATEMENTS_MAX, "no sync failed, or one did and yet every statement succeeded");
    }
    assert_eq!(server.ended().await.code(), Some(EXIT_NODE_FAILED));
    assert!(server.log().contains("the node stopped itself"), "{}", server.log());
    server.restart_without_wrapper().await;
    let sql = "SELECT count(*), count(DISTINCT v) FROM t";
    let row = server.connect().await.query_one(sql, &[]).await.unwrap();
    let (count, distinct): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!(count, distinct, "no row twice");
    // The last one was not acknowledged, but its write may have reached the disk.
    assert!(count == acknowledged || count == acknowledged + 1, "{count} rows, {acknowledged} acknowledged");
}
