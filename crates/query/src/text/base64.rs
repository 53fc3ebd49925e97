//! Base64 as `encode` and `decode` have it: MIME's alphabet and padding, and a line ends after 76 characters, the last as well when it is
//! filled by whole groups.

use super::{Refused, refused};
use crate::error::Condition;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// RFC 2045, section 6.8.
const LINE_CHARACTERS_MAX: usize = 76;

/// The text of bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    let mut on_line = 0;
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= group.len() { char::from(digit) } else { '=' });
        }
        on_line += 4;
        if on_line == LINE_CHARACTERS_MAX && group.len() == 3 {
            text.push('\n');
            on_line = 0;
        }
    }
    text
}

/// The bytes of a text; blanks count for nothing.
///
/// # Errors
/// 22023 for other characters, and for an end that is missing or in the middle.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, Refused> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut digits, mut ends) = (0_u32, 0, 0);
    for character in text.chars().filter(|character| !matches!(character, ' ' | '\t' | '\n' | '\r')) {
        let digit = ALPHABET.iter().position(|digit| char::from(*digit) == character);
        let value = match (digit, character) {
            (Some(digit), _) if ends == 0 => digit as u32,
            (None, '=') if ends > 0 || digits >= 2 => {
                ends += 1;
                0
            }
            (_, '=') => return Err(refuse("unexpected \"=\" while decoding base64 sequence".to_owned())),
            _ => {
                let message = format!("invalid symbol \"{character}\" found while decoding base64 sequence");
                return Err(refuse(message));
            }
        };
        bits = bits << 6 | value;
        digits += 1;
        if digits == 4 {
            let [_, group @ ..] = bits.to_be_bytes();
            bytes.extend_from_slice(&group[..3 - ends.min(2)]);
            (bits, digits) = (0, 0);
        }
    }
    if digits == 0 { Ok(bytes) } else { Err(refuse("invalid base64 end sequence".to_owned())) }
}

fn refuse(message: String) -> Refused {
    refused(Condition::InvalidParameterValue, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ends_are_filled_up_and_lines_are_cut() {
        // RFC 4648, section 10.
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).unwrap(), bytes.as_bytes());
        }
        let lines = encode(&[0; 58]);
        assert_eq!(lines.lines().map(str::len).collect::<Vec<_>>(), [76, 4]);
        assert_eq!((encode(&[0; 57]).len(), encode(&[0; 56]).len()), (77, 76));
        assert_eq!(decode(&lines).unwrap(), [0; 58]);
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for (text, message) in [
            ("Zg", "invalid base64 end sequence"),
            ("Zg=", "invalid base64 end sequence"),
            ("=", "unexpected \"=\" while decoding base64 sequence"),
            ("Z%==", "invalid symbol \"%\" found while decoding base64 sequence"),
        ] {
            assert_eq!(decode(text).unwrap_err().message, message, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&encode(&bytes)).unwrap(), bytes);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[A-Za-z=%é ]{0,20}") {
            let _ = decode(&text);
        }
    }
}
