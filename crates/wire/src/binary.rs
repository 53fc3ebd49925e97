//! Values in PostgreSQL's binary forms: numeric and interval out, parameters in.

use arrow::array::{BinaryArray, IntervalMonthDayNanoArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use query::ScalarValue;
use query::text::Zone;

use crate::error::Failure;

/// Microseconds and days from 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
pub(crate) const EPOCH_US: i64 = 946_684_800_000_000;
pub(crate) const EPOCH_DAYS: i32 = 10_957;
/// Base of the digits of a numeric.
const NUMERIC_BASE: i128 = 10_000;
const NUMERIC_BASE_DIGITS: i8 = 4;

/// An instant as microseconds since 2000; the infinities stay what they are.
pub(crate) fn instant(us: i64) -> i64 {
    if us == i64::MAX || us == i64::MIN { us } else { us.saturating_sub(EPOCH_US) }
}

/// A day as days since 2000; the infinities stay what they are.
pub(crate) fn day(days: i32) -> i32 {
    if days == i32::MAX || days == i32::MIN { days } else { days.saturating_sub(EPOCH_DAYS) }
}

/// A decimal in digits of base 10,000.
pub(crate) fn numeric(out: &mut BytesMut, value: i128, scale: i8) {
    let shown = scale.max(0);
    // Digits after the point come in groups of four: the last group is filled up.
    let fill = (NUMERIC_BASE_DIGITS - shown % NUMERIC_BASE_DIGITS) % NUMERIC_BASE_DIGITS;
    let (mut rest, groups_after) = match value.unsigned_abs().checked_mul(10_u128.pow(u32::from(fill.unsigned_abs()))) {
        Some(filled) => (filled, (shown + fill) / NUMERIC_BASE_DIGITS),
        // More than 38 digits: the last group is dropped, it is beyond what the type holds.
        None => (value.unsigned_abs() / 10_u128.pow(u32::from(shown.unsigned_abs() % 4)), shown / NUMERIC_BASE_DIGITS),
    };
    if scale < 0 {
        rest = rest.saturating_mul(10_u128.pow(u32::from(scale.unsigned_abs())));
    }
    let mut digits = Vec::new();
    while rest != 0 {
        digits.push(i16::try_from(rest % NUMERIC_BASE.unsigned_abs()).expect("a digit is below 10,000"));
        rest /= NUMERIC_BASE.unsigned_abs();
    }
    let count = i16::try_from(digits.len()).expect("38 digits are few groups");
    let weight = count - 1 - i16::from(groups_after);
    digits.reverse();
    out.put_i16(count);
    out.put_i16(if count == 0 { 0 } else { weight });
    out.put_u16(if value < 0 { 0x4000 } else { 0 });
    out.put_i16(i16::from(shown));
    for digit in digits {
        out.put_i16(digit);
    }
}

/// A parameter as its type's value.
///
/// # Errors
/// 22P03 when the bytes are not of the type's length, 0A000 for types without a binary form here.
pub(crate) fn parameter(bytes: Bytes, data_type: &DataType, zone: &Zone) -> Result<ScalarValue, Failure> {
    let malformed = || Failure::new("22P03", "incorrect binary data format in bind parameter");
    let mut rest = bytes.clone();
    let expected = match data_type {
        DataType::Boolean => Some(1),
        DataType::Int16 => Some(2),
        DataType::Int32 | DataType::UInt32 | DataType::Float32 | DataType::Date32 => Some(4),
        DataType::Int64 | DataType::UInt64 | DataType::Float64 | DataType::Timestamp(..) | DataType::Time64(_) => {
            Some(8)
        }
        DataType::Interval(_) => Some(16),
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
        DataType::Date32 => ScalarValue::Date32(Some(rest.get_i32().saturating_add(EPOCH_DAYS))),
        DataType::Timestamp(_, zone) => {
            let us = rest.get_i64();
            let us = if us == i64::MAX || us == i64::MIN { us } else { us.saturating_add(EPOCH_US) };
            let value = ScalarValue::TimestampMicrosecond(Some(us), zone.clone());
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
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
            let text = std::str::from_utf8(&bytes)
                .map_err(|_| Failure::new("22021", "invalid byte sequence for encoding \"UTF8\""))?;
            return read_text(text, data_type, zone);
        }
        DataType::Decimal128(..) => return read_text(&numeric_text(&mut rest).ok_or_else(malformed)?, data_type, zone),
        other => {
            return Err(Failure::new("0A000", format!("binary parameters of type {other} are not supported")));
        }
    };
    Ok(value)
}

/// A parameter in text form.
pub(crate) fn read_text(text: &str, data_type: &DataType, zone: &Zone) -> Result<ScalarValue, Failure> {
    query::text::parse_scalar(text, data_type, zone).map_err(|report| Failure::from(query::Error::Reported(report)))
}

/// A binary numeric in text form.
fn numeric_text(rest: &mut Bytes) -> Option<String> {
    if rest.remaining() < 8 {
        return None;
    }
    let (count, weight, sign, scale) = (rest.get_i16(), rest.get_i16(), rest.get_u16(), rest.get_i16());
    match sign {
        0xC000 => return Some("NaN".to_owned()),
        0xD000 => return Some("Infinity".to_owned()),
        0xF000 => return Some("-Infinity".to_owned()),
        _ => {}
    }
    let count = usize::try_from(count).ok().filter(|count| rest.remaining() == count * 2)?;
    let digits: Vec<i16> = (0..count).map(|_| rest.get_i16()).collect();
    if digits.iter().any(|digit| !(0..10_000).contains(digit)) || weight.unsigned_abs() > 100 {
        return None;
    }
    let digit = |place: i16| usize::try_from(weight - place).ok().and_then(|at| digits.get(at)).copied().unwrap_or(0);
    let mut text = if sign == 0x4000 { "-".to_owned() } else { String::new() };
    for place in (0..=weight.max(0)).rev() {
        text.push_str(&format!("{:04}", digit(place)));
    }
    let scale = usize::try_from(scale).ok()?;
    if scale > 0 {
        let groups = i16::try_from(scale.div_ceil(4)).ok()?;
        let fraction: String = (1..=groups).map(|place| format!("{:04}", digit(-place))).collect();
        text.push('.');
        text.push_str(&fraction[..scale]);
    }
    Some(text)
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
        ] {
            let mut out = BytesMut::new();
            numeric(&mut out, value, scale);
            assert_eq!(numeric_text(&mut out.freeze()).unwrap(), expected, "{value} {scale}");
        }
    }

    #[test]
    fn a_parameter_of_the_wrong_length_is_refused() {
        assert!(parameter(Bytes::from_static(&[0; 3]), &DataType::Int32, &Zone::UTC).is_err());
        let value = parameter(Bytes::from_static(&[0, 0, 0, 7]), &DataType::Int32, &Zone::UTC).unwrap();
        assert_eq!(value, ScalarValue::Int32(Some(7)));
    }
}
