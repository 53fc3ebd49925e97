//! The client's socket: whole messages in, buffered messages out.
//!
//! Reading and writing are safe to drop at any await: what was read stays in `input`, what is to be written in `output`.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut, BytesMut};
use event::limits::CLIENT_MESSAGE_BYTES_MAX;
use pgwire::messages::Message;
use pgwire::messages::{DecodeContext, PgWireFrontendMessage, ProtocolVersion};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::TcpStream;

use crate::error::Failure;

/// Output is sent once it has grown to this.
const OUTPUT_BYTES: usize = 64 << 10;
/// What one read may bring.
const READ_BYTES: usize = 16 << 10;
/// A message before login is small.
const STARTUP_BYTES_MAX: usize = 10_000;
/// Length field included, type byte not.
const LENGTH_BYTES: usize = 4;

/// Why nothing more comes from the client.
#[derive(Debug)]
pub(crate) enum Lost {
    /// It closed the connection, or the network did.
    Gone,
    /// It broke the protocol; it is told so, and the connection ends.
    Broken(Failure),
}

impl From<io::Error> for Lost {
    fn from(_: io::Error) -> Self {
        Lost::Gone
    }
}

/// The socket with its buffers.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Arc<TcpStream>,
    input: BytesMut,
    output: BytesMut,
    context: DecodeContext,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Socket> {
        stream.set_nodelay(true)?;
        let mut context = DecodeContext::new(ProtocolVersion::PROTOCOL3_0);
        context.awaiting_frontend_ssl = false;
        context.awaiting_frontend_startup = false;
        Ok(Socket { stream: Arc::new(stream), input: BytesMut::new(), output: BytesMut::new(), context })
    }

    /// What tells whether the client is still there.
    pub(crate) fn presence(&self) -> Presence {
        Presence(self.stream.clone())
    }

    /// The next message before login: its bytes, length field first.
    pub(crate) async fn startup_message(&mut self) -> Result<BytesMut, Lost> {
        self.fill(LENGTH_BYTES).await?;
        let length = length_at(&self.input, 0);
        let length = length.filter(|length| (LENGTH_BYTES * 2..=STARTUP_BYTES_MAX).contains(length));
        let length = length.ok_or_else(|| Lost::Broken(Failure::protocol("invalid length of startup packet")))?;
        self.fill(length).await?;
        Ok(self.input.split_to(length))
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> Result<PgWireFrontendMessage, Lost> {
        self.fill(1 + LENGTH_BYTES).await?;
        let kind = self.input[0];
        let length = length_at(&self.input, 1).filter(|length| *length >= LENGTH_BYTES);
        let Some(length) = length else {
            return Err(Lost::Broken(Failure::protocol("invalid message length")));
        };
        if length > CLIENT_MESSAGE_BYTES_MAX {
            let failure = Failure::fatal("54000", "message is too large")
                .with_detail(format!("It has {length} bytes; the limit is {CLIENT_MESSAGE_BYTES_MAX}."));
            return Err(Lost::Broken(failure));
        }
        self.fill(1 + length).await?;
        let mut message = self.input.split_to(1 + length);
        match PgWireFrontendMessage::decode(&mut message, &self.context) {
            Ok(Some(decoded)) if message.is_empty() => Ok(decoded),
            Ok(_) => {
                Err(Lost::Broken(Failure::protocol(format!("invalid message of type \"{}\"", kind.escape_ascii()))))
            }
            Err(error) => Err(Lost::Broken(Failure::protocol(error.to_string()))),
        }
    }

    /// Whether the next message, if it has arrived, is of this type.
    pub(crate) fn next_is(&self, kind: u8) -> bool {
        self.input.first() == Some(&kind)
    }

    /// Queues a message.
    pub(crate) fn put(&mut self, message: &impl Message) {
        let begin = self.output.len();
        if let Err(error) = message.encode(&mut self.output) {
            // Only a description of thousands of columns is too large; half a message must not go out.
            self.output.truncate(begin);
            tracing::warn!(%error, "a message could not be encoded");
        }
    }

    /// Queues one byte, the answer to a request for encryption.
    pub(crate) fn put_byte(&mut self, byte: u8) {
        self.output.put_u8(byte);
    }

    /// Where rows are encoded to.
    pub(crate) fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Whether enough is queued to be sent.
    pub(crate) fn is_full(&self) -> bool {
        self.output.len() >= OUTPUT_BYTES
    }

    /// Sends what is queued.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(&self.output) {
                Ok(written) => self.output.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads until `bytes` are there.
    async fn fill(&mut self, bytes: usize) -> Result<(), Lost> {
        while self.input.len() < bytes {
            self.stream.readable().await?;
            self.input.reserve(READ_BYTES);
            match self.stream.try_read_buf(&mut self.input) {
                Ok(0) => return Err(Lost::Gone),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn length_at(input: &[u8], at: usize) -> Option<usize> {
    let bytes: [u8; LENGTH_BYTES] = input.get(at..at + LENGTH_BYTES)?.try_into().ok()?;
    usize::try_from(i32::from_be_bytes(bytes)).ok()
}

/// Tells whether the client is still there, without reading what it has sent.
#[derive(Clone, Debug)]
pub(crate) struct Presence(Arc<TcpStream>);

impl Presence {
    /// Whether the client closed its side, or the connection broke.
    pub(crate) fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_ref(), PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ready = poll(&mut fds, Some(&now)).unwrap_or(0);
        ready > 0 && fds[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
    }
}
