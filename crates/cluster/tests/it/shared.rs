//! Three nodes whose segments lie in one store elsewhere: each is written once, and goes when no node needs it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Node, RemoteSegments, Table};
use object_store::memory::InMemory;

use crate::support::{events, eventually, find, insert, objects, once, read, rows};
use crate::three::Three;

fn remote() -> RemoteSegments {
    RemoteSegments { store: Arc::new(InMemory::new()), url: "memory://".into(), cache_bytes: 1 << 30 }
}

/// The segments that a node's manifest names.
async fn named(node: &Arc<Node>, table: &Arc<Table>) -> BTreeSet<String> {
    let snapshot = node.snapshot(table).await.unwrap();
    snapshot.shards.iter().flat_map(|shard| &shard.segments).map(|segment| segment.meta.name.clone()).collect()
}

/// Longer than a voter keeps what it was asked to hold for a statement.
const PROMISE: Duration = Duration::from_secs(601);

/// Whether the store holds exactly those, after one more flush.
async fn holds_no_more(node: &Arc<Node>, table: &Arc<Table>) -> bool {
    node.flush().await.unwrap();
    objects(node).await.into_iter().collect::<BTreeSet<_>>() == named(node, table).await
}

// Time is the test's own.
#[tokio::test(start_paused = true)]
async fn a_segment_is_written_once_for_all_and_goes_when_no_node_needs_it() {
    let mut three = Three::with_remote(remote()).await;
    three.node(0).create_table(events("t")).await.unwrap();
    let t = find(three.node(0), "t").unwrap();
    for flush in 0..4 {
        insert(three.node(flush % 3), &t, rows("s", flush as i64 * 50..flush as i64 * 50 + 50)).await.unwrap();
        three.node(0).flush().await.unwrap();
    }
    let written = named(three.node(0), &t).await;
    assert_eq!(written.len(), 4);
    for node in three.nodes.iter().flatten() {
        assert_eq!(objects(node).await.len(), 4, "no node has put a copy of its own");
        assert_eq!(read(node, &t).await, once("s", 0..200), "node {}", node.id());
    }
    three.node(0).compact(&t).await.unwrap();
    tokio::time::advance(PROMISE).await;
    eventually("what was merged is gone", || holds_no_more(three.node(0), &t)).await;
    assert_eq!(named(three.node(0), &t).await.len(), 1);

    // What a node that is down may need stays.
    let away = (three.leader(event::GroupId(1)).await + 1) % 3;
    three.kill(away).await;
    let there = three.node((away + 1) % 3).clone();
    insert(&there, &t, rows("s", 200..250)).await.unwrap();
    there.flush().await.unwrap();
    let before = named(&there, &t).await;
    there.compact(&t).await.unwrap();
    tokio::time::advance(PROMISE).await;
    let all = |node: Arc<Node>| async move { objects(&node).await.into_iter().collect::<BTreeSet<_>>() };
    for _ in 0..3 {
        assert!(!holds_no_more(&there, &t).await);
    }
    assert!(all(there.clone()).await.is_superset(&before));
    three.restart(away).await;
    eventually("it is back and has caught up", || holds_no_more(&there, &t)).await;
    assert_eq!(read(three.node(away), &t).await, once("s", 0..250));

    // A node that joins has nothing to copy.
    let fourth = three.fourth().await;
    assert_eq!(read(&fourth, &t).await, once("s", 0..250));
    three.node(0).drop_table(t.definition.id).await.unwrap();
    tokio::time::advance(PROMISE).await;
    eventually("nothing is left", || async {
        three.node(0).flush().await.unwrap();
        objects(&there).await.is_empty()
    })
    .await;
    fourth.shutdown().await.unwrap();
    three.stop().await;
}
