//! The state of a group at a seal, in bytes: what a restart begins with and what the Raft snapshot carries.
//!
//! It holds no rows. Rows of entries up to the seal lie in the segments it names; later ones come from the log.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use event::{GroupId, Origin, ShardId, SplitId, StatementId, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::command::codec::check_definition;
use crate::command::{Entry, Statement};
use crate::document::{decode_document, encode_document};
use crate::segment::{SegmentMeta, SegmentPins};
use crate::sequences::SequenceSet;
use crate::shards::joint::{Decision, Prepared};

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
    /// Decisions of releases that knew no more of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) decisions: Vec<(StatementId, bool)>,
    /// Transactions that were decided about, in ascending order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) decided: Vec<(StatementId, Decision)>,
    /// Parts of transactions that wait for a decision, in ascending order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) prepared: Vec<PreparedBody>,
    /// The newest entry of each other group that has a part of a transaction that is in here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) reach: Vec<(GroupId, u64)>,
    /// Index of the last entry that took rows away which the seal had frozen and which were in no segment yet, 0 without one: what is here
    /// lacks them, so it is a state that the group had only once that entry is applied too.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) whole_from: u64,
}

/// A part of a transaction that waits for the decision of another group.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PreparedBody {
    transaction: StatementId,
    decider: GroupId,
    until_us: i64,
    /// What its shards looked like when it was prepared.
    definitions: Vec<(ShardId, Arc<TableDefinition>)>,
    /// Its commands: an entry in base64.
    commands: String,
}

impl PreparedBody {
    pub(crate) fn of(transaction: StatementId, part: &Prepared) -> PreparedBody {
        let origin = Origin { id: transaction, settled: 0 };
        let statement = Statement { origin, commands: part.commands.clone() };
        let entry = Entry { time_us: 0, statements: vec![statement] };
        let commands = entry.encode().expect("commands that came in an entry fit into one");
        let definitions = part.definitions.iter().map(|(shard, table)| (*shard, Arc::clone(table))).collect();
        let commands = BASE64.encode(commands);
        PreparedBody { transaction, decider: part.decider, until_us: part.until_us, definitions, commands }
    }

    pub(crate) fn restore(self, pins: &SegmentPins) -> Result<(StatementId, Arc<Prepared>), Error> {
        let refuse = |reason: String| Error::Decode { what: "checkpoint", reason };
        let bytes = BASE64.decode(&self.commands).map_err(|error| refuse(error.to_string()))?;
        let statement = Entry::decode(&bytes.into())?.statements.pop();
        let commands = statement.ok_or_else(|| refuse("a prepared part without commands".to_owned()))?.commands;
        let definitions = self.definitions.into_iter().collect();
        Ok((self.transaction, Arc::new(Prepared::new(self.decider, self.until_us, commands, definitions, pins))))
    }

    fn segments(&self) -> Result<Vec<SegmentMeta>, Error> {
        let part = PreparedBody { definitions: Vec::new(), commands: self.commands.clone(), ..*self };
        let (_, part) = part.restore(&SegmentPins::default())?;
        Ok(part.segments.iter().map(|segment| segment.meta.clone()).collect())
    }
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
        let prepared = body.prepared.iter().flat_map(|part| &part.definitions).map(|(_, table)| table);
        for table in body.shards.iter().map(|shard| &shard.table).chain(prepared) {
            check_definition(table)?;
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
    let mut segments: Vec<SegmentMeta> = Vec::new();
    for part in &body.prepared {
        segments.extend(part.segments()?);
    }
    segments.extend(body.shards.into_iter().flat_map(|shard| shard.segments));
    Ok(segments)
}
