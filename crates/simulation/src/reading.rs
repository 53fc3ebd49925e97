//! A plain scan: the ids of a table from its snapshot, segments and memtables, without DataFusion.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use cluster::{Node, Table};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

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
    let store = node.segment_store();
    let mut ids = Vec::new();
    for shard in &snapshot.shards {
        for split in &shard.memory {
            split.batches.iter().try_for_each(|batch| take_ids(batch, &mut ids))?;
        }
        for segment in &shard.segments {
            let name = &segment.meta.name;
            let failed = |e: &dyn std::fmt::Display| format!("segment {name}: {e}");
            let object = store.get(&Path::from(name.as_str())).await.map_err(|e| failed(&e))?;
            let bytes = object.bytes().await.map_err(|e| failed(&e))?;
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| failed(&e))?;
            for batch in reader.build().map_err(|e| failed(&e))? {
                take_ids(&batch.map_err(|e| failed(&e))?, &mut ids)?;
            }
        }
    }
    Ok(ids)
}

fn take_ids(batch: &RecordBatch, ids: &mut Vec<i64>) -> Result<(), String> {
    let column = batch.column_by_name("id").ok_or("a batch has no column \"id\"")?;
    ids.extend(column.as_primitive::<Int64Type>().values());
    Ok(())
}
