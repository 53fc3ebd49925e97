//! A leader was elected by votes that survive.

use std::sync::Arc;

use event::GroupId;
use storage::{Disk, Log, SimulatedDisk};

/// Voters of a group of a cluster that has so many nodes.
const VOTERS_MIN: usize = 3;

/// If a node leads a group in term *t*, then the disks of a majority, as a crash at that moment may leave them, hold a vote of term *t* or later:
/// no second leader of term *t* can be elected. Where some nodes do not vote, at least of the smallest majority that there can be.
///
/// The disks are images of all nodes taken at the moment at which the leaders were noted; one that cannot be opened holds nothing.
///
/// # Errors
/// The violation in words.
pub async fn check(leaders: &[(GroupId, u64)], images: Vec<SimulatedDisk>, file_len: u64) -> Result<(), String> {
    let majority = VOTERS_MIN / 2 + 1;
    let mut logs = Vec::new();
    for image in images {
        let disk: Arc<dyn Disk> = Arc::new(image);
        if let Ok(log) = Log::open_with_file_len(disk, "log", file_len).await {
            logs.push(log);
        }
    }
    let mut checked = Ok(());
    for (group, term) in leaders {
        let holds = |log: &&Log| term_of(log.group(*group).vote.as_deref()).is_some_and(|held| held >= *term);
        let holders = logs.iter().filter(holds).count();
        if holders < majority {
            checked = Err(format!("group {group} has a leader of term {term}, and {holders} disks hold such a vote"));
        }
    }
    for log in logs {
        let _ = log.close().await;
    }
    checked
}

/// A vote begins with its term.
fn term_of(vote: Option<&[u8]>) -> Option<u64> {
    Some(u64::from_le_bytes(vote?.get(..8)?.try_into().ok()?))
}
