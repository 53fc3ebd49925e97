//! The client's socket: whole messages in, buffered messages out.
//!
//! Reading and writing are safe to drop at any await: what was read stays in `input`, what is to be written in `output`.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use event::limits::{CLIENT_INPUT_BYTES_MAX, CLIENT_MESSAGE_BYTES_MAX};
use parking_lot::Mutex;
use pgwire::messages::Message;
use pgwire::messages::{DecodeContext, PgWireFrontendMessage, ProtocolVersion};
use prometheus::IntCounter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::error::{Failure, Severity};
use crate::message;

/// Output is sent once it has grown to this.
const OUTPUT_BYTES: usize = 64 << 10;
/// An output buffer that had to hold more than this is not kept.
const SWOLLEN_BYTES: usize = 4 * OUTPUT_BYTES;
/// What one read may bring at least, and at most.
const READ_BYTES: usize = 16 << 10;
const READ_BYTES_MAX: usize = 1 << 20;
/// A message above this is large: it needs room in the budget of all connections, and its buffer is not kept.
const LARGE_BYTES: usize = 64 << 10;
/// The budget is counted in pieces of this size.
const BUDGET_UNIT_BYTES: usize = 1 << 10;
/// A client that does not take the last word within this time does not get it.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// A silent client's machine is asked whether it is still there after this time, then so often, and after so many questions without an
/// answer the connection ends.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 6;
/// How often a running statement looks whether its client is still there.
const PRESENCE_INTERVAL: Duration = Duration::from_millis(100);
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
    /// A whole message came that nobody can make sense of; the one after it may be better.
    Unreadable {
        /// What is wrong.
        failure: Failure,
        /// Whether it was a Query, which is answered without a Sync.
        is_query: bool,
    },
}

impl From<io::Error> for Lost {
    fn from(_: io::Error) -> Self {
        Lost::Gone
    }
}

/// Room for the large messages of all connections.
#[derive(Clone, Debug)]
pub(crate) struct InputBudget(Arc<Semaphore>);

impl InputBudget {
    /// All of [`CLIENT_INPUT_BYTES_MAX`].
    pub(crate) fn new() -> InputBudget {
        InputBudget(Arc::new(Semaphore::new(CLIENT_INPUT_BYTES_MAX / BUDGET_UNIT_BYTES)))
    }

    /// Room for a message of this many bytes; `None` when it needs none.
    fn reserve(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, Failure> {
        if bytes <= LARGE_BYTES {
            return Ok(None);
        }
        let units = u32::try_from(bytes.div_ceil(BUDGET_UNIT_BYTES)).expect("a message is below its limit");
        self.0.clone().try_acquire_many_owned(units).map(Some).map_err(|_| {
            Failure::fatal("53200", "too many large messages at once")
                .with_detail(format!("All connections together may have {CLIENT_INPUT_BYTES_MAX} bytes of them."))
                .with_hint("Try again, or send smaller messages.")
        })
    }
}

/// The socket with its buffers.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Arc<TcpStream>,
    presence: Presence,
    input: BytesMut,
    output: BytesMut,
    /// Whether much more was queued than is usual, so that the buffer is not kept.
    is_swollen: bool,
    context: DecodeContext,
    /// Counts what is sent.
    bytes_sent: IntCounter,
    budget: InputBudget,
    /// Room of the message read last, until the next is asked for.
    room: Option<OwnedSemaphorePermit>,
    /// Whether that message has been given out.
    is_whole: bool,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, budget: InputBudget, bytes_sent: IntCounter) -> io::Result<Socket> {
        stream.set_nodelay(true)?;
        keep_alive(&stream)?;
        let mut context = DecodeContext::new(ProtocolVersion::PROTOCOL3_0);
        context.awaiting_frontend_ssl = false;
        context.awaiting_frontend_startup = false;
        let (input, output) = (BytesMut::new(), BytesMut::new());
        let stream = Arc::new(stream);
        Ok(Socket {
            presence: Presence::of(Arc::clone(&stream)),
            stream,
            input,
            output,
            is_swollen: false,
            context,
            bytes_sent,
            budget,
            room: None,
            is_whole: false,
        })
    }

    /// Where the client is, while that is known.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.stream.peer_addr().ok()
    }

    /// What tells whether the client is still there.
    pub(crate) fn presence(&self) -> Presence {
        self.presence.clone()
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
        if std::mem::take(&mut self.is_whole) {
            self.room = None;
        }
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
        // Room that was reserved before this future was dropped and begun again serves the same message.
        if self.room.is_none() {
            self.room = self.budget.reserve(length).map_err(Lost::Broken)?;
        }
        self.fill(1 + length).await?;
        let message = self.input.split_to(1 + length);
        if length > LARGE_BYTES {
            // The buffer belongs to the message alone and goes with it.
            self.input = BytesMut::from(self.input.as_ref());
        }
        self.is_whole = true;
        message::decode(message, &self.context).map_err(|failure| match failure.severity {
            Severity::Fatal => Lost::Broken(failure),
            Severity::Error => Lost::Unreadable { failure, is_query: kind == b'Q' },
        })
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
        self.is_swollen |= self.output.len() > SWOLLEN_BYTES;
        while !self.output.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(&self.output) {
                Ok(written) => {
                    self.output.advance(written);
                    self.bytes_sent.inc_by(written as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if std::mem::take(&mut self.is_swollen) {
            self.output = BytesMut::new();
        }
        Ok(())
    }

    /// Sends the last word, if the client takes it.
    pub(crate) async fn farewell(&mut self, failure: &Failure) {
        self.put(&failure.response());
        // It may be gone already, or have stopped reading: nobody waits for it.
        let _untold = tokio::time::timeout(FAREWELL_TIMEOUT, self.flush()).await;
    }

    /// Reads until `bytes` are there.
    async fn fill(&mut self, bytes: usize) -> Result<(), Lost> {
        while self.input.len() < bytes {
            self.stream.readable().await?;
            self.input.reserve((bytes - self.input.len()).clamp(READ_BYTES, READ_BYTES_MAX));
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

/// Lets the system notice that a client's machine has vanished.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    Ok(())
}

/// Tells whether the client is still there, without reading what it has sent.
#[derive(Clone, Debug)]
pub(crate) struct Presence {
    stream: Arc<TcpStream>,
    /// When to look. It goes on from statement to statement: a timer of its own would be a good part of what a short one costs.
    looks: Arc<Mutex<Interval>>,
}

impl Presence {
    pub(crate) fn of(stream: Arc<TcpStream>) -> Presence {
        let mut looks = interval(PRESENCE_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Presence { stream, looks: Arc::new(Mutex::new(looks)) }
    }

    /// Completes once the client has gone away.
    pub(crate) async fn absence(&self) {
        loop {
            poll_fn(|context| self.looks.lock().poll_tick(context)).await;
            if self.is_gone() {
                return;
            }
        }
    }

    /// Whether the client closed its side, or the connection broke.
    fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(self.stream.as_ref(), PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ready = poll(&mut fds, Some(&now)).unwrap_or(0);
        ready > 0 && fds[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
    }
}
