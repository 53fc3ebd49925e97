//! `annal.tables`: what each table is and how much it holds.

use std::sync::Arc;

use arrow::array::IntervalMonthDayNanoArray;
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, IntervalUnit, SchemaRef};
use arrow::record_batch::RecordBatch;
use cluster::TableSnapshot;
use datafusion::error::Result;
use event::{TableDefinition, TableKind};

use super::columns::{self, batch, bigint, bigints, text, texts};

const DAY_US: i64 = 86_400_000_000;

pub(super) fn schema() -> SchemaRef {
    columns::schema(vec![
        text("table_schema"),
        text("table_name"),
        bigint("table_id"),
        bigint("version"),
        text("kind"),
        text("time_column"),
        text("series"),
        Field::new("split_interval", DataType::Interval(IntervalUnit::MonthDayNano), true),
        text("compression"),
        bigint("shards"),
        bigint("rows"),
        bigint("memory_rows"),
        bigint("segments"),
        bigint("segment_bytes"),
        Field::new("retention", DataType::Interval(IntervalUnit::MonthDayNano), true),
        bigint("replicas"),
    ])
}

pub(super) fn rows(snapshots: &[TableSnapshot]) -> Result<RecordBatch> {
    let definition = |snapshot: &'_ TableSnapshot| Arc::clone(&snapshot.table.definition);
    let of = |f: &dyn Fn(&TableDefinition) -> Option<String>| texts(snapshots.iter().map(|s| f(&definition(s))));
    let sum = |f: &dyn Fn(&storage::ShardSnapshot) -> u64| {
        bigints(snapshots.iter().map(|snapshot| Some(snapshot.shards.iter().map(f).sum())))
    };
    let memory_rows = |shard: &storage::ShardSnapshot| shard.memory.iter().map(|memory| memory.rows).sum::<u64>();
    let segment_rows = |shard: &storage::ShardSnapshot| shard.segments.iter().map(|s| s.meta.rows).sum::<u64>();
    let intervals = snapshots.iter().map(|s| definition(s).event().map(|event| interval(event.split_interval_us)));
    let retention = |s: &TableSnapshot| definition(s).event().and_then(|event| event.retention_us).map(interval);
    let retentions = snapshots.iter().map(retention);
    let columns = vec![
        of(&|d| Some(d.namespace.clone())),
        of(&|d| Some(d.name.clone())),
        bigints(snapshots.iter().map(|s| Some(definition(s).id.0))),
        bigints(snapshots.iter().map(|s| Some(u64::from(definition(s).version.0)))),
        of(&|d| Some(kind(&d.kind).to_owned())),
        of(&|d| d.event().map(|event| d.columns[event.time_column].name.clone())),
        of(&series),
        Arc::new(intervals.collect::<IntervalMonthDayNanoArray>()),
        of(&|d| Some(format!("{:?}", d.compression).to_lowercase())),
        bigints(snapshots.iter().map(|s| Some(s.shards.len() as u64))),
        sum(&|shard| memory_rows(shard) + segment_rows(shard)),
        sum(&memory_rows),
        sum(&|shard| shard.segments.len() as u64),
        sum(&|shard| shard.segments.iter().map(|s| s.meta.bytes).sum()),
        Arc::new(retentions.collect::<IntervalMonthDayNanoArray>()),
        bigints(snapshots.iter().map(|s| Some(definition(s).replicas.count() as u64))),
    ];
    batch(schema(), columns)
}

fn kind(kind: &TableKind) -> &'static str {
    match kind {
        TableKind::Event(_) => "event",
        TableKind::Reference => "reference",
    }
}

fn series(definition: &TableDefinition) -> Option<String> {
    let positions = &definition.event()?.series;
    let names: Vec<&str> = positions.iter().map(|&position| definition.columns[position].name.as_str()).collect();
    Some(names.join(", "))
}

/// Whole days as days, the rest as time, as it was written in all likelihood.
fn interval(us: i64) -> IntervalMonthDayNano {
    let days = i32::try_from(us / DAY_US).unwrap_or(i32::MAX);
    IntervalMonthDayNano::new(0, days, (us % DAY_US).saturating_mul(1000))
}
