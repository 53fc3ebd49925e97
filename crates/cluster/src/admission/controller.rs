//! How much may be in flight: a limit that follows what a group keeps up with. Pure: time and measurements come in, a limit comes out.
//!
//! Additive increase, multiplicative decrease. The limit is cut when statements take longer than [`target`] or when the group falls behind and
//! does not gain on it (its convergence is negative: more comes in than the slowest part takes in); it grows while everything is calm. Between
//! the two it stays, so that it does not swing. After a cut it waits for the effect before it cuts again.

use std::time::Duration;

use event::limits;

/// Between two looks.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Growth with each look.
const STEP_BYTES: u64 = 1 << 20;
/// What statements may take once they are proposed, unless the disk is so slow that they must.
const TARGET_MIN: Duration = Duration::from_millis(500);
const TARGET_MAX: Duration = Duration::from_secs(2);
/// A statement waits for the sync under way, for its own, and for those of its company.
const SYNCS_PER_STATEMENT: u32 = 4;
/// Entries that may be committed and not applied: a read here waits for them.
const UNAPPLIED_MAX: u64 = 512;
/// Entries by which a voter may be behind: further back it may need a snapshot instead of the log.
const BEHIND_MAX: u64 = 4096;
/// Unflushed bytes, in thousandths of what makes writers wait.
const UNFLUSHED_MAX: u64 = 1000;
const UNFLUSHED_CALM: u64 = 875;
/// How long a hint may tell a client to wait.
const RETRY_MS_MIN: u64 = 50;
const RETRY_MS_MAX: u64 = 5_000;

/// What was measured since the look before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signals {
    /// The shortest time from proposal to acknowledgement; `None` when nothing was acknowledged.
    pub(super) delay: Option<Duration>,
    /// How long ago the oldest statement in flight was proposed.
    pub(super) oldest: Duration,
    /// The most bytes in flight at once.
    pub(super) peak: u64,
    /// Bytes of the statements that were acknowledged.
    pub(super) drained: u64,
    /// Whether the leader, another node, refused a statement that was admitted here.
    pub(super) pushed_back: bool,
    /// How the group is.
    pub(super) group: GroupSignals,
}

/// How a group on this node is, and what it lies on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupSignals {
    /// How long the log's last syncs took, on average.
    pub(crate) sync: Duration,
    /// Entries committed and not applied here.
    pub(crate) unapplied: u64,
    /// On the leader, entries that the slowest voter lacks which answers.
    pub(crate) behind: u64,
    /// Unflushed bytes, in thousandths of what makes writers wait.
    pub(crate) unflushed: u64,
}

/// The limit of one group on one node.
#[derive(Debug)]
pub(super) struct Controller {
    limit: u64,
    before: GroupSignals,
    looked: Duration,
    cut: Option<Duration>,
    /// Bytes acknowledged in a second, smoothed.
    rate: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pressure {
    Calm,
    Firm,
    Above,
}

impl Controller {
    pub(super) fn new() -> Controller {
        let (limit, before) = (limits::ADMISSION_BYTES_MAX, GroupSignals::default());
        Controller { limit, before, looked: Duration::ZERO, cut: None, rate: 0 }
    }

    /// Bytes that may be in flight.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether it is time for [`Controller::look`]. `now` is the time since some fixed moment.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        now >= self.looked + TICK
    }

    /// Takes in what was measured since the look before.
    pub(super) fn look(&mut self, now: Duration, signals: &Signals) {
        let since = now.saturating_sub(self.looked).max(TICK);
        self.looked = now;
        let rate = u128::from(signals.drained) * 1_000_000 / since.as_micros();
        self.rate = (self.rate * 3 + u64::try_from(rate).unwrap_or(u64::MAX)) / 4;
        let target = target(signals.group.sync);
        match self.pressure(signals, target) {
            Pressure::Above if self.cut.is_none_or(|cut| now >= cut + target) => {
                self.limit = (self.limit.min(signals.peak) / 4 * 3).max(limits::ADMISSION_BYTES_MIN);
                self.cut = Some(now);
            }
            Pressure::Above | Pressure::Firm => {}
            Pressure::Calm => {
                let ticks = since.as_millis() / TICK.as_millis();
                let grown = STEP_BYTES.saturating_mul(u64::try_from(ticks).unwrap_or(u64::MAX));
                self.limit = self.limit.saturating_add(grown).min(limits::ADMISSION_BYTES_MAX);
            }
        }
        self.before = signals.group;
    }

    fn pressure(&self, signals: &Signals, target: Duration) -> Pressure {
        let level = |above: bool, firm: bool| match (above, firm) {
            (true, _) => Pressure::Above,
            (false, true) => Pressure::Firm,
            (false, false) => Pressure::Calm,
        };
        let (now, before) = (&signals.group, &self.before);
        let delay = signals.delay.unwrap_or(signals.oldest);
        // What falls behind presses as long as it does not gain: one who comes back and catches up holds up nobody.
        let lag = |now: u64, before: u64, most: u64| level(now > most && now >= before, now > most / 2);
        let levels = [
            level(signals.pushed_back || delay > target, delay > target / 2),
            lag(now.unapplied, before.unapplied, UNAPPLIED_MAX),
            lag(now.behind, before.behind, BEHIND_MAX),
            level(now.unflushed > UNFLUSHED_MAX, now.unflushed > UNFLUSHED_CALM),
        ];
        let any = |level| levels.contains(&level);
        level(any(Pressure::Above), any(Pressure::Firm))
    }

    /// After how many milliseconds a refused statement may find room: when what is in flight is acknowledged.
    pub(super) fn retry_ms(&self, in_flight: u64) -> u64 {
        let drained = u128::from(in_flight) * 1000 / u128::from(self.rate.max(1));
        u64::try_from(drained).unwrap_or(u64::MAX).clamp(RETRY_MS_MIN, RETRY_MS_MAX)
    }
}

/// What a statement may take when a sync takes so long.
fn target(sync: Duration) -> Duration {
    sync.saturating_mul(SYNCS_PER_STATEMENT).clamp(TARGET_MIN, TARGET_MAX)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const MIB: u64 = 1 << 20;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn delayed(delay_ms: u64, peak: u64) -> Signals {
        Signals { delay: Some(ms(delay_ms)), peak, drained: peak / 10, ..Signals::default() }
    }

    /// The limit in MiB after each of so many looks at the same.
    fn check(mut controller: Controller, looks: u64, signals: Signals, expected: Expect) -> Controller {
        let mut limits = Vec::new();
        let start = controller.looked;
        for look in 1..=looks {
            controller.look(start + TICK * u32::try_from(look).unwrap(), &signals);
            limits.push((controller.limit() / MIB).to_string());
        }
        expected.assert_eq(&limits.join(" "));
        controller
    }

    #[test]
    fn what_takes_too_long_is_cut_and_waited_for_and_grows_back_when_calm() {
        let slow = delayed(800, 40 * MIB);
        let cut = check(Controller::new(), 12, slow, expect!["30 30 30 30 30 22 22 22 22 22 16 16"]);
        let held = check(cut, 3, delayed(400, 16 * MIB), expect!["16 16 16"]);
        check(held, 4, delayed(100, 16 * MIB), expect!["17 18 19 20"]);
    }

    #[test]
    fn some_always_have_room_and_the_queue_is_the_most() {
        let mut controller = Controller::new();
        for look in 1..200 {
            controller.look(TICK * 10 * look, &delayed(60_000, 64 * MIB));
        }
        assert_eq!(controller.limit(), limits::ADMISSION_BYTES_MIN);
        controller.look(TICK * 100_000, &Signals::default());
        assert_eq!(controller.limit(), limits::ADMISSION_BYTES_MAX, "long calm gives all of it back");
    }

    #[test]
    fn a_statement_that_is_never_acknowledged_presses_too() {
        let stuck = Signals { oldest: ms(700), peak: 8 * MIB, ..Signals::default() };
        check(Controller::new(), 2, stuck, expect!["6 6"]);
    }

    #[test]
    fn a_slow_disk_has_its_time_but_not_for_ever() {
        assert_eq!([ms(1), ms(200), ms(9000)].map(target), [ms(500), ms(800), ms(2000)]);
        let on_slow_disk =
            |delay| Signals { group: GroupSignals { sync: ms(300), ..GroupSignals::default() }, ..delay };
        check(Controller::new(), 2, on_slow_disk(delayed(1000, 40 * MIB)), expect!["64 64"]);
        check(Controller::new(), 2, on_slow_disk(delayed(1300, 40 * MIB)), expect!["30 30"]);
    }

    #[test]
    fn who_falls_behind_presses_and_who_catches_up_does_not() {
        let behind = |behind| Signals {
            peak: 40 * MIB,
            group: GroupSignals { behind, ..GroupSignals::default() },
            ..Signals::default()
        };
        let mut controller = Controller::new();
        controller.look(TICK, &behind(50_000));
        assert_eq!(controller.limit() / MIB, 30);
        for look in 1..20 {
            controller.look(TICK * 10 * (look + 1), &behind(50_000 - u64::from(look) * 1_000));
        }
        assert_eq!(controller.limit() / MIB, 30, "it gains: nothing is cut, and nothing grows");
        controller.look(TICK * 300, &behind(50_000));
        assert_eq!(controller.limit() / MIB, 22);
    }

    #[test]
    fn rows_that_nobody_flushes_and_entries_that_nobody_applies_press() {
        let group = GroupSignals { unflushed: 1001, ..GroupSignals::default() };
        check(Controller::new(), 1, Signals { peak: 40 * MIB, group, ..Signals::default() }, expect!["30"]);
        let group = GroupSignals { unapplied: 600, ..GroupSignals::default() };
        check(Controller::new(), 1, Signals { peak: 40 * MIB, group, ..Signals::default() }, expect!["30"]);
        check(Controller::new(), 1, Signals { pushed_back: true, peak: 40 * MIB, ..Signals::default() }, expect!["30"]);
    }

    #[test]
    fn the_hint_is_when_what_is_in_flight_is_done() {
        let mut controller = Controller::new();
        assert_eq!(controller.retry_ms(MIB), RETRY_MS_MAX, "nothing was ever acknowledged");
        for look in 1..50 {
            controller.look(TICK * look, &Signals { drained: MIB, ..Signals::default() });
        }
        let hint = controller.retry_ms(5 * MIB);
        assert!((490..=510).contains(&hint), "{hint} ms for 5 MiB at 10 MiB a second");
        assert_eq!(controller.retry_ms(0), RETRY_MS_MIN);
    }
}
