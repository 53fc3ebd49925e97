//! Rows of one shard inside an entry: a compact schema, then one Arrow IPC record batch message, unless they are few (`plain`).
//!
//! The IPC reader of arrow-rs trusts lengths and offsets of the message (it panics or allocates on wrong ones), so everything it
//! relies on is checked here first. Only the closed set of column types occurs, which keeps that check short.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::convert::MessageBuffer;
use arrow::ipc::reader::RecordBatchDecoder;
use arrow::ipc::writer::{DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow::ipc::{CompressionType, FieldNode, MetadataVersion};
use arrow::record_batch::RecordBatch;
use event::ColumnType;

use super::fields::Fields;
use crate::Error;

/// LZ4 cannot expand by more than this; a message that claims more is damaged.
const EXPANSION_MAX: u64 = 256;

/// The compact schema: u16 columns; each u8 type, u8 precision, i8 scale, u8 nullable, u16 name length, name.
pub(super) fn encode_schema(schema: &Schema) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(2 + schema.fields().len() * 16);
    out.extend_from_slice(&len_u16(schema.fields().len())?.to_le_bytes());
    for field in schema.fields() {
        let Some(code) = ColumnType::of(field).map(ColumnType::code) else {
            return Err(Error::Columns(format!("column \"{}\" has type {}", field.name(), field.data_type())));
        };
        out.extend_from_slice(&code);
        out.push(u8::from(field.is_nullable()));
        out.extend_from_slice(&len_u16(field.name().len())?.to_le_bytes());
        out.extend_from_slice(field.name().as_bytes());
    }
    Ok(out)
}

fn len_u16(len: usize) -> Result<u16, Error> {
    u16::try_from(len).map_err(|_| Error::Columns(format!("{len} columns or bytes of a name do not fit into an entry")))
}

/// The reverse of [`encode_schema`].
pub(super) fn decode_schema(bytes: &[u8]) -> Result<SchemaRef, Error> {
    let mut input = Fields::new("schema", bytes);
    let count = input.u16()?;
    let mut fields = Vec::with_capacity(usize::from(count).min(bytes.len()));
    for _ in 0..count {
        let code = [input.u8()?, input.u8()?, input.u8()?];
        let nullable = input.u8()? != 0;
        let len = input.u16()?;
        let name =
            std::str::from_utf8(input.bytes(usize::from(len))?).map_err(|_| refuse("a column name is not UTF-8"))?;
        let column_type = ColumnType::from_code(code).ok_or_else(|| refuse("unknown column type"))?;
        fields.push(column_type.field(name, nullable));
    }
    input.finish()?;
    Ok(Arc::new(Schema::new(fields)))
}

/// The IPC message of `rows`: its metadata (a flatbuffer) and its body.
pub(super) fn encode_rows(rows: &RecordBatch) -> Result<EncodedData, Error> {
    let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5)
        .and_then(|options| options.try_with_compression(Some(CompressionType::LZ4_FRAME)))
        .map_err(arrow_error)?;
    let (dictionaries, message) = IpcDataGenerator::default()
        .encode(rows, &mut DictionaryTracker::new(true), &options, &mut IpcWriteContext::default())
        .map_err(arrow_error)?;
    assert!(dictionaries.is_empty(), "no column type is dictionary encoded");
    Ok(message)
}

/// The reverse of [`encode_rows`].
pub(super) fn decode_rows(schema: SchemaRef, metadata: Buffer, body: Buffer) -> Result<RecordBatch, Error> {
    let message = MessageBuffer::try_new(metadata).map_err(arrow_error)?;
    let message = message.as_ref();
    if message.version() != MetadataVersion::V5 {
        return Err(refuse("unknown version of the message"));
    }
    let batch = message.header_as_record_batch().ok_or_else(|| refuse("the message holds no record batch"))?;
    check_message(&schema, &batch, &body)?;
    RecordBatchDecoder::try_new(&body, batch, schema, &HashMap::new(), &MetadataVersion::V5)
        .and_then(RecordBatchDecoder::read_record_batch)
        .map_err(arrow_error)
}

/// Checks that nodes and buffers are as many and as long as the schema and the row count say, and lie inside the body.
fn check_message(schema: &Schema, batch: &arrow::ipc::RecordBatch<'_>, body: &[u8]) -> Result<(), Error> {
    let rows = u64::try_from(batch.length()).ok().filter(|rows| *rows <= u64::from(u32::MAX));
    let rows = rows.ok_or_else(|| refuse("row count out of range"))?;
    let compressed = match batch.compression() {
        None => false,
        Some(compression) if compression.codec() == CompressionType::LZ4_FRAME => true,
        Some(_) => return Err(refuse("unknown compression")),
    };
    if batch.variadicBufferCounts().is_some_and(|counts| !counts.is_empty()) {
        return Err(refuse("variadic buffers"));
    }
    let mut nodes = batch.nodes().into_iter().flatten();
    let mut buffers = batch.buffers().into_iter().flatten();
    let mut next = |values: u64, width: u64| -> Result<(), Error> {
        let buffer = buffers.next().ok_or_else(|| refuse("too few buffers"))?;
        let bytes = buffer_bytes(buffer.offset(), buffer.length(), body, compressed)?;
        if bytes < values * width || bytes % width != 0 { Err(refuse("a buffer has the wrong size")) } else { Ok(()) }
    };
    for field in schema.fields() {
        if check_column(field.data_type(), &mut nodes, &mut next)? != rows {
            return Err(refuse("columns of different length"));
        }
    }
    Ok(())
}

/// Checks one column, whose buffers `next` gives; answers with how many values it has.
fn check_column<'a>(
    data_type: &DataType,
    nodes: &mut impl Iterator<Item = &'a FieldNode>,
    next: &mut impl FnMut(u64, u64) -> Result<(), Error>,
) -> Result<u64, Error> {
    let node = nodes.next().ok_or_else(|| refuse("too few columns"))?;
    let values = u64::try_from(node.length()).ok().filter(|values| *values <= u64::from(u32::MAX));
    let values = values.ok_or_else(|| refuse("number of values out of range"))?;
    let nulls = u64::try_from(node.null_count()).ok().filter(|nulls| *nulls <= values);
    let nulls = nulls.ok_or_else(|| refuse("null count out of range"))?;
    next(if nulls > 0 { values.div_ceil(8) } else { 0 }, 1)?;
    let offsets = if values > 0 { values + 1 } else { 0 };
    match data_type {
        DataType::Boolean => next(values.div_ceil(8), 1)?,
        DataType::Utf8 | DataType::Binary => {
            next(offsets, 4)?;
            next(0, 1)?
        }
        DataType::FixedSizeBinary(width) => next(values, u64::from(width.unsigned_abs()))?,
        DataType::List(element) => {
            next(offsets, 4)?;
            check_column(element.data_type(), nodes, next)?;
        }
        other => {
            let width = other.primitive_width().ok_or_else(|| refuse("unknown column type"))?;
            next(values, width as u64)?
        }
    };
    Ok(values)
}

/// Bytes of a buffer once decompressed. It must lie inside the body.
fn buffer_bytes(offset: i64, length: i64, body: &[u8], compressed: bool) -> Result<u64, Error> {
    let outside = || refuse("a buffer lies outside the message");
    let start = usize::try_from(offset).map_err(|_| outside())?;
    let len = usize::try_from(length).map_err(|_| outside())?;
    let bytes = body.get(start..).and_then(|tail| tail.get(..len)).ok_or_else(outside)?;
    if !compressed || bytes.is_empty() {
        return Ok(len as u64);
    }
    let Some((prefix, data)) = bytes.split_first_chunk::<8>() else {
        return Err(refuse("a compressed buffer is too short"));
    };
    let stored = data.len() as u64;
    match i64::from_le_bytes(*prefix) {
        -1 => Ok(stored),
        size => u64::try_from(size)
            .ok()
            .filter(|size| *size <= stored.saturating_mul(EXPANSION_MAX))
            .ok_or_else(|| refuse("a compressed buffer claims an impossible size")),
    }
}

fn refuse(reason: &str) -> Error {
    Error::Decode { what: "rows", reason: reason.to_owned() }
}

fn arrow_error(error: ArrowError) -> Error {
    Error::Columns(error.to_string())
}
