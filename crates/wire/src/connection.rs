//! One connection after its startup packet: greets, then answers message after message.
//!
//! The loop is ours rather than pgwire's because a message may take long: while it is worked on, a CancelRequest, a
//! timeout, the end of the process and the client's own end must be noticed.

use std::collections::HashMap;
use std::sync::Arc;

use pgwire::messages::PgWireFrontendMessage;
use pgwire::messages::response::{ReadyForQuery, TransactionStatus as ReadyStatus};
use pgwire::messages::startup::{Authentication, BackendKeyData, ParameterStatus, SecretKey};
use query::{Session, TransactionStatus};

use crate::cancel::{Key, Running};
use crate::door::Door;
use crate::error::{Failure, Severity, notice};
use crate::extended::{Named, Portal};
use crate::guard::{Guard, Stopped};
use crate::socket::{Lost, Socket};
use crate::startup::Startup;

/// What every client is told at login, as PostgreSQL does.
const GREETING: [&str; 13] = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
];

/// The connection ends.
#[derive(Debug)]
pub(crate) enum End {
    /// Nobody is there to be told.
    Silent,
    /// With a last word.
    Told(Failure),
}

impl From<Lost> for End {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Gone => End::Silent,
            Lost::Broken(failure) | Lost::Unreadable { failure, .. } => End::Told(failure),
        }
    }
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        End::Silent
    }
}

/// A connection.
pub(crate) struct Connection<'d> {
    pub(crate) socket: Socket,
    pub(crate) session: Session,
    pub(crate) door: &'d Door,
    running: Arc<Running>,
    /// Prepared statements by name; the unnamed one is "".
    pub(crate) statements: HashMap<String, Named>,
    /// Portals by name; they end with the transaction.
    pub(crate) portals: HashMap<String, Portal>,
    /// After an error in the extended protocol nothing is answered until Sync.
    pub(crate) skip_to_sync: bool,
}

impl<'d> Connection<'d> {
    pub(crate) fn new(socket: Socket, session: Session, door: &'d Door, running: Arc<Running>) -> Connection<'d> {
        Connection {
            socket,
            session,
            door,
            running,
            statements: HashMap::new(),
            portals: HashMap::new(),
            skip_to_sync: false,
        }
    }

    /// Serves the client to the end of the connection.
    pub(crate) async fn serve(mut self, startup: Startup, key: Key) {
        let end = match self.greet(startup, key) {
            Ok(()) => self.converse().await,
            Err(end) => end,
        };
        if let End::Told(failure) = end {
            self.socket.farewell(&failure).await;
        }
    }

    fn greet(&mut self, startup: Startup, key: Key) -> Result<(), End> {
        self.session.serves(key.process, self.socket.peer());
        for (name, value) in &startup.settings {
            if let Err(error) = self.session.set(name, value) {
                return Err(End::Told(Failure::from(error).into_fatal()));
            }
        }
        self.socket.put(&Authentication::Ok);
        for name in GREETING {
            if let Some(value) = self.session.setting(name) {
                self.socket.put(&ParameterStatus::new(name.to_owned(), value));
            }
        }
        // All of them have just been told.
        drop(self.session.take_reported());
        self.socket.put(&BackendKeyData::new(key.process, SecretKey::I32(key.secret)));
        self.ready();
        Ok(())
    }

    async fn converse(&mut self) -> End {
        let stop = self.door.stop.clone();
        loop {
            let message = tokio::select! {
                () = stop.cancelled() => return End::Told(Failure::shutdown()),
                message = self.next_message() => message,
            };
            let answered = match message {
                Ok(message) => self.answer(message).await,
                Err(Lost::Unreadable { failure, is_query }) => self.refuse(failure, is_query).await,
                Err(lost) => Err(lost.into()),
            };
            if let Err(end) = answered {
                return end;
            }
        }
    }

    async fn next_message(&mut self) -> Result<PgWireFrontendMessage, Lost> {
        // Inside a row of extended messages the answers wait for Sync or Flush, or until there are many.
        if self.is_at_rest() || self.socket.is_full() {
            self.socket.flush().await?;
        }
        self.socket.message().await
    }

    /// Answers Flush. A client that does not take what it asked for does not keep the process from ending.
    async fn flush(&mut self) -> Result<(), End> {
        let kill = self.door.kill.clone();
        tokio::select! {
            () = kill.cancelled() => Err(End::Told(Failure::shutdown())),
            flushed = self.socket.flush() => Ok(flushed?),
        }
    }

    /// Answers a message that could not be read.
    async fn refuse(&mut self, failure: Failure, is_query: bool) -> Result<(), End> {
        if self.skip_to_sync {
            return Ok(());
        }
        self.report(failure.into())?;
        if is_query {
            self.end_implicit(false).await?;
            self.ready();
        } else {
            self.skip_to_sync = true;
        }
        Ok(())
    }

    /// Whether everything queued ends with ReadyForQuery.
    fn is_at_rest(&mut self) -> bool {
        const READY_BYTES: usize = 6;
        let output = self.socket.output();
        output.len() >= READY_BYTES && output[output.len() - READY_BYTES] == b'Z'
    }

    async fn answer(&mut self, message: PgWireFrontendMessage) -> Result<(), End> {
        use PgWireFrontendMessage as Message;
        if self.skip_to_sync && !matches!(message, Message::Sync(_) | Message::Terminate(_)) {
            return Ok(());
        }
        let answered = match message {
            Message::Query(message) => return self.query(&message.query).await,
            Message::Sync(_) => return self.sync().await,
            Message::Flush(_) => return self.flush().await,
            Message::Terminate(_) => return Err(End::Silent),
            // What is left of a COPY that failed.
            Message::CopyData(_) | Message::CopyDone(_) | Message::CopyFail(_) => return Ok(()),
            Message::Parse(message) => self.parse(message).await,
            Message::Bind(message) => self.bind(message),
            Message::Describe(message) => self.describe(&message),
            Message::Execute(message) => self.execute(&message).await,
            Message::Close(message) => self.close(&message),
            Message::Startup(_)
            | Message::SslNegotiation(_)
            | Message::CancelRequest(_)
            | Message::PasswordMessageFamily(_)
            | Message::PortalSuspended(_) => {
                return Err(End::Told(Failure::protocol("this message does not belong here")));
            }
        };
        match answered {
            Ok(()) => Ok(()),
            Err(stopped) => {
                self.skip_to_sync = true;
                self.report(stopped)
            }
        }
    }

    /// Tells the client of a failed statement; ends the connection when there is no client, or no going on.
    pub(crate) fn report(&mut self, stopped: Stopped) -> Result<(), End> {
        self.door.metrics.errors.inc();
        self.session.statement_failed();
        self.tell_changes();
        match stopped {
            Stopped::Gone => Err(End::Silent),
            Stopped::Failed(failure) if failure.severity == Severity::Fatal => Err(End::Told(failure)),
            Stopped::Failed(failure) => {
                self.socket.put(&failure.response());
                Ok(())
            }
        }
    }

    /// Begins a statement: counts it and watches over it.
    pub(crate) fn guard(&self) -> Guard {
        let timeout_ms = self.session.statement_timeout_ms();
        let committing = self.session.committing();
        Guard::begin(self.running.clone(), self.socket.presence(), self.door.kill.clone(), timeout_ms, committing)
    }

    /// Queues notices and changed settings.
    pub(crate) fn tell_changes(&mut self) {
        for told in self.session.take_notices() {
            self.socket.put(&notice(&told));
        }
        for (name, value) in self.session.take_reported() {
            self.socket.put(&ParameterStatus::new(name, value));
        }
    }

    /// Queues ReadyForQuery.
    pub(crate) fn ready(&mut self) {
        self.end_portals();
        let status = match self.session.status() {
            TransactionStatus::Idle => ReadyStatus::Idle,
            TransactionStatus::Active => ReadyStatus::Transaction,
            TransactionStatus::Failed => ReadyStatus::Error,
        };
        self.session.waits();
        self.socket.put(&ReadyForQuery::new(status));
    }

    /// Portals end with their transaction.
    pub(crate) fn end_portals(&mut self) {
        if self.session.status() == TransactionStatus::Idle {
            self.portals.clear();
        }
    }

    /// Ends the implicit transaction of a message or of messages up to Sync.
    pub(crate) async fn end_implicit(&mut self, commit: bool) -> Result<(), End> {
        // A commit is not interrupted: it may be decided already, and the client must hear how.
        match self.session.end_implicit(commit).await {
            Ok(()) => Ok(()),
            Err(error) => self.report(error.into()),
        }
    }
}
