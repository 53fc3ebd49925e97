//! Coordinators that die between two steps.

use event::SchemaVersion;
use storage::SimulatedDisk;

use super::*;
use crate::catalog::command::{CatalogChange, CatalogCommand, CatalogOutcome};
use crate::catalog::{Table, TableSpec};
use crate::node::TableSnapshot;
use crate::reading::ReadLevel;
use crate::testing::{START_US, start};

/// A table of one bigint over two shards, one in each group.
fn spec() -> TableSpec {
    let column = |name: &str, column_type, nullable| event::Column {
        id: event::ColumnId(0),
        name: name.to_owned(),
        stored: None,
        column_type,
        nullable,
        required: false,
        default: None,
        initial: None,
        identity: None,
        modifier: None,
    };
    let options = event::EventOptions {
        time_column: 0,
        series: vec![1],
        split_interval_us: 3_600_000_000,
        retention_us: None,
        dedup: event::Dedup::None,
        sharding: event::Sharding { shards: 2, by: vec![1] },
    };
    TableSpec {
        namespace: "public".to_owned(),
        name: "t".to_owned(),
        columns: vec![column("ts", event::ColumnType::Timestamp, false), column("n", event::ColumnType::BigInt, true)],
        primary_key: Vec::new(),
        primary_key_named: None,
        unique: Vec::new(),
        kind: event::TableKind::Event(options),
        compression: event::Compression::Zstd,
        checks: Vec::new(),
        consistency: event::Consistency::Strong,
        replicas: event::Replicas::default(),
    }
}

/// A row for each shard of the table, whatever shard its values belong to: the parts of a transaction.
fn parts(table: &Table) -> Parts {
    use arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray};
    let columns: Vec<ArrayRef> =
        vec![Arc::new(TimestampMicrosecondArray::from(vec![START_US])), Arc::new(Int64Array::from(vec![1]))];
    let rows = arrow::array::RecordBatch::try_new(table.definition.arrow_schema(), columns).unwrap();
    let append = |shard| vec![Command::Append { shard, version: SchemaVersion(1), rows: rows.clone() }];
    table.shards.iter().map(|placement| (placement.group, append(placement.shard))).collect()
}

async fn rows(node: &Node, table: &Arc<Table>) -> u64 {
    rows_in(&node.snapshot(table).await.unwrap())
}

fn rows_in(snapshot: &TableSnapshot) -> u64 {
    let memory = snapshot.shards.iter().flat_map(|shard| &shard.memory);
    let segments = snapshot.shards.iter().flat_map(|shard| &shard.segments);
    let there = memory.map(|split| split.rows).sum::<u64>() + segments.map(|segment| segment.meta.rows).sum::<u64>();
    let hidden: u64 = snapshot.shards.iter().flat_map(|shard| shard.deleted.values()).map(|rows| rows.len()).sum();
    there - hidden
}

async fn ended(node: &Node) {
    for _ in 0..1500 {
        if !node.has_left_transactions() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a transaction was left: {:?} {:?}", node.prepared_parts(), node.open_decisions());
}

/// Prepares all parts but the first, and answers with what the first group is to be told.
async fn prepare(node: &Node, transaction: StatementId, parts: &mut Parts, until_us: i64) -> (GroupId, Vec<Command>) {
    let (decider, mut own) = parts.pop_first().unwrap();
    let prepared = node.prepare_parts(transaction, None, (decider, until_us), parts).await;
    let joined = prepared.unwrap_or_else(|_| panic!("the parts are prepared"));
    own.push(Command::Decide { transaction, commit: true, until_us, joined });
    (decider, own)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_dies_before_the_decision_has_done_nothing() {
    let node = start(Arc::new(SimulatedDisk::new(1)), 2).await;
    let table = node.create_table(spec()).await.unwrap();
    let transaction = node.statement_id();
    let (decider, own) = prepare(&node, transaction, &mut parts(&table), START_US + COMMIT_WITHIN_US).await;
    assert_eq!(rows(&node, &table).await, 0);
    assert!(node.has_left_transactions());
    ended(&node).await;
    // It was only paused.
    assert_eq!(node.propose(decider, own).await.unwrap().outcome, Outcome::Conflict, "others have given it up");
    assert_eq!(rows(&node, &table).await, 0);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_dies_after_the_decision_has_done_all_of_it() {
    let disk = Arc::new(SimulatedDisk::new(2));
    let node = start(disk.clone(), 2).await;
    let table = node.create_table(spec()).await.unwrap();
    let transaction = node.statement_id();
    let (decider, own) = prepare(&node, transaction, &mut parts(&table), START_US + COMMIT_WITHIN_US).await;
    assert_eq!(node.propose(decider, own).await.unwrap().outcome, Outcome::Done { rows: 1 });
    assert_eq!(rows_in(&node.snapshot_here(&table).await.unwrap()), 0, "it is not seen in part");
    // Power is lost, and whoever starts again ends it. What has brought its rows is not in the log any more.
    node.flush_group(decider, true).await.unwrap();
    let again = disk.restart(3);
    drop(node);
    let node = start(Arc::new(again), 2).await;
    let table = node.catalog().tables.values().next().unwrap().clone();
    let here = rows_in(&node.snapshot_here(&table).await.unwrap());
    assert_eq!(here, 2, "nobody knows which rows to hide: who reads what is here waits, too");
    assert_eq!(rows(&node, &table).await, 2, "who reads waits for its end");
    ended(&node).await;
    assert_eq!(rows(&node, &table).await, 2);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_is_refused_takes_the_others_back() {
    let node = start(Arc::new(SimulatedDisk::new(4)), 2).await;
    let table = node.create_table(spec()).await.unwrap();
    for refusing in 0..2 {
        let mut parts = parts(&table);
        let group = table.shards[refusing].group;
        let Some(Command::Append { version, .. }) = parts.get_mut(&group).and_then(|part| part.first_mut()) else {
            unreachable!("a part appends")
        };
        *version = SchemaVersion(9);
        let refused = node.commit_jointly(node.statement_id(), None, parts, (START_US + COMMIT_WITHIN_US, true)).await;
        assert!(matches!(refused, Err(NotCommitted::Refused(Outcome::SchemaMismatch { .. }))));
        assert!(node.prepared_parts().is_empty() && node.open_decisions().is_empty());
        assert_eq!(rows(&node, &table).await, 0);
    }
    assert!(
        node.commit_jointly(node.statement_id(), None, parts(&table), (START_US + COMMIT_WITHIN_US, true))
            .await
            .is_ok_and(|done| done.rows == 2)
    );
    assert_eq!(rows(&node, &table).await, 2);
    node.shutdown().await.unwrap();
}

/// A transaction that the catalog has prepared, and what its coordinator would tell the group that decides.
async fn prepared_in_catalog(node: &Node, until_us: i64) -> (StatementId, GroupId, Command) {
    let (transaction, group) = (node.statement_id(), GroupId(2));
    let changes = vec![CatalogChange::CreateSchema { name: "s".to_owned(), id: event::TableId(99_999) }];
    let prepare = CatalogCommand::Prepare { transaction, group, changes, until_us };
    assert!(matches!(node.propose_catalog(prepare).await.unwrap(), CatalogOutcome::Done));
    (transaction, group, Command::Decide { transaction, commit: true, until_us, joined: Vec::new() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_a_change_of_the_catalog_was_given_up_is_known_as_long_as_it_could_be_made() {
    let node = start(Arc::new(SimulatedDisk::new(5)), 2).await;
    // Long after whoever gives it up could guess.
    let until_us = START_US + 100 * COMMIT_WITHIN_US;
    // The node looks for such transactions by itself, unless it is not its turn.
    let _turn = node.ddl.acquire().await.unwrap();
    let (transaction, group, commit) = prepared_in_catalog(&node, until_us).await;
    assert_eq!(node.end_prepared().await.unwrap(), Some(false));
    assert_eq!(node.data_group(group).unwrap().reader().decisions()[&transaction].until_us, until_us);
    assert_eq!(node.propose(group, vec![commit]).await.unwrap().outcome, Outcome::Conflict);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_what_is_here_ends_nothing_and_waits_for_nobody() {
    let node = start(Arc::new(SimulatedDisk::new(6)), 2).await;
    let table = node.create_table(spec()).await.unwrap();
    // As if its coordinator were still at it.
    let _turn = node.ddl.acquire().await.unwrap();
    let (transaction, group, commit) = prepared_in_catalog(&node, START_US + COMMIT_WITHIN_US).await;
    node.propose(group, vec![commit]).await.unwrap();
    let eventual = ReadLevel { consistency: event::Consistency::Eventual, ..ReadLevel::strong() };
    node.snapshot_at(&table, &eventual).await.unwrap();
    assert_eq!(node.catalog().prepared, Some(transaction));
    let strong = tokio::time::timeout(Duration::from_millis(200), node.snapshot(&table)).await;
    assert!(strong.is_err(), "who reads the newest waits for the end");
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_old_a_read_may_be_is_not_known_while_a_part_waits() {
    let node = start(Arc::new(SimulatedDisk::new(7)), 2).await;
    let table = node.create_table(spec()).await.unwrap();
    let at = |consistency| {
        let max_staleness = Duration::from_secs(30);
        let level = ReadLevel { consistency, max_staleness, ..ReadLevel::strong() };
        let (node, table) = (&node, &table);
        async move {
            let (snapshot, staleness) = node.snapshot_at(table, &level).await.unwrap();
            (rows_in(&snapshot), staleness.is_some())
        }
    };
    assert_eq!(rows(&node, &table).await, 0);
    assert_eq!(at(event::Consistency::Eventual).await, (0, true));
    let transaction = node.statement_id();
    let (decider, own) = prepare(&node, transaction, &mut parts(&table), START_US + COMMIT_WITHIN_US).await;
    assert_eq!(at(event::Consistency::Bounded).await, (0, true), "nobody can have seen it");
    assert_eq!(node.propose(decider, own).await.unwrap().outcome, Outcome::Done { rows: 1 });
    // From now on others may have seen the part of the group that has decided.
    for weak in [event::Consistency::Eventual, event::Consistency::Session] {
        assert_eq!(at(weak).await, (0, false), "{weak:?}");
    }
    assert_eq!(at(event::Consistency::Bounded).await, (2, true), "it waits for the conclusion");
    assert_eq!(at(event::Consistency::Eventual).await, (2, true));
    node.shutdown().await.unwrap();
}

/// What a group knows that has decided about a transaction with such parts in others, by its entry 1.
fn view_with_trace(group: u64, transaction: StatementId, joined: Vec<Joined>) -> JointView {
    let mut shards = storage::Shards::new(GroupId(group));
    let decide = Command::Decide { transaction, commit: true, until_us: i64::MAX, joined };
    let origin = event::Origin { id: transaction, settled: 0 };
    let statement = storage::Statement { origin, commands: vec![decide] };
    shards.apply_some(1, &storage::Entry { time_us: 0, statements: vec![statement] }, &|_| true);
    shards.reader().joint()
}

/// What a group knows that has applied so much, and has traces of nothing.
fn view_at(applied: u64, untraced: &[(u64, u64)]) -> JointView {
    let untraced = untraced.iter().map(|(group, index)| (GroupId(*group), *index)).collect();
    JointView {
        applied,
        prepared: Arc::default(),
        decisions: Arc::default(),
        traces: Arc::default(),
        untraced: Arc::new(untraced),
        whole_from: 0,
    }
}

fn is_whole(views: Vec<(u64, JointView)>) -> bool {
    let mut cut = JointCut::new();
    views.into_iter().for_each(|(group, view)| cut.add(GroupId(group), view));
    cut.make_whole(&mut [])
}

#[test]
fn a_cut_with_a_group_that_came_as_a_snapshot_waits_until_the_others_have_got_as_far() {
    assert!(!is_whole(vec![(1, view_at(80, &[(3, 70)])), (3, view_at(69, &[]))]));
    assert!(is_whole(vec![(1, view_at(80, &[(3, 70)])), (3, view_at(70, &[]))]));
    assert!(is_whole(vec![(1, view_at(80, &[(3, 70)])), (2, view_at(1, &[]))]), "it is not in the cut");
}

#[test]
fn a_group_whose_checkpoint_lacks_rows_is_read_once_the_entry_that_took_them_is_applied() {
    let restored = |applied| (1, JointView { whole_from: 9, ..view_at(applied, &[]) });
    assert!(!is_whole(vec![restored(8)]), "alone, too");
    assert!(!is_whole(vec![restored(8), (2, view_at(1, &[]))]));
    assert!(is_whole(vec![restored(9), (2, view_at(1, &[]))]));
}

#[test]
fn a_transaction_is_hidden_everywhere_or_nowhere() {
    let transaction = StatementId { node: event::NodeId(1), boot: 1, counter: 1 };
    let joined = || vec![Joined { group: GroupId(2), index: 5 }, Joined { group: GroupId(3), index: 6 }];
    let decider = || (1, view_with_trace(1, transaction, joined()));
    assert!(is_whole(vec![decider(), (2, view_at(5, &[])), (3, view_at(6, &[]))]));
    assert!(is_whole(vec![decider(), (2, view_at(4, &[])), (3, view_at(5, &[]))]), "hidden where it is");
    assert!(!is_whole(vec![decider(), (2, view_at(4, &[])), (3, view_at(9, &[]))]), "group 3 cannot hide it");
    let traced = || (3, JointView { applied: 9, ..view_with_trace(3, transaction, joined()) });
    assert!(is_whole(vec![decider(), (2, view_at(4, &[])), traced()]));
}

#[test]
fn what_is_decided_is_never_called_a_failure() {
    let stops = goes_on(Error::ShuttingDown("the node stops".into()));
    assert!(matches!(&stops, Error::Unknown(reason) if reason.contains("the node stops")), "{stops:?}");
    assert!(matches!(goes_on(Error::Conflict), Error::Unknown(_)));
    let unknown = goes_on(Error::Unknown("lost".into()));
    assert!(matches!(&unknown, Error::Unknown(reason) if reason == "lost"), "{unknown:?}");
}
