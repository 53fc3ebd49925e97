//! A disk without room: what cannot be written waits in memory, what is refused leaves no trace, and all goes on by itself.

use std::sync::Arc;

use cluster::Error;
use storage::SimulatedDisk;

use crate::support::{events, eventually, insert, objects, once, read, rows, start, wide_rows};

#[tokio::test]
async fn a_seal_waits_for_room_with_its_rows_in_memory() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let node = start(disk.clone()).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    insert(&node, &table, rows("a", 0..100)).await.unwrap();
    for room in [0, 200, 3000] {
        disk.set_space(Some(room));
        let refused = node.flush().await.unwrap_err();
        assert!(matches!(refused, Error::DiskFull(_)), "{room}: {refused:?}");
        assert_eq!(read(&node, &table).await, once("a", 0..100));
    }
    // The log still has room, so small writes go on.
    insert(&node, &table, rows("b", 0..100)).await.unwrap();
    disk.set_space(None);
    node.flush().await.unwrap();
    let snapshot = node.snapshot(&table).await.unwrap();
    assert!(snapshot.shards[0].memory.is_empty());
    let expected = once("a", 0..100).into_iter().chain(once("b", 0..100)).collect();
    assert_eq!(read(&node, &table).await, expected);
    node.shutdown().await.unwrap();

    let node = start(Arc::new(disk.crash(1))).await.unwrap();
    let table = crate::support::find(&node, "t").unwrap();
    assert_eq!(read(&node, &table).await, expected);
}

#[tokio::test]
async fn a_bulk_statement_without_room_leaves_nothing() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let node = start(disk.clone()).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    disk.set_space(Some(1000));
    let refused = insert(&node, &table, wide_rows(0..1200, 4000)).await.unwrap_err();
    assert!(matches!(refused, Error::DiskFull(_)), "{refused:?}");
    assert!(read(&node, &table).await.is_empty());
    disk.set_space(None);
    insert(&node, &table, wide_rows(0..1200, 4000)).await.unwrap();
    assert_eq!(read(&node, &table).await.len(), 1200);
}

/// A log without room refuses what brings rows, and lets the seal through that may give room back.
#[tokio::test]
async fn a_log_without_room_refuses_rows_and_takes_them_again() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let node = start(disk.clone()).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    disk.set_space(Some(32 << 20));
    let mut acknowledged = 0;
    let refused = loop {
        // About 3 MiB each, which the log compresses little: each value's name is another.
        match insert(&node, &table, noise(acknowledged)).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 100, "never refused");
    };
    assert!(matches!(refused, Error::DiskFull(_)), "{refused:?}");
    assert_eq!(read(&node, &table).await.len() as i64, acknowledged * NOISE_ROWS);
    disk.set_space(None);
    eventually("writes resume", async || insert(&node, &table, noise(acknowledged)).await.is_ok()).await;
    node.flush().await.unwrap();
    assert_eq!(read(&node, &table).await.len() as i64, (acknowledged + 1) * NOISE_ROWS);
    assert!(!objects(&node).await.is_empty());
}

const NOISE_ROWS: i64 = 3000;

/// Rows whose sensors are long and unlike each other.
fn noise(number: i64) -> arrow::record_batch::RecordBatch {
    use arrow::array::StringArray;
    let mut state = number as u64 + 1;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:016x}", state ^ (state >> 29))
    };
    let sensors = (0..NOISE_ROWS).map(|_| (0..60).map(|_| word()).collect::<String>());
    let plain = rows("", number * NOISE_ROWS..(number + 1) * NOISE_ROWS);
    let sensors = Arc::new(StringArray::from_iter_values(sensors));
    let columns = vec![plain.column(0).clone(), sensors, plain.column(2).clone()];
    arrow::record_batch::RecordBatch::try_new(plain.schema(), columns).unwrap()
}
