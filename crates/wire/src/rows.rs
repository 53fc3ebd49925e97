//! Arrow batches as DataRow messages and COPY lines, and RowDescription.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray,
    Float32Array, Float64Array, GenericListArray, Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray,
    StringArray, Time64MicrosecondArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::{BufMut, BytesMut};
use pgwire::messages::data::{FieldDescription, RowDescription};
use query::text::{JSONB_VERSION, Zone, write as text};

use crate::binary;
use crate::error::Failure;
use crate::types::{PgType, Scalar, announced};

/// Columns of a result, as PostgreSQL bounds them.
const COLUMNS_MAX: usize = 1664;

/// How a column is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Binary,
}

impl Format {
    /// The formats of `columns` columns from the codes of a Bind: none means text, one is for all.
    ///
    /// # Errors
    /// 08P01 for another number of codes or an unknown code.
    pub(crate) fn of_codes(codes: &[i16], columns: usize) -> Result<Vec<Format>, Failure> {
        let format = |code: i16| match code {
            0 => Ok(Format::Text),
            1 => Ok(Format::Binary),
            other => Err(Failure::new("08P01", format!("unsupported format code: {other}"))),
        };
        match codes {
            [] => Ok(vec![Format::Text; columns]),
            [code] => Ok(vec![format(*code)?; columns]),
            codes if codes.len() == columns => codes.iter().map(|code| format(*code)).collect(),
            codes => {
                let message = format!("bind message has {} formats but there are {columns} columns", codes.len());
                Err(Failure::new("08P01", message))
            }
        }
    }

    fn code(self) -> i16 {
        match self {
            Format::Text => 0,
            Format::Binary => 1,
        }
    }
}

/// The message that announces rows.
///
/// # Errors
/// 54011 for more columns than PostgreSQL can send.
pub(crate) fn description(schema: &Schema, formats: &[Format]) -> Result<RowDescription, Failure> {
    if schema.fields().len() > COLUMNS_MAX {
        return Err(Failure::new("54011", format!("target lists can have at most {COLUMNS_MAX} entries")));
    }
    let fields = schema.fields().iter().enumerate().map(|(at, field): (usize, &Arc<Field>)| {
        let (oid, modifier) = announced(field);
        let format = formats.get(at).copied().unwrap_or(Format::Text);
        FieldDescription::new(field.name().clone(), 0, 0, oid, PgType::of(field).size(), modifier, format.code())
    });
    Ok(RowDescription::new(fields.collect()))
}

/// A batch ready to be sent row by row.
pub(crate) struct Encoder {
    columns: Vec<Column>,
    rows: usize,
    zone: Zone,
    /// Reused for each value.
    scratch: String,
}

impl Encoder {
    /// Brings every column to the type it is sent as.
    ///
    /// # Errors
    /// 22003 when a value does not fit that type.
    pub(crate) fn new(batch: &RecordBatch, zone: Zone) -> Result<Encoder, Failure> {
        let schema = batch.schema_ref();
        let columns = batch.columns().iter().zip(schema.fields()).map(|(array, field)| Column::new(array, field));
        let columns = columns.collect::<Result<_, _>>();
        let columns = columns.map_err(|error: ArrowError| Failure::new("22003", error.to_string()))?;
        Ok(Encoder { columns, rows: batch.num_rows(), zone, scratch: String::new() })
    }

    /// Rows of the batch.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Appends the DataRow message of a row.
    pub(crate) fn data_row(&mut self, out: &mut BytesMut, row: usize, formats: &[Format]) {
        out.put_u8(b'D');
        let begin = out.len();
        out.put_i32(0);
        self.tuple(out, row, formats);
        patch_length(out, begin, begin);
    }

    /// Appends the number of values of a row, and the values with their lengths.
    pub(crate) fn tuple(&mut self, out: &mut BytesMut, row: usize, formats: &[Format]) {
        out.put_i16(
            i16::try_from(self.columns.len()).expect("the message that announces rows has refused more columns"),
        );
        for (column, format) in self.columns.iter().zip(formats) {
            if column.is_null(row) {
                out.put_i32(-1);
                continue;
            }
            let length_at = out.len();
            out.put_i32(0);
            match format {
                Format::Text => {
                    self.scratch.clear();
                    column.text(&mut self.scratch, row, &self.zone);
                    out.put_slice(self.scratch.as_bytes());
                }
                Format::Binary => column.binary(out, row),
            }
            patch_length(out, length_at, length_at + 4);
        }
    }

    /// Calls `field` with the text of each value of a row, `None` for NULL.
    pub(crate) fn fields(&mut self, row: usize, mut field: impl FnMut(Option<&str>)) {
        for column in &self.columns {
            if column.is_null(row) {
                field(None);
            } else {
                self.scratch.clear();
                column.text(&mut self.scratch, row, &self.zone);
                field(Some(&self.scratch));
            }
        }
    }
}

/// Writes the length of what follows `from` at `at`.
fn patch_length(out: &mut BytesMut, at: usize, from: usize) {
    // One value is at most a batch of a query, whose memory is bounded far below.
    let length = i32::try_from(out.len() - from).unwrap_or(i32::MAX);
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// A column in the type it is sent as.
enum Column {
    Boolean(BooleanArray),
    Bytea(BinaryArray),
    SmallInt(Int16Array),
    Integer(Int32Array),
    BigInt(Int64Array),
    Oid(UInt32Array),
    Real(Float32Array),
    Double(Float64Array),
    Text(StringArray),
    Jsonb(StringArray),
    Uuid(FixedSizeBinaryArray),
    Date(Date32Array),
    Time(Time64MicrosecondArray),
    Timestamp(TimestampMicrosecondArray),
    TimestampTz(TimestampMicrosecondArray),
    Interval(IntervalMonthDayNanoArray),
    Numeric(Decimal128Array, i8),
    List { lists: GenericListArray<i64>, elements: Box<Column>, element_oid: u32 },
}

impl Column {
    fn new(array: &ArrayRef, field: &Field) -> Result<Column, ArrowError> {
        match PgType::of(field) {
            PgType::Scalar(scalar) => Self::scalar(array, scalar),
            PgType::List(element) => {
                let (DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _)) =
                    array.data_type()
                else {
                    unreachable!("only lists are sent as lists")
                };
                let lists = cast(array, &DataType::LargeList(field.clone()))?.as_list::<i64>().clone();
                let elements = Box::new(Self::scalar(lists.values(), element)?);
                Ok(Column::List { lists, elements, element_oid: element.oid() })
            }
        }
    }

    fn scalar(array: &ArrayRef, scalar: Scalar) -> Result<Column, ArrowError> {
        let array = match cast(array, &scalar.arrow()) {
            // What Arrow cannot cast to text it can still print.
            Err(_) if scalar == Scalar::Text => printed(array)?,
            cast => cast?,
        };
        Ok(match scalar {
            Scalar::Boolean => Column::Boolean(array.as_boolean().clone()),
            Scalar::Bytea => Column::Bytea(array.as_binary().clone()),
            Scalar::SmallInt => Column::SmallInt(array.as_primitive().clone()),
            Scalar::Integer => Column::Integer(array.as_primitive().clone()),
            Scalar::BigInt => Column::BigInt(array.as_primitive().clone()),
            Scalar::Oid => Column::Oid(array.as_primitive().clone()),
            Scalar::Real => Column::Real(array.as_primitive().clone()),
            Scalar::Double => Column::Double(array.as_primitive().clone()),
            Scalar::Text | Scalar::Json => Column::Text(array.as_string().clone()),
            Scalar::Jsonb => Column::Jsonb(array.as_string().clone()),
            Scalar::Uuid => Column::Uuid(array.as_fixed_size_binary().clone()),
            Scalar::Date => Column::Date(array.as_primitive().clone()),
            Scalar::Time => Column::Time(array.as_primitive().clone()),
            Scalar::Timestamp => Column::Timestamp(array.as_primitive().clone()),
            Scalar::TimestampTz => Column::TimestampTz(array.as_primitive().clone()),
            Scalar::Interval => Column::Interval(array.as_primitive().clone()),
            Scalar::Numeric { scale, .. } => Column::Numeric(array.as_primitive().clone(), scale),
        })
    }

    fn array(&self) -> &dyn Array {
        match self {
            Column::Boolean(array) => array,
            Column::Bytea(array) => array,
            Column::SmallInt(array) => array,
            Column::Integer(array) => array,
            Column::BigInt(array) => array,
            Column::Oid(array) => array,
            Column::Real(array) => array,
            Column::Double(array) => array,
            Column::Text(array) | Column::Jsonb(array) => array,
            Column::Uuid(array) => array,
            Column::Date(array) => array,
            Column::Time(array) => array,
            Column::Timestamp(array) | Column::TimestampTz(array) => array,
            Column::Interval(array) => array,
            Column::Numeric(array, _) => array,
            Column::List { lists, .. } => lists,
        }
    }

    fn is_null(&self, row: usize) -> bool {
        self.array().is_null(row)
    }

    fn text(&self, out: &mut String, row: usize, zone: &Zone) {
        match self {
            Column::Boolean(array) => out.push(if array.value(row) { 't' } else { 'f' }),
            Column::Bytea(array) => text::bytea(out, array.value(row)),
            Column::SmallInt(array) => text::integer(out, array.value(row)),
            Column::Integer(array) => text::integer(out, array.value(row)),
            Column::BigInt(array) => text::integer(out, array.value(row)),
            Column::Oid(array) => text::integer(out, array.value(row)),
            Column::Real(array) => text::real(out, array.value(row)),
            Column::Double(array) => text::double(out, array.value(row)),
            Column::Text(array) | Column::Jsonb(array) => out.push_str(array.value(row)),
            Column::Uuid(array) => text::uuid(out, array.value(row)),
            Column::Date(array) => text::date(out, array.value(row)),
            Column::Time(array) => text::time(out, array.value(row)),
            Column::Timestamp(array) => text::timestamp(out, array.value(row)),
            Column::TimestampTz(array) => text::timestamptz(out, array.value(row), zone),
            Column::Interval(array) => {
                let value = array.value(row);
                text::interval(out, value.months, value.days, value.nanoseconds / 1_000);
            }
            Column::Numeric(array, scale) => text::decimal(out, array.value(row), *scale),
            Column::List { lists, elements, .. } => {
                out.push('{');
                let mut element = String::new();
                for (at, index) in range(lists, row).enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    if elements.is_null(index) {
                        out.push_str("NULL");
                    } else {
                        element.clear();
                        elements.text(&mut element, index, zone);
                        text::element(out, &element);
                    }
                }
                out.push('}');
            }
        }
    }

    fn binary(&self, out: &mut BytesMut, row: usize) {
        match self {
            Column::Boolean(array) => out.put_u8(u8::from(array.value(row))),
            Column::Bytea(array) => out.put_slice(array.value(row)),
            Column::SmallInt(array) => out.put_i16(array.value(row)),
            Column::Integer(array) => out.put_i32(array.value(row)),
            Column::BigInt(array) => out.put_i64(array.value(row)),
            Column::Oid(array) => out.put_u32(array.value(row)),
            Column::Real(array) => out.put_f32(array.value(row)),
            Column::Double(array) => out.put_f64(array.value(row)),
            Column::Text(array) => out.put_slice(array.value(row).as_bytes()),
            Column::Jsonb(array) => {
                out.put_u8(JSONB_VERSION);
                out.put_slice(array.value(row).as_bytes());
            }
            Column::Uuid(array) => out.put_slice(array.value(row)),
            Column::Date(array) => out.put_i32(binary::day(array.value(row))),
            Column::Time(array) => out.put_i64(array.value(row)),
            Column::Timestamp(array) | Column::TimestampTz(array) => out.put_i64(binary::instant(array.value(row))),
            Column::Interval(array) => {
                let value = array.value(row);
                out.put_i64(value.nanoseconds / 1_000);
                out.put_i32(value.days);
                out.put_i32(value.months);
            }
            Column::Numeric(array, scale) => binary::numeric(out, array.value(row), *scale),
            Column::List { lists, elements, element_oid } => {
                let range = range(lists, row);
                let length = i32::try_from(range.len()).unwrap_or(i32::MAX);
                out.put_i32(i32::from(length > 0));
                out.put_i32(i32::from(range.clone().any(|index| elements.is_null(index))));
                out.put_u32(*element_oid);
                if length > 0 {
                    out.put_i32(length);
                    out.put_i32(1);
                }
                for index in range {
                    let at = out.len();
                    out.put_i32(-1);
                    if !elements.is_null(index) {
                        elements.binary(out, index);
                        patch_length(out, at, at + 4);
                    }
                }
            }
        }
    }
}

/// The places of a row's elements.
fn range(lists: &GenericListArray<i64>, row: usize) -> std::ops::Range<usize> {
    let place = |at: usize| usize::try_from(lists.value_offsets()[at]).expect("offsets are not negative");
    place(row)..place(row + 1)
}

fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    if array.data_type() == to {
        return Ok(array.clone());
    }
    // Any named zone holds the same instants.
    if let (DataType::Timestamp(from, Some(_)), DataType::Timestamp(unit, Some(_))) = (array.data_type(), to)
        && from == unit
    {
        return Ok(Arc::new(array.as_primitive::<arrow::datatypes::TimestampMicrosecondType>().clone()));
    }
    cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() })
}

fn printed(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array.as_ref(), &options)?;
    let rows = (0..array.len()).map(|row| (!array.is_null(row)).then(|| formatter.value(row).to_string()));
    Ok(Arc::new(rows.collect::<StringArray>()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, Int32Array, ListArray, UInt64Array};
    use arrow::datatypes::{Int32Type, Schema};

    use super::*;

    fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
        let fields: Vec<Field> = columns
            .iter()
            .enumerate()
            .map(|(at, column)| Field::new(format!("c{at}"), column.data_type().clone(), true))
            .collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    #[test]
    fn a_row_in_text_and_binary() {
        let words: DictionaryArray<Int32Type> = vec!["a", "b"].into_iter().collect();
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(vec![Some(7), None])),
            Arc::new(UInt64Array::from(vec![1, 2])),
            Arc::new(words),
            Arc::new(lists),
        ];
        let mut encoder = Encoder::new(&batch(columns), Zone::UTC).unwrap();
        let mut seen = Vec::new();
        for row in 0..2 {
            encoder.fields(row, |field| seen.push(field.map(str::to_owned)));
        }
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(seen, [text("7"), text("1"), text("a"), text("{1,NULL}"), None, text("2"), text("b"), None]);

        let mut out = BytesMut::new();
        encoder.data_row(&mut out, 1, &[Format::Binary, Format::Binary, Format::Text, Format::Binary]);
        let mut expected = vec![b'D', 0, 0, 0, 31, 0, 4, 255, 255, 255, 255, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 2];
        expected.extend([0, 0, 0, 1, b'b', 255, 255, 255, 255]);
        assert_eq!(out.as_ref(), expected);
    }

    #[test]
    fn a_number_beyond_its_type_is_refused() {
        let columns: Vec<ArrayRef> = vec![Arc::new(UInt64Array::from(vec![u64::MAX]))];
        assert!(Encoder::new(&batch(columns), Zone::UTC).is_err());
    }
}
