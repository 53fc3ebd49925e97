//! The node's write-ahead log: one sequence of files for all groups, group commit, one fdatasync for many appends.
//!
//! Calls change the index in memory and queue what is to be written, both under one lock, so that the order of the queue
//! is the order of the calls: of appends, votes, truncations and purges of a group alike. One task writes. What can be
//! read is therefore ahead of what is durable, and `done` says when the disk has caught up.

// From bytes to files: one frame, the header of a file, the files.
mod files;
pub(crate) mod frame;
mod header;
// What is known in memory, how it is read back, how it is written.
mod index;
mod read;
mod recovery;
mod writer;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use event::GroupId;
use event::limits::{LOG_FILE_BYTES, LOG_QUEUE_BYTES, LOG_QUEUE_LEN, LOG_SPARES_MAX};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use self::frame::{Change, FrameBuffer};
use self::index::{Index, Written};
use self::recovery::Recovered;
use self::writer::{Request, Work, Writer};
use crate::{Disk, Error};

/// One Raft entry as the log sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Position in the group's log.
    pub index: u64,
    /// Opaque to this crate: Raft's leader id of the entry (term and what else it needs), fixed 16 bytes.
    pub term: [u8; 16],
    /// Opaque to this crate: tells the kinds of payload apart (blank, membership, normal).
    pub kind: u8,
    /// The entry itself.
    pub payload: Bytes,
}

/// What the log knows of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupLog {
    /// The last vote saved, opaque bytes.
    pub vote: Option<Bytes>,
    /// The last commit position saved (not synced), opaque bytes.
    pub committed: Option<Bytes>,
    /// (index, term) below and including which everything is purged.
    pub purged: Option<(u64, [u8; 16])>,
    /// (index, term) of the last record, the purge point when there is none above it.
    pub last: Option<(u64, [u8; 16])>,
}

/// Counters since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStatistics {
    /// fdatasync calls.
    pub syncs: u64,
    /// Sum of their durations in microseconds.
    pub sync_us: u64,
    /// Bytes written: frames, and the zeros that small ones bring along.
    pub bytes_written: u64,
    /// Records appended.
    pub records: u64,
    /// Files that were used again instead of being removed.
    pub files_recycled: u64,
}

/// The completion of an append or vote: called once, with the outcome of the sync that covers it.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// The log of one node. Cheap to clone; the last clone dropped closes it.
#[derive(Clone, Debug)]
pub struct Log {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Request>,
    queue_bytes: Arc<Semaphore>,
    failed: watch::Receiver<Option<String>>,
}

/// What the handles and the writer share.
#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    dir: String,
    index: Mutex<Index>,
}

impl Log {
    /// Opens the log below `dir`, creating it when absent: cuts a torn tail, refuses rot with file and offset.
    ///
    /// The task that writes is spawned on the runtime this is called on.
    pub async fn open(disk: Arc<dyn Disk>, dir: &str) -> Result<Log, Error> {
        Self::open_with_file_len(disk, dir, LOG_FILE_BYTES).await
    }

    /// Opens the log like [`Log::open`], but begins new files of `file_len` bytes.
    pub async fn open_with_file_len(disk: Arc<dyn Disk>, dir: &str, file_len: u64) -> Result<Log, Error> {
        let Recovered { index, written, active, torn } = match recovery::recover(&disk, dir).await? {
            Some(recovered) => recovered,
            None => {
                let active = files::create(&disk, dir, 1, file_len, 0, Default::default()).await?;
                files::sync_names(&disk, dir).await?;
                let mut index = Index::default();
                index.files.insert(active.sequence, active.file);
                Recovered { index, written: Written::default(), active, torn: false }
            }
        };
        let spares = files::adopt_spares(&disk, dir, file_len, LOG_SPARES_MAX).await?;
        let shared = Arc::new(Shared { disk, dir: dir.to_owned(), index: Mutex::new(index) });
        let (queue, requests) = mpsc::channel(LOG_QUEUE_LEN);
        let (failing, failed) = watch::channel(None);
        let mut writer = Writer {
            shared: shared.clone(),
            queue: requests,
            failed: failing,
            written,
            active,
            spares,
            file_len,
            buffer: FrameBuffer::default(),
            appended: Vec::new(),
        };
        if torn {
            writer.roll(0).await?;
            files::sync_names(&shared.disk, dir).await?;
        }
        writer.mark().await?;
        writer.reserve().await?;
        tokio::spawn(writer.run());
        Ok(Log { shared, queue, queue_bytes: Arc::new(Semaphore::new(LOG_QUEUE_BYTES)), failed })
    }

    /// The groups the log holds anything of.
    pub fn groups(&self) -> Vec<GroupId> {
        self.shared.index.lock().groups.keys().copied().collect()
    }

    /// What is known of `group`.
    pub fn group(&self, group: GroupId) -> GroupLog {
        self.shared.index.lock().groups.get(&group).map(index::Group::describe).unwrap_or_default()
    }

    /// Appends records with consecutive indexes right after the group's last one. They are readable when this returns;
    /// `done` is called once they are synced. Waits while the queue is full.
    ///
    /// A group's first record has index 0 or 1. When this fails, `done` is not called.
    pub async fn append(&self, group: GroupId, records: Vec<LogRecord>, done: Done) -> Result<(), Error> {
        let mut payload_bytes = 0;
        for record in &records {
            check_payload(&record.payload)?;
            payload_bytes += record.payload.len();
        }
        let admit = |index: &mut Index| {
            let state = index.groups.entry(group).or_default();
            let mut expected = records.first().is_none_or(|first| state.expects(first.index));
            expected &= records.windows(2).all(|pair| pair[1].index == pair[0].index + 1);
            if !expected {
                return Err(refused("cannot append log records that do not follow the last one"));
            }
            let ordinal = index.append(group, &records);
            Ok((records.into_iter().map(Change::Append).collect(), ordinal))
        };
        self.submit(group, payload_bytes, admit, done).await
    }

    /// Saves the group's vote; durable when this returns.
    pub async fn save_vote(&self, group: GroupId, vote: Bytes) -> Result<(), Error> {
        check_payload(&vote)?;
        let admit = |index: &mut Index| {
            index.groups.entry(group).or_default().marks.vote = Some(vote.clone());
            Ok((vec![Change::Vote(vote)], 0))
        };
        self.submit_and_wait(group, admit).await
    }

    /// Saves the group's commit position with the next write; not synced for its own sake.
    pub async fn save_committed(&self, group: GroupId, committed: Bytes) -> Result<(), Error> {
        check_payload(&committed)?;
        let mut index = self.shared.index.lock();
        index.check_running()?;
        index.groups.entry(group).or_default().marks.committed = Some(committed.clone());
        index.committed.insert(group, committed);
        Ok(())
    }

    /// Forgets all records of `group` above `index` (all when `None`); ordered with the appends around it. Durable when
    /// this returns.
    pub async fn truncate_after(&self, group: GroupId, index: Option<u64>) -> Result<(), Error> {
        let admit = |state: &mut Index| {
            state.groups.entry(group).or_default().truncate_after(index);
            Ok((vec![Change::Truncate(index)], 0))
        };
        self.submit_and_wait(group, admit).await
    }

    /// Forgets all records of `group` up to and including `index`, and deletes files nobody needs any more. Durable when
    /// this returns.
    pub async fn purge(&self, group: GroupId, index: u64, term: [u8; 16]) -> Result<(), Error> {
        let admit = |state: &mut Index| {
            state.groups.entry(group).or_default().purge(index, term);
            Ok((vec![Change::Purge(index, term)], 0))
        };
        self.submit_and_wait(group, admit).await
    }

    /// Returns once everything that was appended before the call is synced.
    pub async fn synced(&self) -> Result<(), Error> {
        // Requests are written in their order, and this one has nothing to write.
        self.submit_and_wait(GroupId::CATALOG, |_| Ok((Vec::new(), 0))).await
    }

    /// Reads records of `range`, at least one when the first exists, stopping once `bytes_max` is passed.
    ///
    /// Stops before the first record that does not exist, and gives none when that is the first of the range. Records
    /// that were appended are there at once, synced or not.
    pub async fn read(&self, group: GroupId, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogRecord>, Error> {
        read::read(&self.shared, group, range, bytes_max).await
    }

    /// Counters since the log was opened.
    pub fn statistics(&self) -> LogStatistics {
        self.shared.index.lock().statistics
    }

    /// Whether the disk has no room for the log to grow. What is appended is still written, into the room that was reserved; once
    /// that is used up it waits. What can be refused should be, until this is false again.
    pub fn is_full(&self) -> bool {
        self.shared.index.lock().full
    }

    /// How many files back the oldest record of `group` lies that is not purged; 0 when it is in the newest, or there is none.
    pub fn files_held(&self, group: GroupId) -> u64 {
        let index = self.shared.index.lock();
        let newest = index.files.last_key_value().map_or(0, |(sequence, _)| *sequence);
        index.groups.get(&group).and_then(index::Group::oldest_file).map_or(0, |oldest| newest - oldest)
    }

    /// Returns once a write or sync has failed, with the reason; never while the log works. The process must end then
    /// and recover from disk (architecture, D22).
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        let reason = failed.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            // The writer ended without a failure: the log was closed.
            None => std::future::pending().await,
        }
    }

    /// From now on nothing waits for room on a full disk: what has waited fails, and with it the log. For a node that is about to stop, whose
    /// groups would wait for their log first.
    pub fn give_up_waiting(&self) {
        self.shared.index.lock().closing = true;
    }

    /// Writes and syncs what waits, then stops the writer.
    pub async fn close(&self) -> Result<(), Error> {
        let (done, outcome) = waiter();
        {
            let mut index = self.shared.index.lock();
            index.check_running()?;
            index.closing = true;
        }
        self.queue.send(Request { work: Work::Close, done }).await.map_err(|_| self.stopped())?;
        self.wait(outcome).await
    }

    /// Changes the index and queues the frames as one step.
    async fn submit(
        &self,
        group: GroupId,
        payload_bytes: usize,
        admit: impl FnOnce(&mut Index) -> Result<(Vec<Change>, u64), Error>,
        done: Done,
    ) -> Result<(), Error> {
        // One request larger than the whole queue passes alone.
        let share = u32::try_from(payload_bytes.min(LOG_QUEUE_BYTES)).expect("the queue is below 4 GiB");
        let bytes = self.queue_bytes.clone().acquire_many_owned(share).await.expect("the semaphore is never closed");
        let slot = self.queue.reserve().await.map_err(|_| self.stopped())?;
        let mut index = self.shared.index.lock();
        index.check_running()?;
        let (changes, ordinal) = admit(&mut index)?;
        slot.send(Request { work: Work::Write { group, changes, ordinal, _bytes: bytes }, done });
        Ok(())
    }

    async fn submit_and_wait(
        &self,
        group: GroupId,
        admit: impl FnOnce(&mut Index) -> Result<(Vec<Change>, u64), Error>,
    ) -> Result<(), Error> {
        let (done, outcome) = waiter();
        self.submit(group, 0, admit, done).await?;
        self.wait(outcome).await
    }

    async fn wait(&self, outcome: oneshot::Receiver<io::Result<()>>) -> Result<(), Error> {
        match outcome.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::Stopped(error.to_string())),
            Err(_) => Err(self.stopped()),
        }
    }

    fn stopped(&self) -> Error {
        let reason = self.shared.index.lock().stopped.clone();
        Error::Stopped(reason.unwrap_or_else(|| "its writer has ended".to_owned()))
    }
}

fn waiter() -> (Done, oneshot::Receiver<io::Result<()>>) {
    let (sender, receiver) = oneshot::channel();
    // Who no longer waits need not be told.
    let done = Box::new(move |outcome| drop(sender.send(outcome)));
    (done, receiver)
}

fn check_payload(payload: &Bytes) -> Result<(), Error> {
    if payload.len() as u64 <= LOG_FILE_BYTES {
        return Ok(());
    }
    Err(refused("cannot write a log record larger than a log file"))
}

fn refused(context: &str) -> Error {
    Error::Io { context: context.to_owned(), source: io::ErrorKind::InvalidInput.into() }
}
