//! PostgreSQL at the door: connections, protocol, types on the wire, errors with SQLSTATE.
//!
//! Knows no shards and no segments: it drives a [`query::Session`] and moves bytes.

// The door: who may come in, and how everybody leaves.
mod cancel;
mod door;
mod metrics;
// One connection, message by message.
mod connection;
mod copy;
mod extended;
mod guard;
mod message;
mod simple;
mod socket;
mod startup;
// What goes over it.
mod binary;
mod error;
mod rows;
mod types;

pub use door::{WireOptions, serve, turn_away};
