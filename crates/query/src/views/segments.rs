//! `annal.segments`: each Parquet object, as the manifest describes it.

use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use cluster::TableSnapshot;
use datafusion::error::Result;
use event::TableDefinition;
use storage::SegmentMeta;

use super::columns::{self, batch, bigint, bigints, text, texts, time, times};

pub(super) fn schema() -> SchemaRef {
    columns::schema(vec![
        text("path"),
        text("table_schema"),
        text("table_name"),
        bigint("shard"),
        bigint("split"),
        bigint("version"),
        bigint("rows"),
        bigint("bytes"),
        time("time_min"),
        time("time_max"),
        text("checksum"),
    ])
}

/// `path` turns a segment's name into where it lies.
pub(super) fn rows(snapshots: &[TableSnapshot], path: impl Fn(&str) -> String) -> Result<RecordBatch> {
    let mut all: Vec<(&TableDefinition, &SegmentMeta)> = snapshots
        .iter()
        .flat_map(|snapshot| snapshot.shards.iter().map(|shard| (&*snapshot.table.definition, shard)))
        .flat_map(|(definition, shard)| shard.segments.iter().map(move |segment| (definition, &segment.meta)))
        .collect();
    all.sort_by(|(_, a), (_, b)| (a.table, a.shard, a.split, &a.name).cmp(&(b.table, b.shard, b.split, &b.name)));
    let number = |f: &dyn Fn(&SegmentMeta) -> u64| bigints(all.iter().map(|(_, meta)| Some(f(meta))));
    let columns = vec![
        texts(all.iter().map(|(_, meta)| Some(path(&meta.name)))),
        texts(all.iter().map(|(definition, _)| Some(&definition.namespace))),
        texts(all.iter().map(|(definition, _)| Some(&definition.name))),
        number(&|meta| meta.shard.0),
        Arc::new(all.iter().map(|(_, meta)| Some(meta.split.0)).collect::<Int64Array>()),
        number(&|meta| u64::from(meta.version.0)),
        number(&|meta| meta.rows),
        number(&|meta| meta.bytes),
        times(all.iter().map(|(_, meta)| meta.time_min_us)),
        times(all.iter().map(|(_, meta)| meta.time_max_us)),
        texts(all.iter().map(|(_, meta)| Some(format!("{:08x}", meta.checksum)))),
    ];
    batch(schema(), columns)
}
