//! What the modifier of a type makes of its values: texts of a bounded length, times of so many digits.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, ListArray, StringArray};
use arrow::datatypes::{DataType, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType};
use event::{FRACTION_DIGITS_MAX, Modifier};

use super::{Refused, refused};
use crate::error::Condition;

/// 2000-01-01, from which PostgreSQL counts microseconds: a half is rounded away from it.
const EPOCH_2000_US: i64 = 946_684_800_000_000;

/// The values as a column with that modifier holds them; as they are without one.
///
/// # Errors
/// 22001 for a text that is too long by more than blanks.
pub(crate) fn fit(values: ArrayRef, modifier: Option<Modifier>) -> Result<ArrayRef, Refused> {
    match (modifier, values.data_type()) {
        (None | Some(Modifier::Varchar { length: None }), _) => Ok(values),
        (modifier, DataType::List(element)) => {
            let (element, lists) = (Arc::clone(element), values.as_list::<i32>());
            let elements = fit(Arc::clone(lists.values()), modifier)?;
            Ok(Arc::new(ListArray::new(element, lists.offsets().clone(), elements, lists.nulls().cloned())))
        }
        (Some(Modifier::Varchar { length: Some(length) }), DataType::Utf8) => fit_texts(values, length),
        (Some(Modifier::Fraction { digits }), _) => Ok(rounded(&values, digits)),
        _ => Ok(values),
    }
}

fn fit_texts(values: ArrayRef, length: u32) -> Result<ArrayRef, Refused> {
    let texts = values.as_string::<i32>();
    if texts.iter().flatten().all(|text| is_within(text, length)) {
        return Ok(values);
    }
    let fitted = texts.iter().map(|text| text.map(|text| fit_text(text, length)).transpose());
    Ok(Arc::new(fitted.collect::<Result<StringArray, Refused>>()?))
}

/// Whether a text has at most so many characters. It has no more of them than bytes.
fn is_within(text: &str, length: u32) -> bool {
    let length = length as usize;
    text.len() <= length || text.char_indices().nth(length).is_none()
}

/// The text as `varchar(length)` holds it: blanks beyond the length are cut off.
///
/// # Errors
/// 22001 for other characters beyond it.
pub(crate) fn fit_text(text: &str, length: u32) -> Result<&str, Refused> {
    if is_within(text, length) {
        return Ok(text);
    }
    let end = text.char_indices().nth(length as usize).map_or(text.len(), |(end, _)| end);
    let (kept, beyond) = text.split_at(end);
    if beyond.bytes().all(|byte| byte == b' ') {
        return Ok(kept);
    }
    let message = format!("value too long for type character varying({length})");
    Err(refused(Condition::StringDataRightTruncation, message))
}

/// Times of so many digits of a second's fraction; other values as they are.
pub(crate) fn rounded(values: &ArrayRef, digits: u8) -> ArrayRef {
    if digits >= FRACTION_DIGITS_MAX {
        return Arc::clone(values);
    }
    match values.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            each::<TimestampMicrosecondType>(values, |us| round_us(us, EPOCH_2000_US, digits))
        }
        DataType::Time64(TimeUnit::Microsecond) => each::<Time64MicrosecondType>(values, |us| round_us(us, 0, digits)),
        _ => Arc::clone(values),
    }
}

fn each<T: ArrowPrimitiveType>(values: &ArrayRef, change: impl Fn(T::Native) -> T::Native) -> ArrayRef {
    let changed = values.as_primitive::<T>().unary::<_, T>(change);
    // A timestamp keeps its zone.
    Arc::new(changed.with_data_type(values.data_type().clone()))
}

/// To the nearest multiple, a half away from `origin_us`; what lies beyond all times stays as it is.
fn round_us(us: i64, origin_us: i64, digits: u8) -> i64 {
    let unit = 10_i64.pow(u32::from(FRACTION_DIGITS_MAX - digits.min(FRACTION_DIGITS_MAX)));
    let Some(from_origin) = us.checked_sub(origin_us) else { return us };
    let half = unit / 2 * from_origin.signum();
    let multiple = from_origin.checked_add(half).map(|sum| sum / unit * unit);
    multiple.and_then(|multiple| multiple.checked_add(origin_us)).unwrap_or(us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded_in_characters() {
        assert_eq!(fit_text("äöü", 3).unwrap(), "äöü");
        assert_eq!(fit_text("äöü   ", 4).unwrap(), "äöü ");
        assert_eq!(fit_text("", 1).unwrap(), "");
        let refused = fit_text("äöüx ", 3).unwrap_err();
        assert_eq!(refused.message, "value too long for type character varying(3)");
    }

    #[test]
    fn a_half_is_rounded_away_from_2000() {
        let rounded = |us, digits| round_us(EPOCH_2000_US + us, EPOCH_2000_US, digits) - EPOCH_2000_US;
        assert_eq!(rounded(1_500_000, 0), 2_000_000);
        assert_eq!(rounded(-1_500_000, 0), -2_000_000);
        assert_eq!(rounded(1_499_999, 0), 1_000_000);
        assert_eq!(rounded(1_234_500, 3), 1_235_000);
        assert_eq!(rounded(1_234_567, 6), 1_234_567);
        assert_eq!(round_us(i64::MIN, EPOCH_2000_US, 0), i64::MIN);
        assert_eq!(round_us(i64::MAX, 0, 0), i64::MAX);
    }
}
