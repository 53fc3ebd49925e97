//! The group's part of the node's log, as Raft wants to see it.
//!
//! What this node appended itself is kept decoded until it is applied, so that apply neither reads nor decodes it again.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;
use event::{GroupId, limits, mutants};
use futures::stream::{self, Stream};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, Membership};
use parking_lot::Mutex;
use storage::{Log, LogRecord};

use crate::machine::StateMachine;
use crate::types::{Entry, LeaderId, LogId, Peer, Proposal, Types, Vote};

const KIND_BLANK: u8 = 0;
const KIND_MEMBERSHIP: u8 = 1;
const KIND_NORMAL: u8 = 2;

const VOTE_BYTES: usize = 17;
const LOG_ID_BYTES: usize = 24;

/// Log storage and reader of one group; clones share everything.
pub(crate) struct LogStore<M: StateMachine> {
    log: Log,
    group: GroupId,
    unapplied: Arc<Mutex<Unapplied<M>>>,
}

/// Entries appended here and not yet applied, oldest first, bounded by `limits::APPLY_CACHE_BYTES`.
struct Unapplied<M: StateMachine> {
    entries: VecDeque<Entry<M>>,
    bytes: usize,
}

impl<M: StateMachine> LogStore<M> {
    pub(crate) fn new(log: Log, group: GroupId) -> Self {
        Self { log, group, unapplied: Arc::new(Mutex::new(Unapplied { entries: VecDeque::new(), bytes: 0 })) }
    }

    /// The last commit position saved, never beyond what the log holds.
    pub(crate) fn committed(&self) -> Result<Option<LogId>, storage::Error> {
        let state = self.log.group(self.group);
        let Some(bytes) = state.committed else { return Ok(None) };
        let committed = decode_log_id(&bytes)?;
        let held = state.last.is_some_and(|(index, _)| committed.index <= index);
        Ok(held.then_some(committed))
    }

    /// Reads entries of `range`, at least one, until about `limits::LOG_READ_BYTES_MAX` bytes.
    pub(crate) async fn read_some(&self, range: Range<u64>) -> Result<Vec<Entry<M>>, storage::Error> {
        let first = range.start;
        let records = self.log.read(self.group, range, limits::LOG_READ_BYTES_MAX).await?;
        if records.first().is_none_or(|r| r.index != first) {
            return Err(damaged(format!("group {} has no entry {first}", self.group)));
        }
        records.into_iter().map(decode_record).collect()
    }

    /// The part of `range` that the log holds.
    fn held<R: RangeBounds<u64>>(&self, range: &R) -> Range<u64> {
        let state = self.log.group(self.group);
        let first = state.purged.map_or(0, |(index, _)| index + 1);
        let end = state.last.map_or(0, |(index, _)| index + 1);
        let from = match range.start_bound() {
            Bound::Included(&i) => i,
            Bound::Excluded(&i) => i.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(&i) => i.saturating_add(1),
            Bound::Excluded(&i) => i,
            Bound::Unbounded => u64::MAX,
        };
        from.max(first)..to.min(end)
    }
}

impl<M: StateMachine> Clone for LogStore<M> {
    fn clone(&self) -> Self {
        Self { log: self.log.clone(), group: self.group, unapplied: self.unapplied.clone() }
    }
}

impl<M: StateMachine> Unapplied<M> {
    fn push(&mut self, entry: Entry<M>) {
        self.bytes += payload_bytes(&entry);
        self.entries.push_back(entry);
        while self.bytes > limits::APPLY_CACHE_BYTES {
            self.pop();
        }
    }

    fn pop(&mut self) -> Option<Entry<M>> {
        let entry = self.entries.pop_front()?;
        self.bytes -= payload_bytes(&entry);
        Some(entry)
    }

    /// Takes the entry of `index` and forgets those before it.
    fn take(&mut self, index: u64) -> Option<Entry<M>> {
        while self.entries.front().is_some_and(|e| e.log_id.index < index) {
            self.pop();
        }
        if self.entries.front().is_some_and(|e| e.log_id.index == index) { self.pop() } else { None }
    }

    fn truncate_after(&mut self, index: Option<u64>) {
        while self.entries.back().is_some_and(|e| index.is_none_or(|last| e.log_id.index > last)) {
            let dropped = self.entries.pop_back();
            self.bytes -= dropped.as_ref().map_or(0, payload_bytes);
        }
    }
}

impl<M: StateMachine> RaftLogReader<Types<M>> for LogStore<M> {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<Entry<M>>>
    where
        R: RangeBounds<u64> + Clone + Debug + Send,
    {
        let Range { mut start, end } = self.held(&range);
        let mut entries = Vec::new();
        while start < end {
            let some = self.read_some(start..end).await.map_err(io::Error::other)?;
            start += some.len() as u64;
            entries.extend(some);
        }
        Ok(entries)
    }

    async fn entries_stream<R>(&mut self, range: R) -> impl Stream<Item = io::Result<Entry<M>>> + Send
    where
        R: RangeBounds<u64> + Clone + Debug + Send,
    {
        let store = self.clone();
        let Range { start, end } = self.held(&range);
        let read: VecDeque<Entry<M>> = VecDeque::new();
        stream::try_unfold((store, read, start), move |(store, mut read, index)| async move {
            if index >= end {
                return Ok(None);
            }
            let kept = store.unapplied.lock().take(index);
            if kept.is_none() && read.front().is_none_or(|e| e.log_id.index != index) {
                read = store.read_some(index..end).await.map_err(io::Error::other)?.into();
            } else if kept.is_some() {
                read.clear();
            }
            let entry = kept.or_else(|| read.pop_front()).expect("read_some returns the first entry asked for");
            Ok(Some((entry, (store, read, index + 1))))
        })
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        let vote = self.log.group(self.group).vote;
        vote.map(|bytes| decode_vote(&bytes)).transpose().map_err(io::Error::other)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry<M>>> {
        match self.read_some(start..end).await {
            // Purged since Raft asked for it to be sent. Raft takes nothing for a heartbeat, and then finds that a snapshot is needed.
            Err(_) if self.log.group(self.group).purged.is_some_and(|(purged, _)| purged >= start) => Ok(Vec::new()),
            read => read.map_err(io::Error::other),
        }
    }
}

impl<M: StateMachine> RaftLogStorage<Types<M>> for LogStore<M> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types<M>>> {
        let state = self.log.group(self.group);
        let log_id = |(index, term): (u64, [u8; 16])| LogId { leader_id: decode_leader(term), index };
        Ok(LogState { last_purged_log_id: state.purged.map(log_id), last_log_id: state.last.map(log_id) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        if mutants::is_back("vote not synced") {
            return Ok(());
        }
        self.log.save_vote(self.group, encode_vote(vote)).await.map_err(io::Error::other)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        self.log.save_committed(self.group, encode_log_id(&committed)).await.map_err(io::Error::other)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.committed().map_err(io::Error::other)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<M>>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry<M>> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry<M>> = entries.into_iter().collect();
        let records = entries.iter().map(encode_entry).collect();
        let (early, done): (_, Box<dyn FnOnce(io::Result<()>) + Send>) = if mutants::is_back("acknowledged before sync")
        {
            (Some(callback), Box::new(|_| {}))
        } else {
            (None, Box::new(move |result| callback.io_completed(result)))
        };
        {
            let mut unapplied = self.unapplied.lock();
            entries.into_iter().for_each(|e| unapplied.push(e));
        }
        let appended = self.log.append(self.group, records, done).await.map_err(io::Error::other);
        if let Some(early) = early {
            early.io_completed(Ok(()));
        }
        appended
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let index = last.map(|l| l.index);
        self.unapplied.lock().truncate_after(index);
        self.log.truncate_after(self.group, index).await.map_err(io::Error::other)
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.log.purge(self.group, upto.index, encode_leader(&upto.leader_id)).await.map_err(io::Error::other)
    }
}

fn payload_bytes<M: StateMachine>(entry: &Entry<M>) -> usize {
    match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.bytes.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

fn encode_entry<M: StateMachine>(entry: &Entry<M>) -> LogRecord {
    let (kind, payload) = match &entry.payload {
        EntryPayload::Blank => (KIND_BLANK, Bytes::new()),
        EntryPayload::Normal(proposal) => (KIND_NORMAL, proposal.bytes.clone()),
        EntryPayload::Membership(membership) => {
            let json = serde_json::to_vec(membership).expect("a membership has only string keys");
            (KIND_MEMBERSHIP, json.into())
        }
    };
    LogRecord { index: entry.log_id.index, term: encode_leader(&entry.log_id.leader_id), kind, payload }
}

fn decode_record<M: StateMachine>(record: LogRecord) -> Result<Entry<M>, storage::Error> {
    let payload = match record.kind {
        KIND_BLANK => EntryPayload::Blank,
        KIND_NORMAL => EntryPayload::Normal(Proposal::from_bytes(record.payload)),
        KIND_MEMBERSHIP => {
            let membership: Membership<u64, Peer> =
                serde_json::from_slice(&record.payload).map_err(|e| damaged(e.to_string()))?;
            EntryPayload::Membership(membership)
        }
        other => return Err(damaged(format!("unknown kind of entry {other}"))),
    };
    Ok(Entry { log_id: LogId { leader_id: decode_leader(record.term), index: record.index }, payload })
}

fn encode_leader(leader: &LeaderId) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&leader.term.to_le_bytes());
    bytes[8..].copy_from_slice(&leader.node_id.to_le_bytes());
    bytes
}

fn decode_leader(bytes: [u8; 16]) -> LeaderId {
    LeaderId { term: u64_at(&bytes, 0), node_id: u64_at(&bytes, 8) }
}

fn encode_vote(vote: &Vote) -> Bytes {
    let mut bytes = encode_leader(&vote.leader_id).to_vec();
    bytes.push(u8::from(vote.committed));
    bytes.into()
}

fn decode_vote(bytes: &[u8]) -> Result<Vote, storage::Error> {
    if bytes.len() != VOTE_BYTES {
        return Err(damaged(format!("a vote of {} bytes", bytes.len())));
    }
    let leader_id = LeaderId { term: u64_at(bytes, 0), node_id: u64_at(bytes, 8) };
    Ok(Vote { leader_id, committed: bytes[16] != 0 })
}

fn encode_log_id(log_id: &LogId) -> Bytes {
    let mut bytes = encode_leader(&log_id.leader_id).to_vec();
    bytes.extend_from_slice(&log_id.index.to_le_bytes());
    bytes.into()
}

fn decode_log_id(bytes: &[u8]) -> Result<LogId, storage::Error> {
    if bytes.len() != LOG_ID_BYTES {
        return Err(damaged(format!("a log position of {} bytes", bytes.len())));
    }
    let leader_id = LeaderId { term: u64_at(bytes, 0), node_id: u64_at(bytes, 8) };
    Ok(LogId { leader_id, index: u64_at(bytes, 16) })
}

/// The caller has checked the length.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn damaged(reason: String) -> storage::Error {
    storage::Error::Decode { what: "a record of the log", reason }
}
