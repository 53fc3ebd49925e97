//! One machine of three whose disk is full or whose clock is wrong: it leads nothing for want of room, and decides nothing by its time alone.

use cluster::Error;
use event::{GroupId, TableKind};

use crate::support::{events, eventually, find, insert, once, one_of_each, read, rows, spread};
use crate::three::Three;

const DATA: GroupId = GroupId(1);
const HOUR_US: i64 = 3_600_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_room_gives_its_groups_to_others() {
    let three = Three::start().await;
    three.node(0).create_table(events("t")).await.unwrap();
    let leader = three.leader(DATA).await;
    let table = find(three.node(leader), "t").unwrap();
    insert(three.node(leader), &table, rows("a", 0..100)).await.unwrap();
    three.disks[leader].set_space(Some(0));
    let refused = three.node(leader).flush().await.unwrap_err();
    assert!(matches!(refused, Error::DiskFull(_)), "{refused:?}");
    eventually("another leads", async || three.leader(DATA).await != leader).await;
    // Whoever is asked while the lead changes says that nobody leads.
    eventually("the others flush", || async { three.node(leader).flush().await.is_ok() }).await;
    insert(three.node(leader), &table, rows("b", 0..100)).await.unwrap();
    three.disks[leader].set_space(None);
    let expected = once("a", 0..100).into_iter().chain(once("b", 0..100)).collect();
    for node in three.nodes.iter().flatten() {
        assert_eq!(read(node, &find(node, "t").unwrap()).await, expected);
    }
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_clock_is_ahead_forgets_nothing_early() {
    let three = Three::start().await;
    let mut spec = events("live");
    let TableKind::Event(options) = &mut spec.kind else { unreachable!("it has events") };
    options.retention_us = Some(24 * HOUR_US);
    let mut old = spec.clone();
    old.name = "old".into();
    let leader = three.leader(DATA).await;
    let node = three.node(leader);
    for spec in [spec, old] {
        node.create_table(spec).await.unwrap();
    }
    let (live, old) = (find(node, "live").unwrap(), find(node, "old").unwrap());
    insert(node, &live, rows("a", 0..10)).await.unwrap();
    insert(node, &old, rows("a", -48 * 3600..-48 * 3600 + 10)).await.unwrap();
    three.clocks[leader].advance(72 * HOUR_US);
    // What is old is forgotten, and what comes before it in the same look is not.
    eventually("old rows are forgotten", async || read(node, &old).await.is_empty()).await;
    assert_eq!(read(node, &live).await, once("a", 0..10));
    three.advance_clocks(72 * HOUR_US);
    eventually("all clocks say so", async || read(node, &live).await.is_empty()).await;
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_whose_clock_is_behind_commits_over_several_groups() {
    let three = Three::with_groups(3).await;
    let table = three.node(0).create_table(spread("t", 4)).await.unwrap();
    for clock in &three.clocks[..2] {
        clock.advance(HOUR_US);
    }
    // The first node's clock is that of its groups; the last one's, which is behind, counts for nothing.
    insert(three.node(0), &table, one_of_each(16, 0)).await.unwrap();
    let last = find(three.node(2), "t").unwrap();
    eventually("it commits", async || insert(three.node(2), &last, one_of_each(16, 1)).await.is_ok()).await;
    for value in 2..5 {
        insert(three.node(2), &last, one_of_each(16, value)).await.unwrap();
    }
    three.stop().await;
}
