//! What the clients of a cluster know, in the order in which they came to know it.
//!
//! Every statement writes rows with ids of its own, so that the rows found tell which statements happened, how often, and whether in part.

use std::collections::BTreeMap;

use tokio::time::Instant;

/// The fate of a statement as its client knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was not answered yet.
    Open,
    /// Answered at that moment.
    Acknowledged(u64),
    /// Answered with an error that says it did not happen.
    Refused,
    /// Nobody knows: its node ended first, or said so.
    Unknown,
}

/// A statement that wrote rows.
#[derive(Clone, Debug)]
pub struct Written {
    /// Who sent it.
    pub client: usize,
    /// By table, the ids of its rows and when the window of each ends, in microseconds.
    pub rows: BTreeMap<String, BTreeMap<i64, i64>>,
    /// What its client knows.
    pub fate: Fate,
    /// When the first read that found it ended.
    pub seen: Option<u64>,
    /// Statements that deleted all its rows.
    pub deleted: Vec<Change>,
}

/// A statement that changed a table as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// When it was sent.
    pub begun: u64,
    /// What its client knows.
    pub fate: Fate,
}

/// What is known of a table. Its name is used once.
#[derive(Clone, Debug)]
pub struct TableHistory {
    /// Its CREATE.
    pub created: Change,
    /// Its DROP, if one was sent.
    pub dropped: Option<Change>,
    /// Times before which windows were to be forgotten.
    pub expired: Vec<(i64, Change)>,
}

/// What one read of one table found.
#[derive(Clone, Debug)]
pub struct Read {
    /// Where it was asked for.
    pub node: usize,
    /// The table.
    pub table: String,
    /// It finds what was acknowledged before this moment: when a strong read was asked for, the time of which another says that it is as new.
    pub begun: u64,
    /// When it was answered.
    pub ended: u64,
    /// The ids found, duplicates and all.
    pub ids: Vec<i64>,
}

/// All that happened. Moments are numbers that grow with every event.
#[derive(Clone, Debug, Default)]
pub struct History {
    now: u64,
    /// The first moment of each point in time that had any.
    times: Vec<(Instant, u64)>,
    /// By number of the statement.
    pub written: Vec<Written>,
    /// By name.
    pub tables: BTreeMap<String, TableHistory>,
    /// Which statement wrote a row.
    owners: BTreeMap<i64, usize>,
}

impl Change {
    /// Whether it was acknowledged before that moment.
    pub fn is_done_before(&self, moment: u64) -> bool {
        matches!(self.fate, Fate::Acknowledged(at) if at < moment)
    }

    /// Whether it may have happened before that moment.
    pub fn may_have_happened_before(&self, moment: u64) -> bool {
        self.begun < moment && self.fate != Fate::Refused
    }
}

impl TableHistory {
    /// Windows that end at or before this time may have been forgotten before that moment.
    pub fn maybe_expired_us(&self, moment: u64) -> Option<i64> {
        let sent = self.expired.iter().filter(|(_, change)| change.may_have_happened_before(moment));
        sent.map(|(before_us, _)| *before_us).max()
    }
}

impl History {
    /// The next moment.
    pub fn tick(&mut self) -> u64 {
        self.now += 1;
        let time = Instant::now();
        if self.times.last().is_none_or(|(last, _)| *last < time) {
            self.times.push((time, self.now));
        }
        self.now
    }

    /// The first moment that was not before that time: what lies before it happened earlier.
    pub fn moment_of(&self, time: Instant) -> u64 {
        let later = self.times.partition_point(|(at, _)| *at < time);
        self.times.get(later).map_or(self.now + 1, |(_, moment)| *moment)
    }

    /// A statement is sent; its number.
    pub fn begin(&mut self, client: usize, rows: BTreeMap<String, BTreeMap<i64, i64>>) -> usize {
        self.tick();
        let number = self.written.len();
        self.owners.extend(rows.values().flat_map(BTreeMap::keys).map(|id| (*id, number)));
        self.written.push(Written { client, rows, fate: Fate::Open, seen: None, deleted: Vec::new() });
        number
    }

    /// A statement is answered.
    pub fn end(&mut self, number: usize, fate: Fate) {
        self.written[number].fate = fate;
    }

    /// A change is sent.
    pub fn change(&mut self) -> Change {
        Change { begun: self.tick(), fate: Fate::Open }
    }

    /// The statement that wrote a row.
    pub fn owner(&self, id: i64) -> Option<usize> {
        self.owners.get(&id).copied()
    }

    /// Statements that wrote to a table, with the rows of each.
    pub fn written_to<'a>(
        &'a self,
        table: &'a str,
    ) -> impl Iterator<Item = (usize, &'a Written, &'a BTreeMap<i64, i64>)> + 'a {
        let all = self.written.iter().enumerate();
        all.filter_map(move |(number, written)| Some((number, written, written.rows.get(table)?)))
    }

    /// Remembers what a read found: later reads find it too.
    pub fn note_seen(&mut self, read: &Read) {
        for id in &read.ids {
            if let Some(number) = self.owner(*id) {
                let seen = &mut self.written[number].seen;
                *seen = Some(seen.map_or(read.ended, |before| before.min(read.ended)));
            }
        }
    }
}
