//! Statements and transactions over several groups: whole or not there, for every reader, whatever dies in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use cluster::{Node, Table, TableSnapshot};
use event::GroupId;

use crate::support::{
    count, events, eventually, find, insert, once, one_of_each, read, real_disk, rows, spread, start,
};
use crate::three::Three;

const SENSORS: usize = 16;

/// The values whose statements are seen, each of which wrote one row for every sensor.
async fn whole_values(node: &Arc<Node>, snapshot: &TableSnapshot) -> Vec<i64> {
    let mut of_value: BTreeMap<i64, u64> = BTreeMap::new();
    for ((_, value), times) in count(node, snapshot).await {
        assert_eq!(times, 1, "value {value} twice");
        *of_value.entry(value).or_default() += 1;
    }
    for (value, rows) in &of_value {
        assert_eq!(*rows, SENSORS as u64, "the statement of value {value} is seen in part");
    }
    of_value.into_keys().collect()
}

async fn values(node: &Arc<Node>, table: &Arc<Table>) -> Vec<i64> {
    let snapshot = node.snapshot(table).await.unwrap();
    whole_values(node, &snapshot).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_lie_in_all_groups_and_rows_in_their_shards() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let table = node.create_table(spread("t", 4)).await.unwrap();
    let groups: std::collections::BTreeSet<GroupId> = table.shards.iter().map(|placement| placement.group).collect();
    assert_eq!((table.shards.len(), groups.len()), (4, 3));
    let commit = insert(&node, &table, one_of_each(SENSORS, 1)).await.unwrap();
    assert_eq!((commit.rows, commit.positions.len()), (SENSORS as u64, 3));
    let snapshot = node.snapshot(&table).await.unwrap();
    let filled = snapshot.shards.iter().filter(|shard| !shard.memory.is_empty()).count();
    assert_eq!(filled, 4, "sixteen sensors are in all shards");
    for (shard, placement) in snapshot.shards.iter().zip(&table.shards) {
        assert_eq!(shard.shard, placement.shard, "in the order they are placed");
    }
    node.flush().await.unwrap();
    assert_eq!(values(&node, &table).await, [1]);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_sees_statements_over_groups_whole_while_many_write() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let table = node.create_table(spread("t", 5)).await.unwrap();
    let (next, stop) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = (0..6)
        .map(|_| {
            let (node, table, next, stop) = (node.clone(), table.clone(), next.clone(), stop.clone());
            tokio::spawn(async move {
                let mut own = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let value = next.fetch_add(1, Ordering::SeqCst);
                    insert(&node, &table, one_of_each(SENSORS, value)).await.unwrap();
                    own.push(value);
                    if value % 7 == 0 {
                        let seen = values(&node, &table).await;
                        assert!(own.iter().all(|value| seen.contains(value)), "an acknowledged statement is missing");
                    }
                }
            })
        })
        .collect();
    for round in 0..40 {
        values(&node, &table).await;
        let cut = node.cut(&node.catalog()).await.unwrap();
        whole_values(&node, &cut[0]).await;
        if round % 10 == 5 {
            node.flush().await.unwrap();
        }
    }
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(values(&node, &table).await.len() as i64, next.load(Ordering::SeqCst));
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_for_entries_commits_in_all_groups_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let table = node.create_table(spread("t", 3)).await.unwrap();
    let mut statement = node.begin();
    for sensor in 0..12 {
        let name = format!("{sensor:0>2000}");
        statement.append(&table, rows(&name, 0..1500)).await.unwrap();
    }
    let own: usize = statement.uncommitted(&table).iter().map(|own| own.batches.len() + own.segments.len()).sum();
    assert!(own >= 3, "own rows are seen");
    assert!(read(&node, &table).await.is_empty());
    assert_eq!(statement.commit().await.unwrap().rows, 18_000);
    let found = read(&node, &table).await;
    assert!(found.len() == 18_000 && found.values().all(|times| *times == 1));
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ddl_and_rows_of_several_groups_are_one_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let table = node.create_table(spread("t", 4)).await.unwrap();
    let other = node.create_table(events("other")).await.unwrap();
    let mut changes = node.changes().await.unwrap();
    let made = changes.create_table(spread("made", 3)).await.unwrap();
    let mut next = event::TableDefinition::clone(&table.definition);
    next.add_column(event::Column { name: "extra".to_owned(), ..next.columns[2].clone() });
    next.version.0 += 1;
    let altered = changes.alter_table(next).unwrap();
    let mut writes = node.begin();
    writes.append(&made, one_of_each(SENSORS, 3)).await.unwrap();
    writes.append(&other, rows("o", 0..5)).await.unwrap();
    assert!(find(&node, "made").is_none());
    changes.commit(Some(writes)).await.unwrap();
    let made = find(&node, "made").unwrap();
    assert_eq!(values(&node, &made).await, [3]);
    assert_eq!(read(&node, &other).await, once("o", 0..5));
    assert_eq!(node.snapshot(&altered).await.unwrap().shards.len(), 4);
    // All of them at once.
    node.truncate(&[made.clone(), other.clone()]).await.unwrap();
    assert!(read(&node, &made).await.is_empty() && read(&node, &other).await.is_empty());
    node.drop_table(made.definition.id).await.unwrap();
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_are_spread_and_any_node_writes_to_all_groups() {
    let three = Three::with_groups(3).await;
    eventually("each node leads a data group", || async {
        let leaders = three.node(0).replica_status().into_iter().skip(1).filter_map(|replica| replica.leader);
        leaders.collect::<std::collections::BTreeSet<_>>().len() == 3
    })
    .await;
    three.node(0).create_table(spread("t", 6)).await.unwrap();
    for value in 0..9 {
        let (writer, reader) = (three.node(value % 3), three.node((value + 1) % 3));
        let t = find(writer, "t").unwrap();
        insert(writer, &t, one_of_each(SENSORS, value as i64)).await.unwrap();
        assert_eq!(values(reader, &find(reader, "t").unwrap()).await.len(), value + 1);
    }
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_die_leave_no_statement_in_part() {
    let mut three = Three::with_groups(3).await;
    three.node(0).create_table(spread("t", 6)).await.unwrap();
    let (next, acknowledged) = (Arc::new(AtomicI64::new(0)), Arc::new(parking_lot::Mutex::new(Vec::new())));
    for round in 0..6 {
        let victim = round % 3;
        let writers: Vec<_> = [0, 1, 2]
            .map(|place| {
                let (node, next, acknowledged) = (three.node(place).clone(), next.clone(), acknowledged.clone());
                tokio::spawn(async move {
                    let t = find(&node, "t").unwrap();
                    for _ in 0..30 {
                        let value = next.fetch_add(1, Ordering::SeqCst);
                        match insert(&node, &t, one_of_each(SENSORS, value)).await {
                            Ok(_) => acknowledged.lock().push(value),
                            // The node was killed, or the leaders it asked.
                            Err(_) => return,
                        }
                    }
                })
            })
            .into();
        tokio::time::sleep(Duration::from_millis(20 + 15 * round as u64)).await;
        three.kill(victim).await;
        let reader = three.node((victim + 1) % 3).clone();
        let t = find(&reader, "t").unwrap();
        let seen = values(&reader, &t).await;
        let before = acknowledged.lock().clone();
        drop(seen);
        let seen = values(&reader, &t).await;
        assert!(before.iter().all(|value| seen.contains(value)), "round {round}");
        for writer in writers {
            writer.await.unwrap();
        }
        three.restart(victim).await;
    }
    for node in three.nodes.iter().flatten() {
        let t = find(node, "t").unwrap();
        let seen = values(node, &t).await;
        let all = acknowledged.lock().clone();
        assert!(all.len() > 20, "{} statements were acknowledged", all.len());
        assert!(all.iter().all(|value| seen.contains(value)), "on node {}", node.id());
    }
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_of_several_tables_shows_every_transaction_whole() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let mut tables = Vec::new();
    for name in ["a", "b", "c"] {
        tables.push(node.create_table(events(name)).await.unwrap());
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (node, tables, stop) = (node.clone(), tables.clone(), stop.clone());
        async move {
            let mut value = 0;
            while !stop.load(Ordering::SeqCst) {
                let mut transaction = node.begin();
                for table in &tables {
                    transaction.append(table, rows("s", value..value + 1)).await.unwrap();
                }
                transaction.commit().await.unwrap();
                value += 1;
            }
        }
    });
    // Some of them in another order, which the snapshots come in.
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]].repeat(30) {
        let asked: Vec<Arc<Table>> = order.iter().map(|at: &usize| tables[*at].clone()).collect();
        let cut = node.snapshots(&asked).await.unwrap();
        let mut there = Vec::new();
        for (snapshot, table) in cut.iter().zip(&asked) {
            assert_eq!(snapshot.table.definition.id, table.definition.id);
            there.push(count(&node, snapshot).await);
        }
        assert!(there.iter().all(|rows| *rows == there[0]), "a transaction is seen in part");
    }
    stop.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    node.shutdown().await.unwrap();
}
