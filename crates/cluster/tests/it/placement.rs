//! Replicas that move from node to node while rows are written.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster::{Error, Node};
use event::{GroupId, NodeId, Sharding, TableKind};

use crate::support::{events, eventually, find, insert, once, read, rows};
use crate::three::Three;

const DATA: GroupId = GroupId(1);

/// Who votes in a group, by what the nodes say of themselves.
fn voters<'a>(nodes: impl IntoIterator<Item = &'a Arc<Node>>, group: GroupId) -> Vec<NodeId> {
    let votes = |node: &Arc<Node>| node.replica_status().iter().any(|replica| replica.group == group && replica.votes);
    nodes.into_iter().filter(|node| votes(node)).map(|node| node.id()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_moves_to_another_node_also_that_of_the_leader() {
    let three = Three::start().await;
    three.node(0).create_table(events("t")).await.unwrap();
    let t = find(three.node(0), "t").unwrap();
    let fourth = three.fourth().await;
    let all = || three.nodes.iter().flatten().chain([&fourth]);
    let writer = tokio::spawn({
        let (node, t) = (fourth.clone(), t.clone());
        async move {
            for number in 0..100 {
                insert(&node, &t, rows("s", number..number + 1)).await.unwrap();
            }
        }
    });
    let leader = NodeId(three.leader(DATA).await as u64 + 1);
    // Asked of any node.
    three.node(0).move_replica(DATA, leader, NodeId(4)).await.unwrap();
    eventually("all know who votes", || {
        let voters = voters(all(), DATA);
        async move { voters.len() == 3 && !voters.contains(&leader) && voters.contains(&NodeId(4)) }
    })
    .await;
    let follower = voters(all(), DATA).into_iter().find(|node| *node != NodeId(4)).unwrap();
    three.node(1).move_replica(DATA, follower, leader).await.unwrap();
    eventually("all know it again", || {
        let voters = voters(all(), DATA);
        async move { voters.len() == 3 && voters.contains(&leader) && !voters.contains(&follower) }
    })
    .await;
    writer.await.unwrap();
    for node in all() {
        assert_eq!(read(node, &t).await, once("s", 0..100), "node {}", node.id());
    }
    for (from, to, said) in [
        (leader, leader, "votes in group 1 already"),
        (follower, leader, "votes in group 1 already"),
        (follower, follower, "does not vote in group 1"),
        (leader, NodeId(9), "node 9 is not in the cluster"),
    ] {
        let refused = fourth.move_replica(DATA, from, to).await;
        // One that has moved already is not moved again, and that is no error.
        match refused {
            Err(Error::NotInState { reason, .. }) => assert!(reason.contains(said), "{from} to {to}: {reason}"),
            Ok(()) => assert_eq!((from, to), (follower, leader)),
            Err(other) => panic!("{other:?}"),
        }
    }
    let unknown = fourth.move_replica(GroupId(99), leader, follower).await.unwrap_err();
    assert!(matches!(unknown, Error::NotInState { .. }), "{unknown:?}");
    fourth.shutdown().await.unwrap();
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_is_given_votes_until_all_have_about_as_many() {
    let three = Three::with_groups(3).await;
    let fourth = three.fourth().await;
    let all: Vec<Arc<Node>> = three.nodes.iter().flatten().chain([&fourth]).cloned().collect();
    eventually("twelve votes lie on four nodes", || {
        let votes = |node: &Arc<Node>| node.replica_status().iter().filter(|replica| replica.votes).count();
        let votes: Vec<usize> = all.iter().map(votes).collect();
        async move { votes == [3, 3, 3, 3] }
    })
    .await;
    fourth.shutdown().await.unwrap();
    three.stop().await;
}

/// The groups of the shards of a new table that is made at a node, in order.
async fn placed(node: &Arc<Node>, name: &str, shards: u32) -> Vec<GroupId> {
    let mut spec = events(name);
    if let TableKind::Event(options) = &mut spec.kind {
        options.sharding = Sharding { shards, by: vec![1] };
    }
    node.create_table(spec).await.unwrap().shards.iter().map(|placement| placement.group).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_placed_where_there_are_few_rather_where_its_maker_leads() {
    let three = Three::with_groups(3).await;
    let groups = [1, 2, 3].map(GroupId);
    let leaders = || groups.map(|group| three.node(0).replica_status()[group.0 as usize].leader);
    eventually("each node leads a group", || {
        let leaders: BTreeSet<_> = leaders().into_iter().flatten().collect();
        async move { leaders.len() == 3 }
    })
    .await;
    let led = |place: usize| {
        let at = leaders().iter().position(|leader| *leader == Some(NodeId(place as u64 + 1))).unwrap();
        groups[at]
    };
    assert_eq!(placed(three.node(1), "a", 1).await, [led(1)]);
    assert_eq!(placed(three.node(2), "b", 1).await, [led(2)]);
    assert_eq!(placed(three.node(2), "c", 1).await, [led(0)], "the others have one already");
    let mut four = placed(three.node(0), "d", 4).await;
    assert_eq!((four[0], four[3]), (led(0), led(0)), "with one each, and again with two each");
    four.sort_unstable();
    four.dedup();
    assert_eq!(four, groups);
    // What is gone does not count.
    let b = find(three.node(0), "b").unwrap();
    three.node(0).drop_table(b.definition.id).await.unwrap();
    assert_eq!(placed(three.node(1), "e", 1).await, [b.shards[0].group]);
    three.stop().await;
}
