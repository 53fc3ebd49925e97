//! One group, many nodes: propose, apply, checkpoint, read index.
//!
//! Knows no tables and no sockets: what the entries mean is the [`StateMachine`]'s, how bytes reach a peer is `cluster`'s.
//! Every name of openraft stays in this crate and in the one adapter file of `cluster` that carries its messages.

// What can go wrong.
mod error;
// What a group is made of: the machine its entries drive, and the runtime and types Raft is told of.
mod machine;
mod runtime;
mod types;
// Its parts on disk and in memory: log, applied state with the statements it remembers, checkpoint.
mod checkpoint;
mod log_store;
mod sessions;
mod state;
// The group itself, since when its leader is confirmed, and the task that gathers statements into entries.
mod confirmed;
mod group;
mod proposer;

pub use checkpoint::{snapshot_index, snapshot_state};
pub use confirmed::Confirmed;
pub use error::Error;
pub use group::{ANSWERS_WITHIN, Group, GroupOptions, GroupStatus, Lags};
pub use machine::{MachineCheckpoint, StateMachine};
pub use proposer::Proposed;
pub use runtime::seed_elections;
pub use types::{Peer, SnapshotBytes, Types};

/// How the names of the events begin that Raft's library logs.
pub const RAFT_LOG_TARGET: &str = "openraft";
