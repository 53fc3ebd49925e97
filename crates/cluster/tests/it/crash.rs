//! Power lost at every sync of a small workload with seals, bulk rows and compactions, and disks that fail.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster::{Error, Node};
use storage::SimulatedDisk;
use storage::disk::Frozen;

use crate::support::{
    events, find, insert, objects, once, one_of_each, read, rows, spread, start, start_small_log, wide_rows,
};

const BULK_ROWS: i64 = 1200;
const BULK_BYTES: usize = 4000;
const SENSORS: usize = 8;

fn block_on<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// What a workload was told, as far as it can be held against the disk.
#[derive(Default)]
struct Told {
    created: bool,
    /// Statements by name: whether they were acknowledged while the disk still kept what was synced.
    statements: BTreeMap<String, bool>,
    /// The same for statements over the shards of a table, by their value.
    over_shards: BTreeMap<i64, bool>,
    /// Log files used again.
    recycled: u64,
}

/// Some small statements, two flushes with late rows between, and one bulk statement.
async fn work(disk: &Arc<SimulatedDisk>, told: &mut Told) -> Result<(), Error> {
    let node = start_small_log(disk.clone()).await?;
    let table = node.create_table(events("t")).await?;
    let over_shards = node.create_table(spread("u", 2)).await?;
    told.created = !disk.is_frozen();
    for round in 0..3 {
        for statement in 0..2 {
            let name = format!("s{round}{statement}");
            told.statements.insert(name.clone(), false);
            insert(&node, &table, rows(&name, 0..5)).await?;
            told.statements.insert(name, !disk.is_frozen());
        }
        told.over_shards.insert(round, false);
        insert(&node, &over_shards, one_of_each(SENSORS, round)).await?;
        told.over_shards.insert(round, !disk.is_frozen());
        if round == 1 {
            let name = "x".repeat(BULK_BYTES);
            told.statements.insert(name.clone(), false);
            insert(&node, &table, wide_rows(0..BULK_ROWS, BULK_BYTES)).await?;
            told.statements.insert(name, !disk.is_frozen());
        }
        if round < 2 {
            node.flush().await?;
        }
        if round > 0 {
            node.compact(&table).await?;
        }
    }
    told.recycled = node.statistics().log.files_recycled;
    node.shutdown().await
}

/// Everything acknowledged is there, everything that is there is whole and once.
fn check(told: &Told, found: &BTreeMap<(String, i64), u64>) {
    for (name, acknowledged) in &told.statements {
        let rows = if name.len() == BULK_BYTES { BULK_ROWS } else { 5 };
        let there: BTreeMap<_, _> =
            found.iter().filter(|((sensor, _), _)| sensor == name).map(|(k, v)| (k.clone(), *v)).collect();
        let short = &name[..name.len().min(8)];
        assert!(
            there.is_empty() || there == once(name, 0..rows),
            "statement {short} is there in part: {}",
            there.len()
        );
        assert!(!acknowledged || !there.is_empty(), "acknowledged statement {short} is lost");
    }
    assert!(found.keys().all(|(sensor, _)| told.statements.contains_key(sensor)), "rows nobody wrote");
}

async fn check_node(node: &Arc<Node>, told: &Told) -> BTreeMap<(String, i64), u64> {
    let Some(table) = find(node, "t") else {
        assert!(!told.created, "the acknowledged table is lost");
        return BTreeMap::new();
    };
    let found = read(node, &table).await;
    check(told, &found);
    let Some(table) = find(node, "u") else {
        assert!(!told.created, "the acknowledged table is lost");
        return found;
    };
    let over_shards = read(node, &table).await;
    for (value, acknowledged) in &told.over_shards {
        let there = over_shards.iter().filter(|((_, other), times)| other == value && **times == 1).count();
        assert!(there == 0 || there == SENSORS, "{there} rows of the statement of value {value}");
        assert!(!acknowledged || there > 0, "the acknowledged statement of value {value} is lost");
    }
    assert!(over_shards.values().all(|times| *times == 1));
    found
}

fn crash_at_every_sync(then: Frozen) {
    let syncs = {
        let disk = Arc::new(SimulatedDisk::new(0));
        let mut told = Told::default();
        block_on(work(&disk, &mut told)).unwrap();
        assert!(told.recycled > 0, "no log file was used again");
        disk.syncs()
    };
    assert!(syncs > 30, "{syncs}");
    for n in 1..=syncs {
        let disk = Arc::new(SimulatedDisk::new(n));
        disk.freeze_at_sync(n, then);
        let mut told = Told::default();
        let worked = block_on(work(&disk, &mut told));
        assert!(worked.is_ok() || then == Frozen::Fail, "sync {n}: {worked:?}");
        let crashed = Arc::new(disk.crash(n));
        let found = block_on(async {
            let node = start_small_log(crashed.clone())
                .await
                .unwrap_or_else(|e| panic!("start after a crash at sync {n}: {e}"));
            let found = check_node(&node, &told).await;
            // Whatever was under way is taken up: flushing again changes nothing that is read.
            node.flush().await.unwrap();
            assert_eq!(check_node(&node, &told).await.len(), found.len(), "sync {n}");
            let mut named = 0;
            for table in ["t", "u"].iter().filter_map(|name| find(&node, name)) {
                let snapshot = node.snapshot(&table).await.unwrap();
                named += snapshot.shards.iter().map(|shard| shard.segments.len()).sum::<usize>();
                assert!(snapshot.shards.iter().all(|shard| shard.memory.is_empty()));
            }
            assert_eq!(objects(&node).await.len(), named, "sync {n}: orphans are left");
            node.shutdown().await.unwrap();
            found
        });
        // And a clean restart finds the same.
        block_on(async {
            let node = start_small_log(Arc::new(crashed.restart(n))).await.unwrap();
            assert_eq!(check_node(&node, &told).await.len(), found.len(), "sync {n}");
        });
    }
}

#[test]
fn power_lost_at_every_sync_loses_nothing_acknowledged() {
    crash_at_every_sync(Frozen::Succeed);
}

#[test]
fn a_disk_that_fails_from_any_sync_on_loses_nothing_acknowledged() {
    crash_at_every_sync(Frozen::Fail);
}

#[test]
fn after_a_failed_sync_of_the_log_the_node_stops_and_acknowledges_nothing() {
    let disk = Arc::new(SimulatedDisk::new(1));
    block_on(async {
        let node = start(disk.clone()).await.unwrap();
        let table = node.create_table(events("t")).await.unwrap();
        insert(&node, &table, rows("kept", 0..3)).await.unwrap();
        disk.fail_next_sync();
        let (one, two) =
            tokio::join!(insert(&node, &table, rows("lost", 0..3)), insert(&node, &table, rows("lost", 3..6)),);
        for refused in [one.unwrap_err(), two.unwrap_err()] {
            let told = matches!(refused, Error::Unknown(_) | Error::ShuttingDown(_));
            assert!(told, "{refused:?}");
        }
        let reason = node.failed().await;
        assert!(!reason.is_empty());
        for _ in 0..3 {
            let refused = insert(&node, &table, rows("lost", 6..9)).await.unwrap_err();
            assert!(matches!(refused, Error::Unknown(_) | Error::ShuttingDown(_)), "{refused:?}");
            assert!(node.snapshot(&table).await.is_err());
        }
    });
    let crashed = Arc::new(disk.crash(3));
    block_on(async {
        let node = start(crashed).await.unwrap();
        let found = read(&node, &find(&node, "t").unwrap()).await;
        assert!(found.iter().filter(|((sensor, _), _)| sensor == "kept").count() == 3);
        assert!(found.keys().all(|(_, value)| *value < 6), "what was refused after the failure is not there");
    });
}
