//! A plain scan: the ids of a table from its snapshot, segments and memtables, without DataFusion.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, UInt64Type};
use cluster::{Node, Table, TableSnapshot};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use storage::SequenceSet;
use storage::snapshot::MemorySplit;

use crate::expectation::Found;

/// Reads the column `id` of every public table through a linearizable snapshot.
///
/// # Errors
/// What could not be read, in words.
pub async fn read_all(node: &Arc<Node>) -> Result<Found, String> {
    let catalog = node.catalog_linearizable().await.map_err(|e| e.to_string())?;
    let mut found = Found::new();
    for table in catalog.tables.values() {
        found.insert(table.definition.name.clone(), read(node, table).await?);
    }
    Ok(found)
}

/// Reads the column `id` of one table.
///
/// # Errors
/// What could not be read, in words.
pub async fn read(node: &Arc<Node>, table: &Arc<Table>) -> Result<Vec<i64>, String> {
    let snapshot = node.snapshot(table).await.map_err(|e| e.to_string())?;
    ids(node, &snapshot).await
}

/// The column `id` of what a snapshot holds. A segment that is not what its manifest says is fetched from another node first, as a query does.
///
/// # Errors
/// What could not be read, in words.
pub async fn ids(node: &Arc<Node>, snapshot: &TableSnapshot) -> Result<Vec<i64>, String> {
    let store = node.segment_store();
    let mut ids = Vec::new();
    for shard in &snapshot.shards {
        for split in &shard.memory {
            let deleted = shard.deleted.get(&split.split);
            split.batches.iter().try_for_each(|batch| take_ids(batch, deleted, 0, &mut ids))?;
        }
        for segment in &shard.segments {
            let name = &segment.meta.name;
            let failed = |e: &dyn std::fmt::Display| format!("segment {name}: {e}");
            store.verify(&segment.meta).await.map_err(|e| failed(&e))?;
            let object = store.get(&Path::from(name.as_str())).await.map_err(|e| failed(&e))?;
            let bytes = object.bytes().await.map_err(|e| failed(&e))?;
            storage::encode::verify_segment(&segment.meta, &bytes).map_err(|e| failed(&e))?;
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| failed(&e))?;
            for batch in reader.build().map_err(|e| failed(&e))? {
                let deleted = shard.deleted.get(&segment.meta.split);
                take_ids(&batch.map_err(|e| failed(&e))?, deleted, segment.meta.sequence_base, &mut ids)?;
            }
        }
    }
    Ok(ids)
}

fn take_ids(
    batch: &RecordBatch,
    deleted: Option<&Arc<SequenceSet>>,
    sequence_base: u64,
    ids: &mut Vec<i64>,
) -> Result<(), String> {
    let kept = deleted.map(|deleted| deleted.filter(batch, sequence_base)).transpose().map_err(|e| e.to_string())?;
    let batch = kept.as_ref().unwrap_or(batch);
    let column = batch.column_by_name("id").ok_or("a batch has no column \"id\"")?;
    ids.extend(column.as_primitive::<Int64Type>().values());
    Ok(())
}

/// Id and sequence number of each row of a split in memory that is not deleted.
///
/// # Errors
/// A batch without the columns of the simulation's tables.
pub fn numbered(split: &MemorySplit, deleted: Option<&Arc<SequenceSet>>) -> Result<Vec<(i64, u64)>, String> {
    let mut rows = Vec::new();
    for batch in &split.batches {
        let column = |name: &str| batch.column_by_name(name).ok_or(format!("a batch has no column \"{name}\""));
        let (ids, numbers) = (column("id")?, column("__seq")?);
        let pairs = ids.as_primitive::<Int64Type>().values().iter().zip(numbers.as_primitive::<UInt64Type>().values());
        let there = |number: u64| deleted.is_none_or(|deleted| !deleted.contains(number));
        rows.extend(pairs.map(|(id, number)| (*id, *number)).filter(|(_, number)| there(*number)));
    }
    Ok(rows)
}
