//! The log's files: their names, how one comes into being, and what becomes of one that nobody needs.
//!
//! A file gets its length and header under a temporary name and its real name when these are synced, so that whatever
//! has the real name has a good header, or is damaged. Beyond the files in use there are spares: their room on the disk is
//! reserved before a frame needs it. They are new, or old files whose records were purged; what such a file holds of its old life
//! names another sequence number and is free space (architecture, D18).

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use event::GroupId;

use super::header::{FileHeader, GroupMarks};
use crate::disk::{FileId, OpenMode};
use crate::{Disk, Error};

const SUFFIX: &str = ".log";
const UNFINISHED_SUFFIX: &str = ".new";
const SPARE_SUFFIX: &str = ".spare";
/// A spare that was never in use; created only while there is none at all.
const NEW_SPARE: &str = "new.spare";

/// The file being written.
#[derive(Debug)]
pub(super) struct Active {
    /// Its sequence number.
    pub(super) sequence: u64,
    /// The open file.
    pub(super) file: FileId,
    /// How long it is.
    pub(super) file_len: u64,
    /// Where its frames end so far; all before is synced.
    pub(super) end: u64,
    /// Offset up to which frames in it prove that it was synced.
    pub(super) marked: u64,
    /// Offset up to which its blocks were written, in this life of the file or an earlier one; what lies behind is only reserved.
    pub(super) written: u64,
}

/// A file that will be used next; its bytes mean nothing.
#[derive(Clone, Debug)]
pub(super) struct Spare {
    /// Where it lies.
    path: String,
    /// The open file.
    pub(super) file: FileId,
    /// How long it is.
    pub(super) file_len: u64,
    /// Whether it was a file of the log before, so that its blocks were written.
    is_used: bool,
}

/// Path of the file with this sequence number.
pub(super) fn path(dir: &str, sequence: u64) -> String {
    format!("{dir}/{sequence:010}{SUFFIX}")
}

fn sequence(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    if digits.len() < 10 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Makes the directory sure, removes unfinished files, and lists the others, which must be consecutive.
pub(super) async fn tidy(disk: &Arc<dyn Disk>, dir: &str) -> Result<Vec<u64>, Error> {
    let failed = |source| Error::Io { context: format!("could not read directory \"{dir}\""), source };
    disk.create_dir_all(dir).await.map_err(failed)?;
    let mut sequences = Vec::new();
    for entry in disk.list(dir).await.map_err(failed)? {
        if let Some(sequence) = sequence(&entry.name) {
            sequences.push(sequence);
        } else if entry.name.ends_with(SPARE_SUFFIX) {
            // Taken or removed by `adopt_spares`.
        } else if entry.name.ends_with(UNFINISHED_SUFFIX) {
            disk.remove(&format!("{dir}/{}", entry.name)).await.map_err(failed)?;
        } else {
            tracing::warn!(file = entry.name, "a file in the log's directory is not the log's");
        }
    }
    // The process before may have died between a rename and the sync after it.
    disk.sync_dir(dir).await.map_err(failed)?;
    sequences.sort_unstable();
    for pair in sequences.windows(2) {
        if pair[1] != pair[0] + 1 {
            let reason = "the file is missing, while older and newer ones are there".to_owned();
            return Err(Error::Corrupt { file: path(dir, pair[0] + 1), offset: 0, reason });
        }
    }
    Ok(sequences)
}

/// Bytes of the header of a file begun now.
pub(super) fn header_len(groups: &BTreeMap<GroupId, GroupMarks>) -> u64 {
    FileHeader { sequence: 0, file_len: 0, previous_end: 0, groups: groups.clone() }.encoded_len()
}

/// Makes the names of the log's files durable, and with them what [`create`], [`begin`], [`recycle`] and [`remove`] did. It can be
/// called again after it found no room, unlike those.
pub(super) async fn sync_names(disk: &Arc<dyn Disk>, dir: &str) -> Result<(), Error> {
    let synced = disk.sync_dir(dir).await;
    synced.map_err(|source| Error::Io { context: format!("could not sync directory \"{dir}\""), source })
}

/// Creates a file; durable with its name. Nothing is left when that fails.
pub(super) async fn create(
    disk: &Arc<dyn Disk>,
    dir: &str,
    sequence: u64,
    file_len: u64,
    previous_end: u64,
    groups: BTreeMap<GroupId, GroupMarks>,
) -> Result<Active, Error> {
    let header = FileHeader { sequence, file_len, previous_end, groups };
    let begin = header.encoded_len();
    let header = FileHeader { file_len: file_len.max(begin), ..header };
    let path = path(dir, sequence);
    let unfinished = format!("{dir}/{sequence:010}{UNFINISHED_SUFFIX}");
    let written = async {
        let file = disk.open(&unfinished, OpenMode::CreateNew).await?;
        let finished = async {
            disk.set_len(file, header.file_len).await?;
            disk.write_at(file, 0, vec![header.encode()]).await?;
            disk.sync(file).await?;
            disk.rename(&unfinished, &path).await
        };
        if let Err(error) = finished.await {
            // Room for others, and for the next try.
            disk.close(file).await?;
            disk.remove(&unfinished).await?;
            return Err(error);
        }
        Ok(file)
    };
    let file =
        written.await.map_err(|source| Error::Io { context: format!("could not create file \"{path}\""), source })?;
    Ok(Active { sequence, file, file_len: header.file_len, end: begin, marked: begin, written: begin })
}

/// Makes the spare the file of this sequence number; durable with its name. Its old content stays behind the header.
pub(super) async fn begin(
    disk: &Arc<dyn Disk>,
    dir: &str,
    sequence: u64,
    Spare { path: old_path, file, file_len, is_used }: Spare,
    previous_end: u64,
    groups: BTreeMap<GroupId, GroupMarks>,
) -> Result<Active, Error> {
    let header = FileHeader { sequence, file_len, previous_end, groups };
    let begin = header.encoded_len();
    assert!(begin <= file_len, "a spare was chosen that has room for the header");
    let path = path(dir, sequence);
    let begun = async {
        disk.write_at(file, 0, vec![header.encode()]).await?;
        disk.sync(file).await?;
        disk.rename(&old_path, &path).await
    };
    begun.await.map_err(|source| Error::Io { context: format!("could not begin file \"{path}\""), source })?;
    let written = if is_used { file_len } else { begin };
    Ok(Active { sequence, file, file_len, end: begin, marked: begin, written })
}

/// The spares a process before left, when they have that length, at most `count`; others are removed.
pub(super) async fn adopt_spares(
    disk: &Arc<dyn Disk>,
    dir: &str,
    file_len: u64,
    count: usize,
) -> Result<VecDeque<Spare>, Error> {
    let adopted = async {
        let mut spares = VecDeque::new();
        for entry in disk.list(dir).await?.into_iter().filter(|entry| entry.name.ends_with(SPARE_SUFFIX)) {
            let path = format!("{dir}/{}", entry.name);
            if entry.len == file_len && spares.len() < count {
                let file = disk.open(&path, OpenMode::Write).await?;
                spares.push_back(Spare { path, file, file_len, is_used: entry.name != NEW_SPARE });
            } else {
                disk.remove(&path).await?;
            }
        }
        Ok(spares)
    };
    adopted.await.map_err(|source| Error::Io { context: format!("could not open spare files in \"{dir}\""), source })
}

/// Creates a spare and reserves its room. Nothing is left when there is none. Durable only once it is begun.
pub(super) async fn create_spare(disk: &Arc<dyn Disk>, dir: &str, file_len: u64) -> Result<Spare, Error> {
    let path = format!("{dir}/{NEW_SPARE}");
    let created = async {
        let file = disk.open(&path, OpenMode::CreateNew).await?;
        if let Err(error) = disk.set_len(file, file_len).await {
            disk.close(file).await?;
            disk.remove(&path).await?;
            return Err(error);
        }
        Ok(file)
    };
    let created: io::Result<FileId> = created.await;
    match created {
        Ok(file) => Ok(Spare { path, file, file_len, is_used: false }),
        Err(source) => Err(Error::Io { context: format!("could not create file \"{path}\""), source }),
    }
}

/// Makes a file that nobody needs any more a spare; only once that is durable may its bytes be overwritten.
pub(super) async fn recycle(
    disk: &Arc<dyn Disk>,
    dir: &str,
    file: FileId,
    sequence: u64,
    file_len: u64,
) -> Result<Spare, Error> {
    let path = path(dir, sequence);
    let spare = format!("{dir}/{sequence:010}{SPARE_SUFFIX}");
    match disk.rename(&path, &spare).await {
        Ok(()) => Ok(Spare { path: spare, file, file_len, is_used: true }),
        Err(source) => Err(Error::Io { context: format!("could not recycle file \"{path}\""), source }),
    }
}

/// Removes a file that nobody needs any more, the oldest one; to be durable before the next goes: a gap would look like a lost file.
pub(super) async fn remove(disk: &Arc<dyn Disk>, dir: &str, file: FileId, sequence: u64) -> Result<(), Error> {
    let path = path(dir, sequence);
    disk.release(file);
    let removed = disk.remove(&path).await;
    removed.map_err(|source| Error::Io { context: format!("could not remove file \"{path}\""), source })
}
