//! The log: order, group commit, recovery, and what it does with damage.

use std::sync::Arc;

use bytes::Bytes;
use event::GroupId;
use event::limits::LOG_ZEROS_BYTES;
use rand::{Rng, SeedableRng};
use storage::disk::OpenMode;
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

/// A log of several small files, its last write not marked as synced unless it was closed. Gives what a reader may find:
/// after each frame, the votes of group 0 and the records of `GROUP`.
async fn small_log(closed: bool) -> (Arc<SimulatedDisk>, Vec<(Option<Bytes>, Vec<LogRecord>)>) {
    let disk = Arc::new(SimulatedDisk::new(1));
    let log = Log::open_with_file_len(disk.clone(), "log", 1 << 10).await.unwrap();
    let mut states = vec![(None, Vec::new())];
    for index in 1..=10 {
        let (mut vote, mut records) = states.last().unwrap().clone();
        records.push(record(index, vec![index as u8; 30 * index as usize]));
        append(&log, GROUP, vec![records.last().unwrap().clone()]).await.unwrap();
        states.push((vote.clone(), records.clone()));
        if index % 3 == 0 {
            vote = Some(Bytes::from(vec![index as u8; 9]));
            log.save_vote(GroupId(0), vote.clone().unwrap()).await.unwrap();
            states.push((vote, records));
        }
    }
    if closed {
        log.close().await.unwrap();
    }
    // As the process leaves it that is killed here: a handle dropped in peace would still mark the end.
    (Arc::new(disk.restart(1)), states)
}

/// How many frames of `states` a disk gives back, or the error of opening.
async fn reopen(disk: SimulatedDisk, states: &[(Option<Bytes>, Vec<LogRecord>)]) -> Result<usize, storage::Error> {
    let log = Log::open_with_file_len(Arc::new(disk), "log", 1 << 10).await?;
    let found = (log.group(GroupId(0)).vote, log.read(GROUP, 1..100, usize::MAX).await?);
    Ok(states.iter().position(|state| *state == found).expect("what is found is what was written, up to some frame"))
}

/// The files that hold frames: all but the spare.
async fn file_names(disk: &SimulatedDisk) -> Vec<String> {
    let entries = disk.list("log").await.unwrap().into_iter().map(|entry| format!("log/{}", entry.name));
    entries.filter(|name| name.ends_with(".log")).collect()
}

#[tokio::test]
async fn a_flipped_bit_is_damage_or_ends_the_log_but_never_changes_it() {
    for closed in [false, true] {
        let (disk, states) = small_log(closed).await;
        let full = states.len() - 1;
        let files = file_names(&disk).await;
        assert!(files.len() > 2, "{files:?}");
        let (mut damaged, mut torn) = (0, 0);
        for file in &files {
            for at in 0..1 << 10 {
                let copy = disk.restart(1);
                copy.flip_bit(file, at, at as u8 % 8).unwrap();
                match reopen(copy, &states).await {
                    Ok(found) if found == full => {}
                    Ok(found) => {
                        assert!(!closed, "byte {at} of {file}: {found} of {full} frames left of a closed log");
                        assert!(file == files.last().unwrap() && found == full - 1, "byte {at} of {file}: {found}");
                        torn += 1;
                    }
                    Err(storage::Error::Corrupt { file: named, offset, .. }) => {
                        assert!(named == *file && offset <= at, "byte {at} of {file}: {named} at {offset}");
                        damaged += 1;
                    }
                    Err(error) => panic!("byte {at} of {file}: {error}"),
                }
            }
        }
        assert!(damaged > 1000 && (torn > 0) != closed, "{damaged} {torn}");
    }
}

#[tokio::test]
async fn a_file_cut_short_is_damage() {
    let (disk, states) = small_log(false).await;
    for file in file_names(&disk).await {
        for len in 0..1 << 10 {
            let copy = disk.restart(1);
            let id = copy.open(&file, OpenMode::Write).await.unwrap();
            copy.set_len(id, len).await.unwrap();
            let outcome = reopen(copy, &states).await;
            assert!(matches!(outcome, Err(storage::Error::Corrupt { .. })), "{file} of {len} bytes: {outcome:?}");
        }
    }
}

/// What a crash that lost everything from some byte on leaves.
#[tokio::test]
async fn zeros_from_any_byte_on_give_a_prefix() {
    let (disk, states) = small_log(false).await;
    let last = file_names(&disk).await.pop().unwrap();
    let mut before = 0;
    for begin in 0..=1 << 10 {
        let copy = disk.restart(1);
        let id = copy.open(&last, OpenMode::Write).await.unwrap();
        copy.set_len(id, begin).await.unwrap();
        copy.set_len(id, 1 << 10).await.unwrap();
        match reopen(copy, &states).await {
            Ok(found) => {
                assert!(found >= before, "the more is left the more is found");
                before = found;
            }
            Err(storage::Error::Corrupt { .. }) => assert!(begin < 200 && before == 0, "only a header is never torn"),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(before, states.len() - 1);
}

/// Worse than a flipped bit: ranges of any file overwritten with anything, also with pieces of the log itself.
#[tokio::test]
async fn a_scribbled_log_is_damage_or_a_prefix() {
    let random = &mut rand::rngs::StdRng::seed_from_u64(5);
    let (disk, states) = small_log(false).await;
    let files = file_names(&disk).await;
    for _ in 0..500 {
        let copy = disk.restart(1);
        let mut pick = || copy.open(&files[random.random_range(0..files.len())], OpenMode::Write);
        let (from, to) = (pick().await.unwrap(), pick().await.unwrap());
        let len = random.random_range(1..300);
        let offset = random.random_range(0..(1 << 10) - 300);
        let mut bytes = copy.read_at(from, offset, len).await.unwrap().to_vec();
        if random.random_bool(0.3) {
            random.fill(bytes.as_mut_slice());
        }
        let at = if random.random_bool(0.5) { offset } else { random.random_range(0..(1 << 10) - 300) };
        copy.write_at(to, at, vec![bytes.into()]).await.unwrap();
        match reopen(copy, &states).await {
            Ok(_) | Err(storage::Error::Corrupt { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_missing_file_is_damage() {
    let (disk, states) = small_log(false).await;
    let files = file_names(&disk).await;
    for file in &files[..files.len() - 1] {
        let copy = disk.restart(1);
        copy.remove(file).await.unwrap();
        let outcome = reopen(copy, &states).await;
        assert!(matches!(outcome, Err(storage::Error::Corrupt { .. })), "without {file}: {outcome:?}");
    }
}

#[tokio::test]
async fn many_appends_share_a_sync() {
    let log = Log::open(Arc::new(SimulatedDisk::new(1)), "log").await.unwrap();
    let before = log.statistics();
    let appends = (0..100).map(|group| {
        let log = log.clone();
        tokio::spawn(async move { append(&log, GroupId(group), vec![record(1, "x")]).await.unwrap() })
    });
    futures::future::join_all(appends).await.into_iter().for_each(Result::unwrap);
    let after = log.statistics();
    assert_eq!(after.records - before.records, 100);
    assert!(after.syncs - before.syncs <= 3, "{after:?}");
    assert!(after.bytes_written - before.bytes_written >= 100 * 80);
}

/// A sync of blocks that were only reserved waits for the file system's own records. Recycled files were written before.
#[tokio::test]
async fn small_writes_of_a_new_file_find_zeros_and_others_bring_none() {
    let log = Log::open_with_file_len(Arc::new(SimulatedDisk::new(1)), "log", 1 << 20).await.unwrap();
    let mut next = 0;
    let mut written = async |payload: usize| {
        next += 1;
        let before = log.statistics().bytes_written;
        append(&log, GROUP, vec![record(next, vec![1; payload])]).await.unwrap();
        log.statistics().bytes_written - before - payload as u64
    };
    let zeros = LOG_ZEROS_BYTES as u64;
    let small = 1..200;
    assert!(small.contains(&(written(100).await - zeros)), "the first brings them");
    assert!(written(1000).await < 200, "the next overwrites them");
    assert!(written(400 << 10).await < 200, "a large write needs none");
    assert!(small.contains(&(written(100).await - zeros)), "and has passed those that were there");
    assert!(written(500 << 10).await < 200);
    let rest = written(100).await;
    assert!((1000..zeros).contains(&rest), "they end with the file: {rest}");
    // Some files more, then the first ones again.
    for _ in 0..6 {
        written(400 << 10).await;
    }
    log.purge(GROUP, 11, [11; 16]).await.unwrap();
    assert!(log.statistics().files_recycled > 0);
    let mut found = Vec::new();
    for _ in 0..6 {
        written(400 << 10).await;
        found.push(written(100).await < 200);
    }
    assert!(found.contains(&true), "a file that was in use before has blocks everywhere");
    assert!(found.contains(&false), "and a new one comes between");
}

#[tokio::test]
async fn a_failed_sync_stops_the_log_for_good() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let log = Log::open(disk.clone(), "log").await.unwrap();
    append(&log, GROUP, vec![record(1, "kept")]).await.unwrap();
    disk.fail_next_sync();
    let (one, other) =
        tokio::join!(append(&log, GROUP, vec![record(2, "lost")]), append(&log, GroupId(8), vec![record(1, "lost")]));
    assert!(one.unwrap_err().to_string().contains("could not sync file \"log/0000000001.log\""));
    assert!(other.is_err());
    let reason = log.failed().await;
    assert!(reason.contains("could not sync"), "{reason}");
    let stopped = log.save_vote(GROUP, Bytes::new()).await.unwrap_err();
    assert_eq!(stopped.to_string(), format!("the log is stopped: {reason}"));
    assert!(append(&log, GROUP, vec![record(3, "x")]).await.is_err());
    assert!(log.truncate_after(GROUP, None).await.is_err() && log.purge(GROUP, 1, [1; 16]).await.is_err());
    assert!(log.save_committed(GROUP, Bytes::new()).await.is_err() && log.close().await.is_err());
    assert_eq!(log.read(GROUP, 1..2, 100).await.unwrap(), [record(1, "kept")]);

    let log = Log::open(Arc::new(disk.crash(1)), "log").await.unwrap();
    assert_eq!(log.read(GROUP, 1..2, 100).await.unwrap(), [record(1, "kept")]);
}

/// After a failed sync the system holds the bytes and believes them written.
#[tokio::test]
async fn what_is_found_after_a_failed_sync_is_written_again_before_it_counts() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let log = Log::open(disk.clone(), "log").await.unwrap();
    disk.fail_next_sync();
    append(&log, GROUP, vec![record(1, vec![1; 2000])]).await.unwrap_err();
    let disk = Arc::new(disk.restart(1));
    let log = Log::open(disk.clone(), "log").await.unwrap();
    assert_eq!(read_all(&log, GROUP).await, [record(1, vec![1; 2000])]);
    let log = Log::open(Arc::new(disk.crash(1)), "log").await.unwrap();
    assert_eq!(read_all(&log, GROUP).await, [record(1, vec![1; 2000])], "it was found once, so it was counted on");
}

/// Of two frames of one write the first is torn. What is written in its place, a mark and a record, has the same length
/// and must not make the second one follow again.
#[tokio::test]
async fn left_overs_behind_a_torn_tail_never_come_back() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let log = Log::open(disk.clone(), "log").await.unwrap();
    append(&log, GROUP, vec![record(1, "kept")]).await.unwrap();
    append(&log, GROUP, vec![record(2, vec![1; 80]), record(3, "left")]).await.unwrap();
    let disk = Arc::new(disk.restart(1));
    let file = disk.open("log/0000000001.log", OpenMode::Write).await.unwrap();
    disk.write_at(file, 48 + 80, vec![Bytes::from_static(&[0; 152])]).await.unwrap();

    let log = Log::open(disk.clone(), "log").await.unwrap();
    assert_eq!(read_all(&log, GROUP).await, [record(1, "kept")]);
    append(&log, GROUP, vec![record(2, "anew")]).await.unwrap();
    let log = Log::open(Arc::new(disk.crash(1)), "log").await.unwrap();
    assert_eq!(read_all(&log, GROUP).await, [record(1, "kept"), record(2, "anew")]);
}

#[tokio::test]
async fn a_full_disk_is_told_early_and_the_log_goes_on_when_there_is_room() {
    const FILE_LEN: u64 = 16 << 10;
    let disk = Arc::new(SimulatedDisk::new(1));
    let log = Log::open_with_file_len(disk.clone(), "log", FILE_LEN).await.unwrap();
    append(&log, GROUP, vec![record(1, "kept")]).await.unwrap();
    disk.set_space(Some(FILE_LEN - 1));
    let mut appended = 1;
    while !log.is_full() {
        appended += 1;
        append(&log, GROUP, vec![record(appended, vec![7; 1000])]).await.unwrap();
        wait_for_syncs(&log).await;
    }
    assert!(appended < 10, "told while most of the file is free: after {appended} records");
    assert_eq!(disk.list("log").await.unwrap().len(), 1, "what could not be reserved is not left behind");
    // The room that is left is used; what goes beyond waits, and is neither lost nor refused.
    let (sender, mut waiting) = tokio::sync::mpsc::unbounded_channel();
    for index in appended + 1..=appended + 20 {
        let sender = sender.clone();
        let done = Box::new(move |outcome: std::io::Result<()>| sender.send((index, outcome.is_ok())).unwrap());
        log.append(GROUP, vec![record(index, vec![7; 1000])], done).await.unwrap();
    }
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    assert_eq!(log.read(GROUP, 1..2, 100).await.unwrap(), [record(1, "kept")]);
    assert!(waiting.try_recv().is_err(), "twenty records do not fit the file");
    disk.set_space(Some(2 * FILE_LEN));
    for index in appended + 1..=appended + 20 {
        assert_eq!(waiting.recv().await, Some((index, true)));
    }
    wait_for(|| !log.is_full()).await;
    let log = Log::open_with_file_len(Arc::new(disk.crash(1)), "log", FILE_LEN).await.unwrap();
    assert_eq!(log.group(GROUP).last.unwrap().0, appended + 20);
}

/// Waits until the writer has done all it does after a write.
async fn wait_for_syncs(log: &Log) {
    log.save_vote(GroupId(1), Bytes::new()).await.unwrap();
}

async fn wait_for(mut condition: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if condition() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("still not so");
}

/// A file system that reserves nothing: the write itself finds no room, half of it done, or only its sync does.
#[tokio::test]
async fn a_write_without_room_is_written_again_from_its_beginning() {
    for (writes, syncs) in [(1, 0), (0, 1), (2, 2)] {
        let disk = Arc::new(SimulatedDisk::new(1));
        let log = Log::open(disk.clone(), "log").await.unwrap();
        append(&log, GROUP, vec![record(1, "before")]).await.unwrap();
        disk.fail_for_lack_of_room(writes, syncs);
        append(&log, GROUP, vec![record(2, vec![2; 5000]), record(3, vec![3; 5000])]).await.unwrap();
        assert!(!log.is_full() || writes > 0 || syncs > 0);
        append(&log, GROUP, vec![record(4, "after")]).await.unwrap();
        wait_for(|| !log.is_full()).await;
        for seed in 0..5 {
            let log = Log::open(Arc::new(disk.crash(seed)), "log").await.unwrap();
            let expected =
                [record(1, "before"), record(2, vec![2; 5000]), record(3, vec![3; 5000]), record(4, "after")];
            assert_eq!(read_all(&log, GROUP).await, expected, "{writes} writes, {syncs} syncs");
        }
    }
}

/// Whichever sync it is that finds no room, that of a record, of a file's header or of the names of files that come and go: it is
/// waited for, and nothing is lost.
#[tokio::test(start_paused = true)]
async fn each_sync_may_lack_room_once() {
    const RECORDS: u64 = 60;
    for at in 1.. {
        let disk = Arc::new(SimulatedDisk::new(1));
        let log = Log::open_with_file_len(disk.clone(), "log", 2 << 10).await.unwrap();
        let opening = disk.syncs();
        disk.lack_room_at_sync(opening + at);
        for index in 1..=RECORDS {
            append(&log, GROUP, vec![record(index, payload(7))]).await.unwrap();
            if index > 6 {
                log.purge(GROUP, index - 6, [(index - 6) as u8; 16]).await.unwrap();
            }
        }
        assert!(log.statistics().files_recycled > 2, "{:?}", log.statistics());
        log.close().await.unwrap();
        if disk.syncs() < opening + at {
            break;
        }
        let log = Log::open_with_file_len(Arc::new(disk.crash(at)), "log", 2 << 10).await.unwrap();
        let expected: Vec<_> = (RECORDS - 5..=RECORDS).map(|index| record(index, payload(7))).collect();
        assert_eq!(log.read(GROUP, RECORDS - 5..1000, usize::MAX).await.unwrap(), expected, "sync {at}");
    }
}

#[tokio::test]
async fn a_log_that_waits_for_room_can_be_closed() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let log = Log::open_with_file_len(disk.clone(), "log", 4 << 10).await.unwrap();
    append(&log, GROUP, vec![record(1, "kept")]).await.unwrap();
    disk.set_space(Some(0));
    let waiting = tokio::spawn({
        let log = log.clone();
        async move { append(&log, GROUP, vec![record(2, vec![2; 5000])]).await }
    });
    wait_for(|| log.is_full()).await;
    log.give_up_waiting();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    assert!(log.close().await.is_err());
    let log = Log::open_with_file_len(Arc::new(disk.crash(1)), "log", 4 << 10).await.unwrap();
    assert_eq!(read_all(&log, GROUP).await, [record(1, "kept")]);
}

/// Files go round: what a file held in its life before is never taken for a frame of the next, wherever that one ends.
#[tokio::test]
async fn old_frames_of_a_recycled_file_never_come_back() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let log = Log::open_with_file_len(disk.clone(), "log", 2 << 10).await.unwrap();
    for index in 1..=60 {
        append(&log, GROUP, vec![record(index, payload(7))]).await.unwrap();
        if index > 6 {
            log.purge(GROUP, index - 6, [(index - 6) as u8; 16]).await.unwrap();
        }
        let found = Log::open_with_file_len(Arc::new(disk.restart(index)), "log", 2 << 10).await.unwrap();
        let purged = index.saturating_sub(6);
        let expected: Vec<_> = (purged + 1..=index).map(|index| record(index, payload(7))).collect();
        assert_eq!(found.read(GROUP, purged + 1..1000, usize::MAX).await.unwrap(), expected);
        assert_eq!(found.group(GROUP).last.unwrap().0, index);
    }
    assert!(log.statistics().files_recycled > 4, "{:?}", log.statistics());
    assert!(disk.list("log").await.unwrap().len() <= 5, "files are not heaped up");
}

#[tokio::test]
async fn a_flipped_bit_in_a_recycled_log_is_damage_or_a_torn_tail_or_in_free_space() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let log = Log::open_with_file_len(disk.clone(), "log", 1 << 10).await.unwrap();
    for index in 1..=12 {
        append(&log, GROUP, vec![record(index, vec![index as u8; 200])]).await.unwrap();
        log.purge(GROUP, index.saturating_sub(4).max(1), [1; 16]).await.unwrap();
    }
    assert!(log.statistics().files_recycled > 2, "{:?}", log.statistics());
    let expected = log.read(GROUP, 9..100, usize::MAX).await.unwrap();
    let disk = disk.restart(1);
    let files = file_names(&disk).await;
    let (mut damaged, mut torn, mut free) = (0, 0, 0);
    for file in &files {
        for at in 0..1 << 10 {
            let copy = disk.restart(1);
            copy.flip_bit(file, at, at as u8 % 8).unwrap();
            match Log::open_with_file_len(Arc::new(copy), "log", 1 << 10).await {
                Ok(log) => {
                    let found = log.read(GROUP, 9..100, usize::MAX).await.unwrap();
                    assert!(expected.starts_with(&found), "byte {at} of {file}: {found:?}");
                    if found == expected {
                        free += 1
                    } else {
                        torn += 1
                    }
                    assert!(found == expected || file == files.last().unwrap(), "byte {at} of {file}");
                }
                Err(storage::Error::Corrupt { file: named, offset, .. }) => {
                    assert!(named == *file && offset <= at, "byte {at} of {file}: {named} at {offset}");
                    damaged += 1;
                }
                Err(error) => panic!("byte {at} of {file}: {error}"),
            }
        }
    }
    assert!(damaged > 500 && free > 50, "{damaged} damaged, {torn} torn, {free} free");
}

#[tokio::test]
async fn purging_removes_files_and_keeps_votes() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let log = Log::open_with_file_len(disk.clone(), "log", 4 << 10).await.unwrap();
    log.save_vote(GroupId(3), Bytes::from_static(b"cold vote")).await.unwrap();
    append(&log, GroupId(4), vec![record(1, "cold record")]).await.unwrap();
    for index in 1..=40 {
        append(&log, GROUP, vec![record(index, vec![index as u8; 1000])]).await.unwrap();
    }
    let files = file_names(&disk).await.len();
    assert!(files > 10, "{files}");
    assert_eq!(log.files_held(GroupId(4)), files as u64 - 1, "a cold group's record lies in the first file");
    log.purge(GROUP, 39, [39; 16]).await.unwrap();
    assert_eq!(file_names(&disk).await.len(), files, "the first file holds a record of group 4");
    log.purge(GroupId(4), 1, [1; 16]).await.unwrap();
    assert_eq!(file_names(&disk).await.len(), 1, "and is removed with all that are free then");
    assert_eq!(disk.list("log").await.unwrap().len(), 3, "but for those that are used next");
    assert_eq!(log.files_held(GROUP), 0);
    assert_eq!(log.read(GROUP, 39..41, usize::MAX).await.unwrap(), []);

    let log = Log::open(Arc::new(disk.crash(1)), "log").await.unwrap();
    assert_eq!(log.group(GroupId(3)).vote, Some(Bytes::from_static(b"cold vote")));
    assert_eq!(log.group(GroupId(4)).last, Some((1, [1; 16])));
    assert_eq!(log.read(GROUP, 40..41, usize::MAX).await.unwrap(), [record(40, vec![40; 1000])]);
    append(&log, GroupId(4), vec![record(2, "goes on")]).await.unwrap();
}

#[tokio::test]
async fn a_record_may_be_larger_than_a_file() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let log = Log::open_with_file_len(disk.clone(), "log", 4 << 10).await.unwrap();
    let records = [record(1, "small"), record(2, vec![2; 100_000]), record(3, "small")];
    append(&log, GROUP, records.to_vec()).await.unwrap();
    let log = Log::open(Arc::new(disk.crash(1)), "log").await.unwrap();
    assert_eq!(read_all(&log, GROUP).await, records);
}

#[tokio::test]
async fn a_log_may_begin_behind_a_snapshot() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let log = Log::open(disk.clone(), "log").await.unwrap();
    assert!(append(&log, GROUP, vec![record(5, "from nowhere")]).await.is_err());
    log.purge(GROUP, 100, [4; 16]).await.unwrap();
    append(&log, GROUP, vec![record(101, "x")]).await.unwrap();
    let log = Log::open(Arc::new(disk.crash(1)), "log").await.unwrap();
    assert_eq!(log.group(GROUP).purged, Some((100, [4; 16])));
    assert_eq!(read_all(&log, GROUP).await, [record(101, "x")]);
}

#[tokio::test]
async fn damage_found_while_reading_names_file_and_offset() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let log = Log::open(disk.clone(), "log").await.unwrap();
    append(&log, GROUP, vec![record(1, "some payload")]).await.unwrap();
    log.close().await.unwrap();
    // Opened again, nothing is in memory.
    let log = Log::open(disk.clone(), "log").await.unwrap();
    disk.flip_bit("log/0000000001.log", 48 + 72, 3).unwrap();
    let error = log.read(GROUP, 1..2, 100).await.unwrap_err();
    assert_eq!(error.to_string(), "file \"log/0000000001.log\" is damaged at offset 48: it is not record 1 of group 7");
}

/// The first version's bytes, for as long as it is to be read. Written anew with `ANNAL_WRITE_FORMATS=1`.
#[tokio::test]
async fn a_log_of_version_1_opens() {
    const FILE: &str = "log/0000000001.log";
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/formats/log-v1.bin");
    let disk = Arc::new(SimulatedDisk::new(1));
    let log = Log::open_with_file_len(disk.clone(), "log", 1 << 10).await.unwrap();
    append(&log, GROUP, vec![record(1, "one"), record(2, "two"), record(3, "three")]).await.unwrap();
    log.save_vote(GROUP, Bytes::from_static(b"vote")).await.unwrap();
    log.truncate_after(GROUP, Some(2)).await.unwrap();
    log.save_committed(GROUP, Bytes::from_static(b"2")).await.unwrap();
    log.purge(GROUP, 1, [1; 16]).await.unwrap();
    log.close().await.unwrap();
    let file = disk.open(FILE, OpenMode::Read).await.unwrap();
    let written = disk.read_at(file, 0, 1 << 10).await.unwrap();
    if std::env::var_os("ANNAL_WRITE_FORMATS").is_some() {
        std::fs::write(golden, &written).unwrap();
    }
    let golden = Bytes::from(std::fs::read(golden).unwrap());
    assert!(written == golden, "the bytes of a log changed: that is a new version");

    let disk = Arc::new(SimulatedDisk::new(1));
    disk.create_dir_all("log").await.unwrap();
    let file = disk.open(FILE, OpenMode::CreateNew).await.unwrap();
    disk.write_at(file, 0, vec![golden]).await.unwrap();
    let log = Log::open(disk, "log").await.unwrap();
    let known = log.group(GROUP);
    assert_eq!((known.vote.unwrap(), known.committed.unwrap()), ("vote".into(), "2".into()));
    assert_eq!((known.purged, known.last), (Some((1, [1; 16])), Some((2, [2; 16]))));
    assert_eq!(read_all(&log, GROUP).await, [record(2, "two")]);
}

#[tokio::test]
async fn who_asks_whether_it_is_synced_waits_for_all_before() {
    let log = Log::open(Arc::new(SimulatedDisk::new(1)), "log").await.unwrap();
    let synced = Arc::new(std::sync::atomic::AtomicU64::new(0));
    for index in 1..=20 {
        let noted = synced.clone();
        let done = Box::new(move |outcome: std::io::Result<()>| {
            outcome.unwrap();
            noted.store(index, std::sync::atomic::Ordering::SeqCst);
        });
        log.append(GROUP, vec![record(index, "x")], done).await.unwrap();
        if index % 5 == 0 {
            log.synced().await.unwrap();
            assert_eq!(synced.load(std::sync::atomic::Ordering::SeqCst), index);
        }
    }
}
