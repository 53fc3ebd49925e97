//! What the log knows in memory: of each group its marks and where every live record lies.
//!
//! The index runs ahead of the disk: it changes when a request is queued, so that a record is readable at once. `Written`
//! follows the frames: it says what a file holds, and what the header of the next one must carry.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use event::GroupId;
use event::limits::LOG_CACHE_BYTES;

use super::frame::{Change, Place};
use super::header::GroupMarks;
use super::{GroupLog, LogRecord, LogStatistics};
use crate::Error;
use crate::disk::FileId;

/// Everything behind the lock of a log.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The groups.
    pub(super) groups: BTreeMap<GroupId, Group>,
    /// The open files by sequence number.
    pub(super) files: BTreeMap<u64, FileId>,
    /// Commit positions that go with the next write.
    pub(super) committed: BTreeMap<GroupId, Bytes>,
    /// Why nothing is accepted any more.
    pub(super) stopped: Option<String>,
    /// Whether the log is about to be closed.
    pub(super) closing: bool,
    /// Whether there is no room for the next file.
    pub(super) full: bool,
    /// Counters.
    pub(super) statistics: LogStatistics,
    next_ordinal: u64,
    cached: VecDeque<(Appended, usize)>,
    cached_bytes: usize,
}

/// One group: its marks and its records, consecutive from `first`.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Vote, commit position and purge point.
    pub(super) marks: GroupMarks,
    first: u64,
    records: VecDeque<Located>,
}

/// A live record.
#[derive(Clone, Debug)]
pub(super) struct Located {
    /// As in [`LogRecord`].
    pub(super) term: [u8; 16],
    /// As in [`LogRecord`].
    pub(super) kind: u8,
    /// Bytes of the payload.
    pub(super) len: u32,
    /// Where its frame lies, once written.
    pub(super) place: Option<Place>,
    /// The payload: always until the record is synced, and while it is recent.
    pub(super) payload: Option<Bytes>,
    ordinal: u64,
}

/// Names one append, so that a record which took a truncated one's index is not taken for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Appended {
    /// The group.
    pub(super) group: GroupId,
    /// The record's index.
    pub(super) index: u64,
    /// Unique to the append.
    pub(super) ordinal: u64,
}

impl Group {
    /// (index, term) of the last record, or of the purge point when there is none above it.
    fn last(&self) -> Option<(u64, [u8; 16])> {
        let back = self.records.back().map(|record| (self.first + self.records.len() as u64 - 1, record.term));
        back.or(self.marks.purged)
    }

    /// What the contract says of the group.
    pub(super) fn describe(&self) -> GroupLog {
        let GroupMarks { vote, committed, purged } = self.marks.clone();
        GroupLog { vote, committed, purged, last: self.last() }
    }

    /// Whether a record of this index may come next. A group's first record has index 0 or 1.
    pub(super) fn expects(&self, index: u64) -> bool {
        self.last().map_or(index <= 1, |(last, _)| index == last + 1)
    }

    /// Sequence number of the oldest file with a live record that was written.
    pub(super) fn oldest_file(&self) -> Option<u64> {
        self.records.front()?.place.map(|place| place.file)
    }

    /// The record at `index`, if it is live.
    pub(super) fn get(&self, index: u64) -> Option<&Located> {
        self.records.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    fn get_mut(&mut self, index: u64) -> Option<&mut Located> {
        self.records.get_mut(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    fn push(&mut self, index: u64, record: Located) {
        if self.records.is_empty() {
            self.first = index;
        }
        self.records.push_back(record);
    }

    /// Forgets the records above `index`.
    pub(super) fn truncate_after(&mut self, index: Option<u64>) {
        let keep = index.map_or(0, |index| (index + 1).saturating_sub(self.first));
        self.records.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }

    /// Forgets the records up to and including `index`.
    pub(super) fn purge(&mut self, index: u64, term: [u8; 16]) {
        let gone = (index + 1).saturating_sub(self.first).min(self.records.len() as u64);
        self.records.drain(..gone as usize);
        self.first += gone;
        if self.marks.purged.is_none_or(|(purged, _)| purged < index) {
            self.marks.purged = Some((index, term));
        }
    }

    /// Applies a frame read back from a file.
    pub(super) fn replay(&mut self, place: Place, change: &Change) -> Result<(), String> {
        match change {
            Change::Append(record) => self.replay_append(place, record)?,
            Change::Vote(vote) => self.marks.vote = Some(Bytes::copy_from_slice(vote)),
            Change::Committed(committed) => self.marks.committed = Some(Bytes::copy_from_slice(committed)),
            Change::Truncate(index) => self.truncate_after(*index),
            Change::Purge(index, term) => self.purge(*index, *term),
            Change::Mark => {}
        }
        Ok(())
    }

    fn replay_append(&mut self, place: Place, record: &LogRecord) -> Result<(), String> {
        // Where none is known, those between the purge point and this one may have been in a file deleted since;
        // `check_complete` sees to it that they were purged.
        let follows = match (self.records.is_empty(), self.marks.purged) {
            (false, _) => self.expects(record.index),
            (true, Some((purged, _))) => record.index > purged,
            (true, None) => true,
        };
        if !follows {
            return Err(format!("record {} does not follow the one before", record.index));
        }
        let len = u32::try_from(record.payload.len()).expect("a frame's length has 32 bits");
        let located =
            Located { term: record.term, kind: record.kind, len, place: Some(place), payload: None, ordinal: 0 };
        self.push(record.index, located);
        Ok(())
    }

    /// Whether the records begin right above the purge point.
    pub(super) fn check_complete(&self) -> Result<(), String> {
        let complete = match (self.records.is_empty(), self.marks.purged) {
            (true, _) => true,
            (false, Some((purged, _))) => self.first == purged + 1,
            (false, None) => self.first <= 1,
        };
        if complete { Ok(()) } else { Err(format!("records before {} are missing", self.first)) }
    }
}

impl Index {
    /// Fails once the log has stopped.
    pub(super) fn check_running(&self) -> Result<(), Error> {
        self.stopped.as_ref().map_or(Ok(()), |reason| Err(Error::Stopped(reason.clone())))
    }

    /// Takes records in, not yet written; the ordinal of the first.
    pub(super) fn append(&mut self, group: GroupId, records: &[LogRecord]) -> u64 {
        let first = self.next_ordinal;
        self.next_ordinal += records.len() as u64;
        let group = self.groups.entry(group).or_default();
        for (ordinal, record) in (first..).zip(records) {
            let len = u32::try_from(record.payload.len()).expect("payloads were measured when they were accepted");
            let payload = Some(record.payload.clone());
            group.push(
                record.index,
                Located { term: record.term, kind: record.kind, len, place: None, payload, ordinal },
            );
        }
        first
    }

    /// Notes where a record was written and synced. Its payload stays in memory until newer ones need the room.
    pub(super) fn settle(&mut self, appended: Appended, place: Place) {
        let Some(record) = self.live(appended) else { return };
        record.place = Some(place);
        let bytes = record.len as usize;
        self.cached.push_back((appended, bytes));
        self.cached_bytes += bytes;
        while self.cached_bytes > LOG_CACHE_BYTES {
            let (oldest, bytes) = self.cached.pop_front().expect("bytes are cached, so something is");
            self.cached_bytes -= bytes;
            if let Some(record) = self.live(oldest) {
                record.payload = None;
            }
        }
    }

    fn live(&mut self, appended: Appended) -> Option<&mut Located> {
        let record = self.groups.get_mut(&appended.group)?.get_mut(appended.index)?;
        (record.ordinal == appended.ordinal).then_some(record)
    }
}

/// What the frames written so far amount to.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// The marks of each group.
    pub(super) marks: BTreeMap<GroupId, GroupMarks>,
    /// By file, the highest live record of each group in it.
    records: BTreeMap<u64, BTreeMap<GroupId, u64>>,
}

impl Written {
    /// Notes a frame of `file`.
    pub(super) fn apply(&mut self, file: u64, group: GroupId, change: &Change) {
        if let Change::Mark = change {
            return;
        }
        let marks = self.marks.entry(group).or_default();
        match change {
            Change::Append(record) => {
                self.records.entry(file).or_default().insert(group, record.index);
            }
            Change::Vote(vote) => marks.vote = Some(Bytes::copy_from_slice(vote)),
            Change::Committed(committed) => marks.committed = Some(Bytes::copy_from_slice(committed)),
            Change::Truncate(index) => {
                for last in self.records.values_mut().filter_map(|groups| groups.get_mut(&group)) {
                    *last = (*last).min(index.unwrap_or(0));
                }
            }
            Change::Purge(index, term) => {
                if marks.purged.is_none_or(|(purged, _)| purged < *index) {
                    marks.purged = Some((*index, *term));
                }
            }
            Change::Mark => {}
        }
    }

    /// The oldest of `files` that nobody needs: each record of theirs is purged. Only from the front, since a later
    /// file's frames may take back what an earlier one says.
    pub(super) fn removable(&self, files: impl Iterator<Item = u64>, active: u64) -> Vec<u64> {
        let dead = |file: &u64| {
            let groups = self.records.get(file).into_iter().flatten();
            *file < active && groups.into_iter().all(|(group, last)| self.is_purged(*group, *last))
        };
        files.take_while(dead).collect()
    }

    fn is_purged(&self, group: GroupId, index: u64) -> bool {
        let purged = self.marks.get(&group).and_then(|marks| marks.purged);
        purged.is_some_and(|(purged, _)| index <= purged)
    }

    /// Forgets a removed file.
    pub(super) fn remove(&mut self, file: u64) {
        self.records.remove(&file);
    }
}
