//! Admission: how many statements of a group may be in flight on this node, and who is refused when they are too many.
//!
//! Whoever is admitted may wait: for the flusher, for the leader, for its sync. The excess is refused at once, with a hint when to come back, so
//! that those admitted are answered in time, and nothing is queued that nobody waits for any more. A statement passes the gate of the node it was
//! sent to, and that of its leader when that is another. What makes room, and a bulk statement whose rows are segments already, are counted and
//! never refused.

mod controller;
mod shares;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use event::limits;
use parking_lot::Mutex;
use storage::log::LogStatistics;
use tokio::time::Instant;

pub(crate) use self::controller::GroupSignals;
use self::controller::{Controller, Signals};
pub(crate) use self::shares::Client;
use self::shares::Shares;
use crate::error::Error;
use crate::node::{DataGroup, Node};
use crate::write::UNFLUSHED_SEALS_MAX;

/// The part of the limit that only clients below their share get: the others are refused before them.
const RESERVED_PART: u64 = 4;

/// What one group admits on this node.
#[derive(Debug)]
pub(crate) struct Gate {
    begun: Instant,
    state: Mutex<State>,
    admitted: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug)]
struct State {
    controller: Controller,
    shares: Shares,
    /// Statements in flight, and what they count together.
    statements: usize,
    bytes: u64,
    /// When each of those that were proposed was, oldest first.
    proposed: BTreeMap<u64, Duration>,
    next: u64,
    signals: Signals,
    /// The log's counters at the last look, and how long its last syncs took.
    log: LogStatistics,
    sync: Duration,
}

/// A statement in flight; no longer once dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    gate: Arc<Gate>,
    bytes: u64,
    /// Its place among those proposed.
    proposed: Option<u64>,
}

/// What admission has counted, and how it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdmissionStatistics {
    /// Statements admitted since start.
    pub admitted: u64,
    /// Statements refused since start, because too much was in flight.
    pub refused: u64,
    /// Bytes in flight; a statement counts at least 16 KiB.
    pub in_flight_bytes: u64,
    /// Bytes that may be in flight.
    pub limit_bytes: u64,
}

impl Gate {
    pub(crate) fn new() -> Arc<Gate> {
        let state = State {
            controller: Controller::new(),
            shares: Shares::default(),
            statements: 0,
            bytes: 0,
            proposed: BTreeMap::new(),
            next: 0,
            signals: Signals::default(),
            log: LogStatistics::default(),
            sync: Duration::ZERO,
        };
        Arc::new(Gate {
            begun: Instant::now(),
            state: Mutex::new(state),
            admitted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Admits a statement of `bytes`. `measure` says how the group is, and the log's counters; it is asked now and then only.
    ///
    /// # Errors
    /// [`Error::Excess`] when there is no room for it now.
    pub(crate) fn admit(
        self: &Arc<Self>,
        client: Client,
        bytes: u64,
        measure: impl FnOnce() -> (GroupSignals, LogStatistics),
    ) -> Result<Admitted, Error> {
        let now = self.begun.elapsed();
        let mut state = self.state.lock();
        state.look(now, measure);
        let cost = cost(bytes);
        if !state.has_room(client, cost) {
            self.refused.fetch_add(1, Relaxed);
            return Err(Error::Excess { retry_ms: state.controller.retry_ms(state.bytes) });
        }
        Ok(self.take(&mut state, client, cost))
    }

    /// Counts a statement that is not refused.
    pub(crate) fn count(self: &Arc<Self>, client: Client, bytes: u64) -> Admitted {
        self.take(&mut self.state.lock(), client, cost(bytes))
    }

    fn take(self: &Arc<Self>, state: &mut State, client: Client, cost: u64) -> Admitted {
        self.admitted.fetch_add(1, Relaxed);
        state.statements += 1;
        state.bytes += cost;
        state.signals.peak = state.signals.peak.max(state.bytes);
        state.shares.add(client, cost);
        Admitted { gate: Arc::clone(self), bytes: cost, proposed: None }
    }

    /// Whether a statement of the client that came now would be refused.
    ///
    /// # Errors
    /// [`Error::Excess`] when it would.
    pub(crate) fn look_ahead(&self, client: Client) -> Result<(), Error> {
        let state = self.state.lock();
        if state.has_room(client, cost(0)) {
            return Ok(());
        }
        self.refused.fetch_add(1, Relaxed);
        Err(Error::Excess { retry_ms: state.controller.retry_ms(state.bytes) })
    }

    pub(crate) fn statistics(&self) -> AdmissionStatistics {
        let state = self.state.lock();
        AdmissionStatistics {
            admitted: self.admitted.load(Relaxed),
            refused: self.refused.load(Relaxed),
            in_flight_bytes: state.bytes,
            limit_bytes: state.controller.limit(),
        }
    }
}

impl State {
    /// Adapts the limit when it is time to.
    fn look(&mut self, now: Duration, measure: impl FnOnce() -> (GroupSignals, LogStatistics)) {
        if !self.controller.is_due(now) {
            return;
        }
        let (group, log) = measure();
        let (syncs, sync_us) = (log.syncs - self.log.syncs, log.sync_us - self.log.sync_us);
        self.log = log;
        // A sync may take longer than the time between two looks.
        if let Some(mean_us) = sync_us.checked_div(syncs) {
            self.sync = Duration::from_micros(mean_us);
        }
        let oldest = self.proposed.first_key_value().map_or(Duration::ZERO, |(_, since)| now.saturating_sub(*since));
        let signals = Signals { oldest, group: GroupSignals { sync: self.sync, ..group }, ..self.signals };
        self.controller.look(now, &signals);
        self.shares.pass(now);
        self.signals = Signals { peak: self.bytes, ..Signals::default() };
    }

    fn has_room(&self, client: Client, cost: u64) -> bool {
        let below = self.shares.is_below(client);
        let part = |all: u64| if below { all } else { all - all / RESERVED_PART };
        // A few may wait however large they are.
        let few = (self.statements as u64) < part(limits::ADMISSION_STATEMENTS_MIN as u64);
        few || self.bytes + cost <= part(self.controller.limit())
    }
}

impl Admitted {
    /// The statement is proposed now. What it waited for before, such as the flusher, says nothing of the log.
    pub(crate) fn propose(&mut self) {
        let now = self.gate.begun.elapsed();
        let mut state = self.gate.state.lock();
        let number = state.next;
        state.next += 1;
        state.proposed.insert(number, now);
        self.proposed = Some(number);
    }

    /// The statement is acknowledged.
    pub(crate) fn acknowledged(self) {
        let mut state = self.gate.state.lock();
        state.signals.drained += self.bytes;
        let since = self.proposed.and_then(|number| state.proposed.get(&number).copied());
        let Some(since) = since else { return };
        let took = self.gate.begun.elapsed().saturating_sub(since);
        state.signals.delay = Some(state.signals.delay.map_or(took, |least| least.min(took)));
    }

    /// The leader refused it.
    pub(crate) fn pushed_back(self) {
        self.gate.state.lock().signals.pushed_back = true;
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        if let Some(number) = self.proposed {
            state.proposed.remove(&number);
        }
        state.statements -= 1;
        state.bytes -= self.bytes;
    }
}

/// A small statement takes a place among those that wait, too.
fn cost(bytes: u64) -> u64 {
    bytes.clamp(limits::ADMISSION_STATEMENT_BYTES_MIN, limits::ENTRY_BYTES_MAX as u64)
}

impl Node {
    /// Admits a statement of a group.
    ///
    /// # Errors
    /// [`Error::Excess`].
    pub(crate) fn admit(&self, data: &DataGroup, client: Client, bytes: u64) -> Result<Admitted, Error> {
        data.gate.admit(client, bytes, || {
            let lags = data.group.lags();
            let bound = self.seal_bytes.saturating_mul(UNFLUSHED_SEALS_MAX).max(1);
            let unflushed = data.unflushed.load(Relaxed).saturating_mul(1000) / bound;
            let group =
                GroupSignals { sync: Duration::ZERO, unapplied: lags.unapplied, behind: lags.behind, unflushed };
            (group, self.log.statistics())
        })
    }

    /// What admission has counted in all groups.
    pub(crate) fn admission(&self) -> AdmissionStatistics {
        let sum = |sum: AdmissionStatistics, data: &Arc<DataGroup>| {
            let one = data.gate.statistics();
            AdmissionStatistics {
                admitted: sum.admitted + one.admitted,
                refused: sum.refused + one.refused,
                in_flight_bytes: sum.in_flight_bytes + one.in_flight_bytes,
                limit_bytes: sum.limit_bytes + one.limit_bytes,
            }
        };
        self.data.values().fold(AdmissionStatistics::default(), sum)
    }
}

#[cfg(test)]
mod tests {
    use event::NodeId;

    use super::*;

    const STATEMENT: u64 = limits::ADMISSION_STATEMENT_BYTES_MIN;

    fn client(number: u64) -> Client {
        Client { node: NodeId(1), number }
    }

    fn calm() -> (GroupSignals, LogStatistics) {
        (GroupSignals::default(), LogStatistics::default())
    }

    /// As many as there is room for.
    fn fill(gate: &Arc<Gate>, client: Client) -> Vec<Admitted> {
        let admit = || {
            let mut admitted = gate.admit(client, 0, calm).ok()?;
            admitted.propose();
            Some(admitted)
        };
        std::iter::from_fn(admit).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_excess_is_refused_at_once_and_there_is_room_again_when_others_end() {
        let gate = Gate::new();
        let mut admitted = fill(&gate, client(1));
        assert_eq!(admitted.len() as u64, limits::ADMISSION_BYTES_MAX / STATEMENT);
        let refused = gate.admit(client(1), 0, calm).unwrap_err();
        assert!(matches!(refused, Error::Excess { retry_ms } if retry_ms > 0), "{refused:?}");
        assert!(gate.look_ahead(client(1)).is_err());
        admitted.pop().unwrap().acknowledged();
        assert!(gate.look_ahead(client(1)).is_ok());
        drop(admitted);
        let statistics = gate.statistics();
        // The one that `fill` ended with, too.
        assert_eq!((statistics.in_flight_bytes, statistics.refused), (0, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_used_its_share_is_refused_before_who_has_not() {
        let gate = Gate::new();
        let _few = gate.admit(client(2), 0, calm).unwrap();
        let many = fill(&gate, client(1));
        let all = limits::ADMISSION_BYTES_MAX / STATEMENT;
        assert_eq!(many.len() as u64, all - all / RESERVED_PART - 1);
        assert!(gate.admit(client(1), 0, calm).is_err());
        assert!(gate.admit(client(2), 0, calm).is_ok());
        assert!(gate.admit(client(3), 0, calm).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_answers_late_is_given_less() {
        let gate = Gate::new();
        for _ in 0..20 {
            let admitted = fill(&gate, client(1));
            tokio::time::advance(Duration::from_millis(900)).await;
            admitted.into_iter().for_each(Admitted::acknowledged);
        }
        let slow = gate.statistics().limit_bytes;
        assert!(slow < limits::ADMISSION_BYTES_MAX / 4, "{slow} bytes in flight, each of which takes 900 ms");
        for _ in 0..200 {
            let mut admitted = gate.admit(client(1), 0, calm).unwrap();
            admitted.propose();
            tokio::time::advance(Duration::from_millis(100)).await;
            admitted.acknowledged();
        }
        assert!(gate.statistics().limit_bytes > slow, "it recovers by itself");
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_are_never_refused_however_large_and_slow_they_are() {
        let gate = Gate::new();
        let few = limits::ADMISSION_STATEMENTS_MIN as u64;
        for _ in 0..100 {
            let admit = |number| {
                let mut admitted = gate.admit(client(number), u64::MAX, calm).unwrap();
                admitted.propose();
                admitted
            };
            let admitted: Vec<_> = (0..few).map(admit).collect();
            tokio::time::advance(Duration::from_secs(3)).await;
            admitted.into_iter().for_each(Admitted::acknowledged);
        }
        assert_eq!(gate.statistics().refused, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_the_flusher_is_no_sign_of_a_slow_log() {
        let gate = Gate::new();
        for _ in 0..20 {
            let mut admitted = gate.admit(client(1), 0, calm).unwrap();
            tokio::time::advance(Duration::from_secs(2)).await;
            admitted.propose();
            admitted.acknowledged();
        }
        assert_eq!(gate.statistics().limit_bytes, limits::ADMISSION_BYTES_MAX);
    }
}
