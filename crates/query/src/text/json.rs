//! `json` and `jsonb` in text form.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::value::RawValue;

use super::{Refused, refused};
use crate::error::Condition;

/// The text itself, if it is JSON.
///
/// # Errors
/// 22P02.
pub(super) fn checked_json(text: &str) -> Result<&str, Refused> {
    super::builder::without_zeros(text)?;
    parsed::<serde::de::IgnoredAny>(text, "json")?;
    Ok(text)
}

/// The text PostgreSQL prints for a value: members by the length of their names and then the names, of two with one name the last, a
/// blank after each colon and comma.
///
/// # Errors
/// 22P02 for text that is no JSON, 22P05 for a character that text cannot hold.
pub(super) fn parse_jsonb(text: &str) -> Result<String, Refused> {
    super::builder::without_zeros(text)?;
    let mut out = String::with_capacity(text.len());
    write(&mut out, parsed(text, "json")?)?;
    Ok(out)
}

fn parsed<'t, T: serde::Deserialize<'t>>(text: &'t str, type_name: &str) -> Result<T, Refused> {
    serde_json::from_str(text).map_err(|error| {
        let mut refusal =
            *refused(Condition::InvalidTextRepresentation, format!("invalid input syntax for type {type_name}"));
        refusal.detail = Some(format!("{error}."));
        Box::new(refusal)
    })
}

fn write(out: &mut String, value: &RawValue) -> Result<(), Refused> {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<String, &RawValue> = parsed(text, "json")?;
            let mut members: Vec<_> = members.into_iter().collect();
            members.sort_by_key(|(name, _)| name.len());
            out.push('{');
            for (at, (name, value)) in members.into_iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                string(out, &name)?;
                out.push_str(": ");
                write(out, value)?;
            }
            out.push('}');
        }
        Some(b'[') => {
            let elements: Vec<&RawValue> = parsed(text, "json")?;
            out.push('[');
            for (at, element) in elements.into_iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                write(out, element)?;
            }
            out.push(']');
        }
        Some(b'"') => string(out, &parsed::<String>(text, "json")?)?,
        Some(b't' | b'f' | b'n') => out.push_str(text),
        _ => number(out, text)?,
    }
    Ok(())
}

fn string(out: &mut String, value: &str) -> Result<(), Refused> {
    out.push('"');
    for character in value.chars() {
        match character {
            '\0' => {
                let mut refusal =
                    *refused(Condition::UntranslatableCharacter, "unsupported Unicode escape sequence".to_owned());
                refusal.detail = Some("\\u0000 cannot be converted to text.".to_owned());
                return Err(Box::new(refusal));
            }
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => {
                // Writing to a String cannot fail.
                let _ok = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    Ok(())
}

/// Digits of the longest number that is written out; PostgreSQL's numeric ends about here too.
const DIGITS_MAX: i64 = 16_383;

/// A number as numeric prints it: without an exponent, with the digits after the point that were written.
fn number(out: &mut String, text: &str) -> Result<(), Refused> {
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else {
        out.push_str(if text == "-0" { "0" } else { text });
        return Ok(());
    };
    let overflow = || refused(Condition::NumericOutOfRange, "value overflows numeric format".to_owned());
    let exponent: i64 = exponent.parse().map_err(|_| overflow())?;
    if exponent.abs() > DIGITS_MAX {
        return Err(overflow());
    }
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |mantissa| ("-", mantissa));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    // Where the point comes to stand in the digits.
    let point = whole.len() as i64 + exponent;
    let shown = (fraction.len() as i64 - exponent).max(0) as usize;
    let (whole, fraction) = match usize::try_from(point) {
        Ok(point) if point > 0 => {
            let filled = format!("{digits:0<point$}");
            let (whole, fraction) = filled.split_at(point);
            (whole.trim_start_matches('0').to_owned(), fraction.to_owned())
        }
        _ => (String::new(), format!("{digits:0>shown$}")),
    };
    let is_zero = whole.is_empty() && fraction.bytes().all(|digit| digit == b'0');
    out.push_str(if is_zero { "" } else { sign });
    out.push_str(if whole.is_empty() { "0" } else { &whole });
    if shown > 0 {
        out.push('.');
        out.push_str(&fraction);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_has_one_text() {
        for (text, expected) in [
            (r#" {"bb":1,"a":[ 1,2 ], "a":{"z":null,"y":true}} "#, r#"{"a": {"y": true, "z": null}, "bb": 1}"#),
            (r#""\u00e9\/\n""#, r#""é/\n""#),
            ("[]", "[]"),
            ("{}", "{}"),
            ("1.10", "1.10"),
            ("1e2", "100"),
            ("-1.5E-3", "-0.0015"),
            ("1.25e1", "12.5"),
            ("0e5", "0"),
            ("-0", "0"),
            ("12345678901234567890.5", "12345678901234567890.5"),
        ] {
            assert_eq!(parse_jsonb(text).unwrap(), expected, "{text}");
        }
        for text in ["", "{", "{'a': 1}", "[1,]", "nul", "01", "1 2", r#""\u0000""#, "1e99999"] {
            assert!(parse_jsonb(text).is_err(), "{text}");
        }
        assert_eq!(checked_json(" [1,  2] ").unwrap(), " [1,  2] ");
        assert!(checked_json("[1,  2").is_err());
    }

    proptest! {
        #[test]
        fn the_text_of_a_value_is_its_own(text in r#"[\[{]?("[a-c]{0,2}"|[0-9]{1,3}|:|,|e-?[0-9]|\]|\}){0,8}"#) {
            if let Ok(once) = parse_jsonb(&text) {
                prop_assert_eq!(parse_jsonb(&once).unwrap(), once);
            }
        }
    }
}
