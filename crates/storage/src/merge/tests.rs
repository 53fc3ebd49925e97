//! Merged segments against one that was written from all rows at once.

use event::{ColumnId, ShardId, SplitId, TableKind};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;

use super::*;
use crate::SimulatedDisk;
use crate::encode::stored::stored;
use crate::encode::{encode_segment, verify_segment};
use crate::objects::DiskObjectStore;
use crate::segment::{Segment, StatisticsValue};
use crate::sequence::with_sequence;
use crate::testing::{INTERVAL_US, any_rows, every_type_table, lines, small_rows, small_table, table};

fn place(name: &str) -> SegmentPlace {
    SegmentPlace { shard: ShardId(3), split: SplitId(0), seal: None, name: format!("7/3/0/{name}.parquet") }
}

async fn store() -> (Arc<SimulatedDisk>, SegmentStore) {
    let disk = Arc::new(SimulatedDisk::new(1));
    (disk.clone(), DiskObjectStore::open(disk, "segments", "tmp").await.unwrap().into())
}

/// Puts a segment of the rows, numbered from `first`; staged segments get their base from the manifest.
async fn put(store: &SegmentStore, table: &TableDefinition, rows: &RecordBatch, first: u64, base: u64) -> SegmentRef {
    let rows = with_sequence(&sequenced_schema(table), rows, first, 0).unwrap();
    let (mut meta, bytes) = encode_segment(table, &[rows], place(&format!("{base}-{first}"))).unwrap();
    meta.sequence_base = base;
    store.put(&Path::from(meta.name.as_str()), PutPayload::from(bytes)).await.unwrap();
    Segment::unpinned(meta)
}

async fn merge(
    store: &SegmentStore,
    table: &TableDefinition,
    inputs: &[SegmentRef],
) -> Result<Option<(SegmentMeta, Bytes)>, Error> {
    let nothing = Arc::new(SequenceSet::default());
    Ok(merge_segments(store, table, inputs, &nothing, place("merged"), &Semaphore::new(1)).await?.0)
}

fn read(bytes: &Bytes) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap().with_batch_size(1 << 20);
    reader.build().unwrap().collect::<Result<_, _>>().unwrap()
}

fn block_on<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// The sum of floats depends on the order they are added in.
fn close(a: &Option<StatisticsValue>, b: &Option<StatisticsValue>) -> bool {
    match (a, b) {
        (Some(StatisticsValue::FloatBits(a)), Some(StatisticsValue::FloatBits(b))) => {
            let (a, b) = (f64::from_bits(*a), f64::from_bits(*b));
            !a.is_finite() || !b.is_finite() || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e300)
        }
        (a, b) => a == b,
    }
}

/// Contents, order, row count and statistics of a merge are those of a segment written from all rows at once.
fn check(table: &TableDefinition, parts: &[RecordBatch]) {
    let (_, store) = block_on(store());
    let schema = sequenced_schema(table);
    let (mut inputs, mut all) = (Vec::new(), Vec::new());
    for (n, rows) in (1..).zip(parts).filter(|(_, rows)| rows.num_rows() > 0) {
        // Every other one as a bulk statement leaves it: numbered from 0, with a base.
        let (first, base) = if n % 2 == 0 { (0, n << 24) } else { (n << 24, 0) };
        inputs.push(block_on(put(&store, table, rows, first, base)));
        all.push(with_sequence(&schema, rows, n << 24, 0).unwrap());
    }
    let Some((meta, bytes)) = block_on(merge(&store, table, &inputs)).unwrap() else {
        assert!(all.is_empty());
        return;
    };
    verify_segment(&meta, &bytes).unwrap();
    let (expected, expected_bytes) = encode_segment(table, &all, place("merged")).unwrap();
    let (found, wanted) = (read(&bytes), read(&expected_bytes));
    let kept: Vec<_> = all.iter().map(|rows| stored(rows).unwrap()).collect();
    assert!(lines(&found, 0) == lines(&kept, 0), "the same rows");
    let order = |batches: &[RecordBatch]| -> Vec<String> {
        batches
            .iter()
            .flat_map(|batch| (0..batch.num_rows()).flat_map(|row| lines([&batch.slice(row, 1)], 0)))
            .collect()
    };
    assert!(order(&found) == order(&wanted), "in the same order");
    assert_eq!(
        (meta.rows, meta.time_min_us, meta.time_max_us),
        (expected.rows, expected.time_min_us, expected.time_max_us)
    );
    for (found, wanted) in meta.columns.iter().zip(&expected.columns) {
        assert_eq!((found.column, found.nulls, found.nans), (wanted.column, wanted.nulls, wanted.nans));
        // Long text gives no bounds; a part without them leaves the whole without them.
        assert!(found.min.is_none() || found.min == wanted.min, "{found:?} {wanted:?}");
        assert!(found.max.is_none() || found.max == wanted.max, "{found:?} {wanted:?}");
        assert!(close(&found.sum, &wanted.sum), "{found:?} {wanted:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_merge_holds_what_its_inputs_held(parts in prop::collection::vec(any_rows(every_type_table(), 60, Some(0..INTERVAL_US)), 1..7)) {
        check(&every_type_table(), &parts);
    }
}

#[test]
fn long_runs_and_interleaved_rows_of_many_batches_are_merged() {
    let columns = small_table(1);
    let table = TableDefinition {
        kind: TableKind::Event(event::EventOptions { split_interval_us: 1 << 40, ..columns.event().unwrap().clone() }),
        ..columns
    };
    let every = |step: usize, from: i64| small_rows(&(from..60_000).step_by(step).collect::<Vec<_>>());
    check(&table, &[every(1, 0), every(2, 1), every(50, 0), every(1, 59_000)]);
}

#[test]
fn reference_tables_are_merged_by_commit_order() {
    let table = table(9, &[("k", event::ColumnType::BigInt, true)], TableKind::Reference);
    let rows = |values: &[i64]| {
        let values: ArrayRef = Arc::new(arrow::array::Int64Array::from(values.to_vec()));
        RecordBatch::try_new(table.arrow_schema(), vec![values]).unwrap()
    };
    check(&table, &[rows(&[5, 4]), rows(&[3]), rows(&[9, 9, 1])]);
}

/// An older input lacks a column and has one that was dropped, another is wider now.
#[test]
fn columns_are_matched_by_id() {
    let old = small_table(1);
    let mut new = old.clone();
    new.version = event::SchemaVersion(2);
    new.columns[2] = event::Column { id: ColumnId(50), name: "value".into(), ..old.columns[2].clone() };
    new.columns.push(event::Column {
        name: "renamed".into(),
        column_type: event::ColumnType::Double,
        ..old.columns[2].clone()
    });
    let (_, store) = block_on(store());
    let inputs = [block_on(put(&store, &old, &small_rows(&[1, 5]), 1 << 24, 0))];
    let (meta, bytes) = block_on(merge(&store, &new, &inputs)).unwrap().unwrap();
    let rows = read(&bytes);
    assert_eq!(lines(&rows, 0), ["1|h1|NULL|1.0|16777216", "5|h2|NULL|5.0|16777217"]);
    assert_eq!(meta.version, event::SchemaVersion(2));
    assert_eq!(meta.columns.iter().map(|column| column.column.0).collect::<Vec<_>>(), [1, 2, 50, 3]);
    assert_eq!(meta.columns[2].nulls, 2);
}

#[test]
fn a_damaged_input_is_named_and_never_merged() {
    let table = small_table(1);
    let (disk, store) = block_on(store());
    let inputs = [
        block_on(put(&store, &table, &small_rows(&[1, 5]), 1 << 24, 0)),
        block_on(put(&store, &table, &small_rows(&[2, 3]), 2 << 24, 0)),
    ];
    let name = format!("segments/{}", inputs[1].meta.name);
    for at in (0..inputs[1].meta.bytes).step_by(7) {
        disk.flip_bit(&name, at, 3).unwrap();
        let error = block_on(merge(&store, &table, &inputs)).unwrap_err();
        assert!(matches!(&error, Error::Corrupt { file, .. } if *file == name), "byte {at}: {error}");
        disk.flip_bit(&name, at, 3).unwrap();
    }
    assert!(block_on(merge(&store, &table, &inputs)).unwrap().is_some());
    block_on(store.delete(&Path::from(inputs[0].meta.name.as_str()))).unwrap();
    let error = block_on(merge(&store, &table, &inputs)).unwrap_err().to_string();
    assert!(error.contains(&inputs[0].meta.name) && error.contains("missing"), "{error}");
}
