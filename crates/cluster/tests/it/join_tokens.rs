//! A node that demands a token takes in whoever has one that nobody has used.

use std::sync::Arc;

use cluster::{Error, JoinToken, Node, NodeOptions, Place, SimulatedNetwork};
use event::{Clock, Entropy, NodeId, SimulatedClock};
use storage::SimulatedDisk;
use storage::disk::{Frozen, OpenMode};

use crate::support::{START_US, options};

const HOUR_US: i64 = 3_600_000_000;

struct Cluster {
    network: SimulatedNetwork,
    clock: Arc<SimulatedClock>,
}

impl Cluster {
    fn new() -> Cluster {
        Cluster { network: SimulatedNetwork::default(), clock: Arc::new(SimulatedClock::at(START_US)) }
    }

    /// A node with an empty directory that has `token`; the first founds the cluster.
    async fn open(&self, number: u64, token: Option<JoinToken>) -> Result<Arc<Node>, Error> {
        self.open_on(Arc::new(SimulatedDisk::new(number)), number, number, token).await
    }

    async fn open_on(
        &self,
        disk: Arc<SimulatedDisk>,
        number: u64,
        seed: u64,
        token: Option<JoinToken>,
    ) -> Result<Arc<Node>, Error> {
        let address = format!("node-{number}");
        let transport = self.network.at(&address);
        let join = if number == 1 { Vec::new() } else { vec!["node-1".to_owned()] };
        let place = Place { transport, address, join, token, demands_tokens: true, ..Place::alone() };
        let clock: Arc<dyn Clock> = self.clock.clone();
        let entropy = Arc::new(Entropy::seeded(seed));
        let options = options(disk, 1 << 30);
        Node::start(NodeOptions { place, clock, entropy, ..options }).await
    }

    /// Whether such a node is told that it cannot join.
    async fn is_refused(&self, number: u64, token: Option<JoinToken>) -> bool {
        matches!(self.open(number, token).await, Err(Error::NotInState { .. }))
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_lets_one_node_in_once_and_in_time() {
    let cluster = Cluster::new();
    let first = cluster.open(1, None).await.unwrap();
    assert!(cluster.is_refused(2, None).await);
    assert!(cluster.is_refused(3, Some(JoinToken::new("annal-join-guessed"))).await);
    let token = first.make_join_token(HOUR_US).await.unwrap();
    let second = cluster.open(4, Some(token.clone())).await.unwrap();
    assert_eq!(second.id(), NodeId(2));
    assert!(cluster.is_refused(5, Some(token)).await, "it is used up");
    // Any node makes them.
    let late = second.make_join_token(HOUR_US).await.unwrap();
    cluster.clock.advance(HOUR_US);
    assert!(cluster.is_refused(6, Some(late)).await, "it held for an hour");
    assert_eq!(first.catalog_linearizable().await.unwrap().nodes.len(), 2);
    second.shutdown().await.unwrap();
    first.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_ends_before_it_knows_its_id_gets_the_same_with_the_same_token() {
    let mut taken_in_without_knowing = 0;
    for sync in 1..14 {
        let cluster = Cluster::new();
        let first = cluster.open(1, None).await.unwrap();
        let token = first.make_join_token(HOUR_US).await.unwrap();
        let disk = Arc::new(SimulatedDisk::new(2));
        disk.freeze_at_sync(sync, Frozen::Fail);
        let begun = cluster.open_on(disk.clone(), 2, 2, Some(token.clone())).await;
        let image = Arc::new(disk.crash(sync));
        cluster.network.leave("node-2");
        if let Ok(node) = begun {
            let _ = node.shutdown().await;
        }
        let is_in = first.catalog_linearizable().await.unwrap().nodes.len() == 2;
        let knows = storage::Disk::open(&*image, "identity.json", OpenMode::Read).await.is_ok();
        taken_in_without_knowing += usize::from(is_in && !knows);
        // Another number is drawn now than the one it asked with.
        let second = cluster.open_on(image, 2, 3, Some(token)).await.unwrap();
        assert_eq!(second.id(), NodeId(2), "power failed at sync {sync}");
        assert_eq!(first.catalog_linearizable().await.unwrap().nodes.len(), 2);
        second.shutdown().await.unwrap();
        first.shutdown().await.unwrap();
    }
    assert!(taken_in_without_knowing > 0);
}
