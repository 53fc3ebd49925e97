//! More than a cluster can take: the excess is refused at once, what was acknowledged is there, and nobody is elected.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cluster::{Error, Node};
use event::GroupId;

use crate::support::{events, find, read, wide_rows};
use crate::three::Three;

const DATA: GroupId = GroupId(1);
/// Bytes of each row, one a statement.
const ROW_BYTES: usize = 32 << 10;
/// How long clients write.
const RUN: Duration = Duration::from_secs(4);
/// Clients that keep the cluster busy, and several times as many.
const FEW: usize = 16;
const MANY: usize = 400;

/// What clients saw.
#[derive(Debug, Default)]
struct Seen {
    next: AtomicI64,
    acknowledged: AtomicU64,
    refused: AtomicU64,
    /// What statements took in all, those acknowledged and those refused.
    acknowledged_us: AtomicU64,
    refused_us: AtomicU64,
}

impl Seen {
    /// The mean of both in milliseconds.
    fn means_ms(&self) -> (u64, u64) {
        let mean =
            |us: &AtomicU64, count: &AtomicU64| us.load(Ordering::SeqCst) / 1000 / count.load(Ordering::SeqCst).max(1);
        (mean(&self.acknowledged_us, &self.acknowledged), mean(&self.refused_us, &self.refused))
    }
}

/// Lets clients write for a while, each as soon as its last statement is answered; refused ones come back as they are told.
async fn write(nodes: &[Arc<Node>], clients: usize, seen: &Arc<Seen>) -> u64 {
    let before = seen.acknowledged.load(Ordering::SeqCst);
    let end = Instant::now() + RUN;
    let client = |place: usize| {
        let (node, seen) = (nodes[place % nodes.len()].clone(), seen.clone());
        let connection = node.client();
        tokio::spawn(async move {
            let t = find(&node, "t").unwrap();
            let rows = |value| wide_rows(value..value + 1, ROW_BYTES);
            while Instant::now() < end {
                let value = seen.next.fetch_add(1, Ordering::SeqCst);
                let begun = Instant::now();
                let mut statement = node.begin_for(connection);
                let written = match statement.append(&t, rows(value)).await {
                    Ok(()) => statement.commit().await.map(drop),
                    Err(error) => Err(error),
                };
                let took_us = u64::try_from(begun.elapsed().as_micros()).unwrap();
                match written {
                    Ok(()) => {
                        seen.acknowledged.fetch_add(1, Ordering::SeqCst);
                        seen.acknowledged_us.fetch_add(took_us, Ordering::SeqCst);
                    }
                    Err(Error::Excess { retry_ms }) => {
                        seen.refused_us.fetch_add(took_us, Ordering::SeqCst);
                        seen.refused.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(retry_ms.min(500))).await;
                    }
                    Err(error) => panic!("neither done nor refused: {error:?}"),
                }
            }
        })
    };
    let writing: Vec<_> = (0..clients).map(client).collect();
    for client in writing {
        client.await.unwrap();
    }
    seen.acknowledged.load(Ordering::SeqCst) - before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_much_is_refused_and_the_rest_goes_on() {
    let three = Three::start().await;
    three.node(0).create_table(events("t")).await.unwrap();
    let nodes: Vec<Arc<Node>> = (0..3).map(|place| three.node(place).clone()).collect();
    let terms = || nodes.iter().map(|node| node.replica_status()[1].term).max();
    three.leader(DATA).await;
    let (seen, term) = (Arc::new(Seen::default()), terms());
    let usual = write(&nodes, FEW, &seen).await;
    let overloaded = write(&nodes, MANY, &seen).await;
    let statistics: Vec<_> = nodes.iter().map(|node| node.statistics()).collect();
    eprintln!(
        "{usual} usually, {overloaded} overloaded, {seen:?}, {:?} {:?}",
        statistics[0].admission,
        seen.means_ms()
    );
    assert_eq!(terms(), term, "nobody was elected");
    assert!(seen.refused.load(Ordering::SeqCst) > 0, "{seen:?}");
    let (acknowledged_ms, refused_ms) = seen.means_ms();
    assert!(refused_ms * 2 < acknowledged_ms, "{refused_ms} ms to refuse, {acknowledged_ms} ms to acknowledge");
    assert!(overloaded * 2 > usual, "{usual} statements with {FEW} clients, {overloaded} with {MANY}");
    for figures in &statistics {
        assert_eq!(figures.admission.in_flight_bytes, 0);
        assert!(figures.memory_used <= figures.memory_limit, "{figures:?}");
    }
    // Values are given once: what was acknowledged is there, once; what was refused is not.
    let found = read(&nodes[0], &find(&nodes[0], "t").unwrap()).await;
    assert_eq!(found.len() as u64, seen.acknowledged.load(Ordering::SeqCst));
    assert!(found.values().all(|times| *times == 1));
}
