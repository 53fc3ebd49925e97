//! One statement or transaction on its way into the log.
//!
//! Rows up to `limits::ENTRY_BYTES_MAX` are kept and committed as `Append`s of one entry. What grows beyond goes the bulk way:
//! every `limits::STAGE_BYTES_MAX` of rows is sorted per split into staged segments, and one `Install` makes all visible. Rows of shards of
//! several groups commit together all the same, see [`crate::joint`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use event::{GroupId, ShardId, SplitId, StatementId, TableDefinition, TableId, limits};
use storage::command::{Delete, Install};
use storage::routing::shard_rows;
use storage::segment::SegmentRef;
use storage::sequence::{SEQUENCE_ROW_BITS, sequenced_schema, with_sequence};
use storage::sequences::OWN_ROW;
use storage::{Command, Outcome, SegmentMeta, SequenceSet, row_bytes};
use tokio::task::JoinHandle;

use crate::admission::{Admitted, Client};
use crate::catalog::{ShardPlacement, Table};
use crate::ddl::defect;
use crate::error::Error;
use crate::joint::{JointCommit, NotCommitted, Parts};
use crate::memory::Reservation;
use crate::node::{ClientId, DataGroup, Node};
use crate::stage::{StagePart, StagedSegment, stage};

/// How long a statement waits for the flusher before it is refused.
const ROOM_WAIT: Duration = Duration::from_secs(30);
/// With less than this, a statement short of memory waits rather than write tiny segments.
const STAGE_BYTES_MIN: usize = 1 << 20;
/// Writes wait while a group has more than this many times its seal size unflushed.
pub(crate) const UNFLUSHED_SEALS_MAX: u64 = 4;

/// The receipt of a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Rows written.
    pub rows: u64,
    /// The entry of each group from which on it is seen there.
    pub positions: Vec<(GroupId, u64)>,
}

/// The uncommitted rows of one statement or transaction. Dropping it discards them; staged objects are deleted.
pub struct WriteSet {
    node: Arc<Node>,
    id: StatementId,
    client: ClientId,
    shards: BTreeMap<ShardId, ShardRows>,
    /// Bytes of all rows in `ShardRows::batches`.
    buffered: usize,
    /// Those bytes, and the ones being staged.
    memory: Reservation,
    staging: Option<JoinHandle<StageResult>>,
    /// Why the statement cannot be committed any more, and whether for lack of room.
    broken: Option<(String, bool)>,
}

type StageResult = Result<BTreeMap<ShardId, Vec<StagedSegment>>, Error>;

/// The rows of one shard.
struct ShardRows {
    table: Arc<Table>,
    placement: ShardPlacement,
    rows: u64,
    batches: Vec<Rows>,
    /// Rows on their way into segments, until those are there.
    staging: Vec<Rows>,
    staged: Vec<StagedSegment>,
    /// Rows that are deleted, committed ones and own ones.
    deleted: BTreeMap<SplitId, SequenceSet>,
    /// The oldest snapshot the deleted rows were read from.
    read: Option<u64>,
    /// The snapshot in which its keys were found to be unique, these rows included.
    unique: Option<u64>,
}

/// Rows as they were written.
#[derive(Clone)]
struct Rows {
    /// The definition they follow: the table may have been altered since, in the same transaction.
    definition: Arc<TableDefinition>,
    batch: RecordBatch,
}

/// A place in a [`WriteSet`].
#[derive(Clone, Debug)]
pub struct Mark(BTreeMap<ShardId, ShardMark>);

/// What there was of one shard.
#[derive(Clone, Debug)]
struct ShardMark {
    table: Arc<Table>,
    rows: u64,
    deleted: BTreeMap<SplitId, SequenceSet>,
}

/// Own, uncommitted rows of one shard, for reading inside the transaction.
#[derive(Clone, Debug)]
pub struct Uncommitted {
    /// The shard.
    pub shard: ShardId,
    /// Rows in memory: the table's columns and `__seq`, which has [`storage::sequences::OWN_ROW`] set.
    pub batches: Vec<RecordBatch>,
    /// Rows already staged. Their numbers have that bit added.
    pub segments: Vec<SegmentRef>,
    /// Rows that the transaction deleted, its own and committed ones.
    pub deleted: BTreeMap<SplitId, SequenceSet>,
}

impl WriteSet {
    pub(crate) fn new(node: Arc<Node>, id: StatementId, client: ClientId) -> WriteSet {
        let memory = Reservation::empty(node.memory.clone());
        let (shards, staging, broken) = (BTreeMap::new(), None, None);
        WriteSet { node, id, client, shards, buffered: 0, memory, staging, broken }
    }

    /// Adds validated rows (the table's columns in order). Waits while staging is behind, and while memory is short.
    pub async fn append(&mut self, table: &Arc<Table>, rows: RecordBatch) -> Result<(), Error> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        self.check()?;
        let parts = shard_rows(&table.definition, &rows)?;
        for (at, part) in &parts {
            if self.shards.is_empty() {
                // Before anything is gathered that would only be thrown away.
                self.node.data_group(table.shards[*at].group)?.gate.look_ahead(self.client())?;
            }
            self.check_numbers(table, table.shards[*at].shard, part.num_rows() as u64)?;
        }
        let bytes = parts.iter().map(|(_, part)| row_bytes(part)).sum();
        self.make_room(bytes).await?;
        self.buffered += bytes;
        for (at, batch) in parts {
            let entry = self.rows_of(table, at)?;
            entry.rows += batch.num_rows() as u64;
            entry.batches.push(Rows { definition: Arc::clone(&table.definition), batch });
        }
        if self.buffered > limits::STAGE_BYTES_MAX {
            self.stage().await?;
        }
        Ok(())
    }

    /// What is written to the shard of that number.
    fn rows_of(&mut self, table: &Arc<Table>, at: usize) -> Result<&mut ShardRows, Error> {
        let placement = table.shards[at];
        let rows = self.shards.entry(placement.shard).or_insert_with(|| ShardRows::new(Arc::clone(table), placement));
        if rows.table.definition.version != table.definition.version {
            return Err(Error::SchemaChanged(table.definition.name.clone()));
        }
        Ok(rows)
    }

    /// The rows of `table` written so far, by shard.
    pub fn uncommitted(&self, table: &Table) -> Vec<Uncommitted> {
        let own = |placement: &ShardPlacement| {
            let rows = self.shards.get(&placement.shard)?;
            Some(Uncommitted {
                shard: placement.shard,
                batches: rows.numbered(),
                segments: rows.staged.iter().map(|s| s.segment.clone()).collect(),
                deleted: rows.deleted.clone(),
            })
        };
        table.shards.iter().filter_map(own).collect()
    }

    /// Whether rows were added to tables with keys.
    pub fn is_keyed(&self) -> bool {
        self.shards.values().any(ShardRows::is_keyed)
    }

    /// The tables with keys that rows were added to, in order of their shards.
    pub fn keyed(&self) -> Vec<Arc<Table>> {
        self.shards.values().filter(|rows| rows.is_keyed()).map(|rows| Arc::clone(&rows.table)).collect()
    }

    /// The keys of `table` are unique with what this set does to the snapshot of that index: when rows came since, the commit fails with
    /// [`Error::Conflict`].
    pub fn keys_are_unique(&mut self, table: &Table, index: u64) {
        // A table with keys has one shard.
        for placement in &table.shards {
            if let Some(rows) = self.shards.get_mut(&placement.shard) {
                rows.unique = Some(index);
            }
        }
    }

    /// A place to go back to.
    pub fn mark(&self) -> Mark {
        let mark = |rows: &ShardRows| {
            let (table, deleted) = (Arc::clone(&rows.table), rows.deleted.clone());
            ShardMark { table, rows: rows.rows, deleted }
        };
        Mark(self.shards.iter().map(|(shard, rows)| (*shard, mark(rows))).collect())
    }

    /// The transaction has altered a table: rows that were written before are rows of its next definition.
    ///
    /// # Errors
    /// [`Error::Limit`] when some of them are in segments already.
    pub fn follow(&mut self, table: &Arc<Table>) -> Result<(), Error> {
        let written = |rows: &&mut ShardRows| rows.table.definition.id == table.definition.id;
        for rows in self.shards.values_mut().filter(written) {
            if !rows.staged.is_empty() || !rows.staging.is_empty() {
                return Err(Error::Limit(format!(
                    "cannot alter table \"{}\" in the transaction that has written so many of its rows",
                    rows.table.definition.name
                )));
            }
            rows.table = Arc::clone(table);
        }
        Ok(())
    }

    /// Forgets what was done to other tables.
    pub(crate) fn keep_tables(&mut self, keep: impl Fn(TableId) -> bool) {
        self.shards.retain(|_, rows| keep(rows.table.definition.id));
        self.measure();
    }

    /// The groups that what was written belongs to.
    pub(crate) fn groups(&self) -> BTreeSet<GroupId> {
        self.shards.values().map(|rows| rows.placement.group).collect()
    }

    /// Counts what is buffered after some of it went.
    fn measure(&mut self) {
        let left = self.shards.values().flat_map(|rows| &rows.batches);
        self.buffered = left.map(|rows| row_bytes(&rows.batch)).sum();
        if self.staging.is_none() {
            self.memory.shrink_to(self.buffered);
        }
    }

    /// Deletes rows of one shard of `table`, by its number, which were read from the snapshot of index `read` and, those with [`OWN_ROW`],
    /// from this set.
    ///
    /// # Errors
    /// [`Error::Limit`] when they are too many for one entry.
    pub fn delete(
        &mut self,
        table: &Arc<Table>,
        shard: usize,
        read: u64,
        splits: &BTreeMap<SplitId, SequenceSet>,
    ) -> Result<(), Error> {
        if splits.values().all(SequenceSet::is_empty) {
            return Ok(());
        }
        self.check()?;
        let rows = self.rows_of(table, shard)?;
        for (split, numbers) in splits {
            let deleted = rows.deleted.entry(*split).or_default();
            *deleted = deleted.union(numbers);
        }
        rows.read = Some(rows.read.map_or(read, |before| before.min(read)));
        if self.deleted_bytes() > limits::DELETE_BYTES_MAX {
            return Err(Error::Limit(
                "too many scattered rows are deleted at once: delete them in several parts".into(),
            ));
        }
        Ok(())
    }

    fn deleted_bytes(&self) -> usize {
        self.shards.values().flat_map(|rows| rows.deleted.values()).map(SequenceSet::bytes).sum()
    }

    /// Takes back what was written since `mark`.
    ///
    /// # Errors
    /// [`Error::Limit`] when rows have no number of their own.
    pub async fn roll_back_to(&mut self, mark: &Mark) -> Result<(), Error> {
        self.settle().await?;
        for (shard, rows) in &mut self.shards {
            rows.roll_back_to(mark.0.get(shard))?;
        }
        self.shards.retain(|_, rows| rows.rows > 0 || !rows.deleted.is_empty());
        self.measure();
        Ok(())
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// Commits everything, as one entry where it is of one group; answers after commit, fsync and apply.
    pub async fn commit(self) -> Result<Commit, Error> {
        if self.is_empty() {
            return Ok(Commit::default());
        }
        let node = self.node.clone();
        // Once proposed the statement must keep its objects until its fate is known, whoever still waits for it.
        node.see_through(self.commit_with(Parts::new(), None)).await
    }

    fn check(&self) -> Result<(), Error> {
        self.broken.as_ref().map_or(Ok(()), |reason| Err(not_staged(reason)))
    }

    /// Rows of one key are told apart by their numbers, of which a statement has so many.
    fn check_numbers(&self, table: &Table, shard: ShardId, rows: u64) -> Result<(), Error> {
        let before = self.shards.get(&shard).map_or(0, |written| written.rows);
        if before + rows >= 1 << SEQUENCE_ROW_BITS && !table.definition.dedup().is_none() {
            let message = "too many rows at once for a table that keeps one row of each key: write at most 16777215 of them in a statement or transaction";
            return Err(Error::Limit(message.into()));
        }
        Ok(())
    }

    /// Takes memory for `bytes` of rows. A statement that has many of them stages those first: what it waits for may wait for it.
    async fn make_room(&mut self, bytes: usize) -> Result<(), Error> {
        if self.memory.try_grow(bytes) {
            return Ok(());
        }
        if self.buffered > STAGE_BYTES_MIN {
            self.stage().await?;
        }
        self.settle().await?;
        if self.memory.grow(bytes, ROOM_WAIT).await {
            return Ok(());
        }
        Err(Error::Overloaded(format!("out of memory: {bytes} bytes of rows do not fit beside what the node holds")))
    }

    /// Begins to stage all buffered rows, after those before them are there.
    async fn stage(&mut self) -> Result<(), Error> {
        self.settle().await?;
        let mut parts = Vec::new();
        for rows in self.shards.values_mut().filter(|rows| !rows.batches.is_empty()) {
            let batches = rows.batches.iter().map(|written| written.adapted(&rows.table.definition));
            let batches = batches.collect::<Result<Vec<_>, _>>()?;
            rows.staging = std::mem::take(&mut rows.batches);
            let count: usize = batches.iter().map(RecordBatch::num_rows).sum();
            parts.push(StagePart {
                table: rows.table.definition.clone(),
                shard: rows.placement.shard,
                data: Arc::clone(self.node.data_group(rows.placement.group)?),
                batches,
                first_row: rows.rows - count as u64,
            });
        }
        self.buffered = 0;
        self.staging = Some(self.node.encode.spawn(stage(self.node.clone(), self.id, parts)));
        Ok(())
    }

    /// Waits until nothing is being staged.
    async fn settle(&mut self) -> Result<(), Error> {
        let Some(staging) = &mut self.staging else { return Ok(()) };
        let settled = staging.await.unwrap_or_else(|e| Err(Error::ShuttingDown(e.to_string())));
        self.staging = None;
        self.memory.shrink_to(self.buffered);
        let staged = settled.inspect_err(|e| self.broken = Some((e.to_string(), matches!(e, Error::DiskFull(_)))))?;
        for (shard, segments) in staged {
            // A table that was dropped meanwhile needs them no longer.
            let Some(rows) = self.shards.get_mut(&shard) else { continue };
            rows.staged.extend(segments);
            rows.staging.clear();
        }
        Ok(())
    }

    /// The same with commands before those of the rows, and with the decision about a transaction that the catalog waits for,
    /// which can be made until a time in microseconds.
    pub(crate) async fn commit_with(
        mut self,
        before: Parts,
        decides: Option<(StatementId, i64)>,
    ) -> Result<Commit, Error> {
        self.check()?;
        let bulk = self.staging.is_some()
            || self.buffered + self.deleted_bytes() > limits::ENTRY_BYTES_MAX
            || self.shards.values().any(|rows| !rows.staged.is_empty());
        let mut parts = before;
        let bytes = if bulk { 0 } else { self.buffered as u64 };
        if bulk {
            self.stage().await?;
            self.settle().await?;
        }
        let mut admitted = Vec::new();
        for group in self.groups() {
            let data = self.node.data_group(group)?;
            let commands = if bulk {
                // So much was done for it that it is not refused any more.
                admitted.push(data.gate.count(self.client(), 0));
                let staged = self.of_group(group).flat_map(|rows| &rows.staged);
                let staged: Vec<_> = staged.map(|staged| Arc::clone(&staged.segment)).collect();
                self.node.share(data, &staged).await?;
                self.install(group)?
            } else {
                let bytes = self.of_group(group).map(ShardRows::bytes).sum::<usize>();
                admitted.push(self.node.admit(data, self.client(), bytes as u64)?);
                self.node.wait_for_room(data).await?;
                self.appends(group)?
            };
            parts.entry(group).or_default().extend(commands);
        }
        let groups = parts.keys().map(|group| self.node.data_group(*group).cloned());
        let groups = groups.collect::<Result<Vec<_>, _>>()?;
        admitted.iter_mut().for_each(Admitted::propose);
        let client = (!bulk).then_some(self.client);
        let committed = match (parts.len(), decides) {
            (1, decides) => {
                let (group, commands) = parts.pop_first().expect("there is one");
                self.commit_alone(client, group, commands, decides).await
            }
            (_, decides) => {
                let (transaction, until_us) = decides.unwrap_or_else(|| (self.id, self.node.commit_until_us()));
                self.node.commit_jointly(transaction, client, parts, (until_us, decides.is_none())).await
            }
        };
        match committed {
            Ok(JointCommit { rows, positions }) => {
                admitted.into_iter().for_each(Admitted::acknowledged);
                self.keep_staged();
                self.memory.shrink_to(0);
                for data in &groups {
                    self.node.count_unflushed(data, bytes / groups.len() as u64);
                }
                Ok(Commit { rows, positions })
            }
            Err(NotCommitted::Unknown(error)) => {
                let staged = self.shards.values().flat_map(|rows| &rows.staged);
                self.node.promise(staged.map(|staged| Arc::clone(&staged.segment)).collect());
                self.keep_staged();
                Err(error)
            }
            Err(NotCommitted::Failed(error)) => {
                if matches!(error, Error::Excess { .. }) {
                    admitted.into_iter().for_each(Admitted::pushed_back);
                }
                Err(error)
            }
            Err(NotCommitted::Refused(Outcome::SchemaMismatch { .. })) => Err(self.schema_error()),
            Err(NotCommitted::Refused(Outcome::Conflict)) => Err(Error::Conflict),
            Err(NotCommitted::Refused(refused)) => Err(defect(format!("a write was refused: {refused:?}"))),
        }
    }

    /// Everything in one entry of one group.
    async fn commit_alone(
        &self,
        client: Option<ClientId>,
        group: GroupId,
        mut commands: Vec<Command>,
        decides: Option<(StatementId, i64)>,
    ) -> Result<JointCommit, NotCommitted> {
        commands.extend(decides.map(|(transaction, until_us)| Command::Decide {
            transaction,
            commit: true,
            until_us,
            joined: Vec::new(),
        }));
        match self.node.propose_of(client, group, commands).await {
            Ok(proposed) => match proposed.outcome {
                Outcome::Done { rows } => Ok(JointCommit { rows, positions: vec![(group, proposed.index)] }),
                refused => Err(NotCommitted::Refused(refused)),
            },
            Err(error @ Error::Unknown(_)) => Err(NotCommitted::Unknown(error)),
            Err(error) => Err(NotCommitted::Failed(error)),
        }
    }

    /// Whose statement it is.
    fn client(&self) -> Client {
        Client { node: self.node.id(), number: self.client.0 }
    }

    fn of_group(&self, group: GroupId) -> impl Iterator<Item = &ShardRows> {
        self.shards.values().filter(move |rows| rows.placement.group == group)
    }

    fn appends(&self, group: GroupId) -> Result<Vec<Command>, Error> {
        let mut commands = Vec::with_capacity(self.shards.len());
        for rows in self.of_group(group) {
            let definition = &rows.table.definition;
            commands.extend(rows.expect());
            commands.extend(rows.delete(false));
            let batches = rows.kept()?;
            let all = match &batches[..] {
                [] => continue,
                [one] => one.clone(),
                many => concat_batches(&many[0].schema(), many).map_err(|e| storage::Error::Columns(e.to_string()))?,
            };
            commands.push(Command::Append { shard: rows.placement.shard, version: definition.version, rows: all });
        }
        Ok(commands)
    }

    fn install(&self, group: GroupId) -> Result<Vec<Command>, Error> {
        let staged = self.of_group(group).flat_map(|rows| &rows.staged);
        let install = Install { seal: None, segments: staged.map(|s| s.segment.meta.clone()).collect() };
        check_install(&install)?;
        let mut commands: Vec<Command> = self.of_group(group).filter_map(ShardRows::expect).collect();
        commands.push(Command::Install(install));
        commands.extend(self.of_group(group).filter_map(|rows| rows.delete(true)));
        Ok(commands)
    }

    fn keep_staged(&mut self) {
        self.shards.values_mut().flat_map(|rows| &mut rows.staged).for_each(StagedSegment::keep);
    }

    /// Which table is not as it was when the rows were validated.
    fn schema_error(&self) -> Error {
        let catalog = self.node.catalog();
        for rows in self.shards.values() {
            let name = || rows.table.definition.name.clone();
            match catalog.tables.get(&rows.table.definition.id) {
                None => return Error::NoSuchTable(name()),
                Some(now) if now.definition.version != rows.table.definition.version => {
                    return Error::SchemaChanged(name());
                }
                Some(_) => {}
            }
        }
        let name = self.shards.values().next().map(|rows| rows.table.definition.name.clone());
        Error::SchemaChanged(name.unwrap_or_default())
    }
}

impl Node {
    /// Waits while the flusher is behind, and gives up after a while.
    async fn wait_for_room(&self, data: &DataGroup) -> Result<(), Error> {
        let wait = async {
            loop {
                let relieved = data.relieved.notified();
                if self.takes_more(data) {
                    return Ok(());
                }
                if data.disk_full.load(Ordering::Relaxed) {
                    return Err(Error::DiskFull("could not write rows as segments: no space left on device".into()));
                }
                data.pressed.notify_one();
                relieved.await;
            }
        };
        let overloaded = |_| Error::Overloaded("too many rows wait to be written as segments".into());
        tokio::time::timeout(ROOM_WAIT, wait).await.map_err(overloaded)?
    }

    fn count_unflushed(&self, data: &DataGroup, bytes: u64) {
        self.memory.take(bytes as usize);
        let before = data.unflushed.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.seal_bytes {
            data.pressed.notify_one();
        }
    }
}

impl ShardRows {
    fn new(table: Arc<Table>, placement: ShardPlacement) -> ShardRows {
        ShardRows {
            table,
            placement,
            rows: 0,
            batches: Vec::new(),
            staging: Vec::new(),
            staged: Vec::new(),
            deleted: BTreeMap::new(),
            read: None,
            unique: None,
        }
    }

    /// The rows in memory with their numbers.
    fn numbered(&self) -> Vec<RecordBatch> {
        let schema = sequenced_schema(&self.table.definition);
        let in_memory = || self.staging.iter().chain(&self.batches);
        let mut row = self.rows - in_memory().map(Rows::count).sum::<u64>();
        let number = |rows: &Rows| {
            let first = row;
            row += rows.count();
            let batch = rows.adapted(&self.table.definition).expect("a table takes definitions its rows can follow");
            with_sequence(&schema, &batch, OWN_ROW, first).expect("rows of a table have its columns")
        };
        in_memory().map(number).collect()
    }

    /// The buffered rows that are not deleted, without numbers.
    fn kept(&self) -> Result<Vec<RecordBatch>, Error> {
        let own = self.deleted.values().map(|rows| rows.split_at(OWN_ROW).0);
        let own = own.fold(SequenceSet::default(), |all, rows| all.union(&rows));
        if own.is_empty() {
            return self.batches.iter().map(|rows| rows.adapted(&self.table.definition)).collect();
        }
        let mut kept = Vec::with_capacity(self.batches.len());
        let positions: Vec<usize> = (0..self.table.definition.columns.len()).collect();
        for batch in self.numbered() {
            let rows = own.filter(&batch, 0).and_then(|rows| rows.project(&positions));
            kept.push(rows.map_err(|error| storage::Error::Columns(error.to_string()))?);
        }
        kept.retain(|batch| batch.num_rows() > 0);
        Ok(kept)
    }

    /// About what it takes in an entry.
    fn bytes(&self) -> usize {
        let rows = self.batches.iter().map(|rows| row_bytes(&rows.batch));
        rows.chain(self.deleted.values().map(SequenceSet::bytes)).sum()
    }

    fn is_keyed(&self) -> bool {
        self.rows > 0 && !self.table.definition.keys().is_empty()
    }

    fn expect(&self) -> Option<Command> {
        self.unique.map(|index| Command::Expect { shard: self.placement.shard, index })
    }

    /// The command that deletes what is deleted; `own` says whether rows of the statement itself are installed first.
    fn delete(&self, own: bool) -> Option<Command> {
        let part = |rows: &SequenceSet| if own { rows.clone() } else { rows.split_at(OWN_ROW).1 };
        let splits = self.deleted.iter().map(|(split, rows)| (*split, part(rows)));
        let splits: Vec<(SplitId, SequenceSet)> = splits.filter(|(_, rows)| !rows.is_empty()).collect();
        if splits.is_empty() {
            return None;
        }
        Some(Command::Delete(Delete {
            shard: self.placement.shard,
            version: self.table.definition.version,
            read: self.read.unwrap_or(u64::MAX),
            splits,
        }))
    }

    /// Keeps what there was at a place; without one nothing. Rows that are staged already are deleted; the others go.
    fn roll_back_to(&mut self, mark: Option<&ShardMark>) -> Result<(), Error> {
        let kept = mark.map_or(0, |mark| mark.rows);
        let staged = self.rows - self.batches.iter().map(Rows::count).sum::<u64>();
        if let Some(mark) = mark {
            if staged > 0 && mark.table.definition.version != self.table.definition.version {
                let message = "too many rows were written to roll the ALTER TABLE before them back to a savepoint";
                return Err(Error::Limit(message.into()));
            }
            self.table = Arc::clone(&mark.table);
        }
        self.deleted = mark.map(|mark| mark.deleted.clone()).unwrap_or_default();
        self.truncate(kept.max(staged));
        if staged <= kept {
            return Ok(());
        }
        if staged >= 1 << SEQUENCE_ROW_BITS {
            return Err(Error::Limit("too many rows were written to roll some of them back to a savepoint".into()));
        }
        let since = SequenceSet::range(OWN_ROW + kept, OWN_ROW + staged - 1);
        for segment in &self.staged {
            let deleted = self.deleted.entry(segment.segment.meta.split).or_default();
            *deleted = deleted.union(&since);
        }
        Ok(())
    }

    /// Keeps the first `rows` rows, which all those not in `batches` are among.
    fn truncate(&mut self, rows: u64) {
        while self.rows > rows {
            let last = self.batches.pop().expect("rows beyond those staged are buffered");
            let before = self.rows - last.count();
            self.rows = before.max(rows);
            if before < rows {
                let batch = last.batch.slice(0, (rows - before) as usize);
                self.batches.push(Rows { batch, ..last });
            }
        }
    }
}

impl Rows {
    fn count(&self) -> u64 {
        self.batch.num_rows() as u64
    }

    /// As rows of the definition the table has by now.
    fn adapted(&self, to: &TableDefinition) -> Result<RecordBatch, Error> {
        if self.definition.version == to.version {
            return Ok(self.batch.clone());
        }
        Ok(storage::shards::adapt(&self.batch, &self.definition, to)?)
    }
}

impl fmt::Debug for WriteSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteSet({}, {} shards, {} bytes buffered)", self.id, self.shards.len(), self.buffered)
    }
}

/// Rows of the statement were lost on their way into segments, so nothing of it can be committed.
fn not_staged((reason, disk_full): &(String, bool)) -> Error {
    if *disk_full {
        return Error::DiskFull(reason.clone());
    }
    let context = "could not write the rows of the statement as segments".to_owned();
    Error::Storage(storage::Error::Io { context, source: std::io::Error::other(reason.to_owned()) })
}

/// About the bytes of a segment in an Install.
pub(crate) fn install_bytes(meta: &SegmentMeta) -> usize {
    meta.name.len() + 256 + 192 * meta.columns.len()
}

/// An Install is one entry, whose size the log bounds.
pub(crate) fn check_install(install: &Install) -> Result<(), Error> {
    let bytes: usize = install.segments.iter().map(install_bytes).sum();
    if bytes > limits::INSTALL_BYTES_MAX {
        return Err(Error::Limit(format!(
            "the statement wrote {} segments, too many for one entry: write fewer time windows at once",
            install.segments.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use event::{SchemaVersion, ShardId, SplitId};
    use storage::SegmentMeta;

    use super::*;

    fn segment(name: String) -> SegmentMeta {
        SegmentMeta {
            name,
            table: TableId(1),
            shard: ShardId(1),
            split: SplitId(0),
            version: SchemaVersion(1),
            rows: 1,
            bytes: 1,
            checksum: 0,
            time_min_us: None,
            time_max_us: None,
            sequence_base: 0,
            distinct: false,
            columns: vec![],
        }
    }

    #[test]
    fn an_install_is_bounded() {
        let install = |n: usize| Install { seal: None, segments: (0..n).map(|i| segment(i.to_string())).collect() };
        assert!(check_install(&install(1000)).is_ok());
        let refused = check_install(&install(100_000)).unwrap_err();
        assert!(matches!(&refused, Error::Limit(reason) if reason.contains("100000 segments")), "{refused:?}");
    }
}
