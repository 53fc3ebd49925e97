//! A leader of three whose voters answer when the test says so.

use std::sync::Arc;
use std::time::Duration;

use event::SimulatedClock;
use replication::{Error, Group};
use storage::{Log, SimulatedDisk};

use crate::support::{Diary, close, open_among};
use crate::voters::Script;

/// The leader of three, and its log.
async fn lead(script: &Arc<Script>, lease_reads: bool) -> (Arc<Group<Diary>>, Log) {
    let (disk, clock) = (Arc::new(SimulatedDisk::new(1)), Arc::new(SimulatedClock::at(0)));
    let (group, log) = open_among(script, lease_reads, disk, clock).await.unwrap();
    while group.read_index().await.is_err() {
        pass().await;
    }
    (group, log)
}

/// The clock of these tests stands still while anybody has something to do: when it has moved on, all that can happen has happened.
async fn pass() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// Both voters got an entry, and their answers reach the leader after it has begun to read: they say nothing of the time since.
#[tokio::test(start_paused = true)]
async fn an_answer_to_an_older_request_confirms_no_read() {
    let script = Script::new([2, 3]);
    let (group, log) = lead(&script, false).await;
    script.silence();
    let written = tokio::spawn({
        let group = group.clone();
        async move { group.propose("a".into()).await }
    });
    pass().await;
    let read = tokio::spawn({
        let group = group.clone();
        async move { group.read_index().await }
    });
    pass().await;
    // The first answer commits the entry, of which the leader then tells both, before the second.
    for voter in [2, 3] {
        script.let_answer(voter, 1);
        pass().await;
    }
    assert!(written.await.unwrap().is_ok(), "a majority has it");
    assert!(matches!(read.await.unwrap(), Err(Error::NoLeader(_))), "nobody has confirmed that it leads");
    script.let_all_answer();
    pass().await;
    assert!(group.read_index().await.is_ok());
    close(group, log).await;
}

/// A leader that was answered a moment ago reads without asking.
#[tokio::test(start_paused = true)]
async fn a_lease_counts_from_the_request_that_was_answered() {
    let script = Script::new([2, 3]);
    let (group, log) = lead(&script, true).await;
    script.silence();
    assert!(group.read_index().await.is_ok(), "within the lease");
    let written = tokio::spawn({
        let group = group.clone();
        async move { group.propose("a".into()).await }
    });
    // Longer than a lease, and not as long as its voters have promised not to vote for another.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for voter in [2, 3] {
        script.let_answer(voter, 1);
        pass().await;
    }
    assert!(written.await.unwrap().is_ok(), "a majority has it");
    assert!(matches!(group.read_index().await, Err(Error::NoLeader(_))), "what was answered is too old");
    close(group, log).await;
}
