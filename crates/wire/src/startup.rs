//! From the first byte to the startup packet: refuses encryption, takes cancel requests, negotiates the version.

use bytes::{Buf, BytesMut};
use pgwire::messages::startup::NegotiateProtocolVersion;

use crate::cancel::{Cancellations, Key};
use crate::error::Failure;
use crate::socket::{Lost, Socket};

const SSL_REQUEST: i32 = 80_877_103;
const GSS_REQUEST: i32 = 80_877_104;
const CANCEL_REQUEST: i32 = 80_877_102;
/// Version 3.0 as one number.
const PROTOCOL_3_0: i32 = 3 << 16;
/// A client may ask for each kind of encryption once.
const ENCRYPTION_REQUESTS_MAX: usize = 2;

/// Who comes in, and with which settings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Startup {
    pub(crate) user: String,
    pub(crate) database: String,
    /// Settings, in the order the client gave them.
    pub(crate) settings: Vec<(String, String)>,
}

/// Reads what comes before login; `None` when it was a cancel request, which has been acted on.
pub(crate) async fn receive(socket: &mut Socket, cancellations: &Cancellations) -> Result<Option<Startup>, Lost> {
    for _ in 0..=ENCRYPTION_REQUESTS_MAX {
        let mut message = socket.startup_message().await?;
        message.advance(4);
        match message.get_i32() {
            SSL_REQUEST | GSS_REQUEST => {
                socket.put_byte(b'N');
                socket.flush().await?;
            }
            CANCEL_REQUEST if message.len() == 8 => {
                cancellations.cancel(Key { process: message.get_i32(), secret: message.get_i32() });
                return Ok(None);
            }
            version if version >> 16 == 3 => return accept(socket, version, message).map(Some),
            version => {
                let message = format!("unsupported frontend protocol {}.{}", version >> 16, version & 0xffff);
                return Err(Lost::Broken(Failure::fatal("0A000", message)));
            }
        }
    }
    Err(Lost::Broken(Failure::protocol("expected a startup packet")))
}

fn accept(socket: &mut Socket, version: i32, message: BytesMut) -> Result<Startup, Lost> {
    let pairs = parameters(&message).ok_or_else(|| Lost::Broken(Failure::protocol("invalid startup packet layout")))?;
    let (unknown, pairs): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(name, _)| name.starts_with("_pq_."));
    if version != PROTOCOL_3_0 || !unknown.is_empty() {
        let unknown = unknown.into_iter().map(|(name, _)| name).collect();
        socket.put(&NegotiateProtocolVersion::new(PROTOCOL_3_0, unknown));
    }
    let mut startup = Startup { user: String::new(), database: String::new(), settings: Vec::new() };
    for (name, value) in pairs {
        match name.as_str() {
            "user" => startup.user = value,
            "database" => startup.database = value,
            "replication" if matches!(value.as_str(), "false" | "off" | "no" | "0") => {}
            "replication" => {
                return Err(Lost::Broken(Failure::fatal("0A000", "replication connections are not supported")));
            }
            "options" => startup.settings.extend(options(&value)),
            _ => startup.settings.push((name, value)),
        }
    }
    if startup.user.is_empty() {
        return Err(Lost::Broken(Failure::fatal("28000", "no PostgreSQL user name specified in startup packet")));
    }
    if startup.database.is_empty() {
        startup.database.clone_from(&startup.user);
    }
    Ok(startup)
}

/// The pairs of zero-ended strings, ended by an empty one.
fn parameters(mut message: &[u8]) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    loop {
        let name = string(&mut message)?;
        if name.is_empty() {
            return message.is_empty().then_some(pairs);
        }
        pairs.push((name, string(&mut message)?));
    }
}

fn string(message: &mut &[u8]) -> Option<String> {
    let end = message.iter().position(|byte| *byte == 0)?;
    let text = String::from_utf8(message[..end].to_vec()).ok()?;
    *message = &message[end + 1..];
    Some(text)
}

/// `-c name=value --name=value`, a backslash before a blank that belongs to the value.
fn options(text: &str) -> Vec<(String, String)> {
    let mut words = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let word = words.last_mut().expect("there is always a word");
        match c {
            '\\' => word.extend(chars.next()),
            c if c.is_whitespace() => words.push(String::new()),
            c => word.push(c),
        }
    }
    let words = words.into_iter().filter(|word| !word.is_empty() && word != "-c");
    let pair = |word: String| {
        let word = word.strip_prefix("--").or_else(|| word.strip_prefix("-c")).unwrap_or(&word).to_owned();
        word.split_once('=').map(|(name, value)| (name.replace('-', "_"), value.to_owned()))
    };
    words.filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_libpq_writes_them() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            options("-c statement_timeout=5s --search_path=a\\ b -cjit=off"),
            [pair("statement_timeout", "5s"), pair("search_path", "a b"), pair("jit", "off")]
        );
    }

    #[test]
    fn a_startup_packet_must_end_where_it_says() {
        assert_eq!(parameters(b"user\0a\0\0"), Some(vec![("user".to_owned(), "a".to_owned())]));
        assert_eq!(parameters(b"user\0a\0"), None);
        assert_eq!(parameters(b"user\0"), None);
        assert_eq!(parameters(b"\0x"), None);
    }
}
