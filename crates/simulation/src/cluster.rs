//! One run of a cluster: three nodes or five, clients at all of them, and faults of every kind; then quiet, and everything is compared.
//!
//! All of it happens on one thread whose time is the run's own: a timer costs nothing. The clients check every read against what was known
//! when it was asked for; the disks are looked at whenever a node ends and between faults.

mod clients;
mod damage;
mod faults;
mod machine;
mod quiet;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Node, SimulatedNetwork, Table};
use event::{GroupId, Replicas};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use self::clients::Client;
use self::machine::{Machine, Seat};
use crate::history::History;
use crate::invariants;

/// Nodes of a run.
const NODES: usize = 3;
/// Nodes of every fifth run, in which some tables ask for as many replicas.
const MORE_NODES: usize = 5;
/// Clients that write and read.
const CLIENTS: usize = 3;
/// Clients that only read.
const READERS: usize = 1;
/// Faults of one run.
const FAULTS: u32 = 12;
/// The time between two faults, at most.
const BETWEEN_MS: u64 = 2_500;
/// How long a message is under way.
const LATENCY: Duration = Duration::from_millis(1);
/// How long a sync takes, at most.
const SYNC_TIME: Duration = Duration::from_millis(3);
/// How long anything may take once nothing fails any more.
const PATIENCE: Duration = Duration::from_secs(300);
/// Small, so that files of the log are soon used up and used again.
const LOG_FILE_BYTES: u64 = 64 << 10;
/// Small, so that groups are sealed.
const SEAL_BYTES: usize = 64 << 10;
/// Where the clocks begin.
const CLOCK_US: i64 = 1_700_000_000_000_000;

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterReport {
    /// Statements sent.
    pub statements: u64,
    /// Those that were acknowledged.
    pub acknowledged: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Those whose fate nobody knew.
    pub unknown: u64,
    /// Strong reads that were answered and checked.
    pub reads: u64,
    /// Rows found at the end.
    pub rows: u64,
    /// Segments found at the end.
    pub segments: u64,
    /// How often each kind of fault happened.
    pub faults: BTreeMap<&'static str, u64>,
    /// Follows from everything that clients and faults saw and from every message that arrived, with their times: equal for equal runs.
    pub trace: u64,
}

/// What everybody in a run shares.
#[derive(Debug)]
struct World {
    history: Mutex<History>,
    report: Mutex<ClusterReport>,
    /// Who can be asked now.
    seats: Mutex<Vec<Option<Seat>>>,
    /// The first violation.
    violation: Mutex<Option<String>>,
    trace: Mutex<DefaultHasher>,
    begun: Instant,
    verbose: bool,
    next_id: Mutex<i64>,
    next_table: Mutex<u32>,
    /// What each client does now.
    doing: Mutex<BTreeMap<usize, String>>,
}

impl World {
    /// Something that a client or a fault saw.
    fn note(&self, event: std::fmt::Arguments<'_>) {
        let at = self.begun.elapsed().as_millis();
        (at, event.to_string()).hash(&mut *self.trace.lock());
        if self.verbose {
            tracing::info!(at, "{event}");
        }
    }

    fn violated(&self, reason: String) {
        self.note(format_args!("violation: {reason}"));
        self.violation.lock().get_or_insert(reason);
    }

    fn is_violated(&self) -> bool {
        self.violation.lock().is_some()
    }
}

/// Runs one seed on this thread, which nothing else may have used for that: Raft's lots belong to it.
///
/// # Errors
/// The violated invariant in words.
pub fn run(seed: u64) -> Result<ClusterReport, String> {
    replication::seed_elections(seed);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    // Which of several that are ready goes first is drawn by the runtime. Only one built with this flag can be told a seed.
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    let runtime = builder.build().map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(run_here(seed))
}

async fn run_here(seed: u64) -> Result<ClusterReport, String> {
    let nodes = if seed % 5 == 4 { MORE_NODES } else { NODES };
    let world = Arc::new(World {
        history: Mutex::default(),
        report: Mutex::default(),
        seats: Mutex::new(vec![None; nodes]),
        violation: Mutex::default(),
        trace: Mutex::new(DefaultHasher::new()),
        begun: Instant::now(),
        verbose: tracing::enabled!(tracing::Level::INFO),
        next_id: Mutex::default(),
        next_table: Mutex::default(),
        doing: Mutex::default(),
    });
    let mut run = Run::new(seed, nodes, world.clone());
    let outcome = run.whole().await;
    if let Some(violation) = world.violation.lock().clone() {
        return Err(violation);
    }
    outcome?;
    let mut report = world.report.lock().clone();
    run.network.trace().hash(&mut *world.trace.lock());
    report.trace = world.trace.lock().finish();
    Ok(report)
}

/// The run as the one who causes the faults has it.
struct Run {
    rng: StdRng,
    world: Arc<World>,
    network: SimulatedNetwork,
    machines: Vec<Machine>,
    /// When the clocks were moved last.
    clocks_at: Instant,
    /// When a node that is gone is to be taken out of the cluster again.
    removal_due: Option<Instant>,
}

impl Run {
    fn new(seed: u64, nodes: usize, world: Arc<World>) -> Run {
        let mut rng = StdRng::seed_from_u64(seed);
        let network = SimulatedNetwork::default();
        network.set_latency(LATENCY);
        // Every other run reads by lease.
        let lease_reads = seed % 2 == 1;
        let machines = (0..nodes).map(|place| Machine::new(place, nodes, rng.random(), lease_reads)).collect();
        Run { rng, world, network, machines, clocks_at: Instant::now(), removal_due: None }
    }

    async fn whole(&mut self) -> Result<(), String> {
        self.found().await?;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let clients: Vec<_> = (0..CLIENTS + READERS)
            .map(|number| Client::new(number, self.world.clone(), self.rng.random(), number >= CLIENTS))
            .map(|client| tokio::spawn(client.run(stopped.clone())))
            .collect();
        for _ in 0..FAULTS {
            let between = self.rng_ms(BETWEEN_MS);
            self.pass(between).await?;
            self.fault().await?;
        }
        self.heal().await?;
        stop.send_replace(true);
        let ended = tokio::time::timeout(PATIENCE, async {
            for client in clients {
                client.await.map_err(|e| format!("a client panicked: {e}"))?;
            }
            Ok::<(), String>(())
        });
        let no_end = |_| {
            let doing: Vec<String> =
                self.world.doing.lock().values().filter(|what| *what != "nothing").cloned().collect();
            format!("{} has no end although nothing fails any more", doing.join(", "))
        };
        ended.await.map_err(no_end)??;
        self.compare().await?;
        self.end().await
    }

    fn rng_ms(&mut self, max: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(1..=max))
    }

    /// Lets time pass, and sees to nodes that end by themselves or have come up.
    async fn pass(&mut self, duration: Duration) -> Result<(), String> {
        const STEP: Duration = Duration::from_millis(50);
        let end = Instant::now() + duration;
        while Instant::now() < end {
            tokio::time::sleep(STEP.min(end - Instant::now())).await;
            self.tend().await?;
        }
        Ok(())
    }

    async fn tend(&mut self) -> Result<(), String> {
        let now = Instant::now();
        let passed_us = i64::try_from((now - self.clocks_at).as_micros()).unwrap_or(i64::MAX);
        self.clocks_at = now;
        for place in self.places() {
            let machine = &mut self.machines[place];
            machine.clock.advance(passed_us);
            if let Some(started) = machine.try_rise(&self.world).await? {
                self.world.note(format_args!("node {} {started}", place + 1));
            }
            if let Some(reason) = self.machines[place].failed() {
                self.world.note(format_args!("node {} ended: {reason}", place + 1));
                self.machines[place].may_fail()?;
                self.kill(place, false).await?;
            }
            if self.machines[place].is_due(now) {
                self.machines[place].start(&self.network);
            }
        }
        self.tend_damage(now).await?;
        if self.world.is_violated() { Err("violated".into()) } else { Ok(()) }
    }

    /// The numbers of the machines.
    fn places(&self) -> Range<usize> {
        0..self.machines.len()
    }

    /// All nodes, and as many votes as there shall be.
    async fn found(&mut self) -> Result<(), String> {
        self.machines[0].start(&self.network);
        self.wait("the first node starts", |run| run.machines[0].node().is_some()).await?;
        self.machines[1..].iter_mut().for_each(|machine| machine.start(&self.network));
        self.wait("as many vote as shall", Run::is_settled).await
    }

    /// Whether all nodes run and are in the cluster, every group has a leader that all know, and as many vote in it as its tables ask for.
    fn is_settled(&self) -> bool {
        let Some(nodes) = self.machines.iter().map(Machine::node).collect::<Option<Vec<_>>>() else { return false };
        // Besides them there may be one that joined on a disk which was lost before anybody saw it run.
        let is_in = |of: &Arc<Node>| nodes.iter().all(|node| of.catalog().nodes.contains_key(&node.id()));
        let mut votes: BTreeMap<GroupId, usize> = BTreeMap::new();
        for replica in nodes.iter().flat_map(|node| node.replica_status()) {
            if replica.leader.is_none() {
                return false;
            }
            *votes.entry(replica.group).or_default() += usize::from(replica.votes);
        }
        let catalog = nodes[0].catalog();
        let wanted = |group: GroupId| {
            let hosts = |table: &&Arc<Table>| {
                group == GroupId::CATALOG || table.shards.iter().any(|placement| placement.group == group)
            };
            let asked = catalog.tables.values().filter(hosts).map(|table| table.definition.replicas);
            asked.max().unwrap_or_default().max(Replicas::default()).count()
        };
        nodes.iter().all(|node| is_in(node)) && votes.iter().all(|(group, votes)| *votes == wanted(*group))
    }

    async fn wait(&mut self, what: &str, condition: impl Fn(&Run) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            if Instant::now() > deadline {
                return Err(format!("still not so: {what}"));
            }
            self.pass(Duration::from_millis(50)).await?;
        }
        Ok(())
    }

    /// Ends a node at once. Its disk keeps what a dead process leaves, or what a power failure does.
    async fn kill(&mut self, place: usize, power: bool) -> Result<(), String> {
        let seed = self.rng.random();
        let after = self.rng_ms(4_000);
        self.world.seats.lock()[place] = None;
        self.machines[place].kill(&self.network, seed, power, after);
        let image = self.machines[place].disk.restart(0);
        let checked = invariants::purged::check(image, LOG_FILE_BYTES).await;
        checked.map_err(|reason| format!("node {}: {reason}", place + 1))
    }

    /// Who leads is known to the disks of a majority.
    async fn check_leaders(&mut self) -> Result<(), String> {
        if self.lacks_votes() {
            return Ok(());
        }
        let mut leaders = Vec::new();
        for node in self.machines.iter().filter_map(Machine::node) {
            let own = |replica: &cluster::ReplicaStatus| replica.leader == Some(node.id());
            leaders.extend(node.replica_status().into_iter().filter(own).map(|replica| (replica.group, replica.term)));
        }
        let images = self.machines.iter().map(|machine| machine.disk.crash(self.rng.random())).collect();
        invariants::leaders::check(&leaders, images, LOG_FILE_BYTES).await
    }
}
