//! The one task that writes the log: takes all that waits, writes it as one run of frames, syncs once, tells everybody.
//!
//! Frames go to the disk in the order of the queue, and a sync covers all before it. After a failed write or sync nothing
//! more is written: what the disk then holds is known only to a recovery (architecture, D22).

use std::io;
use std::sync::Arc;

use event::GroupId;
use event::limits::LOG_WRITE_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::Instant;

use super::files::{self, Active};
use super::frame::{Change, FrameBuffer, Place};
use super::index::{Appended, Written};
use super::{Done, Shared};
use crate::Error;

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
    pub(super) file_len: u64,
    pub(super) buffer: FrameBuffer,
    pub(super) appended: Vec<(Appended, Place)>,
}

impl Writer {
    /// Writes until the log is closed or dropped, or a write fails.
    pub(super) async fn run(mut self) {
        while let Some(first) = self.queue.recv().await {
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
        }
        // The last handle is gone, and with it nobody waits: what is left are commit positions.
        if let Err(error) = self.finish().await {
            tracing::warn!(%error, "the log could not be closed");
        }
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
            self.roll(len).await?;
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
        let failed = |doing: &'static str| {
            let path = files::path(&self.shared.dir, sequence);
            move |source| Error::Io { context: format!("could not {doing} file \"{path}\""), source }
        };
        self.shared.disk.write_at(file, end, self.buffer.take()).await.map_err(failed("write"))?;
        let begin = Instant::now();
        self.shared.disk.sync(file).await.map_err(failed("sync"))?;
        let sync_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.active.marked = end;
        self.active.end += len;
        let mut index = self.shared.index.lock();
        index.statistics.syncs += 1;
        index.statistics.sync_us += sync_us;
        index.statistics.bytes_written += len;
        for (appended, place) in self.appended.drain(..) {
            index.settle(appended, place);
        }
        Ok(())
    }

    /// Begins the next file, with room for a frame of `frame_len`. The buffer is empty.
    pub(super) async fn roll(&mut self, frame_len: u64) -> Result<(), Error> {
        assert_eq!(self.buffer.len(), 0, "frames in the buffer were meant for the old file");
        let (sequence, previous_end) = (self.active.sequence + 1, self.active.end);
        let Shared { disk, dir, .. } = &*self.shared;
        let header_len = files::header_len(&self.written.marks);
        let file_len = self.file_len.max(header_len + frame_len);
        self.active = files::create(disk, dir, sequence, file_len, previous_end, self.written.marks.clone()).await?;
        self.shared.index.lock().files.insert(sequence, self.active.file);
        Ok(())
    }

    /// Removes the files that purging left without use. The purge points are durable by now.
    async fn remove_files(&mut self) -> Result<(), Error> {
        let files: Vec<_> = self.shared.index.lock().files.iter().map(|(sequence, file)| (*sequence, *file)).collect();
        let removable = self.written.removable(files.iter().map(|(sequence, _)| *sequence), self.active.sequence);
        for (sequence, file) in files.into_iter().take(removable.len()) {
            self.shared.index.lock().files.remove(&sequence);
            files::remove(&self.shared.disk, &self.shared.dir, file, sequence).await?;
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

/// The same error for one more listener.
fn repeat(error: &Error) -> io::Error {
    match error {
        Error::Io { source, .. } => io::Error::new(source.kind(), error.to_string()),
        other => io::Error::other(other.to_string()),
    }
}
