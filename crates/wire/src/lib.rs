//! PostgreSQL at the door: connections, protocol, types on the wire, errors with SQLSTATE.
//!
//! Knows no shards and no segments: it drives a [`query::Session`] and moves bytes.

use std::sync::Arc;
use std::time::Duration;

use query::Engine;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

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

/// Serves clients until `options.stop` fires and every connection has ended. Runs on the runtime that calls it.
pub async fn serve(listener: TcpListener, engine: Arc<Engine>, options: WireOptions) {
    let _ = (listener, engine, options);
    unimplemented!()
}
