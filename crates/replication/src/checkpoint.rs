//! The file of a checkpoint, which is the Raft snapshot: a header, what Raft needs, the machine's state.
//!
//! ```text
//! 0   document "ANNALGRP" (see docs/formats.md) whose JSON is CheckpointMeta
//! ..  state, to the end of the file, with length and checksum as the JSON says
//! ```
//! A checkpoint replaces the one before by rename, after file and directory are synced.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use event::{GroupId, mutants};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use storage::disk::OpenMode;
use storage::document::{decode_document, encode_document};
use storage::{Disk, Error};
use tokio::sync::Mutex;

use crate::sessions::Sessions;
use crate::types::{LogId, SnapshotMeta, StoredMembership};

const MAGIC: &[u8; 8] = b"ANNALGRP";
const VERSION: u16 = 1;
/// A document's header ends here; the length of what follows stands at `LENGTH_AT`.
const HEADER_BYTES: usize = 20;
const LENGTH_AT: usize = 12;
/// Between two tries on a full disk.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// The JSON part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CheckpointMeta {
    pub(crate) group: GroupId,
    /// The last entry contained.
    pub(crate) last: LogId,
    pub(crate) membership: StoredMembership,
    /// The proposer's time of the last entry contained that had one.
    pub(crate) time_us: i64,
    /// The remembered statements, in JSON of their own: the outcomes are the machine's.
    #[serde(default)]
    sessions: String,
    state_bytes: u64,
    state_checksum: u32,
}

impl CheckpointMeta {
    /// The remembered statements; none in files of before there were any.
    pub(crate) fn sessions<O: DeserializeOwned>(&self) -> Result<Sessions<O>, Error> {
        if self.sessions.is_empty() {
            return Ok(Sessions::default());
        }
        let damaged = |e: serde_json::Error| Error::Decode { what: "remembered statements", reason: e.to_string() };
        serde_json::from_str(&self.sessions).map_err(damaged)
    }
}

/// A checkpoint, whole.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    pub(crate) meta: CheckpointMeta,
    pub(crate) state: Bytes,
}

impl Checkpoint {
    pub(crate) fn new<O: Serialize>(
        group: GroupId,
        last: LogId,
        membership: StoredMembership,
        time_us: i64,
        sessions: &Sessions<O>,
        state: Bytes,
    ) -> Self {
        let (state_bytes, state_checksum) = (state.len() as u64, crc32c::crc32c(&state));
        let sessions = serde_json::to_string(sessions).expect("outcomes have JSON forms");
        let meta = CheckpointMeta { group, last, membership, time_us, sessions, state_bytes, state_checksum };
        Self { meta, state }
    }

    /// What Raft calls the metadata of a snapshot.
    pub(crate) fn snapshot_meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: Some(self.meta.last), last_membership: self.meta.membership.clone() }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let document = encode_document(MAGIC, VERSION, &self.meta);
        let mut bytes = document.expect("checkpoint metadata is small and has only string keys");
        bytes.extend_from_slice(&self.state);
        bytes.into()
    }

    /// Reads what [`Checkpoint::encode`] wrote; `file` is named when it does not fit.
    pub(crate) fn decode(file: &str, bytes: &Bytes) -> Result<Checkpoint, Error> {
        let damaged =
            |offset: usize, reason: String| Error::Corrupt { file: file.to_owned(), offset: offset as u64, reason };
        let length = bytes.get(LENGTH_AT..HEADER_BYTES).ok_or_else(|| damaged(0, "shorter than its header".into()))?;
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let end = HEADER_BYTES + length;
        let document = bytes.get(..end).ok_or_else(|| damaged(LENGTH_AT, "cut off".into()))?;
        let meta: CheckpointMeta = decode_document(MAGIC, VERSION, document).map_err(|e| damaged(0, e.to_string()))?;
        let state = bytes.slice(end..);
        if state.len() as u64 != meta.state_bytes || crc32c::crc32c(&state) != meta.state_checksum {
            return Err(damaged(end, "the state has the wrong length or checksum".into()));
        }
        Ok(Checkpoint { meta, state })
    }
}

/// Where the checkpoint of one group lies.
#[derive(Clone, Debug)]
pub(crate) struct CheckpointFile {
    disk: Arc<dyn Disk>,
    dir: String,
    name: String,
    tmp: String,
    room: Room,
    /// Last index of the newest one written since the group was opened. Held while one is written: a snapshot may arrive while the group's own
    /// checkpoint, captured before, is still on its way to the disk.
    newest: Arc<Mutex<Option<u64>>>,
}

/// Whether a checkpoint waits for room on the disk, and whether it shall.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room {
    missing: Arc<AtomicBool>,
    given_up: Arc<AtomicBool>,
}

impl Room {
    pub(crate) fn is_missing(&self) -> bool {
        self.missing.load(Ordering::SeqCst)
    }

    /// From now on no checkpoint waits for room.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::SeqCst);
    }
}

impl CheckpointFile {
    /// `dir`/`group`, written first as a file in `tmp_dir`; both directories must exist.
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &str, tmp_dir: &str, group: GroupId) -> Self {
        Self {
            disk,
            dir: dir.to_owned(),
            name: format!("{dir}/{group}"),
            tmp: format!("{tmp_dir}/checkpoint-{group}"),
            room: Room::default(),
            newest: Arc::default(),
        }
    }

    pub(crate) fn room(&self) -> Room {
        self.room.clone()
    }

    /// The checkpoint that a process before has left, durable from now on: that one may have ended between the rename and the sync after it, and
    /// what a checkpoint contains is purged from the log.
    pub(crate) async fn recover(&self) -> Result<Option<Checkpoint>, Error> {
        self.disk.sync_dir(&self.dir).await.map_err(|e| self.error("recover", e))?;
        self.read().await
    }

    /// The checkpoint, `None` when none was ever written.
    pub(crate) async fn read(&self) -> Result<Option<Checkpoint>, Error> {
        match self.read_bytes().await {
            Ok(bytes) => Checkpoint::decode(&self.name, &bytes).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.error("read", e)),
        }
    }

    async fn read_bytes(&self) -> io::Result<Bytes> {
        let file = self.disk.open(&self.name, OpenMode::Read).await?;
        let len = self.disk.len(file).await?;
        let bytes = self.disk.read_at(file, 0, usize::try_from(len).map_err(io::Error::other)?).await;
        self.disk.close(file).await?;
        bytes
    }

    /// Puts `bytes`, which are the checkpoint of `index`, in the place of the one before, unless that is newer: what the newer one contains may be
    /// purged already. Durable when this returns. Waits while the disk is full, unless that was given up.
    pub(crate) async fn write(&self, index: u64, bytes: Bytes) -> Result<(), Error> {
        loop {
            let written = self.replace_older(index, bytes.clone()).await.map_err(|e| self.error("write", e));
            let full = written.as_ref().is_err_and(Error::is_disk_full);
            if self.room.missing.swap(full, Ordering::SeqCst) != full && full {
                tracing::error!(file = self.name, "no room for a checkpoint; trying again until there is");
            }
            if !full || self.room.given_up.load(Ordering::SeqCst) {
                return written;
            }
            tokio::time::sleep(FULL_RETRY).await;
        }
    }

    async fn replace_older(&self, index: u64, bytes: Bytes) -> io::Result<()> {
        let mut newest = self.newest.lock().await;
        if newest.is_none_or(|newest| newest < index) {
            self.replace(bytes).await?;
            *newest = Some(index);
        }
        Ok(())
    }

    async fn replace(&self, bytes: Bytes) -> io::Result<()> {
        match self.disk.remove(&self.tmp).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = self.disk.open(&self.tmp, OpenMode::CreateNew).await?;
        let written = async {
            self.disk.write_at(file, 0, vec![bytes]).await?;
            if mutants::is_back("torn snapshot") {
                return Ok(());
            }
            self.disk.sync(file).await
        };
        let written = written.await;
        self.disk.close(file).await?;
        if let Err(error) = written {
            // Room for others, and for the next try.
            self.disk.remove(&self.tmp).await?;
            return Err(error);
        }
        self.disk.rename(&self.tmp, &self.name).await?;
        if mutants::is_back("directory not synced") {
            return Ok(());
        }
        self.disk.sync_dir(&self.dir).await
    }

    fn error(&self, verb: &str, source: io::Error) -> Error {
        Error::Io { context: format!("could not {verb} file \"{}\"", self.name), source }
    }
}

/// The machine's part of a snapshot that travels, for one who must prepare for it before Raft installs it.
///
/// # Errors
/// [`Error::Corrupt`] when the bytes are no checkpoint.
pub fn snapshot_state(snapshot: &Bytes) -> Result<Bytes, Error> {
    Checkpoint::decode("the snapshot received", snapshot).map(|checkpoint| checkpoint.state)
}

/// The last entry that a snapshot contains.
///
/// # Errors
/// [`Error::Corrupt`] when the bytes are no checkpoint.
pub fn snapshot_index(snapshot: &Bytes) -> Result<u64, Error> {
    Checkpoint::decode("the snapshot received", snapshot).map(|checkpoint| checkpoint.meta.last.index)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use event::GroupId;
    use openraft::Membership;
    use storage::disk::Frozen;
    use storage::{Disk, SimulatedDisk};

    use super::{Checkpoint, CheckpointFile};
    use crate::sessions::Sessions;
    use crate::types::{LeaderId, LogId, StoredMembership};

    fn checkpoint(index: u64) -> Checkpoint {
        let last = LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index };
        let membership = StoredMembership::new(None, Membership::default());
        Checkpoint::new(GroupId(2), last, membership, 0, &Sessions::<u64>::default(), Bytes::from_static(b"state"))
    }

    #[tokio::test]
    async fn a_snapshot_that_arrives_stays_when_an_older_checkpoint_is_finished_after_it() -> Result<(), storage::Error>
    {
        let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new(1));
        for dir in ["groups", "tmp"] {
            disk.create_dir_all(dir).await.expect("a new disk has room");
        }
        let file = CheckpointFile::new(disk, "groups", "tmp", GroupId(2));
        let (own, arrived) = (checkpoint(39).encode(), checkpoint(60).encode());
        let own_file = file.clone();
        let (first, second) = tokio::join!(file.write(60, arrived), own_file.write(39, own));
        first.and(second)?;
        assert_eq!(file.read().await?.map(|checkpoint| checkpoint.meta.last.index), Some(60));
        file.write(61, checkpoint(61).encode()).await?;
        assert_eq!(file.read().await?.map(|checkpoint| checkpoint.meta.last.index), Some(61));
        Ok(())
    }
    #[tokio::test]
    async fn a_checkpoint_that_is_found_stays_whether_its_rename_was_synced_or_not() -> Result<(), storage::Error> {
        for seed in 0..16 {
            let first = Arc::new(SimulatedDisk::new(seed));
            for dir in ["groups", "tmp"] {
                first.create_dir_all(dir).await.expect("a new disk has room");
            }
            let file = |disk: &Arc<SimulatedDisk>| {
                let disk: Arc<dyn Disk> = disk.clone();
                CheckpointFile::new(disk, "groups", "tmp", GroupId(2))
            };
            file(&first).write(39, checkpoint(39).encode()).await?;
            // The file is synced, and then its directory is not.
            first.freeze_at_sync(first.syncs() + 2, Frozen::Fail);
            let failed = file(&first).write(60, checkpoint(60).encode()).await;
            assert!(failed.is_err(), "{failed:?}");

            let second = Arc::new(first.restart(seed));
            let found = file(&second).recover().await?.map(|checkpoint| checkpoint.meta.last.index);
            assert_eq!(found, Some(60));
            let third = Arc::new(second.crash(seed));
            assert_eq!(file(&third).recover().await?.map(|checkpoint| checkpoint.meta.last.index), found);
        }
        Ok(())
    }
}
