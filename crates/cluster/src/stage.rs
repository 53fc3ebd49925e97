//! Segments that no manifest names yet: put by a bulk statement, deleted with it unless it commits.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use event::{ShardId, SplitId, StatementId, TableDefinition};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use storage::encode::{SegmentPlace, encode_segment};
use storage::objects::SegmentStore;
use storage::routing::split_rows;
use storage::segment::SegmentRef;
use storage::sequence::{sequenced_schema, with_sequence};
use tokio::runtime::Handle;

use crate::error::Error;
use crate::node::{DataGroup, Node};
use crate::segments::store_error;

/// Rows of one shard that shall become staged segments.
pub(crate) struct StagePart {
    pub(crate) table: Arc<TableDefinition>,
    pub(crate) shard: ShardId,
    /// Its group.
    pub(crate) data: Arc<DataGroup>,
    pub(crate) batches: Vec<RecordBatch>,
    /// The number of the first row among the statement's rows of this shard.
    pub(crate) first_row: u64,
}

/// A staged segment. Dropping it deletes the object, unless [`StagedSegment::keep`] was called.
pub(crate) struct StagedSegment {
    pub(crate) segment: SegmentRef,
    store: SegmentStore,
    runtime: Handle,
    kept: bool,
}

impl StagedSegment {
    /// An object about to be put. `runtime` runs its deletion.
    pub(crate) fn new(segment: SegmentRef, store: SegmentStore, runtime: Handle) -> StagedSegment {
        StagedSegment { segment, store, runtime, kept: false }
    }

    /// The object is the manifest's now, or may be.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for StagedSegment {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let (segment, store) = (self.segment.clone(), self.store.clone());
        self.runtime.spawn(async move {
            let name = segment.meta.name.as_str();
            match store.delete(&Path::from(name)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                // The next collection of orphans finds it.
                Err(error) => tracing::warn!(object = name, %error, "could not delete a staged object"),
            }
            drop(segment);
        });
    }
}

/// Sorts and encodes rows per split and puts the segments; durable when this returns. Runs on the encode runtime.
pub(crate) async fn stage(
    node: Arc<Node>,
    statement: StatementId,
    parts: Vec<StagePart>,
) -> Result<BTreeMap<ShardId, Vec<StagedSegment>>, Error> {
    let mut staged: BTreeMap<ShardId, Vec<StagedSegment>> = BTreeMap::new();
    let mut objects = Vec::new();
    for part in parts {
        for (split, batches) in sequence_and_split(&part)? {
            let _turn = node.encoder.acquire().await.expect("the semaphore is never closed");
            let table = part.table.id;
            let name = format!("{table}/{}/{split}/bulk-{statement}-{}.parquet", part.shard, node.next_object());
            let place = SegmentPlace { shard: part.shard, split, seal: None, name };
            let (meta, bytes) = encode_segment(&part.table, &batches, place)?;
            objects.push((Path::from(meta.name.as_str()), PutPayload::from(bytes)));
            node.counters.count_segment(meta.bytes);
            let (segment, store) = (part.data.reader().pin(meta), node.store.clone());
            staged.entry(part.shard).or_default().push(StagedSegment::new(segment, store, node.consensus.clone()));
        }
    }
    node.store.put_many(objects).await.map_err(store_error)?;
    Ok(staged)
}

/// Numbers the rows in the order they were written and sorts them into splits.
fn sequence_and_split(part: &StagePart) -> Result<BTreeMap<SplitId, Vec<RecordBatch>>, Error> {
    let schema = sequenced_schema(&part.table);
    let mut splits: BTreeMap<SplitId, Vec<RecordBatch>> = BTreeMap::new();
    let mut row = part.first_row;
    for batch in &part.batches {
        let sequenced = with_sequence(&schema, batch, 0, row).map_err(|e| storage::Error::Columns(e.to_string()))?;
        row += batch.num_rows() as u64;
        for rows in split_rows(&part.table, &sequenced)? {
            splits.entry(rows.split).or_default().push(rows.rows);
        }
    }
    Ok(splits)
}
