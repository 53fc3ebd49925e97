//! What all sessions of a node share: node, memory pool, functions, runtime.

use std::sync::Arc;

use crate::session::Session;

/// What an engine needs.
#[derive(Debug)]
pub struct EngineOptions {
    /// The node.
    pub node: Arc<cluster::Node>,
    /// Plans and runs queries and decodes COPY; no socket is served there.
    pub runtime: tokio::runtime::Handle,
    /// Bytes all running queries may use together.
    pub memory_bytes: usize,
    /// Partitions of a plan.
    pub partitions: usize,
}

/// The query engine of a node.
#[derive(Debug)]
pub struct Engine {}

impl Engine {
    /// Registers functions, views and the segment store.
    pub fn new(options: EngineOptions) -> Arc<Engine> {
        let _ = options;
        unimplemented!()
    }

    /// A session with its own settings, prepared plans and transaction.
    pub fn session(self: &Arc<Self>, user: &str, database: &str) -> Session {
        let _ = (user, database);
        unimplemented!()
    }
}
