//! Segments against a naive reading of their rows.

use std::cmp::Ordering;

use arrow::array::ArrayRef;
use event::{ColumnType, TableKind};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use proptest::prelude::*;

use super::*;
use crate::segment::StatisticsValue;
use crate::sequence::with_sequence;
use crate::testing::{INTERVAL_US, any_rows, every_type_table, golden, lines, small_rows, small_table, table};

fn place(split: i64) -> SegmentPlace {
    let name = format!("7/3/{split}/9-1-1-0.parquet");
    SegmentPlace { shard: ShardId(3), split: SplitId(split), seal: Some(9), name }
}

fn sequenced(table: &TableDefinition, rows: &RecordBatch) -> RecordBatch {
    with_sequence(&sequenced_schema(table), rows, 0, 0).unwrap()
}

fn read(bytes: &Bytes) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap().with_batch_size(1 << 20);
    let batches: Vec<_> = reader.build().unwrap().collect::<Result<_, _>>().unwrap();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

fn footer(bytes: &Bytes) -> ParquetMetaData {
    let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
    reader.parse_and_finish(bytes).unwrap()
}

/// The value at `row` as statistics keep it, `None` when NULL or NaN.
fn value(values: &ArrayRef, row: usize) -> Option<StatisticsValue> {
    use arrow::datatypes::*;
    let integer = |value: i64| Some(StatisticsValue::Integer(i128::from(value)));
    let float = |value: f64| (!value.is_nan()).then(|| StatisticsValue::FloatBits(value.to_bits()));
    if values.is_null(row) {
        return None;
    }
    match values.data_type() {
        DataType::Int16 => integer(values.as_primitive::<Int16Type>().value(row).into()),
        DataType::Int32 => integer(values.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => integer(values.as_primitive::<Int64Type>().value(row)),
        DataType::Date32 => integer(values.as_primitive::<Date32Type>().value(row).into()),
        DataType::Timestamp(..) => integer(values.as_primitive::<TimestampMicrosecondType>().value(row)),
        DataType::Float32 => float(values.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => float(values.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => Some(StatisticsValue::Decimal(values.as_primitive::<Decimal128Type>().value(row))),
        DataType::Boolean => Some(StatisticsValue::Boolean(values.as_boolean().value(row))),
        DataType::Time64(_) => integer(values.as_primitive::<Time64MicrosecondType>().value(row)),
        // Kept no more than text that is too long is.
        DataType::Binary | DataType::FixedSizeBinary(_) | DataType::List(_) => {
            Some(StatisticsValue::Text("x".repeat(65)))
        }
        _ => Some(StatisticsValue::Text(values.as_string::<i32>().value(row).to_owned())),
    }
}

fn compare(a: &StatisticsValue, b: &StatisticsValue) -> Ordering {
    use StatisticsValue::*;
    match (a, b) {
        (Integer(a), Integer(b)) | (Decimal(a), Decimal(b)) => a.cmp(b),
        (FloatBits(a), FloatBits(b)) => f64::from_bits(*a).total_cmp(&f64::from_bits(*b)),
        (Text(a), Text(b)) => a.cmp(b),
        (Boolean(a), Boolean(b)) => a.cmp(b),
        _ => panic!("values of different types"),
    }
}

fn kept(value: Option<&StatisticsValue>) -> Option<StatisticsValue> {
    value.filter(|value| !matches!(value, StatisticsValue::Text(text) if text.len() > 64)).cloned()
}

fn assert_statistics(table: &TableDefinition, meta: &SegmentMeta, rows: &RecordBatch) {
    assert_eq!(meta.columns.len(), table.columns.len());
    for ((column, found), values) in table.columns.iter().zip(&meta.columns).zip(rows.columns()) {
        let all: Vec<_> = (0..rows.num_rows()).map(|row| value(values, row)).collect();
        let present: Vec<_> = all.iter().flatten().collect();
        let nulls = (0..rows.num_rows()).filter(|row| values.is_null(*row)).count();
        assert_eq!(found.column, column.id);
        assert_eq!(found.nulls, nulls as u64, "nulls of {}", column.name);
        assert_eq!(found.nans, (all.len() - present.len() - nulls) as u64, "NaNs of {}", column.name);
        assert_eq!(found.min, kept(present.iter().copied().min_by(|a, b| compare(a, b))), "min of {}", column.name);
        assert_eq!(found.max, kept(present.iter().copied().max_by(|a, b| compare(a, b))), "max of {}", column.name);
        let sum = match column.column_type {
            ColumnType::SmallInt | ColumnType::Integer | ColumnType::BigInt | ColumnType::Numeric { .. } => {
                let mut numbers = present.iter().map(|value| match value {
                    StatisticsValue::Integer(value) | StatisticsValue::Decimal(value) => *value,
                    _ => panic!("no number"),
                });
                // Stays `None` on overflow, as the encoder's does, when added in the same order.
                let sum = numbers.try_fold(0i128, i128::checked_add);
                let decimal = matches!(column.column_type, ColumnType::Numeric { .. });
                let keep = if decimal { StatisticsValue::Decimal } else { StatisticsValue::Integer };
                sum.filter(|_| !present.is_empty()).map(keep)
            }
            ColumnType::Real | ColumnType::Double => {
                let any = nulls < all.len();
                let floats =
                    (0..rows.num_rows()).filter(|row| values.is_valid(*row)).map(|row| match value(values, row) {
                        Some(StatisticsValue::FloatBits(bits)) => f64::from_bits(bits),
                        _ => f64::NAN,
                    });
                let sum: f64 = floats.fold(0.0, |sum, value| sum + value);
                let bits = if sum.is_nan() { f64::NAN.to_bits() } else { sum.to_bits() };
                any.then_some(StatisticsValue::FloatBits(bits))
            }
            _ => None,
        };
        assert_eq!(found.sum, sum, "sum of {}", column.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn rows_in_are_rows_out(rows in any_rows(every_type_table(), 80, Some(-INTERVAL_US..0)), cut in 0usize..80) {
        let table = every_type_table();
        prop_assume!(rows.num_rows() > 0);
        let rows = sequenced(&table, &rows);
        let cut = cut.min(rows.num_rows());
        let parts = [rows.slice(0, cut), rows.slice(cut, rows.num_rows() - cut)];
        let (meta, bytes) = encode_segment(&table, &parts, place(-1)).unwrap();
        verify_segment(&meta, &bytes).unwrap();
        let found = read(&bytes);
        let kept = stored::stored(&rows).unwrap();
        prop_assert_eq!(found.schema_ref().fields(), kept.schema_ref().fields());
        prop_assert_eq!(lines([&found], 0), lines([&kept], 0));
        let key = SortKey::new(&table, &found).unwrap();
        prop_assert!((1..found.num_rows()).all(|row| key.compare(row - 1, row).is_lt()), "not sorted");
        let times = event_times(&table, &found).unwrap();
        prop_assert_eq!(meta.time_min_us, times.iter().min().copied());
        prop_assert_eq!(meta.time_max_us, times.iter().max().copied());
        prop_assert_eq!(meta.rows, rows.num_rows() as u64);
        assert_statistics(&table, &meta, &found);
        let json = serde_json::to_string(&meta).unwrap();
        prop_assert_eq!(serde_json::from_str::<SegmentMeta>(&json).unwrap(), meta);
    }
}

#[test]
fn reference_rows_are_sorted_by_sequence_only() {
    let table = table(4, &[("k", ColumnType::Text, true)], TableKind::Reference);
    let keys: ArrayRef = Arc::new(arrow::array::StringArray::from(vec![Some("b"), None, Some("a")]));
    let rows = sequenced(&table, &RecordBatch::try_new(table.arrow_schema(), vec![keys]).unwrap());
    let late_first = [rows.slice(2, 1), rows.slice(0, 2)];
    let (meta, bytes) = encode_segment(&table, &late_first, place(0)).unwrap();
    assert_eq!(read(&bytes), rows);
    assert_eq!((meta.time_min_us, meta.time_max_us), (None, None));
}

#[test]
fn nulls_come_last_in_a_series_key() {
    let table = small_table(1);
    let rows = sequenced(&table, &small_rows(&[1, 2, 3]));
    let mut columns = rows.columns().to_vec();
    columns[1] = Arc::new(arrow::array::StringArray::from(vec![None, Some("b"), Some("a")]));
    let rows = RecordBatch::try_new(rows.schema(), columns).unwrap();
    let (_, bytes) = encode_segment(&table, &[rows], place(0)).unwrap();
    let hosts = read(&bytes).column(1).as_string::<i32>().iter().map(|h| h.map(str::to_owned)).collect::<Vec<_>>();
    assert_eq!(hosts, [Some("a".to_owned()), Some("b".to_owned()), None]);
}

#[test]
fn rows_outside_the_split_are_refused() {
    let table = small_table(1);
    let rows = sequenced(&table, &small_rows(&[1, 1000]));
    let error = encode_segment(&table, &[rows], place(0)).unwrap_err();
    assert!(error.to_string().ends_with("rows of table \"t1\" lie outside split 0"), "{error}");
    assert!(encode_segment(&table, &[], place(0)).is_err(), "no rows");
}

#[test]
fn damage_is_found_and_named() {
    let table = small_table(1);
    let rows = sequenced(&table, &small_rows(&[1, 2]));
    let (meta, bytes) = encode_segment(&table, &[rows], place(0)).unwrap();
    for position in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[position] ^= 0x10;
        let error = verify_segment(&meta, &damaged.into()).unwrap_err().to_string();
        assert!(
            error.starts_with("file \"segments/7/3/0/9-1-1-0.parquet\" is damaged at offset 0: checksum"),
            "{error}"
        );
    }
    let error = verify_segment(&meta, &bytes.slice(..bytes.len() - 1)).unwrap_err().to_string();
    assert!(error.contains(&format!("at offset {}: {} bytes expected", bytes.len() - 1, bytes.len())), "{error}");
    let wrong = SegmentMeta { rows: 3, ..meta };
    assert!(verify_segment(&wrong, &bytes).unwrap_err().to_string().ends_with("3 rows expected, 2 there"));
}

/// Encodings, row groups, pages and metadata of a segment of many rows.
#[test]
fn columns_are_encoded_by_type_and_values() {
    let count = ROW_GROUP_ROWS as i64 + 5000;
    let columns = [
        ("time", ColumnType::Timestamp, false),
        ("host", ColumnType::Text, false),
        ("level", ColumnType::Double, false),
        ("noise", ColumnType::Double, false),
    ];
    let options = event::EventOptions {
        time_column: 0,
        series: vec![1],
        split_interval_us: 1 << 40,
        retention_us: None,
        dedup: event::Dedup::None,
        sharding: event::Sharding::default(),
    };
    let table = table(5, &columns, TableKind::Event(options));
    let noise = |n: i64| (n as f64).sin();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(arrow::array::TimestampMicrosecondArray::from_iter_values(0..count)),
        Arc::new(arrow::array::StringArray::from_iter_values((0..count).map(|n| format!("h{}", n % 10)))),
        Arc::new(arrow::array::Float64Array::from_iter_values((0..count).map(|n| (n % 7) as f64 / 2.0))),
        Arc::new(arrow::array::Float64Array::from_iter_values((0..count).map(noise))),
    ];
    let rows = sequenced(&table, &RecordBatch::try_new(table.arrow_schema(), columns).unwrap());
    let (meta, bytes) = encode_segment(&table, &[rows], place(0)).unwrap();
    assert!(meta.bytes < 11 * meta.rows, "{} bytes for {} rows", meta.bytes, meta.rows);
    let footer = footer(&bytes);
    let group_rows: Vec<_> = footer.row_groups().iter().map(|group| group.num_rows()).collect();
    assert_eq!(group_rows, [ROW_GROUP_ROWS as i64, 5000]);
    let group = footer.row_group(0);
    let sorting: Vec<_> = group.sorting_columns().unwrap().iter().map(|c| (c.column_idx, c.nulls_first)).collect();
    assert_eq!(sorting, [(1, false), (0, false), (4, false)]);
    let has = |column: usize, encoding: Encoding| group.column(column).encodings().any(|found| found == encoding);
    assert!(has(0, Encoding::DELTA_BINARY_PACKED) && !has(0, Encoding::RLE_DICTIONARY), "time");
    assert!(has(1, Encoding::RLE_DICTIONARY), "host");
    assert!(has(2, Encoding::RLE_DICTIONARY), "level");
    assert!(has(3, Encoding::BYTE_STREAM_SPLIT) && !has(3, Encoding::RLE_DICTIONARY), "noise");
    assert!(has(4, Encoding::DELTA_BINARY_PACKED), "__seq");
    let pages = footer.offset_index().unwrap()[0][0].page_locations();
    assert_eq!(pages.len(), ROW_GROUP_ROWS / PAGE_ROWS);
    assert!(footer.column_index().is_some(), "page statistics");
    let pairs = footer.file_metadata().key_value_metadata().unwrap();
    let get = |key: &str| pairs.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone());
    assert_eq!(get("annal.sort_key").unwrap(), "host,time,__seq");
    assert_eq!(get("annal.split").unwrap(), "0");
    assert_eq!(get("annal.seal").unwrap(), "9");
    assert_eq!(get("annal.window_end_us").unwrap(), (1i64 << 40).to_string());
}

#[test]
fn a_segment_of_format_1_opens() {
    let table = small_table(1);
    let rows = sequenced(&table, &small_rows(&[5, 3, 999]));
    let (meta, bytes) = encode_segment(&table, std::slice::from_ref(&rows), place(0)).unwrap();
    let golden_meta = golden("segment-v1.json", &serde_json::to_vec(&meta).unwrap());
    let golden_meta: SegmentMeta = serde_json::from_slice(&golden_meta).unwrap();
    let golden = golden("segment-v1.parquet", &bytes);
    verify_segment(&golden_meta, &golden).unwrap();
    assert_eq!(lines([&read(&golden)], 0), lines([&rows], 0));
    assert_eq!((golden_meta.rows, &golden_meta.columns), (3, &meta.columns));
}

#[test]
fn every_compression_can_be_read_back() {
    for compression in [Compression::Zstd, Compression::Lz4, Compression::Snappy, Compression::None] {
        let table = TableDefinition { compression, ..small_table(1) };
        let rows = sequenced(&table, &small_rows(&(0..900).collect::<Vec<_>>()));
        let (_, bytes) = encode_segment(&table, std::slice::from_ref(&rows), place(0)).unwrap();
        assert_eq!(lines([&read(&bytes)], 0), lines([&rows], 0), "{compression:?}");
    }
}
