//! CREATE, ALTER and DROP: each ends, whichever step a crash comes after, and transactions of them as a whole.

use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use cluster::{Error, Node, Table, View};
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
        modifier: None,
        required: false,
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

/// What a migration does: a table, a column and a view more, and a row that says so.
async fn migrate(node: &Arc<Node>, version: &Arc<Table>) -> Result<(), Error> {
    let mut changes = node.changes().await?;
    let mut writes = node.begin();
    writes.append(version, rows("before", 0..1)).await?;
    let table = changes.create_table(events("t")).await?;
    writes.append(&table, rows("a", 0..6)).await?;
    let altered = changes.alter_table(TableDefinition { name: "v".to_owned(), ..altered(version) })?;
    writes.follow(&altered)?;
    writes.append(&altered, widened(&altered, &rows("after", 0..1))).await?;
    changes.create_view(view("w", &[table.definition.id, altered.definition.id]), None, Vec::new()).await?;
    assert!(find(node, "t").is_none() && node.catalog().views.is_empty(), "nobody sees it");
    changes.commit(Some(writes)).await?;
    Ok(())
}

#[test]
fn a_transaction_cut_off_anywhere_has_changed_all_or_nothing() {
    let (mut whole, mut never, mut seed) = (0, 0, 0);
    for n in (1..).flat_map(|n| [n; SEEDS]) {
        seed += 1;
        let disk = Arc::new(SimulatedDisk::new(seed));
        let acknowledged = block_on(async {
            let node = start(disk.clone()).await.unwrap();
            let version = node.create_table(events("v")).await.unwrap();
            insert(&node, &version, rows("first", 0..1)).await.unwrap();
            disk.freeze_at_sync(disk.syncs() + n, Frozen::Succeed);
            migrate(&node, &version).await.unwrap();
            !disk.is_frozen()
        });
        let crashed = Arc::new(disk.crash(seed));
        block_on(async {
            let node = start(crashed).await.unwrap();
            let version = find(&node, "v").unwrap();
            let applied: Vec<String> = read(&node, &version).await.into_keys().map(|row| row.0).collect();
            match find(&node, "t") {
                Some(table) => {
                    whole += u32::from(!acknowledged);
                    assert_eq!(read(&node, &table).await, once("a", 0..6));
                    assert_eq!(applied, ["after", "before", "first"]);
                    assert_eq!(version.definition.columns.len(), 4);
                    assert_eq!(node.catalog().views.len(), 1);
                }
                None => {
                    assert!(!acknowledged, "what is acknowledged is there");
                    never += 1;
                    assert_eq!(applied, ["first"]);
                    assert_eq!(version.definition.columns.len(), 3);
                    assert!(node.catalog().views.is_empty());
                    assert_eq!(node.shards().len(), 1, "its shard is gone");
                    migrate(&node, &version).await.expect("it can be done again");
                }
            }
        });
        if acknowledged {
            break;
        }
    }
    assert!(whole > 0 && never > 0, "whole {whole}, never {never}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let mut changes = node.changes().await.unwrap();
    let table = changes.create_table(events("t")).await.unwrap();
    changes.create_schema("s".to_owned()).await.unwrap();
    let refused = changes.create_table(events("t")).await.unwrap_err();
    assert!(matches!(refused, Error::TableExists(_)), "{refused:?}");
    // Nobody else sees the name, nor is kept from taking it.
    let other = node.create_table(events("t")).await.unwrap();
    let refused = changes.rebase().await.unwrap_err();
    assert!(matches!(refused, Error::TableExists(_)), "{refused:?}");
    let mut writes = node.begin();
    writes.append(&table, rows("a", 0..6)).await.unwrap();
    let refused = changes.commit(Some(writes)).await.unwrap_err();
    assert!(matches!(refused, Error::TableExists(_)), "{refused:?}");
    eventually("the shard is gone", async || node.shards().len() == 1).await;
    assert_eq!(read(&node, &other).await.len(), 0);
    assert!(node.catalog().schemas.is_empty());
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_follow_what_others_change_and_go_back_to_a_mark() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(real_disk(&dir)).await.unwrap();
    let t = node.create_table(events("t")).await.unwrap();
    insert(&node, &t, rows("a", 0..3)).await.unwrap();
    let mut changes = node.changes().await.unwrap();
    let altered = changes.alter_table(altered(&t)).unwrap();
    let mark = changes.mark();
    changes.drop_table(t.definition.id).unwrap();
    assert!(changes.catalog().tables.is_empty());
    let others = node.create_table(events("others")).await.unwrap();
    changes.rebase().await.unwrap();
    assert_eq!(changes.catalog().tables.keys().collect::<Vec<_>>(), [&others.definition.id]);
    changes.roll_back_to(mark);
    assert_eq!(changes.catalog().tables.len(), 2);

    // The transaction reads the rows as those of the table it has altered; others do not know of it.
    assert_eq!(node.snapshot(&altered).await.unwrap().shards[0].memory[0].batches[0].num_columns(), 5);
    assert_eq!(node.snapshot(&t).await.unwrap().shards[0].memory[0].batches[0].num_columns(), 4);
    changes.commit(None).await.unwrap();
    assert_eq!(read(&node, &find(&node, "u").unwrap()).await, once("a", 0..3));
    let refused = node.snapshot(&t).await.unwrap_err();
    assert!(matches!(refused, Error::SchemaChanged(_)), "{refused:?}");
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
    let create = async |view: View, replaces: Option<Arc<View>>| {
        let mut changes = node.changes().await?;
        changes.create_view(view, replaces, Vec::new()).await?;
        changes.commit(None).await
    };
    create(view("v", &[]), None).await.unwrap();
    let v = there("v");
    create(view("w", &[v.id]), None).await.unwrap();
    let w = there("w");

    // Both see the catalog as it was before either: whoever comes second would close the circle.
    let refused = create(view("v", &[w.id]), Some(v.clone())).await.unwrap_err();
    assert!(matches!(&refused, Error::CircularView(name) if name == "v"), "{refused:?}");
    let refused = create(view("v", &[v.id]), Some(v.clone())).await.unwrap_err();
    assert!(matches!(refused, Error::CircularView(_)), "{refused:?}");

    // What is to be replaced is another by now.
    let table = node.create_table(events("t")).await.unwrap();
    create(view("v", &[table.definition.id]), Some(v.clone())).await.unwrap();
    let refused = create(view("v", &[]), Some(v.clone())).await.unwrap_err();
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
        let mut changes = node.changes().await.unwrap();
        let reader = view(&format!("reads_{schema}"), &[table.definition.id]);
        changes.create_view(reader, None, Vec::new()).await.unwrap();
        changes.commit(None).await.unwrap();
    }
    let mut changes = node.changes().await.unwrap();
    let refused = changes.drop_schema(one.clone()).unwrap_err();
    assert!(matches!(refused, Error::SchemaNotEmpty { .. }), "{refused:?}");
    let dropped = changes.drop_schema_with_contents(one.clone()).unwrap();
    assert_eq!(dropped, [format!("view reads_{one}"), "table t".to_owned()]);
    changes.commit(None).await.unwrap();
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
