//! The state machine of a data group: its shards, driven by Raft.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use event::{GroupId, Origin};
use parking_lot::RwLock;
use replication::{MachineCheckpoint, StateMachine};
use storage::{Command, Entry, Error, Outcome, Shards, ShardsReader, Statement};

/// Where readers find the group's shards; replaced when a checkpoint is installed.
pub(crate) type SharedReader = Arc<RwLock<ShardsReader>>;

/// A group's shards.
pub(crate) struct DataMachine {
    shards: Shards,
    reader: SharedReader,
    /// The seal up to which this node holds the segments of checkpoints: only such checkpoints may be written.
    held: Arc<AtomicU64>,
}

impl DataMachine {
    pub(crate) fn new(group: GroupId) -> DataMachine {
        let shards = Shards::new(group);
        let reader = Arc::new(RwLock::new(shards.reader()));
        DataMachine { shards, reader, held: Arc::default() }
    }

    pub(crate) fn held(&self) -> Arc<AtomicU64> {
        self.held.clone()
    }

    fn held_up_to(&self) -> u64 {
        self.held.load(Ordering::SeqCst)
    }

    pub(crate) fn reader(&self) -> SharedReader {
        self.reader.clone()
    }
}

impl StateMachine for DataMachine {
    type Statement = Statement;
    type Entry = Entry;
    type Outcome = Outcome;

    fn encode(time_us: i64, statements: Vec<Statement>) -> Result<(Bytes, Entry), Error> {
        let entry = Entry { time_us, statements };
        Ok((entry.encode()?, entry))
    }

    fn statements(entry: Entry) -> Vec<Statement> {
        entry.statements
    }

    fn decode(bytes: &Bytes) -> Result<Entry, Error> {
        Entry::decode(bytes)
    }

    fn statement_bytes(statement: &Statement) -> usize {
        const COMMAND_BYTES: usize = 256;
        const SEGMENT_BYTES: usize = 256;
        const COLUMN_BYTES: usize = 128;
        let bytes = |command: &Command| match command {
            Command::Append { rows, .. } => storage::row_bytes(rows),
            Command::Install(install) => {
                install.segments.iter().map(|s| SEGMENT_BYTES + s.columns.len() * COLUMN_BYTES).sum()
            }
            Command::Replace(replace) => {
                let outputs = replace.outputs.iter().map(|s| SEGMENT_BYTES + s.columns.len() * COLUMN_BYTES);
                outputs.sum::<usize>() + replace.inputs.iter().map(String::len).sum::<usize>()
            }
            Command::Delete(delete) => delete.splits.iter().map(|(_, rows)| rows.bytes()).sum(),
            Command::Seal | Command::Schema(_) | Command::Expire { .. } => 0,
            Command::Truncate { .. } | Command::Expect { .. } => 0,
            Command::Decide { .. } | Command::Settle { .. } => 0,
            Command::Prepare { .. } | Command::Conclude { .. } => 0,
        };
        statement.commands.iter().map(|command| COMMAND_BYTES + bytes(command)).sum()
    }

    fn makes_room(statement: &Statement) -> bool {
        let brings_rows = |command: &Command| match command {
            Command::Append { .. } => true,
            Command::Install(install) => install.seal.is_none(),
            Command::Delete(_)
            | Command::Seal
            | Command::Schema(_)
            | Command::Replace(_)
            | Command::Expire { .. }
            | Command::Truncate { .. }
            | Command::Expect { .. }
            | Command::Prepare { .. }
            | Command::Conclude { .. }
            | Command::Decide { .. }
            | Command::Settle { .. } => false,
        };
        !statement.commands.iter().any(brings_rows)
    }

    fn origins(entry: &Entry) -> Vec<Option<Origin>> {
        entry.statements.iter().map(|statement| Some(statement.origin)).collect()
    }

    fn time_us(entry: &Entry) -> i64 {
        entry.time_us
    }

    fn is_cut(entry: &Entry) -> bool {
        entry.statements.iter().flat_map(|s| &s.commands).any(|command| matches!(command, Command::Seal))
    }

    fn apply(
        &mut self,
        index: u64,
        entry: &Entry,
        wanted: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Option<Outcome>>, Error> {
        Ok(self.shards.apply_some(index, entry, wanted))
    }

    fn advance(&mut self, index: u64) {
        // Raft's first entry has index 0, before any that the shards know.
        if index > 0 {
            self.shards.advance(index);
        }
    }

    fn checkpoint(&self, _applied: u64) -> Result<Option<MachineCheckpoint>, Error> {
        let checkpoint = self.shards.checkpoint_up_to(self.held_up_to());
        Ok(checkpoint.map(|c| MachineCheckpoint { index: c.seal, state: c.bytes }))
    }

    fn checkpoint_index(&self, _applied: u64) -> Option<u64> {
        self.shards.checkpoint_seal_up_to(self.held_up_to()).filter(|seal| *seal > 0)
    }

    fn checkpoint_saved(&mut self, index: u64) {
        self.shards.checkpoint_saved(index);
    }

    fn restore(&mut self, index: u64, state: Bytes) -> Result<(), Error> {
        self.shards = self.shards.restored(&state)?;
        // A checkpoint is written or installed only where its segments are.
        self.held.fetch_max(index, Ordering::SeqCst);
        *self.reader.write() = self.shards.reader();
        Ok(())
    }
}
