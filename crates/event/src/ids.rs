//! Identifiers. All are allocated by apply in the catalog group and never reused (architecture, D16).

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id!(
    /// A table. The same number is its oid, so it stays below 2³² and starts at 16384, PostgreSQL's first user oid.
    TableId, u64
);
id!(
    /// A shard: the part of a table that lives in one group.
    ShardId, u64
);
id!(
    /// A Raft group. Group 0 is the catalog.
    GroupId, u64
);
id!(
    /// A node of the cluster.
    NodeId, u64
);
id!(
    /// A column within its table; stays the same when the column is renamed.
    ColumnId, u32
);
id!(
    /// The version of a table's schema; grows by one with each change.
    SchemaVersion, u32
);
id!(
    /// A time window of one shard: floor(event time / split interval). Reference tables have the single split 0.
    SplitId, i64
);

impl GroupId {
    /// The catalog group.
    pub const CATALOG: GroupId = GroupId(0);
}

/// Identity of one statement: the node that coordinates it, that node's boot count, and a counter.
///
/// A retry carries the same id, so that the log can tell it from a second statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StatementId {
    /// The coordinating node.
    pub node: NodeId,
    /// How often that node had been started.
    pub boot: u64,
    /// Counts the statements of that boot.
    pub counter: u64,
}

impl fmt::Display for StatementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.node, self.boot, self.counter)
    }
}

/// Who asked for a statement, as its log entry carries it.
///
/// A coordinator asks again when it does not learn what became of a statement. The state machine therefore remembers the outcome of each
/// statement until its coordinator says that it has settled it: answered its client, or given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The statement.
    pub id: StatementId,
    /// No statement of the same node and boot with a counter below this is asked for again.
    pub settled: u64,
}
