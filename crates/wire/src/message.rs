//! A client's message from its bytes.
//!
//! The decoder takes what a message says of its own lengths for granted, and replaces what is not UTF-8. So every body is walked
//! here first: what comes through has all the bytes it promises, no more, and text that is text.

use bytes::BytesMut;
use pgwire::messages::{DecodeContext, PgWireFrontendMessage};

use crate::error::Failure;

/// Type byte and length field.
const HEADER_BYTES: usize = 5;

/// Decodes one whole message, type and length included.
///
/// # Errors
/// 08P01, fatal, for bytes that are no message; 22021 for text that is not UTF-8, after which the connection can go on.
pub(crate) fn decode(mut message: BytesMut, context: &DecodeContext) -> Result<PgWireFrontendMessage, Failure> {
    let kind = message[0];
    check(kind, &message[HEADER_BYTES..])?;
    match PgWireFrontendMessage::decode(&mut message, context) {
        Ok(Some(decoded)) => Ok(decoded),
        Ok(None) => Err(malformed(kind)),
        Err(error) => Err(Failure::protocol(error.to_string())),
    }
}

/// Bytes from a client as text.
///
/// # Errors
/// 22021 for what is not UTF-8, and for zero bytes, which no text may hold.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, Failure> {
    let wrong = match std::str::from_utf8(bytes) {
        Ok(text) if !bytes.contains(&0) => return Ok(text),
        Ok(_) => &[0_u8][..],
        Err(error) => {
            let rest = &bytes[error.valid_up_to()..];
            &rest[..error.error_len().unwrap_or(rest.len())]
        }
    };
    let wrong: Vec<String> = wrong.iter().map(|byte| format!("0x{byte:02x}")).collect();
    Err(Failure::new("22021", format!("invalid byte sequence for encoding \"UTF8\": {}", wrong.join(" "))))
}

fn check(kind: u8, body: &[u8]) -> Result<(), Failure> {
    let mut body = Body { kind, rest: body };
    match kind {
        b'Q' | b'f' => body.text()?,
        b'P' => {
            body.text()?;
            body.text()?;
            body.skip_each(4)?;
        }
        b'B' => {
            body.text()?;
            body.text()?;
            body.skip_each(2)?;
            for _ in 0..body.count()? {
                match i32::from_be_bytes(body.array()?) {
                    -1 => {}
                    length => body.skip(usize::try_from(length).map_err(|_| malformed(kind))?)?,
                }
            }
            body.skip_each(2)?;
        }
        b'C' | b'D' => {
            if !matches!(body.array::<1>()?, [b'S' | b'P']) {
                return Err(malformed(kind));
            }
            body.text()?;
        }
        b'E' => {
            body.text()?;
            body.skip(4)?;
        }
        b'H' | b'S' | b'X' | b'c' => {}
        // All of it is data.
        b'd' => return Ok(()),
        kind => return Err(Failure::protocol(format!("invalid frontend message type {kind}"))),
    }
    if body.rest.is_empty() { Ok(()) } else { Err(malformed(kind)) }
}

fn malformed(kind: u8) -> Failure {
    Failure::protocol(format!("invalid message of type \"{}\"", kind.escape_ascii()))
}

/// What is left of a body.
struct Body<'m> {
    kind: u8,
    rest: &'m [u8],
}

impl Body<'_> {
    /// A text and the zero byte that ends it.
    fn text(&mut self) -> Result<(), Failure> {
        let end = self.rest.iter().position(|byte| *byte == 0).ok_or_else(|| malformed(self.kind))?;
        utf8(&self.rest[..end])?;
        self.skip(end + 1)
    }

    fn count(&mut self) -> Result<usize, Failure> {
        Ok(usize::from(u16::from_be_bytes(self.array()?)))
    }

    /// A count, and so many things of this size.
    fn skip_each(&mut self, bytes: usize) -> Result<(), Failure> {
        let count = self.count()?;
        self.skip(count * bytes)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Failure> {
        self.rest = self.rest.get(bytes..).ok_or_else(|| malformed(self.kind))?;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let (array, rest) = self.rest.split_first_chunk().ok_or_else(|| malformed(self.kind))?;
        self.rest = rest;
        Ok(*array)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use pgwire::messages::ProtocolVersion;
    use proptest::prelude::*;

    use super::*;
    use crate::error::Severity;

    fn received(kind: u8, body: &[u8]) -> Result<PgWireFrontendMessage, Failure> {
        let mut message = BytesMut::new();
        message.put_u8(kind);
        message.put_i32(i32::try_from(body.len() + 4).unwrap());
        message.put_slice(body);
        let mut context = DecodeContext::new(ProtocolVersion::PROTOCOL3_0);
        context.awaiting_frontend_ssl = false;
        context.awaiting_frontend_startup = false;
        decode(message, &context)
    }

    /// A Bind of two parameters, one of them NULL.
    const BIND: &[u8] = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\x01\0\0";

    #[test]
    fn whole_messages_are_read() {
        for (kind, body) in [
            (b'Q', &b"select 1\0"[..]),
            (b'P', b"s\0select $1\0\0\x01\0\0\0\x17"),
            (b'B', BIND),
            (b'D', b"Sname\0"),
            (b'C', b"P\0"),
            (b'E', b"\0\0\0\0\x02"),
            (b'S', b""),
            (b'd', b"\xff\0 anything"),
            (b'f', b"why\0"),
        ] {
            assert!(received(kind, body).is_ok(), "{}", kind.escape_ascii());
        }
    }

    #[test]
    fn a_message_cut_anywhere_or_with_more_behind_it_is_refused() {
        let messages =
            [(b'P', &b"s\0select $1\0\0\x01\0\0\0\x17"[..]), (b'B', BIND), (b'E', b"p\0\0\0\0\x02"), (b'D', b"S\0")];
        for (kind, body) in messages {
            for end in 0..body.len() {
                let failure = received(kind, &body[..end]).expect_err("bytes are missing");
                assert_eq!(failure.severity, Severity::Fatal);
            }
            assert!(received(kind, &[body, b"\0"].concat()).is_err());
        }
        assert!(received(b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0").is_err(), "a length below that of NULL");
        assert!(received(b'D', b"X\0").is_err());
        assert!(received(b'?', b"").is_err());
    }

    #[test]
    fn what_is_not_utf8_is_refused_and_not_replaced() {
        let failure = received(b'Q', b"select 'a\xffb'\0").expect_err("0xff is no UTF-8");
        assert_eq!(failure.severity, Severity::Error);
        assert!(
            format!("{failure:?}").contains("invalid byte sequence for encoding \\\"UTF8\\\": 0xff"),
            "{failure:?}"
        );
        assert!(utf8(b"a\0b").is_err());
        assert_eq!(utf8("ä".as_bytes()).unwrap(), "ä");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(kind in prop::sample::select(&b"QPBDCEHSXcdfp?"[..]), body in prop::collection::vec(any::<u8>(), 0..64)) {
            // Either answer will do.
            let _answer = received(kind, &body);
        }

        #[test]
        fn no_change_of_a_bind_panics(at in 0..BIND.len(), byte in any::<u8>()) {
            let mut body = BIND.to_vec();
            body[at] = byte;
            let _answer = received(b'B', &body);
        }
    }
}
