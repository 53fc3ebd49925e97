//! Sealing, segments, checkpoints, and what they leave on the disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use event::{SimulatedClock, limits};
use storage::{Disk, SimulatedDisk};

use crate::support::{
    HOUR_US, START_US, count, events, eventually, find, insert, objects, once, read, real_disk, rows, start,
    start_small_log, start_with,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushed_rows_lie_in_segments_and_late_rows_are_seen_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    insert(&node, &table, rows("a", 0..7200)).await.unwrap();
    let before = node.snapshot(&table).await.unwrap();
    node.flush().await.unwrap();
    let after = node.snapshot(&table).await.unwrap();
    assert_eq!(after.shards[0].segments.len(), 2, "one segment per hour");
    assert!(after.shards[0].memory.is_empty());
    assert_eq!(objects(&node).await.len(), 2);
    assert_eq!(count(&node, &before).await, once("a", 0..7200), "an old snapshot stays as it was");
    assert_eq!(count(&node, &after).await, once("a", 0..7200));
    insert(&node, &table, rows("late", 10..20)).await.unwrap();
    let mut expected = once("a", 0..7200);
    expected.extend(once("late", 10..20));
    assert_eq!(read(&node, &table).await, expected);
    node.flush().await.unwrap();
    node.flush().await.unwrap();
    assert_eq!(read(&node, &table).await, expected);
    assert_eq!(objects(&node).await.len(), 3);
    let statistics = node.statistics();
    // Two of the table's group, and the first of each of the two others.
    assert_eq!((statistics.seals, statistics.segments_written, statistics.memtable_bytes), (4, 3, 0));
    node.shutdown().await.unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let table = find(&node, "t").unwrap();
    assert_eq!(read(&node, &table).await, expected);
    assert!(node.snapshot(&table).await.unwrap().shards[0].memory.is_empty(), "nothing is replayed");
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_snapshot_keeps_the_objects_of_a_dropped_table() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    insert(&node, &table, rows("a", 0..100)).await.unwrap();
    node.flush().await.unwrap();
    let snapshot = node.snapshot(&table).await.unwrap();
    node.drop_table(table.definition.id).await.unwrap();
    assert!(find(&node, "t").is_none());
    node.flush().await.unwrap();
    assert_eq!(count(&node, &snapshot).await, once("a", 0..100));
    drop(snapshot);
    node.flush().await.unwrap();
    assert!(objects(&node).await.is_empty(), "{:?}", objects(&node).await);
    let again = node.create_table(events("t")).await.unwrap();
    assert!(again.definition.id > table.definition.id, "ids are not reused");
    assert!(read(&node, &again).await.is_empty());
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_sealed_by_size_and_writers_wait_for_it() {
    const SEAL_BYTES: usize = 64 << 10;
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(SimulatedClock::at(START_US));
    let node = start_with(real_disk(&dir), clock, SEAL_BYTES).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    let mut expected = BTreeMap::new();
    for statement in 0..100 {
        insert(&node, &table, rows("a", statement * 500..statement * 500 + 500)).await.unwrap();
        expected.extend(once("a", statement * 500..statement * 500 + 500));
        assert!(node.statistics().memtable_bytes < 8 * SEAL_BYTES as u64, "{:?}", node.statistics());
    }
    assert!(node.statistics().seals > 2, "{:?}", node.statistics());
    assert_eq!(read(&node, &table).await, expected);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_sealed_by_age_and_when_their_window_has_ended() {
    for (advance_us, rows_from) in
        [(limits::SEAL_AGE_MS as i64 * 1000 + 1, 36_000), (HOUR_US + limits::SEAL_WINDOW_GRACE_MS as i64 * 1000 + 1, 0)]
    {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(SimulatedClock::at(START_US));
        let node = start_with(real_disk(&dir), clock.clone(), limits::SEAL_BYTES).await.unwrap();
        let table = node.create_table(events("t")).await.unwrap();
        insert(&node, &table, rows("a", rows_from..rows_from + 10)).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        assert!(objects(&node).await.is_empty(), "nothing is due yet");
        clock.advance(advance_us);
        eventually("the rows are sealed", || async { objects(&node).await.len() == 1 }).await;
        assert_eq!(read(&node, &table).await, once("a", rows_from..rows_from + 10));
        node.shutdown().await.unwrap();
    }
}

fn dir_bytes(dir: &Path) -> u64 {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_purged_after_a_flush() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(SimulatedClock::at(START_US));
    let node = start_with(real_disk(&dir), clock, 1 << 30).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    // Text that LZ4 cannot shrink.
    let entropy = event::Entropy::seeded(1);
    let noise: Vec<String> = (0..500).map(|_| format!("{:016x}", entropy.next_u64())).collect();
    let mut expected = BTreeMap::new();
    for statement in 0..50i64 {
        let mut write = node.begin();
        for i in 0..2i64 {
            let sensor = format!("{statement}-{i}-{}", noise.concat()) + &noise[(statement as usize)..].concat();
            let values = statement * 1000..statement * 1000 + 100;
            expected.extend(once(&sensor, values.clone()));
            write.append(&table, rows(&sensor, values)).await.unwrap();
        }
        write.commit().await.unwrap();
    }
    node.flush().await.unwrap();
    let log = dir_bytes(&dir.path().join("log"));
    assert!(log <= 2 * limits::LOG_FILE_BYTES, "{log} bytes of log are left");
    assert!(read(&node, &table).await == expected);
    node.shutdown().await.unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    assert!(read(&node, &find(&node, "t").unwrap()).await == expected);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_restarts_keep_the_log_small() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let node = start(disk.clone()).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    insert(&node, &table, rows("a", 0..10)).await.unwrap();
    node.shutdown().await.unwrap();
    let mut disk = disk.restart(0);
    for boot in 0..30 {
        let shared = Arc::new(disk);
        let node = start(shared.clone()).await.unwrap();
        assert_eq!(read(&node, &find(&node, "t").unwrap()).await, once("a", 0..10));
        let applied = node.shards()[0].applied;
        assert!(applied < 10 + 2 * boot, "boot {boot} finds {applied} entries");
        node.shutdown().await.unwrap();
        disk = shared.restart(boot);
    }
    assert_eq!(disk.list("log").await.unwrap().len(), 1, "{:?}", disk.list("log").await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_or_damaged_segment_is_named_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    insert(&node, &table, rows("a", 0..100)).await.unwrap();
    node.flush().await.unwrap();
    let object = objects(&node).await.remove(0);
    node.shutdown().await.unwrap();
    let path = dir.path().join("segments").join(&object);
    let whole = std::fs::read(&path).unwrap();
    let refuse = async |damage: &str| {
        let error = start(real_disk(&dir)).await.unwrap_err().to_string();
        assert!(error.contains(&format!("\"segments/{object}\"")) && error.contains(damage), "{error}");
    };
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    refuse("bytes expected").await;
    let mut torn = whole.clone();
    *torn.last_mut().unwrap() = 0;
    std::fs::write(&path, torn).unwrap();
    refuse("end of a Parquet file").await;
    std::fs::remove_file(&path).unwrap();
    refuse("not there").await;
    std::fs::write(&path, whole).unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    assert_eq!(read(&node, &find(&node, "t").unwrap()).await, once("a", 0..100));
    node.shutdown().await.unwrap();
}

/// The process before has died between giving a segment its name and syncing that. The one after counts on what it finds, and purges its log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_found_at_start_are_durable_from_then_on() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let node = start(disk.clone()).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    insert(&node, &table, rows("a", 0..100)).await.unwrap();
    node.flush().await.unwrap();
    let segment = format!("segments/{}", objects(&node).await.remove(0));
    node.shutdown().await.unwrap();
    let disk = Arc::new(disk.restart(1));
    disk.rename(&segment, "tmp/segment").await.unwrap();
    disk.rename("tmp/segment", &segment).await.unwrap();
    let lost = |disk: &SimulatedDisk| (0..20).filter(|seed| disk.crash(*seed).len_of(&segment).is_err()).count();
    assert_ne!(lost(&disk), 0, "power loss takes it away");
    let node = start(disk.clone()).await.unwrap();
    assert_eq!(lost(&disk), 0, "no more");
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_nothing_names_are_collected_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    insert(&node, &table, rows("a", 0..100)).await.unwrap();
    node.flush().await.unwrap();
    let named = objects(&node).await;
    node.shutdown().await.unwrap();
    let orphan = dir.path().join("segments/16384/1/5");
    std::fs::create_dir_all(&orphan).unwrap();
    std::fs::write(orphan.join("bulk-1-1-1-1.parquet"), b"PAR1PAR1").unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    assert_eq!(objects(&node).await, named);
    node.shutdown().await.unwrap();
}

/// A row that nothing else would seal lies in the oldest file, while others use up one file after another.
#[tokio::test]
async fn a_cold_group_does_not_keep_the_log_from_being_used_again() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let node = start_small_log(disk.clone()).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    insert(&node, &table, rows("cold", 0..1)).await.unwrap();
    let files =
        async || disk.list("log").await.unwrap().iter().filter(|file| file.name.ends_with(".log")).count() as u64;
    let mut other = 0;
    while files().await <= 2 * limits::LOG_FILES_HELD_MAX && node.statistics().seals == 0 {
        other += 1;
        assert!(other < 1000, "the log does not grow");
        node.create_table(events(&format!("other{other}"))).await.unwrap();
    }
    eventually("the group is sealed and the files go", async || files().await <= 2).await;
    assert!(node.statistics().log.files_recycled > 0);
    assert_eq!(read(&node, &table).await, once("cold", 0..1));
}
