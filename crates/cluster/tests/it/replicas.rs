//! Tables that ask for more replicas than others.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster::{Node, TableSpec};
use event::{GroupId, NodeId, Replicas};

use crate::support::{events, eventually, find, insert, once, read, rows};
use crate::three::Three;

/// The group of tables that ask for no more than others.
const PLAIN: GroupId = GroupId(1);
/// The group that the first table is placed in that does.
const SAFE: GroupId = GroupId(2);

fn with_replicas(name: &str, count: usize) -> TableSpec {
    TableSpec { replicas: Replicas::new(count).unwrap(), ..events(name) }
}

/// The groups of a table.
fn groups(node: &Arc<Node>, name: &str) -> Vec<GroupId> {
    find(node, name).unwrap().shards.iter().map(|placement| placement.group).collect()
}

/// How many nodes vote in the catalog, the plain and the safe group, by what they say of themselves.
fn votes(nodes: &[Arc<Node>]) -> [usize; 3] {
    [GroupId::CATALOG, PLAIN, SAFE].map(|group| {
        let votes = |node: &Arc<Node>| {
            node.replica_status()
                .iter()
                .any(|replica| replica.group == group && replica.votes && replica.leader.is_some())
        };
        nodes.iter().filter(|node| votes(node)).map(|node| node.id()).collect::<BTreeSet<NodeId>>().len()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_with_five_replicas_outlives_two_nodes() {
    let mut three = Three::with_groups(2).await;
    three.node(0).create_table(with_replicas("safe", 5)).await.unwrap();
    for name in ["plain", "other"] {
        three.node(1).create_table(events(name)).await.unwrap();
        assert_eq!(groups(three.node(1), name), [PLAIN], "tables that ask for less do not pay for more");
    }
    three.node(2).create_table(with_replicas("too", 5)).await.unwrap();
    assert_eq!((groups(three.node(2), "safe"), groups(three.node(2), "too")), (vec![SAFE], vec![SAFE]));
    let added = [three.another("fourth").await, three.another("fifth").await];
    let all: Vec<Arc<Node>> = three.nodes.iter().flatten().chain(&added).cloned().collect();
    eventually("all five vote where it is asked for, and on the catalog", || {
        let votes = votes(&all);
        async move { votes == [5, 3, 5] }
    })
    .await;

    let safe = find(&added[0], "safe").unwrap();
    insert(&added[0], &safe, rows("before", 0..10)).await.unwrap();
    drop(all);
    three.kill(0).await;
    three.kill(2).await;
    insert(&added[1], &safe, rows("after", 0..10)).await.unwrap();
    let expected = once("after", 0..10).into_iter().chain(once("before", 0..10)).collect();
    for node in three.nodes.iter().flatten().chain(&added) {
        assert_eq!(read(node, &safe).await, expected, "node {}", node.id());
    }
    // The catalog goes on with it.
    added[0].create_table(events("meanwhile")).await.unwrap();

    three.restart(0).await;
    three.restart(2).await;
    for name in ["safe", "too"] {
        added[1].drop_table(find(&added[1], name).unwrap().definition.id).await.unwrap();
    }
    let all: Vec<Arc<Node>> = three.nodes.iter().flatten().chain(&added).cloned().collect();
    eventually("nobody asks for five any more", || {
        let votes = votes(&all);
        async move { votes == [3, 3, 3] }
    })
    .await;
    drop(all);
    for node in added {
        node.shutdown().await.unwrap();
    }
    three.stop().await;
}
