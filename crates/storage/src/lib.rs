//! Shards on one disk: log, memtable, splits, segments, manifest, checkpoint.
//!
//! Knows no Raft and no SQL: a log record is an index, a term and bytes; a command is data.

// What can go wrong.
mod error;
// The disk, real and simulated, and the object store that lies on it.
pub mod disk;
pub mod objects;
// The node's one write-ahead file.
pub mod log;
// What an entry of a data group says.
pub mod command;
// The state such entries build: shards with their memtables, segments and manifests.
mod memtable;
pub mod routing;
mod row_bytes;
pub mod segment;
pub mod sequence;
pub mod sequences;
pub mod shards;
pub mod snapshot;
// Segments in bytes.
pub mod dedup;
pub mod encode;
pub mod merge;
mod statistics;
// What restarts from there: the manifests at a seal.
pub mod checkpoint;
pub mod document;
// What is fuzzed.
#[doc(hidden)]
pub mod fuzz;
// Tables and rows for tests.
#[cfg(test)]
mod testing;

pub use checkpoint::checkpoint_segments;
pub use command::{Command, Entry, Statement};
pub use disk::{Disk, RealDisk, SimulatedDisk};
pub use error::{Error, disk_is_full};
pub use log::{Log, LogRecord};
pub use row_bytes::row_bytes;
pub use segment::{Segment, SegmentMeta};
pub use sequences::SequenceSet;
pub use shards::{Outcome, Shards, ShardsReader};
pub use snapshot::ShardSnapshot;
