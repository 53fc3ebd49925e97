//! SQL over the cluster: DataFusion tables, pruning, functions, statements, sessions' state, COPY decoding.
//!
//! Knows no sockets and no wire format: what comes in is SQL text, parameters as scalars, and COPY bytes;
//! what goes out is Arrow.

// Futures of scans lie deep in those of statements.
#![recursion_limit = "256"]

// What sessions share, and how a plan runs.
mod engine;
mod run;
// Tables, and the node's own state as views.
mod table;
mod views;
// Functions beyond DataFusion's.
mod functions;
// What is made of the library's plans.
mod ambiguous;
mod interrupt;
mod memory;
// What clients write: values and COPY data.
pub mod binary;
pub mod copy;
pub mod text;
// One connection's view.
mod error;
mod session;

// What is fuzzed.
#[doc(hidden)]
pub mod fuzz;

pub use datafusion::common::ScalarValue;
pub use engine::{Engine, EngineOptions};
pub use error::{Condition, Error, Report, Subject};
pub use session::{
    CopyEncoding, CopyFormat, CopyIn, CopyOptions, CopyOut, Notice, Outcome, Prepared, Rows, Session, Statement,
    TransactionStatus, modifier_of, split_statements,
};
