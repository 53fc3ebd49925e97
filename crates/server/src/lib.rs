//! The process: configuration, assembly, command line, HTTP. No algorithms, it only assembles.

// What the operator says: flags and one TOML file, validated.
pub mod settings;
// What can go wrong, and with which exit code the process says so.
mod error;
// The store elsewhere.
mod remote;
// What nodes prove to each other who they are with.
mod certificates;
// The threads.
mod runtimes;
// What the operator sees.
mod allocator;
mod http;
mod logs;
mod metrics;
// All of it together.
mod process;
// The command line.
pub mod cli;
// Several nodes on this machine.
pub mod local;
// The main job, shown on real data.
pub mod demo;
// Clients of a server: for scripts, and for moving replicas.
mod moving;
mod sql;
mod table;

pub use error::Error;
pub use process::{Process, serve};
