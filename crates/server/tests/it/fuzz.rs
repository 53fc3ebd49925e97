//! The corpus of the fuzzers, and mutations of it: whatever a disk, a peer or a client says, nothing panics.

use std::path::{Path, PathBuf};

use event::Entropy;

/// Mutations of each file in a run of the tests.
const MUTATIONS: usize = 300;

/// Puts every file of a corpus, and mutations of it, through its target.
fn replay(target: &str, run: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", dir.display());
    let entropy = Entropy::seeded(11);
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        run(&bytes);
        for _ in 0..MUTATIONS {
            run(&mutated(&bytes, &entropy));
        }
    }
}

/// `bytes` with one to four places changed, cut out or doubled.
fn mutated(bytes: &[u8], entropy: &Entropy) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=entropy.next_u64() % 4 {
        if bytes.is_empty() {
            break;
        }
        let at = (entropy.next_u64() % bytes.len() as u64) as usize;
        let end = (at + 1 + (entropy.next_u64() % 8) as usize).min(bytes.len());
        match entropy.next_u64() % 4 {
            0 => bytes[at] ^= 1 << (entropy.next_u64() % 8),
            1 => bytes[at] = entropy.next_u64() as u8,
            2 => drop(bytes.drain(at..end)),
            _ => bytes.extend_from_within(at..end),
        }
    }
    bytes
}

#[test]
fn log_frames() {
    replay("log_frame", storage::fuzz::log_frame);
}

#[test]
fn entries() {
    replay("entry", storage::fuzz::entry);
}

#[test]
fn checkpoints() {
    replay("checkpoint", storage::fuzz::checkpoint);
}

#[test]
fn copy_data() {
    replay("copy", query::fuzz::copy);
}

#[test]
fn statements() {
    replay("statements", query::fuzz::statements);
}
