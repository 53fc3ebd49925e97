//! Transactions of several groups: the part of one that waits for its decision, and what tells a reader of several groups which of them are
//! whole in his cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use event::{GroupId, ShardId, SplitId, StatementId, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::command::{Command, Delete, Joined, SchemaChange};
use crate::segment::{SegmentPins, SegmentRef};
use crate::sequences::SequenceSet;
use crate::snapshot::ShardSnapshot;

/// Transactions of several groups that a group remembers to have applied, for readers whose cut of another group is older.
const TRACES_MAX: usize = 1024;

/// A decision about a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Whether it is committed.
    pub commit: bool,
    /// Entry time in microseconds after which nobody can commit it any more.
    pub until_us: i64,
    /// Where else it is prepared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<Joined>,
}

/// One group's part of a transaction, checked and waiting for the decision.
#[derive(Debug)]
pub struct Prepared {
    /// The group that decides.
    pub decider: GroupId,
    /// Until when that may commit it, by entry time in microseconds.
    pub until_us: i64,
    pub(crate) commands: Vec<Command>,
    /// What the shards it names looked like when it was checked.
    pub(crate) definitions: BTreeMap<ShardId, Arc<TableDefinition>>,
    /// Segments that it will install, kept from being collected.
    pub(crate) segments: Vec<SegmentRef>,
}

/// What a transaction of several groups did in one of them.
#[derive(Debug)]
pub struct Trace {
    /// The transaction.
    pub transaction: StatementId,
    /// Where else it has a part; in the group that decides, that entry's index.
    pub joined: Vec<Joined>,
    pub(super) rows: Vec<AddedRows>,
    /// Whether it did more than add rows.
    pub(super) changes: bool,
}

/// Rows that a transaction added to one shard.
#[derive(Debug)]
pub(super) struct AddedRows {
    pub(super) shard: ShardId,
    pub(super) splits: BTreeSet<SplitId>,
    /// The first and the last of their numbers.
    pub(super) numbers: (u64, u64),
}

/// What a group knows of transactions of several groups, at the moment of a cut.
#[derive(Clone, Debug)]
pub struct JointView {
    /// The last entry applied.
    pub applied: u64,
    /// Those that wait for their decision here.
    pub prepared: Arc<BTreeMap<StatementId, Arc<Prepared>>>,
    /// Those decided about here that not everybody may have followed.
    pub decisions: Arc<BTreeMap<StatementId, Decision>>,
    /// Those that were applied here lately, oldest first.
    pub traces: Arc<Vec<Arc<Trace>>>,
    /// How far into other groups reach those that were applied here and have no trace any more.
    pub untraced: Arc<Reach>,
    /// Until this entry is applied, the group's shards may lack rows: the checkpoint that its state was made of has none of those that a
    /// later entry took away before they were in segments.
    pub whole_from: u64,
}

/// The newest entry of each other group that has a part of some of a group's transactions.
pub type Reach = BTreeMap<GroupId, u64>;

impl JointView {
    /// Whether shards are as they were after the last entry that was applied.
    pub fn is_whole(&self) -> bool {
        self.applied >= self.whole_from
    }

    /// Whether a transaction is known to be committed in this group, which decides about it.
    pub fn is_committed(&self, transaction: &StatementId) -> bool {
        self.decisions.get(transaction).is_some_and(|decision| decision.commit) || self.has_trace_of(transaction)
    }

    /// Whether a transaction was applied here, and lately.
    pub fn has_trace_of(&self, transaction: &StatementId) -> bool {
        self.traces.iter().any(|trace| trace.transaction == *transaction)
    }

    /// Whether the part of a transaction that has its place in this group at `index` is not applied here.
    pub fn lacks(&self, transaction: &StatementId, index: u64) -> bool {
        self.applied < index || self.prepared.contains_key(transaction)
    }
}

impl Trace {
    /// Whether [`Trace::hide`] can take back what it did.
    pub fn can_be_hidden(&self) -> bool {
        !self.changes
    }

    /// Takes its rows out of a snapshot, as if the transaction had not been applied.
    pub fn hide(&self, snapshot: &mut ShardSnapshot) {
        for added in self.rows.iter().filter(|added| added.shard == snapshot.shard) {
            let numbers = SequenceSet::range(added.numbers.0, added.numbers.1);
            for split in &added.splits {
                let deleted = snapshot.deleted.entry(*split).or_default();
                *deleted = Arc::new(deleted.union(&numbers));
            }
        }
    }
}

impl Prepared {
    pub(crate) fn new(
        decider: GroupId,
        until_us: i64,
        commands: Vec<Command>,
        definitions: BTreeMap<ShardId, Arc<TableDefinition>>,
        pins: &SegmentPins,
    ) -> Prepared {
        let installed = commands.iter().filter_map(|command| match command {
            Command::Install(install) => Some(&install.segments),
            _ => None,
        });
        let segments = installed.flatten().map(|meta| pins.pin(meta.clone())).collect();
        Prepared { decider, until_us, commands, definitions, segments }
    }

    /// What a part of a transaction stands in the way of: rows that it deletes cannot be deleted by others, and where it has looked at all
    /// keys nobody may bring rows.
    pub(super) fn conflicts_with(&self, command: &Command) -> bool {
        match command {
            Command::Append { shard, .. } | Command::Truncate { shard } => self.expects(*shard),
            Command::Install(install) => {
                install.seal.is_none() && install.segments.iter().any(|s| self.expects(s.shard))
            }
            Command::Expect { shard, .. } => self.expects(*shard) || self.brings_rows_to(*shard),
            Command::Delete(delete) => self.expects(delete.shard) || self.deletes_too(delete),
            _ => false,
        }
    }

    fn expects(&self, shard: ShardId) -> bool {
        self.commands.iter().any(|command| matches!(command, Command::Expect { shard: own, .. } if *own == shard))
    }

    fn brings_rows_to(&self, shard: ShardId) -> bool {
        self.commands.iter().any(|command| match command {
            Command::Append { shard: own, .. } => *own == shard,
            Command::Install(install) => install.segments.iter().any(|segment| segment.shard == shard),
            Command::Delete(delete) => delete.shard == shard,
            _ => false,
        })
    }

    fn deletes_too(&self, other: &Delete) -> bool {
        let rows = |delete: &Delete, split: &SplitId| {
            delete.splits.iter().find(|(own, _)| own == split).map(|(_, rows)| rows.clone()).unwrap_or_default()
        };
        self.commands.iter().any(|command| match command {
            Command::Delete(own) if own.shard == other.shard => {
                other.splits.iter().any(|(split, others)| others.overlaps(&rows(own, split)))
            }
            _ => false,
        })
    }
}

/// The shards that a command names.
pub(super) fn shards_of(command: &Command) -> Vec<ShardId> {
    match command {
        Command::Append { shard, .. }
        | Command::Expect { shard, .. }
        | Command::Truncate { shard }
        | Command::Expire { shard, .. }
        | Command::Schema(SchemaChange::Put { shard, .. } | SchemaChange::Drop { shard }) => vec![*shard],
        Command::Delete(delete) => vec![delete.shard],
        Command::Replace(replace) => vec![replace.shard],
        Command::Install(install) => {
            install.segments.iter().map(|segment| segment.shard).collect::<BTreeSet<_>>().into_iter().collect()
        }
        Command::Seal | Command::Prepare { .. } | Command::Conclude { .. } => Vec::new(),
        Command::Decide { .. } | Command::Settle { .. } => Vec::new(),
    }
}

/// Adds the newest; those that are forgotten for it.
pub(super) fn remember(traces: &mut Arc<Vec<Arc<Trace>>>, trace: Trace) -> Vec<Arc<Trace>> {
    let traces = Arc::make_mut(traces);
    // In pieces, so that not each one moves all others.
    let full = traces.len() >= 2 * TRACES_MAX;
    let forgotten = if full { traces.drain(..TRACES_MAX).collect() } else { Vec::new() };
    traces.push(Arc::new(trace));
    forgotten
}

/// Notes the parts that a transaction has in groups other than `own`.
pub(super) fn reach(into: &mut Arc<Reach>, own: GroupId, joined: &[Joined]) {
    for part in joined.iter().filter(|part| part.group != own) {
        if into.get(&part.group).is_none_or(|index| *index < part.index) {
            Arc::make_mut(into).insert(part.group, part.index);
        }
    }
}
