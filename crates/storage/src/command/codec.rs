//! The bytes of an entry, as docs/formats.md draws them: header, statements, then the rows of each shard in a block.
//!
//! A block lies at a multiple of 8 from the entry's start, so that large columns that did not compress are used where they are.
//! Small blocks have a form of their own and are copied: a few rows shall not keep a whole entry in memory.

use std::ops::Range;
use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use event::{GroupId, NodeId, Origin, SchemaVersion, ShardId, StatementId, TableDefinition, TableKind};
use serde::Deserialize;

use super::columns::{decode_rows, decode_schema, encode_rows, encode_schema};
use super::fields::{Fields, len_u32, pad, put_sized};
use super::{Command, Entry, Joined, SchemaChange, Statement, plain};
use crate::{Error, row_bytes};

/// Version 2 had no plain blocks, version 1 said nothing of what was settled either.
const VERSION: u16 = 3;
const VERSION_WITHOUT_PLAIN: u16 = 2;
const VERSION_WITHOUT_SETTLED: u16 = 1;
const HEADER_BYTES: usize = 24;
/// Rows of fewer bytes have the plain form. Beyond it the headers of a message no longer count, and compression pays.
const PLAIN_BYTES_MAX: usize = 4 << 10;

const APPEND: u8 = 1;
const SEAL: u8 = 2;
const INSTALL: u8 = 3;
const PUT: u8 = 4;
const DROP: u8 = 5;
const REPLACE: u8 = 6;
const EXPIRE: u8 = 7;
const DELETE: u8 = 8;
const TRUNCATE: u8 = 9;
const EXPECT: u8 = 10;
/// A decision without a time until which it can be made.
const DECIDE_ANY_TIME: u8 = 11;
const SETTLE: u8 = 12;
const DECIDE: u8 = 13;
const PREPARE: u8 = 14;
const CONCLUDE: u8 = 15;

/// Rows of one shard and schema version, from any statement of the entry.
struct Block<'a> {
    shard: ShardId,
    version: SchemaVersion,
    parts: Vec<&'a RecordBatch>,
    rows: usize,
}

/// See [`Entry::encode`].
pub(super) fn encode(entry: &Entry) -> Result<Bytes, Error> {
    let mut blocks = Vec::new();
    let mut statements = Vec::new();
    for statement in &entry.statements {
        encode_statement(statement, &mut blocks, &mut statements)?;
    }
    let mut out = Vec::with_capacity(HEADER_BYTES + statements.len());
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&len_u32(blocks.len())?.to_le_bytes());
    out.extend_from_slice(&len_u32(entry.statements.len())?.to_le_bytes());
    out.extend_from_slice(&len_u32(statements.len())?.to_le_bytes());
    out.extend_from_slice(&entry.time_us.to_le_bytes());
    assert_eq!(out.len(), HEADER_BYTES, "the header has a fixed size");
    out.extend_from_slice(&statements);
    pad(&mut out);
    for block in &blocks {
        encode_block(block, &mut out)?;
    }
    Ok(out.into())
}

fn encode_statement<'a>(statement: &'a Statement, blocks: &mut Vec<Block<'a>>, out: &mut Vec<u8>) -> Result<(), Error> {
    put_statement_id(statement.origin.id, out);
    out.extend_from_slice(&statement.origin.settled.to_le_bytes());
    out.extend_from_slice(&len_u32(statement.commands.len())?.to_le_bytes());
    for command in &statement.commands {
        match command {
            Command::Append { shard, version, rows } => {
                let (block, range) = place(blocks, *shard, *version, rows);
                out.push(APPEND);
                out.extend_from_slice(&len_u32(block)?.to_le_bytes());
                out.extend_from_slice(&len_u32(range.start)?.to_le_bytes());
                out.extend_from_slice(&len_u32(range.len())?.to_le_bytes());
            }
            Command::Seal => out.push(SEAL),
            Command::Install(install) => {
                out.push(INSTALL);
                put_sized(out, &to_json(install)?)?;
            }
            Command::Delete(delete) => {
                out.push(DELETE);
                put_sized(out, &to_json(delete)?)?;
            }
            Command::Schema(SchemaChange::Put { shard, table }) => {
                out.push(PUT);
                out.extend_from_slice(&shard.0.to_le_bytes());
                put_sized(out, &to_json(table)?)?;
            }
            Command::Schema(SchemaChange::Drop { shard }) => {
                out.push(DROP);
                out.extend_from_slice(&shard.0.to_le_bytes());
            }
            Command::Replace(replace) => {
                out.push(REPLACE);
                put_sized(out, &to_json(replace)?)?;
            }
            Command::Expire { shard, before_us } => {
                out.push(EXPIRE);
                out.extend_from_slice(&shard.0.to_le_bytes());
                out.extend_from_slice(&before_us.to_le_bytes());
            }
            Command::Truncate { shard } => {
                out.push(TRUNCATE);
                out.extend_from_slice(&shard.0.to_le_bytes());
            }
            Command::Expect { shard, index } => {
                out.push(EXPECT);
                out.extend_from_slice(&shard.0.to_le_bytes());
                out.extend_from_slice(&index.to_le_bytes());
            }
            Command::Decide { transaction, commit, until_us, joined } => {
                out.push(DECIDE);
                put_statement_id(*transaction, out);
                out.push(u8::from(*commit));
                out.extend_from_slice(&until_us.to_le_bytes());
                put_joined(joined, out)?;
            }
            Command::Prepare { transaction, decider, until_us } => {
                out.push(PREPARE);
                put_statement_id(*transaction, out);
                out.extend_from_slice(&decider.0.to_le_bytes());
                out.extend_from_slice(&until_us.to_le_bytes());
            }
            Command::Conclude { transaction, commit, joined } => {
                out.push(CONCLUDE);
                put_statement_id(*transaction, out);
                out.push(u8::from(*commit));
                put_joined(joined, out)?;
            }
            Command::Settle { transaction } => {
                out.push(SETTLE);
                put_statement_id(*transaction, out);
            }
        }
    }
    Ok(())
}

fn put_statement_id(id: StatementId, out: &mut Vec<u8>) {
    out.extend_from_slice(&id.node.0.to_le_bytes());
    out.extend_from_slice(&id.boot.to_le_bytes());
    out.extend_from_slice(&id.counter.to_le_bytes());
}

fn put_joined(joined: &[Joined], out: &mut Vec<u8>) -> Result<(), Error> {
    out.extend_from_slice(&len_u32(joined.len())?.to_le_bytes());
    for Joined { group, index } in joined {
        out.extend_from_slice(&group.0.to_le_bytes());
        out.extend_from_slice(&index.to_le_bytes());
    }
    Ok(())
}

fn joined(input: &mut Fields<'_>) -> Result<Vec<Joined>, Error> {
    // Each takes bytes, so that a count too large ends with them.
    (0..input.u32()?).map(|_| Ok(Joined { group: GroupId(input.u64()?), index: input.u64()? })).collect()
}

fn statement_id(input: &mut Fields<'_>) -> Result<StatementId, Error> {
    Ok(StatementId { node: NodeId(input.u64()?), boot: input.u64()?, counter: input.u64()? })
}

/// Finds or makes the block for `rows`: its number, and which rows of it these become.
fn place<'a>(
    blocks: &mut Vec<Block<'a>>,
    shard: ShardId,
    version: SchemaVersion,
    rows: &'a RecordBatch,
) -> (usize, Range<usize>) {
    let same = |b: &Block<'_>| b.shard == shard && b.version == version && b.parts[0].schema_ref() == rows.schema_ref();
    let number = blocks.iter().position(same).unwrap_or(blocks.len());
    if number == blocks.len() {
        blocks.push(Block { shard, version, parts: Vec::new(), rows: 0 });
    }
    let block = &mut blocks[number];
    let start = block.rows;
    block.parts.push(rows);
    block.rows += rows.num_rows();
    (number, start..block.rows)
}

fn encode_block(block: &Block<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    let schema = encode_schema(block.parts[0].schema_ref())?;
    out.extend_from_slice(&block.shard.0.to_le_bytes());
    out.extend_from_slice(&block.version.0.to_le_bytes());
    out.extend_from_slice(&len_u32(schema.len())?.to_le_bytes());
    let bytes: usize = block.parts.iter().map(|rows| row_bytes(rows)).sum();
    if bytes < PLAIN_BYTES_MAX { encode_plain(block, bytes, &schema, out) } else { encode_message(block, &schema, out) }
}

fn encode_plain(block: &Block<'_>, bytes: usize, schema: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    out.reserve(24 + schema.len());
    // Without a message, whose length is 0, and with a body whose length is known at its end.
    let lens = out.len();
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(schema);
    pad(out);
    let body = out.len();
    // What columns say beside their values is little.
    out.reserve(bytes + 16 * (1 + block.parts[0].num_columns()));
    plain::put_rows(&block.parts, out)?;
    let len = len_u32(out.len() - body)?;
    out[lens + 4..lens + 8].copy_from_slice(&len.to_le_bytes());
    pad(out);
    Ok(())
}

fn encode_message(block: &Block<'_>, schema: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let message = match block.parts.as_slice() {
        [rows] => encode_rows(rows)?,
        parts => {
            let rows = concat_batches(parts[0].schema_ref(), parts.iter().copied())
                .map_err(|error| Error::Columns(error.to_string()))?;
            encode_rows(&rows)?
        }
    };
    out.reserve(40 + schema.len() + message.ipc_message.len() + message.arrow_data.len());
    out.extend_from_slice(&len_u32(message.ipc_message.len())?.to_le_bytes());
    out.extend_from_slice(&len_u32(message.arrow_data.len())?.to_le_bytes());
    for part in [schema, &message.ipc_message, &message.arrow_data] {
        out.extend_from_slice(part);
        pad(out);
    }
    Ok(())
}

/// See [`Entry::decode`].
pub(super) fn decode(bytes: &Bytes) -> Result<Entry, Error> {
    let mut input = Fields::new("entry", bytes);
    let version = input.u16()?;
    if ![VERSION, VERSION_WITHOUT_PLAIN, VERSION_WITHOUT_SETTLED].contains(&version) {
        return Err(refuse(format!("version {version} is not known")));
    }
    input.u16()?;
    let block_count = input.u32()?;
    let statement_count = input.u32()?;
    let statements_bytes = input.u32()? as usize;
    let time_us = input.i64()?;
    let mut statements_input = Fields::new("statement", input.bytes(statements_bytes)?);
    skip_pad(&mut input, bytes.len())?;
    let mut blocks = Vec::new();
    for _ in 0..block_count {
        blocks.push(decode_block(&mut input, bytes)?);
    }
    input.finish()?;
    let mut statements = Vec::new();
    for _ in 0..statement_count {
        statements.push(decode_statement(&mut statements_input, &blocks, version)?);
    }
    statements_input.finish()?;
    Ok(Entry { time_us, statements })
}

/// Skips to the next multiple of 8 from the start of the `total` bytes.
fn skip_pad(input: &mut Fields<'_>, total: usize) -> Result<(), Error> {
    let position = total - input.len();
    input.bytes(position.next_multiple_of(8) - position)?;
    Ok(())
}

fn decode_block(input: &mut Fields<'_>, whole: &Bytes) -> Result<(ShardId, SchemaVersion, RecordBatch), Error> {
    let shard = ShardId(input.u64()?);
    let version = SchemaVersion(input.u32()?);
    let lens = [input.u32()? as usize, input.u32()? as usize, input.u32()? as usize];
    let mut parts = [&[][..]; 3];
    for (part, len) in parts.iter_mut().zip(lens) {
        *part = input.bytes(len)?;
        skip_pad(input, whole.len())?;
    }
    let [schema, metadata, body] = parts;
    let schema = decode_schema(schema)?;
    let rows = match (metadata, body.len()) {
        ([], _) => plain::decode_rows(schema, body)?,
        (_, 0..PLAIN_BYTES_MAX) => decode_rows(schema, Buffer::from(metadata), Buffer::from(body))?,
        _ => decode_rows(schema, Buffer::from(metadata), Buffer::from(whole.slice_ref(body)))?,
    };
    Ok((shard, version, rows))
}

fn decode_statement(
    input: &mut Fields<'_>,
    blocks: &[(ShardId, SchemaVersion, RecordBatch)],
    version: u16,
) -> Result<Statement, Error> {
    let id = statement_id(input)?;
    let settled = if version == VERSION_WITHOUT_SETTLED { 0 } else { input.u64()? };
    let count = input.u32()?;
    let mut commands = Vec::new();
    for _ in 0..count {
        commands.push(decode_command(input, blocks)?);
    }
    Ok(Statement { origin: Origin { id, settled }, commands })
}

fn decode_command(input: &mut Fields<'_>, blocks: &[(ShardId, SchemaVersion, RecordBatch)]) -> Result<Command, Error> {
    Ok(match input.u8()? {
        APPEND => {
            let (block, start, len) = (input.u32()? as usize, input.u32()? as usize, input.u32()? as usize);
            let Some((shard, version, rows)) = blocks.get(block) else {
                return Err(refuse(format!("block {block} of {} named", blocks.len())));
            };
            if start.checked_add(len).is_none_or(|end| end > rows.num_rows()) {
                return Err(refuse(format!("rows {start} and {len} more of {} named", rows.num_rows())));
            }
            Command::Append { shard: *shard, version: *version, rows: rows.slice(start, len) }
        }
        SEAL => Command::Seal,
        INSTALL => Command::Install(from_json(input.sized()?)?),
        DELETE => Command::Delete(from_json(input.sized()?)?),
        PUT => {
            let shard = ShardId(input.u64()?);
            let table: TableDefinition = from_json(input.sized()?)?;
            check_definition(&table)?;
            Command::Schema(SchemaChange::Put { shard, table: Arc::new(table) })
        }
        DROP => Command::Schema(SchemaChange::Drop { shard: ShardId(input.u64()?) }),
        REPLACE => Command::Replace(from_json(input.sized()?)?),
        EXPIRE => Command::Expire { shard: ShardId(input.u64()?), before_us: input.i64()? },
        TRUNCATE => Command::Truncate { shard: ShardId(input.u64()?) },
        EXPECT => Command::Expect { shard: ShardId(input.u64()?), index: input.u64()? },
        DECIDE_ANY_TIME => Command::Decide {
            transaction: statement_id(input)?,
            commit: input.u8()? != 0,
            until_us: i64::MAX,
            joined: Vec::new(),
        },
        DECIDE => Command::Decide {
            transaction: statement_id(input)?,
            commit: input.u8()? != 0,
            until_us: input.i64()?,
            joined: joined(input)?,
        },
        PREPARE => Command::Prepare {
            transaction: statement_id(input)?,
            decider: GroupId(input.u64()?),
            until_us: input.i64()?,
        },
        CONCLUDE => {
            Command::Conclude { transaction: statement_id(input)?, commit: input.u8()? != 0, joined: joined(input)? }
        }
        SETTLE => Command::Settle { transaction: statement_id(input)? },
        tag => return Err(refuse(format!("command {tag} is not known"))),
    })
}

/// Refuses a definition whose positions or types other code could not rely on.
pub(crate) fn check_definition(table: &TableDefinition) -> Result<(), Error> {
    let known = |position: &usize| *position < table.columns.len();
    let mut sound = table.primary_key.iter().all(known) && table.unique.iter().all(|key| key.columns.iter().all(known));
    if let TableKind::Event(options) = &table.kind {
        let time = table.columns.get(options.time_column);
        sound &= time.is_some_and(|column| column.column_type.is_time() && !column.nullable)
            && options.series.iter().all(known)
            && options.split_interval_us > 0
            && options.retention_us.is_none_or(|retention| retention > 0)
            && options.sharding.shards >= 1
            && options.sharding.by.iter().all(|by| options.series.contains(by));
    }
    for column in &table.columns {
        if let event::ColumnType::Numeric { precision, scale } = column.column_type {
            sound &= (1..=38).contains(&precision) && (0..=precision as i8).contains(&scale);
        }
    }
    if sound {
        return Ok(());
    }
    Err(Error::Decode { what: "table definition", reason: format!("table \"{}\" contradicts itself", table.name) })
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| refuse(error.to_string()))
}

fn from_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))
}

fn refuse(reason: String) -> Error {
    Error::Decode { what: "entry", reason }
}
