//! Many groups, many nodes: catalog, membership, placement, routing, transport.
//!
//! Knows no DataFusion and no PostgreSQL. A single node is the same cluster with one voter.

// What can go wrong.
mod error;
// The data directory.
mod directory;
// The way to other nodes: what carries bytes, what they say, who asks and who answers.
mod door;
pub mod grpc;
mod message;
mod network;
mod peers;
mod proof;
pub mod transport;
// The two state machines, and what the first publishes.
mod catalog;
mod data;
// A node: its groups, its DDL, its flushing, its objects.
mod admission;
mod changes;
mod compaction;
mod copies;
mod ddl;
mod flush;
mod hidden;
mod hold;
mod host;
mod incoming;
mod joint;
mod load;
mod maintenance;
mod membership;
mod memory;
mod node;
mod numbers;
mod placement;
mod reading;
mod removal;
mod routing;
mod scrub;
mod segments;
mod shared;
mod start;
mod temporary;
#[cfg(test)]
mod testing;
mod tokens;
// Statements on their way into the log.
mod stage;
mod write;

pub use admission::AdmissionStatistics;
pub use catalog::{Catalog, Comments, NodeRecord, PUBLIC_SCHEMA, ShardPlacement, Table, TableSpec, View};
pub use changes::{CatalogChanges, ChangesMark};
pub use door::Door;
pub use error::Error;
pub use grpc::GrpcTransport;
pub use membership::{NodeState, NodeStatus, ReplicaStatus};
pub use memory::MemoryBudget;
pub use node::{ClientId, Node, NodeOptions, NodeStatistics, Place, RemoteSegments, ShardStatus, TableSnapshot};
pub use proof::{Proof, binding_names};
pub use reading::{Positions, ReadLevel};
pub use replication::RAFT_LOG_TARGET;
pub use scrub::{NodeScrub, Scrubbed};
pub use tokens::JoinToken;
pub use transport::{Isolated, SimulatedNetwork, Transport};
pub use write::{Commit, Mark, Uncommitted, WriteSet};
