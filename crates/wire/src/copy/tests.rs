//! What goes out by COPY comes in again as it was.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray, StringArray,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::concat_batches;
use arrow::datatypes::IntervalMonthDayNano;
use arrow::record_batch::RecordBatch;
use event::{
    Column, ColumnId, ColumnType, Compression, SchemaVersion, TableDefinition, TableId, TableKind, UUID_BYTES,
};
use proptest::prelude::*;
use query::copy::{Decoder, TupleDecoder};
use query::text::Zone;

use super::*;

fn line(format: CopyFormat, fields: &[Option<&str>]) -> String {
    let options = CopyOptions::defaults(format);
    let mut line = Line { options, text: String::new(), is_first: true, is_single: fields.len() == 1 };
    for field in fields {
        line.push(*field);
    }
    String::from_utf8(line.take().to_vec()).unwrap()
}

#[test]
fn lines_can_be_read_back() {
    let fields = [Some("a\tb\\c\nd"), None, Some("")];
    assert_eq!(line(CopyFormat::Text, &fields), "a\\tb\\\\c\\nd\t\\N\t\n");
    let fields = [Some("a,b"), Some("say \"x\""), None, Some(""), Some("plain")];
    assert_eq!(line(CopyFormat::Csv, &fields), "\"a,b\",\"say \"\"x\"\"\",,\"\",plain\n");
    assert_eq!(line(CopyFormat::Csv, &[Some("\\.")]), "\"\\.\"\n");
}

const SCALARS: [ColumnType; 17] = [
    ColumnType::SmallInt,
    ColumnType::Integer,
    ColumnType::BigInt,
    ColumnType::Real,
    ColumnType::Double,
    ColumnType::Numeric { precision: 38, scale: 7 },
    ColumnType::Boolean,
    ColumnType::Text,
    ColumnType::Bytea,
    ColumnType::Uuid,
    ColumnType::Json,
    ColumnType::Jsonb,
    ColumnType::Time,
    ColumnType::Date,
    ColumnType::Timestamp,
    ColumnType::TimestampTz,
    ColumnType::Interval,
];
/// All of them, and arrays of each.
static TYPES: LazyLock<Vec<ColumnType>> =
    LazyLock::new(|| SCALARS.into_iter().chain(SCALARS.into_iter().filter_map(ColumnType::array)).collect());
/// Days and instants that both forms know, since 1970: from year 1 to about the year 200,000.
const DAYS: std::ops::Range<i32> = -719_162..72_000_000;
const INSTANTS: std::ops::Range<i64> = -62_135_596_800_000_000..6_200_000_000_000_000_000;

fn table() -> Arc<TableDefinition> {
    let column = |(at, column_type): (usize, &ColumnType)| Column {
        identity: None,
        modifier: None,
        required: false,
        initial: None,
        stored: None,
        id: ColumnId(at as u32 + 1),
        name: format!("c{at}"),
        column_type: *column_type,
        nullable: true,
        default: None,
    };
    Arc::new(TableDefinition {
        dropped: Vec::new(),
        id: TableId(1),
        namespace: "public".to_owned(),
        name: "t".to_owned(),
        version: SchemaVersion(1),
        columns: TYPES.iter().enumerate().map(column).collect(),
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

/// Some values of a type, NULLs among them.
fn column(column_type: ColumnType, rows: usize) -> BoxedStrategy<ArrayRef> {
    macro_rules! of {
        ($values:expr, $array:ty) => {
            prop::collection::vec(prop::option::of($values), rows)
                .prop_map(|values| Arc::new(<$array>::from(values)) as ArrayRef)
                .boxed()
        };
    }
    let data_type = column_type.arrow();
    let whole = prop::num::i64::ANY.prop_map(i128::from);
    match column_type {
        ColumnType::SmallInt => of!(any::<i16>(), Int16Array),
        ColumnType::Integer => of!(any::<i32>(), Int32Array),
        ColumnType::BigInt => of!(any::<i64>(), Int64Array),
        ColumnType::Real => of!(any::<f32>(), Float32Array),
        ColumnType::Double => of!(any::<f64>(), Float64Array),
        ColumnType::Numeric { .. } => prop::collection::vec(prop::option::of(whole), rows)
            .prop_map(move |values| {
                Arc::new(Decimal128Array::from(values).with_data_type(data_type.clone())) as ArrayRef
            })
            .boxed(),
        ColumnType::Boolean => of!(any::<bool>(), BooleanArray),
        ColumnType::Text => of!("[a-zé,;\"\\\\.\t\n\r\u{b}N ]{0,6}", StringArray),
        ColumnType::Bytea => prop::collection::vec(prop::option::of(any::<Vec<u8>>()), rows)
            .prop_map(|values| Arc::new(values.iter().map(Option::as_deref).collect::<BinaryArray>()) as ArrayRef)
            .boxed(),
        ColumnType::Uuid => prop::collection::vec(prop::option::of(any::<[u8; 16]>()), rows)
            .prop_map(|values| {
                let values = FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), UUID_BYTES);
                Arc::new(values.unwrap()) as ArrayRef
            })
            .boxed(),
        ColumnType::Json => of!("[1-9]{1,3}|\\[ *true,\t\"[a-zé,;]{0,3}\"\\]|null", StringArray),
        ColumnType::Jsonb => of!("[1-9]{1,3}|\\[true, \"[a-zé,;]{0,3}\"\\]|null", StringArray),
        ColumnType::Time => of!(0..=86_400_000_000_i64, Time64MicrosecondArray),
        ColumnType::Date => of!(DAYS, Date32Array),
        ColumnType::Interval => {
            let any = (any::<i32>(), any::<i32>(), i64::MIN / 1000..i64::MAX / 1000);
            of!(any.prop_map(|(m, d, us)| IntervalMonthDayNano::new(m, d, us * 1000)), IntervalMonthDayNanoArray)
        }
        ColumnType::Array(element) => {
            let lengths = prop::collection::vec(prop::option::of(0_usize..4), rows);
            let all = lengths.prop_flat_map(move |lengths| {
                let count = lengths.iter().flatten().sum();
                (Just(lengths), column(element.get(), count))
            });
            let array = move |(lengths, elements): (Vec<Option<usize>>, ArrayRef)| {
                let nulls = lengths.iter().map(Option::is_some).collect::<NullBuffer>();
                let offsets = OffsetBuffer::from_lengths(lengths.iter().map(|length| length.unwrap_or(0)));
                Arc::new(ListArray::new(element.field(), offsets, elements, Some(nulls))) as ArrayRef
            };
            all.prop_map(array).boxed()
        }
        ColumnType::Timestamp => of!(INSTANTS, TimestampMicrosecondArray),
        ColumnType::TimestampTz => prop::collection::vec(prop::option::of(INSTANTS), rows)
            .prop_map(move |values| {
                Arc::new(TimestampMicrosecondArray::from(values).with_data_type(data_type.clone())) as ArrayRef
            })
            .boxed(),
    }
}

fn batch() -> impl Strategy<Value = RecordBatch> {
    (1..5_usize).prop_flat_map(|rows| {
        let columns: Vec<_> = TYPES.iter().map(|column_type| column(*column_type, rows)).collect();
        columns.prop_map(|columns| RecordBatch::try_new(table().arrow_schema(), columns).unwrap())
    })
}

/// The data in two pieces.
fn cut(data: &[u8], at: prop::sample::Index) -> [&[u8]; 2] {
    let (front, back) = data.split_at(at.index(data.len()));
    [front, back]
}

fn whole(mut batches: Vec<RecordBatch>, last: Option<RecordBatch>) -> RecordBatch {
    batches.extend(last);
    concat_batches(&table().arrow_schema(), &batches).unwrap()
}

proptest! {
    #[test]
    fn tuples_come_back_as_they_were(batch in batch(), at in any::<prop::sample::Index>()) {
        let mut data = BytesMut::from(&SIGNATURE[..]);
        data.put_bytes(0, 8);
        let mut encoder = Encoder::new(&batch, Zone::UTC).unwrap();
        for row in 0..encoder.rows() {
            encoder.tuple(&mut data, row, &vec![Format::Binary; TYPES.len()]);
        }
        data.put_i16(END_OF_TUPLES);
        let mut decoder = TupleDecoder::new(table(), (0..TYPES.len()).collect());
        let mut batches = Vec::new();
        for piece in cut(&data, at) {
            batches.extend(decoder.push(piece).unwrap());
        }
        prop_assert_eq!(whole(batches, decoder.finish().unwrap()), batch);
    }

    #[test]
    fn lines_come_back_as_they_were(batch in batch(), at in any::<prop::sample::Index>(), is_csv in any::<bool>()) {
        let options = CopyOptions::defaults(if is_csv { CopyFormat::Csv } else { CopyFormat::Text });
        let mut line = Line { options: options.clone(), text: String::new(), is_first: true, is_single: false };
        let mut encoder = Encoder::new(&batch, Zone::UTC).unwrap();
        let mut data = Vec::new();
        for row in 0..encoder.rows() {
            encoder.fields(row, |field| line.push(field));
            data.extend(line.take());
        }
        let mut decoder = Decoder::new(table(), (0..TYPES.len()).collect(), options, Zone::UTC);
        let mut batches = Vec::new();
        for piece in cut(&data, at) {
            batches.extend(decoder.push(piece).unwrap());
        }
        prop_assert_eq!(whole(batches, decoder.finish().unwrap()), batch);
    }
}
