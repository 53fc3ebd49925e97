//! Segments merged behind the back of readers and writers: what is read stays the same, what is not needed any more goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster::Node;
use event::{Clock, SimulatedClock, TableKind};
use storage::SimulatedDisk;

use crate::support::{
    HOUR_US, START_US, count, events, eventually, find, insert, objects, once, read, rows, start, start_with,
};

/// Flushed rows of several sensors, in as many segments of one split.
async fn segments_of(node: &Arc<Node>, names: &[&str]) -> BTreeMap<(String, i64), u64> {
    let table = match find(node, "t") {
        Some(table) => table,
        None => node.create_table(events("t")).await.unwrap(),
    };
    for name in names {
        insert(node, &table, rows(name, 0..50)).await.unwrap();
        node.flush().await.unwrap();
    }
    read(node, &table).await
}

async fn segment_count(node: &Arc<Node>) -> usize {
    let table = find(node, "t").unwrap();
    node.snapshot(&table).await.unwrap().shards[0].segments.len()
}

#[tokio::test]
async fn compacting_a_table_leaves_one_segment_and_the_same_rows() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let node = start(disk.clone()).await.unwrap();
    let expected = segments_of(&node, &["a", "b", "c"]).await;
    assert_eq!((expected.len(), segment_count(&node).await), (150, 3));
    let table = find(&node, "t").unwrap();
    let reading = node.snapshot(&table).await.unwrap();
    insert(&node, &table, rows("memory", 0..5)).await.unwrap();

    node.compact(&table).await.unwrap();
    assert_eq!(segment_count(&node).await, 1);
    assert_eq!(node.statistics().segments_merged, 3);
    let both = expected.clone().into_iter().chain(once("memory", 0..5)).collect();
    assert_eq!(read(&node, &table).await, both);

    // Who began before the swap reads the inputs to the end, whatever is checkpointed meanwhile.
    node.flush().await.unwrap();
    assert_eq!(objects(&node).await.len(), 5, "three that are being read, the merged one, the flushed one");
    assert_eq!(count(&node, &reading).await, expected);
    drop(reading);
    node.compact(&table).await.unwrap();
    node.flush().await.unwrap();
    eventually("inputs go once a checkpoint does without them", async || {
        node.flush().await.unwrap();
        objects(&node).await.len() == 1
    })
    .await;
    assert_eq!(read(&node, &table).await, both);
    node.shutdown().await.unwrap();

    let node = start(Arc::new(disk.crash(1))).await.unwrap();
    assert_eq!(read(&node, &find(&node, "t").unwrap()).await, both);
}

#[tokio::test]
async fn segments_are_merged_by_themselves_when_they_are_many_and_again_when_the_window_has_ended() {
    let clock = Arc::new(SimulatedClock::at(START_US));
    let dyn_clock: Arc<dyn Clock> = clock.clone();
    let node = start_with(Arc::new(SimulatedDisk::new(1)), dyn_clock, event::limits::SEAL_BYTES).await.unwrap();
    let expected = segments_of(&node, &["a", "b", "c", "d"]).await;
    eventually("four of a size are merged", async || segment_count(&node).await == 1).await;
    assert_eq!(read(&node, &find(&node, "t").unwrap()).await, expected);
    let expected = segments_of(&node, &["late"]).await;
    assert_eq!(segment_count(&node).await, 2);
    clock.advance(2 * HOUR_US);
    eventually("two are merged once the window has ended and no other came for a minute", async || {
        clock.advance(1_000_000);
        segment_count(&node).await == 1
    })
    .await;
    assert_eq!(read(&node, &find(&node, "t").unwrap()).await, expected);
}

#[tokio::test]
async fn dropping_splits_forgets_ended_windows_wherever_their_rows_are() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let node = start(disk.clone()).await.unwrap();
    segments_of(&node, &["flushed"]).await;
    let table = find(&node, "t").unwrap();
    // The second hour, and late rows of the first.
    insert(&node, &table, rows("kept", 3600..3650)).await.unwrap();
    insert(&node, &table, rows("late", 0..5)).await.unwrap();
    assert_eq!(node.drop_splits(&table, START_US + HOUR_US - 1).await.unwrap(), 0);
    assert_eq!(node.drop_splits(&table, START_US + HOUR_US).await.unwrap(), 1);
    assert_eq!(read(&node, &table).await, once("kept", 3600..3650));
    assert_eq!(node.drop_splits(&table, START_US + HOUR_US).await.unwrap(), 0);
    node.flush().await.unwrap();
    assert_eq!(objects(&node).await.len(), 1, "the object of the forgotten rows is gone");
    node.shutdown().await.unwrap();
    let node = start(Arc::new(disk.crash(1))).await.unwrap();
    assert_eq!(read(&node, &find(&node, "t").unwrap()).await, once("kept", 3600..3650));
}

/// What cannot be read is never merged: the segments stay, and whoever asked is told the file.
#[tokio::test]
async fn a_damaged_segment_is_named_and_stays() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let node = start(disk.clone()).await.unwrap();
    segments_of(&node, &["a", "b"]).await;
    let names = objects(&node).await;
    disk.flip_bit(&format!("segments/{}", names[0]), 100, 1).unwrap();
    let refused = node.compact(&find(&node, "t").unwrap()).await.unwrap_err().to_string();
    assert!(refused.contains(&names[0]) && refused.contains("damaged"), "{refused}");
    assert_eq!(segment_count(&node).await, 2);
    assert_eq!(objects(&node).await, names);
}

#[tokio::test]
async fn splits_past_their_retention_are_forgotten_by_the_clock() {
    let clock = Arc::new(SimulatedClock::at(START_US + HOUR_US));
    let dyn_clock: Arc<dyn Clock> = clock.clone();
    let disk = Arc::new(SimulatedDisk::new(1));
    let node = start_with(disk.clone(), dyn_clock, event::limits::SEAL_BYTES).await.unwrap();
    let mut spec = events("t");
    let TableKind::Event(options) = &mut spec.kind else { unreachable!() };
    options.retention_us = Some(HOUR_US);
    let table = node.create_table(spec).await.unwrap();
    insert(&node, &table, rows("flushed", 0..50)).await.unwrap();
    node.flush().await.unwrap();
    insert(&node, &table, rows("memory", 10..20)).await.unwrap();
    insert(&node, &table, rows("kept", 3600..3650)).await.unwrap();
    clock.advance(HOUR_US - 1);
    // Whoever asks for compaction has all of maintenance done.
    node.compact(&table).await.unwrap();
    assert_eq!(read(&node, &table).await.len(), 110, "an hour after the end of the first window has not passed yet");
    clock.advance(1);
    eventually("the first hour is gone", async || read(&node, &table).await.len() == 50).await;
    assert_eq!(read(&node, &table).await, once("kept", 3600..3650));
    eventually("and its object too, after a minute", async || {
        clock.advance(1_000_000);
        objects(&node).await.iter().all(|name| !name.contains("/0/"))
            && node.snapshot(&table).await.unwrap().shards[0].segments.len() == objects(&node).await.len()
    })
    .await;
    node.shutdown().await.unwrap();
    let node = start(Arc::new(disk.crash(1))).await.unwrap();
    assert_eq!(read(&node, &find(&node, "t").unwrap()).await, once("kept", 3600..3650));
}
