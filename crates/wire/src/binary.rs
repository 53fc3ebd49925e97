//! Values in PostgreSQL's binary forms: numeric and interval out, parameters in.

use arrow::array::{BinaryArray, IntervalMonthDayNanoArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use query::ScalarValue;
use query::text::Zone;

use crate::error::Failure;
use crate::message::utf8;

/// Microseconds and days from 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
pub(crate) const EPOCH_US: i64 = 946_684_800_000_000;
pub(crate) const EPOCH_DAYS: i32 = 10_957;
/// The first instant and day there are, 4713-11-24 BC, and the day after the last, since 2000.
const INSTANT_MIN: i64 = -211_813_488_000_000_000;
const DAY_MIN: i32 = -2_451_545;
const DAY_END: i32 = 2_145_031_949;
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

/// Microseconds since 2000 from a client as those since 1970; the infinities stay what they are.
fn read_instant(us: i64) -> Result<i64, Failure> {
    match us {
        i64::MAX | i64::MIN => Some(us),
        // An end of the range that would become infinity is beyond it.
        us if us >= INSTANT_MIN => us.checked_add(EPOCH_US).filter(|us| *us < i64::MAX),
        _ => None,
    }
    .ok_or_else(|| Failure::new("22008", "timestamp out of range"))
}

/// Days since 2000 from a client as those since 1970; the infinities stay what they are.
fn read_day(days: i32) -> Result<i32, Failure> {
    match days {
        i32::MAX | i32::MIN => Ok(days),
        days if (DAY_MIN..DAY_END).contains(&days) => Ok(days + EPOCH_DAYS),
        _ => Err(Failure::new("22008", "date out of range")),
    }
}

/// A parameter as its type's value.
///
/// # Errors
/// 22P03 when the bytes are not of the type's length, 22008 beyond PostgreSQL's calendar, 22021 for text that is none, 0A000 for types without a binary form here.
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
        DataType::Date32 => ScalarValue::Date32(Some(read_day(rest.get_i32())?)),
        DataType::Timestamp(_, zone) => {
            let value = ScalarValue::TimestampMicrosecond(Some(read_instant(rest.get_i64())?), zone.clone());
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
            return read_text(utf8(&bytes)?, data_type, zone);
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
            // The fraction of a number with more digits than fit u128 with its last group filled up.
            (12_345_678_901_234_567_890_123_456_789_012_345_678, 2, "123456789012345678901234567890123456.78"),
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
    #[test]
    fn days_and_instants_end_where_postgresqls_do() {
        let day = |days: i32| parameter(Bytes::copy_from_slice(&days.to_be_bytes()), &DataType::Date32, &Zone::UTC);
        assert_eq!(day(0).unwrap(), ScalarValue::Date32(Some(EPOCH_DAYS)));
        for infinity in [i32::MIN, i32::MAX] {
            assert_eq!(day(infinity).unwrap(), ScalarValue::Date32(Some(infinity)));
        }
        for beyond in [i32::MIN + 1, DAY_MIN - 1, DAY_END, i32::MAX - 1] {
            assert!(day(beyond).is_err(), "{beyond}");
        }
        assert_eq!(read_instant(0).unwrap(), EPOCH_US);
        assert_eq!(read_instant(i64::MIN).unwrap(), i64::MIN);
        for beyond in [i64::MIN + 1, INSTANT_MIN - 1, i64::MAX - EPOCH_US, i64::MAX - 1] {
            assert!(read_instant(beyond).is_err(), "{beyond}");
        }
    }
}
