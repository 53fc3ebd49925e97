//! Numbers of identity columns: none is given out twice, whoever asks and whatever crashes.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster::{Error, TableSpec};
use event::{Identity, IdentityKind, TableId};
use storage::SimulatedDisk;
use storage::disk::Frozen;

use crate::support::{events, real_disk, start};

/// `t`, whose last column numbers its rows.
fn numbered() -> TableSpec {
    let mut spec = events("t");
    let column = spec.columns.last_mut().unwrap();
    column.identity = Some(Identity { kind: IdentityKind::ByDefault, start: 1 });
    spec
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_number_is_given_out_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = BTreeSet::new();
    let mut taken = 0;
    for _start in 0..3 {
        let node = start(real_disk(&dir)).await.unwrap();
        let table = match crate::support::find(&node, "t") {
            Some(table) => table,
            None => node.create_table(numbered()).await.unwrap(),
        };
        let (id, column) = (table.definition.id, table.definition.columns.last().unwrap().id);
        let takers: Vec<_> = (0..4u64)
            .map(|taker| {
                let node = Arc::clone(&node);
                tokio::task::spawn_blocking(move || {
                    let counts = (0..20).map(|step| 1 + (taker * 7 + step * 13) % 90);
                    counts.flat_map(|count| node.take_numbers_waiting(id, column, count).unwrap()).collect::<Vec<_>>()
                })
            })
            .collect();
        for taker in takers {
            let numbers = taker.await.unwrap();
            taken += numbers.len();
            all.extend(numbers);
        }
        let refused = node.take_numbers(id, event::ColumnId(77), 1).await.unwrap_err();
        assert!(matches!(refused, Error::NoSuchTable(_)), "{refused:?}");
        let refused = node.take_numbers(TableId(1), column, 1).await.unwrap_err();
        assert!(matches!(refused, Error::NoSuchTable(_)), "{refused:?}");
        node.shutdown().await.unwrap();
    }
    assert_eq!(all.len(), taken);
}

#[test]
fn a_number_given_out_before_a_crash_never_comes_again() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for n in 1..6 {
        let disk = Arc::new(SimulatedDisk::new(n));
        let (table, before) = runtime().block_on(async {
            let node = start(disk.clone()).await.unwrap();
            let table = node.create_table(numbered()).await.unwrap();
            let (id, column) = (table.definition.id, table.definition.columns.last().unwrap().id);
            disk.freeze_at_sync(disk.syncs() + n, Frozen::Succeed);
            let mut before = Vec::new();
            while !disk.is_frozen() {
                let taken = node.take_numbers(id, column, 10).await.unwrap();
                // Only what was reserved before the disk froze counts as given out.
                if !disk.is_frozen() {
                    before.extend(taken);
                }
            }
            (table, before)
        });
        let crashed = Arc::new(disk.crash(n));
        runtime().block_on(async {
            let node = start(crashed).await.unwrap();
            let (id, column) = (table.definition.id, table.definition.columns.last().unwrap().id);
            let after = node.take_numbers(id, column, 100).await.unwrap();
            assert!(before.iter().all(|number| !after.contains(number)), "{before:?} {after:?}");
        });
    }
}
