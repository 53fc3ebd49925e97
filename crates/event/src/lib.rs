//! What a row is: identifiers, column types, table definitions, time, and the limits everything else is built within.
//!
//! This crate does no I/O and knows no SQL. It sits at the bottom of the tower; every other crate speaks its words.

// Who is who.
pub mod ids;
// What a column may hold, and how a table is described.
mod code;
mod element;
pub mod table;
pub mod types;
// What a type says besides.
mod modifier;
// How its columns come and go.
mod alter;
mod constant;
// Which split a row belongs to.
pub mod split;
// How many nodes vote on its rows.
mod replicas;
// How a type lies in segments that Parquet does not know.
pub mod interval;
// The seams through which time and randomness enter.
pub mod clock;
pub mod entropy;
// Every bound, in one file.
pub mod limits;

// Bugs for the simulation to find.
pub mod mutants;

pub use clock::{Clock, SimulatedClock, SystemClock};
pub use constant::Constant;
pub use element::ElementType;
pub use entropy::Entropy;
pub use ids::{ColumnId, GroupId, NodeId, Origin, SchemaVersion, ShardId, SplitId, StatementId, TableId};
pub use modifier::{FRACTION_DIGITS_MAX, Modifier, VARCHAR_LENGTH_MAX};
pub use replicas::Replicas;
pub use table::{
    Check, Column, Compression, Consistency, Dedup, DroppedColumn, EventOptions, Identity, IdentityKind, Sharding,
    TableDefinition, TableKind, UniqueKey,
};
pub use types::{ColumnType, UUID_BYTES};

/// The arrow every crate of the workspace shares, so that versions cannot drift apart.
pub use arrow;
