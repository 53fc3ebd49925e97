//! A few rows of one shard inside an entry, column after column, without the headers of an IPC message: those take ten times the room of
//! a row of numbers, and longer to build and to check than the row itself.
//!
//! docs/formats.md draws the layout. What is read is bounded by the bytes that are there, and arrow checks what comes of it.

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, downcast_primitive_array, make_array};
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::fields::{Fields, len_u32};
use crate::Error;

/// Every value is there.
const COMPLETE: u8 = 0;
/// A bitmap says which values are there.
const WITH_NULLS: u8 = 1;

/// Appends the rows of `parts`, which have one schema, one part behind the other.
///
/// # Errors
/// When a length does not fit into 32 bits, or a column has a type that no table has.
pub(super) fn put_rows(parts: &[&RecordBatch], out: &mut Vec<u8>) -> Result<(), Error> {
    let rows = parts.iter().map(|part| part.num_rows()).sum();
    out.extend_from_slice(&len_u32(rows)?.to_le_bytes());
    let columns = parts.first().map_or(0, |part| part.num_columns());
    for column in 0..columns {
        let parts: Vec<&dyn Array> = parts.iter().map(|part| part.column(column).as_ref()).collect();
        put_column(&parts, out)?;
    }
    Ok(())
}

fn put_column(parts: &[&dyn Array], out: &mut Vec<u8>) -> Result<(), Error> {
    if parts.iter().all(|part| part.null_count() == 0) {
        out.push(COMPLETE);
    } else {
        out.push(WITH_NULLS);
        put_bits(parts.iter().flat_map(|part| (0..part.len()).map(|row| part.is_valid(row))), out);
    }
    let Some(first) = parts.first() else { return Ok(()) };
    match first.data_type() {
        DataType::Boolean => {
            let values = parts.iter().map(|part| part.as_boolean().values());
            put_bits(values.flat_map(|values| values.iter()), out);
        }
        DataType::Utf8 => {
            let parts = parts.iter().map(|part| part.as_string::<i32>());
            put_lengths(parts.clone().map(|part| part.value_offsets()), out)?;
            parts.for_each(|part| out.extend_from_slice(within(part.value_offsets(), part.value_data())));
        }
        DataType::Binary => {
            let parts = parts.iter().map(|part| part.as_binary::<i32>());
            put_lengths(parts.clone().map(|part| part.value_offsets()), out)?;
            parts.for_each(|part| out.extend_from_slice(within(part.value_offsets(), part.value_data())));
        }
        DataType::List(_) => {
            let parts = parts.iter().map(|part| part.as_list::<i32>());
            put_lengths(parts.clone().map(|part| part.value_offsets()), out)?;
            let elements: Vec<ArrayRef> = parts
                .map(|part| {
                    let (start, end) = ends(part.value_offsets());
                    part.values().slice(start, end - start)
                })
                .collect();
            put_column(&elements.iter().map(AsRef::as_ref).collect::<Vec<_>>(), out)?;
        }
        other => {
            for part in parts {
                let bytes = fixed_bytes(*part).ok_or_else(|| Error::Columns(format!("a column has type {other}")))?;
                out.extend_from_slice(bytes);
            }
        }
    }
    Ok(())
}

/// The values of an array all of whose values have the same width.
fn fixed_bytes(part: &dyn Array) -> Option<&[u8]> {
    downcast_primitive_array!(
        part => Some(part.values().inner().as_slice()),
        DataType::FixedSizeBinary(_) => Some(part.as_fixed_size_binary().value_data()),
        _ => None
    )
}

/// Bytes of a value, where all values have the same.
fn width(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::FixedSizeBinary(width) => usize::try_from(*width).ok(),
        other => other.primitive_width(),
    }
}

/// The first and the last of a part's offsets.
fn ends(offsets: &[i32]) -> (usize, usize) {
    let end = |offset: Option<&i32>| offset.map_or(0, |offset| usize::try_from(*offset).unwrap_or(0));
    (end(offsets.first()), end(offsets.last()))
}

/// The bytes of a part's values.
fn within<'a>(offsets: &[i32], bytes: &'a [u8]) -> &'a [u8] {
    let (start, end) = ends(offsets);
    &bytes[start..end]
}

fn put_lengths<'a>(parts: impl Iterator<Item = &'a [i32]>, out: &mut Vec<u8>) -> Result<(), Error> {
    for offsets in parts {
        for pair in offsets.windows(2) {
            let (start, end) = ends(pair);
            out.extend_from_slice(&len_u32(end - start)?.to_le_bytes());
        }
    }
    Ok(())
}

fn put_bits(bits: impl Iterator<Item = bool>, out: &mut Vec<u8>) {
    for (position, bit) in bits.enumerate() {
        if position % 8 == 0 {
            out.push(0);
        }
        if let (true, Some(byte)) = (bit, out.last_mut()) {
            *byte |= 1 << (position % 8);
        }
    }
}

/// The reverse of [`put_rows`].
pub(super) fn decode_rows(schema: SchemaRef, bytes: &[u8]) -> Result<RecordBatch, Error> {
    let mut input = Fields::new("rows", bytes);
    let rows = input.u32()? as usize;
    let columns = schema.fields().iter().map(|field| column(field.data_type(), rows, &mut input).map(make_array));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    input.finish()?;
    RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(rows)))
        .map_err(refuse)
}

fn column(data_type: &DataType, values: usize, input: &mut Fields<'_>) -> Result<ArrayData, Error> {
    let nulls = match input.u8()? {
        COMPLETE => None,
        WITH_NULLS => Some(Buffer::from(input.bytes(values.div_ceil(8))?)),
        _ => return Err(refuse("unknown kind of column")),
    };
    let data = ArrayData::builder(data_type.clone()).len(values).null_bit_buffer(nulls);
    let data = match data_type {
        DataType::Boolean => data.add_buffer(Buffer::from(input.bytes(values.div_ceil(8))?)),
        DataType::Utf8 | DataType::Binary => {
            let (offsets, total) = offsets(values, input)?;
            data.add_buffer(offsets).add_buffer(Buffer::from(input.bytes(total)?))
        }
        DataType::List(element) => {
            let (offsets, total) = offsets(values, input)?;
            data.add_buffer(offsets).add_child_data(column(element.data_type(), total, input)?)
        }
        fixed => {
            let width = width(fixed).ok_or_else(|| refuse("unknown column type"))?;
            let len = values.checked_mul(width).ok_or_else(|| refuse("too many values"))?;
            data.add_buffer(Buffer::from(input.bytes(len)?))
        }
    };
    data.build().map_err(refuse)
}

/// Offsets from so many lengths, and the last of them.
fn offsets(values: usize, input: &mut Fields<'_>) -> Result<(Buffer, usize), Error> {
    let lengths = input.bytes(values.checked_mul(4).ok_or_else(|| refuse("too many values"))?)?;
    let mut offsets = MutableBuffer::with_capacity((values + 1) * 4);
    let mut total = 0i32;
    offsets.push(total);
    for length in lengths.as_chunks::<4>().0 {
        let length = i32::try_from(u32::from_le_bytes(*length)).ok();
        total = length.and_then(|length| total.checked_add(length)).ok_or_else(|| refuse("a value is too long"))?;
        offsets.push(total);
    }
    Ok((offsets.into(), usize::try_from(total).unwrap_or(0)))
}

fn refuse(reason: impl ToString) -> Error {
    Error::Decode { what: "rows", reason: reason.to_string() }
}
