//! The task that gathers waiting statements into entries.
//!
//! With nothing in flight a statement is proposed at once; while entries are in flight the next one gathers, until they have come to
//! their end, the wait exceeds `limits::PROPOSE_LINGER_US`, or the entry is full.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use event::{Clock, GroupId, limits};
use openraft::Raft;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::ClientWriteResult;
use parking_lot::Mutex;
use storage::Log;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::error::Error;
use crate::machine::StateMachine;
use crate::state::Applied;
use crate::types::{Answer, OnCompletion, Proposal, Types};

/// All permits of the entries in flight.
const ALL_IN_FLIGHT: u32 = limits::ENTRIES_IN_FLIGHT_MAX as u32;

/// A statement that was committed and applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposed<O> {
    /// The index of its entry.
    pub index: u64,
    /// What became of it.
    pub outcome: O,
}

/// A statement on its way to the proposer.
pub(crate) struct Waiting<M: StateMachine> {
    pub(crate) statement: M::Statement,
    pub(crate) bytes: usize,
    pub(crate) answer: oneshot::Sender<Result<Proposed<M::Outcome>, Error>>,
    /// Its share of `limits::PROPOSE_QUEUE_BYTES`.
    pub(crate) _budget: OwnedSemaphorePermit,
}

/// Owns the receiving end of a group's queue.
pub(crate) struct Proposer<M: StateMachine> {
    pub(crate) group: GroupId,
    pub(crate) raft: Raft<Types<M>, Applied<M>>,
    pub(crate) queue: mpsc::Receiver<Waiting<M>>,
    pub(crate) clock: Arc<dyn Clock>,
    /// The newest time applied; another leader may have proposed it.
    pub(crate) applied_time_us: Arc<AtomicI64>,
    pub(crate) log: Log,
}

type Answers<M> = Vec<oneshot::Sender<Result<Proposed<<M as StateMachine>::Outcome>, Error>>>;

impl<M: StateMachine> Proposer<M> {
    /// Runs until the queue is closed.
    pub(crate) async fn run(mut self) {
        let in_flight = Arc::new(Semaphore::new(limits::ENTRIES_IN_FLIGHT_MAX));
        let mut held: Option<Waiting<M>> = None;
        let mut time_us = i64::MIN;
        loop {
            let first = match held.take() {
                Some(waiting) => waiting,
                None => match self.queue.recv().await {
                    Some(waiting) => waiting,
                    None => return,
                },
            };
            let (gathered, next) = self.gather(first, &in_flight).await;
            held = next;
            let slot = in_flight.clone().acquire_owned().await.expect("the semaphore is never closed");
            let applied_us = self.applied_time_us.load(Ordering::SeqCst);
            time_us = self.clock.now_us().max(time_us).max(applied_us);
            self.propose(time_us, gathered, slot).await;
        }
    }

    /// Collects company for `first`; returns also a statement that no longer fits.
    async fn gather(&mut self, first: Waiting<M>, in_flight: &Semaphore) -> (Vec<Waiting<M>>, Option<Waiting<M>>) {
        let mut bytes = first.bytes;
        let mut gathered = vec![first];
        let deadline = tokio::time::Instant::now() + Duration::from_micros(limits::PROPOSE_LINGER_US);
        loop {
            let idle = in_flight.available_permits() == limits::ENTRIES_IN_FLIGHT_MAX;
            let next = match self.queue.try_recv() {
                Ok(waiting) => waiting,
                Err(_) if idle => return (gathered, None),
                Err(_) => tokio::select! {
                    next = self.queue.recv() => match next {
                        Some(waiting) => waiting,
                        None => return (gathered, None),
                    },
                    // Nothing is in flight any more: who waits longer waits for nothing.
                    _ = in_flight.acquire_many(ALL_IN_FLIGHT) => return (gathered, None),
                    () = tokio::time::sleep_until(deadline) => return (gathered, None),
                },
            };
            if bytes + next.bytes > limits::ENTRY_BYTES_MAX || gathered.len() >= limits::ENTRY_STATEMENTS_MAX {
                return (gathered, Some(next));
            }
            bytes += next.bytes;
            gathered.push(next);
        }
    }

    /// Hands one entry to Raft, in order. Whoever applies it answers the statements.
    async fn propose(&self, time_us: i64, gathered: Vec<Waiting<M>>, slot: OwnedSemaphorePermit) {
        let group = self.group;
        let mut statements = Vec::with_capacity(gathered.len());
        let mut answers: Answers<M> = Vec::with_capacity(gathered.len());
        let full = self.log.is_full();
        for waiting in gathered {
            // What is left of the log's room is for what was proposed before, and for what gives room back.
            if full && !M::makes_room(&waiting.statement) {
                let _ = waiting.answer.send(Err(Error::DiskFull(group)));
                continue;
            }
            statements.push(waiting.statement);
            answers.push(waiting.answer);
        }
        if statements.is_empty() {
            return;
        }
        let proposal = match M::encode(time_us, statements) {
            Ok((bytes, entry)) => Proposal { bytes, decoded: Some(Arc::new(entry)) },
            Err(e) => {
                let reason = e.to_string();
                let refused = || storage::Error::Decode { what: "an entry", reason: reason.clone() };
                answer_all(answers, || Error::Storage(refused()));
                return;
            }
        };
        let answers = Arc::new(Mutex::new(answers));
        let waiting = Arc::clone(&answers);
        let responder = OnCompletion::new(move |written: ClientWriteResult<Types<M>>| {
            let _slot = slot;
            let answers = std::mem::take(&mut *waiting.lock());
            match written {
                Ok(written) => answer_each(group, written.data, answers),
                // Refused before it was appended.
                Err(ClientWriteError::ForwardToLeader(_)) => answer_all(answers, || Error::NoLeader(group)),
                Err(e) => answer_all(answers, || Error::Unknown { group, reason: e.to_string() }),
            }
        });
        if let Err(fatal) = self.raft.client_write_ff(proposal, Some(responder)).await {
            let answers = std::mem::take(&mut *answers.lock());
            answer_all(answers, || Error::Stopped { group, reason: fatal.to_string() });
        }
    }
}

fn answer_each<M: StateMachine>(group: GroupId, applied: Answer<M>, answers: Answers<M>) {
    assert_eq!(applied.outcomes.len(), answers.len(), "apply of group {group} answers each statement once");
    for (answer, outcome) in answers.into_iter().zip(applied.outcomes) {
        // A client that no longer waits has its answer in the log.
        let _ = answer.send(match outcome {
            Some((index, outcome)) => Ok(Proposed { index, outcome }),
            None => Err(Error::Unknown { group, reason: "its coordinator has settled it".into() }),
        });
    }
}

fn answer_all<O>(answers: Vec<oneshot::Sender<Result<O, Error>>>, error: impl Fn() -> Error) {
    for answer in answers {
        let _ = answer.send(Err(error()));
    }
}

/// What a failed read barrier or write means to the caller.
pub(crate) fn stopped<M: StateMachine, E: std::fmt::Debug>(group: GroupId, error: RaftError<Types<M>, E>) -> Error {
    match error {
        RaftError::APIError(_) => Error::NoLeader(group),
        RaftError::Fatal(fatal) => Error::Stopped { group, reason: fatal.to_string() },
    }
}
