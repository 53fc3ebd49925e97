//! What the others must make good: a rotten segment, a rotten log, a disk that is gone. Of one machine of a run, so that a majority is sound.

use std::sync::Arc;
use std::time::Duration;

use event::NodeId;
use rand::Rng;
use rand::seq::IndexedRandom;
use storage::disk::OpenMode;
use storage::{Disk, SimulatedDisk};
use tokio::time::Instant;

use super::Run;
use super::machine::Machine;

/// Frames of the log begin at multiples of this.
const FRAME_ALIGNMENT: usize = 8;
/// Of a frame's header, the bytes that say what the frame is, and which nothing else may say (docs/formats.md).
const FRAME_HEADER_BYTES: usize = 72;
/// Between two tries to take a node that is gone out of the cluster.
const REMOVAL_RETRY: Duration = Duration::from_secs(1);

/// What was done to a machine that its own disk does not make good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// A bit of a segment turned, which others have.
    Segment,
    /// A bit of that file turned, of a frame that later ones know to be synced.
    Log(String),
    /// The disk was replaced by an empty one; the node that it held is to be taken out of the cluster, when it was ever known.
    Lost(Option<NodeId>),
}

impl Run {
    /// Whether something may be done to the data of `place`: the others' are sound.
    fn may_damage(&self, place: usize) -> bool {
        let others_are_sound = self.machines.iter().enumerate().all(|(at, m)| at == place || m.damage.is_none());
        others_are_sound && matches!(self.machines[place].damage, None | Some(Damage::Segment))
    }

    /// A bit of a segment turns while the node goes on.
    pub(super) async fn rot_segment(&mut self, place: usize) {
        if !self.may_damage(place) || self.machines[place].damage.is_some() {
            return;
        }
        let disk = self.machines[place].disk.clone();
        let mut files = Vec::new();
        let mut dirs = vec!["segments".to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in disk.list(&dir).await.unwrap_or_default() {
                let path = format!("{dir}/{}", entry.name);
                if entry.is_dir { dirs.push(path) } else { files.push((path, entry.len)) }
            }
        }
        let Some((path, len)) = files.choose(&mut self.rng).filter(|(_, len)| *len > 0) else { return };
        let (offset, bit) = (self.rng.random_range(0..*len), self.rng.random_range(0..8));
        if disk.flip_bit(path, offset, bit).is_ok() {
            self.machines[place].damage = Some(Damage::Segment);
        }
    }

    /// A process dies, and a bit of its log turns where that is known to be synced.
    pub(super) async fn rot_log(&mut self, place: usize) -> Result<(), String> {
        if !self.may_damage(place) || self.machines[place].node().is_none() || self.machines[place].disk_fails {
            return Ok(());
        }
        self.kill(place, false).await?;
        let disk = self.machines[place].disk.clone();
        let Some((path, frames)) = newest_frames(&disk).await else { return Ok(()) };
        let proven = frames.iter().map(|(_, synced)| *synced).max().unwrap_or_default();
        let sound: Vec<u64> = frames.into_iter().map(|(offset, _)| offset).filter(|offset| *offset < proven).collect();
        let Some(frame) = sound.choose(&mut self.rng).copied() else { return Ok(()) };
        let (byte, bit) = (self.rng.random_range(0..FRAME_HEADER_BYTES as u64), self.rng.random_range(0..8));
        if disk.flip_bit(&path, frame + byte, bit).is_ok() {
            self.world.note(format_args!("\"{path}\" of node {} rots at {frame}", place + 1));
            self.machines[place].damage = Some(Damage::Log(path));
        }
        Ok(())
    }

    /// A machine loses its disk, and gets an empty one.
    pub(super) async fn lose_disk(&mut self, place: usize) -> Result<(), String> {
        if !self.may_damage(place) || self.machines[place].id.is_none() {
            return Ok(());
        }
        if !self.machines[place].is_down() {
            self.kill(place, true).await?;
        }
        let seed = self.rng.random();
        self.machines[place].replace_disk(seed);
        Ok(())
    }

    /// Sees to it that a node whose disk is gone is taken out of the cluster, as its operator would.
    ///
    /// # Errors
    /// The machine got the id of the node that was there: that one may have voted and acknowledged what this one knows nothing of.
    pub(super) async fn tend_damage(&mut self, now: Instant) -> Result<(), String> {
        let Some(place) = self.machines.iter().position(|machine| matches!(machine.damage, Some(Damage::Lost(_))))
        else {
            return Ok(());
        };
        let Some(Damage::Lost(Some(gone))) = self.machines[place].damage else { return Ok(()) };
        if belongs_to(&self.machines[place].disk, gone).await {
            return Err(format!("an empty disk was given to node {gone}, which had another"));
        }
        let is_gone = |machine: &Machine| {
            machine.node().is_some_and(|node| {
                let catalog = node.catalog();
                !catalog.nodes.is_empty() && !catalog.nodes.contains_key(&gone)
            })
        };
        if self.machines.iter().all(is_gone) && self.is_settled() {
            self.world.note(format_args!("node {gone} is out of the cluster"));
            self.machines[place].damage = Some(Damage::Lost(None));
            return Ok(());
        }
        if self.removal_due.is_some_and(|due| now < due) {
            return Ok(());
        }
        self.removal_due = Some(now + REMOVAL_RETRY);
        let others = self.places().filter(|other| *other != place);
        let asked: Vec<_> = others.filter_map(|other| self.machines[other].node().cloned()).collect();
        if let Some(node) = asked.choose(&mut self.rng).cloned() {
            // It may be out already; the catalog says when.
            tokio::spawn(async move { node.remove_node(gone).await });
        }
        Ok(())
    }

    /// Whether the votes that elected a leader may be those of a disk that is gone.
    pub(super) fn lacks_votes(&self) -> bool {
        self.machines.iter().any(|machine| matches!(machine.damage, Some(Damage::Log(_) | Damage::Lost(Some(_)))))
    }
}

/// Whether the data directory says that it is that node's.
async fn belongs_to(disk: &Arc<SimulatedDisk>, node: NodeId) -> bool {
    let Ok(file) = disk.open("identity.json", OpenMode::Read).await else { return false };
    let len = disk.len(file).await.unwrap_or_default() as usize;
    let bytes = disk.read_at(file, 0, len).await.unwrap_or_default();
    disk.release(file);
    String::from_utf8_lossy(&bytes).contains(&format!("\"node\": {node},"))
}

/// The newest file of the log, and its frames: where each lies, and up to where it knows that the file is synced.
async fn newest_frames(disk: &Arc<SimulatedDisk>) -> Option<(String, Vec<(u64, u64)>)> {
    let files = disk.list("log").await.ok()?;
    let of_log = files.iter().filter_map(|file| Some((file.name.strip_suffix(".log")?.parse::<u64>().ok()?, file)));
    let (sequence, file) = of_log.max_by_key(|(sequence, _)| *sequence)?;
    let path = format!("log/{}", file.name);
    let open = disk.open(&path, OpenMode::Read).await.ok()?;
    let bytes = disk.read_at(open, 0, usize::try_from(file.len).ok()?).await.ok()?;
    disk.close(open).await.ok()?;
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let starts = (0..bytes.len().saturating_sub(FRAME_HEADER_BYTES)).step_by(FRAME_ALIGNMENT);
    let written = starts.filter(|at| number(at + 8) == sequence && number(at + 16) == *at as u64);
    Some((path, written.map(|at| (at as u64, number(at + 24))).collect()))
}
