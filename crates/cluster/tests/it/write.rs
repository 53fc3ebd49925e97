//! Small statements: create, write, read, restart.

use std::sync::Arc;

use cluster::Error;
use event::GroupId;

use crate::support::{events, insert, once, read, real_disk, rows, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leads_already_can_be_asked_to_lead() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    for group in [GroupId::CATALOG, GroupId(1)] {
        node.transfer_leader(group, node.id()).await.unwrap();
    }
    let table = node.create_table(events("t")).await.unwrap();
    insert(&node, &table, rows("a", 0..100)).await.unwrap();
    assert_eq!(read(&node, &table).await, once("a", 0..100));
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    assert!(node.catalog().table("public", "t").is_some());
    assert_eq!(table.definition.id.0, 16384);
    let commit = insert(&node, &table, rows("a", 0..100)).await.unwrap();
    assert_eq!(commit.rows, 100);
    assert_eq!(read(&node, &table).await, once("a", 0..100));
    node.shutdown().await.unwrap();
    let refused = insert(&node, &table, rows("a", 100..101)).await.unwrap_err();
    assert!(matches!(refused, Error::ShuttingDown(_)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_everything_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = std::collections::BTreeMap::new();
    for boot in 0..4i64 {
        let node = start(real_disk(&dir)).await.unwrap();
        let table = match node.catalog().table("public", "t") {
            Some(table) => table.clone(),
            None => node.create_table(events("t")).await.unwrap(),
        };
        assert_eq!(read(&node, &table).await, expected);
        for statement in 0..5 {
            let values = boot * 100 + statement * 10..boot * 100 + statement * 10 + 10;
            insert(&node, &table, rows("a", values.clone())).await.unwrap();
            expected.extend(once("a", values));
        }
        node.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_statements_are_atomic_and_seen_at_once() {
    const WRITERS: i64 = 16;
    const STATEMENTS: i64 = 20;
    const ROWS: i64 = 7;
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (node, table) = (node.clone(), table.clone());
        writers.push(tokio::spawn(async move {
            for statement in 0..STATEMENTS {
                let from = statement * ROWS;
                insert(&node, &table, rows(&format!("w{writer:02}"), from..from + ROWS)).await.unwrap();
                let found = read(&node, &table).await;
                let own = found.keys().filter(|(sensor, _)| *sensor == format!("w{writer:02}")).count() as i64;
                assert_eq!(own, from + ROWS, "an acknowledged write is read");
                assert_eq!(found.len() as i64 % ROWS, 0, "no statement is read in part");
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let found = read(&node, &table).await;
    assert_eq!(found.len() as i64, WRITERS * STATEMENTS * ROWS);
    assert!(found.values().all(|times| *times == 1));
    let log = node.statistics().log;
    assert!(log.syncs < (WRITERS * STATEMENTS) as u64, "statements share syncs: {log:?}");
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_over_two_tables_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let one = node.create_table(events("one")).await.unwrap();
    let two = node.create_table(events("two")).await.unwrap();
    let mut statement = node.begin();
    statement.append(&one, rows("a", 0..3)).await.unwrap();
    statement.append(&two, rows("b", 0..4)).await.unwrap();
    statement.append(&one, rows("a", 3..5)).await.unwrap();
    assert_eq!(statement.uncommitted(&one)[0].batches.iter().map(|b| b.num_rows()).sum::<usize>(), 5);
    assert!(read(&node, &one).await.is_empty());
    assert_eq!(statement.commit().await.unwrap().rows, 9);
    assert_eq!(read(&node, &one).await, once("a", 0..5));
    assert_eq!(read(&node, &two).await, once("b", 0..4));
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_on_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let refused = start(real_disk(&dir)).await.unwrap_err();
    assert!(matches!(refused, Error::DataDirectory(_)), "{refused:?}");
    node.shutdown().await.unwrap();
    let again = start(real_disk(&dir)).await.unwrap();
    again.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_format_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    start(real_disk(&dir)).await.unwrap().shutdown().await.unwrap();
    let identity = dir.path().join("identity.json");
    let text = std::fs::read_to_string(&identity).unwrap();
    std::fs::write(&identity, text.replace("\"format_version\": 1", "\"format_version\": 99")).unwrap();
    let refused = start(real_disk(&dir)).await.unwrap_err();
    let expected = "the data directory has format version 99, this program needs 1";
    assert_eq!(refused.to_string(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_for_an_older_schema_or_a_dropped_table_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    let mut statement = node.begin();
    statement.append(&table, rows("a", 0..3)).await.unwrap();
    node.drop_table(table.definition.id).await.unwrap();
    let refused = statement.commit().await.unwrap_err();
    assert!(matches!(&refused, Error::NoSuchTable(name) if name == "t"), "{refused:?}");
    let refused = node.snapshot(&Arc::clone(&table)).await.unwrap_err();
    assert!(matches!(refused, Error::NoSuchTable(_)), "{refused:?}");
    node.shutdown().await.unwrap();
}
