//! `bytea` and `uuid` in text form.

use super::{Refused, invalid, refused};
use crate::error::Condition;

/// Reads bytes: `\x` and hexadecimal digits, or characters with `\\` and `\ooo` for those that cannot be written.
///
/// # Errors
/// 22023 for digits that are none, 22P02 for a backslash before anything else.
pub(crate) fn parse_bytea(text: &str) -> Result<Vec<u8>, Refused> {
    match text.strip_prefix("\\x") {
        Some(digits) => parse_hexadecimal(digits),
        None => parse_escape(text),
    }
}

/// Reads characters with `\\` and `\ooo` for those that cannot be written.
///
/// # Errors
/// 22P02 for a backslash before anything else.
pub(crate) fn parse_escape(text: &str) -> Result<Vec<u8>, Refused> {
    escaped(text.as_bytes())
        .ok_or_else(|| refused(Condition::InvalidTextRepresentation, "invalid input syntax for type bytea".to_owned()))
}

/// Writes bytes so that [`parse_escape`] reads them.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            0 | 0x80.. => text.push_str(&format!("\\{byte:03o}")),
            other => text.push(char::from(*other)),
        }
    }
    text
}

/// Reads hexadecimal digits, two for each byte; blanks count for nothing.
///
/// # Errors
/// 22023 for digits that are none, or one too few.
pub(crate) fn parse_hexadecimal(digits: &str) -> Result<Vec<u8>, Refused> {
    let refuse = |message: String| refused(Condition::InvalidParameterValue, message);
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    let mut high = None;
    for character in digits.chars().filter(|character| !matches!(character, ' ' | '\n' | '\t' | '\r')) {
        let digit = character.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let digit = digit.ok_or_else(|| refuse(format!("invalid hexadecimal digit: \"{character}\"")))?;
        match high.take() {
            None => high = Some(digit),
            Some(high) => bytes.push(high << 4 | digit),
        }
    }
    match high {
        None => Ok(bytes),
        Some(_) => Err(refuse("invalid hexadecimal data: odd number of digits".to_owned())),
    }
}

fn escaped(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    loop {
        text = match text {
            [] => return Some(bytes),
            [b'\\', b'\\', rest @ ..] => {
                bytes.push(b'\\');
                rest
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest
            }
            [b'\\', ..] => return None,
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        };
    }
}

/// Reads a UUID: 32 hexadecimal digits in either case, with a hyphen after any four of them, in braces or not.
///
/// # Errors
/// 22P02.
pub(super) fn parse_uuid(text: &str) -> Result<[u8; 16], Refused> {
    uuid(text).ok_or_else(|| invalid("uuid", text))
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let mut rest = inner.as_bytes();
    let mut value = [0; 16];
    for (at, byte) in value.iter_mut().enumerate() {
        let [high, low, after @ ..] = rest else { return None };
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(*high)? << 4 | digit(*low)?;
        rest = match after {
            [b'-', after @ ..] if at % 2 == 1 && at < 15 => after,
            after => after,
        };
    }
    rest.is_empty().then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_in_both_forms() {
        assert_eq!(parse_bytea("\\xDEad be0F").unwrap(), [0xde, 0xad, 0xbe, 0x0f]);
        assert_eq!(parse_bytea("a\\\\b\\000\\377").unwrap(), [b'a', b'\\', b'b', 0, 255]);
        for (text, message) in [
            ("\\xabc", "odd number of digits"),
            ("\\xzz", "invalid hexadecimal digit: \"z\""),
            ("a\\b", "invalid input syntax for type bytea"),
            ("\\400", "invalid input syntax for type bytea"),
        ] {
            let refused = parse_bytea(text).unwrap_err();
            assert!(refused.message.contains(message), "{text}: {}", refused.message);
        }
    }

    #[test]
    fn what_was_escaped_is_read() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(parse_escape(&escape(&all)).unwrap(), all);
        assert_eq!(escape(b"a\\\0\xff"), "a\\\\\\000\\377");
    }

    #[test]
    fn uuids_in_all_their_forms() {
        let value = parse_uuid("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11").unwrap();
        for text in [
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
        ] {
            assert_eq!(parse_uuid(text).unwrap(), value, "{text}");
        }
        for text in [
            "",
            "a0ee",
            "{a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0e-ebc999c0b4ef8bb6d6bb9bd380a11",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11-",
        ] {
            assert!(parse_uuid(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\\\{}x0-9a-fé-]{0,40}") {
            let _ = (parse_bytea(&text), parse_uuid(&text));
        }
    }
}
