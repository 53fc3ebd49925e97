//! Integers, floats, decimals and booleans, as PostgreSQL reads them.

use std::str::FromStr;

use arrow::datatypes::DECIMAL128_MAX_PRECISION;
use datafusion::common::ScalarValue;

use super::{Refused, invalid, refused};
use crate::error::Condition;

/// Reads an integer with optional sign.
///
/// # Errors
/// 22P02 for other text, 22003 for a number that does not fit.
pub(super) fn parse_integer<T: FromStr>(text: &str, type_name: &str) -> Result<T, Refused> {
    let trimmed = text.trim();
    if let Ok(value) = trimmed.parse() {
        return Ok(value);
    }
    let digits = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let message = format!("value \"{text}\" is out of range for type {type_name}");
        return Err(refused(Condition::NumericOutOfRange, message));
    }
    Err(invalid(type_name, text))
}

/// Reads a float, `NaN` and `Infinity` in any case among them. `is_held` tells what is out of range, an infinity or zero, from others.
///
/// # Errors
/// 22P02 for other text, 22003 for a number that does not fit.
pub(super) fn parse_float<T: FromStr>(text: &str, type_name: &str, is_held: fn(&T) -> bool) -> Result<T, Refused> {
    let trimmed = text.trim();
    // Rust reads "infinity", "inf" and "nan" in any case with a sign, as PostgreSQL does.
    let value: T = trimmed.parse().map_err(|_| invalid(type_name, text))?;
    let mantissa = trimmed.split(['e', 'E']).next().unwrap_or_default();
    if !is_held(&value) && mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9')) {
        let message = format!("\"{text}\" is out of range for type {type_name}");
        return Err(refused(Condition::NumericOutOfRange, message));
    }
    Ok(value)
}

/// Reads a boolean: any prefix of true, false, yes, no, and on, off, 1, 0.
///
/// # Errors
/// 22P02 for other text.
pub(super) fn parse_boolean(text: &str) -> Result<bool, Refused> {
    let word = text.trim().to_ascii_lowercase();
    let prefix_of = |full: &str| !word.is_empty() && full.starts_with(&word);
    match word.as_str() {
        "on" | "1" => Ok(true),
        "of" | "off" | "0" => Ok(false),
        _ if prefix_of("true") || prefix_of("yes") => Ok(true),
        _ if prefix_of("false") || prefix_of("no") => Ok(false),
        _ => Err(invalid("boolean", text)),
    }
}

/// Reads a decimal as its unscaled value, rounded half away from zero to `scale` digits.
///
/// # Errors
/// 22P02 for other text, 22003 for a number with more than `precision` digits, NaN among them.
pub(crate) fn parse_decimal(text: &str, precision: u8, scale: i8) -> Result<i128, Refused> {
    let trimmed = text.trim();
    let (negative, unsigned) = match trimmed.as_bytes() {
        [b'-', ..] => (true, &trimmed[1..]),
        [b'+', ..] => (false, &trimmed[1..]),
        _ => (false, trimmed),
    };
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], unsigned[at + 1..].parse::<i32>().map_err(|_| invalid("numeric", text))?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let only_digits = whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    if !only_digits || whole.len() + fraction.len() == 0 {
        return Err(invalid("numeric", text));
    }
    let digits = whole.bytes().chain(fraction.bytes()).map(|byte| byte - b'0').skip_while(|digit| *digit == 0);
    // Digits to keep: those left of the point after the shift, and `scale` more.
    let leading_zeros = whole.bytes().chain(fraction.bytes()).take_while(|byte| *byte == b'0').count() as i64;
    let keep = whole.len() as i64 - leading_zeros + i64::from(exponent) + i64::from(scale);
    let value = rounded(digits, keep).filter(|value| *value < 10i128.pow(u32::from(precision)));
    let value = value.ok_or_else(|| overflow(precision, scale))?;
    Ok(if negative { -value } else { value })
}

/// Reads a decimal with the digits behind the point that it is written with, or as many as 38 digits leave.
///
/// # Errors
/// 22P02 for other text, 22003 for a number with more digits before the point, NaN among them.
pub fn parse_numeric(text: &str) -> Result<ScalarValue, Refused> {
    let digits_max = i64::from(DECIMAL128_MAX_PRECISION);
    let unsigned = text.trim().trim_start_matches(['-', '+']);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.parse::<i32>().map_or(0, i64::from);
    let significant = whole.trim_start_matches('0').len() as i64;
    let before = match significant {
        0 => exponent - fraction.bytes().take_while(|byte| *byte == b'0').count() as i64,
        digits => digits + exponent,
    };
    let scale = (fraction.len() as i64 - exponent).clamp(0, (digits_max - before.max(0)).clamp(0, digits_max)) as i8;
    let value = parse_decimal(text, DECIMAL128_MAX_PRECISION, scale)?;
    let digits = value.unsigned_abs().checked_ilog10().map_or(1, |power| power as u8 + 1);
    Ok(ScalarValue::Decimal128(Some(value), digits.max(scale.unsigned_abs()), scale))
}

/// The first `keep` digits as a number (zeros appended when there are fewer), rounded by the digit after them.
/// `None` when it has more than 38 digits.
fn rounded(mut digits: impl Iterator<Item = u8>, keep: i64) -> Option<i128> {
    let mut value: i128 = 0;
    for place in 0..keep.max(0) {
        let digit = digits.next();
        if digit.is_none() && value == 0 {
            return Some(0);
        }
        if place >= 38 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(i128::from(digit.unwrap_or(0)))?;
    }
    let up = keep >= 0 && digits.next().is_some_and(|digit| digit >= 5);
    Some(value + i128::from(up))
}

fn overflow(precision: u8, scale: i8) -> Refused {
    let mut report = refused(Condition::NumericOutOfRange, "numeric field overflow".to_string());
    let whole = i32::from(precision) - i32::from(scale);
    let bound = if whole == 0 { "1".to_string() } else { format!("10^{whole}") };
    report.detail = Some(format!(
        "A field with precision {precision}, scale {scale} must round to an absolute value less than {bound}."
    ));
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Result<i128, String> {
        parse_decimal(text, 5, 2).map_err(|report| report.message)
    }

    #[test]
    fn decimals_round_and_overflow() {
        assert_eq!(decimal("1.5"), Ok(150));
        assert_eq!(decimal("-1.005"), Ok(-101));
        assert_eq!(decimal("0.004"), Ok(0));
        assert_eq!(decimal("0.005"), Ok(1));
        assert_eq!(decimal(".5"), Ok(50));
        assert_eq!(decimal("12e1"), Ok(12_000));
        assert_eq!(decimal("12345e-3"), Ok(1235));
        assert_eq!(decimal("999.994"), Ok(99_999));
        assert_eq!(decimal("999.995"), Err("numeric field overflow".to_string()));
        assert_eq!(decimal("1e100"), Err("numeric field overflow".to_string()));
        assert_eq!(decimal("0e100"), Ok(0));
        assert_eq!(decimal("1e-100"), Ok(0));
        assert_eq!(decimal("1.2.3"), Err("invalid input syntax for type numeric: \"1.2.3\"".to_string()));
        assert_eq!(decimal(""), Err("invalid input syntax for type numeric: \"\"".to_string()));
    }

    #[test]
    fn numerics_keep_the_digits_they_are_written_with() {
        let read = |text| match parse_numeric(text) {
            Ok(ScalarValue::Decimal128(Some(value), precision, scale)) => (value, precision, scale),
            other => panic!("{other:?}"),
        };
        assert_eq!(read("1.50"), (150, 3, 2));
        assert_eq!(read("-0.05"), (-5, 2, 2));
        assert_eq!(read("1e3"), (1000, 4, 0));
        assert_eq!(read("1.25e-3"), (125, 5, 5));
        assert_eq!(read("0"), (0, 1, 0));
        assert_eq!(
            read("12345678901234567890.123456789012345678949"),
            (12_345_678_901_234_567_890_123_456_789_012_345_679, 38, 18)
        );
        assert!(parse_numeric("1e38").is_err());
        assert!(parse_numeric("x").is_err());
    }

    #[test]
    fn integers() {
        let parse = |text| parse_integer::<i16>(text, "smallint").map_err(|report| (report.condition, report.message));
        assert_eq!(parse(" 42 "), Ok(42));
        assert_eq!(parse("+7"), Ok(7));
        assert_eq!(
            parse("40000"),
            Err((Condition::NumericOutOfRange, "value \"40000\" is out of range for type smallint".to_string()))
        );
        assert_eq!(
            parse("1.5"),
            Err((Condition::InvalidTextRepresentation, "invalid input syntax for type smallint: \"1.5\"".to_string()))
        );
    }

    #[test]
    fn floats() {
        let parse =
            |text| parse_float::<f64>(text, "double precision", |v| v.is_finite() && *v != 0.0).map_err(|r| r.message);
        assert_eq!(parse("-1e-3"), Ok(-0.001));
        assert_eq!(parse("-Infinity"), Ok(f64::NEG_INFINITY));
        assert!(parse("NaN").is_ok_and(f64::is_nan));
        assert_eq!(parse("1e999"), Err("\"1e999\" is out of range for type double precision".to_string()));
        assert_eq!(parse("1e-999"), Err("\"1e-999\" is out of range for type double precision".to_string()));
        assert_eq!(parse("0e-999"), Ok(0.0));
        assert_eq!(parse("1,5"), Err("invalid input syntax for type double precision: \"1,5\"".to_string()));
    }

    #[test]
    fn booleans() {
        for (text, value) in [
            ("t", true),
            (" TRUE ", true),
            ("y", true),
            ("on", true),
            ("1", true),
            ("fal", false),
            ("no", false),
            ("off", false),
        ] {
            assert_eq!(parse_boolean(text).ok(), Some(value), "{text}");
        }
        assert!(parse_boolean("o").is_err());
        assert!(parse_boolean("").is_err());
    }
}
