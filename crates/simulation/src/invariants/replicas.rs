//! Replicas that have applied the same entries have the same state.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, UInt64Type};
use cluster::TableSnapshot;

/// All of a shard that must be equal on every replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Names, checksums, rows and first sequence numbers of the segments.
    segments: BTreeSet<(String, u32, u64, u64)>,
    /// Split, id and sequence number of each row in memory.
    memory: BTreeSet<(i64, i64, u64)>,
    /// Rows deleted, by split.
    deleted: BTreeMap<i64, String>,
}

/// The fingerprint of each shard of a table, in order.
///
/// # Errors
/// A batch without the columns of the simulation's tables.
pub fn fingerprint(snapshot: &TableSnapshot) -> Result<Vec<Fingerprint>, String> {
    let mut prints = Vec::new();
    for shard in &snapshot.shards {
        let mut print = Fingerprint::default();
        for segment in &shard.segments {
            let meta = &segment.meta;
            print.segments.insert((meta.name.clone(), meta.checksum, meta.rows, meta.sequence_base));
        }
        for split in &shard.memory {
            for batch in &split.batches {
                let column = |name: &str| batch.column_by_name(name).ok_or(format!("a batch has no column \"{name}\""));
                let (ids, numbers) = (column("id")?, column("__seq")?);
                let ids = ids.as_primitive::<Int64Type>().values();
                let numbers = numbers.as_primitive::<UInt64Type>().values();
                print.memory.extend(ids.iter().zip(numbers).map(|(id, number)| (split.split.0, *id, *number)));
            }
        }
        print.deleted = shard.deleted.iter().map(|(split, rows)| (split.0, format!("{rows:?}"))).collect();
        prints.push(print);
    }
    Ok(prints)
}

/// For any two replicas of a shard with the same applied index: their manifests name the same segments with the same checksums and sequence
/// numbers, and their memtables hold the same rows with the same sequence numbers.
///
/// # Errors
/// The violation in words.
pub fn check(table: &str, one: &[Fingerprint], other: &[Fingerprint]) -> Result<(), String> {
    for (one, other) in one.iter().zip(other) {
        if one.segments != other.segments {
            let differing: Vec<_> = one.segments.symmetric_difference(&other.segments).collect();
            return Err(format!("replicas of table \"{table}\" differ in segments: {differing:?}"));
        }
        if one.memory != other.memory {
            let differing: Vec<_> = one.memory.symmetric_difference(&other.memory).take(4).collect();
            return Err(format!("replicas of table \"{table}\" differ in rows in memory: {differing:?}"));
        }
        if one.deleted != other.deleted {
            return Err(format!("replicas of table \"{table}\" differ in deleted rows"));
        }
    }
    if one.len() == other.len() { Ok(()) } else { Err(format!("replicas of table \"{table}\" differ in shards")) }
}
