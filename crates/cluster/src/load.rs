//! What the groups of a cluster cost, as each node sees it by itself: every node has a replica of every group, and what a group applies is what
//! it costs those that lead it and vote in it.

use std::collections::BTreeMap;
use std::time::Duration;

use event::GroupId;
use tokio::time::Instant;

/// A group that is idle: its heartbeats and timers. With it alone groups are spread by their number.
const IDLE: f64 = 1_000.0;
/// An entry, beside its rows: parsing or receiving a statement, syncing it and answering. Measured with statements of one row.
const ENTRY: f64 = 200.0;
/// A row of a large batch: decoding, sorting and writing it.
const ROW: f64 = 1.0;
/// After this time what a group cost once counts half.
const HALF_LIFE: Duration = Duration::from_secs(10);

/// What each group costs: about microseconds of processor time a second, smoothed.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    groups: BTreeMap<GroupId, Load>,
}

#[derive(Debug)]
struct Load {
    at: Instant,
    rows: u64,
    entries: u64,
    cost: f64,
}

impl Loads {
    /// A look at a group that has applied so many rows and entries since the node started.
    pub(crate) fn look(&mut self, group: GroupId, rows: u64, entries: u64) {
        let at = Instant::now();
        let load = self.groups.entry(group).or_insert(Load { at, rows, entries, cost: 0.0 });
        let seconds = at.duration_since(load.at).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        // A replica that was given a snapshot counts its rows anew.
        let since = |now: u64, before: u64| now.saturating_sub(before) as f64;
        let now = (since(rows, load.rows) * ROW + since(entries, load.entries) * ENTRY) / seconds;
        let kept = 0.5_f64.powf(seconds / HALF_LIFE.as_secs_f64());
        *load = Load { at, rows, entries, cost: load.cost * kept + now * (1.0 - kept) };
    }

    /// A group that costs so much beside what it does idle.
    #[cfg(test)]
    pub(crate) fn set(&mut self, group: GroupId, cost: u32) {
        self.groups.insert(group, Load { at: Instant::now(), rows: 0, entries: 0, cost: cost.into() });
    }

    /// What a group costs; at least what one does that is idle.
    pub(crate) fn of(&self, group: GroupId) -> u64 {
        (IDLE + self.groups.get(&group).map_or(0.0, |load| load.cost)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_load_comes_and_goes_smoothly() {
        let (group, mut loads) = (GroupId(1), Loads::default());
        assert_eq!(loads.of(group), 1_000, "one that was never looked at is idle");
        loads.look(group, 5_000_000, 70_000);
        assert_eq!(loads.of(group), 1_000, "what was there before the first look does not count");
        let (mut rows, mut entries) = (5_000_000, 70_000);
        for _ in 0..10 {
            tokio::time::advance(Duration::from_secs(1)).await;
            (rows, entries) = (rows + 100_000, entries + 100);
            loads.look(group, rows, entries);
        }
        assert_eq!(loads.of(group), 61_000, "half of 120 ms a second after ten seconds");
        tokio::time::advance(HALF_LIFE).await;
        loads.look(group, 0, entries);
        assert_eq!(loads.of(group), 31_000);
        loads.look(group, u64::MAX, u64::MAX);
        assert_eq!(loads.of(group), 31_000, "no time has passed");
    }
}
