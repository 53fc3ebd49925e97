//! CREATE, ALTER and DROP as jobs: each ends, whichever step a crash comes after.

use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use cluster::{Error, Table, View};
use event::{Column, ColumnId, ColumnType, SchemaVersion, TableDefinition, TableId};
use storage::SimulatedDisk;
use storage::disk::Frozen;

use crate::support::{events, eventually, find, insert, once, read, real_disk, rows, start};

/// How often each sync is the last, with other survivors each time.
const SEEDS: usize = 4;

fn block_on<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// The next definition: another name, and one more column.
fn altered(table: &Table) -> TableDefinition {
    let mut next = table.definition.as_ref().clone();
    next.version = SchemaVersion(next.version.0 + 1);
    next.name = "u".to_owned();
    let (id, column_type) = (ColumnId(next.columns.len() as u32 + 1), ColumnType::Text);
    next.columns.push(Column {
        identity: None,
        initial: None,
        id,
        name: "note".to_owned(),
        stored: None,
        column_type,
        nullable: true,
        default: None,
    });
    next
}

/// The rows with NULL in the columns the table has besides.
fn widened(table: &Table, rows: &RecordBatch) -> RecordBatch {
    let schema = table.definition.arrow_schema();
    let added = schema.fields()[rows.num_columns()..].iter().map(|f| new_null_array(f.data_type(), rows.num_rows()));
    let columns = rows.columns().iter().cloned().chain(added).collect();
    RecordBatch::try_new(schema.clone(), columns).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_definition_follows_another() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let table = node.create_table(events("t")).await.unwrap();
    insert(&node, &table, rows("a", 0..3)).await.unwrap();
    let (one, two) = tokio::join!(node.alter_table(altered(&table)), node.alter_table(altered(&table)));
    let refused = if one.is_err() { &one } else { &two }.as_ref().unwrap_err();
    assert!(matches!(refused, Error::SchemaChanged(_)), "{refused:?}");

    // Rows made for the definition before are refused, those there are read as rows of the new one.
    let refused = insert(&node, &table, rows("a", 3..6)).await.unwrap_err();
    assert!(matches!(refused, Error::SchemaChanged(_)), "{refused:?}");
    let now = find(&node, "u").unwrap();
    insert(&node, &now, widened(&now, &rows("a", 3..6))).await.unwrap();
    assert_eq!(read(&node, &now).await, once("a", 0..6));

    // The old name is free, the new one is not.
    let again = node.create_table(events("t")).await.unwrap();
    let refused = node.alter_table(altered(&again)).await.unwrap_err();
    assert!(matches!(refused, Error::TableExists(_)), "{refused:?}");
    node.shutdown().await.unwrap();
}

#[test]
fn an_alter_job_cut_off_anywhere_is_finished_or_was_never_begun() {
    let (mut finished, mut never, mut seed) = (0, 0, 0);
    for n in (1..).flat_map(|n| [n; SEEDS]) {
        seed += 1;
        let disk = Arc::new(SimulatedDisk::new(seed));
        let acknowledged = block_on(async {
            let node = start(disk.clone()).await.unwrap();
            let table = node.create_table(events("t")).await.unwrap();
            insert(&node, &table, rows("a", 0..3)).await.unwrap();
            node.flush().await.unwrap();
            insert(&node, &table, rows("a", 3..6)).await.unwrap();
            disk.freeze_at_sync(disk.syncs() + n, Frozen::Succeed);
            let table = node.alter_table(altered(&table)).await.unwrap();
            let acknowledged = !disk.is_frozen();
            node.flush().await.unwrap();
            insert(&node, &table, widened(&table, &rows("b", 0..3))).await.unwrap();
            acknowledged
        });
        let crashed = Arc::new(disk.crash(seed));
        block_on(async {
            let node = start(crashed).await.unwrap();
            let table = match (find(&node, "t"), find(&node, "u")) {
                (None, Some(table)) => {
                    finished += u32::from(!acknowledged);
                    assert_eq!(table.definition.columns.len(), 4);
                    table
                }
                (Some(table), None) => {
                    assert!(!acknowledged, "an acknowledged change is done");
                    never += 1;
                    assert_eq!(table.definition.columns.len(), 3);
                    table
                }
                found => panic!("one table of one name: {found:?}"),
            };
            let there = read(&node, &table).await;
            assert!(once("a", 0..6).iter().all(|(row, times)| there.get(row) == Some(times)), "{there:?}");
            insert(&node, &table, widened(&table, &rows("c", 0..3))).await.unwrap();
            node.flush().await.unwrap();
            assert_eq!(read(&node, &table).await.len(), there.len() + 3);
        });
        if acknowledged {
            break;
        }
    }
    assert!(finished > 0 && never > 0, "finished {finished}, never begun {never}");
}

#[test]
fn a_filled_table_cut_off_anywhere_is_whole_or_was_never_there() {
    let (mut whole, mut never, mut seed) = (0, 0, 0);
    for n in (1..).flat_map(|n| [n; SEEDS]) {
        seed += 1;
        let disk = Arc::new(SimulatedDisk::new(seed));
        let acknowledged = block_on(async {
            let node = start(disk.clone()).await.unwrap();
            disk.freeze_at_sync(disk.syncs() + n, Frozen::Succeed);
            let filling = node.create_hidden(events("t")).await.unwrap();
            assert!(find(&node, "t").is_none(), "nobody sees it");
            insert(&node, filling.table(), rows("a", 0..6)).await.unwrap();
            assert!(find(&node, "t").is_none(), "nobody sees it");
            filling.publish().await.unwrap();
            !disk.is_frozen()
        });
        let crashed = Arc::new(disk.crash(seed));
        block_on(async {
            let node = start(crashed).await.unwrap();
            match find(&node, "t") {
                Some(table) => {
                    whole += u32::from(!acknowledged);
                    assert_eq!(read(&node, &table).await, once("a", 0..6));
                }
                None => {
                    assert!(!acknowledged, "an acknowledged table is there");
                    never += 1;
                    node.create_table(events("t")).await.expect("the name is free");
                }
            }
        });
        if acknowledged {
            break;
        }
    }
    assert!(never > 0, "whole {whole}, never there {never}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_not_filled_gives_its_name_back() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let filling = node.create_hidden(events("t")).await.unwrap();
    let refused = node.create_table(events("t")).await.unwrap_err();
    assert!(matches!(refused, Error::TableExists(_)), "{refused:?}");
    filling.discard().await.unwrap();
    let forgotten = node.create_hidden(events("t")).await.unwrap();
    drop(forgotten);
    // Whoever looks after jobs that were left finds it.
    eventually("the name is free", async || node.create_table(events("t")).await.is_ok()).await;
    node.shutdown().await.unwrap();
}

/// A view of that name over `reads`.
fn view(name: &str, reads: &[TableId]) -> View {
    let (namespace, query) = ("public".to_owned(), "SELECT 1".to_owned());
    let (columns, outputs) = (Vec::new(), Vec::new());
    View { id: TableId(0), namespace, name: name.to_owned(), columns, outputs, query, reads: reads.to_vec() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_reads_what_is_there_and_never_itself() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let there = |name: &str| node.catalog().view("public", name).cloned().unwrap();
    node.create_view(view("v", &[]), None, Vec::new()).await.unwrap();
    let v = there("v");
    node.create_view(view("w", &[v.id]), None, Vec::new()).await.unwrap();
    let w = there("w");

    // Both see the catalog as it was before either: whoever comes second would close the circle.
    let refused = node.create_view(view("v", &[w.id]), Some(v.clone()), Vec::new()).await.unwrap_err();
    assert!(matches!(&refused, Error::CircularView(name) if name == "v"), "{refused:?}");
    let refused = node.create_view(view("v", &[v.id]), Some(v.clone()), Vec::new()).await.unwrap_err();
    assert!(matches!(refused, Error::CircularView(_)), "{refused:?}");

    // What is to be replaced is another by now.
    let table = node.create_table(events("t")).await.unwrap();
    node.create_view(view("v", &[table.definition.id]), Some(v.clone()), Vec::new()).await.unwrap();
    let refused = node.create_view(view("v", &[]), Some(v.clone()), Vec::new()).await.unwrap_err();
    assert!(matches!(refused, Error::SchemaChanged(_)), "{refused:?}");
    assert_eq!((there("v").id, there("v").reads.clone()), (v.id, vec![table.definition.id]));
    let refused = node.drop_table(table.definition.id).await.unwrap_err();
    assert!(matches!(refused, Error::IsRead { .. }), "{refused:?}");
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_session_left_goes_when_the_node_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let (one, two) = (node.create_temporary_schema().await.unwrap(), node.create_temporary_schema().await.unwrap());
    assert_ne!(one, two);
    for schema in [&one, &two] {
        let spec = cluster::TableSpec { namespace: schema.clone(), ..events("t") };
        let table = node.create_table(spec).await.unwrap();
        node.create_view(view(&format!("reads_{schema}"), &[table.definition.id]), None, Vec::new()).await.unwrap();
    }
    let refused = node.drop_schema(one.clone()).await.unwrap_err();
    assert!(matches!(refused, Error::SchemaNotEmpty { .. }), "{refused:?}");
    let dropped = node.drop_schema_with_contents(&one).await.unwrap();
    assert_eq!(dropped, [format!("view reads_{one}"), "table t".to_owned()]);
    let catalog = node.catalog();
    assert_eq!((catalog.schemas.len(), catalog.tables.len(), catalog.views.len()), (1, 1, 1));
    let refused = node.create_table(cluster::TableSpec { namespace: one, ..events("t") }).await.unwrap_err();
    assert!(matches!(refused, Error::NoSuchSchema(_)), "{refused:?}");
    node.shutdown().await.unwrap();

    let node = start(real_disk(&dir)).await.unwrap();
    let mine = node.create_temporary_schema().await.unwrap();
    eventually("what the sessions left is gone", async || !node.catalog().schemas.contains_key(&two)).await;
    let catalog = node.catalog();
    assert_eq!(catalog.schemas.keys().collect::<Vec<_>>(), [&mine]);
    assert!(catalog.tables.is_empty() && catalog.views.is_empty());
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_taken_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let creations = (0..8).map(|_| node.create_table(events("t")));
    let created = futures::future::join_all(creations).await;
    assert_eq!(created.iter().filter(|c| c.is_ok()).count(), 1);
    for refused in created.into_iter().filter_map(Result::err) {
        assert!(matches!(&refused, Error::TableExists(name) if name == "t"), "{refused:?}");
    }
    let table = find(&node, "t").unwrap();
    node.drop_table(table.definition.id).await.unwrap();
    let refused = node.drop_table(table.definition.id).await.unwrap_err();
    assert!(matches!(refused, Error::NoSuchTable(_)), "{refused:?}");
    assert!(node.catalog_linearizable().await.unwrap().tables.is_empty());
    node.create_table(events("t")).await.unwrap();
    node.shutdown().await.unwrap();
}

#[test]
fn a_create_job_cut_off_anywhere_is_finished_or_was_never_begun() {
    let (mut finished, mut never, mut seed) = (0, 0, 0);
    for n in (1..).flat_map(|n| [n; SEEDS]) {
        seed += 1;
        let disk = Arc::new(SimulatedDisk::new(seed));
        let acknowledged = block_on(async {
            let node = start(disk.clone()).await.unwrap();
            disk.freeze_at_sync(disk.syncs() + n, Frozen::Succeed);
            node.create_table(events("t")).await.unwrap();
            !disk.is_frozen()
        });
        let crashed = Arc::new(disk.crash(seed));
        block_on(async {
            let node = start(crashed).await.unwrap();
            let table = match find(&node, "t") {
                Some(table) => {
                    finished += u32::from(!acknowledged);
                    table
                }
                None => {
                    assert!(!acknowledged, "an acknowledged table is there");
                    never += 1;
                    node.create_table(events("t")).await.unwrap()
                }
            };
            insert(&node, &table, rows("a", 0..3)).await.unwrap();
            assert_eq!(read(&node, &table).await, once("a", 0..3));
        });
        if acknowledged {
            break;
        }
    }
    assert!(finished > 0 && never > 0, "finished {finished}, never begun {never}");
}

#[test]
fn a_drop_job_cut_off_anywhere_is_finished_or_was_never_begun() {
    let (mut finished, mut never, mut seed) = (0, 0, 0);
    for n in (1..).flat_map(|n| [n; SEEDS]) {
        seed += 1;
        let disk = Arc::new(SimulatedDisk::new(seed));
        let acknowledged = block_on(async {
            let node = start(disk.clone()).await.unwrap();
            let table = node.create_table(events("t")).await.unwrap();
            insert(&node, &table, rows("a", 0..3)).await.unwrap();
            disk.freeze_at_sync(disk.syncs() + n, Frozen::Succeed);
            node.drop_table(table.definition.id).await.unwrap();
            !disk.is_frozen()
        });
        let crashed = Arc::new(disk.crash(seed));
        block_on(async {
            let node = start(crashed).await.unwrap();
            match find(&node, "t") {
                Some(table) => {
                    assert!(!acknowledged, "an acknowledged drop is done");
                    never += 1;
                    assert_eq!(read(&node, &table).await, once("a", 0..3));
                }
                None => finished += u32::from(!acknowledged),
            }
            let left = usize::from(find(&node, "t").is_some());
            assert_eq!(node.shards().len(), left, "the shard goes with its table");
        });
        if acknowledged {
            break;
        }
    }
    assert!(finished > 0 && never > 0, "finished {finished}, never begun {never}");
}
