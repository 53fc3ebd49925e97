//! Measures Annal from outside, beside PostgreSQL and beside bare DataFusion in the same run. `README.md` says how to run the programs.
//!
//! Nothing here is a test: no figure makes a build fail. Every program prints the machine's load before and after, because a figure
//! without it says nothing.

// The workload.
pub mod devops;
pub mod statements;

// Where it runs.
pub mod machine;
pub mod servers;

// What came of it.
pub mod report;

/// What goes wrong in a benchmark ends it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
