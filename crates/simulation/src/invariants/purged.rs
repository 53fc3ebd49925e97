//! The log is purged only below a checkpoint, and a checkpoint names only segments that the replica holds.

use std::sync::Arc;

use event::GroupId;
use storage::disk::OpenMode;
use storage::{Disk, Log, SimulatedDisk};

/// What must be readable without this node's log: the checkpoint of each group.
const CHECKPOINTS: &str = "checkpoints";

/// For every replica, and whatever of its unsynced bytes a crash leaves: if the log has no entries up to index *i*, then there is a checkpoint
/// whose last entry is at least *i*, and every segment that it names lies on the replica's disk with the length it says.
///
/// The disk is an image taken for this check alone. A log that cannot be opened is left to the node's own start.
///
/// # Errors
/// The violation in words.
pub async fn check(image: SimulatedDisk, file_len: u64) -> Result<(), String> {
    let disk: Arc<dyn Disk> = Arc::new(image);
    let mut checkpoints = std::collections::BTreeMap::new();
    for file in disk.list(CHECKPOINTS).await.map_err(|e| e.to_string())? {
        let bytes = read(&disk, &format!("{CHECKPOINTS}/{}", file.name)).await.map_err(|e| e.to_string())?;
        let Ok(index) = replication::snapshot_index(&bytes) else { continue };
        checkpoints.insert(file.name.clone(), index);
        if file.name == GroupId::CATALOG.to_string() {
            continue;
        }
        let state = replication::snapshot_state(&bytes).map_err(|e| e.to_string())?;
        for segment in storage::checkpoint_segments(&state).map_err(|e| e.to_string())? {
            let path = format!("segments/{}", segment.name);
            let held = async {
                let file = disk.open(&path, OpenMode::Read).await.ok()?;
                disk.len(file).await.ok()
            };
            if held.await != Some(segment.bytes) {
                return Err(format!("the checkpoint at {index} names segment \"{}\", which is not held", segment.name));
            }
        }
    }
    let Ok(log) = Log::open_with_file_len(disk, "log", file_len).await else { return Ok(()) };
    let mut checked = Ok(());
    for group in log.groups() {
        let Some((purged, _)) = log.group(group).purged else { continue };
        let checkpoint = checkpoints.get(&group.to_string()).copied();
        if checkpoint.is_none_or(|checkpoint| checkpoint < purged) {
            checked =
                Err(format!("the log of group {group} is purged to {purged}, its checkpoint is at {checkpoint:?}"));
        }
    }
    let _ = log.close().await;
    checked
}

async fn read(disk: &Arc<dyn Disk>, path: &str) -> std::io::Result<bytes::Bytes> {
    let file = disk.open(path, OpenMode::Read).await?;
    let len = disk.len(file).await?;
    disk.read_at(file, 0, usize::try_from(len).map_err(std::io::Error::other)?).await
}
