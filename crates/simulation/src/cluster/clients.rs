//! Clients: statements and reads at any node, one after the other, and what they learn of them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Commit, Error, Positions, ReadLevel, Table, TableSnapshot};
use event::{Consistency, Replicas, SplitId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use storage::SequenceSet;
use tokio::sync::watch;
use tokio::time::Instant;

use super::machine::Seat;
use super::{MORE_NODES, World};
use crate::history::{Fate, Read, TableHistory};
use crate::invariants;
use crate::reading;
use crate::tables::{BULK_PAYLOAD_BYTES, SPLIT_US, TIMES_US, rows, spec, spread};

/// Between two statements, at most.
const THINK_MS: u64 = 400;
/// Between two reads of one who does nothing else, at most.
const READ_EVERY_MS: u64 = 20;
/// How long he waits for one.
const READ_WAIT: Duration = Duration::from_millis(20);
/// The largest bound of a bounded read.
const STALENESS_MS: u64 = 5_000;
/// Tables there are at once, at most.
const TABLES: usize = 3;

/// One client.
pub(super) struct Client {
    number: usize,
    world: Arc<World>,
    rng: StdRng,
    /// It never writes: where writes find no leader and wait, it goes on.
    only_reads: bool,
    /// What its commits were answered with.
    written_up_to: Positions,
}

impl Client {
    pub(super) fn new(number: usize, world: Arc<World>, seed: u64, only_reads: bool) -> Client {
        Client { number, world, rng: StdRng::seed_from_u64(seed), only_reads, written_up_to: Positions::new() }
    }

    /// Asks until it is told to stop, or something is wrong.
    pub(super) async fn run(mut self, stop: watch::Receiver<bool>) {
        while !*stop.borrow() && !self.world.is_violated() {
            let think = self.rng.random_range(1..=THINK_MS);
            tokio::time::sleep(Duration::from_millis(think)).await;
            let seats: Vec<Seat> = self.world.seats.lock().iter().flatten().cloned().collect();
            if seats.is_empty() {
                continue;
            }
            let seat = seats[self.rng.random_range(0..seats.len())].clone();
            let outcome = self.statement(&seat).await;
            self.does("nothing");
            if let Err(reason) = outcome {
                self.world.violated(reason);
            }
        }
    }

    /// Reads at one node, a little later each time, for so long.
    pub(super) async fn keep_reading(mut self, seat: Seat, during: Duration) {
        let end = Instant::now() + during;
        while Instant::now() < end && !self.world.is_violated() {
            let wait = self.rng.random_range(1..=READ_EVERY_MS);
            tokio::time::sleep(Duration::from_millis(wait)).await;
            // What another leads cannot be read where nobody is to be reached.
            let outcome = tokio::time::timeout(READ_WAIT, self.read_strongly(&seat)).await;
            if let Ok(Err(reason)) = outcome {
                self.world.violated(reason);
            }
        }
    }

    /// For whoever asks what has no end.
    fn does(&self, what: impl Into<String>) {
        self.world.doing.lock().insert(self.number, what.into());
    }

    async fn statement(&mut self, seat: &Seat) -> Result<(), String> {
        let tables = seat.node.catalog().tables.len();
        let drawn = self.rng.random_range(0..100);
        let kind = match drawn {
            _ if self.only_reads => "a read",
            _ if tables == 0 => "CREATE TABLE",
            0..4 if tables < TABLES => "CREATE TABLE",
            4..5 => "DROP TABLE",
            5..12 => "a flush",
            12..16 => "a compaction",
            16..18 => "an expiry",
            18..19 => "a bulk write",
            19..24 => "a DELETE",
            24..40 => "a read",
            _ => "a write",
        };
        self.does(format!("{kind} at node {} since {} ms", seat.place + 1, self.world.begun.elapsed().as_millis()));
        match drawn {
            _ if self.only_reads => self.read(seat).await,
            _ if tables == 0 => self.create(seat).await,
            0..4 if tables < TABLES => self.create(seat).await,
            4..5 => self.drop_one(seat).await,
            5..12 => {
                self.world.note(format_args!("flush begins at {}", seat.place + 1));
                let flushed = self.answer(seat, seat.node.flush()).await;
                self.world.note(format_args!("flush at {}: {flushed:?}", seat.place + 1));
                Ok(())
            }
            12..16 => self.compact(seat).await,
            16..18 => self.expire(seat).await,
            18..19 => self.write(seat, 80, BULK_PAYLOAD_BYTES).await,
            19..24 => self.delete(seat).await,
            24..40 => self.read(seat).await,
            _ => {
                let count = self.rng.random_range(1..60);
                self.write(seat, count, 10).await
            }
        }
    }

    /// What the client hears: nothing from a process that has ended.
    async fn answer<T>(&self, seat: &Seat, asked: impl Future<Output = Result<T, Error>>) -> Fate {
        self.ask(seat, asked).await.0
    }

    async fn ask<T>(&self, seat: &Seat, asked: impl Future<Output = Result<T, Error>>) -> (Fate, Option<T>) {
        let mut ended = seat.ended.clone();
        let answer = tokio::select! {
            biased;
            _ = ended.wait_for(|ended| *ended) => return (Fate::Unknown, None),
            answer = asked => answer,
        };
        match answer {
            _ if *seat.ended.borrow() => (Fate::Unknown, None),
            Ok(answer) => (Fate::Acknowledged(self.world.history.lock().tick()), Some(answer)),
            Err(Error::Unknown(_)) => (Fate::Unknown, None),
            Err(error) => {
                self.world.note(format_args!("refused at {}: {error}", seat.place + 1));
                (Fate::Refused, None)
            }
        }
    }

    /// Its later reads by session find this, on whatever node.
    fn remember(&mut self, commit: Option<Commit>) {
        for (group, index) in commit.into_iter().flat_map(|commit| commit.positions) {
            let known = self.written_up_to.entry(group).or_default();
            *known = index.max(*known);
        }
    }

    fn count(&self, what: &str, seat: &Seat, fate: Fate) {
        let mut report = self.world.report.lock();
        report.statements += 1;
        match fate {
            Fate::Acknowledged(_) => report.acknowledged += 1,
            Fate::Refused => report.refused += 1,
            Fate::Unknown | Fate::Open => report.unknown += 1,
        }
        drop(report);
        self.world.note(format_args!("{what} at {}: {fate:?}", seat.place + 1));
    }

    fn pick(&mut self, seat: &Seat) -> Option<Arc<Table>> {
        let catalog = seat.node.catalog();
        let tables: Vec<_> = catalog.tables.values().collect();
        let place = self.rng.random_range(0..tables.len().max(1));
        tables.get(place).map(|table| Arc::clone(table))
    }

    async fn create(&mut self, seat: &Seat) -> Result<(), String> {
        let number = {
            let mut next = self.world.next_table.lock();
            *next += 1;
            *next
        };
        let name = format!("t{number}");
        // Every other one lies in shards of several groups, and every third one has a replica on each of five nodes.
        let mut spec = if number % 2 == 0 { spread(&name) } else { spec(&name) };
        if number % 3 == 0 && self.world.seats.lock().len() == MORE_NODES {
            spec.replicas = Replicas::new(MORE_NODES).expect("a number of replicas that is offered");
        }
        let created = self.world.history.lock().change();
        let table = TableHistory { created, dropped: None, expired: Vec::new() };
        self.world.history.lock().tables.insert(name.clone(), table);
        let fate = self.answer(seat, seat.node.create_table(spec)).await;
        self.count(&format!("create {name}"), seat, fate);
        // What a job began, another may finish after it was refused.
        let fate = if fate == Fate::Refused { Fate::Unknown } else { fate };
        self.world.history.lock().tables.get_mut(&name).expect("inserted above").created.fate = fate;
        Ok(())
    }

    async fn drop_one(&mut self, seat: &Seat) -> Result<(), String> {
        let Some(table) = self.pick(seat) else { return Ok(()) };
        let name = table.definition.name.clone();
        {
            let mut history = self.world.history.lock();
            let change = history.change();
            let known = history.tables.get_mut(&name).ok_or("a table that nobody made")?;
            if known.dropped.is_some() {
                return Ok(());
            }
            known.dropped = Some(change);
        }
        let fate = self.answer(seat, seat.node.drop_table(table.definition.id)).await;
        self.count(&format!("drop {name}"), seat, fate);
        let fate = if fate == Fate::Refused { Fate::Unknown } else { fate };
        let mut history = self.world.history.lock();
        let known = history.tables.get_mut(&name).expect("looked up above");
        if let Some(dropped) = &mut known.dropped {
            dropped.fate = fate;
        }
        Ok(())
    }

    async fn compact(&mut self, seat: &Seat) -> Result<(), String> {
        let Some(table) = self.pick(seat) else { return Ok(()) };
        let fate = self.answer(seat, seat.node.compact(&table)).await;
        self.world.note(format_args!("compact at {}: {fate:?}", seat.place + 1));
        Ok(())
    }

    /// Forgets the windows of some of the first days.
    async fn expire(&mut self, seat: &Seat) -> Result<(), String> {
        let Some(table) = self.pick(seat) else { return Ok(()) };
        let name = table.definition.name.clone();
        let before_us = TIMES_US + self.rng.random_range(0..2 * SPLIT_US);
        let at = {
            let mut history = self.world.history.lock();
            let change = history.change();
            let expired = &mut history.tables.get_mut(&name).ok_or("a table that nobody made")?.expired;
            expired.push((before_us, change));
            expired.len() - 1
        };
        let fate = self.answer(seat, seat.node.drop_splits(&table, before_us)).await;
        self.count(&format!("expire {name}"), seat, fate);
        let fate = if fate == Fate::Refused { Fate::Unknown } else { fate };
        let mut history = self.world.history.lock();
        history.tables.get_mut(&name).expect("looked up above").expired[at].1.fate = fate;
        Ok(())
    }

    /// A statement, or with some luck a transaction over two tables.
    async fn write(&mut self, seat: &Seat, count: usize, payload: usize) -> Result<(), String> {
        let mut writes = seat.node.begin();
        let mut written: BTreeMap<String, BTreeMap<i64, i64>> = BTreeMap::new();
        let mut batches = Vec::new();
        for _ in 0..if self.rng.random_bool(0.3) { 2 } else { 1 } {
            let Some(table) = self.pick(seat) else { return Ok(()) };
            let first = {
                let mut next = self.world.next_id.lock();
                *next += count as i64;
                *next - count as i64
            };
            let (batch, ids) = rows(&mut self.rng, first, count, payload);
            written.entry(table.definition.name.clone()).or_default().extend(ids);
            batches.push((table, batch));
        }
        let number = self.world.history.lock().begin(self.number, written);
        self.world.note(format_args!("write {number} begins at {}", seat.place + 1));
        let statement = async {
            for (table, batch) in batches {
                writes.append(&table, batch).await?;
            }
            writes.commit().await
        };
        let (fate, commit) = self.ask(seat, statement).await;
        self.remember(commit);
        self.world.history.lock().end(number, fate);
        self.count(&format!("write {number}"), seat, fate);
        Ok(())
    }

    /// Deletes all rows of one statement.
    async fn delete(&mut self, seat: &Seat) -> Result<(), String> {
        let Some(table) = self.pick(seat) else { return Ok(()) };
        let name = &table.definition.name;
        let Ok(snapshot) = seat.node.snapshot(&table).await else { return Ok(()) };
        let Some(shard) = snapshot.shards.first() else { return Ok(()) };
        // One that lies wholly in memory: its numbers are at hand.
        let mut found: BTreeMap<usize, BTreeMap<SplitId, Vec<u64>>> = BTreeMap::new();
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for split in &shard.memory {
            for (id, number) in reading::numbered(split, shard.deleted.get(&split.split))? {
                let owner = self.world.history.lock().owner(id).ok_or("a row that nobody wrote")?;
                found.entry(owner).or_default().entry(split.split).or_default().push(number);
                *counts.entry(owner).or_default() += 1;
            }
        }
        let victim = {
            let history = self.world.history.lock();
            let whole = |number: &usize| {
                let rows = &history.written[*number].rows;
                rows.len() == 1 && rows.get(name).is_some_and(|rows| rows.len() == counts[number])
            };
            let victims: Vec<usize> = found.keys().copied().filter(whole).collect();
            victims.get(self.rng.random_range(0..victims.len().max(1))).copied()
        };
        let Some(victim) = victim else { return Ok(()) };
        let splits = found.remove(&victim).unwrap_or_default();
        let splits = splits.into_iter().map(|(split, numbers)| (split, SequenceSet::of(numbers))).collect();
        let at = {
            let mut history = self.world.history.lock();
            let change = history.change();
            history.written[victim].deleted.push(change);
            history.written[victim].deleted.len() - 1
        };
        let mut writes = seat.node.begin();
        let statement = async {
            writes.delete(&table, 0, shard.index, &splits)?;
            writes.commit().await
        };
        let (fate, commit) = self.ask(seat, statement).await;
        self.remember(commit);
        self.world.history.lock().written[victim].deleted[at].fate = fate;
        self.count(&format!("delete {victim}"), seat, fate);
        Ok(())
    }

    /// A read of some kind; what it finds is checked.
    async fn read(&mut self, seat: &Seat) -> Result<(), String> {
        match self.rng.random_range(0..100) {
            0..30 => self.read_weakly(seat).await,
            30..50 => self.read_several(seat).await,
            _ => self.read_strongly(seat).await,
        }
    }

    /// What a client hears of a read: nothing of one that fails, or whose node ends first.
    async fn hear<T, E: std::fmt::Display>(&self, seat: &Seat, asked: impl Future<Output = Result<T, E>>) -> Option<T> {
        let mut ended = seat.ended.clone();
        let answer = tokio::select! {
            biased;
            _ = ended.wait_for(|ended| *ended) => return None,
            answer = asked => answer,
        };
        match answer {
            Ok(answer) if !*seat.ended.borrow() => Some(answer),
            Ok(_) => None,
            Err(error) => {
                self.world.note(format_args!("no read at {}: {error}", seat.place + 1));
                None
            }
        }
    }

    /// The rows of a snapshot as a read that was asked for at the moment `begun`, or counts as if. Segments may need another node.
    async fn rows_of(&self, seat: &Seat, snapshot: &TableSnapshot, begun: u64) -> Result<Option<Read>, String> {
        invariants::windows::check(snapshot)?;
        let Some(ids) = self.hear(seat, reading::ids(&seat.node, snapshot)).await else { return Ok(None) };
        let ended = self.world.history.lock().tick();
        Ok(Some(Read { node: seat.place, table: snapshot.table.definition.name.clone(), begun, ended, ids }))
    }

    fn check(&self, how: &str, seat: &Seat, read: &Read) -> Result<(), String> {
        invariants::check_read(&mut self.world.history.lock(), read).map_err(|reason| format!("{how} {reason}"))?;
        self.world.report.lock().reads += 1;
        self.world.note(format_args!("{how} read {} at {}: {} rows", read.table, seat.place + 1, read.ids.len()));
        Ok(())
    }

    /// Everything that was acknowledged before.
    async fn read_strongly(&mut self, seat: &Seat) -> Result<(), String> {
        let Some(table) = self.pick(seat) else { return Ok(()) };
        let begun = self.world.history.lock().tick();
        let Some(snapshot) = self.hear(seat, seat.node.snapshot(&table)).await else { return Ok(()) };
        match self.rows_of(seat, &snapshot, begun).await? {
            Some(read) => self.check("strong", seat, &read),
            None => Ok(()),
        }
    }

    /// All tables in one cut: of every transaction all or nothing.
    async fn read_several(&mut self, seat: &Seat) -> Result<(), String> {
        let tables: Vec<Arc<Table>> = seat.node.catalog().tables.values().cloned().collect();
        let begun = self.world.history.lock().tick();
        let Some(cut) = self.hear(seat, seat.node.snapshots(&tables)).await else { return Ok(()) };
        let mut found = BTreeMap::new();
        for snapshot in &cut {
            let Some(read) = self.rows_of(seat, snapshot, begun).await? else { return Ok(()) };
            self.check("joint", seat, &read)?;
            found.insert(read.table, read.ids.into_iter().collect());
        }
        let checked = invariants::whole::check_across(&self.world.history.lock(), &found);
        checked.map_err(|reason| format!("node {} read all tables: {reason}", seat.place + 1))
    }

    /// What the node has: a session's own writes, what is not older than a bound, or whatever there is; and as new as the node says.
    async fn read_weakly(&mut self, seat: &Seat) -> Result<(), String> {
        let Some(table) = self.pick(seat) else { return Ok(()) };
        let levels = [Consistency::Session, Consistency::Bounded, Consistency::Eventual];
        let consistency = levels[self.rng.random_range(0..levels.len())];
        let max_staleness = Duration::from_millis(self.rng.random_range(1..=STALENESS_MS));
        let is_session = consistency == Consistency::Session;
        let at_least = if is_session { self.written_up_to.clone() } else { Positions::new() };
        let level = ReadLevel { consistency, max_staleness, at_least };
        let asked = self.world.history.lock().tick();
        let read = self.hear(seat, seat.node.snapshot_at(&table, &level)).await;
        let Some((snapshot, staleness)) = read else { return Ok(()) };
        if consistency == Consistency::Bounded && staleness.is_none_or(|age| age > max_staleness) {
            return Err(format!("node {} read what is {staleness:?} old within {max_staleness:?}", seat.place + 1));
        }
        let since = staleness.map(|age| self.world.history.lock().moment_of(Instant::now() - age));
        let Some(read) = self.rows_of(seat, &snapshot, since.unwrap_or(0)).await? else { return Ok(()) };
        if is_session {
            invariants::own::check(&self.world.history.lock(), &read, self.number, asked)?;
        }
        self.check(&format!("{consistency:?}"), seat, &read)
    }
}
