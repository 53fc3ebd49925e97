//! The world in one thread: a disk that loses power, a workload, and the invariants checked after each crash. Not shipped.
//!
//! One seed decides the workload, the moment of each crash, and what of the unsynced bytes survives. Stands on `cluster`, without DataFusion:
//! a table is read as its segments and memtables lie.

// What clients do, and what they remember of it.
pub mod expectation;
pub mod reading;
// The run itself.
pub mod run;

pub use run::{Report, run};
