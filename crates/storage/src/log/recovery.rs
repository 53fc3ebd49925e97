//! Opening the log: reading all files back, telling a tail the crash tore from damage.
//!
//! A file's end is known from the header of the next one; a bad frame before it is damage. In the last file the first bad
//! frame is damage when a later frame was written in the knowledge that the place was synced, and else the torn tail.
//! A torn tail is left where it is and a new file begun, whose header says where the old one ends, so that left-overs
//! behind the cut never come back to life.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use event::mutants;

use super::files::{self, Active};
use super::frame::{self, FRAME_ALIGNMENT, FRAME_HEADER_BYTES, Frame, Place};
use super::header::{FileHeader, PREFIX_BYTES};
use super::index::{Index, Written};
use crate::disk::{FileId, OpenMode};
use crate::{Disk, Error};

/// Bytes read at once.
const SCAN_BYTES: u64 = 1 << 20;
/// Zeros to compare with.
static ZEROS: [u8; 4096] = [0; 4096];

/// What was found.
#[derive(Debug)]
pub(super) struct Recovered {
    /// All records and marks.
    pub(super) index: Index,
    /// The same by file.
    pub(super) written: Written,
    /// The file to go on in.
    pub(super) active: Active,
    /// Whether the rest of that file holds left-overs, so that a new one must be begun before the first write.
    pub(super) torn: bool,
}

/// Reads everything below `dir`. `None` when there is no log yet.
pub(super) async fn recover(disk: &Arc<dyn Disk>, dir: &str) -> Result<Option<Recovered>, Error> {
    let sequences = files::tidy(disk, dir).await?;
    let mut index = Index::default();
    let mut written = Written::default();
    let mut scans = Vec::new();
    for sequence in sequences {
        scans.push(Scan::open(disk, dir, sequence).await?);
    }
    let ends: Vec<u64> = scans.iter().skip(1).map(|scan| scan.header.previous_end).collect();
    let mut active = None;
    for (at, mut scan) in scans.into_iter().enumerate() {
        if at == 0 {
            adopt_header(&scan.header, &mut index, &mut written);
        } else if scan.header.groups != written.marks {
            return Err(scan.corrupt(0, "its header does not agree with the files before"));
        }
        let tail = scan.replay(&mut index, &mut written, ends.get(at).copied()).await?;
        index.files.insert(scan.header.sequence, scan.file);
        active = Some((scan, tail));
    }
    let Some((mut scan, tail)) = active else { return Ok(None) };
    for (group, state) in &index.groups {
        state.check_complete().map_err(|reason| scan.corrupt(0, &format!("group {group}: {reason}")))?;
    }
    let torn = scan.has_left_overs(tail.end).await?;
    scan.make_durable(tail.marked, tail.end).await?;
    let active = Active {
        sequence: scan.header.sequence,
        file: scan.file,
        file_len: scan.header.file_len,
        end: tail.end,
        marked: tail.marked,
        written: tail.end,
    };
    Ok(Some(Recovered { index, written, active, torn }))
}

fn adopt_header(header: &FileHeader, index: &mut Index, written: &mut Written) {
    written.marks = header.groups.clone();
    for (group, marks) in &header.groups {
        index.groups.entry(*group).or_default().marks = marks.clone();
    }
}

/// Where a file's frames end.
struct Tail {
    end: u64,
    /// Offset up to which frames prove that the file was synced.
    marked: u64,
}

/// A file being read from front to back.
struct Scan {
    disk: Arc<dyn Disk>,
    path: String,
    file: FileId,
    header: FileHeader,
    /// What was read last, and from where.
    window: (u64, Bytes),
}

impl Scan {
    async fn open(disk: &Arc<dyn Disk>, dir: &str, sequence: u64) -> Result<Scan, Error> {
        let path = files::path(dir, sequence);
        let failed = |source| read_error(&path, source);
        let corrupt = |reason: String| Error::Corrupt { file: path.clone(), offset: 0, reason };
        let file = disk.open(&path, OpenMode::Write).await.map_err(failed)?;
        let len = disk.len(file).await.map_err(failed)?;
        if len < PREFIX_BYTES as u64 {
            return Err(corrupt("it is too short for a header".to_owned()));
        }
        let prefix = disk.read_at(file, 0, PREFIX_BYTES).await.map_err(failed)?;
        let header_len = FileHeader::announced_len(&prefix).map_err(corrupt)?;
        if len < header_len {
            return Err(corrupt("it is too short for its header".to_owned()));
        }
        let header = disk.read_at(file, 0, header_len as usize).await.map_err(failed)?;
        let header = FileHeader::decode(&header).map_err(corrupt)?;
        if header.sequence != sequence {
            return Err(corrupt(format!("its header is of file {}", header.sequence)));
        }
        if len < header.file_len {
            return Err(Error::Corrupt { file: path, offset: len, reason: "the file was cut short".to_owned() });
        }
        Ok(Scan { disk: disk.clone(), path, file, header, window: (0, Bytes::new()) })
    }

    fn corrupt(&self, offset: u64, reason: &str) -> Error {
        Error::Corrupt { file: self.path.clone(), offset, reason: reason.to_owned() }
    }

    /// `len` bytes at `offset`, which lie within the file.
    async fn bytes(&mut self, offset: u64, len: u64) -> Result<Bytes, Error> {
        let (base, window) = &self.window;
        if offset < *base || offset + len > base + window.len() as u64 {
            let wanted = len.max(SCAN_BYTES).min(self.header.file_len - offset);
            let read = self.disk.read_at(self.file, offset, wanted as usize).await;
            self.window = (offset, read.map_err(|source| read_error(&self.path, source))?);
        }
        let (base, window) = &self.window;
        let start = (offset - base) as usize;
        Ok(window.slice(start..start + len as usize))
    }

    /// The frame at `offset` and its length, if a good one is there.
    async fn frame(&mut self, offset: u64) -> Result<Option<(Frame, u64)>, Error> {
        let place = Place { file: self.header.sequence, offset };
        if offset + FRAME_HEADER_BYTES as u64 > self.header.file_len {
            return Ok(None);
        }
        let head = self.bytes(offset, FRAME_HEADER_BYTES as u64).await?;
        let Some(len) = frame::announced_len(&head, place) else { return Ok(None) };
        if offset + len > self.header.file_len {
            return Ok(None);
        }
        let whole = self.bytes(offset, len).await?;
        Ok(frame::decode(&whole, place).map(|frame| (frame, len)))
    }

    /// Reads the frames up to `end`, or up to the torn tail when that is not known.
    async fn replay(&mut self, index: &mut Index, written: &mut Written, end: Option<u64>) -> Result<Tail, Error> {
        let begin = self.header.encoded_len();
        let mut tail = Tail { end: begin, marked: begin };
        while end.is_none_or(|end| tail.end < end) {
            let Some((frame, len)) = self.frame(tail.end).await? else {
                match end {
                    Some(_) => return Err(self.corrupt(tail.end, "the frame is not what was written")),
                    None => break,
                }
            };
            let place = Place { file: self.header.sequence, offset: tail.end };
            if !matches!(frame.change, frame::Change::Mark) {
                let group = index.groups.entry(frame.group).or_default();
                group.replay(place, &frame.change).map_err(|reason| self.corrupt(tail.end, &reason))?;
                written.apply(place.file, frame.group, &frame.change);
            }
            tail.marked = tail.marked.max(frame.synced);
            tail.end += len;
        }
        match end {
            Some(end) if end != tail.end => {
                Err(self.corrupt(end, "a frame reaches beyond the end of the file's frames"))
            }
            Some(_) => Ok(tail),
            None => self.refuse_damage(tail.end).await.map(|()| tail),
        }
    }

    /// Fails when a frame behind the bad one at `bad` was written after that was synced.
    async fn refuse_damage(&mut self, bad: u64) -> Result<(), Error> {
        if mutants::is_back("rot taken for a torn tail") {
            return Ok(());
        }
        let mut offset = bad + FRAME_ALIGNMENT;
        while offset + FRAME_HEADER_BYTES as u64 <= self.header.file_len {
            let rest = (self.header.file_len - offset).min(SCAN_BYTES);
            let chunk = self.bytes(offset, rest).await?;
            for at in candidates(&chunk, self.header.sequence, offset) {
                if let Some((frame, _)) = self.frame(at).await?
                    && frame.synced > bad
                {
                    return Err(self.corrupt(bad, "the frame is not what was written and synced"));
                }
            }
            offset += step(rest);
        }
        Ok(())
    }

    /// Whether anything from `offset` on looks like the front of a frame of this life of the file. Nothing else can ever be
    /// taken for one, whatever is written before it.
    async fn has_left_overs(&mut self, mut offset: u64) -> Result<bool, Error> {
        while offset + FRAME_HEADER_BYTES as u64 <= self.header.file_len {
            let rest = (self.header.file_len - offset).min(SCAN_BYTES);
            let chunk = self.bytes(offset, rest).await?;
            if !candidates(&chunk, self.header.sequence, offset).is_empty() {
                return Ok(true);
            }
            offset += step(rest);
        }
        Ok(false)
    }

    /// Writes what may never have been synced once more and syncs it. Merely syncing is not enough: when a sync of the
    /// process before failed, the system may hold the bytes in memory and believe them written.
    async fn make_durable(&mut self, from: u64, to: u64) -> Result<(), Error> {
        let failed = |source| Error::Io { context: format!("could not write file \"{}\"", self.path), source };
        let mut offset = from;
        while offset < to {
            let len = (to - offset).min(SCAN_BYTES);
            let bytes = self.disk.read_at(self.file, offset, len as usize).await.map_err(failed)?;
            self.disk.write_at(self.file, offset, vec![bytes]).await.map_err(failed)?;
            offset += len;
        }
        self.disk.sync(self.file).await.map_err(failed)
    }
}

/// How far to go on from the beginning of a chunk: the last header in it may reach into the next.
fn step(chunk: u64) -> u64 {
    chunk.saturating_sub(FRAME_HEADER_BYTES as u64).next_multiple_of(FRAME_ALIGNMENT).max(FRAME_ALIGNMENT)
}

/// Offsets in a chunk that begins at `base` where a frame's header says it was written for this very file and offset.
fn candidates(chunk: &[u8], file: u64, base: u64) -> Vec<u64> {
    let mut found = Vec::new();
    let mut at = 0;
    while at + FRAME_HEADER_BYTES <= chunk.len() {
        // Most of a file that is not full yet is zero.
        if at + ZEROS.len() <= chunk.len() && is_zero(&chunk[at..at + ZEROS.len()]) {
            at += ZEROS.len() - FRAME_HEADER_BYTES;
            continue;
        }
        let offset = base + at as u64;
        if chunk[at + 16..at + 24] == offset.to_le_bytes() && chunk[at + 8..at + 16] == file.to_le_bytes() {
            found.push(offset);
        }
        at += FRAME_ALIGNMENT as usize;
    }
    found
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(ZEROS.len()).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

fn read_error(path: &str, source: io::Error) -> Error {
    Error::Io { context: format!("could not read file \"{path}\""), source }
}
