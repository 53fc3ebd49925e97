//! A group with its log, its objects and a flusher, driven by hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, UInt64Array};
use arrow::datatypes::UInt64Type;
use bytes::Bytes;
use event::{
    Column, ColumnId, ColumnType, GroupId, NodeId, SchemaVersion, ShardId, StatementId, TableDefinition, TableKind,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::command::{Command, Entry, Install, Replace, SchemaChange, Statement};
use crate::encode::{SegmentPlace, encode_segment, verify_segment};
use crate::routing::split_rows;
use crate::segment::SegmentMeta;
use crate::sequence::{sequenced_schema, with_sequence};
use crate::shards::state::adapt_rows;
use crate::shards::{Outcome, Shards, ShardsReader};
use crate::testing::{lines, small_rows, small_table, table};

/// The table of a shard at a version: [`small_table`] with `version - 1` further nullable columns.
pub(super) fn versioned(id: u64, version: u32) -> TableDefinition {
    let mut table = small_table(id);
    table.version = SchemaVersion(version);
    table.columns.extend((1..version).map(|n| Column {
        identity: None,
        modifier: None,
        required: false,
        initial: None,
        stored: None,
        id: ColumnId(100 + n),
        name: format!("extra{n}"),
        column_type: ColumnType::Double,
        nullable: true,
        default: None,
    }));
    table
}

/// Makes shard 9 with a reference table of one column, and gives what appends a key to it.
pub(super) fn keyed(world: &mut World) -> impl Fn(i64) -> Command + use<> {
    let definition = Arc::new(table(9, &[("k", ColumnType::BigInt, false)], TableKind::Reference));
    world.run(vec![Command::Schema(SchemaChange::Put { shard: ShardId(9), table: Arc::clone(&definition) })]);
    move |key: i64| {
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![key]));
        let rows = RecordBatch::try_new(definition.arrow_schema(), vec![keys]).unwrap();
        Command::Append { shard: ShardId(9), version: SchemaVersion(1), rows }
    }
}

/// Rows at `times` of a shard's table at a version; further columns hold half the time.
pub(super) fn rows(version: u32, times: &[i64]) -> RecordBatch {
    let mut columns: Vec<ArrayRef> = small_rows(times).columns().to_vec();
    let halves: ArrayRef = Arc::new(Float64Array::from_iter_values(times.iter().map(|time| *time as f64 / 2.0)));
    columns.extend((1..version).map(|_| Arc::clone(&halves)));
    RecordBatch::try_new(versioned(1, version).arrow_schema(), columns).unwrap()
}

pub(super) fn put(shard: u64, version: u32) -> Vec<Command> {
    let table = Arc::new(versioned(shard, version));
    vec![Command::Schema(SchemaChange::Put { shard: ShardId(shard), table })]
}

pub(super) fn append(shard: u64, version: u32, times: &[i64]) -> Vec<Command> {
    vec![Command::Append { shard: ShardId(shard), version: SchemaVersion(version), rows: rows(version, times) }]
}

/// Stages the rows as a bulk statement does.
pub(super) fn bulk(world: &mut World, shard: u64, version: u32, times: &[i64]) -> Vec<Command> {
    let table = versioned(shard, version);
    let rows = with_sequence(&sequenced_schema(&table), &rows(version, times), 0, 0).unwrap();
    let parts = split_rows(&table, &rows).unwrap();
    let segments = parts.into_iter().map(|part| world.encode(&table, shard, part.split, None, &[part.rows]));
    vec![Command::Install(Install { seal: None, segments: segments.collect() })]
}

pub(super) struct World {
    pub(super) shards: Shards,
    /// Bytes of the entry at each index, from 1.
    pub(super) log: Vec<Bytes>,
    /// The rows of each object, read back from its bytes.
    pub(super) objects: Objects,
}

pub(super) type Objects = BTreeMap<String, Vec<RecordBatch>>;

impl World {
    pub(super) fn new() -> Self {
        Self { shards: Shards::new(GroupId(1)), log: Vec::new(), objects: BTreeMap::new() }
    }

    pub(super) fn reader(&self) -> ShardsReader {
        self.shards.reader()
    }

    /// Applies an entry with one statement. Its time is its index.
    pub(super) fn run(&mut self, commands: Vec<Command>) -> Outcome {
        self.run_entry(vec![commands]).remove(0)
    }

    pub(super) fn run_entry(&mut self, statements: Vec<Vec<Command>>) -> Vec<Outcome> {
        let index = self.log.len() as u64 + 1;
        let id = |counter| StatementId { node: NodeId(1), boot: 1, counter };
        let statements = statements
            .into_iter()
            .zip(index * 100..)
            .map(|(commands, n)| Statement { origin: event::Origin { id: id(n), settled: 0 }, commands })
            .collect();
        let bytes = Entry { time_us: index as i64, statements }.encode().unwrap();
        self.log.push(bytes.clone());
        self.shards.apply(index, &Entry::decode(&bytes).unwrap())
    }

    pub(super) fn seal(&mut self) {
        assert_eq!(self.run(vec![Command::Seal]), Outcome::Done { rows: 0 });
    }

    /// Encodes the oldest seal and installs it.
    pub(super) fn install(&mut self) -> Outcome {
        let commands = self.install_commands();
        self.run(commands)
    }

    /// Encodes the oldest seal.
    pub(super) fn install_commands(&mut self) -> Vec<Command> {
        let frozen = self.reader().frozen().unwrap();
        let seal = frozen.seal;
        let mut segments = Vec::new();
        for part in frozen.splits {
            segments.push(self.encode(&part.table, part.shard.0, part.memory.split, Some(seal), &part.memory.batches));
        }
        vec![Command::Install(Install { seal: Some(seal), segments })]
    }

    /// Merges segments of one split of a shard, if any has several; which ones depends on `pick`.
    pub(super) fn replace_commands(&mut self, shard: u64, version: u32, pick: usize) -> Option<Vec<Command>> {
        let (_, snapshot) = self.reader().snapshot(ShardId(shard))?;
        let mut splits: BTreeMap<event::SplitId, Vec<SegmentMeta>> = BTreeMap::new();
        for segment in &snapshot.segments {
            splits.entry(segment.meta.split).or_default().push(segment.meta.clone());
        }
        splits.retain(|_, segments| segments.len() > 1);
        let (split, mut inputs) = splits.into_iter().nth(pick % 3)?;
        inputs.rotate_left(pick % 2);
        inputs.truncate(2 + pick % 2);
        let table = versioned(shard, version);
        let mut rows = Vec::new();
        for meta in &inputs {
            let from = versioned(shard, meta.version.0);
            for batch in &self.objects[&meta.name] {
                let batch = adapt_rows(batch, &from, &table, &sequenced_schema(&table)).unwrap();
                let numbers = batch.column(table.columns.len()).as_primitive::<UInt64Type>();
                let numbers = numbers.values().iter().map(|number| number + meta.sequence_base);
                let mut columns = batch.columns().to_vec();
                *columns.last_mut().unwrap() = Arc::new(UInt64Array::from_iter_values(numbers));
                rows.push(RecordBatch::try_new(batch.schema(), columns).unwrap());
            }
        }
        let output = self.encode(&table, shard, split, None, &rows);
        let inputs = inputs.into_iter().map(|meta| meta.name).collect();
        Some(vec![Command::Replace(Replace {
            shard: ShardId(shard),
            split,
            inputs,
            outputs: vec![output],
            purged: crate::SequenceSet::default(),
        })])
    }

    fn encode(
        &mut self,
        table: &TableDefinition,
        shard: u64,
        split: event::SplitId,
        seal: Option<u64>,
        batches: &[RecordBatch],
    ) -> SegmentMeta {
        let name = format!("{}/{shard}/{split}/{}.parquet", table.id, self.objects.len());
        let place = SegmentPlace { shard: ShardId(shard), split, seal, name: name.clone() };
        let (meta, bytes) = encode_segment(table, batches, place).unwrap();
        verify_segment(&meta, &bytes).unwrap();
        let rows = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
        self.objects.insert(name, rows.collect::<Result<_, _>>().unwrap());
        meta
    }

    /// The rows of a shard as text, from memory and from its segments; `None` when there is no such shard.
    pub(super) fn contents(&self, shard: u64) -> Option<Vec<String>> {
        contents(&self.reader(), shard, &self.objects)
    }
}

/// See [`World::contents`].
pub(super) fn contents(reader: &ShardsReader, shard: u64, objects: &Objects) -> Option<Vec<String>> {
    let (table, snapshot) = reader.snapshot(ShardId(shard))?;
    let mut found = Vec::new();
    for segment in &snapshot.segments {
        let meta = &segment.meta;
        let from = if meta.table == table.id { versioned(shard, meta.version.0) } else { continue };
        for batch in &objects[&meta.name] {
            let batch = adapt_rows(batch, &from, &table, &sequenced_schema(&table)).unwrap();
            found.extend(lines([&batch], meta.sequence_base));
        }
    }
    for memory in &snapshot.memory {
        let rows: usize = memory.batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(memory.rows, rows as u64, "rows of split {}", memory.split);
        found.extend(lines(&memory.batches, 0));
    }
    found.sort();
    Some(found)
}
