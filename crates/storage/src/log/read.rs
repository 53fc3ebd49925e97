//! Reading records: recent ones from memory, others from their files, neighbours with one call.

use std::ops::Range;

use event::GroupId;
use event::limits::LOG_READ_BYTES_MAX;

use super::frame::{self, Change, Place};
use super::index::Located;
use super::{LogRecord, Shared, files};
use crate::Error;
use crate::disk::FileId;

/// Bytes of other groups between two records that are read along rather than skipped with another call.
const GAP_BYTES_MAX: u64 = 64 << 10;

/// A run of records of one file, to be read with one call.
struct Run {
    file: FileId,
    sequence: u64,
    begin: u64,
    end: u64,
    /// (index, what the index in memory says)
    records: Vec<(u64, Located)>,
}

/// Where records come from.
enum Piece {
    Memory(LogRecord),
    File(Run),
}

/// See [`super::Log::read`].
pub(super) async fn read(
    shared: &Shared,
    group: GroupId,
    range: Range<u64>,
    bytes_max: usize,
) -> Result<Vec<LogRecord>, Error> {
    let mut records = Vec::new();
    for piece in plan(shared, group, range, bytes_max) {
        match piece {
            Piece::Memory(record) => records.push(record),
            Piece::File(run) => match read_run(shared, group, &run).await {
                Ok(read) => records.extend(read),
                // Purged, and the file removed, in the meantime: as if this had been asked after that.
                Err(_) if run.records.iter().any(|(index, _)| is_purged(shared, group, *index)) => {
                    return Ok(Vec::new());
                }
                Err(error) => return Err(error),
            },
        }
    }
    Ok(records)
}

fn plan(shared: &Shared, group: GroupId, range: Range<u64>, bytes_max: usize) -> Vec<Piece> {
    let index = shared.index.lock();
    let Some(state) = index.groups.get(&group) else { return Vec::new() };
    let mut pieces = Vec::new();
    let mut bytes = 0;
    for at in range {
        let Some(record) = state.get(at) else { break };
        match (&record.payload, record.place) {
            (Some(payload), _) => {
                let payload = payload.clone();
                pieces.push(Piece::Memory(LogRecord { index: at, term: record.term, kind: record.kind, payload }));
            }
            (None, Some(place)) => {
                let file = *index.files.get(&place.file).expect("a file with a live record is open");
                add_to_runs(&mut pieces, file, at, place, record);
            }
            (None, None) => unreachable!("a record that is not written yet is in memory"),
        }
        bytes += record.len as usize;
        if bytes > bytes_max {
            break;
        }
    }
    pieces
}

fn add_to_runs(pieces: &mut Vec<Piece>, file: FileId, index: u64, place: Place, record: &Located) {
    let end = place.offset + frame::frame_len(record.len as usize);
    let record = (index, record.clone());
    if let Some(Piece::File(run)) = pieces.last_mut()
        && run.sequence == place.file
        && place.offset <= run.end + GAP_BYTES_MAX
        && end - run.begin <= LOG_READ_BYTES_MAX as u64
    {
        run.end = end;
        run.records.push(record);
        return;
    }
    pieces.push(Piece::File(Run { file, sequence: place.file, begin: place.offset, end, records: vec![record] }));
}

async fn read_run(shared: &Shared, group: GroupId, run: &Run) -> Result<Vec<LogRecord>, Error> {
    let path = files::path(&shared.dir, run.sequence);
    let failed = |source| Error::Io { context: format!("could not read file \"{path}\""), source };
    let bytes = shared.disk.read_at(run.file, run.begin, (run.end - run.begin) as usize).await.map_err(failed)?;
    let mut records = Vec::with_capacity(run.records.len());
    for (index, located) in &run.records {
        let place = located.place.expect("records of a run are written");
        let frame = frame::decode(&bytes.slice((place.offset - run.begin) as usize..), place);
        match frame {
            Some(frame::Frame { group: found, change: Change::Append(record), .. })
                if found == group && record.index == *index && record.term == located.term =>
            {
                records.push(record);
            }
            _ => {
                let reason = format!("it is not record {index} of group {group}");
                return Err(Error::Corrupt { file: path, offset: place.offset, reason });
            }
        }
    }
    Ok(records)
}

fn is_purged(shared: &Shared, group: GroupId, index: u64) -> bool {
    let index_of_purge = shared.index.lock().groups.get(&group).and_then(|state| state.marks.purged);
    index_of_purge.is_some_and(|(purged, _)| index <= purged)
}
