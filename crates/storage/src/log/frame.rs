//! Frames: what a log file consists of after its header. `docs/formats.md` draws the layout.
//!
//! Every byte of a frame is under its checksum. A frame names the file and offset it was written for, so that left-over
//! bytes of another life of the file never pass for it, and the offset up to which its file was known synced when it was
//! written, so that damage below can be told from a tail the crash tore (architecture, D18).

use bytes::{BufMut, Bytes, BytesMut};
use event::GroupId;

use super::LogRecord;

/// Bytes before the payload.
pub(super) const FRAME_HEADER_BYTES: usize = 72;
/// Frames begin at multiples of this.
pub(super) const FRAME_ALIGNMENT: u64 = 8;
/// Payloads from this size on are written from where they lie instead of being copied together.
const COPY_BYTES_MAX: usize = 16 << 10;

/// Where a frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Sequence number of the file.
    pub(super) file: u64,
    /// Offset of the frame in it.
    pub(super) offset: u64,
}

/// What a frame says about its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A record was appended.
    Append(LogRecord),
    /// The vote was saved.
    Vote(Bytes),
    /// The commit position was saved.
    Committed(Bytes),
    /// Records above the index were forgotten; all when `None`.
    Truncate(Option<u64>),
    /// Records up to and including the index were forgotten.
    Purge(u64, [u8; 16]),
    /// Nothing but the synced mark: everything before was synced when the log was closed.
    Mark,
}

/// A frame read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// The group it belongs to.
    pub(super) group: GroupId,
    /// Offset up to which its file was known synced when it was written.
    pub(super) synced: u64,
    /// What it says.
    pub(super) change: Change,
}

impl Change {
    fn code(&self) -> u8 {
        match self {
            Change::Append(_) => 1,
            Change::Vote(_) => 2,
            Change::Committed(_) => 3,
            Change::Truncate(Some(_)) => 4,
            Change::Truncate(None) => 5,
            Change::Purge(..) => 6,
            Change::Mark => 7,
        }
    }

    fn payload(&self) -> &[u8] {
        match self {
            Change::Append(record) => &record.payload,
            Change::Vote(bytes) | Change::Committed(bytes) => bytes,
            Change::Truncate(_) | Change::Purge(..) | Change::Mark => &[],
        }
    }

    /// Bytes of the frame that says this, padding and all.
    pub(super) fn frame_len(&self) -> u64 {
        frame_len(self.payload().len())
    }
}

/// Bytes of a frame with a payload of this many, padding and all.
pub(super) fn frame_len(payload: usize) -> u64 {
    ((FRAME_HEADER_BYTES + payload) as u64).next_multiple_of(FRAME_ALIGNMENT)
}

/// Frames on their way to one write: small ones are copied together, large payloads stay where they are.
#[derive(Debug, Default)]
pub(super) struct FrameBuffer {
    parts: Vec<Bytes>,
    small: BytesMut,
    len: u64,
}

impl FrameBuffer {
    /// Bytes put so far.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Adds the frame of `change`, to be written at `place`.
    pub(super) fn put(&mut self, place: Place, synced: u64, group: GroupId, change: &Change) {
        let (term, index, kind) = match change {
            Change::Append(record) => (record.term, record.index, record.kind),
            Change::Purge(index, term) => (*term, *index, 0),
            Change::Truncate(Some(index)) => ([0; 16], *index, 0),
            _ => ([0; 16], 0, 0),
        };
        let payload = change.payload();
        let length = u32::try_from(payload.len()).expect("payloads were measured when they were accepted");
        let mut checked = [0; FRAME_HEADER_BYTES - 4];
        checked[0..4].copy_from_slice(&length.to_le_bytes());
        checked[4..12].copy_from_slice(&place.file.to_le_bytes());
        checked[12..20].copy_from_slice(&place.offset.to_le_bytes());
        checked[20..28].copy_from_slice(&synced.to_le_bytes());
        checked[28..36].copy_from_slice(&group.0.to_le_bytes());
        checked[36..52].copy_from_slice(&term);
        checked[52..60].copy_from_slice(&index.to_le_bytes());
        checked[60] = change.code();
        checked[61] = kind;
        let padding = [0; FRAME_ALIGNMENT as usize];
        let padding = &padding[..(change.frame_len() as usize - FRAME_HEADER_BYTES - payload.len())];
        let crc =
            [payload, padding].iter().fold(crc32c::crc32c(&checked), |crc, part| crc32c::crc32c_append(crc, part));
        self.small.put_slice(&checked[..4]);
        self.small.put_u32_le(crc);
        self.small.put_slice(&checked[4..]);
        match change {
            Change::Append(record) if payload.len() >= COPY_BYTES_MAX => {
                self.parts.push(self.small.split().freeze());
                self.parts.push(record.payload.clone());
            }
            _ => self.small.put_slice(payload),
        }
        self.small.put_slice(padding);
        self.len += change.frame_len();
    }

    /// What was put, in order; the buffer is empty afterwards.
    pub(super) fn take(&mut self) -> Vec<Bytes> {
        if !self.small.is_empty() {
            self.parts.push(self.small.split().freeze());
        }
        self.len = 0;
        std::mem::take(&mut self.parts)
    }
}

/// The length of the frame at the front of `bytes`, if they can be the front of one written for `place`. Not checked.
pub(super) fn announced_len(bytes: &[u8], place: Place) -> Option<u64> {
    let fits = bytes.len() >= FRAME_HEADER_BYTES
        && u64_at(bytes, 16) == place.offset
        && u64_at(bytes, 8) == place.file
        && u64_at(bytes, 24) <= place.offset;
    fits.then(|| frame_len(u32_at(bytes, 0) as usize))
}

/// The frame at the front of `bytes`, if one written for `place` is wholly there and undamaged.
pub(super) fn decode(bytes: &Bytes, place: Place) -> Option<Frame> {
    let len = usize::try_from(announced_len(bytes, place)?).ok()?;
    let frame = bytes.get(..len)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[..4]), &frame[8..]);
    if crc != u32_at(frame, 4) || frame[66..FRAME_HEADER_BYTES].iter().any(|byte| *byte != 0) {
        return None;
    }
    let index = u64_at(frame, 56);
    let term: [u8; 16] = frame[40..56].try_into().expect("16 bytes");
    let payload = || bytes.slice(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + u32_at(frame, 0) as usize);
    let change = match frame[64] {
        1 => Change::Append(LogRecord { index, term, kind: frame[65], payload: payload() }),
        2 => Change::Vote(payload()),
        3 => Change::Committed(payload()),
        4 => Change::Truncate(Some(index)),
        5 => Change::Truncate(None),
        6 => Change::Purge(index, term),
        7 => Change::Mark,
        _ => return None,
    };
    Some(Frame { group: GroupId(u64_at(frame, 32)), synced: u64_at(frame, 24), change })
}

/// Reads `data` as the front of a file, whatever it says. The header is made to fit and the checksum right first, or nothing behind them
/// would ever be looked at.
pub(crate) fn read_anything(data: &[u8]) {
    let place = Place { file: 1, offset: 4096 };
    let mut bytes = BytesMut::from(data);
    if bytes.len() >= FRAME_HEADER_BYTES {
        let payload = u32::try_from(bytes.len() - FRAME_HEADER_BYTES).unwrap_or(u32::MAX) / 8 * 8;
        bytes[0..4].copy_from_slice(&payload.to_le_bytes());
        bytes[8..16].copy_from_slice(&place.file.to_le_bytes());
        bytes[16..24].copy_from_slice(&place.offset.to_le_bytes());
        let whole = FRAME_HEADER_BYTES + payload as usize;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..4]), &bytes[8..whole]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    }
    let Some(read) = decode(&bytes.freeze(), place) else { return };
    let mut buffer = FrameBuffer::default();
    buffer.put(place, read.synced, read.group, &read.change);
    let written = Bytes::from(buffer.take().concat());
    assert_eq!(decode(&written, place), Some(read), "a frame is written as it was read");
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Frames of every kind that has bytes of its own, and one that has none.
    pub(crate) fn some_frames() -> Vec<Vec<u8>> {
        let record = LogRecord { index: 3, term: [1; 16], kind: 2, payload: Bytes::from_static(b"payload.") };
        let changes = [
            Change::Append(record),
            Change::Vote(Bytes::from_static(b"vote....")),
            Change::Truncate(Some(7)),
            Change::Purge(5, [2; 16]),
            Change::Mark,
        ];
        let encode = |change: &Change| {
            let mut buffer = FrameBuffer::default();
            buffer.put(Place { file: 1, offset: 4096 }, 0, GroupId(1), change);
            buffer.take().concat()
        };
        changes.iter().map(encode).collect()
    }

    const PLACE: Place = Place { file: 7, offset: 4096 };

    fn change() -> impl Strategy<Value = Change> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..40_000).prop_map(Bytes::from);
        let record = (any::<u64>(), any::<[u8; 16]>(), any::<u8>(), bytes());
        prop_oneof![
            record.prop_map(|(index, term, kind, payload)| Change::Append(LogRecord { index, term, kind, payload })),
            bytes().prop_map(Change::Vote),
            bytes().prop_map(Change::Committed),
            any::<Option<u64>>().prop_map(Change::Truncate),
            any::<(u64, [u8; 16])>().prop_map(|(index, term)| Change::Purge(index, term)),
            Just(Change::Mark),
        ]
    }

    fn encode(group: u64, change: &Change) -> Bytes {
        let mut buffer = FrameBuffer::default();
        buffer.put(PLACE, 512, GroupId(group), change);
        assert_eq!(buffer.len(), change.frame_len());
        let bytes = buffer.take().concat();
        assert_eq!(bytes.len() as u64, change.frame_len());
        bytes.into()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_frame_comes_back_as_it_was(group: u64, change in change()) {
            let bytes = encode(group, &change);
            prop_assert_eq!(decode(&bytes, PLACE), Some(Frame { group: GroupId(group), synced: 512, change }));
            prop_assert_eq!(decode(&bytes, Place { file: 8, ..PLACE }), None);
            prop_assert_eq!(decode(&bytes, Place { offset: 4104, ..PLACE }), None);
        }

        #[test]
        fn a_damaged_frame_is_none(change in change(), at: prop::sample::Index, bit in 0..8u8) {
            let mut bytes = encode(3, &change).to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(decode(&bytes.into(), PLACE), None);
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), aimed: bool) {
            if aimed && bytes.len() >= FRAME_HEADER_BYTES {
                bytes[8..16].copy_from_slice(&PLACE.file.to_le_bytes());
                bytes[16..24].copy_from_slice(&PLACE.offset.to_le_bytes());
                bytes[24..32].fill(0);
            }
            prop_assert_eq!(decode(&bytes.into(), PLACE), None);
        }
    }
}
