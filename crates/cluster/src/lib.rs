//! Many groups, many nodes: catalog, membership, placement, routing, transport.
//!
//! Knows no DataFusion and no PostgreSQL. A single node is the same cluster with one voter.

mod catalog;
mod error;
mod node;
mod write;

pub use catalog::{Catalog, ShardPlacement, Table, TableSpec};
pub use error::Error;
pub use node::{Node, NodeOptions, NodeStatistics, ShardStatus, TableSnapshot};
pub use write::{Commit, Uncommitted, WriteSet};
