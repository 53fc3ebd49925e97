//! Many groups, many nodes: catalog, membership, placement, routing, transport.
//!
//! Knows no DataFusion and no PostgreSQL. A single node is the same cluster with one voter.

// What can go wrong.
mod error;
// The data directory, and the way to peers.
mod directory;
mod peers;
// The two state machines, and what the first publishes.
mod catalog;
mod data;
// A node: its groups, its DDL, its flushing, its objects.
mod changes;
mod compaction;
mod ddl;
mod flush;
mod hidden;
mod hold;
mod maintenance;
mod memory;
mod node;
mod numbers;
mod segments;
mod start;
mod temporary;
// Statements on their way into the log.
mod stage;
mod write;

pub use catalog::{Catalog, Comments, PUBLIC_SCHEMA, ShardPlacement, Table, TableSpec, View};
pub use changes::{CatalogChanges, ChangesMark};
pub use error::Error;
pub use memory::MemoryBudget;
pub use node::{Node, NodeOptions, NodeStatistics, RemoteSegments, ShardStatus, TableSnapshot};
pub use write::{Commit, Mark, Uncommitted, WriteSet};
