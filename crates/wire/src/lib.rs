//! PostgreSQL at the door: connections, protocol, types on the wire, errors with SQLSTATE.
//!
//! Knows no shards and no segments: it drives a [`query::Session`] and moves bytes.
