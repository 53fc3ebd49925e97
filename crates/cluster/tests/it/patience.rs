//! Nobody waits for ever: not at a leader that no majority answers, nor at a node whose disk is full.

use std::time::Duration;

use cluster::Error;
use event::GroupId;

use crate::support::{events, find, insert, once, read, rows};
use crate::three::{Three, address};

const DATA: GroupId = GroupId(1);
/// Longer than anybody shall wait.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_leader_that_nobody_answers_reads_nothing_and_does_not_know_what_became_of_writes() {
    let three = Three::start().await;
    three.node(0).create_table(events("t")).await.unwrap();
    let leader = three.leader(DATA).await;
    let node = three.node(leader);
    let t = find(node, "t").unwrap();
    insert(node, &t, rows("before", 0..10)).await.unwrap();
    three.network.isolate(&address(leader));
    let both =
        tokio::time::timeout(LONG, async { tokio::join!(node.snapshot(&t), insert(node, &t, rows("lost", 0..10))) });
    let (not_read, unknown) = both.await.expect("they come to an end");
    let no_leader = matches!(not_read, Err(Error::Replication(replication::Error::NoLeader(DATA))));
    assert!(no_leader, "{not_read:?}");
    assert!(matches!(unknown, Err(Error::Unknown(_))), "{unknown:?}");
    three.network.mend();
    let mut expected = once("before", 0..10);
    if read(node, &t).await.len() > expected.len() {
        expected.extend(once("lost", 0..10));
    }
    for node in three.nodes.iter().flatten() {
        assert_eq!(read(node, &t).await, expected, "node {}", node.id());
    }
    three.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_follow_for_want_of_room_says_so_and_can_be_stopped() {
    let mut three = Three::start().await;
    three.node(0).create_table(events("t")).await.unwrap();
    let leader = three.leader(DATA).await;
    let (full, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let t = find(three.node(leader), "t").unwrap();
    three.disks[full].fail_for_lack_of_room(u32::MAX, 0);
    // It is asked for its vote, which has to wait for room, and all else behind it.
    three.network.isolate(&address(leader));
    tokio::time::sleep(Duration::from_secs(5)).await;
    three.network.mend();
    insert(three.node(third), &t, rows("s", 0..10)).await.unwrap();
    let behind = tokio::time::timeout(LONG, three.node(full).snapshot(&t)).await.expect("it comes to an end");
    // It may not even have heard who leads since.
    let told = matches!(behind, Err(Error::Stale(_) | Error::Replication(replication::Error::NoLeader(_))));
    assert!(told, "{:?}", behind.map(|_| "rows"));
    let stopped = three.nodes[full].take().unwrap();
    let ended = tokio::time::timeout(LONG, stopped.shutdown()).await.expect("it can be stopped");
    assert!(ended.is_err(), "its log could not be closed");
    drop(stopped);
    three.disks[full].fail_for_lack_of_room(0, 0);
    three.restart(full).await;
    for node in three.nodes.iter().flatten() {
        assert_eq!(read(node, &t).await, once("s", 0..10), "node {}", node.id());
    }
    three.stop().await;
}
