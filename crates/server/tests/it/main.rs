//! Tests of the whole product: the built binary, driven from outside. One test binary, one module for each concern.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says why on stderr")]

// What the tests stand on: the server as a child process, alone or one of three on a network of their own; a load on them; a PostgreSQL to
// compare answers with; and values as they are on the wire.
mod bytes_of;
mod load;
mod network;
mod oracle;
mod ports;
mod server;
mod three;

// The process: settings, signals, exit codes, health.
mod process;
// What survives when it is killed, and when the disk fails.
mod crash;
mod full_disk;
mod sync_failure;
// Segments that lie elsewhere.
mod remote_store;
// More work than there is memory for.
mod memory;
// Work that never yields.
mod starvation;
// The main job.
mod demo;
// The SQL surface, by example.
mod sqllogic;
// Three nodes, and what happens to one of them.
mod clock_jumps;
mod full_disk_of_one;
mod join_tokens;
mod partitions;
mod replicated;
mod sync_failure_of_one;
// Keys under many writers.
mod keys;
// Damage from outside, and late rows over restarts.
mod blackbox;
// The client everybody has.
mod psql;
// The client in the box.
mod sql_command;
// Programs of others.
mod python;
// Bytes that may say anything.
mod fuzz;
// What no client sends, byte by byte.
mod protocol;
// Values as bytes, beside PostgreSQL's.
mod binary;
// Types of parameters, beside PostgreSQL's.
mod parameters;
// Whatever a generator makes up, beside PostgreSQL's answers.
mod random_queries;
// The house rules.
mod tidy;

pub(crate) use server::TestServer;
pub(crate) use three::TestCluster;
