//! Tables and rows for the tests of this crate.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray,
    Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray, RecordBatch,
    StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{IntervalMonthDayNano, UInt64Type};
use arrow::util::display::array_value_to_string;
use event::{
    Column, ColumnId, ColumnType, Compression, EventOptions, SchemaVersion, TableDefinition, TableId, TableKind,
    UUID_BYTES,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Width of a split in the tests, in microseconds.
pub(crate) const INTERVAL_US: i64 = 1000;

fn column(id: u32, name: &str, column_type: ColumnType, nullable: bool) -> Column {
    Column {
        identity: None,
        modifier: None,
        required: false,
        initial: None,
        id: ColumnId(id),
        name: name.to_owned(),
        stored: None,
        column_type,
        nullable,
        default: None,
    }
}

/// A table with the columns `(name, type, nullable)`, `kind` and table id `id`.
pub(crate) fn table(id: u64, columns: &[(&str, ColumnType, bool)], kind: TableKind) -> TableDefinition {
    let columns = columns.iter().zip(1..).map(|((name, kind, nullable), id)| column(id, name, *kind, *nullable));
    TableDefinition {
        dropped: Vec::new(),
        id: TableId(id),
        namespace: "public".to_owned(),
        name: format!("t{id}"),
        version: SchemaVersion(1),
        columns: columns.collect(),
        primary_key: Vec::new(),
        primary_key_named: None,
        unique: Vec::new(),
        kind,
        compression: Compression::Zstd,
        checks: Vec::new(),
        consistency: event::Consistency::Strong,
        replicas: event::Replicas::default(),
    }
}

/// Events with a time, a series key and one value.
pub(crate) fn small_table(id: u64) -> TableDefinition {
    let columns = [
        ("time", ColumnType::TimestampTz, false),
        ("host", ColumnType::Text, true),
        ("value", ColumnType::BigInt, true),
    ];
    let options = EventOptions {
        time_column: 0,
        series: vec![1],
        split_interval_us: INTERVAL_US,
        retention_us: None,
        dedup: event::Dedup::None,
        sharding: event::Sharding::default(),
    };
    table(id, &columns, TableKind::Event(options))
}

/// Rows of [`small_table`]: times, with value = time and host = `h` and the time modulo 3.
pub(crate) fn small_rows(times: &[i64]) -> RecordBatch {
    let hosts = times.iter().map(|time| Some(format!("h{}", time.rem_euclid(3))));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from(times.to_vec()).with_timezone("UTC")),
        Arc::new(StringArray::from_iter(hosts)),
        Arc::new(Int64Array::from(times.to_vec())),
    ];
    RecordBatch::try_new(small_table(1).arrow_schema(), columns).unwrap()
}

/// Events with a column of every type, sorted by two series keys.
pub(crate) fn every_type_table() -> TableDefinition {
    let mut table = wide_table();
    let forms = [
        ("bytes", ColumnType::Bytea),
        ("id", ColumnType::Uuid),
        ("extra", ColumnType::Jsonb),
        ("clock", ColumnType::Time),
        ("length", ColumnType::Interval),
        ("samples", ColumnType::Double.array().unwrap()),
        ("words", ColumnType::Text.array().unwrap()),
        ("lengths", ColumnType::Interval.array().unwrap()),
    ];
    for (name, column_type) in forms {
        let id = ColumnId(table.columns.len() as u32 + 1);
        table.columns.push(Column {
            identity: None,
            modifier: None,
            required: false,
            initial: None,
            id,
            name: name.to_owned(),
            stored: None,
            column_type,
            nullable: true,
            default: None,
        });
    }
    table
}

/// The same without the types that the files of the first version do not hold.
pub(crate) fn wide_table() -> TableDefinition {
    let options = EventOptions {
        time_column: 1,
        series: vec![0, 6],
        split_interval_us: INTERVAL_US,
        retention_us: None,
        dedup: event::Dedup::None,
        sharding: event::Sharding::default(),
    };
    let numeric = |precision, scale| ColumnType::Numeric { precision, scale };
    let columns = [
        ("host", ColumnType::Text, true),
        ("time", ColumnType::Timestamp, false),
        ("small", ColumnType::SmallInt, true),
        ("int", ColumnType::Integer, true),
        ("big", ColumnType::BigInt, true),
        ("real", ColumnType::Real, true),
        ("double", ColumnType::Double, true),
        ("short", numeric(9, 2), true),
        ("middle", numeric(18, 0), true),
        ("long", numeric(38, 38), true),
        ("flag", ColumnType::Boolean, true),
        ("note", ColumnType::Text, false),
        ("day", ColumnType::Date, true),
        ("seen", ColumnType::TimestampTz, true),
    ];
    table(7, &columns, TableKind::Event(options))
}

/// Columns of `rows` values of one type, NULLs among them when `nullable`.
fn values(column: &Column, rows: usize) -> BoxedStrategy<ArrayRef> {
    fn of<T: std::fmt::Debug + Clone + 'static>(
        value: impl Strategy<Value = T> + 'static,
        rows: usize,
        nullable: bool,
        array: fn(Vec<Option<T>>) -> ArrayRef,
    ) -> BoxedStrategy<ArrayRef> {
        match nullable {
            true => vec(option::weighted(0.8, value), rows).prop_map(array).boxed(),
            false => vec(value.prop_map(Some), rows).prop_map(array).boxed(),
        }
    }
    let nullable = column.nullable;
    match column.column_type {
        ColumnType::SmallInt => of(any::<i16>(), rows, nullable, |v| Arc::new(Int16Array::from(v))),
        ColumnType::Integer => of(any::<i32>(), rows, nullable, |v| Arc::new(Int32Array::from(v))),
        ColumnType::BigInt => of(any::<i64>(), rows, nullable, |v| Arc::new(Int64Array::from(v))),
        ColumnType::Real => of(prop::num::f32::ANY, rows, nullable, |v| Arc::new(Float32Array::from(v))),
        ColumnType::Double => of(prop::num::f64::ANY, rows, nullable, |v| Arc::new(Float64Array::from(v))),
        ColumnType::Boolean => of(any::<bool>(), rows, nullable, |v| Arc::new(BooleanArray::from(v))),
        ColumnType::Text => of("[a-zé]{0,80}", rows, nullable, |v| Arc::new(StringArray::from(v))),
        ColumnType::Json | ColumnType::Jsonb => of("[0-9]", rows, nullable, |v| Arc::new(StringArray::from(v))),
        ColumnType::Bytea => of(vec(any::<u8>(), 0..80), rows, nullable, |v| {
            Arc::new(v.iter().map(Option::as_deref).collect::<BinaryArray>())
        }),
        ColumnType::Uuid => of(any::<[u8; 16]>(), rows, nullable, |v| {
            let values = FixedSizeBinaryArray::try_from_sparse_iter_with_size(v.into_iter(), UUID_BYTES);
            Arc::new(values.expect("all are of one length"))
        }),
        ColumnType::Time => of(any::<i64>(), rows, nullable, |v| Arc::new(Time64MicrosecondArray::from(v))),
        ColumnType::Date => of(any::<i32>(), rows, nullable, |v| Arc::new(Date32Array::from(v))),
        ColumnType::Interval => {
            let us = i64::MIN / 1000..i64::MAX / 1000;
            let any = (any::<i32>(), any::<i32>(), us)
                .prop_map(|(months, days, us)| IntervalMonthDayNano::new(months, days, us * 1000));
            of(any, rows, nullable, |v| Arc::new(IntervalMonthDayNanoArray::from(v)))
        }
        ColumnType::Timestamp => of(any::<i64>(), rows, nullable, |v| Arc::new(TimestampMicrosecondArray::from(v))),
        ColumnType::TimestampTz => {
            of(any::<i64>(), rows, nullable, |v| Arc::new(TimestampMicrosecondArray::from(v).with_timezone("UTC")))
        }
        ColumnType::Array(element) => {
            let elements = Column { column_type: element.get(), nullable: true, ..column.clone() };
            let lengths = vec(option::weighted(if nullable { 0.8 } else { 1.0 }, 0usize..4), rows);
            let all = lengths.prop_flat_map(move |lengths| {
                let count = lengths.iter().flatten().sum();
                (Just(lengths), values(&elements, count))
            });
            let array = move |(lengths, elements): (Vec<Option<usize>>, ArrayRef)| {
                let nulls = lengths.iter().map(Option::is_some).collect::<NullBuffer>();
                let offsets = OffsetBuffer::from_lengths(lengths.iter().map(|length| length.unwrap_or(0)));
                Arc::new(ListArray::new(element.field(), offsets, elements, Some(nulls))) as ArrayRef
            };
            all.prop_map(array).boxed()
        }
        ColumnType::Numeric { precision, scale } => {
            let bound = 10i128.pow(u32::from(precision));
            let array = move |v: Vec<Option<i128>>| {
                let array = Decimal128Array::from(v).with_precision_and_scale(precision, scale);
                Arc::new(array.unwrap()) as ArrayRef
            };
            vec(option::weighted(0.8, 1 - bound..bound), rows).prop_map(array).boxed()
        }
    }
}

/// Random rows of a table, fewer than `rows_max`; event times in `times` when given.
pub(crate) fn any_rows(
    table: TableDefinition,
    rows_max: usize,
    times: Option<std::ops::Range<i64>>,
) -> BoxedStrategy<RecordBatch> {
    let time_column = table.event().map(|options| options.time_column);
    (0..rows_max)
        .prop_flat_map(move |rows| {
            let columns: Vec<_> = table.columns.iter().map(|column| values(column, rows)).collect();
            let range = times.clone().unwrap_or(i64::MIN..i64::MAX);
            (Just(table.clone()), columns, vec(range, rows))
        })
        .prop_map(move |(table, mut columns, times)| {
            if let Some(position) = time_column {
                let zone = (table.columns[position].column_type == ColumnType::TimestampTz).then_some("UTC");
                columns[position] = Arc::new(TimestampMicrosecondArray::from(times).with_timezone_opt(zone));
            }
            RecordBatch::try_new(table.arrow_schema(), columns).unwrap()
        })
        .boxed()
}

/// The committed bytes of a released format, for as long as it is to be read. `ANNAL_WRITE_FORMATS=1` writes `now` there first.
pub(crate) fn golden(name: &str, now: &[u8]) -> bytes::Bytes {
    let path = format!("{}/tests/formats/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("ANNAL_WRITE_FORMATS").is_some() {
        std::fs::write(&path, now).unwrap();
    }
    std::fs::read(&path).unwrap().into()
}

/// A committed file of a format that is not written any more.
pub(crate) fn kept(name: &str) -> bytes::Bytes {
    std::fs::read(format!("{}/tests/formats/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap().into()
}

/// The rows of batches as sorted text, one line a row, `base` added to the last column (`__seq`).
pub(crate) fn lines<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>, base: u64) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in batches {
        let (sequence, columns) = batch.columns().split_last().unwrap();
        let sequence = sequence.as_primitive::<UInt64Type>();
        for row in 0..batch.num_rows() {
            let cell = |column: &ArrayRef| match column.is_null(row) {
                true => "NULL".to_owned(),
                false => array_value_to_string(&without_zone(column), row).unwrap(),
            };
            let cells: Vec<String> = columns.iter().map(cell).collect();
            lines.push(format!("{}|{}", cells.join("|"), base + sequence.value(row)));
        }
    }
    lines.sort();
    lines
}

/// Times as plain numbers: some extreme ones have no date.
fn without_zone(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        arrow::datatypes::DataType::Timestamp(..) => Arc::new(
            column
                .as_primitive::<arrow::datatypes::TimestampMicrosecondType>()
                .reinterpret_cast::<arrow::datatypes::Int64Type>(),
        ),
        arrow::datatypes::DataType::Date32 => Arc::new(
            column.as_primitive::<arrow::datatypes::Date32Type>().reinterpret_cast::<arrow::datatypes::Int32Type>(),
        ),
        _ => Arc::clone(column),
    }
}
