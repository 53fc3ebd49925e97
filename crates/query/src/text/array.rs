//! Arrays of one dimension in PostgreSQL's text and binary forms, apart from their elements.

use std::borrow::Cow;

use bytes::Buf;

use super::{Refused, refused};
use crate::binary;
use crate::error::Condition;

/// The elements in `{1,2,NULL,"a b"}`; `None` is NULL.
///
/// # Errors
/// 22P02 for text that is no array, 0A000 for one with more dimensions or bounds of its own.
pub(super) fn parse_array(text: &str) -> Result<Vec<Option<Cow<'_, str>>>, Refused> {
    let malformed = |detail: &str| {
        let mut report = refused(Condition::InvalidTextRepresentation, format!("malformed array literal: \"{text}\""));
        report.detail = Some(detail.to_owned());
        report
    };
    let unsupported = |what: &str| refused(Condition::FeatureNotSupported, format!("{what} are not supported"));
    let trimmed = text.trim_matches(|c: char| c.is_ascii_whitespace());
    if trimmed.starts_with('[') {
        return Err(unsupported("arrays with bounds of their own"));
    }
    let Some(mut rest) = trimmed.strip_prefix('{') else {
        return Err(malformed("Array value must start with \"{\" or dimension information."));
    };
    let mut elements = Vec::new();
    rest = rest.trim_ascii_start();
    if let Some(after) = rest.strip_prefix('}') {
        return if after.is_empty() { Ok(elements) } else { Err(malformed("Junk after closing right brace.")) };
    }
    loop {
        rest = rest.trim_ascii_start();
        let (element, after) = match rest.as_bytes().first() {
            Some(b'{') => return Err(unsupported("arrays of more than one dimension")),
            Some(b'"') => {
                let (element, after) = quoted(&rest[1..]).ok_or_else(|| malformed("Unexpected end of input."))?;
                (Some(element), after.trim_ascii_start())
            }
            _ => {
                let end = bare_end(rest).ok_or_else(|| malformed("Unexpected end of input."))?;
                let (written, after) = rest.split_at(end);
                let written = written.trim_ascii_end();
                if written.is_empty() {
                    let found = after.chars().next().unwrap_or('}');
                    return Err(malformed(&format!("Unexpected \"{found}\" character.")));
                }
                let null = written.eq_ignore_ascii_case("null");
                ((!null).then(|| unescaped(written)), after)
            }
        };
        elements.push(element);
        match after.as_bytes().first() {
            Some(b',') => rest = &after[1..],
            Some(b'}') if after.len() == 1 => return Ok(elements),
            Some(b'}') => return Err(malformed("Junk after closing right brace.")),
            Some(_) => return Err(malformed("Unexpected array element.")),
            None => return Err(malformed("Unexpected end of input.")),
        }
    }
}

/// What stands before the closing quote, and what comes after it.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            b'"' => return Some((unescaped(&text[..at]), &text[at + 1..])),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Where an element without quotes ends.
fn bare_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            b',' | b'}' | b'{' | b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The character after each backslash as itself.
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            other => out.push(other),
        }
    }
    Cow::Owned(out)
}

/// The binary forms of the elements, of a type whose object id is `oid`; `None` is NULL.
///
/// # Errors
/// 22P03 for bytes that are no array, 42804 for one of other elements, 0A000 for one with more dimensions or bounds of its own.
pub(super) fn binary_array(mut bytes: &[u8], oid: u32) -> Result<Vec<Option<&[u8]>>, Refused> {
    let unsupported = |what: &str| refused(Condition::FeatureNotSupported, format!("{what} are not supported"));
    let dimensions = bytes.try_get_i32().map_err(|_| binary::malformed())?;
    let _has_nulls = bytes.try_get_i32().map_err(|_| binary::malformed())?;
    let found = bytes.try_get_u32().map_err(|_| binary::malformed())?;
    if found != oid {
        return Err(refused(Condition::DatatypeMismatch, "wrong element type".to_owned()));
    }
    let count = match dimensions {
        0 => 0,
        1 => {
            let count = bytes.try_get_i32().map_err(|_| binary::malformed())?;
            if bytes.try_get_i32().map_err(|_| binary::malformed())? != 1 {
                return Err(unsupported("arrays with bounds of their own"));
            }
            usize::try_from(count).map_err(|_| binary::malformed())?
        }
        2..=6 => return Err(unsupported("arrays of more than one dimension")),
        _ => return Err(binary::malformed()),
    };
    // Each takes four bytes at least.
    let mut elements = Vec::with_capacity(count.min(bytes.len() / 4));
    for _ in 0..count {
        let length = bytes.try_get_i32().map_err(|_| binary::malformed())?;
        elements.push(match usize::try_from(length) {
            Ok(length) => {
                let (element, rest) = bytes.split_at_checked(length).ok_or_else(binary::malformed)?;
                bytes = rest;
                Some(element)
            }
            Err(_) if length == -1 => None,
            Err(_) => return Err(binary::malformed()),
        });
    }
    if bytes.is_empty() { Ok(elements) } else { Err(binary::malformed()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::write;
    use super::*;

    fn read(text: &str) -> Vec<Option<String>> {
        let elements = parse_array(text).unwrap_or_else(|refused| panic!("{text}: {refused:?}"));
        elements.into_iter().map(|element| element.map(Cow::into_owned)).collect()
    }

    /// Each as PostgreSQL 15 reads it.
    #[test]
    fn elements_are_read_as_postgresql_reads_them() {
        let some = |texts: &[&str]| texts.iter().map(|text| Some((*text).to_owned())).collect::<Vec<_>>();
        assert_eq!(read("{}"), []);
        assert_eq!(read(" { } "), []);
        assert_eq!(read("{1,2}"), some(&["1", "2"]));
        assert_eq!(read(" { a b , \"c,d\" } "), some(&["a b", "c,d"]));
        assert_eq!(read(r#"{"say \"hi\"",a\,b,"",\\}"#), some(&["say \"hi\"", "a,b", "", "\\"]));
        assert_eq!(read(r#"{NULL,null,"NULL"}"#), [None, None, Some("NULL".to_owned())]);
        for text in ["", "1", "{", "{1", "{1,", "{1,}", "{,}", "{1}x", "{}x", "{\"a}", "{\"a\"b}", "{a\"b\"}", "{a\\"] {
            let refused = parse_array(text).unwrap_err();
            assert_eq!(refused.message, format!("malformed array literal: \"{text}\""));
            assert_eq!(refused.condition, Condition::InvalidTextRepresentation, "{text}");
        }
        for text in ["{{1},{2}}", "[0:1]={1,2}"] {
            assert_eq!(parse_array(text).unwrap_err().condition, Condition::FeatureNotSupported, "{text}");
        }
    }

    #[test]
    fn bytes_are_an_array_or_refused() {
        let array =
            [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 23, 0, 0, 0, 2, 0, 0, 0, 1, 255, 255, 255, 255, 0, 0, 0, 4, 0, 0, 0, 7];
        assert_eq!(binary_array(&array, 23).unwrap(), [None, Some(&[0, 0, 0, 7][..])]);
        assert_eq!(binary_array(&array, 20).unwrap_err().condition, Condition::DatatypeMismatch);
        for end in 0..array.len() {
            assert!(binary_array(&array[..end], 23).is_err(), "{end} bytes");
        }
        assert!(binary_array(&[&array[..], &[0]].concat(), 23).is_err());
        assert_eq!(binary_array(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 23], 23).unwrap(), [None::<&[u8]>; 0]);
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read(elements in prop::collection::vec(prop::option::of(any::<String>()), 0..6)) {
            let mut text = String::from("{");
            for (at, element) in elements.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                match element {
                    Some(element) => write::element(&mut text, element),
                    None => text.push_str("NULL"),
                }
            }
            text.push('}');
            prop_assert_eq!(read(&text), elements);
        }

        #[test]
        fn noise_is_refused_or_read(text in "[{}\",\\\\ aN1]{0,20}", bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse_array(&text);
            let _ = binary_array(&bytes, 23);
        }
    }
}
