//! Values in PostgreSQL's binary forms: numeric and interval out, parameters in.

use arrow::array::{BinaryArray, IntervalMonthDayNanoArray};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use event::{ColumnType, UUID_BYTES};
use query::ScalarValue;
use query::binary::{EPOCH_DAYS, EPOCH_US, numeric_text, read_day, read_instant};
use query::text::ColumnBuilder;
use query::text::{JSONB_VERSION, Zone};

use crate::error::Failure;
use crate::message::utf8;

/// Decimal digits of one digit of a numeric, whose base is 10,000.
const NUMERIC_GROUP_DIGITS: usize = 4;

/// An instant as microseconds since 2000; the infinities stay what they are.
pub(crate) fn instant(us: i64) -> i64 {
    if us == i64::MAX || us == i64::MIN { us } else { us.saturating_sub(EPOCH_US) }
}

/// A day as days since 2000; the infinities stay what they are.
pub(crate) fn day(days: i32) -> i32 {
    if days == i32::MAX || days == i32::MIN { days } else { days.saturating_sub(EPOCH_DAYS) }
}

/// A decimal in groups of four digits, none of zeros at either end.
pub(crate) fn numeric(out: &mut BytesMut, value: i128, scale: i8) {
    let shown = usize::from(scale.max(0).unsigned_abs());
    let mut digits = value.unsigned_abs().to_string();
    digits.extend(std::iter::repeat_n('0', usize::from(scale.min(0).unsigned_abs())));
    let digits = format!("{digits:0>width$}", width = shown + 1);
    let (whole, fraction) = digits.split_at(digits.len() - shown);
    let groups_before = whole.len().div_ceil(NUMERIC_GROUP_DIGITS);
    let before = groups_before * NUMERIC_GROUP_DIGITS;
    let after = shown.next_multiple_of(NUMERIC_GROUP_DIGITS);
    let filled = format!("{whole:0>before$}{fraction:0<after$}");
    let group = |digits: &[u8]| digits.iter().fold(0, |sum, digit| sum * 10 + i16::from(digit - b'0'));
    let groups: Vec<i16> = filled.as_bytes().chunks(NUMERIC_GROUP_DIGITS).map(group).collect();
    let first = groups.iter().position(|group| *group != 0).unwrap_or(groups.len());
    let end = groups.iter().rposition(|group| *group != 0).map_or(first, |last| last + 1);
    let small = |number: usize| i16::try_from(number).expect("a decimal has few digits");
    let weight = if first == end { 0 } else { small(groups_before) - 1 - small(first) };
    out.put_i16(small(end - first));
    out.put_i16(weight);
    out.put_u16(if value < 0 { 0x4000 } else { 0 });
    out.put_i16(small(shown));
    for group in &groups[first..end] {
        out.put_i16(*group);
    }
}

/// A parameter as its type's value.
///
/// # Errors
/// 22P03 when the bytes are not of the type's length, 22008 beyond PostgreSQL's calendar, 22021 for text that is none, 0A000 for types without a binary form here.
pub(crate) fn parameter(bytes: Bytes, field: &Field, zone: &Zone) -> Result<ScalarValue, Failure> {
    let data_type = field.data_type();
    let malformed = || Failure::new("22P03", "incorrect binary data format in bind parameter");
    let mut rest = bytes.clone();
    let expected = match data_type {
        DataType::Boolean => Some(1),
        DataType::Int16 => Some(2),
        DataType::Int32 | DataType::UInt32 | DataType::Float32 | DataType::Date32 => Some(4),
        DataType::Int64 | DataType::UInt64 | DataType::Float64 | DataType::Timestamp(..) | DataType::Time64(_) => {
            Some(8)
        }
        DataType::Interval(_) | DataType::FixedSizeBinary(UUID_BYTES) => Some(16),
        _ => None,
    };
    if expected.is_some_and(|expected| expected != bytes.len()) {
        return Err(malformed());
    }
    let value = match data_type {
        DataType::Boolean => ScalarValue::Boolean(Some(rest.get_u8() != 0)),
        DataType::Int16 => ScalarValue::Int16(Some(rest.get_i16())),
        DataType::Int32 => ScalarValue::Int32(Some(rest.get_i32())),
        DataType::UInt32 => ScalarValue::UInt32(Some(rest.get_u32())),
        DataType::Int64 => ScalarValue::Int64(Some(rest.get_i64())),
        DataType::UInt64 => ScalarValue::UInt64(Some(u64::try_from(rest.get_i64()).map_err(|_| malformed())?)),
        DataType::Float32 => ScalarValue::Float32(Some(rest.get_f32())),
        DataType::Float64 => ScalarValue::Float64(Some(rest.get_f64())),
        DataType::Date32 => ScalarValue::Date32(Some(read_day(rest.get_i32()).map_err(reported)?)),
        DataType::Timestamp(_, zone) => {
            let value =
                ScalarValue::TimestampMicrosecond(Some(read_instant(rest.get_i64()).map_err(reported)?), zone.clone());
            value.cast_to(data_type).map_err(|_| malformed())?
        }
        DataType::Interval(_) => {
            let (us, days, months) = (rest.get_i64(), rest.get_i32(), rest.get_i32());
            let nanoseconds = us.checked_mul(1_000).ok_or_else(malformed)?;
            let array = IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano { months, days, nanoseconds }]);
            ScalarValue::try_from_array(&array, 0).map_err(|_| malformed())?
        }
        DataType::Binary => {
            let array = BinaryArray::from(vec![bytes.as_ref()]);
            ScalarValue::try_from_array(&array, 0).map_err(|_| malformed())?
        }
        DataType::Time64(_) => ScalarValue::Time64Microsecond(Some(rest.get_i64())),
        DataType::FixedSizeBinary(UUID_BYTES) => ScalarValue::FixedSizeBinary(UUID_BYTES, Some(bytes.to_vec())),
        DataType::Utf8 if ColumnType::json_of(field) == Some(ColumnType::Jsonb) => {
            let text = bytes.strip_prefix(&[JSONB_VERSION]).ok_or_else(malformed)?;
            return read_text(utf8(text)?, data_type, zone);
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
            return read_text(utf8(&bytes)?, data_type, zone);
        }
        DataType::List(element) if matches!(element.data_type(), DataType::Decimal128(..)) => {
            return query::text::numerics_of(&bytes).map_err(reported);
        }
        DataType::List(_) => {
            let column_type = ColumnType::of(field).ok_or_else(malformed)?;
            let mut array = ColumnBuilder::new(column_type, *zone);
            array.append_binary(&bytes).map_err(reported)?;
            ScalarValue::try_from_array(&array.finish(), 0).map_err(|_| malformed())?
        }
        DataType::Decimal128(..) => return read_text(&numeric_text(&bytes).ok_or_else(malformed)?, data_type, zone),
        other => {
            return Err(Failure::new("0A000", format!("binary parameters of type {other} are not supported")));
        }
    };
    Ok(value)
}

/// A parameter in text form.
pub(crate) fn read_text(text: &str, data_type: &DataType, zone: &Zone) -> Result<ScalarValue, Failure> {
    query::text::parse_parameter(text, data_type, zone).map_err(reported)
}

fn reported(report: Box<query::Report>) -> Failure {
    query::Error::Reported(report).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numerics_go_out_and_come_back() {
        for (value, scale, expected) in [
            (0, 0, "0000"),
            (5, 2, "0000.05"),
            (-123_456_789, 4, "-00012345.6789"),
            (10_000, 0, "00010000"),
            (1_234_567, 1, "00123456.7"),
            (7, -3, "7000"),
            // The fraction of a number with more digits than fit u128 with its last group filled up.
            (12_345_678_901_234_567_890_123_456_789_012_345_678, 2, "123456789012345678901234567890123456.78"),
        ] {
            let mut out = BytesMut::new();
            numeric(&mut out, value, scale);
            assert_eq!(numeric_text(&out).unwrap(), expected, "{value} {scale}");
        }
    }

    #[test]
    fn a_parameter_of_the_wrong_length_is_refused() {
        assert!(parameter(Bytes::from_static(&[0; 3]), &Field::new("", DataType::Int32, true), &Zone::UTC).is_err());
        let value =
            parameter(Bytes::from_static(&[0, 0, 0, 7]), &Field::new("", DataType::Int32, true), &Zone::UTC).unwrap();
        assert_eq!(value, ScalarValue::Int32(Some(7)));
    }
}
