//! HTTP for supervisors and Prometheus: `/livez`, `/readyz`, `/metrics`.
//!
//! Served before the node has started, so that a supervisor can tell a long recovery from a dead process.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use cluster::Node;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::allocator::Allocated;

/// What the pages show.
#[derive(Debug)]
pub(crate) struct Pages {
    /// Set once the node serves clients.
    pub(crate) node: OnceLock<Arc<Node>>,
    /// Counters of the PostgreSQL door.
    pub(crate) registry: prometheus::Registry,
    /// Fires when the process begins to stop.
    pub(crate) stopping: CancellationToken,
}

impl Pages {
    fn ready_node(&self) -> Option<&Arc<Node>> {
        if self.stopping.is_cancelled() { None } else { self.node.get() }
    }
}

/// Serves until the process ends.
pub(crate) async fn serve(listener: TcpListener, pages: Arc<Pages>) {
    let router = Router::new()
        .route("/livez", get(|| async { "live\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(pages);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "health and metrics are no longer served");
    }
}

async fn readyz(State(pages): State<Arc<Pages>>) -> Response {
    match pages.ready_node() {
        Some(_) => "ready\n".into_response(),
        None if pages.stopping.is_cancelled() => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
    }
}

async fn metrics(State(pages): State<Arc<Pages>>) -> Response {
    let node = pages.node.get();
    let statistics = node.map(|node| node.statistics()).unwrap_or_default();
    let replicas = node.map(|node| node.replica_status()).unwrap_or_default();
    match crate::metrics::page(&statistics, &replicas, Allocated::now(), pages.registry.gather()) {
        Ok(page) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
