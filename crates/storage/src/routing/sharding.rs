//! Which shard of its table each row belongs to: a hash of the columns that the table says.
//!
//! The hash is part of what a table is: rows of one key are looked for in one shard, whatever release has written them. So it is defined here,
//! byte by byte, and integers of all widths hash alike, because a column may be widened.

use arrow::array::{Array, AsArray, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use event::{ColumnType, TableDefinition};

use crate::Error;

/// Before the bytes of a value that is there, and in place of one that is not.
const VALUE: u8 = 1;
const NULL: u8 = 0;

/// Whether rows can be told apart by values of that type: those of which equal ones have equal bytes.
pub fn can_shard_by(column_type: ColumnType) -> bool {
    use ColumnType::{BigInt, Boolean, Date, Integer, Numeric, SmallInt, Text, Timestamp, TimestampTz, Uuid};
    matches!(
        column_type,
        SmallInt | Integer | BigInt | Boolean | Text | Uuid | Date | Timestamp | TimestampTz | Numeric { .. }
    )
}

/// Cuts a batch (the table's columns, and any after them) into the rows of each shard of its table, by their number from 0; shards without
/// rows are left out, and rows keep their order.
///
/// # Errors
/// [`Error::Columns`] when a column that says the shard is missing or of another type.
pub fn shard_rows(table: &TableDefinition, batch: &RecordBatch) -> Result<Vec<(usize, RecordBatch)>, Error> {
    let Some(sharding) = table.event().map(|options| &options.sharding).filter(|sharding| !sharding.is_single()) else {
        return Ok(vec![(0, batch.clone())]);
    };
    let by: Option<Vec<_>> = sharding.by.iter().map(|at| batch.columns().get(*at)).collect();
    let by = by.ok_or_else(|| Error::Columns(format!("rows of table \"{}\" lack columns", table.name)))?;
    let shards = shard_of(&by, batch.num_rows(), sharding.shards)?;
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); sharding.shards as usize];
    for (row, shard) in shards.into_iter().enumerate() {
        rows[shard].push(row as u32);
    }
    let mut parts = Vec::new();
    for (shard, rows) in rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
        let part = match rows.len() {
            all if all == batch.num_rows() => batch.clone(),
            _ => {
                let rows = UInt32Array::from(rows);
                take_record_batch(batch, &rows).map_err(|error| Error::Columns(error.to_string()))?
            }
        };
        parts.push((shard, part));
    }
    Ok(parts)
}

/// The shard of each of `rows` rows, of which `by` are the columns that say it.
///
/// # Errors
/// [`Error::Columns`] for a column of a type that says no shard, see [`can_shard_by`].
pub fn shard_of(by: &[&arrow::array::ArrayRef], rows: usize, shards: u32) -> Result<Vec<usize>, Error> {
    let mut hashes = vec![0; rows];
    for column in by {
        add(column, &mut hashes)?;
    }
    let shard = |hash: u32| ((u64::from(mix(hash)) * u64::from(shards)) >> u32::BITS) as usize;
    Ok(hashes.into_iter().map(shard).collect())
}

/// Adds a column to the hash of each row.
fn add(column: &dyn Array, hashes: &mut [u32]) -> Result<(), Error> {
    fn each<'a, V: AsRef<[u8]> + 'a>(values: impl Iterator<Item = Option<V>>, hashes: &mut [u32]) {
        for (hash, value) in hashes.iter_mut().zip(values) {
            *hash = match value {
                Some(value) => crc32c::crc32c_append(crc32c::crc32c_append(*hash, &[VALUE]), value.as_ref()),
                None => crc32c::crc32c_append(*hash, &[NULL]),
            };
        }
    }
    let numbers = |column: &dyn Array, hashes: &mut [u32]| {
        each(column.as_primitive::<Int64Type>().iter().map(|v| v.map(i64::to_le_bytes)), hashes);
    };
    match column.data_type() {
        DataType::Int64 => numbers(column, hashes),
        DataType::Int16 | DataType::Int32 => {
            let wide = cast(column, &DataType::Int64).map_err(|error| Error::Columns(error.to_string()))?;
            numbers(&wide, hashes);
        }
        DataType::Date32 => each(column.as_primitive::<Date32Type>().iter().map(|v| v.map(i32::to_le_bytes)), hashes),
        DataType::Timestamp(_, _) => match column.as_primitive_opt::<TimestampMicrosecondType>() {
            Some(times) => each(times.iter().map(|v| v.map(i64::to_le_bytes)), hashes),
            None => return Err(no_shard(column)),
        },
        DataType::Decimal128(_, _) => {
            each(column.as_primitive::<Decimal128Type>().iter().map(|v| v.map(i128::to_le_bytes)), hashes);
        }
        DataType::Boolean => each(column.as_boolean().iter().map(|v| v.map(|v| [u8::from(v)])), hashes),
        DataType::Utf8 => each(column.as_string::<i32>().iter(), hashes),
        DataType::FixedSizeBinary(_) => each(column.as_fixed_size_binary().iter(), hashes),
        _ => return Err(no_shard(column)),
    }
    // Where one column ends and the next begins is part of the hash: a text says its length.
    if column.data_type() == &DataType::Utf8 {
        let lengths = column.as_string::<i32>();
        for (row, hash) in hashes.iter_mut().enumerate() {
            *hash = crc32c::crc32c_append(*hash, &lengths.value_length(row).to_le_bytes());
        }
    }
    Ok(())
}

/// Spreads a checksum, whose high bits depend on few of its input's, over all bits (the finalizer of MurmurHash3).
fn mix(mut hash: u32) -> u32 {
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

fn no_shard(column: &dyn Array) -> Error {
    Error::Columns(format!("values of type {} say no shard", column.data_type()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int16Array, Int64Array, StringArray};
    use event::{Sharding, TableKind};

    use super::*;
    use crate::testing::{small_rows, small_table};

    fn shards(columns: &[ArrayRef], shards: u32) -> Vec<usize> {
        shard_of(&columns.iter().collect::<Vec<_>>(), columns[0].len(), shards).unwrap()
    }

    #[test]
    fn the_hash_never_changes() {
        let hosts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b"), Some(""), None, Some("host_17")]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), Some(1), None, Some(-1), Some(i64::MAX)]));
        assert_eq!(shards(std::slice::from_ref(&hosts), 1000), [892, 301, 811, 456, 970]);
        assert_eq!(shards(std::slice::from_ref(&numbers), 1000), [318, 445, 174, 128, 158]);
        assert_eq!(shards(&[hosts, numbers], 1000), [31, 891, 568, 29, 681]);
    }

    #[test]
    fn integers_hash_alike_whatever_their_width() {
        let narrow: ArrayRef = Arc::new(Int16Array::from_iter_values(-500..500));
        let wide: ArrayRef = Arc::new(Int64Array::from_iter_values(-500..500));
        let (narrow, wide) = (shards(&[narrow], 7), shards(&[wide], 7));
        assert_eq!(narrow, wide);
        for shard in 0..7 {
            let rows = wide.iter().filter(|other| **other == shard).count();
            assert!((90..200).contains(&rows), "{rows} of 1000 rows in shard {shard}");
        }
    }

    #[test]
    fn rows_keep_their_order_and_keys_their_shard() {
        let mut table = small_table(1);
        let TableKind::Event(options) = &mut table.kind else { unreachable!("it has events") };
        options.sharding = Sharding { shards: 3, by: vec![1] };
        let times: Vec<i64> = (0..1000).collect();
        let parts = shard_rows(&table, &small_rows(&times)).unwrap();
        assert_eq!(parts.iter().map(|(_, rows)| rows.num_rows()).sum::<usize>(), 1000);
        for (shard, rows) in parts {
            let times = crate::routing::event_times(&table, &rows).unwrap();
            assert!(times.is_sorted());
            // The host is the time modulo three.
            let again = shard_rows(&table, &small_rows(&[times[0] + 3])).unwrap();
            assert_eq!((again.len(), again[0].0), (1, shard));
        }
    }
}
