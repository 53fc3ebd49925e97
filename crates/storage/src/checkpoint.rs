//! The state of a group at a seal, in bytes: what a restart begins with and what the Raft snapshot carries.
//!
//! It holds no rows. Rows of entries up to the seal lie in the segments it names; later ones come from the log.

use std::sync::Arc;

use event::{GroupId, ShardId, SplitId, StatementId, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::command::codec::check_definition;
use crate::document::{decode_document, encode_document};
use crate::segment::SegmentMeta;
use crate::sequences::SequenceSet;

const MAGIC: &[u8; 8] = b"ANNALCKP";
const VERSION: u16 = 1;

/// A complete checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Index of the Seal entry. Everything up to and including it is in.
    pub seal: u64,
    /// The file: a document as docs/formats.md draws it.
    pub bytes: bytes::Bytes,
}

/// The body of the file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CheckpointBody {
    pub(crate) group: GroupId,
    pub(crate) seal: u64,
    /// In ascending order.
    pub(crate) shards: Vec<ShardBody>,
    /// Shards that never come back, in ascending order.
    pub(crate) dropped: Vec<ShardId>,
    /// Transactions that were decided about, and whether they are committed, in ascending order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) decisions: Vec<(StatementId, bool)>,
}

/// The manifest of one shard.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ShardBody {
    pub(crate) shard: ShardId,
    pub(crate) table: Arc<TableDefinition>,
    pub(crate) segments: Vec<SegmentMeta>,
    /// The latest time before which splits were forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expired_us: Option<i64>,
    /// Sequence numbers of deleted rows that are still in segments, by split.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) deleted: Vec<(SplitId, Arc<SequenceSet>)>,
    /// Index of the last entry that made room by taking deleted rows out of segments, 0 without one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) purged: u64,
    /// Index of the last entry that took all rows away, 0 without one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) truncated: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) appended: u64,
}

fn is_zero(index: &u64) -> bool {
    *index == 0
}

impl CheckpointBody {
    pub(crate) fn encode(&self) -> Checkpoint {
        let bytes = encode_document(MAGIC, VERSION, self).expect("manifests are far below 4 GiB and have JSON forms");
        Checkpoint { seal: self.seal, bytes: bytes.into() }
    }

    /// A file with this body, whatever it is.
    pub(crate) fn file_of(body: &serde_json::Value) -> Vec<u8> {
        encode_document(MAGIC, VERSION, body).expect("JSON can be written")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let body: Self = decode_document(MAGIC, VERSION, bytes)?;
        for shard in &body.shards {
            check_definition(&shard.table)?;
        }
        Ok(body)
    }
}

/// The segments that the manifests of a checkpoint name, for one who must hold them before the checkpoint counts.
///
/// # Errors
/// [`Error::Decode`] when the bytes are no checkpoint.
pub fn checkpoint_segments(bytes: &[u8]) -> Result<Vec<SegmentMeta>, Error> {
    let body = CheckpointBody::decode(bytes)?;
    Ok(body.shards.into_iter().flat_map(|shard| shard.segments).collect())
}
