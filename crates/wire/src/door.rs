//! The door: takes connections, at most so many at once, and sees all of them out when the process stops.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use event::limits::CONNECTIONS_MAX;
use prometheus::IntCounter;
use query::Engine;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cancel::{Cancellations, Key};
use crate::connection::Connection;
use crate::error::Failure;
use crate::metrics::Metrics;
use crate::socket::{InputBudget, Lost, Socket};
use crate::startup;

/// After an error of the listener itself (no file descriptors left) it is asked again this much later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Who has not logged in by then is shown out.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);

/// The database there is, under its own name and under the one that tools try first.
const DATABASES: [&str; 2] = ["annal", "postgres"];

/// What the door needs besides its socket and the engine.
#[derive(Debug)]
pub struct WireOptions {
    /// Where connections (`annal_connections`) and statements begun (`annal_statements_total`) are counted.
    pub registry: prometheus::Registry,
    /// Fires when the process stops: take no more clients.
    pub stop: CancellationToken,
    /// What running statements may still take from then on; after it they are cancelled.
    pub grace: Duration,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) engine: Arc<Engine>,
    pub(crate) cancellations: Cancellations,
    pub(crate) metrics: Metrics,
    /// Room for large messages.
    input: InputBudget,
    /// Idle connections end when this fires.
    pub(crate) stop: CancellationToken,
    /// Running statements end when this fires.
    pub(crate) kill: CancellationToken,
}

/// Serves clients until `options.stop` fires and every connection has ended. Runs on the runtime that calls it.
pub async fn serve(listener: TcpListener, engine: Arc<Engine>, options: WireOptions) {
    let WireOptions { registry, stop, grace } = options;
    let metrics =
        Metrics::register(&registry).expect("a process has one door, and its counters have names of their own");
    let kill = CancellationToken::new();
    let cancellations = Cancellations::default();
    let input = InputBudget::new();
    let door = Arc::new(Door { engine, cancellations, metrics, input, stop: stop.clone(), kill: kill.clone() });
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let place = places.clone().try_acquire_owned().ok();
                let door = door.clone();
                tasks.spawn(async move {
                    receive(stream, &door, place.is_some()).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "could not take a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(grace, tasks.wait()).await.is_err() {
        kill.cancel();
        tasks.wait().await;
    }
}

/// Tells each client that comes that the server is starting up, as long as this runs: who waits for an answer without a word cannot tell a node that
/// recovers from one that hangs, and tries no other.
pub async fn turn_away(listener: &TcpListener) -> Infallible {
    let bytes_sent = IntCounter::new("turned_away", "Bytes sent to clients that came too early.");
    let bytes_sent = bytes_sent.expect("the name is a good one");
    let (places, input) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), InputBudget::new());
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (input, bytes_sent) = (input.clone(), bytes_sent.clone());
        tokio::spawn(async move {
            let Ok(mut socket) = Socket::new(stream, input, bytes_sent) else { return };
            let nothing_runs = Cancellations::default();
            let login = tokio::time::timeout(LOGIN_TIMEOUT, startup::receive(&mut socket, &nothing_runs)).await;
            match login {
                Ok(Ok(Some(_))) => socket.farewell(&Failure::starting()).await,
                Ok(Err(Lost::Broken(failure) | Lost::Unreadable { failure, .. })) => socket.farewell(&failure).await,
                Ok(Ok(None) | Err(Lost::Gone)) | Err(_) => {}
            }
            drop(place);
        });
    }
}

/// One connection from its first byte to its last.
async fn receive(stream: TcpStream, door: &Door, has_place: bool) {
    let Ok(mut socket) = Socket::new(stream, door.input.clone(), door.metrics.bytes_sent.clone()) else { return };
    let login = tokio::time::timeout(LOGIN_TIMEOUT, startup::receive(&mut socket, &door.cancellations));
    let startup = tokio::select! {
        () = door.stop.cancelled() => Err(Lost::Broken(Failure::shutdown())),
        login = login => login.unwrap_or(Err(Lost::Gone)),
    };
    let startup = match startup {
        Ok(Some(startup)) if has_place => startup,
        Ok(Some(_)) => {
            door.metrics.refused.inc();
            return socket.farewell(&Failure::fatal("53300", "sorry, too many clients already")).await;
        }
        // It came to cancel, or went away.
        Ok(None) | Err(Lost::Gone) => return,
        Err(Lost::Broken(failure) | Lost::Unreadable { failure, .. }) => return socket.farewell(&failure).await,
    };
    if !DATABASES.contains(&startup.database.as_str()) {
        let failure = Failure::fatal("3D000", format!("database \"{}\" does not exist", startup.database))
            .with_hint("The database of every node is \"annal\".");
        return socket.farewell(&failure).await;
    }
    let (key, running) = door.cancellations.enter();
    let _visit = Visit::begin(door, key);
    let session = door.engine.session(&startup.user, &startup.database);
    Connection::new(socket, session, door, running).serve(startup, key).await;
}

/// A client that has come in. It leaves when this is dropped, also by a panic.
struct Visit<'d> {
    door: &'d Door,
    key: Key,
}

impl Visit<'_> {
    fn begin(door: &Door, key: Key) -> Visit<'_> {
        door.metrics.logins.inc();
        door.metrics.connections.inc();
        Visit { door, key }
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.door.cancellations.leave(self.key);
        self.door.metrics.connections.dec();
    }
}
