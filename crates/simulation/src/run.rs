//! One run: a node works until the power fails or its process dies, is opened again from what the disk kept, and everything is compared.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster::{Node, NodeOptions, Table};
use event::{Entropy, SimulatedClock};
use futures::FutureExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use storage::SimulatedDisk;
use storage::disk::Frozen;

use crate::expectation::{Expectation, ExpectedTable, Fate, Written};
use crate::reading;
use crate::tables::{BULK_PAYLOAD_BYTES, SPLIT_US, TIMES_US, rows, spec};

/// Ends of the process in one run, by power failure or alone.
const CRASHES: u32 = 4;
/// Statements between two of them, at most.
const STATEMENTS: u32 = 60;
/// The latest sync of an incarnation at which the power may fail.
const SYNCS: u64 = 90;
/// The same when it may fail while the node starts.
const STARTING_SYNCS: u64 = 25;
/// Small, so that files of the log are soon used up and used again.
const LOG_FILE_BYTES: u64 = 32 << 10;

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Statements sent.
    pub statements: u64,
    /// Statements acknowledged while the disk was durable.
    pub acknowledged: u64,
    /// Ends of the process, by power failure or alone.
    pub crashes: u64,
    /// Rows found at the end.
    pub rows: u64,
    /// Seals written as segments.
    pub seals: u64,
    /// Segments merged into others.
    pub merged: u64,
    /// Splits forgotten.
    pub expired: u64,
    /// Log files used again.
    pub recycled: u64,
}

/// Runs one seed.
///
/// # Errors
/// The violated invariant in words.
pub async fn run(seed: u64) -> Result<Report, String> {
    let mut world = World::new(seed);
    for _ in 0..CRASHES {
        world.incarnation().await?;
        world.report.crashes += 1;
    }
    // The last incarnation stops in good order; one more start finds everything.
    world.disk = Arc::new(world.disk.crash(world.rng.random()));
    let node = world.start().await?;
    world.compare(&node).await?;
    world.report.rows = reading::read_all(&node).await?.values().map(|ids| ids.len() as u64).sum();
    node.shutdown().await.map_err(|e| e.to_string())?;
    Ok(world.report)
}

struct World {
    rng: StdRng,
    disk: Arc<SimulatedDisk>,
    clock: Arc<SimulatedClock>,
    expected: Expectation,
    next_id: i64,
    next_table: u32,
    report: Report,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            disk: Arc::new(SimulatedDisk::new(seed)),
            clock: Arc::new(SimulatedClock::at(1_700_000_000_000_000)),
            expected: Expectation::default(),
            next_id: 0,
            next_table: 0,
            report: Report::default(),
        }
    }

    async fn start(&mut self) -> Result<Arc<Node>, String> {
        let options = NodeOptions {
            disk: self.disk.clone(),
            clock: self.clock.clone(),
            entropy: Arc::new(Entropy::seeded(self.rng.random())),
            consensus: tokio::runtime::Handle::current(),
            encode: tokio::runtime::Handle::current(),
            seal_bytes: 256 << 10,
            data_groups: event::limits::DATA_GROUPS,
            lease_reads: false,
            log_file_bytes: LOG_FILE_BYTES,
            memory: cluster::MemoryBudget::new(1 << 30),
            remote: None,
            place: cluster::Place::alone(),
        };
        Node::start(options).await.map_err(|e| format!("the node does not start: {e}"))
    }

    async fn compare(&mut self, node: &Arc<Node>) -> Result<(), String> {
        let found = reading::read_all(node).await?;
        self.expected.settle(&found)
    }

    /// From one start to the next end, which is a power failure or the death of the process alone.
    async fn incarnation(&mut self) -> Result<(), String> {
        if self.rng.random_bool(0.25) {
            self.freeze_within(STARTING_SYNCS);
        }
        let started = self.start().await;
        let node = match started {
            Ok(node) => Some(node),
            Err(_) if self.disk.is_frozen() => None,
            Err(reason) => return Err(reason),
        };
        if let Some(node) = &node
            && !self.disk.is_frozen()
        {
            let before = self.expected.clone();
            let compared = self.compare(node).await;
            if self.disk.is_frozen() {
                // What was seen while the power failed may not have been durable.
                self.expected = before;
            } else {
                compared?;
                self.work(node).await?;
            }
        }
        // A dead process does not shut down in good order: only its tasks are stopped, after the image was taken.
        let process_alone = !self.disk.is_frozen() && self.rng.random_bool(0.5);
        let seed = self.rng.random();
        let image = if process_alone { self.disk.restart(seed) } else { self.disk.crash(seed) };
        if let Some(node) = node {
            self.count(&node);
            let _ = node.shutdown().await;
        }
        self.disk = Arc::new(image);
        Ok(())
    }

    fn count(&mut self, node: &Node) {
        let statistics = node.statistics();
        self.report.seals += statistics.seals;
        self.report.merged += statistics.segments_merged;
        self.report.recycled += statistics.log.files_recycled;
    }

    /// Sends statements until the disk freezes or enough were sent.
    async fn work(&mut self, node: &Arc<Node>) -> Result<(), String> {
        self.freeze_within(SYNCS);
        let statements = self.rng.random_range(1..=STATEMENTS);
        let sync_fails_at = self.rng.random_range(0..4 * STATEMENTS);
        for at in 0..statements {
            if at == sync_fails_at {
                self.disk.fail_next_sync();
            }
            self.clock.advance(self.rng.random_range(-1_000_000..2_000_000));
            self.statement(node).await?;
            if self.disk.is_frozen() || node.failed().now_or_never().is_some() {
                break;
            }
        }
        Ok(())
    }

    fn freeze_within(&mut self, syncs: u64) {
        let then = if self.rng.random_bool(0.5) { Frozen::Succeed } else { Frozen::Fail };
        self.disk.freeze_at_sync(self.disk.syncs() + self.rng.random_range(1..=syncs), then);
    }

    async fn statement(&mut self, node: &Arc<Node>) -> Result<(), String> {
        self.report.statements += 1;
        match self.rng.random_range(0..100) {
            0..8 => self.create(node).await,
            8..11 => self.drop_one(node).await,
            11..20 => {
                let _ = node.flush().await;
                Ok(())
            }
            40..44 => self.compact(node).await,
            44..47 => self.expire(node).await,
            20..23 => self.write(node, 80, BULK_PAYLOAD_BYTES).await,
            23..30 => self.abandon(node).await,
            30..40 => self.read_now(node).await,
            _ => {
                let count = self.rng.random_range(1..60);
                self.write(node, count, 10).await
            }
        }
    }

    /// What a client may conclude from an answer: nothing, once the disk had stopped being durable.
    fn fate<T, E>(&mut self, answer: &Result<T, E>) -> Fate {
        if answer.is_ok() && !self.disk.is_frozen() {
            self.report.acknowledged += 1;
            Fate::Acknowledged
        } else {
            Fate::Uncertain
        }
    }

    async fn create(&mut self, node: &Arc<Node>) -> Result<(), String> {
        let name = format!("t{}", self.next_table);
        self.next_table += 1;
        let answer = node.create_table(spec(&name)).await;
        let created = self.fate(&answer);
        self.expected.tables.insert(name, ExpectedTable::new(created));
        Ok(())
    }

    async fn drop_one(&mut self, node: &Arc<Node>) -> Result<(), String> {
        if let Some(table) = self.pick(node) {
            let answer = node.drop_table(table.definition.id).await;
            let fate = self.fate(&answer);
            let expected = self.expected.tables.get_mut(&table.definition.name).expect("tables are made here only");
            expected.dropped = Some(fate);
        }
        Ok(())
    }

    async fn compact(&mut self, node: &Arc<Node>) -> Result<(), String> {
        if let Some(table) = self.pick(node) {
            let _ = node.compact(&table).await;
        }
        Ok(())
    }

    /// Forgets the windows of some of the first days.
    async fn expire(&mut self, node: &Arc<Node>) -> Result<(), String> {
        let Some(table) = self.pick(node) else { return Ok(()) };
        let before_us = TIMES_US + self.rng.random_range(0..3 * SPLIT_US);
        let answer = node.drop_splits(&table, before_us).await;
        let fate = self.fate(&answer);
        self.report.expired += answer.unwrap_or_default();
        let expected = self.expected.tables.get_mut(&table.definition.name).expect("tables are made here only");
        match fate {
            Fate::Acknowledged => expected.expire(before_us),
            Fate::Uncertain => expected.maybe_expired_us.push(before_us),
        }
        Ok(())
    }

    fn pick(&mut self, node: &Arc<Node>) -> Option<Arc<Table>> {
        let catalog = node.catalog();
        let usable: Vec<_> = catalog
            .tables
            .values()
            .filter(|t| self.expected.tables.get(&t.definition.name).is_some_and(|e| e.dropped.is_none()))
            .collect();
        if usable.is_empty() {
            return None;
        }
        Some(usable[self.rng.random_range(0..usable.len())].clone())
    }

    /// A statement, or with some luck a transaction over two tables.
    async fn write(&mut self, node: &Arc<Node>, count: usize, payload: usize) -> Result<(), String> {
        let statement = self.report.statements;
        let mut writes = node.begin();
        let mut written: Vec<(String, BTreeMap<i64, i64>)> = Vec::new();
        let tables = if self.rng.random_bool(0.3) { 2 } else { 1 };
        let mut refused = false;
        for _ in 0..tables {
            let Some(table) = self.pick(node) else { continue };
            let (batch, ids) = rows(&mut self.rng, self.next_id, count, payload);
            self.next_id += count as i64;
            refused |= writes.append(&table, batch).await.is_err();
            match written.iter_mut().find(|(name, _)| *name == table.definition.name) {
                Some((_, all)) => all.extend(ids),
                None => written.push((table.definition.name.clone(), ids)),
            }
        }
        if written.is_empty() || refused {
            // Never committed: no row of it may ever be seen, so it is not expected anywhere.
            return Ok(());
        }
        let answer = writes.commit().await;
        let fate = self.fate(&answer);
        for (name, ids) in written {
            let table = self.expected.tables.get_mut(&name).expect("tables are made here only");
            table.written.push(Written { statement, ids: ids.keys().copied().collect(), fate });
            table.ends_us.extend(ids);
        }
        Ok(())
    }

    /// A statement that is never committed, now and then one large enough to have been staged.
    async fn abandon(&mut self, node: &Arc<Node>) -> Result<(), String> {
        if let Some(table) = self.pick(node) {
            let (batch, _) = rows(&mut self.rng, self.next_id, 20, 10);
            self.next_id += 20;
            let mut writes = node.begin();
            let _ = writes.append(&table, batch).await;
        }
        Ok(())
    }

    /// A read in the middle sees every acknowledged statement.
    async fn read_now(&mut self, node: &Arc<Node>) -> Result<(), String> {
        if self.disk.is_frozen() {
            return Ok(());
        }
        let found = reading::read_all(node).await;
        match found {
            Ok(found) => self.expected.clone().settle(&found),
            Err(_) if self.disk.is_frozen() || node.failed().now_or_never().is_some() => Ok(()),
            Err(reason) => Err(reason),
        }
    }
}
