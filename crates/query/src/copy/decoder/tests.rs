//! What COPY reads, and what it says of what it cannot read.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use event::{Column, ColumnId, ColumnType, Compression, SchemaVersion, TableId, TableKind};
use proptest::prelude::*;

use super::*;

fn table() -> Arc<TableDefinition> {
    let column = |id, name: &str, column_type, nullable| Column {
        identity: None,
        modifier: None,
        required: false,
        initial: None,
        stored: None,
        id: ColumnId(id),
        name: name.to_string(),
        column_type,
        nullable,
        default: None,
    };
    Arc::new(TableDefinition {
        dropped: Vec::new(),
        id: TableId(1),
        namespace: "public".to_string(),
        name: "t".to_string(),
        version: SchemaVersion(1),
        columns: vec![
            column(1, "ts", ColumnType::TimestampTz, false),
            column(2, "n", ColumnType::Integer, true),
            column(3, "s", ColumnType::Text, true),
        ],
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

type Row = (i64, Option<i32>, Option<String>);

fn decode<'a>(options: &CopyOptions, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Row>, Error> {
    let mut decoder = Decoder::new(table(), vec![0, 1, 2], options.clone(), Zone::UTC);
    let mut rows = Vec::new();
    for piece in pieces {
        decoder.push(piece)?.iter().for_each(|batch| read(batch, &mut rows));
    }
    decoder.finish()?.iter().for_each(|batch| read(batch, &mut rows));
    Ok(rows)
}

fn read(batch: &RecordBatch, rows: &mut Vec<Row>) {
    let ts = batch.column(0).as_primitive::<TimestampMicrosecondType>();
    let n = batch.column(1).as_primitive::<Int32Type>();
    let s = batch.column(2).as_string::<i32>();
    for at in 0..batch.num_rows() {
        let text = s.is_valid(at).then(|| s.value(at).to_string());
        rows.push((ts.value(at), n.is_valid(at).then(|| n.value(at)), text));
    }
}

fn csv() -> CopyOptions {
    CopyOptions::defaults(CopyFormat::Csv)
}

fn refusal(options: &CopyOptions, data: &str) -> (Condition, String, String) {
    match decode(options, [data.as_bytes()]) {
        Err(Error::Reported(report)) => (report.condition, report.message, report.context.unwrap_or_default()),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn header_quotes_and_line_ends() {
    let options = CopyOptions { header: true, ..csv() };
    let data = "ts,n,s\r\n1970-01-01 00:00:00Z,1,\"a\nb\"\r\n1970-01-01 00:00:01Z,,\n1970-01-01 00:00:02Z,3,\"\"";
    let expected = vec![
        (0, Some(1), Some("a\nb".to_string())),
        (1_000_000, None, None),
        (2_000_000, Some(3), Some(String::new())),
    ];
    assert_eq!(decode(&options, [data.as_bytes()]).expect("well formed"), expected);
}

#[test]
fn text_ends_at_the_marker() {
    let data = "1970-01-01 00:00:00\t1\t\\N\n\\.\nrubbish";
    let rows = decode(&CopyOptions::defaults(CopyFormat::Text), [data.as_bytes()]).expect("well formed");
    assert_eq!(rows, vec![(0, Some(1), None)]);
}

#[test]
fn refusals_name_line_and_column() {
    assert_eq!(
        refusal(&csv(), "1970-01-01,1,a\n1970-01-01,x,b\n"),
        (
            Condition::InvalidTextRepresentation,
            "invalid input syntax for type integer: \"x\"".to_string(),
            "COPY t, line 2, column n: \"x\"".to_string()
        )
    );
    assert_eq!(
        refusal(&csv(), "1970-01-01,1,\"a\nb\"\n,2,c\n"),
        (
            Condition::NotNullViolation,
            "null value in column \"ts\" of relation \"t\" violates not-null constraint".to_string(),
            "COPY t, line 3: \",2,c\"".to_string()
        )
    );
    assert_eq!(
        refusal(&csv(), "1970-01-01,1\n"),
        (
            Condition::BadCopyFormat,
            "missing data for column \"s\"".to_string(),
            "COPY t, line 1: \"1970-01-01,1\"".to_string()
        )
    );
    assert_eq!(refusal(&csv(), "1970-01-01,1,a,b\n").1, "extra data after last expected column");
    assert_eq!(refusal(&csv(), "1970-01-01,1,\"a\n").1, "unterminated CSV quoted field");
}

#[test]
fn bytes_that_are_no_utf8_are_refused() {
    let data: &[u8] = b"1970-01-01,1,a\xffb\n";
    match decode(&csv(), [data]) {
        Err(Error::Reported(report)) => assert_eq!(report.condition, Condition::CharacterNotInRepertoire),
        other => panic!("not refused: {other:?}"),
    }
}

fn encode(rows: &[Row], options: &CopyOptions) -> Vec<u8> {
    let mut out = String::new();
    for (ts, n, s) in rows {
        let ts = chrono::DateTime::from_timestamp_micros(*ts).expect("in range").to_rfc3339();
        let n = n.map_or(options.null.clone(), |n| n.to_string());
        let s = s.as_ref().map_or(options.null.clone(), |s| match options.format {
            CopyFormat::Csv => format!("\"{}\"", s.replace('"', "\"\"")),
            CopyFormat::Text => s.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t"),
        });
        let d = char::from(options.delimiter);
        out.push_str(&format!("{ts}{d}{n}{d}{s}\n"));
    }
    out.into_bytes()
}

fn row() -> impl Strategy<Value = Row> {
    (0i64..4_102_444_800_000_000, proptest::option::of(any::<i32>()), proptest::option::of("[a-z\"\\\\,\n\r\t.ü]{0,8}"))
}

proptest! {
    #[test]
    fn what_was_written_is_read_however_it_is_cut(
        rows in proptest::collection::vec(row(), 0..20),
        cuts in proptest::collection::vec(1usize..9, 1..20),
        text in any::<bool>(),
    ) {
        let options = CopyOptions::defaults(if text { CopyFormat::Text } else { CopyFormat::Csv });
        let data = encode(&rows, &options);
        let mut pieces = Vec::new();
        let mut rest = data.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        prop_assert_eq!(decode(&options, pieces).expect("well formed"), rows);
    }

    #[test]
    fn arbitrary_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..200), text in any::<bool>()) {
        let options = CopyOptions::defaults(if text { CopyFormat::Text } else { CopyFormat::Csv });
        let _ = decode(&options, data.chunks(7));
    }
}
