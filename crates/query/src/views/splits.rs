//! `annal.splits`: each split that has rows, with its window and where the rows are.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use cluster::TableSnapshot;
use datafusion::error::Result;
use event::split::window_of;
use event::{ShardId, SplitId, TableDefinition};

use super::columns::{self, batch, bigint, bigints, text, texts, time, times};

pub(super) fn schema() -> SchemaRef {
    columns::schema(vec![
        text("table_schema"),
        text("table_name"),
        bigint("shard"),
        bigint("split"),
        time("window_start"),
        time("window_end"),
        text("state"),
        bigint("rows"),
        bigint("memory_rows"),
        bigint("memory_bytes"),
        bigint("segments"),
        bigint("segment_bytes"),
    ])
}

#[derive(Default)]
struct Split {
    memory_rows: u64,
    open_rows: u64,
    memory_bytes: u64,
    segments: u64,
    segment_rows: u64,
    segment_bytes: u64,
}

impl Split {
    /// Rows that no seal has frozen make it open again, whatever lies in segments; frozen ones are being written.
    fn state(&self) -> &'static str {
        match (self.open_rows, self.memory_rows) {
            (0, 0) => "flushed",
            (0, _) => "sealed",
            _ => "open",
        }
    }
}

fn splits(snapshot: &TableSnapshot) -> BTreeMap<(ShardId, SplitId), Split> {
    let mut splits: BTreeMap<(ShardId, SplitId), Split> = BTreeMap::new();
    for shard in &snapshot.shards {
        for memory in &shard.memory {
            let split = splits.entry((shard.shard, memory.split)).or_default();
            split.memory_rows += memory.rows;
            split.open_rows += memory.open_rows;
            split.memory_bytes += memory.batches.iter().map(|batch| batch.get_array_memory_size() as u64).sum::<u64>();
        }
        for segment in &shard.segments {
            let split = splits.entry((shard.shard, segment.meta.split)).or_default();
            split.segments += 1;
            split.segment_rows += segment.meta.rows;
            split.segment_bytes += segment.meta.bytes;
        }
    }
    splits
}

pub(super) fn rows(snapshots: &[TableSnapshot]) -> Result<RecordBatch> {
    let all: Vec<(&TableDefinition, (ShardId, SplitId), Split)> = snapshots
        .iter()
        .flat_map(|snapshot| splits(snapshot).into_iter().map(|(key, split)| (&*snapshot.table.definition, key, split)))
        .collect();
    let number = |f: &dyn Fn(&Split) -> u64| bigints(all.iter().map(|(_, _, split)| Some(f(split))));
    let window = |(definition, (_, split), _): &(&TableDefinition, (ShardId, SplitId), Split)| {
        definition.event().map(|event| window_of(*split, event.split_interval_us))
    };
    let columns = vec![
        texts(all.iter().map(|(definition, ..)| Some(&definition.namespace))),
        texts(all.iter().map(|(definition, ..)| Some(&definition.name))),
        bigints(all.iter().map(|(_, (shard, _), _)| Some(shard.0))),
        Arc::new(all.iter().map(|(_, (_, split), _)| Some(split.0)).collect::<Int64Array>()),
        times(all.iter().map(|row| window(row).map(|(start, _)| start))),
        times(all.iter().map(|row| window(row).map(|(_, end)| end))),
        texts(all.iter().map(|(_, _, split)| Some(split.state()))),
        number(&|split| split.memory_rows + split.segment_rows),
        number(&|split| split.memory_rows),
        number(&|split| split.memory_bytes),
        number(&|split| split.segments),
        number(&|split| split.segment_bytes),
    ];
    batch(schema(), columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_is_open_until_all_its_rows_are_frozen_and_sealed_until_they_lie_in_segments() {
        let split = |open_rows, memory_rows| Split { open_rows, memory_rows, segments: 1, ..Split::default() };
        assert_eq!(split(1, 3).state(), "open");
        assert_eq!(split(0, 3).state(), "sealed");
        assert_eq!(split(0, 0).state(), "flushed");
    }
}
