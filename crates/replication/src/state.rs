//! The applied state of a group: the machine, how far it is, and what a checkpoint at each cut needs.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use event::{GroupId, Origin};
use futures::{Stream, TryStreamExt};
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};

use crate::checkpoint::{Checkpoint, CheckpointFile, CheckpointMeta};
use crate::log_store::LogStore;
use crate::machine::StateMachine;
use crate::sessions::{Known, Sessions};
use crate::types::{Answer, Applying, Entry, LogId, Snapshot, SnapshotBytes, SnapshotMeta, StoredMembership, Types};

/// Owns the machine; lives in Raft's apply task.
pub(crate) struct Applied<M: StateMachine> {
    group: GroupId,
    pub(crate) machine: M,
    file: CheckpointFile,
    position: Position<M::Outcome>,
    /// Positions a checkpoint may be asked for, by index; those at or below the newest checkpoint are forgotten.
    cuts: BTreeMap<u64, Position<M::Outcome>>,
    /// Last index of the newest checkpoint known to be durable.
    saved: Option<u64>,
    /// The newest proposer's time applied, for the proposer.
    time_us: Arc<AtomicI64>,
}

/// What Raft and the proposer know at one index.
#[derive(Clone, Debug)]
struct Position<O> {
    last: Option<LogId>,
    membership: StoredMembership,
    time_us: i64,
    /// Shared with the cuts, copied when it changes.
    sessions: Arc<Sessions<O>>,
}

/// What is to be done with a statement of an entry.
enum Turn<O> {
    /// Apply it, and remember what becomes of it.
    Apply,
    /// It was applied before.
    Repeat { index: u64, outcome: O },
    /// The entry has it already, at that place.
    Same(usize),
    /// Nobody waits for it.
    Pass,
}

impl<M: StateMachine> Applied<M> {
    /// Restores the newest checkpoint, then applies what the log knows to be committed.
    pub(crate) async fn recover(
        group: GroupId,
        machine: M,
        file: CheckpointFile,
        log: &LogStore<M>,
    ) -> Result<Applied<M>, storage::Error> {
        let (membership, sessions) = (StoredMembership::default(), Arc::default());
        let position = Position { last: None, membership, time_us: i64::MIN, sessions };
        let time_us = Arc::new(AtomicI64::new(i64::MIN));
        let mut applied = Applied { group, machine, file, position, cuts: BTreeMap::new(), saved: None, time_us };
        if let Some(checkpoint) = applied.file.recover().await? {
            applied.restore(checkpoint)?;
        }
        let end = log.committed()?.map_or(0, |committed| committed.index + 1);
        while applied.next_index() < end {
            for entry in log.read_some(applied.next_index()..end).await? {
                applied.apply_entry(&entry)?;
            }
        }
        Ok(applied)
    }

    /// The newest proposer's time applied.
    pub(crate) fn time_us(&self) -> Arc<AtomicI64> {
        self.time_us.clone()
    }

    /// The index the next checkpoint would have, `None` when there is nothing newer than the last one.
    pub(crate) fn checkpoint_index(&self) -> Option<u64> {
        let index = self.machine.checkpoint_index(self.position.last?.index)?;
        self.saved.is_none_or(|saved| index > saved).then_some(index)
    }

    /// The checkpoint of `index` is durable: nothing older will be asked for.
    pub(crate) fn checkpoint_saved(&mut self, index: u64) {
        self.saved = self.saved.max(Some(index));
        self.cuts = self.cuts.split_off(&index);
        self.machine.checkpoint_saved(index);
    }

    fn next_index(&self) -> u64 {
        self.position.last.map_or(0, |last| last.index + 1)
    }

    fn restore(&mut self, checkpoint: Checkpoint) -> Result<(), storage::Error> {
        self.machine.restore(checkpoint.meta.last.index, checkpoint.state)?;
        let sessions = Arc::new(checkpoint.meta.sessions()?);
        let CheckpointMeta { last, membership, time_us, .. } = checkpoint.meta;
        self.position = Position { last: Some(last), membership, time_us, sessions };
        self.cuts.clear();
        self.saved = Some(last.index);
        self.time_us.store(time_us, Ordering::SeqCst);
        Ok(())
    }

    fn apply_entry(&mut self, entry: &Entry<M>) -> Result<Vec<Applying<M::Outcome>>, storage::Error> {
        let index = entry.log_id.index;
        assert_eq!(index, self.next_index(), "entries are applied in order");
        let outcomes = match &entry.payload {
            EntryPayload::Blank => {
                self.machine.advance(index);
                Vec::new()
            }
            EntryPayload::Membership(membership) => {
                self.position.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                self.machine.advance(index);
                Vec::new()
            }
            EntryPayload::Normal(proposal) => match &proposal.decoded {
                Some(decoded) => self.apply_decoded(entry.log_id, decoded)?,
                None => self.apply_decoded(entry.log_id, &M::decode(&proposal.bytes)?)?,
            },
        };
        self.position.last = Some(entry.log_id);
        Ok(outcomes)
    }

    fn apply_decoded(&mut self, at: LogId, entry: &M::Entry) -> Result<Vec<Applying<M::Outcome>>, storage::Error> {
        let origins = M::origins(entry);
        let turns = self.turns(&origins);
        let wanted = |place: usize| matches!(turns.get(place), None | Some(Turn::Apply));
        let applied = self.machine.apply(at.index, entry, &wanted)?;
        let outcomes = self.conclude(at.index, &origins, turns, applied);
        self.position.time_us = self.position.time_us.max(M::time_us(entry));
        self.time_us.store(self.position.time_us, Ordering::SeqCst);
        if M::is_cut(entry) {
            self.cuts.insert(at.index, Position { last: Some(at), ..self.position.clone() });
        }
        Ok(outcomes)
    }

    /// Looks up each statement of an entry.
    fn turns(&mut self, origins: &[Option<Origin>]) -> Vec<Turn<M::Outcome>> {
        let sessions = Arc::make_mut(&mut self.position.sessions);
        let mut turns = Vec::with_capacity(origins.len());
        for (place, origin) in origins.iter().enumerate() {
            let Some(origin) = origin else {
                turns.push(Turn::Apply);
                continue;
            };
            let is_same = |other: &Option<Origin>| other.is_some_and(|other| other.id == origin.id);
            turns.push(match sessions.look(*origin) {
                Known::Before { index, outcome } => Turn::Repeat { index, outcome },
                Known::Settled => Turn::Pass,
                Known::New => match origins[..place].iter().position(is_same) {
                    Some(first) => Turn::Same(first),
                    None => Turn::Apply,
                },
            });
        }
        turns
    }

    /// Remembers the outcomes of new statements, and says what to answer each.
    fn conclude(
        &mut self,
        index: u64,
        origins: &[Option<Origin>],
        turns: Vec<Turn<M::Outcome>>,
        applied: Vec<Option<M::Outcome>>,
    ) -> Vec<Applying<M::Outcome>> {
        assert_eq!(applied.len(), turns.len(), "a machine applies or passes over each statement of an entry");
        let sessions = Arc::make_mut(&mut self.position.sessions);
        let mut answers: Vec<Applying<M::Outcome>> = Vec::with_capacity(turns.len());
        for ((turn, outcome), origin) in turns.into_iter().zip(applied).zip(origins) {
            answers.push(match turn {
                Turn::Apply => {
                    let outcome = outcome.expect("a statement that was wanted has an outcome");
                    if let Some(origin) = origin {
                        sessions.remember(*origin, index, outcome.clone());
                    }
                    Some((index, outcome))
                }
                Turn::Repeat { index, outcome } => Some((index, outcome)),
                Turn::Same(first) => answers[first].clone(),
                Turn::Pass => None,
            });
        }
        answers
    }

    /// Captures the machine's newest checkpoint; cheap enough for the apply task.
    fn capture(&self) -> Result<Option<Checkpoint>, storage::Error> {
        let Some(applied) = self.position.last else { return Ok(None) };
        let Some(captured) = self.machine.checkpoint(applied.index)? else { return Ok(None) };
        let position = if captured.index == applied.index {
            self.position.clone()
        } else {
            self.cuts.get(&captured.index).cloned().ok_or_else(|| storage::Error::Decode {
                what: "a checkpoint",
                reason: format!("group {} has no cut at {}", self.group, captured.index),
            })?
        };
        let last = position.last.expect("a cut has a position");
        let Position { membership, time_us, sessions, .. } = position;
        Ok(Some(Checkpoint::new(self.group, last, membership, time_us, &sessions, captured.state)))
    }
}

impl<M: StateMachine> RaftStateMachine<Types<M>> for Applied<M> {
    type SnapshotData = SnapshotBytes;
    type SnapshotBuilder = CheckpointWriter;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.position.last, self.position.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types<M>>>> + Unpin + Send,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let outcomes = self.apply_entry(&entry).map_err(io::Error::other)?;
            if let Some(responder) = responder {
                responder.send(Answer { outcomes });
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<CheckpointWriter> {
        let captured = self.capture().transpose()?;
        Some(CheckpointWriter { file: self.file.clone(), captured: Some(captured) })
    }

    async fn get_snapshot_builder(&mut self) -> CheckpointWriter {
        let nothing = || storage::Error::Decode { what: "a checkpoint", reason: "there is no cut yet".into() };
        let captured = self.capture().and_then(|c| c.ok_or_else(nothing));
        CheckpointWriter { file: self.file.clone(), captured: Some(captured) }
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMeta, snapshot: SnapshotBytes) -> io::Result<()> {
        let checkpoint = Checkpoint::decode("the snapshot received", &snapshot).map_err(io::Error::other)?;
        self.file.write(checkpoint.meta.last.index, snapshot).await.map_err(io::Error::other)?;
        self.restore(checkpoint).map_err(io::Error::other)
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let checkpoint = self.file.read().await.map_err(io::Error::other)?;
        Ok(checkpoint.map(|c| Snapshot { meta: c.snapshot_meta(), snapshot: c.encode() }))
    }
}

/// Writes one captured checkpoint, outside the apply task.
pub(crate) struct CheckpointWriter {
    file: CheckpointFile,
    captured: Option<Result<Checkpoint, storage::Error>>,
}

impl<M: StateMachine> RaftSnapshotBuilder<Types<M>> for CheckpointWriter {
    type SnapshotData = SnapshotBytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let captured = self.captured.take().ok_or_else(|| io::Error::other("a checkpoint is written once"))?;
        let checkpoint = captured.map_err(io::Error::other)?;
        let bytes = checkpoint.encode();
        self.file.write(checkpoint.meta.last.index, bytes.clone()).await.map_err(io::Error::other)?;
        Ok(Snapshot { meta: checkpoint.snapshot_meta(), snapshot: bytes })
    }
}
