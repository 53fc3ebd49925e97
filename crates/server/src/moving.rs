//! `annal cluster move`: moves a replica, and says once a second how far it is.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_postgres::Client;

use crate::error::Error;
use crate::sql;

/// Between two lines of progress.
const TICK: Duration = Duration::from_secs(1);

/// What the command line says.
#[derive(Debug)]
pub(crate) struct MoveOptions {
    /// The group.
    pub(crate) group: u64,
    /// The node that votes in it.
    pub(crate) from: u64,
    /// The node that shall vote instead.
    pub(crate) to: u64,
    /// Any node of the cluster.
    pub(crate) address: SocketAddr,
    /// The role.
    pub(crate) user: String,
}

/// Returns once the replica votes. Whoever interrupts it stops the move, too, unless that is being committed.
pub(crate) fn run(options: &MoveOptions) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mover = sql::connect(options.address, &options.user).await?;
        let watcher = sql::connect(options.address, &options.user).await?;
        let MoveOptions { group, from, to, .. } = options;
        let statement = format!("SELECT annal.move_replica({group}, {from}, {to})");
        let moved = mover.simple_query(&statement);
        tokio::pin!(moved);
        let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + TICK, TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                moved = &mut moved => {
                    moved.map_err(|error| sql::failed(&statement, &error))?;
                    say(&format!("node {to} votes in group {group} instead of node {from}"));
                    return Ok(());
                }
                _ = tick.tick() => say(&progress(&watcher, *group, *to).await),
            }
        }
    })
}

/// How far the replica is that is to vote.
async fn progress(watcher: &Client, group: u64, to: u64) -> String {
    let asked = format!("SELECT applied, lag FROM annal.replicas WHERE group_id = {group} AND node = {to}");
    let unknown = || format!("node {to} does not say how far it is");
    let Ok(rows) = watcher.query(&asked, &[]).await else { return unknown() };
    let Some(row) = rows.first() else { return unknown() };
    match (row.try_get::<_, Option<i64>>(0), row.try_get::<_, Option<i64>>(1)) {
        (Ok(Some(applied)), Ok(Some(lag))) => {
            format!("node {to} has applied entry {applied} of group {group} and lacks {lag}")
        }
        _ => unknown(),
    }
}

/// To nobody is no reason to fail.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
