//! Blocks against the decoder that reads everything in order.

use event::{Column, ColumnId, ColumnType, Compression, SchemaVersion, TableId, TableKind};
use proptest::prelude::*;

use super::*;

fn table() -> Arc<TableDefinition> {
    let column = |id, name: &str, column_type| Column {
        identity: None,
        modifier: None,
        required: false,
        initial: None,
        stored: None,
        id: ColumnId(id),
        name: name.to_string(),
        column_type,
        nullable: true,
        default: None,
    };
    Arc::new(TableDefinition {
        dropped: Vec::new(),
        id: TableId(1),
        namespace: "public".to_string(),
        name: "t".to_string(),
        version: SchemaVersion(1),
        columns: vec![column(1, "n", ColumnType::Integer), column(2, "s", ColumnType::Text)],
        primary_key: Vec::new(),
        primary_key_named: None,
        unique: Vec::new(),
        kind: TableKind::Reference,
        compression: Compression::Zstd,
        checks: Vec::new(),
        consistency: event::Consistency::Strong,
        replicas: event::Replicas::default(),
    })
}

/// The rows, or the error, as text.
fn in_order(options: &CopyOptions, data: &[u8]) -> Result<String, String> {
    let mut decoder = Decoder::new(table(), vec![0, 1], options.clone(), Zone::UTC);
    let mut batches = decoder.push(data).map_err(|error| format!("{error:?}"))?;
    batches.extend(decoder.finish().map_err(|error| format!("{error:?}"))?);
    Ok(shown(&batches))
}

/// The same in blocks, of which the data come in pieces of `piece` bytes.
fn in_blocks(options: &CopyOptions, data: &[u8], piece: usize) -> Result<String, String> {
    let mut blocks = Blocks::new(options.clone());
    let mut cut: Vec<Block> = data.chunks(piece).filter_map(|bytes| blocks.push(bytes)).collect();
    cut.push(blocks.finish());
    let mut batches = Vec::new();
    for block in cut {
        let decoded = block.decode(table(), vec![0, 1], options, Zone::UTC).map_err(|error| format!("{error:?}"))?;
        batches.extend(decoded.batches);
        if decoded.ended {
            break;
        }
    }
    Ok(shown(&batches))
}

fn shown(batches: &[RecordBatch]) -> String {
    let rows = batches.iter().map(RecordBatch::num_rows).sum::<usize>();
    let Some(first) = batches.first() else { return String::new() };
    let all = arrow::compute::concat_batches(&first.schema(), batches).unwrap();
    format!("{rows} rows {:?}", all.columns())
}

/// Data of more than one block: the records given, again and again, between ordinary ones.
fn long(records: &str) -> Vec<u8> {
    let filler = "7,an ordinary record of ordinary width\n".repeat(1500);
    (0..12).flat_map(|_| [filler.as_str(), records]).collect::<String>().into_bytes()
}

fn options(format: CopyFormat) -> CopyOptions {
    CopyOptions { delimiter: b',', ..CopyOptions::defaults(format) }
}

#[test]
fn blocks_are_cut_between_records_alone() {
    let csv = "1,\"two\nlines, \"\"quoted\"\"\n\"\n2,a\"b\nc\"d\n";
    let text = "1,a\\\nb\n2,\\\\\n3,\\n\n";
    for (format, records) in [(CopyFormat::Csv, csv), (CopyFormat::Text, text)] {
        let (options, data) = (options(format), long(records));
        let expected = in_order(&options, &data).unwrap();
        for piece in [1000, 4096, 65_537, data.len()] {
            assert_eq!(in_blocks(&options, &data, piece).unwrap(), expected, "{format:?}, pieces of {piece}");
        }
    }
    let escape = CopyOptions { escape: b'\\', ..options(CopyFormat::Csv) };
    let data = long("1,\"a \\\" b\n \\\\\"\n2,\\n\n");
    assert_eq!(in_blocks(&escape, &data, 999), in_order(&escape, &data));
}

#[test]
fn errors_name_the_line_of_all_the_data() {
    for (format, bad) in [(CopyFormat::Csv, "1,\"a\nb\"\nx,bad\n"), (CopyFormat::Text, "1,a\\\nb\nx,bad\n")] {
        let mut data = long("5,five\n");
        data.extend_from_slice(bad.as_bytes());
        data.extend(long(""));
        let error = in_blocks(&options(format), &data, 10_000).unwrap_err();
        assert_eq!(error, in_order(&options(format), &data).unwrap_err());
        assert!(error.contains("COPY t, line 18015, column n"), "{error}");
    }
}

#[test]
fn the_header_is_once_and_the_end_is_the_end() {
    let header = CopyOptions { header: true, ..options(CopyFormat::Csv) };
    let data = [b"n,s\n".to_vec(), long("")].concat();
    assert_eq!(in_blocks(&header, &data, 5000), in_order(&header, &data));
    let mut data = long("");
    data.extend_from_slice(b"\\.\nthis is no record, and nobody reads it\n");
    data.extend(long("x,x,x\n"));
    let text = options(CopyFormat::Text);
    assert!(in_blocks(&text, &data, 5000).unwrap().starts_with("18000 rows"));
    assert_eq!(in_blocks(&text, &data, 5000), in_order(&text, &data));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Wherever quotes, escapes and line ends stand, looking at pieces finds the ends that looking at bytes finds.
    #[test]
    fn the_last_end_does_not_depend_on_the_pieces(data in "[1a,\"\\\\\n]{0,60}", piece in 1_usize..20, csv: bool) {
        let options = options(if csv { CopyFormat::Csv } else { CopyFormat::Text });
        let mut bytewise = Blocks::new(options.clone());
        let ends: Vec<usize> =
            data.bytes().enumerate().filter(|(_, byte)| bytewise.ends_record(*byte)).map(|(at, _)| at + 1).collect();
        let mut blocks = Blocks::new(options);
        let mut at = 0;
        for piece in data.as_bytes().chunks(piece) {
            let expected = ends.iter().copied().filter(|end| (at + 1..=at + piece.len()).contains(end)).max();
            prop_assert_eq!(blocks.last_end(piece).map(|end| at + end), expected);
            at += piece.len();
        }
    }
}
