//! The world in one thread: disks that lose power, a network that loses messages, a workload, and the invariants. Not shipped.
//!
//! One seed decides the workload, the moment of each fault, and what of the unsynced bytes survives. Stands on `cluster`, without DataFusion:
//! a table is read as its segments and memtables lie.

// What clients do, and what they remember of it.
pub mod expectation;
pub mod history;
pub mod reading;
// What must hold, one file each.
pub mod invariants;
// The runs: one node that dies again and again, and three among all faults.
pub mod cluster;
pub mod run;
mod tables;

pub use run::{Report, run};
