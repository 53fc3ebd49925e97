//! Groups: entries, outcomes, time, checkpoints, restarts, failures.

#![allow(clippy::unwrap_used)]

mod confirmed;
mod support;
mod voters;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake};

use event::{SimulatedClock, limits};
use replication::Error;
use storage::SimulatedDisk;

use crate::support::{CUT, close, open, words};

#[tokio::test]
async fn statements_that_wait_together_share_an_entry_and_keep_their_outcomes() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let (group, log) = open(disk, Arc::new(SimulatedClock::at(0))).await.unwrap();
    let proposals = (0..100).map(|i| group.propose(format!("w{i}")));
    let proposed = futures::future::try_join_all(proposals).await.unwrap();
    let found = words(&group).await;
    for (i, proposed) in proposed.iter().enumerate() {
        let own = &found[proposed.outcome - 1];
        assert_eq!((own.word.as_str(), own.index), (format!("w{i}").as_str(), proposed.index));
    }
    let entries: std::collections::BTreeSet<u64> = proposed.iter().map(|p| p.index).collect();
    assert!(entries.len() < 10, "100 statements took {} entries", entries.len());
    close(group, log).await;
}

#[tokio::test]
async fn an_entry_stays_within_its_bound() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let (group, log) = open(disk, Arc::new(SimulatedClock::at(0))).await.unwrap();
    let large = "x".repeat(limits::ENTRY_BYTES_MAX / 3);
    let proposals = (0..10).map(|_| group.propose(large.clone()));
    let proposed = futures::future::try_join_all(proposals).await.unwrap();
    for entry in proposed.chunk_by(|a, b| a.index == b.index) {
        assert!(entry.len() <= 3, "{} statements of a third of the bound in one entry", entry.len());
    }
    close(group, log).await;
}

#[tokio::test]
async fn time_never_goes_back_not_even_after_a_restart_from_a_checkpoint() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let clock = Arc::new(SimulatedClock::at(1000));
    let (group, log) = open(disk.clone(), clock.clone()).await.unwrap();
    group.propose("a".into()).await.unwrap();
    clock.advance(-500);
    group.propose(CUT.into()).await.unwrap();
    group.checkpoint().await.unwrap();
    close(group, log).await;
    let (group, log) = open(Arc::new(disk.restart(1)), clock.clone()).await.unwrap();
    group.propose("b".into()).await.unwrap();
    clock.advance(5000);
    group.propose("c".into()).await.unwrap();
    let times: Vec<i64> = words(&group).await.iter().map(|w| w.time_us).collect();
    assert_eq!(times, [1000, 1000, 1000, 5500]);
    close(group, log).await;
}

#[tokio::test]
async fn a_restart_begins_with_the_checkpoint_and_applies_what_came_after() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let clock = Arc::new(SimulatedClock::at(0));
    let (group, log) = open(disk.clone(), clock.clone()).await.unwrap();
    group.propose("a".into()).await.unwrap();
    let cut = group.propose(CUT.into()).await.unwrap().index;
    group.propose("b".into()).await.unwrap();
    assert_eq!(group.checkpoint().await.unwrap(), cut);
    assert_eq!(group.status().checkpoint, cut);
    assert_eq!(log.group(group.id()).purged.unwrap().0, cut, "the log is purged up to the checkpoint, not beyond");
    assert_eq!(group.checkpoint().await.unwrap(), cut, "nothing newer to write");
    group.propose("c".into()).await.unwrap();
    let before = words(&group).await;
    close(group, log).await;
    let mut disk = disk.restart(1);
    for boot in 0..3 {
        let shared = Arc::new(disk);
        let (group, log) = open(shared.clone(), clock.clone()).await.unwrap();
        assert_eq!(words(&group).await, before, "boot {boot}");
        assert!(group.read_index().await.unwrap() >= before.last().unwrap().index);
        close(group, log).await;
        disk = shared.restart(boot);
    }
}

#[tokio::test]
async fn a_statement_asked_for_again_is_applied_once_also_after_a_restart() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let clock = Arc::new(SimulatedClock::at(0));
    let (group, log) = open(disk.clone(), clock.clone()).await.unwrap();
    let first = group.propose("before #1 of 0".into()).await.unwrap();
    let twice = ["while #2 of 0", "while #2 of 0"].map(|word| group.propose(word.into()));
    let twice = futures::future::try_join_all(twice).await.unwrap();
    assert_eq!(twice[0], twice[1], "also when both are in one entry");
    group.propose(CUT.into()).await.unwrap();
    group.checkpoint().await.unwrap();
    let last = group.propose("after #3 of 0".into()).await.unwrap();
    let before = words(&group).await;
    close(group, log).await;
    let (group, log) = open(Arc::new(disk.restart(1)), clock.clone()).await.unwrap();
    // One is remembered by the checkpoint, the other by the log.
    assert_eq!(group.propose("before #1 of 0".into()).await.unwrap(), first);
    assert_eq!(group.propose("after #3 of 0".into()).await.unwrap(), last);
    assert_eq!(words(&group).await, before);
    // Its coordinator has said that it waits for nothing below 4.
    group.propose("news #5 of 4".into()).await.unwrap();
    let late = group.propose("before #1 of 0".into()).await.unwrap_err();
    assert!(matches!(late, Error::Unknown { .. }), "{late:?}");
    assert_eq!(words(&group).await.len(), before.len() + 1);
    close(group, log).await;
}

#[tokio::test]
async fn a_damaged_checkpoint_is_named() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let clock = Arc::new(SimulatedClock::at(0));
    let (group, log) = open(disk.clone(), clock.clone()).await.unwrap();
    group.propose(CUT.into()).await.unwrap();
    group.checkpoint().await.unwrap();
    close(group, log).await;
    use storage::Disk;
    let file = disk.open("checkpoints/5", storage::disk::OpenMode::Read).await.unwrap();
    for offset in 0..disk.len(file).await.unwrap() {
        let damaged = disk.restart(offset);
        damaged.flip_bit("checkpoints/5", offset, 3).unwrap();
        let refused = open(Arc::new(damaged), clock.clone()).await.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(refused.contains("file \"checkpoints/5\" is damaged"), "byte {offset}: {refused}");
    }
}

#[tokio::test]
async fn an_acknowledged_statement_is_read() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let (group, log) = open(disk, Arc::new(SimulatedClock::at(0))).await.unwrap();
    for i in 0..50 {
        let proposed = group.propose(format!("w{i}")).await.unwrap();
        assert!(group.read_index().await.unwrap() >= proposed.index);
        assert_eq!(words(&group).await.len(), i + 1);
    }
    assert!(group.leads());
    let status = group.status();
    assert_eq!(status.applied, status.committed);
    close(group, log).await;
}

#[tokio::test]
async fn a_stopped_group_refuses_and_what_was_in_flight_is_unknown() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let (group, log) = open(disk.clone(), Arc::new(SimulatedClock::at(0))).await.unwrap();
    disk.fail_next_sync();
    let lost = group.propose("lost".into()).await.unwrap_err();
    assert!(matches!(lost, Error::Unknown { .. } | Error::Stopped { .. }), "{lost:?}");
    assert!(!group.failed().await.is_empty());
    let refused = group.propose("late".into()).await.unwrap_err();
    assert!(matches!(refused, Error::Unknown { .. } | Error::Stopped { .. }), "{refused:?}");
    assert!(matches!(group.read_index().await.unwrap_err(), Error::Stopped { .. }));
    group.shutdown().await;
    let refused = group.propose("later".into()).await.unwrap_err();
    assert!(matches!(refused, Error::Stopped { .. }), "{refused:?}");
    drop(log);
}

#[tokio::test]
async fn too_many_waiting_statements_are_refused() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let (group, log) = open(disk, Arc::new(SimulatedClock::at(0))).await.unwrap();
    let proposals = (0..limits::PROPOSE_QUEUE_LEN + 100).map(|i| group.propose(format!("w{i}")));
    // All of them before the proposer has its first turn.
    let proposed = tokio::task::unconstrained(futures::future::join_all(proposals)).await;
    let refused = proposed.iter().filter(|p| matches!(p, Err(Error::Overloaded(_)))).count();
    let done = proposed.iter().filter(|p| p.is_ok()).count();
    assert!(refused > 0 && refused + done == proposed.len(), "{refused} refused, {done} done");
    assert_eq!(words(&group).await.len(), done, "what was refused is not applied");
    close(group, log).await;
}

/// Counts how often somebody is told to look again.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn who_waits_for_another_leader_is_not_woken_by_entries() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let (group, log) = open(disk, Arc::new(SimulatedClock::at(0))).await.unwrap();
    group.propose("first".into()).await.unwrap();
    let wakes = Arc::new(Wakes::default());
    let mut another = Box::pin(group.leader_changes_from(group.leader()));
    let waker = wakes.clone().into();
    assert!(another.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    for i in 0..50 {
        group.propose(format!("w{i}")).await.unwrap();
    }
    assert_eq!(wakes.0.load(Ordering::SeqCst), 0);
    group.leader_changes_from(None).await;
    drop(another);
    close(group, log).await;
}
