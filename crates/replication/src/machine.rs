//! What a group replicates. Two machines exist: the catalog and the data group.

use bytes::Bytes;
use event::Origin;
use serde::Serialize;
use serde::de::DeserializeOwned;
use storage::Error;

/// A deterministic machine driven by the entries of one group.
///
/// Its state is a pure function of the entries applied; time and randomness reach it only inside entries.
pub trait StateMachine: Send + Sync + 'static {
    /// What a client asks for; several travel in one entry, each with its own outcome.
    type Statement: Clone + Send + Sync + 'static;
    /// An entry, decoded.
    type Entry: Send + Sync + 'static;
    /// What became of one statement.
    type Outcome: Clone + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Makes one entry of the statements: its bytes and what [`StateMachine::decode`] would make of them.
    fn encode(time_us: i64, statements: Vec<Self::Statement>) -> Result<(Bytes, Self::Entry), Error>;

    /// The statements of an entry, for the leader that another node sends them to.
    fn statements(entry: Self::Entry) -> Vec<Self::Statement>;

    /// Reads an entry. Untrusted bytes give an error, never a panic.
    fn decode(bytes: &Bytes) -> Result<Self::Entry, Error>;

    /// About how many bytes the statement will take in an entry.
    fn statement_bytes(statement: &Self::Statement) -> usize;

    /// Whether the statement is let through while the disk is full, because it leads to room or ends what was begun.
    fn makes_room(_statement: &Self::Statement) -> bool {
        false
    }

    /// Who asked for each statement of the entry; `None` for one that is never asked for twice.
    fn origins(entry: &Self::Entry) -> Vec<Option<Origin>>;

    /// The proposer's time in the entry, in microseconds.
    fn time_us(entry: &Self::Entry) -> i64;

    /// Whether a checkpoint may later be asked for exactly this entry's index. The group then remembers what Raft needs of it.
    fn is_cut(entry: &Self::Entry) -> bool;

    /// Applies the statements of an entry that are `wanted`, by their place in it, and returns one outcome for each of those. An error stops
    /// the group.
    fn apply(
        &mut self,
        index: u64,
        entry: &Self::Entry,
        wanted: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Option<Self::Outcome>>, Error>;

    /// Passes an index whose entry is Raft's own and says nothing to the machine.
    fn advance(&mut self, index: u64);

    /// The newest state that can be written as a checkpoint. Its index is `applied` or that of an earlier cut.
    fn checkpoint(&self, applied: u64) -> Result<Option<MachineCheckpoint>, Error>;

    /// The index of the checkpoint that [`StateMachine::checkpoint`] would return, without the work.
    fn checkpoint_index(&self, applied: u64) -> Option<u64>;

    /// Says that the checkpoint of `index` is durable: a restart never begins with an older one.
    fn checkpoint_saved(&mut self, index: u64);

    /// Replaces the state by that of the checkpoint of `index`.
    fn restore(&mut self, index: u64, state: Bytes) -> Result<(), Error>;
}

/// The state of a machine at one index.
#[derive(Clone, Debug)]
pub struct MachineCheckpoint {
    /// The last entry contained.
    pub index: u64,
    /// The state, in the machine's own format.
    pub state: Bytes,
}
