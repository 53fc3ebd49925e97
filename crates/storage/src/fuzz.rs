//! What is fuzzed here: bytes from a disk or a peer that may say anything. Each function must return, whatever it is given.
//!
//! `fuzz/` drives them with libFuzzer, and every run of the tests replays its corpus and mutations of it.

use bytes::Bytes;

use crate::checkpoint::CheckpointBody;
use crate::command::Entry;

/// The front of a log file from its first frame on.
///
/// # Panics
/// When a frame that was read is not written back as it was.
pub fn log_frame(data: &[u8]) {
    crate::log::frame::read_anything(data);
}

/// The body of a checkpoint: JSON that another version, or nobody, may have written.
///
/// # Panics
/// When a checkpoint that was read is not the same after it was written and read again.
pub fn checkpoint(data: &[u8]) {
    let _raw = CheckpointBody::decode(data);
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(data) else { return };
    let Ok(body) = CheckpointBody::decode(&CheckpointBody::file_of(&json)) else { return };
    let again = CheckpointBody::decode(&body.encode().bytes).expect("what was written can be read");
    assert_eq!(format!("{again:?}"), format!("{body:?}"));
}

/// An entry of a data group.
///
/// # Panics
/// When an entry that was read cannot be written, or not be read again.
pub fn entry(data: &[u8]) {
    let Ok(entry) = Entry::decode(&Bytes::copy_from_slice(data)) else { return };
    let written = entry.encode().expect("what was read can be written");
    let again = Entry::decode(&written).expect("what was written can be read");
    assert_eq!(again.statements.len(), entry.statements.len());
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use event::{GroupId, NodeId, ShardId, StatementId};
    use proptest::prelude::*;

    use super::*;
    use crate::command::{Command, Install, SchemaChange, Statement};
    use crate::testing::{small_rows, small_table};

    /// Writes the seeds into the corpus when set.
    const UPDATE: &str = "ANNAL_UPDATE_CORPUS";

    /// The corpus begins with real bytes of today's format.
    fn check_corpus(target: &str, seeds: &[Vec<u8>]) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        for (number, seed) in seeds.iter().enumerate() {
            let file = dir.join(format!("seed-{number}"));
            if std::env::var_os(UPDATE).is_some() {
                std::fs::create_dir_all(&dir).unwrap();
                std::fs::write(&file, seed).unwrap();
            }
            let found = std::fs::read(&file).unwrap_or_default();
            assert!(found == *seed, "{} is not of today's format: run the test with {UPDATE}=1", file.display());
        }
    }

    fn entry_of(commands: Vec<Command>) -> Vec<u8> {
        let id = StatementId { node: NodeId(1), boot: 2, counter: 7 };
        Entry { time_us: 5, statements: vec![Statement { origin: event::Origin { id, settled: 3 }, commands }] }
            .encode()
            .unwrap()
            .to_vec()
    }

    fn entries() -> Vec<Vec<u8>> {
        let append =
            Command::Append { shard: ShardId(1), version: event::SchemaVersion(1), rows: small_rows(&[1, 2, 3]) };
        let table = std::sync::Arc::new(small_table(1));
        let put = Command::Schema(SchemaChange::Put { shard: ShardId(1), table });
        let drop = Command::Schema(SchemaChange::Drop { shard: ShardId(1) });
        let install = Command::Install(Install { seal: Some(4), segments: vec![] });
        vec![entry_of(vec![put, append]), entry_of(vec![Command::Seal]), entry_of(vec![install, drop])]
    }

    #[test]
    fn the_corpus_has_todays_formats() {
        check_corpus("entry", &entries());
        check_corpus("log_frame", &crate::log::frame::tests::some_frames());
        let table = std::sync::Arc::new(small_table(1));
        let shard = crate::checkpoint::ShardBody {
            shard: ShardId(1),
            table,
            segments: vec![],
            expired_us: None,
            deleted: vec![],
            purged: 0,
            truncated: 0,
            appended: 0,
        };
        let transaction = StatementId { node: event::NodeId(1), boot: 2, counter: 3 };
        let decisions = vec![(transaction, true)];
        let (shards, dropped) = (vec![shard], vec![ShardId(2)]);
        let (decided, prepared) = (Vec::new(), Vec::new());
        let body = CheckpointBody {
            group: GroupId(1),
            seal: 9,
            shards,
            dropped,
            decisions,
            decided,
            prepared,
            reach: Vec::new(),
            whole_from: 0,
        };
        check_corpus("checkpoint", &[serde_json::to_vec(&body).unwrap()]);
    }

    proptest! {
        #[test]
        fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            entry(&bytes);
            log_frame(&bytes);
            checkpoint(&bytes);
        }
    }
}
