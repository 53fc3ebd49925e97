//! Three nodes on a network that fails under load: whoever is cut off acknowledges nothing and reads nothing old, the others go on, and all of
//! them are the same once it is healed.

use std::sync::Arc;

use tokio_postgres::error::SqlState;

use crate::TestCluster;
use crate::load::{BETWEEN, under_load};
use crate::network::TestNetwork;

/// Of a hundred packets: connections stall, and go on.
const LOST_PERCENT: u8 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_reads_nothing_old() {
    let Some(network) = TestNetwork::create() else { return };
    under_load(TestCluster::start_on(&network).await, async |cluster, load| {
        for _ in 0..2 {
            let leader = cluster.leader(0).await;
            let (writer, reader) = (cluster.connect(leader).await, cluster.connect(leader).await);
            reader.batch_execute("SET statement_timeout = '2s'").await.unwrap();
            network.isolate(leader);
            let lonely = Arc::clone(load);
            let lonely = tokio::spawn(async move { lonely.write(&writer).await.is_ok() });
            load.more(BETWEEN).await;
            // It may still believe that it leads; what it has is old by now, and it must not say so without asking the others.
            let refused = load.read(&reader).await.expect_err("nobody answers it");
            let states = [SqlState::QUERY_CANCELED, SqlState::CANNOT_CONNECT_NOW];
            assert!(refused.code().is_some_and(|state| states.contains(state)), "{refused:?}");
            let ended = lonely.is_finished();
            network.heal();
            let acknowledged = lonely.await.unwrap();
            assert!(!(ended && acknowledged), "a node alone has acknowledged a statement");
            load.more(BETWEEN).await;
            load.read(&cluster.connect(leader).await).await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_carry_one_way_only_or_not_between_two_of_three_stop_nothing() {
    let Some(network) = TestNetwork::create() else { return };
    under_load(TestCluster::start_on(&network).await, async |cluster, load| {
        let others = |leader: usize| [(leader + 1) % 3, (leader + 2) % 3];
        // The others do not hear their leader; the leader does not hear the others; it and one of them do not hear each other.
        for blow in 0..3 {
            let leader = cluster.leader(0).await;
            let [first, second] = others(leader);
            match blow {
                0 => [first, second].iter().for_each(|other| network.deafen(*other, leader)),
                1 => [first, second].iter().for_each(|other| network.deafen(leader, *other)),
                _ => network.cut(leader, first),
            }
            load.more(BETWEEN).await;
            network.heal();
            load.more(BETWEEN).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_unplugged_and_packets_that_are_lost_cost_nothing() {
    let Some(network) = TestNetwork::create() else { return };
    under_load(TestCluster::start_on(&network).await, async |cluster, load| {
        let follower = (cluster.leader(0).await + 1) % 3;
        network.unplug(follower);
        load.more(BETWEEN).await;
        network.heal();
        load.more(BETWEEN).await;
        network.lose(LOST_PERCENT);
        load.more(BETWEEN).await;
        network.isolate(follower);
        load.more(BETWEEN).await;
        network.heal();
        load.more(BETWEEN).await;
    })
    .await;
}
