//! PostgreSQL's binary forms on the way in.
//!
//! Used by binary parameters and by COPY, so that both accept and refuse the same.

use bytes::Buf;
use event::ColumnType;

use crate::error::Condition;
use crate::text::{Refused, refused};

/// Microseconds and days from 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
pub const EPOCH_US: i64 = 946_684_800_000_000;
/// See [`EPOCH_US`].
pub const EPOCH_DAYS: i32 = 10_957;
/// The first instant and day there are, 4713-11-24 BC, and the day after the last, since 2000.
const INSTANT_MIN: i64 = -211_813_488_000_000_000;
const DAY_MIN: i32 = -2_451_545;
const DAY_END: i32 = 2_145_031_949;
/// Groups of four digits before the point of the largest number that is looked at.
const NUMERIC_WEIGHT_MAX: u16 = 100;

/// Microseconds since 2000 as those since 1970; the infinities stay what they are.
///
/// # Errors
/// 22008 beyond PostgreSQL's calendar.
pub fn read_instant(us: i64) -> Result<i64, Refused> {
    match us {
        i64::MAX | i64::MIN => Some(us),
        // An end of the range that would become infinity is beyond it.
        us if us >= INSTANT_MIN => us.checked_add(EPOCH_US).filter(|us| *us < i64::MAX),
        _ => None,
    }
    .ok_or_else(|| refused(Condition::DatetimeOverflow, "timestamp out of range".to_owned()))
}

/// Days since 2000 as those since 1970; the infinities stay what they are.
///
/// # Errors
/// 22008 beyond PostgreSQL's calendar.
pub fn read_day(days: i32) -> Result<i32, Refused> {
    match days {
        i32::MAX | i32::MIN => Ok(days),
        days if (DAY_MIN..DAY_END).contains(&days) => Ok(days + EPOCH_DAYS),
        _ => Err(refused(Condition::DatetimeOverflow, "date out of range".to_owned())),
    }
}

/// A numeric in text form; `None` for bytes that are none.
pub fn numeric_text(mut rest: &[u8]) -> Option<String> {
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
    if digits.iter().any(|digit| !(0..10_000).contains(digit)) || weight.unsigned_abs() > NUMERIC_WEIGHT_MAX {
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

/// PostgreSQL's object id of a type.
pub fn type_oid(column_type: ColumnType) -> u32 {
    match column_type {
        ColumnType::Boolean => 16,
        ColumnType::Bytea => 17,
        ColumnType::BigInt => 20,
        ColumnType::SmallInt => 21,
        ColumnType::Integer => 23,
        ColumnType::Text => 25,
        ColumnType::Json => 114,
        ColumnType::Real => 700,
        ColumnType::Double => 701,
        ColumnType::Date => 1082,
        ColumnType::Time => 1083,
        ColumnType::Timestamp => 1114,
        ColumnType::TimestampTz => 1184,
        ColumnType::Interval => 1186,
        ColumnType::Numeric { .. } => 1700,
        ColumnType::Uuid => 2950,
        ColumnType::Jsonb => 3802,
        ColumnType::Array(element) => match element.get() {
            ColumnType::Json => 199,
            ColumnType::Boolean => 1000,
            ColumnType::Bytea => 1001,
            ColumnType::SmallInt => 1005,
            ColumnType::Integer => 1007,
            ColumnType::Text | ColumnType::Array(_) => 1009,
            ColumnType::BigInt => 1016,
            ColumnType::Real => 1021,
            ColumnType::Double => 1022,
            ColumnType::Timestamp => 1115,
            ColumnType::Date => 1182,
            ColumnType::Time => 1183,
            ColumnType::TimestampTz => 1185,
            ColumnType::Interval => 1187,
            ColumnType::Numeric { .. } => 1231,
            ColumnType::Uuid => 2951,
            ColumnType::Jsonb => 3807,
        },
    }
}

/// The type of arrays that an object id names; those of numerics without a modifier hold what fits 38 digits.
pub fn array_of(oid: u32) -> Option<ColumnType> {
    let element = match oid {
        199 => ColumnType::Json,
        1000 => ColumnType::Boolean,
        1001 => ColumnType::Bytea,
        1005 => ColumnType::SmallInt,
        1007 => ColumnType::Integer,
        1009 | 1015 => ColumnType::Text,
        1016 => ColumnType::BigInt,
        1021 => ColumnType::Real,
        1022 => ColumnType::Double,
        1115 => ColumnType::Timestamp,
        1182 => ColumnType::Date,
        1183 => ColumnType::Time,
        1185 => ColumnType::TimestampTz,
        1187 => ColumnType::Interval,
        1231 => ColumnType::Numeric { precision: 38, scale: 10 },
        2951 => ColumnType::Uuid,
        3807 => ColumnType::Jsonb,
        _ => return None,
    };
    element.array()
}

/// A value of fixed length.
pub(crate) fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Refused> {
    bytes.try_into().map_err(|_| malformed())
}

/// Bytes that should be text.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, Refused> {
    std::str::from_utf8(bytes).map_err(|error| {
        let rest = &bytes[error.valid_up_to()..];
        let wrong = &rest[..error.error_len().unwrap_or(rest.len())];
        let wrong: Vec<String> = wrong.iter().map(|byte| format!("0x{byte:02x}")).collect();
        let message = format!("invalid byte sequence for encoding \"UTF8\": {}", wrong.join(" "));
        refused(Condition::CharacterNotInRepertoire, message)
    })
}

/// Columns hold no infinite times, in whichever form they come.
pub(crate) fn finite<T: PartialEq>(value: T, infinities: [T; 2], type_name: &str) -> Result<T, Refused> {
    if infinities.contains(&value) {
        let message = format!("infinite values of type {type_name} are not supported");
        return Err(refused(Condition::FeatureNotSupported, message));
    }
    Ok(value)
}

/// The bytes are not those of a value of the type.
pub(crate) fn malformed() -> Refused {
    refused(Condition::InvalidBinaryRepresentation, "incorrect binary data format".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_instants_end_where_postgresqls_do() {
        assert_eq!(read_day(0).unwrap(), EPOCH_DAYS);
        for infinity in [i32::MIN, i32::MAX] {
            assert_eq!(read_day(infinity).unwrap(), infinity);
        }
        for beyond in [i32::MIN + 1, DAY_MIN - 1, DAY_END, i32::MAX - 1] {
            assert!(read_day(beyond).is_err(), "{beyond}");
        }
        assert_eq!(read_instant(0).unwrap(), EPOCH_US);
        assert_eq!(read_instant(i64::MIN).unwrap(), i64::MIN);
        for beyond in [i64::MIN + 1, INSTANT_MIN - 1, i64::MAX - EPOCH_US, i64::MAX - 1] {
            assert!(read_instant(beyond).is_err(), "{beyond}");
        }
    }

    #[test]
    fn an_array_has_one_object_id() {
        for oid in 0..4000 {
            if let Some(array) = array_of(oid) {
                assert!(type_oid(array) == oid || oid == 1015, "{oid}: {array}");
            }
        }
    }

    #[test]
    fn bytes_that_are_no_number_are_refused() {
        for bytes in [&[][..], &[0; 7], &[0, 1, 0, 0, 0, 0, 0, 0], &[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10]] {
            assert_eq!(numeric_text(bytes), None, "{bytes:?}");
        }
        assert_eq!(numeric_text(&[0, 0, 0, 0, 0xc0, 0, 0, 0]).as_deref(), Some("NaN"));
    }
}
