//! From entry to state: each statement is checked as a whole, and only then applied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use event::split::window_of;
use event::{GroupId, SchemaVersion, ShardId, SplitId, StatementId, TableDefinition, mutants};

use super::Outcome;
use super::joint::{AddedRows, Decision, Prepared, Trace, reach, remember, shards_of};
use super::state::{FrozenShard, Manifest, PendingSeal, Shard, State, adapt_rows, can_adapt};
use crate::command::{Command, Delete, Entry, Install, Joined, Replace, SchemaChange, Statement};
use crate::memtable::Memtable;
use crate::routing::{SplitRows, split_rows};
use crate::segment::{SegmentMeta, SegmentPins};
use crate::sequence::{SEQUENCE_ROW_BITS, sequence_base, sequenced_schema, with_sequence};
use crate::sequences::{OWN_ROW, SequenceSet};

/// A command that was checked and cannot fail any more.
enum Step {
    Append {
        shard: ShardId,
        /// Its first row's number.
        first: u64,
        rows: u64,
        splits: Vec<SplitRows>,
    },
    /// Taken once, at the end of the entry.
    Seal,
    InstallSeal {
        segments: Vec<SegmentMeta>,
    },
    InstallStaged {
        segments: Vec<SegmentMeta>,
    },
    Delete {
        shard: ShardId,
        splits: Vec<(SplitId, SequenceSet)>,
    },
    Put {
        shard: ShardId,
        table: Arc<TableDefinition>,
    },
    Drop {
        shard: ShardId,
    },
    Replace(Replace),
    Expire {
        shard: ShardId,
        before_us: i64,
    },
    Truncate {
        shard: ShardId,
    },
    Decide {
        transaction: StatementId,
        decision: Decision,
    },
    Settle {
        transaction: StatementId,
    },
    Prepare {
        transaction: StatementId,
        part: Prepared,
    },
    /// The part of a transaction is prepared no longer; it is applied by the steps beside this one, or forgotten.
    Conclude {
        transaction: StatementId,
    },
}

/// What a statement sees while it is checked: the state, with the effects of its own earlier commands on schemas.
struct Check<'a> {
    state: &'a State,
    index: u64,
    /// Schemas changed by this statement; `None` is dropped.
    changed: BTreeMap<ShardId, Option<Arc<TableDefinition>>>,
    /// Rows of this entry so far, by shard.
    rows: BTreeMap<ShardId, u64>,
    /// Sequence number of the first staged row of this statement, by shard.
    staged: BTreeMap<ShardId, u64>,
    installs_seal: bool,
    /// Whether the part of a transaction is applied that was checked before: it is not refused any more.
    concludes: bool,
    time_us: i64,
    pins: &'a SegmentPins,
}

/// What a statement comes to.
#[derive(Default)]
struct Steps {
    steps: Vec<Step>,
    /// The transaction of several groups that they belong to, and where else that has a part.
    joint: Option<(StatementId, Vec<Joined>)>,
}

impl State {
    /// See [`super::Shards::apply_some`].
    pub(super) fn apply(
        &mut self,
        index: u64,
        entry: &Entry,
        wanted: &dyn Fn(usize) -> bool,
        pins: &SegmentPins,
    ) -> Vec<Option<Outcome>> {
        self.advance(index);
        let mut rows = BTreeMap::new();
        let mut seals = false;
        let mut outcomes = Vec::with_capacity(entry.statements.len());
        for (place, statement) in entry.statements.iter().enumerate() {
            if !wanted(place) {
                outcomes.push(None);
                continue;
            }
            let mut check = Check {
                state: self,
                index,
                changed: BTreeMap::new(),
                rows: rows.clone(),
                staged: BTreeMap::new(),
                installs_seal: false,
                concludes: false,
                time_us: entry.time_us,
                pins,
            };
            let outcome = match check.statement(statement) {
                Ok(Steps { steps, joint }) => {
                    rows = check.rows;
                    seals |= steps.iter().any(|step| matches!(step, Step::Seal));
                    if let Some((transaction, joined)) = joint {
                        reach(&mut self.reach, self.group, &joined);
                        for forgotten in remember(&mut self.traces, trace(transaction, joined, &steps)) {
                            reach(&mut self.untraced, self.group, &forgotten.joined);
                        }
                    }
                    let done = steps.into_iter().map(|step| self.take(step, index, entry.time_us, pins)).sum();
                    Outcome::Done { rows: done }
                }
                Err(refusal) => refusal,
            };
            outcomes.push(Some(outcome));
        }
        // Its checkpoint stands for all of this entry, so the statements behind the Seal are in too.
        if seals {
            self.seal(index);
        }
        outcomes
    }

    /// See [`super::Shards::advance`].
    pub(super) fn advance(&mut self, index: u64) {
        assert!(index > self.applied, "entry {index} after entry {}", self.applied);
        self.applied = index;
    }

    /// Takes one step; answers with the rows it brought.
    fn take(&mut self, step: Step, index: u64, time_us: i64, pins: &SegmentPins) -> u64 {
        match step {
            Step::Append { shard, rows, splits, .. } => {
                let shard = self.shards.get_mut(&shard).expect("the check found the shard");
                for part in splits {
                    shard.open.entry(part.split).or_insert_with(|| Memtable::new(time_us)).append(part);
                }
                Arc::make_mut(&mut shard.manifest).appended = index;
                self.rows_applied += rows;
                rows
            }
            Step::Seal => 0,
            Step::InstallSeal { segments } => self.install_seal(segments, pins),
            Step::InstallStaged { segments } => self.install_staged(segments, index, pins),
            Step::Delete { shard, splits } => {
                let shard = self.shards.get_mut(&shard).expect("the check found the shard");
                let manifest = Arc::make_mut(&mut shard.manifest);
                splits.iter().for_each(|(split, rows)| manifest.delete(*split, rows));
                0
            }
            Step::Put { shard, table } => {
                self.put(shard, table);
                0
            }
            Step::Drop { shard } => {
                self.shards.remove(&shard);
                let frozen = self.seals.iter_mut().filter_map(|seal| seal.frozen.remove(&shard)).count();
                if frozen > 0 {
                    self.lose_frozen(index);
                }
                Arc::make_mut(&mut self.dropped).insert(shard);
                0
            }
            Step::Replace(replace) => self.replace(replace, index, pins),
            Step::Expire { shard, before_us } => self.expire(shard, before_us, index),
            Step::Truncate { shard } => self.truncate(shard, index),
            Step::Decide { transaction, decision } => {
                let decisions = Arc::make_mut(&mut self.decisions);
                // Those that nobody can contradict any more.
                decisions.retain(|_, decision| decision.commit || decision.until_us >= time_us);
                decisions.insert(transaction, decision);
                0
            }
            Step::Settle { transaction } => {
                let decisions = Arc::make_mut(&mut self.decisions);
                decisions.retain(|known, decision| {
                    *known != transaction || (!decision.commit && decision.until_us >= time_us)
                });
                0
            }
            Step::Prepare { transaction, part } => {
                Arc::make_mut(&mut self.prepared).insert(transaction, Arc::new(part));
                0
            }
            Step::Conclude { transaction } => {
                Arc::make_mut(&mut self.prepared).remove(&transaction);
                0
            }
        }
    }

    /// Swaps segments of the live manifest. What was captured before keeps the old ones: replay from there comes by here again.
    fn replace(&mut self, replace: Replace, index: u64, pins: &SegmentPins) -> u64 {
        let Replace { shard, split, inputs, outputs, purged } = replace;
        let shard = self.shards.get_mut(&shard).expect("the check found the shard");
        let manifest = Arc::make_mut(&mut shard.manifest);
        manifest.segments.retain(|segment| !inputs.contains(&segment.meta.name));
        manifest.purge(split, &purged, index);
        let rows = outputs.iter().map(|meta| meta.rows).sum();
        for meta in outputs {
            manifest.insert(pins.pin(meta));
        }
        rows
    }

    /// Forgets whole splits; answers with the rows they had. Frozen rows go from seals captured before: replay from there comes by
    /// here again.
    fn expire(&mut self, id: ShardId, before_us: i64, index: u64) -> u64 {
        let shard = self.shards.get_mut(&id).expect("the check found the shard");
        let Some(options) = shard.manifest.table.event() else { return 0 };
        let interval = options.split_interval_us;
        let expired = |split: &SplitId| window_of(*split, interval).1 <= before_us;
        let forget = |splits: &mut BTreeMap<SplitId, Memtable>| {
            let gone: u64 = splits.extract_if(.., |split, _| expired(split)).map(|(_, rows)| rows.rows()).sum();
            gone
        };
        let frozen = self.seals.iter_mut().filter_map(|seal| seal.frozen.get_mut(&id));
        let frozen: u64 = frozen.map(|frozen| forget(&mut frozen.splits)).sum();
        let open = forget(&mut shard.open);
        let gone = shard.manifest.segments.iter().filter(|segment| expired(&segment.meta.split));
        let segments: u64 = gone.map(|segment| segment.meta.rows).sum();
        let manifest = Arc::make_mut(&mut shard.manifest);
        manifest.segments.retain(|segment| !expired(&segment.meta.split));
        manifest.deleted.retain(|split, _| !expired(split));
        manifest.expired_us = manifest.expired_us.max(Some(before_us));
        if frozen > 0 {
            self.lose_frozen(index);
        }
        frozen + open + segments
    }

    /// Forgets all rows; answers with how many there were, deleted ones included. As with [`State::expire`], what was captured before keeps
    /// its rows.
    fn truncate(&mut self, id: ShardId, index: u64) -> u64 {
        let shard = self.shards.get_mut(&id).expect("the check found the shard");
        let frozen = self.seals.iter_mut().filter_map(|seal| seal.frozen.remove(&id));
        let frozen: u64 = frozen.map(|frozen| frozen.splits.values().map(Memtable::rows).sum::<u64>()).sum();
        let open: u64 = std::mem::take(&mut shard.open).values().map(Memtable::rows).sum();
        let manifest = Arc::make_mut(&mut shard.manifest);
        let segments: u64 = manifest.segments.drain(..).map(|segment| segment.meta.rows).sum();
        manifest.deleted.clear();
        // Whoever read the rows before must not delete them now.
        manifest.purged = index;
        manifest.truncated = index;
        if frozen > 0 {
            self.lose_frozen(index);
        }
        frozen + open + segments
    }

    /// The entry has taken away rows that seals froze. They come into no segment, so that the checkpoints of these seals lack them, while the
    /// entry that took them is not in those: who begins with one has a state that the group had only after that entry.
    fn lose_frozen(&mut self, index: u64) {
        for seal in &mut self.seals {
            // One of a restored state may have to wait for a later entry yet.
            seal.captured.whole_from = seal.captured.whole_from.max(index);
        }
    }

    /// Freezes every memtable and captures the rest.
    fn seal(&mut self, index: u64) {
        let captured = self.capture(index);
        let mut frozen = BTreeMap::new();
        for (id, shard) in &mut self.shards {
            let splits = std::mem::take(&mut shard.open);
            if !splits.is_empty() {
                frozen.insert(*id, FrozenShard { table: Arc::clone(&shard.manifest.table), splits });
            }
        }
        self.seals.push_back(PendingSeal { captured, frozen });
    }

    /// Swaps rows of the oldest seal for segments, here and in all that was captured since. Without rows left its checkpoint is
    /// complete.
    fn install_seal(&mut self, segments: Vec<SegmentMeta>, pins: &SegmentPins) -> u64 {
        let mut seal = self.seals.pop_front().expect("the check found the seal");
        let mut rows = 0;
        for meta in segments {
            let Some(shard) = self.shards.get_mut(&meta.shard) else { continue };
            rows += meta.rows;
            let id = meta.shard;
            if let Some(frozen) = seal.frozen.get_mut(&id) {
                frozen.splits.remove(&meta.split);
            }
            let segment = pins.pin(meta);
            let later = self.seals.iter_mut().filter_map(|seal| seal.captured.manifests.get_mut(&id));
            let holders = seal.captured.manifests.get_mut(&id).into_iter().chain(later);
            for manifest in holders.chain([&mut shard.manifest]) {
                Arc::make_mut(manifest).insert(Arc::clone(&segment));
            }
        }
        if seal.frozen.values().all(|frozen| frozen.splits.is_empty()) {
            self.checkpoints.push_back(seal.captured);
        } else {
            self.seals.push_front(seal);
        }
        rows
    }

    /// Makes the rows of a bulk statement visible.
    fn install_staged(&mut self, segments: Vec<SegmentMeta>, index: u64, pins: &SegmentPins) -> u64 {
        let mut rows = 0;
        for meta in segments {
            rows += meta.rows;
            let shard = self.shards.get_mut(&meta.shard).expect("the check found the shard");
            let manifest = Arc::make_mut(&mut shard.manifest);
            manifest.insert(pins.pin(meta));
            manifest.appended = index;
        }
        self.rows_applied += rows;
        rows
    }

    /// Creates the shard, or gives it and its open rows the newer definition.
    fn put(&mut self, id: ShardId, table: Arc<TableDefinition>) {
        let Some(shard) = self.shards.get_mut(&id) else {
            self.shards.insert(id, Shard::new(Manifest::new(table)));
            return;
        };
        let from = Arc::clone(&shard.manifest.table);
        let schema = sequenced_schema(&table);
        for rows in shard.open.values_mut() {
            rows.adapt(&schema, |batch| adapt_rows(batch, &from, &table, &schema))
                .expect("the check found that rows can be adapted");
        }
        shard.schema = schema;
        Arc::make_mut(&mut shard.manifest).table = table;
    }
}

impl Check<'_> {
    fn statement(&mut self, statement: &Statement) -> Result<Steps, Outcome> {
        match &statement.commands[..] {
            [Command::Prepare { transaction, decider, until_us }, commands @ ..] => {
                let step = self.prepare(*transaction, (*decider, *until_us), commands)?;
                Ok(Steps { steps: step.into_iter().collect(), joint: None })
            }
            [Command::Conclude { transaction, commit, joined }] => self.conclude(*transaction, *commit, joined),
            commands => {
                let steps = self.commands(commands)?;
                let joint = commands.iter().find_map(|command| match command {
                    Command::Decide { transaction, commit: true, joined, .. } if !joined.is_empty() => {
                        Some((*transaction, joined.clone()))
                    }
                    _ => None,
                });
                Ok(Steps { steps, joint })
            }
        }
    }

    fn commands(&mut self, commands: &[Command]) -> Result<Vec<Step>, Outcome> {
        let mut steps = Vec::with_capacity(commands.len());
        for command in commands {
            if !self.concludes && self.state.prepared.values().any(|part| part.conflicts_with(command)) {
                return Err(Outcome::Conflict);
            }
            steps.extend(self.command(command)?);
        }
        Ok(steps)
    }

    /// Checks the part of a transaction as if it were applied now, and keeps it instead. The same part again is there already.
    fn prepare(
        &mut self,
        transaction: StatementId,
        (decider, until_us): (GroupId, i64),
        commands: &[Command],
    ) -> Result<Option<Step>, Outcome> {
        let fits = |command: &Command| match command {
            Command::Append { .. } | Command::Delete(_) | Command::Expect { .. } | Command::Truncate { .. } => true,
            Command::Schema(_) => true,
            Command::Install(install) => install.seal.is_none(),
            _ => false,
        };
        if !commands.iter().all(fits) {
            return Err(invalid("such a command cannot wait for a decision".to_owned()));
        }
        if self.state.prepared.contains_key(&transaction) {
            return Ok(None);
        }
        if self.time_us > until_us {
            return Err(Outcome::Conflict);
        }
        let rows = self.rows.clone();
        self.commands(commands)?;
        // They get their numbers when they are applied.
        self.rows = rows;
        let mut definitions = BTreeMap::new();
        for shard in commands.iter().flat_map(shards_of) {
            definitions.extend(self.definition(shard).map(|table| (shard, table)));
        }
        let part = Prepared::new(decider, until_us, commands.to_vec(), definitions, self.pins);
        Ok(Some(Step::Prepare { transaction, part }))
    }

    /// Applies a part that was prepared, as far as its tables are still there. What was not prepared, or is concluded already, is nothing.
    fn conclude(&mut self, transaction: StatementId, commit: bool, joined: &[Joined]) -> Result<Steps, Outcome> {
        let state = self.state;
        let Some(part) = state.prepared.get(&transaction) else { return Ok(Steps::default()) };
        let mut steps = vec![Step::Conclude { transaction }];
        if !commit {
            return Ok(Steps { steps, joint: None });
        }
        self.concludes = true;
        for command in &part.commands {
            if let Some(command) = self.brought_up(command, part)? {
                steps.extend(self.command(&command)?);
            }
        }
        Ok(Steps { steps, joint: Some((transaction, joined.to_vec())) })
    }

    /// A command that was checked against an older definition, for the one there is now; `None` when its table is gone.
    fn brought_up(&self, command: &Command, part: &Prepared) -> Result<Option<Command>, Outcome> {
        let now = |shard: &ShardId| self.definition(*shard);
        Ok(match command {
            Command::Append { shard, version, rows } => match (now(shard), part.definitions.get(shard)) {
                (Some(to), Some(from)) if to.version > *version && from.version == *version => {
                    let rows = adapt_rows(rows, from, &to, &to.arrow_schema()).map_err(|e| invalid(e.to_string()))?;
                    Some(Command::Append { shard: *shard, version: to.version, rows })
                }
                (Some(_), _) => Some(command.clone()),
                (None, _) => None,
            },
            Command::Delete(delete) => {
                now(&delete.shard).map(|to| Command::Delete(Delete { version: to.version, ..delete.clone() }))
            }
            Command::Install(install) => {
                let there = |meta: &&SegmentMeta| now(&meta.shard).is_some();
                let segments = install.segments.iter().filter(there).cloned().collect();
                Some(Command::Install(Install { seal: None, segments }))
            }
            // It was looked at when the part was prepared, and nobody could change it since.
            Command::Expect { .. } => None,
            other => Some(other.clone()),
        })
    }

    /// The step for a command, `None` when there is nothing left to do.
    fn command(&mut self, command: &Command) -> Result<Option<Step>, Outcome> {
        Ok(match command {
            Command::Append { shard, version, rows } => Some(self.append(*shard, *version, rows)?),
            Command::Seal => Some(Step::Seal),
            Command::Install(Install { seal: Some(seal), segments }) => self.install_seal(*seal, segments)?,
            Command::Install(Install { seal: None, segments }) => Some(self.install_staged(segments)?),
            Command::Delete(delete) => Some(self.delete(delete)?),
            Command::Schema(SchemaChange::Put { shard, table }) => self.put(*shard, table)?,
            Command::Schema(SchemaChange::Drop { shard }) => {
                self.changed.insert(*shard, None);
                Some(Step::Drop { shard: *shard })
            }
            Command::Replace(replace) => Some(self.replace(replace)?),
            Command::Expire { shard, before_us } => {
                // A table that was dropped meanwhile has nothing left to expire.
                let there = self.definition(*shard).is_some() && self.state.shards.contains_key(shard);
                there.then_some(Step::Expire { shard: *shard, before_us: *before_us })
            }
            Command::Expect { shard, index } => match self.state.shards.get(shard) {
                Some(found) if found.manifest.appended > *index => return Err(Outcome::Conflict),
                _ => None,
            },
            Command::Truncate { shard } => {
                let there = self.definition(*shard).is_some() && self.state.shards.contains_key(shard);
                there.then_some(Step::Truncate { shard: *shard })
            }
            Command::Decide { transaction, commit, until_us, joined } => match self.state.decisions.get(transaction) {
                Some(decided) if decided.commit != *commit => return Err(Outcome::Conflict),
                Some(_) => None,
                // That it is not to be may have been decided, and forgotten since.
                None if *commit && self.time_us > *until_us => return Err(Outcome::Conflict),
                None => {
                    let decision = Decision { commit: *commit, until_us: *until_us, joined: joined.clone() };
                    Some(Step::Decide { transaction: *transaction, decision })
                }
            },
            Command::Prepare { .. } | Command::Conclude { .. } => {
                return Err(invalid("a part of a transaction comes in a statement of its own".to_owned()));
            }
            Command::Settle { transaction } => Some(Step::Settle { transaction: *transaction }),
        })
    }

    /// The shard's definition after the commands checked so far.
    fn definition(&self, shard: ShardId) -> Option<Arc<TableDefinition>> {
        match self.changed.get(&shard) {
            Some(changed) => changed.clone(),
            None => self.state.shards.get(&shard).map(|shard| Arc::clone(&shard.manifest.table)),
        }
    }

    /// The shard's definition, which must have that version.
    fn definition_of(&self, shard: ShardId, version: SchemaVersion) -> Result<Arc<TableDefinition>, Outcome> {
        let table = self.definition(shard);
        match table {
            Some(table) if table.version == version => Ok(table),
            other => Err(Outcome::SchemaMismatch { version: other.map(|table| table.version) }),
        }
    }

    fn append(&mut self, shard: ShardId, version: SchemaVersion, rows: &RecordBatch) -> Result<Step, Outcome> {
        let table = self.definition_of(shard, version)?;
        let schema = match self.changed.get(&shard) {
            Some(_) => sequenced_schema(&table),
            None => Arc::clone(&self.state.shards[&shard].schema),
        };
        let types = schema.fields().iter().take(table.columns.len()).map(|field| field.data_type());
        if !rows.columns().iter().map(|column| column.data_type()).eq(types) {
            return Err(invalid(format!("rows do not have the columns of table \"{}\"", table.name)));
        }
        let mut first = self.number_rows(shard, rows.num_rows() as u64)?;
        if mutants::is_back("apply depends on the replica") {
            first += std::ptr::from_ref(self.state) as u64 >> 4 & 7;
        }
        let sequenced =
            with_sequence(&schema, rows, sequence_base(self.index), first).map_err(|e| invalid(e.to_string()))?;
        let splits = split_rows(&table, &sequenced).map_err(|error| invalid(error.to_string()))?;
        let first = sequence_base(self.index) + first.min((1 << SEQUENCE_ROW_BITS) - 1);
        Ok(Step::Append { shard, first, rows: rows.num_rows() as u64, splits })
    }

    /// The Install of a seal that is done already does nothing: its segments are in the checkpoint this state came from.
    fn install_seal(&mut self, seal: u64, segments: &[SegmentMeta]) -> Result<Option<Step>, Outcome> {
        let pending = match self.state.seals.front() {
            Some(pending) if pending.captured.seal == seal => pending,
            _ => return self.installed_or_unknown(seal, segments),
        };
        if std::mem::replace(&mut self.installs_seal, true) {
            return Err(invalid(format!("two installs of seal {seal} in one statement")));
        }
        let mut rows: BTreeMap<(ShardId, SplitId), u64> = BTreeMap::new();
        let wanted = |meta: &&SegmentMeta| {
            let rows_of = |frozen: &FrozenShard| frozen.splits.contains_key(&meta.split);
            self.definition(meta.shard).is_some()
                && (pending.frozen.get(&meta.shard).is_some_and(rows_of) || !self.state.is_forgotten(seal, meta))
        };
        let segments: Vec<SegmentMeta> = segments.iter().filter(wanted).cloned().collect();
        for meta in &segments {
            *rows.entry((meta.shard, meta.split)).or_default() += meta.rows;
        }
        for ((shard, split), installed) in rows {
            let frozen =
                pending.frozen.get(&shard).and_then(|frozen| frozen.splits.get(&split)).map_or(0, Memtable::rows);
            if frozen != installed && !mutants::is_back("hole at flush") {
                let place = format!("shard {shard}, split {split}");
                return Err(invalid(format!("seal {seal} holds {frozen} rows of {place}, not {installed}")));
            }
        }
        Ok(Some(Step::InstallSeal { segments }))
    }

    fn installed_or_unknown(&self, seal: u64, segments: &[SegmentMeta]) -> Result<Option<Step>, Outcome> {
        let done = self.state.checkpoints.back().is_some_and(|captured| seal <= captured.seal);
        if done && mutants::is_back("duplicate at flush") {
            return Ok(Some(Step::InstallStaged { segments: segments.to_vec() }));
        }
        if done { Ok(None) } else { Err(invalid(format!("seal {seal} is not the oldest that waits"))) }
    }

    fn install_staged(&mut self, segments: &[SegmentMeta]) -> Result<Step, Outcome> {
        for meta in segments {
            let table = match self.definition(meta.shard) {
                // Its rows are read as those of the definition there is.
                Some(table) if self.concludes && meta.version <= table.version => table,
                _ => self.definition_of(meta.shard, meta.version)?,
            };
            if table.id != meta.table || meta.sequence_base != 0 {
                return Err(invalid(format!("segment \"{}\" is not staged for table \"{}\"", meta.name, table.name)));
            }
            if !in_window(&table, meta) {
                return Err(invalid(format!("segment \"{}\" has rows outside its split", meta.name)));
            }
        }
        let mut rows: BTreeMap<ShardId, u64> = BTreeMap::new();
        for meta in segments {
            *rows.entry(meta.shard).or_default() += meta.rows;
        }
        for (shard, count) in rows {
            let first = self.number_rows(shard, count)?;
            self.staged.insert(shard, sequence_base(self.index) + first);
        }
        let mut segments = segments.to_vec();
        for meta in &mut segments {
            meta.sequence_base = self.staged[&meta.shard];
        }
        Ok(Step::InstallStaged { segments })
    }

    /// The number of the first of `count` rows within the entry. No two rows of a shard have one number, but for the last of a statement
    /// that has more of them than there are numbers; another statement does not fit beside that.
    fn number_rows(&mut self, shard: ShardId, count: u64) -> Result<u64, Outcome> {
        let rows = self.rows.entry(shard).or_default();
        let first = *rows;
        if first > 0 && first + count > 1 << SEQUENCE_ROW_BITS {
            return Err(Outcome::Conflict);
        }
        *rows += count;
        Ok(first)
    }

    /// Rows may be deleted once. Which of them were since the statement read them shows unless some were purged.
    fn delete(&self, delete: &Delete) -> Result<Step, Outcome> {
        self.definition_of(delete.shard, delete.version)?;
        let manifest = self.state.shards.get(&delete.shard).map(|shard| &shard.manifest);
        let mut splits = Vec::with_capacity(delete.splits.len());
        for (split, rows) in &delete.splits {
            let (own, rows) = rows.split_at(OWN_ROW);
            let before = manifest.and_then(|manifest| manifest.deleted.get(split));
            if !self.concludes && before.is_some_and(|before| before.overlaps(&rows)) {
                return Err(Outcome::Conflict);
            }
            let own = match self.staged.get(&delete.shard) {
                Some(first) => own.mapped(|number| first.saturating_add(number - OWN_ROW)),
                None if own.is_empty() => own,
                None => return Err(invalid(format!("rows of shard {} deleted before they came", delete.shard))),
            };
            splits.push((*split, rows.union(&own)));
        }
        if !self.concludes && manifest.is_some_and(|manifest| delete.read < manifest.purged) {
            return Err(Outcome::Conflict);
        }
        Ok(Step::Delete { shard: delete.shard, splits })
    }

    /// All inputs must be there, of that split, and the outputs hold no more rows than they.
    fn replace(&self, replace: &Replace) -> Result<Step, Outcome> {
        let Replace { shard, split, inputs, outputs, purged: _ } = replace;
        let (Some(table), Some(state)) = (self.definition(*shard), self.state.shards.get(shard)) else {
            return Err(Outcome::Superseded);
        };
        let named = |name: &String| state.manifest.segments.iter().find(|segment| segment.meta.name == *name);
        let mut rows = 0;
        for segment in inputs.iter().map(named) {
            let meta = &segment.ok_or(Outcome::Superseded)?.meta;
            // Written by a definition that does not know all columns of an input.
            if outputs.iter().any(|output| output.version < meta.version) {
                return Err(Outcome::Superseded);
            }
            if meta.split != *split {
                return Err(invalid(format!("segment \"{}\" is not of split {split}", meta.name)));
            }
            rows += meta.rows;
        }
        let sound = |meta: &SegmentMeta| {
            meta.shard == *shard && meta.split == *split && meta.table == table.id && meta.sequence_base == 0
        };
        if !outputs.iter().all(|meta| sound(meta) && in_window(&table, meta)) {
            return Err(invalid(format!("segments for split {split} of shard {shard} do not belong there")));
        }
        let kept: u64 = outputs.iter().map(|meta| meta.rows).sum();
        let mut names = inputs.clone();
        names.sort();
        names.dedup();
        if kept > rows || names.len() != inputs.len() || inputs.is_empty() {
            return Err(invalid(format!("{kept} rows cannot take the place of {rows}")));
        }
        Ok(Step::Replace(replace.clone()))
    }

    /// Older and equal versions are there already.
    fn put(&mut self, shard: ShardId, table: &Arc<TableDefinition>) -> Result<Option<Step>, Outcome> {
        match self.definition(shard) {
            None if self.changed.contains_key(&shard) || self.state.dropped.contains(&shard) => {
                return Err(Outcome::SchemaMismatch { version: None });
            }
            Some(current) if current.version >= table.version => return Ok(None),
            Some(current) if !can_adapt(&current, table) => {
                return Err(Outcome::SchemaMismatch { version: Some(current.version) });
            }
            _ => {}
        }
        self.changed.insert(shard, Some(Arc::clone(table)));
        Ok(Some(Step::Put { shard, table: Arc::clone(table) }))
    }
}

/// What the steps of a transaction of several groups add, for [`super::Trace::hide`].
fn trace(transaction: StatementId, joined: Vec<Joined>, steps: &[Step]) -> Trace {
    let last = |first: u64, count: u64| {
        let base = first >> SEQUENCE_ROW_BITS << SEQUENCE_ROW_BITS;
        (first + count.saturating_sub(1)).min(base + (1 << SEQUENCE_ROW_BITS) - 1)
    };
    let (mut rows, mut changes) = (Vec::new(), false);
    for step in steps {
        match step {
            Step::Append { shard, first, rows: count, splits } => rows.push(AddedRows {
                shard: *shard,
                splits: splits.iter().map(|part| part.split).collect(),
                numbers: (*first, last(*first, *count)),
            }),
            Step::InstallStaged { segments } => {
                for shard in segments.iter().map(|meta| meta.shard).collect::<BTreeSet<_>>() {
                    let own = || segments.iter().filter(|meta| meta.shard == shard);
                    let first = own().map(|meta| meta.sequence_base).min().unwrap_or_default();
                    let numbers = (first, last(first, own().map(|meta| meta.rows).sum()));
                    rows.push(AddedRows { shard, splits: own().map(|meta| meta.split).collect(), numbers });
                }
            }
            Step::Decide { .. } | Step::Conclude { .. } => {}
            _ => changes = true,
        }
    }
    Trace { transaction, joined, rows, changes }
}

fn in_window(table: &TableDefinition, meta: &SegmentMeta) -> bool {
    let Some(options) = table.event() else { return meta.split == SplitId(0) };
    let inside = |time: Option<i64>| {
        time.is_some_and(|time| event::split::split_of(time, options.split_interval_us) == meta.split)
    };
    inside(meta.time_min_us) && inside(meta.time_max_us)
}

fn invalid(reason: String) -> Outcome {
    Outcome::Invalid { reason }
}
