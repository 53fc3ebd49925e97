//! One machine: a disk, a clock, and the process that runs on it or not.

use std::sync::Arc;
use std::time::Duration;

use cluster::{Error, MemoryBudget, Node, NodeOptions, Place, SimulatedNetwork};
use event::{Entropy, NodeId, SimulatedClock};
use futures::FutureExt;
use storage::SimulatedDisk;
use storage::disk::Frozen;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::damage::Damage;
use super::{CLOCK_US, LOG_FILE_BYTES, SEAL_BYTES, SYNC_TIME, World};

/// A node that clients may ask, until it ends.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) node: Arc<Node>,
    pub(super) place: usize,
    /// True once its process has ended: what it says then, no client hears.
    pub(super) ended: watch::Receiver<bool>,
}

/// What runs on a machine.
enum Process {
    /// Nothing, until then.
    Down(Option<Instant>),
    Starting(JoinHandle<Result<Arc<Node>, Error>>),
    Up(Arc<Node>),
}

/// One machine.
pub(super) struct Machine {
    place: usize,
    /// How many machines there are.
    machines: usize,
    pub(super) disk: Arc<SimulatedDisk>,
    pub(super) clock: Arc<SimulatedClock>,
    process: Process,
    ended: watch::Sender<bool>,
    entropy: u64,
    lease_reads: bool,
    /// The node that its disk holds, as far as it was seen to run.
    pub(super) id: Option<NodeId>,
    /// What was done to its data.
    pub(super) damage: Option<Damage>,
    /// The disk was told to fail, so the process may end by itself.
    pub(super) disk_fails: bool,
}

pub(super) fn address(place: usize) -> String {
    format!("node-{}", place + 1)
}

/// A disk whose syncs take time.
fn slow(disk: SimulatedDisk) -> Arc<SimulatedDisk> {
    disk.set_sync_time(SYNC_TIME);
    Arc::new(disk)
}

impl Machine {
    pub(super) fn new(place: usize, machines: usize, seed: u64, lease_reads: bool) -> Machine {
        Machine {
            place,
            machines,
            disk: slow(SimulatedDisk::new(seed)),
            clock: Arc::new(SimulatedClock::at(CLOCK_US)),
            process: Process::Down(None),
            ended: watch::Sender::new(false),
            entropy: seed,
            lease_reads,
            id: None,
            damage: None,
            disk_fails: false,
        }
    }

    /// The node, when it runs.
    pub(super) fn node(&self) -> Option<&Arc<Node>> {
        match &self.process {
            Process::Up(node) => Some(node),
            Process::Down(_) | Process::Starting(_) => None,
        }
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self.process, Process::Down(_))
    }

    /// Whether it is to be started again by now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        matches!(self.process, Process::Down(Some(at)) if at <= now)
    }

    pub(super) fn start(&mut self, network: &SimulatedNetwork) {
        let others = (0..self.machines).filter(|other| *other != self.place).map(address);
        let founds = self.place == 0 && !matches!(self.damage, Some(Damage::Lost(_)));
        let join = if founds { Vec::new() } else { others.collect() };
        let address = address(self.place);
        let sql_address = format!("sql-{}", self.place + 1);
        let place = Place { transport: network.at(&address), address, sql_address, join, ..Place::alone() };
        self.entropy = self.entropy.wrapping_add(1);
        let options = NodeOptions {
            disk: self.disk.clone(),
            clock: self.clock.clone(),
            entropy: Arc::new(Entropy::seeded(self.entropy)),
            consensus: tokio::runtime::Handle::current(),
            encode: tokio::runtime::Handle::current(),
            seal_bytes: SEAL_BYTES,
            data_groups: event::limits::DATA_GROUPS,
            lease_reads: self.lease_reads,
            log_file_bytes: LOG_FILE_BYTES,
            memory: MemoryBudget::new(1 << 30),
            remote: None,
            place,
        };
        self.ended = watch::Sender::new(false);
        self.process = Process::Starting(tokio::spawn(Node::start(options)));
    }

    /// Notices that a start has come to its end; says how.
    ///
    /// # Errors
    /// A node that does not start although its disk does not fail, or does although its log is not what it wrote.
    pub(super) async fn try_rise(&mut self, world: &World) -> Result<Option<String>, String> {
        let Process::Starting(starting) = &mut self.process else { return Ok(None) };
        if !starting.is_finished() {
            return Ok(None);
        }
        let started = starting.await.map_err(|e| format!("node {} panicked: {e}", self.place + 1))?;
        match started {
            Ok(_) if matches!(self.damage, Some(Damage::Log(_))) => {
                Err(format!("node {} has started, and its log rots", self.place + 1))
            }
            Ok(node) => {
                self.id = Some(node.id());
                let seat = Seat { node: node.clone(), place: self.place, ended: self.ended.subscribe() };
                world.seats.lock()[self.place] = Some(seat);
                self.process = Process::Up(node);
                Ok(Some("has started".to_owned()))
            }
            Err(error) => {
                self.process = Process::Down(Some(Instant::now() + Duration::from_secs(1)));
                let error = error.to_string();
                if matches!(&self.damage, Some(Damage::Log(file)) if error.contains(file)) {
                    self.replace_disk(self.entropy);
                    return Ok(Some(format!("could not start and gets another disk: {error}")));
                }
                let told = format!("could not start: {error}");
                if self.disk_fails {
                    self.disk = self.disk_after(self.entropy, false);
                    self.disk_fails = false;
                    return Ok(Some(told));
                }
                // Nor does one start without room. A segment that rots, here or on the only node that has it, hinders none.
                if error.contains("no storage space") {
                    return Ok(Some(told));
                }
                Err(format!("node {} does not start: {error}", self.place + 1))
            }
        }
    }

    /// Why the node has ended by itself, if it has.
    pub(super) fn failed(&self) -> Option<String> {
        self.node()?.failed().now_or_never()
    }

    /// # Errors
    /// When nothing was done that may end a node.
    pub(super) fn may_fail(&self) -> Result<(), String> {
        match self.failed() {
            Some(reason) if !self.disk_fails => Err(format!("node {} ended by itself: {reason}", self.place + 1)),
            _ => Ok(()),
        }
    }

    /// Ends the process at once, to be started again after a while.
    pub(super) fn kill(&mut self, network: &SimulatedNetwork, seed: u64, power: bool, after: Duration) {
        let image = self.disk_after(seed, power);
        network.leave(&address(self.place));
        self.ended.send_replace(true);
        // Whatever still runs finds a disk that takes nothing any more.
        self.disk.freeze_at_sync(0, Frozen::Fail);
        if let Process::Up(node) = std::mem::replace(&mut self.process, Process::Down(Some(Instant::now() + after))) {
            tokio::spawn(async move { node.shutdown().await });
        }
        self.disk = image;
        self.disk_fails = false;
    }

    /// The disk as the next process finds it.
    fn disk_after(&self, seed: u64, power: bool) -> Arc<SimulatedDisk> {
        let lost_power = power || self.disk.is_frozen();
        slow(if lost_power { self.disk.crash(seed) } else { self.disk.restart(seed) })
    }

    /// Puts an empty disk in the place of one that can be used no more. What runs on the machine has ended before.
    pub(super) fn replace_disk(&mut self, seed: u64) {
        self.disk = slow(SimulatedDisk::new(seed));
        self.damage = Some(Damage::Lost(self.id.take()));
    }

    /// Starts as soon as possible.
    pub(super) fn hurry(&mut self) {
        if let Process::Down(at) = &mut self.process {
            *at = Some(Instant::now());
        }
    }
}
