//! `annal.shards`: where each shard lives and how far its group is.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use cluster::{Catalog, ShardStatus};
use datafusion::error::Result;
use event::TableDefinition;

use super::columns::{self, batch, bigint, bigints, text, texts};

pub(super) fn schema() -> SchemaRef {
    columns::schema(vec![
        bigint("shard"),
        text("table_schema"),
        text("table_name"),
        bigint("group_id"),
        bigint("leader"),
        bigint("term"),
        bigint("committed"),
        bigint("applied"),
        bigint("lag"),
    ])
}

pub(super) fn rows(catalog: &Catalog, shards: &[ShardStatus]) -> Result<RecordBatch> {
    let table = |status: &ShardStatus| catalog.tables.get(&status.table);
    let name =
        |f: &dyn Fn(&TableDefinition) -> String| texts(shards.iter().map(|s| table(s).map(|t| f(&t.definition))));
    let number = |f: &dyn Fn(&ShardStatus) -> Option<u64>| bigints(shards.iter().map(f));
    let columns = vec![
        number(&|s| Some(s.shard.0)),
        name(&|d| d.namespace.clone()),
        name(&|d| d.name.clone()),
        number(&|s| Some(s.group.0)),
        number(&|s| s.leader.map(|leader| leader.0)),
        number(&|s| Some(s.term)),
        number(&|s| Some(s.committed)),
        number(&|s| Some(s.applied)),
        number(&|s| Some(s.committed.saturating_sub(s.applied))),
    ];
    batch(schema(), columns)
}
