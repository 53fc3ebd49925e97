//! Statements larger than an entry: staged segments, visible at once.

use cluster::Error;

use crate::support::{
    events, eventually, find, insert, objects, once, read, real_disk, rows, start, start_with_memory, wide_rows,
};

const WIDE_BYTES: usize = 4000;
/// Rows of `WIDE_BYTES` that are more than are kept in memory.
const STAGED_ROWS: i64 = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_megabytes_become_visible_at_once_and_survive_a_restart() {
    const ROWS: i64 = 350_000;
    const STEP: i64 = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    insert(&node, &table, rows("before", 0..10)).await.unwrap();
    let mut statement = node.begin();
    for from in (0..ROWS).step_by(STEP as usize) {
        statement.append(&table, rows("bulk", from..from + STEP)).await.unwrap();
    }
    assert_eq!(read(&node, &table).await, once("before", 0..10));
    let commit = statement.commit().await.unwrap();
    assert_eq!(commit.rows as i64, ROWS);
    insert(&node, &table, rows("after", 0..10)).await.unwrap();
    let mut expected = once("before", 0..10);
    expected.extend(once("bulk", 0..ROWS));
    expected.extend(once("after", 0..10));
    assert!(read(&node, &table).await == expected);
    assert!(node.statistics().log.bytes_written < 1 << 20, "the rows are not in the log");
    node.shutdown().await.unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    assert!(read(&node, &find(&node, "t").unwrap()).await == expected);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_beyond_the_memory_bound_is_staged_and_read_by_its_own_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    let mut statement = node.begin();
    for from in (0..2 * STAGED_ROWS).step_by(1000) {
        statement.append(&table, wide_rows(from..from + 1000, WIDE_BYTES)).await.unwrap();
        let own = statement.uncommitted(&table);
        let in_memory: usize = own[0].batches.iter().map(|b| b.num_rows()).sum();
        let staged: u64 = own[0].segments.iter().map(|s| s.meta.rows).sum();
        assert_eq!(in_memory as i64 + staged as i64, from + 1000, "own rows are read once");
        assert!((in_memory * WIDE_BYTES) < 3 * event::limits::STAGE_BYTES_MAX, "memory stays bounded");
    }
    assert!(!objects(&node).await.is_empty(), "something is staged before the commit");
    assert!(read(&node, &table).await.is_empty());
    statement.commit().await.unwrap();
    assert!(read(&node, &table).await == once(&"x".repeat(WIDE_BYTES), 0..2 * STAGED_ROWS));
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_share_the_memory_of_the_node() {
    const MEMORY_BYTES: usize = 12 << 20;
    const STEP: i64 = 250;
    let dir = tempfile::tempdir().unwrap();
    let node = start_with_memory(real_disk(&dir), MEMORY_BYTES).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    let mut large = node.begin();
    let mut from = 0;
    while node.memory().used() + (STEP as usize) * WIDE_BYTES * 2 < MEMORY_BYTES {
        large.append(&table, wide_rows(from..from + STEP, WIDE_BYTES)).await.unwrap();
        from += STEP;
    }
    assert!(objects(&node).await.is_empty(), "it fits so far");
    // Another one waits while the memory is taken, and goes on once it is given back.
    let (other, others) = (node.clone(), table.clone());
    let waiting = tokio::spawn(async move {
        let mut other = other.begin();
        other.append(&others, wide_rows(100_000..100_000 + 3 * STEP, WIDE_BYTES)).await?;
        other.commit().await
    });
    // A statement with many rows stages them rather than wait for itself.
    for _ in 0..4 {
        large.append(&table, wide_rows(from..from + STEP, WIDE_BYTES)).await.unwrap();
        from += STEP;
    }
    assert!(!objects(&node).await.is_empty(), "short of memory, it is staged");
    large.commit().await.unwrap();
    waiting.await.unwrap().unwrap();
    let mut expected = once(&"x".repeat(WIDE_BYTES), 0..from);
    expected.extend(once(&"x".repeat(WIDE_BYTES), 100_000..100_000 + 3 * STEP));
    assert!(read(&node, &table).await == expected);
    node.flush().await.unwrap();
    assert_eq!(node.memory().used(), 0, "everything is given back");
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_statement_leaves_no_objects() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    for _ in 0..2 {
        let mut statement = node.begin();
        for from in (0..2 * STAGED_ROWS).step_by(1000) {
            statement.append(&table, wide_rows(from..from + 1000, WIDE_BYTES)).await.unwrap();
        }
        drop(statement);
    }
    eventually("no objects are left", || async { objects(&node).await.is_empty() }).await;
    assert!(read(&node, &table).await.is_empty());
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_statement_for_a_dropped_table_fails_and_leaves_no_objects() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    let mut statement = node.begin();
    statement.append(&table, wide_rows(0..2000, WIDE_BYTES)).await.unwrap();
    node.drop_table(table.definition.id).await.unwrap();
    let refused = statement.commit().await.unwrap_err();
    assert!(matches!(refused, Error::NoSuchTable(_)), "{refused:?}");
    eventually("no objects are left", || async { objects(&node).await.is_empty() }).await;
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_nobody_waits_for_keeps_its_objects() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    let mut statement = node.begin();
    statement.append(&table, wide_rows(0..2000, WIDE_BYTES)).await.unwrap();
    let mut commit = Box::pin(statement.commit());
    assert!(futures::poll!(&mut commit).is_pending());
    drop(commit);
    eventually("the statement is committed", || async { !read(&node, &table).await.is_empty() }).await;
    assert!(read(&node, &table).await == once(&"x".repeat(WIDE_BYTES), 0..2000));
    node.shutdown().await.unwrap();
}
