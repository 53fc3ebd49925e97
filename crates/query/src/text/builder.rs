//! A column under construction, fed with text, binary values or scalars.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, FixedSizeBinaryBuilder,
    Float32Builder, Float64Builder, Int16Builder, Int32Builder, Int64Builder, IntervalMonthDayNanoBuilder, ListArray,
    NullBufferBuilder, StringBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use event::{Column, ColumnType, ElementType, Modifier, UUID_BYTES};

use super::array::{binary_array, parse_array};
use super::bytes::{parse_bytea, parse_uuid};
use super::interval::parse_interval;
use super::json::{checked_json, parse_jsonb};
use super::modifier::{fit_text, rounded};
use super::number::{parse_boolean, parse_decimal, parse_float, parse_integer};
use super::time::{DAY_US, parse_date, parse_time, parse_timestamp, parse_timestamptz};
use super::zone::Zone;
use super::{Refused, refused};
use crate::binary;
use crate::error::Condition;

/// The first byte of a jsonb in binary form; text follows.
pub const JSONB_VERSION: u8 = 1;
/// Values a column has room for when nobody knows how many will come.
const ROWS_USUAL: usize = 1024;
/// Bytes of a text when nobody knows how long it will be.
const TEXT_BYTES_USUAL: usize = 16;

/// Builds an Arrow array of one column type from what clients send.
#[derive(Debug)]
pub struct ColumnBuilder {
    values: Values,
    zone: Zone,
    modifier: Option<Modifier>,
    bytes: usize,
}

#[derive(Debug)]
enum Values {
    SmallInt(Int16Builder),
    Integer(Int32Builder),
    BigInt(Int64Builder),
    Real(Float32Builder),
    Double(Float64Builder),
    Numeric(Decimal128Builder, u8, i8),
    Boolean(BooleanBuilder),
    Text(StringBuilder),
    Bytea(BinaryBuilder),
    Uuid(FixedSizeBinaryBuilder),
    Json(StringBuilder),
    Jsonb(StringBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    TimestampTz(TimestampMicrosecondBuilder),
    Interval(IntervalMonthDayNanoBuilder),
    Array(Box<Lists>),
}

/// Arrays so far.
#[derive(Debug)]
struct Lists {
    element: ElementType,
    elements: ColumnBuilder,
    /// Of each array, 0 for NULL.
    lengths: Vec<usize>,
    nulls: NullBufferBuilder,
}

impl Lists {
    fn new(element: ElementType, zone: Zone, rows: usize) -> Lists {
        let elements = ColumnBuilder::with_capacity(element.get(), zone, rows);
        Lists { element, elements, lengths: Vec::with_capacity(rows), nulls: NullBufferBuilder::new(0) }
    }

    fn append_null(&mut self) {
        self.lengths.push(0);
        self.nulls.append_null();
    }

    /// Adds an array with these elements; `false` when they are not of its type, and nothing is added then.
    fn append_array(&mut self, elements: &ArrayRef) -> bool {
        let json = matches!(self.element.get(), ColumnType::Json | ColumnType::Jsonb);
        let is_json = |text: &str| parse_json(text, self.element.get()).is_ok();
        // Text alone does not say whether it is JSON.
        if *elements.data_type() != self.element.get().arrow()
            || json && !elements.as_string::<i32>().iter().flatten().all(is_json)
        {
            return false;
        }
        for at in 0..elements.len() {
            let added = match ScalarValue::try_from_array(elements, at) {
                Ok(ScalarValue::Utf8(Some(text))) => self.elements.append_text(&text).is_ok(),
                Ok(element) => self.elements.append_scalar(&element),
                Err(_) => false,
            };
            assert!(added, "elements of the column's type are added");
        }
        self.end(elements.len());
        true
    }

    /// Ends an array of so many elements.
    fn end(&mut self, elements: usize) {
        self.lengths.push(elements);
        self.nulls.append_non_null();
    }

    fn finish(&mut self) -> ListArray {
        let offsets = OffsetBuffer::from_lengths(std::mem::take(&mut self.lengths));
        ListArray::new(self.element.field(), offsets, self.elements.finish(), self.nulls.finish())
    }
}

/// Does the same to whichever builder it is.
macro_rules! each {
    ($values:expr, $builder:ident => $do:expr) => {
        match $values {
            Values::SmallInt($builder) => $do,
            Values::Integer($builder) => $do,
            Values::BigInt($builder) => $do,
            Values::Real($builder) => $do,
            Values::Double($builder) => $do,
            Values::Numeric($builder, _, _) => $do,
            Values::Boolean($builder) => $do,
            Values::Text($builder) | Values::Json($builder) | Values::Jsonb($builder) => $do,
            Values::Bytea($builder) => $do,
            Values::Uuid($builder) => $do,
            Values::Date($builder) => $do,
            Values::Time($builder) => $do,
            Values::Timestamp($builder) => $do,
            Values::TimestampTz($builder) => $do,
            Values::Interval($builder) => $do,
            Values::Array($builder) => $do,
        }
    };
}

impl ColumnBuilder {
    /// An empty column; timestamps with time zone that name no zone are read in `zone`.
    pub fn new(column_type: ColumnType, zone: Zone) -> Self {
        Self::with_capacity(column_type, zone, ROWS_USUAL)
    }

    /// The same with room for so many values. What is not used of it stays with the column, so a few rows should not take room for many.
    pub fn with_capacity(column_type: ColumnType, zone: Zone, rows: usize) -> Self {
        let text = || StringBuilder::with_capacity(rows, rows * TEXT_BYTES_USUAL);
        let values = match column_type {
            ColumnType::SmallInt => Values::SmallInt(Int16Builder::with_capacity(rows)),
            ColumnType::Integer => Values::Integer(Int32Builder::with_capacity(rows)),
            ColumnType::BigInt => Values::BigInt(Int64Builder::with_capacity(rows)),
            ColumnType::Real => Values::Real(Float32Builder::with_capacity(rows)),
            ColumnType::Double => Values::Double(Float64Builder::with_capacity(rows)),
            ColumnType::Numeric { precision, scale } => {
                let builder = Decimal128Builder::with_capacity(rows);
                Values::Numeric(builder.with_data_type(DataType::Decimal128(precision, scale)), precision, scale)
            }
            ColumnType::Boolean => Values::Boolean(BooleanBuilder::with_capacity(rows)),
            ColumnType::Text => Values::Text(text()),
            ColumnType::Bytea => Values::Bytea(BinaryBuilder::with_capacity(rows, rows * TEXT_BYTES_USUAL)),
            ColumnType::Uuid => Values::Uuid(FixedSizeBinaryBuilder::with_capacity(rows, UUID_BYTES)),
            ColumnType::Json => Values::Json(text()),
            ColumnType::Jsonb => Values::Jsonb(text()),
            ColumnType::Date => Values::Date(Date32Builder::with_capacity(rows)),
            ColumnType::Time => Values::Time(Time64MicrosecondBuilder::with_capacity(rows)),
            ColumnType::Timestamp => Values::Timestamp(TimestampMicrosecondBuilder::with_capacity(rows)),
            ColumnType::Interval => Values::Interval(IntervalMonthDayNanoBuilder::with_capacity(rows)),
            ColumnType::Array(element) => Values::Array(Box::new(Lists::new(element, zone, rows))),
            ColumnType::TimestampTz => {
                let builder = TimestampMicrosecondBuilder::with_capacity(rows);
                Values::TimestampTz(builder.with_data_type(column_type.arrow()))
            }
        };
        Self { values, zone, modifier: None, bytes: 0 }
    }

    /// For the values of a column, as long and as fine as its modifier lets them be.
    pub(crate) fn of(column: &Column, zone: Zone, rows: usize) -> Self {
        let mut builder = Self::with_capacity(column.column_type, zone, rows);
        if let Values::Array(lists) = &mut builder.values {
            lists.elements.modifier = column.modifier;
        }
        builder.modifier = column.modifier;
        builder
    }

    /// For the values of a column that come without a number.
    pub(crate) fn of_usual(column: &Column, zone: Zone) -> Self {
        Self::of(column, zone, ROWS_USUAL)
    }

    /// Adds NULL.
    pub fn append_null(&mut self) {
        each!(&mut self.values, builder => builder.append_null());
        self.bytes += 8;
    }

    /// Adds the value that `text` writes.
    ///
    /// # Errors
    /// PostgreSQL's refusal of the text; nothing is added then, but for elements of an array, after which the column is of no more use.
    pub fn append_text(&mut self, text: &str) -> Result<(), Refused> {
        match &mut self.values {
            Values::SmallInt(builder) => builder.append_value(parse_integer(text, "smallint")?),
            Values::Integer(builder) => builder.append_value(parse_integer(text, "integer")?),
            Values::BigInt(builder) => builder.append_value(parse_integer(text, "bigint")?),
            Values::Real(builder) => {
                builder.append_value(parse_float(text, "real", |v: &f32| v.is_finite() && *v != 0.0)?)
            }
            Values::Double(builder) => {
                builder.append_value(parse_float(text, "double precision", |v: &f64| v.is_finite() && *v != 0.0)?);
            }
            Values::Numeric(builder, precision, scale) => {
                builder.append_value(parse_decimal(text, *precision, *scale)?);
            }
            Values::Boolean(builder) => builder.append_value(parse_boolean(text)?),
            Values::Text(builder) => {
                without_zeros(text)?;
                let text = match self.modifier {
                    Some(Modifier::Varchar { length: Some(length) }) => fit_text(text, length)?,
                    _ => text,
                };
                builder.append_value(text);
                self.bytes += text.len();
            }
            Values::Bytea(builder) => {
                let value = parse_bytea(text)?;
                builder.append_value(&value);
                self.bytes += value.len();
            }
            Values::Uuid(builder) => add_uuid(builder, &parse_uuid(text)?),
            Values::Json(builder) => {
                builder.append_value(checked_json(text)?);
                self.bytes += text.len();
            }
            Values::Jsonb(builder) => {
                let value = parse_jsonb(text)?;
                builder.append_value(&value);
                self.bytes += value.len();
            }
            Values::Date(builder) => builder.append_value(parse_date(text)?),
            Values::Time(builder) => builder.append_value(parse_time(text)?),
            Values::Timestamp(builder) => builder.append_value(parse_timestamp(text)?),
            Values::TimestampTz(builder) => builder.append_value(parse_timestamptz(text, &self.zone)?),
            Values::Interval(builder) => builder.append_value(parse_interval(text)?),
            Values::Array(lists) => {
                let elements = parse_array(text)?;
                for element in &elements {
                    match element {
                        Some(text) => lists.elements.append_text(text)?,
                        None => lists.elements.append_null(),
                    }
                }
                lists.end(elements.len());
                self.bytes += text.len();
            }
        }
        self.bytes += 8;
        Ok(())
    }

    /// Adds the value whose binary form `bytes` are.
    ///
    /// # Errors
    /// 22P03 for bytes that are no value of the type, 22008 beyond the calendar, 22003 for too many digits, 22021 for text that is none;
    /// nothing is added then, but for elements of an array, as with [`ColumnBuilder::append_text`].
    pub fn append_binary(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let instant = |bytes| {
            let us = binary::read_instant(i64::from_be_bytes(binary::fixed(bytes)?))?;
            binary::finite(us, [i64::MIN, i64::MAX], "timestamp")
        };
        match &mut self.values {
            Values::SmallInt(builder) => builder.append_value(i16::from_be_bytes(binary::fixed(bytes)?)),
            Values::Integer(builder) => builder.append_value(i32::from_be_bytes(binary::fixed(bytes)?)),
            Values::BigInt(builder) => builder.append_value(i64::from_be_bytes(binary::fixed(bytes)?)),
            Values::Real(builder) => builder.append_value(f32::from_be_bytes(binary::fixed(bytes)?)),
            Values::Double(builder) => builder.append_value(f64::from_be_bytes(binary::fixed(bytes)?)),
            Values::Numeric(builder, precision, scale) => {
                let text = binary::numeric_text(bytes).ok_or_else(binary::malformed)?;
                builder.append_value(parse_decimal(&text, *precision, *scale)?);
            }
            Values::Boolean(builder) => builder.append_value(binary::fixed::<1>(bytes)? != [0]),
            Values::Text(_) | Values::Json(_) => return self.append_text(binary::text(bytes)?),
            Values::Jsonb(_) => match bytes.split_first() {
                Some((&JSONB_VERSION, text)) => return self.append_text(binary::text(text)?),
                _ => return Err(binary::malformed()),
            },
            Values::Bytea(builder) => {
                builder.append_value(bytes);
                self.bytes += bytes.len();
            }
            Values::Uuid(builder) => add_uuid(builder, &binary::fixed::<16>(bytes)?),
            Values::Date(builder) => {
                let days = binary::read_day(i32::from_be_bytes(binary::fixed(bytes)?))?;
                builder.append_value(binary::finite(days, [i32::MIN, i32::MAX], "date")?);
            }
            Values::Time(builder) => {
                let us = i64::from_be_bytes(binary::fixed(bytes)?);
                if !(0..=DAY_US).contains(&us) {
                    return Err(refused(Condition::DatetimeOverflow, "time out of range".to_owned()));
                }
                builder.append_value(us);
            }
            Values::Timestamp(builder) | Values::TimestampTz(builder) => builder.append_value(instant(bytes)?),
            Values::Interval(builder) => {
                let beyond = || refused(Condition::DatetimeOverflow, "interval out of range".to_owned());
                builder.append_value(event::interval::from_bytes(binary::fixed(bytes)?).ok_or_else(beyond)?);
            }
            Values::Array(lists) => {
                let elements = binary_array(bytes, binary::type_oid(lists.element.get()))?;
                for element in &elements {
                    match element {
                        Some(bytes) => lists.elements.append_binary(bytes)?,
                        None => lists.elements.append_null(),
                    }
                }
                lists.end(elements.len());
                self.bytes += bytes.len();
            }
        }
        self.bytes += 8;
        Ok(())
    }

    /// Adds a value that has the column's own Arrow type already; `false` when it has not, and nothing is added then.
    pub fn append_scalar(&mut self, value: &ScalarValue) -> bool {
        match (&mut self.values, value) {
            (Values::SmallInt(builder), ScalarValue::Int16(Some(value))) => builder.append_value(*value),
            (Values::Integer(builder), ScalarValue::Int32(Some(value))) => builder.append_value(*value),
            (Values::BigInt(builder), ScalarValue::Int64(Some(value))) => builder.append_value(*value),
            (Values::Real(builder), ScalarValue::Float32(Some(value))) => builder.append_value(*value),
            (Values::Double(builder), ScalarValue::Float64(Some(value))) => builder.append_value(*value),
            (Values::Numeric(builder, precision, scale), ScalarValue::Decimal128(Some(value), p, s))
                if (p, s) == (precision, scale) =>
            {
                builder.append_value(*value);
            }
            (Values::Boolean(builder), ScalarValue::Boolean(Some(value))) => builder.append_value(*value),
            (Values::Bytea(builder), ScalarValue::Binary(Some(value))) => {
                builder.append_value(value);
                self.bytes += value.len();
            }
            (Values::Uuid(builder), ScalarValue::FixedSizeBinary(UUID_BYTES, Some(value))) => add_uuid(builder, value),
            (Values::Date(builder), ScalarValue::Date32(Some(value))) => builder.append_value(*value),
            (Values::Time(builder), ScalarValue::Time64Microsecond(Some(value))) => builder.append_value(*value),
            (Values::Timestamp(builder), ScalarValue::TimestampMicrosecond(Some(value), None))
            | (Values::TimestampTz(builder), ScalarValue::TimestampMicrosecond(Some(value), Some(_))) => {
                builder.append_value(*value);
            }
            (Values::Interval(builder), ScalarValue::IntervalMonthDayNano(Some(value))) => builder.append_value(*value),
            (Values::Array(lists), ScalarValue::List(value)) if value.is_valid(0) => {
                let elements = value.value(0);
                if !lists.append_array(&elements) {
                    return false;
                }
                self.bytes += elements.get_array_memory_size();
            }
            (_, value) if value.is_null() => self.append_null(),
            _ => return false,
        }
        self.bytes += 8;
        true
    }

    /// About how many bytes the column takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The column so far; the builder is empty afterwards.
    pub fn finish(&mut self) -> ArrayRef {
        self.bytes = 0;
        let values: ArrayRef = each!(&mut self.values, builder => Arc::new(builder.finish()));
        match self.modifier {
            Some(Modifier::Fraction { digits }) => rounded(&values, digits),
            _ => values,
        }
    }
}

/// Reads a JSON value of one of its two types.
///
/// # Errors
/// PostgreSQL's refusal of the text.
pub(crate) fn parse_json(text: &str, json: ColumnType) -> Result<ScalarValue, Refused> {
    let value = match json {
        ColumnType::Jsonb => parse_jsonb(text)?,
        _ => checked_json(text)?.to_owned(),
    };
    Ok(ScalarValue::Utf8(Some(value)))
}

fn add_uuid(builder: &mut FixedSizeBinaryBuilder, value: &[u8]) {
    builder.append_value(value).expect("a UUID has the builder's length");
}

/// # Errors
/// 22021 for the one character that PostgreSQL's text cannot hold.
pub(super) fn without_zeros(text: &str) -> Result<(), Refused> {
    if text.contains('\0') {
        let message = "invalid byte sequence for encoding \"UTF8\": 0x00".to_string();
        return Err(refused(Condition::CharacterNotInRepertoire, message));
    }
    Ok(())
}

/// Reads one value of an Arrow type from its PostgreSQL text form, for text parameters.
///
/// # Errors
/// PostgreSQL's refusal of the text; 0A000 for a type without a text form here.
pub fn parse_scalar(text: &str, data_type: &DataType, zone: &Zone) -> Result<ScalarValue, Refused> {
    let Some(column_type) = read_as(data_type) else {
        let message = format!("parameters of type {data_type} are not supported");
        return Err(refused(Condition::FeatureNotSupported, message));
    };
    let mut builder = ColumnBuilder::new(column_type, *zone);
    builder.append_text(text)?;
    let value = ScalarValue::try_from_array(&builder.finish(), 0).expect("one value was appended");
    if value.data_type() == *data_type || matches!(data_type, DataType::Null) {
        return Ok(value);
    }
    debug_assert!(!matches!(data_type, DataType::Timestamp(TimeUnit::Microsecond, None)));
    value.cast_to(data_type).map_err(|error| refused(Condition::NumericOutOfRange, error.to_string()))
}

/// The column type whose text form values of an Arrow type have.
fn read_as(data_type: &DataType) -> Option<ColumnType> {
    Some(match data_type {
        DataType::Int8 | DataType::Int16 => ColumnType::SmallInt,
        DataType::Int32 => ColumnType::Integer,
        DataType::Int64 | DataType::UInt64 | DataType::UInt32 => ColumnType::BigInt,
        DataType::Float32 => ColumnType::Real,
        DataType::Float64 => ColumnType::Double,
        DataType::Decimal128(precision, scale) => ColumnType::Numeric { precision: *precision, scale: *scale },
        DataType::Boolean => ColumnType::Boolean,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => ColumnType::Text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => ColumnType::Bytea,
        DataType::FixedSizeBinary(UUID_BYTES) => ColumnType::Uuid,
        DataType::Date32 => ColumnType::Date,
        DataType::Time64(_) => ColumnType::Time,
        DataType::Timestamp(_, None) => ColumnType::Timestamp,
        DataType::Timestamp(_, Some(_)) => ColumnType::TimestampTz,
        DataType::Interval(_) => ColumnType::Interval,
        DataType::List(element) => {
            ColumnType::json_of(element).or_else(|| read_as(element.data_type())).and_then(ColumnType::array)?
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_of_one_value_is_small() {
        let numeric = ColumnType::Numeric { precision: 10, scale: 2 };
        for column_type in [ColumnType::BigInt, ColumnType::Double, numeric, ColumnType::Text, ColumnType::TimestampTz]
        {
            let mut column = ColumnBuilder::with_capacity(column_type, Zone::UTC, 1);
            column.append_null();
            let bytes = column.finish().get_buffer_memory_size();
            assert!(bytes <= 512, "{column_type}: {bytes} bytes");
        }
    }
}
