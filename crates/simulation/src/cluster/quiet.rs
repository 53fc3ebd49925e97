//! Once nothing fails any more: what every node finds, and whether the replicas are equal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster::Node;

use super::machine::Machine;
use super::{LOG_FILE_BYTES, PATIENCE, Run};
use crate::history::Read;
use crate::invariants::replicas::Fingerprint;
use crate::invariants::{self, acknowledged, replicas, whole, windows};
use crate::reading;

/// Between two looks at replicas that have not applied the same entries.
const LOOK: Duration = Duration::from_millis(200);

/// The applied index of each replica of a node, and the fingerprint of each table.
type Look = (Vec<u64>, BTreeMap<String, Vec<Fingerprint>>);

impl Run {
    /// Everything, on every node.
    pub(super) async fn compare(&mut self) -> Result<(), String> {
        for place in self.places() {
            let node = self.running(place)?;
            let reading = tokio::time::timeout(PATIENCE, self.read_all(place, &node));
            reading.await.map_err(|_| format!("node {} answers no read although nothing fails", place + 1))??;
        }
        self.compare_replicas().await
    }

    fn running(&self, place: usize) -> Result<Arc<Node>, String> {
        self.machines[place].node().cloned().ok_or_else(|| format!("node {} does not run", place + 1))
    }

    async fn read_all(&self, place: usize, node: &Arc<Node>) -> Result<(), String> {
        let begun = self.world.history.lock().tick();
        let failed = |e: &dyn std::fmt::Display| format!("node {} cannot read: {e}", place + 1);
        let catalog = node.catalog_linearizable().await.map_err(|e| failed(&e))?;
        let names: Vec<String> = catalog.tables.values().map(|table| table.definition.name.clone()).collect();
        {
            let mut history = self.world.history.lock();
            let ended = history.tick();
            acknowledged::check_catalog(&history, &names, begun, ended)?;
        }
        let mut found: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
        let mut segments = 0;
        for table in catalog.tables.values() {
            let begun = self.world.history.lock().tick();
            let snapshot = node.snapshot(table).await.map_err(|e| failed(&e))?;
            windows::check(&snapshot)?;
            segments += snapshot.shards.iter().map(|shard| shard.segments.len() as u64).sum::<u64>();
            let ids = reading::ids(node, &snapshot).await.map_err(|reason| failed(&reason))?;
            let mut history = self.world.history.lock();
            let ended = history.tick();
            let read = Read { node: place, table: table.definition.name.clone(), begun, ended, ids };
            invariants::check_read(&mut history, &read)?;
            found.insert(read.table, read.ids.into_iter().collect());
        }
        whole::check_across(&self.world.history.lock(), &found)?;
        let mut report = self.world.report.lock();
        report.reads += found.len() as u64;
        report.rows = found.values().map(|ids| ids.len() as u64).sum();
        report.segments = segments;
        Ok(())
    }

    /// Looks until all replicas have applied the same entries.
    async fn compare_replicas(&mut self) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let mut looks = Vec::new();
            for machine in &self.machines {
                looks.push(look(machine).await?);
            }
            let again: Vec<Vec<u64>> = self.machines.iter().map(applied).collect();
            let still = looks.iter().zip(&again).all(|((before, _), after)| before == after && before == &again[0]);
            if still {
                return looks.windows(2).try_for_each(|pair| same(&pair[0].1, &pair[1].1));
            }
            if tokio::time::Instant::now() > deadline {
                return Err(format!("the replicas do not come to the same index: {again:?}"));
            }
            self.pass(LOOK).await?;
        }
    }

    /// Ends all nodes as a power failure does, and looks at what is left.
    pub(super) async fn end(&mut self) -> Result<(), String> {
        for machine in &self.machines {
            let checked = invariants::purged::check(machine.disk.crash(1), LOG_FILE_BYTES).await;
            checked.map_err(|reason| format!("at the end: {reason}"))?;
        }
        for machine in &mut self.machines {
            machine.kill(&self.network, 0, true, PATIENCE);
        }
        Ok(())
    }
}

fn applied(machine: &Machine) -> Vec<u64> {
    let replicas = machine.node().map(|node| node.replica_status()).unwrap_or_default();
    replicas.into_iter().map(|replica| replica.applied).collect()
}

async fn look(machine: &Machine) -> Result<Look, String> {
    let mut tables = BTreeMap::new();
    let before = applied(machine);
    if let Some(node) = machine.node() {
        for table in node.catalog().tables.values() {
            if let Ok(snapshot) = node.snapshot(table).await {
                tables.insert(table.definition.name.clone(), replicas::fingerprint(&snapshot)?);
            }
        }
    }
    Ok((before, tables))
}

fn same(one: &BTreeMap<String, Vec<Fingerprint>>, other: &BTreeMap<String, Vec<Fingerprint>>) -> Result<(), String> {
    for (name, prints) in one {
        let others = other.get(name).ok_or_else(|| format!("only one of two replicas has table \"{name}\""))?;
        replicas::check(name, prints, others)?;
    }
    Ok(())
}
