//! The header of a log file: which file it is, where the one before ends, and what holds of each group so far, so that
//! no older file is needed for a vote, a commit position or a purge point alone.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use event::GroupId;

/// First bytes of every log file.
const MAGIC: &[u8; 8] = b"ANNALLOG";
/// The one version of the format so far.
const VERSION: u16 = 1;
/// Bytes that tell how long the whole header is.
pub(super) const PREFIX_BYTES: usize = 24;
/// Bytes before the groups.
const FIXED_BYTES: usize = 48;
/// Bytes of a group before its vote and commit position.
const GROUP_BYTES: usize = 48;
/// Length that stands for an absent vote or commit position.
const ABSENT: u32 = u32::MAX;

/// What holds of a group beside its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GroupMarks {
    /// The last vote.
    pub(super) vote: Option<Bytes>,
    /// The last commit position.
    pub(super) committed: Option<Bytes>,
    /// (index, term) below and including which everything is purged.
    pub(super) purged: Option<(u64, [u8; 16])>,
}

/// The header of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    /// Sequence number of the file, from 1.
    pub(super) sequence: u64,
    /// Length the file was given when it was created.
    pub(super) file_len: u64,
    /// Where the frames of the file before end; what lies behind was discarded. 0 in the first file.
    pub(super) previous_end: u64,
    /// What held of each group when the file was begun.
    pub(super) groups: BTreeMap<GroupId, GroupMarks>,
}

impl FileHeader {
    /// Bytes of the header.
    pub(super) fn encoded_len(&self) -> u64 {
        let optional = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let groups = self.groups.values().map(|marks| GROUP_BYTES + optional(&marks.vote) + optional(&marks.committed));
        ((FIXED_BYTES + groups.sum::<usize>()) as u64).next_multiple_of(super::frame::FRAME_ALIGNMENT)
    }

    /// The header's bytes.
    pub(super) fn encode(&self) -> Bytes {
        let length = usize::try_from(self.encoded_len()).expect("a header fits memory");
        let mut bytes = BytesMut::with_capacity(length);
        bytes.put_slice(MAGIC);
        bytes.put_u16_le(VERSION);
        bytes.put_u16_le(0);
        bytes.put_u32_le(0);
        bytes.put_u32_le(u32::try_from(length).expect("a header is far below 4 GiB"));
        bytes.put_u32_le(u32::try_from(self.groups.len()).expect("groups are few"));
        bytes.put_u64_le(self.sequence);
        bytes.put_u64_le(self.file_len);
        bytes.put_u64_le(self.previous_end);
        for (group, marks) in &self.groups {
            bytes.put_u64_le(group.0);
            for part in [&marks.vote, &marks.committed] {
                let len = part.as_ref().map(|part| u32::try_from(part.len()).expect("a vote fits a frame"));
                bytes.put_u32_le(len.unwrap_or(ABSENT));
            }
            let (index, term) = marks.purged.unwrap_or_default();
            bytes.put_u64_le(u64::from(marks.purged.is_some()));
            bytes.put_u64_le(index);
            bytes.put_slice(&term);
            for part in [&marks.vote, &marks.committed].into_iter().flatten() {
                bytes.put_slice(part);
            }
        }
        bytes.resize(length, 0);
        let crc = crc(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes.freeze()
    }

    /// The whole header's length, from its first [`PREFIX_BYTES`].
    pub(super) fn announced_len(prefix: &[u8]) -> Result<u64, String> {
        if prefix.len() < PREFIX_BYTES || &prefix[..8] != MAGIC {
            return Err("it does not begin like a log file".to_owned());
        }
        let version = u16::from_le_bytes([prefix[8], prefix[9]]);
        if version != VERSION {
            return Err(format!("log format version {version} is not known"));
        }
        let length = u32::from_le_bytes(prefix[16..20].try_into().expect("4 bytes"));
        Ok(u64::from(length).max(FIXED_BYTES as u64))
    }

    /// The reverse of [`FileHeader::encode`]; arbitrary bytes give an error.
    pub(super) fn decode(bytes: &Bytes) -> Result<FileHeader, String> {
        Self::announced_len(bytes)?;
        if bytes.len() < FIXED_BYTES || crc(bytes) != u32::from_le_bytes(bytes[12..16].try_into().expect("4 bytes")) {
            return Err("the checksum of the header does not match".to_owned());
        }
        // The checksum matched, so what follows was written by `encode`; still, nothing here may panic.
        let mut rest = bytes.slice(20..);
        let count = rest.get_u32_le();
        let (sequence, file_len, previous_end) = (rest.get_u64_le(), rest.get_u64_le(), rest.get_u64_le());
        let mut groups = BTreeMap::new();
        for _ in 0..count {
            let (group, marks) = decode_group(&mut rest).ok_or("the header ends within a group")?;
            groups.insert(group, marks);
        }
        Ok(FileHeader { sequence, file_len, previous_end, groups })
    }
}

fn decode_group(rest: &mut Bytes) -> Option<(GroupId, GroupMarks)> {
    if rest.len() < GROUP_BYTES {
        return None;
    }
    let group = GroupId(rest.get_u64_le());
    let lens = [rest.get_u32_le(), rest.get_u32_le()];
    let has_purged = rest.get_u64_le() != 0;
    let index = rest.get_u64_le();
    let mut term = [0; 16];
    rest.copy_to_slice(&mut term);
    let mut parts = [None, None];
    for (part, len) in parts.iter_mut().zip(lens) {
        if len == ABSENT {
            continue;
        }
        if rest.len() < len as usize {
            return None;
        }
        // A copy, so that a vote does not keep the whole header in memory.
        *part = Some(Bytes::copy_from_slice(&rest.split_to(len as usize)));
    }
    let [vote, committed] = parts;
    Some((group, GroupMarks { vote, committed, purged: has_purged.then_some((index, term)) }))
}

/// Over everything but the checksum's own bytes.
fn crc(header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..12]), &header[16..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> FileHeader {
        let purged = GroupMarks { purged: Some((41, [3; 16])), ..GroupMarks::default() };
        let voted =
            GroupMarks { vote: Some(Bytes::from_static(b"me, term 3")), committed: Some(Bytes::new()), purged: None };
        let groups = BTreeMap::from([(GroupId(0), purged), (GroupId(9), voted)]);
        FileHeader { sequence: 12, file_len: 1 << 20, previous_end: 4096, groups }
    }

    #[test]
    fn a_header_comes_back_as_it_was_and_any_flipped_bit_is_noticed() {
        let bytes = header().encode();
        assert_eq!(bytes.len() as u64, header().encoded_len());
        assert_eq!(FileHeader::decode(&bytes), Ok(header()));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= 1 << bit;
                assert!(FileHeader::decode(&damaged.into()).is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = FileHeader::decode(&bytes.clone().into());
            if bytes.len() >= FIXED_BYTES {
                bytes[..8].copy_from_slice(MAGIC);
                bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
                let crc = crc(&bytes);
                bytes[12..16].copy_from_slice(&crc.to_le_bytes());
                let _ = FileHeader::decode(&bytes.into());
            }
        }
    }
}
