//! What is fuzzed here: bytes from clients. Each function must return, whatever it is given.
//!
//! `fuzz/` drives them with libFuzzer, and every run of the tests replays its corpus and mutations of it.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use event::{Column, ColumnId, ColumnType, Compression, SchemaVersion, TableDefinition, TableId, TableKind};

use crate::copy::Decoder;
use crate::error::Error;
use crate::session::{CopyFormat, CopyOptions, parse, split_statements};
use crate::text::Zone;

/// A message of SQL.
///
/// # Panics
/// When a message that can be parsed cannot be cut into its statements.
pub fn statements(data: &[u8]) {
    let Ok(sql) = std::str::from_utf8(data) else { return };
    let Ok(parsed) = parse(sql) else { return };
    let parts = split_statements(sql).expect("what can be parsed can be cut");
    let texts: Vec<&str> = parsed.iter().filter(|statement| statement.ast.is_some()).map(|s| &*s.text).collect();
    assert_eq!(texts, parts);
}

/// COPY data: its first byte chooses the format, its second where the rest is cut.
///
/// # Panics
/// When the rows depend on how the data were cut on their way.
pub fn copy(data: &[u8]) {
    let [format, cut, rest @ ..] = data else { return };
    let mut options = CopyOptions::defaults(if format % 2 == 0 { CopyFormat::Text } else { CopyFormat::Csv });
    options.header = format % 4 >= 2;
    let whole = decode(&options, &[rest]);
    let (front, back) = rest.split_at(usize::from(*cut).min(rest.len()));
    let pieces = decode(&options, &[front, back]);
    match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces),
        (Err(whole), Err(pieces)) => assert_eq!(whole.to_string(), pieces.to_string()),
        (whole, pieces) => panic!("{whole:?} of the whole, {pieces:?} of the pieces"),
    }
}

fn decode(options: &CopyOptions, pieces: &[&[u8]]) -> Result<Vec<RecordBatch>, Error> {
    let types = [ColumnType::TimestampTz, ColumnType::Integer, ColumnType::Double, ColumnType::Text];
    let column = |(number, column_type): (usize, &ColumnType)| Column {
        identity: None,
        modifier: None,
        required: false,
        initial: None,
        stored: None,
        id: ColumnId(number as u32 + 1),
        name: format!("c{number}"),
        column_type: *column_type,
        nullable: number > 0,
        default: None,
    };
    let table = TableDefinition {
        dropped: Vec::new(),
        id: TableId(1),
        namespace: "public".to_owned(),
        name: "t".to_owned(),
        version: SchemaVersion(1),
        columns: types.iter().enumerate().map(column).collect(),
        primary_key: Vec::new(),
        primary_key_named: None,
        unique: Vec::new(),
        kind: TableKind::Reference,
        compression: Compression::Zstd,
        checks: Vec::new(),
        consistency: event::Consistency::Strong,
        replicas: event::Replicas::default(),
    };
    let mut decoder = Decoder::new(Arc::new(table), (0..types.len()).collect(), options.clone(), Zone::UTC);
    let mut batches = Vec::new();
    for piece in pieces {
        batches.extend(decoder.push(piece)?);
    }
    batches.extend(decoder.finish()?);
    Ok(batches)
}
