//! The disk of one of three nodes is full: it leads nothing any more, the others go on, and it follows again once there is room.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use crate::TestCluster;
use crate::full_disk::{ON_A_SMALL_DISK, ballast};
use crate::load::{BETWEEN, PATIENCE, under_load};
use crate::server::Setup;

/// Text of a statement while the disk is to become full.
const STATEMENT_BYTES: usize = 400_000;
/// Statements of that size that fill the rest of the log's file as well: nothing at all can be written then.
const FILLING: usize = 140;
/// Who leads the group of the first table in a cluster that is settled.
const LEADER: usize = 1;
const POLL: Duration = Duration::from_millis(50);

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < PATIENCE, "still not so: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// The disk of the node at `full` fills up while clients write to all, and so much more is written after it refuses rows.
async fn fill(full: usize, more: usize) {
    let mut setups = [(); 3].map(|()| Setup::default());
    setups[full].wrapper = ON_A_SMALL_DISK.map(str::to_owned).into();
    let cluster = TestCluster::start_as(setups).await;
    cluster.settled().await;
    under_load(cluster, async |cluster, load| {
        load.pad(STATEMENT_BYTES);
        until("the disk is full", async || cluster.node(full).log().contains("no room for the log")).await;
        let other = (full + 1) % 3;
        until("its groups are led by others", async || !cluster.leaders(other).await.contains(&full)).await;
        load.more(more).await;
        load.pad(0);
        let refused = load.failed_with(&SqlState::DISK_FULL);
        // Also through the node whose disk is full.
        load.more(BETWEEN).await;
        load.write(&cluster.connect(full).await).await.unwrap();
        assert_eq!(load.failed_with(&SqlState::DISK_FULL), refused, "nothing is refused for want of one node's room");
        std::fs::remove_file(ballast(cluster.node(full))).unwrap();
        until("there is room", async || cluster.node(full).log().contains("there is room for the log again")).await;
        load.more(BETWEEN).await;
        until("it leads again what is its to lead", async || cluster.leaders(other).await.contains(&full)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_room_gives_its_groups_to_others_and_gets_them_back() {
    fill(LEADER, BETWEEN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_can_write_nothing_at_all_keeps_nobody_waiting() {
    fill(2, FILLING).await;
}
