//! The log's files: their names, and how one comes into being.
//!
//! A file gets its length and header under a temporary name and its real name when these are synced, so that whatever
//! has the real name has a good header, or is damaged.

use std::collections::BTreeMap;
use std::sync::Arc;

use event::GroupId;

use super::header::{FileHeader, GroupMarks};
use crate::disk::{FileId, OpenMode};
use crate::{Disk, Error};

const SUFFIX: &str = ".log";
const UNFINISHED_SUFFIX: &str = ".new";

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

/// Creates a file, durably.
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
        disk.set_len(file, header.file_len).await?;
        disk.write_at(file, 0, vec![header.encode()]).await?;
        disk.sync(file).await?;
        disk.rename(&unfinished, &path).await?;
        disk.sync_dir(dir).await?;
        Ok(file)
    };
    let file =
        written.await.map_err(|source| Error::Io { context: format!("could not create file \"{path}\""), source })?;
    Ok(Active { sequence, file, file_len: header.file_len, end: begin, marked: begin })
}

/// Removes files that nobody needs any more, oldest first, each durably: a gap would look like a lost file.
pub(super) async fn remove(disk: &Arc<dyn Disk>, dir: &str, file: FileId, sequence: u64) -> Result<(), Error> {
    let path = path(dir, sequence);
    let removed = async {
        disk.close(file).await?;
        disk.remove(&path).await?;
        disk.sync_dir(dir).await
    };
    removed.await.map_err(|source| Error::Io { context: format!("could not remove file \"{path}\""), source })
}
