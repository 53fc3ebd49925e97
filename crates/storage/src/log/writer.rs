//! The one task that writes the log: takes all that waits, writes it as one run of frames, syncs once, tells everybody.
//!
//! Frames go to the disk in the order of the queue, and a sync covers all before it. After a failed write or sync nothing
//! more is written: what the disk then holds is known only to a recovery (architecture, D22). A disk without room has not
//! failed: the writer still has the bytes, and waits and writes them again. That seldom happens, since the next file's room is
//! reserved early; when it cannot be, [`super::Log::is_full`] says so and whoever appends refuses what can be refused.
//!
//! When a reserved block is first written the file system changes its own records, and a sync waits for them too: half as long again as
//! for the data alone. So a small write in a new file brings zeros along, and those after it overwrite what was written before.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use event::GroupId;
use event::limits::{LOG_FULL_RETRY_MS, LOG_SMALL_WRITE_BYTES, LOG_SPARES_MAX, LOG_WRITE_BYTES_MAX, LOG_ZEROS_BYTES};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::Instant;

use super::files::{self, Active, Spare};
use super::frame::{Change, FrameBuffer, Place};
use super::index::{Appended, Written};
use super::{Done, Shared};
use crate::Error;
use crate::disk::{FileId, NotDurable};

/// Between two looks for room on a full disk.
const FULL_RETRY: Duration = Duration::from_millis(LOG_FULL_RETRY_MS);
/// The room for the next file is reserved once this part of a file is used.
const RESERVE_SHARE: u64 = 4;
static ZEROS: [u8; LOG_ZEROS_BYTES] = [0; LOG_ZEROS_BYTES];

/// What waits for the writer, and who waits for the outcome.
pub(super) struct Request {
    pub(super) work: Work,
    pub(super) done: Done,
}

/// What is to be done.
pub(super) enum Work {
    /// Frames to be written and synced.
    Write {
        /// The group they belong to.
        group: GroupId,
        /// What they say.
        changes: Vec<Change>,
        /// The ordinal of the first record appended; they are consecutive.
        ordinal: u64,
        /// The share of the queue's bytes, given back when this is dropped.
        _bytes: OwnedSemaphorePermit,
    },
    /// Nothing comes after this one.
    Close,
}

impl Work {
    fn len(&self) -> u64 {
        match self {
            Work::Write { changes, .. } => changes.iter().map(Change::frame_len).sum(),
            Work::Close => 0,
        }
    }
}

/// The writer's own state.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: mpsc::Receiver<Request>,
    pub(super) failed: watch::Sender<Option<String>>,
    pub(super) written: Written,
    pub(super) active: Active,
    pub(super) spares: VecDeque<Spare>,
    pub(super) file_len: u64,
    pub(super) buffer: FrameBuffer,
    pub(super) appended: Vec<(Appended, Place)>,
}

impl Writer {
    /// Writes until the log is closed or dropped, or a write fails.
    pub(super) async fn run(mut self) {
        while let Some(first) = self.next().await {
            let (batch, waiting) = self.gather(first);
            let closing = batch.iter().any(|work| matches!(work, Work::Close));
            let outcome = self.write(&batch, closing).await;
            drop(batch);
            if let Err(error) = &outcome {
                self.stop(error);
            } else if closing {
                self.shared.index.lock().stopped = Some("it was closed".to_owned());
            }
            for done in waiting {
                done(outcome.as_ref().map(|_| ()).map_err(repeat));
            }
            if closing || outcome.is_err() {
                return self.refuse_rest().await;
            }
            if let Err(error) = self.reserve().await {
                self.stop(&error);
                return self.refuse_rest().await;
            }
        }
        // The last handle is gone, and with it nobody waits: what is left are commit positions.
        if let Err(error) = self.finish().await {
            tracing::warn!(%error, "the log could not be closed");
        }
    }

    /// The next request; looks for room meanwhile when there was none.
    async fn next(&mut self) -> Option<Request> {
        while self.shared.index.lock().full {
            match tokio::time::timeout(FULL_RETRY, self.queue.recv()).await {
                Ok(next) => return next,
                // An error is met again, and told, by the write that comes next.
                Err(_) => drop(self.reserve().await),
            }
        }
        self.queue.recv().await
    }

    /// What waits, as much as goes into one write.
    fn gather(&mut self, first: Request) -> (Vec<Work>, Vec<Done>) {
        let mut bytes = first.work.len();
        let (mut batch, mut waiting) = (vec![first.work], vec![first.done]);
        while bytes < LOG_WRITE_BYTES_MAX as u64
            && let Ok(Request { work, done }) = self.queue.try_recv()
        {
            bytes += work.len();
            batch.push(work);
            waiting.push(done);
        }
        (batch, waiting)
    }

    async fn write(&mut self, batch: &[Work], closing: bool) -> Result<(), Error> {
        let mut records = 0;
        let mut purging = false;
        for work in batch {
            let Work::Write { group, changes, ordinal, .. } = work else { continue };
            for (ordinal, change) in (*ordinal..).zip(changes) {
                let place = self.put(*group, change).await?;
                if let Change::Append(record) = change {
                    records += 1;
                    self.appended.push((Appended { group: *group, index: record.index, ordinal }, place));
                }
                purging |= matches!(change, Change::Purge(..));
            }
        }
        self.put_committed().await?;
        self.flush().await?;
        self.shared.index.lock().statistics.records += records;
        if purging {
            self.remove_files().await?;
        }
        if closing { self.finish().await } else { Ok(()) }
    }

    /// Puts a frame into the buffer, beginning a new file when it does not fit this one.
    async fn put(&mut self, group: GroupId, change: &Change) -> Result<Place, Error> {
        let len = change.frame_len();
        if self.active.end + self.buffer.len() + len > self.active.file_len {
            self.flush().await?;
            while let Err(error) = self.roll(len).await {
                self.wait_for_room(error).await?;
            }
            self.sync_names().await?;
        }
        let place = Place { file: self.active.sequence, offset: self.active.end + self.buffer.len() };
        self.buffer.put(place, self.active.end, group, change);
        self.written.apply(place.file, group, change);
        Ok(place)
    }

    async fn put_committed(&mut self) -> Result<(), Error> {
        let committed = std::mem::take(&mut self.shared.index.lock().committed);
        for (group, bytes) in committed {
            self.put(group, &Change::Committed(bytes)).await?;
        }
        Ok(())
    }

    /// Writes and syncs the buffer.
    async fn flush(&mut self) -> Result<(), Error> {
        let len = self.buffer.len();
        if len == 0 {
            return Ok(());
        }
        let Active { file, end, sequence, .. } = self.active;
        let mut parts = self.buffer.take();
        let zeros = self.active.zeros_behind(len);
        parts.extend((!zeros.is_empty()).then(|| Bytes::from_static(zeros)));
        let mut begin = Instant::now();
        // Also when only the sync found no room: the system may hold the bytes and believe them written.
        while let Err(error) = self.write_and_sync(file, sequence, end, parts.clone()).await {
            self.wait_for_room(error).await?;
            begin = Instant::now();
        }
        let sync_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.active.marked = end;
        self.active.end += len;
        self.active.written = self.active.written.max(self.active.end + zeros.len() as u64);
        let mut index = self.shared.index.lock();
        index.statistics.syncs += 1;
        index.statistics.sync_us += sync_us;
        index.statistics.bytes_written += len + zeros.len() as u64;
        for (appended, place) in self.appended.drain(..) {
            index.settle(appended, place);
        }
        Ok(())
    }

    async fn write_and_sync(&self, file: FileId, sequence: u64, offset: u64, parts: Vec<Bytes>) -> Result<(), Error> {
        let written = self.shared.disk.write_and_sync(file, offset, parts).await;
        written.map_err(|failed| {
            let (doing, source) = match failed {
                NotDurable::Write(source) => ("write", source),
                NotDurable::Sync(source) => ("sync", source),
            };
            let path = files::path(&self.shared.dir, sequence);
            Error::Io { context: format!("could not {doing} file \"{path}\""), source }
        })
    }

    /// Waits a little when `error` says that the disk is full; any other is given back, and so is this one when the log is to
    /// be closed.
    async fn wait_for_room(&self, error: Error) -> Result<(), Error> {
        if !error.is_disk_full() || self.shared.index.lock().closing {
            return Err(error);
        }
        self.set_full(Some(&error));
        tokio::time::sleep(FULL_RETRY).await;
        Ok(())
    }

    fn set_full(&self, error: Option<&Error>) {
        let before = std::mem::replace(&mut self.shared.index.lock().full, error.is_some());
        match error {
            Some(error) if !before => tracing::error!(%error, "no room for the log: writes are refused until there is"),
            None if before => tracing::info!("there is room for the log again"),
            _ => {}
        }
    }

    /// Sees to it that the room for the next file is there before this one is used up.
    pub(super) async fn reserve(&mut self) -> Result<(), Error> {
        let early = self.active.end < self.active.file_len / RESERVE_SHARE;
        if self.spares.is_empty() && (!early || self.shared.index.lock().full) {
            match files::create_spare(&self.shared.disk, &self.shared.dir, self.file_len).await {
                Ok(spare) => self.spares.push_back(spare),
                Err(error) if error.is_disk_full() => {
                    self.set_full(Some(&error));
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.set_full(None);
        Ok(())
    }

    /// Makes the names of the files durable.
    async fn sync_names(&self) -> Result<(), Error> {
        while let Err(error) = files::sync_names(&self.shared.disk, &self.shared.dir).await {
            self.wait_for_room(error).await?;
        }
        Ok(())
    }

    /// Begins the next file, with room for a frame of `frame_len`; its name is yet to be made durable. The buffer is empty.
    pub(super) async fn roll(&mut self, frame_len: u64) -> Result<(), Error> {
        assert_eq!(self.buffer.len(), 0, "frames in the buffer were meant for the old file");
        let (sequence, previous_end) = (self.active.sequence + 1, self.active.end);
        let Shared { disk, dir, .. } = &*self.shared;
        let needed = files::header_len(&self.written.marks) + frame_len;
        let marks = self.written.marks.clone();
        self.active = match self.spares.front() {
            Some(spare) if needed <= spare.file_len => {
                let begun = files::begin(disk, dir, sequence, spare.clone(), previous_end, marks).await?;
                self.spares.pop_front();
                begun
            }
            _ => files::create(disk, dir, sequence, self.file_len.max(needed), previous_end, marks).await?,
        };
        self.shared.index.lock().files.insert(sequence, self.active.file);
        Ok(())
    }

    /// Removes the files that purging left without use, but for some that become spares. The purge points are durable by now.
    async fn remove_files(&mut self) -> Result<(), Error> {
        let files: Vec<_> = self.shared.index.lock().files.iter().map(|(sequence, file)| (*sequence, *file)).collect();
        let removable = self.written.removable(files.iter().map(|(sequence, _)| *sequence), self.active.sequence);
        for (sequence, file) in files.into_iter().take(removable.len()) {
            self.shared.index.lock().files.remove(&sequence);
            let Shared { disk, dir, .. } = &*self.shared;
            let fits = disk.len(file).await.is_ok_and(|len| len == self.file_len);
            let spare = if fits && self.spares.len() < LOG_SPARES_MAX {
                Some(files::recycle(disk, dir, file, sequence, self.file_len).await?)
            } else {
                files::remove(disk, dir, file, sequence).await?;
                None
            };
            self.sync_names().await?;
            self.shared.index.lock().statistics.files_recycled += u64::from(spare.is_some());
            self.spares.extend(spare);
            self.written.remove(sequence);
        }
        Ok(())
    }

    /// Writes what is left and a mark that everything before it was synced, so that damage to it will be noticed.
    pub(super) async fn finish(&mut self) -> Result<(), Error> {
        self.put_committed().await?;
        self.flush().await?;
        self.mark().await
    }

    /// Puts a mark at the end of the file, if not everything in it is marked already.
    pub(super) async fn mark(&mut self) -> Result<(), Error> {
        let Active { end, marked, file_len, .. } = self.active;
        let len = Change::Mark.frame_len();
        if marked + len >= end || end + len > file_len {
            return Ok(());
        }
        self.put(GroupId::CATALOG, &Change::Mark).await?;
        self.flush().await
    }

    fn stop(&mut self, error: &Error) {
        let reason = error.to_string();
        tracing::error!(error = reason, "the log is stopped");
        self.shared.index.lock().stopped = Some(reason.clone());
        self.failed.send_replace(Some(reason));
    }

    /// Answers what still waits after the log has stopped. New requests are refused before they get here.
    async fn refuse_rest(&mut self) {
        self.queue.close();
        while let Some(request) = self.queue.recv().await {
            let reason = self.shared.index.lock().stopped.clone().unwrap_or_default();
            (request.done)(Err(io::Error::other(Error::Stopped(reason))));
        }
    }
}

impl Active {
    /// The zeros that go behind `len` bytes written now.
    fn zeros_behind(&self, len: u64) -> &'static [u8] {
        let end = self.end + len;
        if len > LOG_SMALL_WRITE_BYTES || end <= self.written {
            return &[];
        }
        &ZEROS[..ZEROS.len().min((self.file_len - end) as usize)]
    }
}

/// The same error for one more listener.
fn repeat(error: &Error) -> io::Error {
    match error {
        Error::Io { source, .. } => io::Error::new(source.kind(), error.to_string()),
        other => io::Error::other(other.to_string()),
    }
}
