//! The log: order, group commit, recovery, and what it does with damage.

use std::sync::Arc;

use bytes::Bytes;
use event::GroupId;
use storage::{Disk, Log, LogRecord, RealDisk, SimulatedDisk};
use tokio::sync::oneshot;

const GROUP: GroupId = GroupId(7);

fn record(index: u64, payload: impl Into<Bytes>) -> LogRecord {
    LogRecord { index, term: [index as u8; 16], kind: 2, payload: payload.into() }
}

fn payload(index: u64) -> Vec<u8> {
    format!("record {index} ").into_bytes().repeat(1 + index as usize % 30)
}

/// Appends and waits until it is durable.
async fn append(log: &Log, group: GroupId, records: Vec<LogRecord>) -> std::io::Result<()> {
    let (sender, receiver) = oneshot::channel();
    let done = Box::new(move |outcome| sender.send(outcome).unwrap());
    log.append(group, records, done).await.map_err(std::io::Error::other)?;
    receiver.await.unwrap()
}

async fn read_all(log: &Log, group: GroupId) -> Vec<LogRecord> {
    let first = log.group(group).purged.map_or(0, |(purged, _)| purged + 1);
    let first = if log.read(group, first..first + 1, 1).await.unwrap().is_empty() { first + 1 } else { first };
    log.read(group, first..u64::MAX, usize::MAX).await.unwrap()
}

async fn survives_reopening(disk: Arc<dyn Disk>) {
    let records: Vec<LogRecord> = (1..200).map(|index| record(index, payload(index))).collect();
    let log = Log::open_with_file_len(disk.clone(), "log", 16 << 10).await.unwrap();
    for chunk in records.chunks(7) {
        append(&log, GROUP, chunk.to_vec()).await.unwrap();
        append(&log, GroupId(0), vec![record(chunk[0].index / 7 + 1, "catalog")]).await.unwrap();
    }
    log.save_vote(GROUP, Bytes::from_static(b"vote")).await.unwrap();
    log.save_committed(GROUP, Bytes::from_static(b"190")).await.unwrap();
    log.truncate_after(GROUP, Some(190)).await.unwrap();
    let known = log.group(GROUP);
    assert_eq!(known.last, Some((190, [190; 16])));
    assert_eq!(read_all(&log, GROUP).await, records[..190]);
    log.close().await.unwrap();
    drop(log);

    let log = Log::open(disk, "log").await.unwrap();
    assert_eq!(log.groups(), [GroupId(0), GROUP]);
    assert_eq!(log.group(GROUP), known);
    assert_eq!(read_all(&log, GROUP).await, records[..190]);
    assert_eq!(log.read(GROUP, 5..100, 0).await.unwrap(), records[4..5], "at least one");
    assert_eq!(log.read(GROUP, 5..8, usize::MAX).await.unwrap(), records[4..7]);
    assert_eq!(log.read(GROUP, 191..200, usize::MAX).await.unwrap(), []);
    let gap = append(&log, GROUP, vec![record(192, "gap")]).await.unwrap_err();
    assert!(gap.to_string().contains("do not follow"), "{gap}");
    append(&log, GROUP, vec![record(191, "again")]).await.unwrap();
}

#[tokio::test]
async fn a_log_on_a_real_disk_survives_reopening() {
    let dir = tempfile::tempdir().unwrap();
    survives_reopening(Arc::new(RealDisk::new(dir.path()))).await;
}

#[tokio::test]
async fn a_log_on_a_simulated_disk_survives_reopening() {
    survives_reopening(Arc::new(SimulatedDisk::new(1))).await;
}
