//! Tables as DataFusion sees them: a statement's catalog, its snapshots, and the leaf that reads segments and memory.
//!
//! Invariant: everything a statement reads of one table comes from one snapshot, opened once, however often the table is named; and the tables that
//! it names are one cut, which shows every transaction whole.

// Where names lead to, for one statement.
pub(crate) mod catalog;
pub(crate) mod reads;
pub(crate) mod stored;
// What a snapshot consists of, and what is known of each piece without reading it.
pub(crate) mod statistics;
pub(crate) mod unit;
// Which pieces a predicate leaves, and how they are spread over partitions.
pub(crate) mod layout;
pub(crate) mod prune;
// Reading them.
pub(crate) mod holed;
pub(crate) mod memory;
pub(crate) mod older;
pub(crate) mod scan;
pub(crate) mod segments;
// One row of each key.
pub(crate) mod dedup;
// Conjuncts that pruning already answered.
pub(crate) mod covered;

#[cfg(test)]
mod tests;

pub(crate) use catalog::StatementCatalog;
pub(crate) use reads::{Reads, Snapshots};
