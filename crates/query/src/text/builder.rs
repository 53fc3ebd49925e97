//! A column under construction, fed with text, binary values or scalars.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder, Int16Builder,
    Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use event::ColumnType;

use super::number::{parse_boolean, parse_decimal, parse_float, parse_integer};
use super::time::{parse_date, parse_timestamp, parse_timestamptz};
use super::zone::Zone;
use super::{Refused, refused};
use crate::binary;
use crate::error::Condition;

/// Builds an Arrow array of one column type from what clients send.
#[derive(Debug)]
pub struct ColumnBuilder {
    values: Values,
    zone: Zone,
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
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    TimestampTz(TimestampMicrosecondBuilder),
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
            Values::Text($builder) => $do,
            Values::Date($builder) => $do,
            Values::Timestamp($builder) => $do,
            Values::TimestampTz($builder) => $do,
        }
    };
}

impl ColumnBuilder {
    /// An empty column; timestamps with time zone that name no zone are read in `zone`.
    pub fn new(column_type: ColumnType, zone: Zone) -> Self {
        let values = match column_type {
            ColumnType::SmallInt => Values::SmallInt(Int16Builder::new()),
            ColumnType::Integer => Values::Integer(Int32Builder::new()),
            ColumnType::BigInt => Values::BigInt(Int64Builder::new()),
            ColumnType::Real => Values::Real(Float32Builder::new()),
            ColumnType::Double => Values::Double(Float64Builder::new()),
            ColumnType::Numeric { precision, scale } => {
                let builder = Decimal128Builder::new().with_data_type(DataType::Decimal128(precision, scale));
                Values::Numeric(builder, precision, scale)
            }
            ColumnType::Boolean => Values::Boolean(BooleanBuilder::new()),
            ColumnType::Text => Values::Text(StringBuilder::new()),
            ColumnType::Date => Values::Date(Date32Builder::new()),
            ColumnType::Timestamp => Values::Timestamp(TimestampMicrosecondBuilder::new()),
            ColumnType::TimestampTz => {
                Values::TimestampTz(TimestampMicrosecondBuilder::new().with_data_type(column_type.arrow()))
            }
        };
        Self { values, zone, bytes: 0 }
    }

    /// Adds NULL.
    pub fn append_null(&mut self) {
        each!(&mut self.values, builder => builder.append_null());
        self.bytes += 8;
    }

    /// Adds the value that `text` writes.
    ///
    /// # Errors
    /// PostgreSQL's refusal of the text; nothing is added then.
    pub fn append_text(&mut self, text: &str) -> Result<(), Refused> {
        match &mut self.values {
            Values::SmallInt(builder) => builder.append_value(parse_integer(text, "smallint")?),
            Values::Integer(builder) => builder.append_value(parse_integer(text, "integer")?),
            Values::BigInt(builder) => builder.append_value(parse_integer(text, "bigint")?),
            Values::Real(builder) => builder.append_value(parse_float(text, "real", |v: &f32| v.is_finite())?),
            Values::Double(builder) => {
                builder.append_value(parse_float(text, "double precision", |v: &f64| v.is_finite())?);
            }
            Values::Numeric(builder, precision, scale) => {
                builder.append_value(parse_decimal(text, *precision, *scale)?);
            }
            Values::Boolean(builder) => builder.append_value(parse_boolean(text)?),
            Values::Text(builder) => {
                if text.contains('\0') {
                    let message = "invalid byte sequence for encoding \"UTF8\": 0x00".to_string();
                    return Err(refused(Condition::CharacterNotInRepertoire, message));
                }
                builder.append_value(text);
                self.bytes += text.len();
            }
            Values::Date(builder) => builder.append_value(parse_date(text)?),
            Values::Timestamp(builder) => builder.append_value(parse_timestamp(text)?),
            Values::TimestampTz(builder) => builder.append_value(parse_timestamptz(text, &self.zone)?),
        }
        self.bytes += 8;
        Ok(())
    }

    /// Adds the value whose binary form `bytes` are.
    ///
    /// # Errors
    /// 22P03 for bytes that are no value of the type, 22008 beyond the calendar, 22003 for too many digits, 22021 for text that is none;
    /// nothing is added then.
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
            Values::Text(_) => return self.append_text(binary::text(bytes)?),
            Values::Date(builder) => {
                let days = binary::read_day(i32::from_be_bytes(binary::fixed(bytes)?))?;
                builder.append_value(binary::finite(days, [i32::MIN, i32::MAX], "date")?);
            }
            Values::Timestamp(builder) | Values::TimestampTz(builder) => builder.append_value(instant(bytes)?),
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
            (Values::Date(builder), ScalarValue::Date32(Some(value))) => builder.append_value(*value),
            (Values::Timestamp(builder), ScalarValue::TimestampMicrosecond(Some(value), None))
            | (Values::TimestampTz(builder), ScalarValue::TimestampMicrosecond(Some(value), Some(_))) => {
                builder.append_value(*value);
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
        each!(&mut self.values, builder => Arc::new(builder.finish()))
    }
}

/// Reads one value of an Arrow type from its PostgreSQL text form, for text parameters.
///
/// # Errors
/// PostgreSQL's refusal of the text; 0A000 for a type without a text form here.
pub fn parse_scalar(text: &str, data_type: &DataType, zone: &Zone) -> Result<ScalarValue, Refused> {
    let column_type = match data_type {
        DataType::Int8 | DataType::Int16 => ColumnType::SmallInt,
        DataType::Int32 => ColumnType::Integer,
        DataType::Int64 | DataType::UInt64 | DataType::UInt32 => ColumnType::BigInt,
        DataType::Float32 => ColumnType::Real,
        DataType::Float64 => ColumnType::Double,
        DataType::Decimal128(precision, scale) => ColumnType::Numeric { precision: *precision, scale: *scale },
        DataType::Boolean => ColumnType::Boolean,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => ColumnType::Text,
        DataType::Date32 => ColumnType::Date,
        DataType::Timestamp(_, None) => ColumnType::Timestamp,
        DataType::Timestamp(_, Some(_)) => ColumnType::TimestampTz,
        DataType::Interval(_) => {
            return ScalarValue::from(text).cast_to(data_type).map_err(|_| super::invalid("interval", text));
        }
        other => {
            let message = format!("parameters of type {other} are not supported");
            return Err(refused(Condition::FeatureNotSupported, message));
        }
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
