//! How old what a node reads may be, on three nodes whose links can be cut.

use std::sync::Arc;
use std::time::Duration;

use cluster::{Error, Node, Positions, ReadLevel};
use event::{Consistency, GroupId};

use crate::support::{count, events, eventually, find, insert, rows, spread};
use crate::three::{Three, address};

const BOUND: Duration = Duration::from_millis(800);

fn level(consistency: Consistency, at_least: Positions) -> ReadLevel {
    ReadLevel { consistency, max_staleness: BOUND, at_least }
}

async fn rows_at(node: &Arc<Node>, level: &ReadLevel) -> Result<(usize, Option<Duration>), Error> {
    let table = find(node, "t").unwrap();
    let (snapshot, age) = node.snapshot_at(&table, level).await?;
    Ok((count(node, &snapshot).await.len(), age))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_reads_what_it_has_as_long_as_that_is_new_enough() {
    let three = Three::start().await;
    three.node(0).create_table(events("t")).await.unwrap();
    let leader = three.leader(GroupId(1)).await;
    let (other, away) = (three.node((leader + 1) % 3).clone(), three.node((leader + 2) % 3).clone());
    let t = find(&other, "t").unwrap();
    insert(&other, &t, rows("s", 0..10)).await.unwrap();
    let bounded = level(Consistency::Bounded, Positions::new());
    let (there, age) = rows_at(&away, &bounded).await.unwrap();
    assert!(there == 10 && age.is_some_and(|age| age <= BOUND), "{there} rows, {age:?} old");
    three.network.isolate(&address((leader + 2) % 3));
    let commit = insert(&other, &t, rows("s", 10..20)).await.unwrap();
    // For a while nothing newer was asked for.
    let refused = async {
        loop {
            match rows_at(&away, &bounded).await {
                Ok((rows, age)) => assert!(rows == 10 && age.is_some_and(|age| age <= BOUND)),
                Err(error) => return error,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let refused = tokio::time::timeout(3 * BOUND, refused).await.expect("a node that is cut off is too old soon");
    assert!(matches!(&refused, Error::Stale(reason) if reason.contains("older than 800 ms")), "{refused:?}");
    let (there, age) = rows_at(&away, &level(Consistency::Eventual, Positions::new())).await.unwrap();
    assert!(there == 10 && age.is_some_and(|age| age > BOUND), "it says how old: {age:?}");
    // What another session has written is waited for, and not missed.
    let written: Positions = commit.positions.into_iter().collect();
    let waiting = tokio::spawn({
        let (away, level) = (away.clone(), level(Consistency::Session, written));
        async move { rows_at(&away, &level).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    three.network.mend();
    assert_eq!(waiting.await.unwrap().unwrap().0, 20);
    eventually("it is new enough again", || async { rows_at(&away, &bounded).await.is_ok_and(|(rows, _)| rows == 20) })
        .await;
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_brings_the_token_of_a_write_sees_it_on_any_node() {
    let three = Three::with_groups(3).await;
    three.node(0).create_table(spread("t", 3)).await.unwrap();
    for round in 0..60 {
        let (writer, reader) = (three.node(round % 3), three.node((round + 1) % 3));
        let sensor = format!("s{round}");
        let t = find(writer, "t").unwrap();
        let commit = insert(writer, &t, rows(&sensor, 0..1)).await.unwrap();
        let token = commit.positions.into_iter().collect();
        let snapshot = reader.snapshot_at(&find(reader, "t").unwrap(), &level(Consistency::Session, token)).await;
        let there = count(reader, &snapshot.unwrap().0).await;
        assert!(there.contains_key(&(sensor.clone(), 0)), "the write of round {round} is missing");
    }
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_lease_reads_without_asking_anybody() {
    const READS: u64 = 300;
    for lease_reads in [true, false] {
        let three = Three::with(1, lease_reads, None).await;
        three.node(0).create_table(events("t")).await.unwrap();
        let leader = three.node(three.leader(GroupId(1)).await).clone();
        let t = find(&leader, "t").unwrap();
        insert(&leader, &t, rows("s", 0..10)).await.unwrap();
        let before = three.network.messages();
        for _ in 0..READS {
            assert_eq!(rows_at(&leader, &ReadLevel::strong()).await.unwrap().0, 10);
        }
        // Heartbeats go on by themselves, a few in a second.
        let sent = three.network.messages() - before;
        assert_eq!(sent < READS, lease_reads, "{sent} messages for {READS} reads");
        three.stop().await;
    }
}
