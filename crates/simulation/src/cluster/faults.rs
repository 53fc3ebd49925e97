//! What fails.

use std::time::Duration;

use event::GroupId;
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use storage::disk::Frozen;

use super::clients::Client;
use super::machine::{Machine, address};
use super::{CLIENTS, NODES, PATIENCE, READERS, Run};

/// The group that holds the rows.
const DATA: GroupId = GroupId(1);
/// The latest sync from now at which the power may fail.
const SYNCS: u64 = 30;
/// Bytes that a full disk still takes.
const SPACE_BYTES: u64 = 40_000;
/// For how long at most a node votes for nobody else once it has answered a leader.
const PROMISED: Duration = Duration::from_millis(1_300);
/// A while.
const SOME_MS: u64 = 600;
/// How often a node dies and comes back in a row.
const FLICKERS: u32 = 5;
/// Between two of these, and for how long it is cut off.
const FLICKER: Duration = Duration::from_millis(200);
/// One hour.
const HOUR_US: i64 = 3_600_000_000;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// A process dies; its unsynced bytes are still there.
    Kill,
    /// All processes die at once.
    KillAll,
    /// The power of one machine fails.
    Power,
    /// The power of all machines fails at once.
    PowerAll,
    /// The power of one machine fails within its next syncs.
    PowerAtSync,
    /// The next sync of one disk fails.
    SyncFails,
    /// One disk is full for a while.
    DiskFull,
    /// Some writes and syncs of one disk find no room although it was reserved.
    NoRoom,
    /// A bit in a segment turns.
    SegmentRots,
    /// A bit in the log turns, which then is to be replaced as a whole.
    LogRots,
    /// A disk is lost, and its node with it; an empty one takes its place.
    DiskLost,
    /// One process is stopped, as others see it.
    Pause,
    /// One node is cut off, both ways.
    Isolate,
    /// Nothing gets to one node, but from it.
    Deaf,
    /// Nothing comes from one node, but to it.
    Mute,
    /// The link between two nodes is cut.
    CutLink,
    /// A leader is cut off from all nodes but one, and again and again from that one, too, which dies at that moment and starts again at once.
    CutOffLeader,
    /// Messages between two nodes take longer.
    Delay,
    /// The clock of one machine jumps.
    ClockJumps,
    /// A group is led by another.
    Transfer,
    /// A node is stopped in good order and started again.
    Restart,
    /// All links are mended.
    Mend,
    /// Another votes in a group. The last, since it needs nodes that do not vote.
    Move,
}

const FAULTS: [Fault; 23] = [
    Fault::Kill,
    Fault::KillAll,
    Fault::Power,
    Fault::PowerAll,
    Fault::PowerAtSync,
    Fault::SyncFails,
    Fault::DiskFull,
    Fault::NoRoom,
    Fault::SegmentRots,
    Fault::LogRots,
    Fault::DiskLost,
    Fault::Pause,
    Fault::Isolate,
    Fault::Deaf,
    Fault::Mute,
    Fault::CutLink,
    Fault::CutOffLeader,
    Fault::Delay,
    Fault::ClockJumps,
    Fault::Transfer,
    Fault::Restart,
    Fault::Mend,
    Fault::Move,
];

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::KillAll => "kill all",
            Fault::Power => "power failure",
            Fault::PowerAll => "power failure of all",
            Fault::PowerAtSync => "power failure at a sync",
            Fault::SyncFails => "failed sync",
            Fault::DiskFull => "full disk",
            Fault::NoRoom => "no room",
            Fault::SegmentRots => "rotten segment",
            Fault::LogRots => "rotten log",
            Fault::DiskLost => "lost disk",
            Fault::Pause => "pause",
            Fault::Isolate => "isolation",
            Fault::Deaf => "deaf node",
            Fault::Mute => "mute node",
            Fault::CutLink => "cut link",
            Fault::CutOffLeader => "cut-off leader",
            Fault::Delay => "delayed messages",
            Fault::ClockJumps => "clock jump",
            Fault::Transfer => "leader transfer",
            Fault::Move => "moved replica",
            Fault::Restart => "restart",
            Fault::Mend => "mended links",
        }
    }
}

impl Run {
    /// One fault, of a kind and at a place that the seed decides.
    pub(super) async fn fault(&mut self) -> Result<(), String> {
        let machines = self.machines.len();
        // Among three nodes all vote.
        let kinds = if machines > NODES { &FAULTS[..] } else { &FAULTS[..FAULTS.len() - 1] };
        let fault = *kinds.choose(&mut self.rng).expect("there are kinds");
        let place = self.rng.random_range(0..machines);
        let other = (place + self.rng.random_range(1..machines)) % machines;
        self.world.note(format_args!("{} of {} and {}", fault.name(), place + 1, other + 1));
        *self.world.report.lock().faults.entry(fault.name()).or_default() += 1;
        if self.rng.random_bool(0.3) {
            self.check_leaders().await?;
        }
        match fault {
            Fault::Kill => self.end_one(place, false).await?,
            Fault::Power => self.end_one(place, true).await?,
            Fault::KillAll => self.end_all(false).await?,
            Fault::PowerAll => self.end_all(true).await?,
            Fault::PowerAtSync => {
                let disk = &self.machines[place].disk;
                disk.freeze_at_sync(disk.syncs() + self.rng.random_range(1..=SYNCS), Frozen::Fail);
                self.machines[place].disk_fails = true;
            }
            Fault::SyncFails => {
                self.machines[place].disk.fail_next_sync();
                self.machines[place].disk_fails = true;
            }
            Fault::DiskFull => self.machines[place].disk.set_space(Some(self.rng.random_range(0..SPACE_BYTES))),
            Fault::NoRoom => {
                let (writes, syncs) = (self.rng.random_range(0..3), self.rng.random_range(0..3));
                self.machines[place].disk.fail_for_lack_of_room(writes, syncs);
            }
            Fault::SegmentRots => self.rot_segment(place).await,
            Fault::LogRots => self.rot_log(place).await?,
            Fault::DiskLost => self.lose_disk(place).await?,
            Fault::ClockJumps => {
                let jump_us = self.rng.random_range(-24 * HOUR_US..24 * HOUR_US);
                self.machines[place].clock.advance(jump_us);
            }
            Fault::Transfer => self.transfer(place, other),
            Fault::Move => self.move_replica(place, other),
            Fault::Restart => self.restart(place).await?,
            Fault::CutOffLeader => self.cut_off_leader().await?,
            Fault::Mend => {
                self.network.mend();
                self.machines.iter().for_each(|machine| machine.disk.set_space(None));
            }
            _ => self.disturb(fault, place, other),
        }
        Ok(())
    }

    /// The faults of the network.
    fn disturb(&mut self, fault: Fault, place: usize, other: usize) {
        let (own, peer) = (address(place), address(other));
        let others = self.places().filter(|other| *other != place).map(address);
        match fault {
            Fault::Pause => self.network.hold(&own),
            Fault::Isolate => others.for_each(|other| self.network.cut(&own, &other)),
            Fault::Deaf => others.for_each(|other| self.network.cut_from(&other, &own)),
            Fault::Mute => others.for_each(|other| self.network.cut_from(&own, &other)),
            Fault::CutLink => self.network.cut(&own, &peer),
            _ => {
                let longer = self.rng_ms(1_500);
                self.network.delay(&own, &peer, longer);
            }
        }
    }

    async fn end_one(&mut self, place: usize, power: bool) -> Result<(), String> {
        if self.machines[place].is_down() {
            return Ok(());
        }
        self.kill(place, power).await
    }

    async fn end_all(&mut self, power: bool) -> Result<(), String> {
        for place in self.places() {
            let seed = self.rng.random();
            let after = self.rng_ms(1_000);
            self.world.seats.lock()[place] = None;
            if !self.machines[place].is_down() {
                self.machines[place].kill(&self.network, seed, power, after);
            }
        }
        Ok(())
    }

    fn some_group(&mut self) -> GroupId {
        if self.rng.random_bool(0.3) { GroupId::CATALOG } else { DATA }
    }

    fn transfer(&mut self, place: usize, to: usize) {
        let group = self.some_group();
        if let (Some(node), Some(to)) = (self.machines[place].node().cloned(), self.machines[to].id) {
            tokio::spawn(async move { node.transfer_leader(group, to).await });
        }
    }

    fn move_replica(&mut self, place: usize, to: usize) {
        let group = self.some_group();
        let (from, to) = (self.machines[place].id, self.machines[to].id);
        let asked = self.rng.random_range(self.places());
        if let (Some(node), Some(from), Some(to)) = (self.machines[asked].node().cloned(), from, to) {
            let world = self.world.clone();
            tokio::spawn(async move {
                let moved = node.move_replica(group, from, to).await;
                world.note(format_args!("the vote of {from} in group {group} goes to {to}: {moved:?}"));
            });
        }
    }

    /// What the others have promised to a leader comes to its end, but for the last, which forgets it. Somebody reads at the leader meanwhile, which may
    /// go on to believe in what it was promised.
    async fn cut_off_leader(&mut self) -> Result<(), String> {
        let group = self.some_group();
        let leads = |machine: &Machine| {
            let node = machine.node()?;
            let own = |replica: &cluster::ReplicaStatus| replica.group == group && replica.leader == Some(node.id());
            node.replica_status().iter().any(own).then_some(())
        };
        let Some(leader) = self.places().find(|place| leads(&self.machines[*place]).is_some()) else { return Ok(()) };
        let mut others: Vec<usize> = self.places().filter(|place| *place != leader).collect();
        others.shuffle(&mut self.rng);
        let last = others.pop().expect("there are more than one");
        others.iter().for_each(|other| self.network.cut(&address(leader), &address(*other)));
        // By then they have begun to ask for votes, and the last has refused them.
        let longer = self.rng_ms(SOME_MS);
        self.pass(PROMISED + longer).await?;
        let seat = self.world.seats.lock()[leader].clone();
        if let Some(seat) = seat {
            let reader = Client::new(CLIENTS + READERS, self.world.clone(), self.rng.random(), true);
            tokio::spawn(reader.keep_reading(seat, FLICKERS * 2 * FLICKER));
        }
        for _ in 0..FLICKERS {
            self.network.mend();
            others.iter().for_each(|other| self.network.cut(&address(leader), &address(*other)));
            self.pass(FLICKER).await?;
            if self.machines[last].is_down() {
                break;
            }
            self.network.cut(&address(leader), &address(last));
            self.kill(last, false).await?;
            self.machines[last].hurry();
            self.tend().await?;
            self.pass(FLICKER).await?;
        }
        Ok(())
    }

    async fn restart(&mut self, place: usize) -> Result<(), String> {
        let Some(node) = self.machines[place].node().cloned() else { return Ok(()) };
        // Clients that ask meanwhile are told that it stops.
        let stopping = tokio::time::timeout(PATIENCE, node.shutdown());
        if stopping.await.is_err() {
            return Err(format!("node {} does not stop", place + 1));
        }
        self.kill(place, false).await
    }

    /// Nothing fails any more, and all nodes come back.
    pub(super) async fn heal(&mut self) -> Result<(), String> {
        self.network.mend();
        for place in self.places() {
            // What was to happen at a later sync happens now.
            if self.machines[place].disk_fails {
                self.kill(place, true).await?;
            }
            self.machines[place].disk.set_space(None);
            self.machines[place].disk.fail_for_lack_of_room(0, 0);
            self.machines[place].hurry();
        }
        self.world.note(format_args!("nothing fails any more"));
        self.wait("all nodes are back, and as many vote as shall", |run| run.is_settled() && !run.lacks_votes())
            .await?;
        self.pass(Duration::from_secs(5)).await?;
        self.check_leaders().await
    }
}
