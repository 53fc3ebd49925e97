//! Three nodes in one process, on a network whose links can be cut: what one acknowledges, every node has, once, whoever leads.

use std::sync::Arc;
use std::time::Duration;

use cluster::{Error, Node, NodeOptions, Place, RemoteSegments, SimulatedNetwork, Table};
use event::{Entropy, GroupId, NodeId, SimulatedClock};
use storage::SimulatedDisk;

use crate::support::{
    START_US, count, events, eventually, find, insert, objects, once, options, read, rows, wide_rows,
};

const DATA: GroupId = GroupId(1);
const SEAL_BYTES: usize = 256 << 10;

/// Three nodes and what is between and below them.
pub(crate) struct Three {
    pub(crate) network: SimulatedNetwork,
    pub(crate) clocks: [Arc<SimulatedClock>; 3],
    groups: usize,
    lease_reads: bool,
    remote: Option<RemoteSegments>,
    pub(crate) disks: Vec<Arc<SimulatedDisk>>,
    pub(crate) nodes: Vec<Option<Arc<Node>>>,
}

pub(crate) fn address(place: usize) -> String {
    format!("node-{}", place + 1)
}

impl Three {
    /// Starts them with one data group, and waits until all vote.
    pub(crate) async fn start() -> Three {
        Three::with_groups(1).await
    }

    /// The same with several.
    pub(crate) async fn with_groups(groups: usize) -> Three {
        Three::with(groups, false, None).await
    }

    /// The same with one data group, and segments elsewhere.
    pub(crate) async fn with_remote(remote: RemoteSegments) -> Three {
        Three::with(1, false, Some(remote)).await
    }

    /// The same, and their leaders read by lease when that is said.
    pub(crate) async fn with(groups: usize, lease_reads: bool, remote: Option<RemoteSegments>) -> Three {
        let disks = (0..3).map(|seed| Arc::new(SimulatedDisk::new(seed))).collect();
        let clocks = [(); 3].map(|()| Arc::new(SimulatedClock::at(START_US)));
        let (network, nodes) = (SimulatedNetwork::default(), vec![None, None, None]);
        let mut three = Three { network, clocks, groups, lease_reads, remote, disks, nodes };
        three.nodes[0] = Some(three.open(0).await.unwrap());
        let (second, third) = tokio::join!(three.open(1), three.open(2));
        three.nodes[1] = Some(second.unwrap());
        three.nodes[2] = Some(third.unwrap());
        let all = [1, 2, 3].map(NodeId).into_iter().collect();
        eventually("all three vote", || async {
            three.nodes.iter().flatten().all(|node| {
                let votes = node.replica_status().iter().all(|replica| replica.votes && replica.leader.is_some());
                votes && node.catalog().nodes.keys().copied().collect::<std::collections::BTreeSet<_>>() == all
            })
        })
        .await;
        three
    }

    async fn open(&self, place: usize) -> Result<Arc<Node>, Error> {
        self.open_with(place, 0).await
    }

    /// The same with other lots.
    async fn open_with(&self, place: usize, seed: u64) -> Result<Arc<Node>, Error> {
        let transport = self.network.at(&address(place));
        let join = if place == 0 { Vec::new() } else { vec![address(0)] };
        let (wanted, sql_address) = (Some(NodeId(place as u64 + 1)), format!("sql-{}", place + 1));
        let place = Place { transport, address: address(place), sql_address, join, wanted, ..Place::alone() };
        let number = place.address.trim_start_matches("node-").parse::<usize>().unwrap() - 1;
        let (disk, clock) = (self.disks[number].clone(), self.clocks[number].clone());
        let options = options(disk, 1 << 30);
        let entropy =
            Arc::new(Entropy::seeded(seed + place.address.len() as u64 + place.sql_address.as_bytes()[4] as u64));
        let (data_groups, lease_reads) = (self.groups, self.lease_reads);
        let (seal_bytes, remote) = (SEAL_BYTES, self.remote.clone());
        let options = NodeOptions { place, entropy, clock, seal_bytes, data_groups, lease_reads, remote, ..options };
        Node::start(options).await
    }

    /// One more node, the fourth, on a disk of its own; it joins and learns.
    pub(crate) async fn fourth(&self) -> Arc<Node> {
        self.another("fourth").await
    }

    /// One more node at this address, on a disk of its own.
    pub(crate) async fn another(&self, address: &str) -> Arc<Node> {
        let (address, disk) = (address.to_owned(), Arc::new(SimulatedDisk::new(9)));
        let (transport, join) = (self.network.at(&address), vec![self::address(1)]);
        let place = Place { transport, address, join, ..Place::alone() };
        let options = options(disk, 1 << 30);
        let (clock, remote) = (self.clocks[0].clone(), self.remote.clone());
        // Nodes that draw the same are taken for one that asks twice.
        let entropy = Arc::new(Entropy::seeded(place.address.bytes().map(u64::from).sum()));
        Node::start(NodeOptions { place, clock, remote, entropy, ..options }).await.unwrap()
    }

    /// Moves the clocks of all machines.
    pub(crate) fn advance_clocks(&self, us: i64) {
        self.clocks.iter().for_each(|clock| clock.advance(us));
    }

    pub(crate) fn node(&self, place: usize) -> &Arc<Node> {
        self.nodes[place].as_ref().unwrap()
    }

    /// The place of the node that leads a group, as most of those that run say.
    pub(crate) async fn leader(&self, group: GroupId) -> usize {
        let mut found = 0;
        eventually("a leader is known to a majority", || {
            let leaders: Vec<_> = self.nodes.iter().flatten().map(|node| leader_of(node, group)).collect();
            let most = leaders.iter().flatten().find(|one| leaders.iter().filter(|l| *l == &Some(**one)).count() >= 2);
            let place = most.map(|node| node.0 as usize - 1).filter(|place| self.nodes[*place].is_some());
            if let Some(place) = place {
                found = place;
            }
            async move { place.is_some() }
        })
        .await;
        found
    }

    /// Ends a node as kill -9 does: what it did not sync may be lost.
    pub(crate) async fn kill(&mut self, place: usize) {
        let image = self.disks[place].restart(place as u64);
        self.network.leave(&address(place));
        if let Some(node) = self.nodes[place].take() {
            let _ = node.shutdown().await;
        }
        self.disks[place] = Arc::new(image);
    }

    pub(crate) async fn restart(&mut self, place: usize) {
        self.nodes[place] = Some(self.open(place).await.unwrap());
    }

    pub(crate) async fn stop(self) {
        for node in self.nodes.into_iter().flatten() {
            node.shutdown().await.unwrap();
        }
    }
}

fn leader_of(node: &Node, group: GroupId) -> Option<NodeId> {
    node.replica_status().into_iter().find(|replica| replica.group == group).and_then(|replica| replica.leader)
}

fn table(node: &Arc<Node>, name: &str) -> Arc<Table> {
    find(node, name).unwrap()
}

/// Three nodes that hold the one segment of a table, and where that lies on their disks.
async fn with_one_segment() -> (Three, Arc<Table>, String) {
    let three = Three::start().await;
    three.node(0).create_table(events("t")).await.unwrap();
    let t = table(three.node(0), "t");
    insert(three.node(0), &t, rows("s", 0..100)).await.unwrap();
    three.node(0).flush().await.unwrap();
    for node in three.nodes.iter().flatten() {
        eventually("each node holds the segment", || async { !objects(node).await.is_empty() }).await;
    }
    let path = format!("segments/{}", objects(three.node(0)).await[0]);
    (three, t, path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_acknowledges_every_node_has() {
    let three = Three::start().await;
    for (place, name) in ["a", "b", "c"].into_iter().enumerate() {
        three.node(place).create_table(events(name)).await.unwrap();
        // No wait: whoever is asked next knows it.
        for node in three.nodes.iter().flatten() {
            assert!(find(node, name).is_some(), "table {name} on node {}", node.id());
        }
    }
    for round in 0..9 {
        let writer = three.node(round % 3);
        insert(writer, &table(writer, "a"), rows("s", round as i64 * 10..round as i64 * 10 + 10)).await.unwrap();
        let reader = three.node((round + 1) % 3);
        assert_eq!(read(reader, &table(reader, "a")).await, once("s", 0..round as i64 * 10 + 10), "round {round}");
    }
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_are_on_every_node_and_the_log_is_given_up() {
    let three = Three::start().await;
    let node = three.node(1);
    node.create_table(events("t")).await.unwrap();
    let t = table(node, "t");
    insert(node, &t, rows("s", 0..500)).await.unwrap();
    // From a node that need not lead.
    node.flush().await.unwrap();
    for node in three.nodes.iter().flatten() {
        eventually("each node holds the segments and has a checkpoint of its own", || async {
            let data = node.replica_status()[1];
            !objects(node).await.is_empty() && data.checkpoint > 0
        })
        .await;
        let snapshot = node.snapshot(&t).await.unwrap();
        assert!(snapshot.shards[0].memory.is_empty(), "all rows lie in segments on node {}", node.id());
        assert_eq!(count(node, &snapshot).await, once("s", 0..500));
    }
    let names = objects(three.node(0)).await;
    assert_eq!(objects(three.node(2)).await, names, "they hold the same segments");
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_statement_is_held_by_a_majority_before_it_commits() {
    let three = Three::start().await;
    let leader = three.leader(DATA).await;
    let writer = three.node((leader + 1) % 3);
    writer.create_table(events("t")).await.unwrap();
    let t = table(writer, "t");
    let mut statement = writer.begin();
    for part in 0..12 {
        statement.append(&t, wide_rows(part * 10..part * 10 + 10, 64 << 10)).await.unwrap();
    }
    statement.commit().await.unwrap();
    let mut holders = 0;
    for node in three.nodes.iter().flatten() {
        holders += usize::from(!objects(node).await.is_empty());
        let found = read(node, &t).await;
        assert_eq!(found.len(), 120, "node {} reads it, whether it has it yet or not", node.id());
    }
    assert!(holders >= 2);
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_dies_and_nothing_acknowledged_is_lost_or_doubled() {
    let mut three = Three::start().await;
    three.node(0).create_table(events("t")).await.unwrap();
    let mut next = 0;
    for round in 0..3 {
        let leader = three.leader(DATA).await;
        let writer = three.node((leader + 1) % 3).clone();
        let t = table(&writer, "t");
        // Statements run while the leader dies: each is acknowledged once, by this leader or the next.
        let first = next;
        let writing = tokio::spawn(async move {
            let mut at = first;
            for _ in 0..40 {
                insert(&writer, &t, rows("s", at..at + 5)).await.unwrap();
                at += 5;
            }
            at
        });
        tokio::time::sleep(Duration::from_millis(30)).await;
        three.kill(leader).await;
        next = writing.await.unwrap();
        three.restart(leader).await;
        for node in three.nodes.iter().flatten() {
            assert_eq!(read(node, &table(node, "t")).await, once("s", 0..next), "round {round}, node {}", node.id());
        }
    }
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_cut_off_acknowledges_nothing_and_reads_nothing_old() {
    let three = Three::start().await;
    three.node(0).create_table(events("t")).await.unwrap();
    let leader = three.leader(DATA).await;
    let (old, other) = (three.node(leader), three.node((leader + 1) % 3));
    let t = table(old, "t");
    insert(old, &t, rows("s", 0..10)).await.unwrap();
    three.network.isolate(&address(leader));
    // The others go on without it.
    insert(other, &t, rows("s", 10..20)).await.unwrap();
    let stale = tokio::time::timeout(Duration::from_secs(3), old.snapshot(&t)).await;
    assert!(stale.is_err() || stale.unwrap().is_err(), "a node without a majority reads nothing");
    let (node, table) = (old.clone(), t.clone());
    let lost = tokio::spawn(async move { insert(&node, &table, rows("lost", 0..10)).await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    three.network.mend();
    // Asked for again until somebody commits it: once.
    lost.await.unwrap().unwrap();
    for node in three.nodes.iter().flatten() {
        let mut expected = once("s", 0..20);
        expected.extend(once("lost", 0..10));
        assert_eq!(read(node, &t).await, expected, "node {}", node.id());
    }
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_gets_segments_first_and_then_the_snapshot() {
    let mut three = Three::start().await;
    three.node(0).create_table(events("t")).await.unwrap();
    let leader = three.leader(DATA).await;
    let away = (leader + 1) % 3;
    three.kill(away).await;
    let node = three.node(leader).clone();
    let t = table(&node, "t");
    for part in 0..4 {
        insert(&node, &t, rows("s", part * 100..part * 100 + 100)).await.unwrap();
        node.flush().await.unwrap();
    }
    node.compact(&t).await.unwrap();
    node.flush().await.unwrap();
    three.restart(away).await;
    let back = three.node(away);
    assert_eq!(read(back, &t).await, once("s", 0..400));
    let status = back.replica_status()[1];
    assert!(status.checkpoint > 0, "it came by a snapshot: {status:?}");
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_die_at_once_and_come_back_with_everything() {
    let mut three = Three::start().await;
    three.node(0).create_table(events("t")).await.unwrap();
    for round in 0..3i64 {
        let node = three.node(round as usize).clone();
        let t = table(&node, "t");
        insert(&node, &t, rows("s", round * 50..round * 50 + 50)).await.unwrap();
        if round == 1 {
            node.flush().await.unwrap();
        }
        for place in 0..3 {
            three.kill(place).await;
        }
        let (first, second, third) = tokio::join!(three.open(0), three.open(1), three.open(2));
        three.nodes = vec![Some(first.unwrap()), Some(second.unwrap()), Some(third.unwrap())];
        for node in three.nodes.iter().flatten() {
            assert_eq!(read(node, &table(node, "t")).await, once("s", 0..round * 50 + 50), "node {}", node.id());
        }
    }
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lead_is_handed_over_when_asked() {
    let three = Three::start().await;
    for group in [GroupId::CATALOG, DATA] {
        let leader = three.leader(group).await;
        let next = (leader + 1) % 3;
        // Asked of a third node.
        three.node((leader + 2) % 3).transfer_leader(group, NodeId(next as u64 + 1)).await.unwrap();
        assert_eq!(three.leader(group).await, next);
    }
    let stranger = three.node(0).transfer_leader(DATA, NodeId(9)).await.unwrap_err();
    assert!(stranger.to_string().contains("node 9 does not vote"), "{stranger}");
    assert!(matches!(&stranger, Error::NotInState { hint, .. } if hint.contains("annal.replicas")), "{stranger:?}");
    let unknown = three.node(0).transfer_leader(GroupId(99), NodeId(1)).await.unwrap_err();
    assert!(matches!(&unknown, Error::NotInState { .. }), "{unknown:?}");
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_on_one_node_is_found_and_mended_from_another() {
    let mut three = Three::start().await;
    three.node(0).create_table(events("t")).await.unwrap();
    let t = table(three.node(0), "t");
    insert(three.node(0), &t, rows("s", 0..300)).await.unwrap();
    three.node(0).flush().await.unwrap();
    for node in three.nodes.iter().flatten() {
        eventually("each holds the segment", || async { !objects(node).await.is_empty() }).await;
    }
    let clean = three.node(0).scrub(&t).await.unwrap();
    assert_eq!(clean.len(), 3);
    for found in &clean {
        let scrubbed = found.scrubbed.as_ref().unwrap();
        assert!(scrubbed.segments == 1 && scrubbed.mended.is_empty() && scrubbed.damaged.is_empty(), "{found:?}");
        assert!(found.differs.is_empty());
    }
    let name = objects(three.node(1)).await[0].clone();
    three.kill(1).await;
    three.disks[1].flip_bit(&format!("segments/{name}"), 100, 3).unwrap();
    three.restart(1).await;
    // Asked of another node than the damaged one.
    let found = three.node(2).scrub(&t).await.unwrap();
    assert_eq!(found[1].scrubbed.as_ref().unwrap().mended, [name]);
    assert!(found[0].scrubbed.as_ref().unwrap().mended.is_empty());
    for node in three.nodes.iter().flatten() {
        assert_eq!(read(node, &t).await, once("s", 0..300));
    }
    let again = three.node(2).scrub(&t).await.unwrap();
    assert!(again.iter().all(|found| found.scrubbed.as_ref().unwrap().mended.is_empty()), "{again:?}");
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_at_another_address_is_found() {
    let mut three = Three::start().await;
    three.node(0).create_table(events("t")).await.unwrap();
    three.kill(1).await;
    insert(three.node(0), &table(three.node(0), "t"), rows("s", 0..10)).await.unwrap();
    let address = "moved".to_owned();
    let transport = three.network.at(&address);
    let place = Place { transport, address, wanted: Some(NodeId(2)), ..Place::alone() };
    let options = options(three.disks[1].clone(), 1 << 30);
    let moved = Node::start(NodeOptions { place, clock: three.clocks[0].clone(), ..options }).await.unwrap();
    assert_eq!(read(&moved, &table(&moved, "t")).await, once("s", 0..10));
    assert_eq!(three.node(0).catalog().nodes[&NodeId(2)].address, "moved");
    moved.shutdown().await.unwrap();
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_in_good_order_hands_over_what_it_leads() {
    let mut three = Three::start().await;
    three.node(0).create_table(events("t")).await.unwrap();
    let leader = three.leader(DATA).await;
    let term = three.node(leader).replica_status()[1].term;
    let stopping = three.nodes[leader].take().unwrap();
    stopping.shutdown().await.unwrap();
    let other = three.node((leader + 1) % 3);
    insert(other, &table(other, "t"), rows("s", 0..10)).await.unwrap();
    let status = other.replica_status()[1];
    assert_eq!(status.term, term + 1, "one election, which was asked for: {status:?}");
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ddl_of_several_nodes_at_once_takes_turns() {
    let three = Three::start().await;
    let create = |place: usize| {
        let node = three.node(place).clone();
        async move {
            for number in 0..5 {
                node.create_table(events(&format!("t{place}_{number}"))).await.unwrap();
            }
        }
    };
    tokio::join!(create(0), create(1), create(2));
    for node in three.nodes.iter().flatten() {
        assert_eq!(node.catalog_linearizable().await.unwrap().tables.len(), 15, "node {}", node.id());
    }
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fourth_node_learns_and_takes_the_vote_of_one_that_is_removed() {
    let mut three = Three::start().await;
    three.node(0).create_table(events("t")).await.unwrap();
    let t = table(three.node(0), "t");
    insert(three.node(0), &t, rows("s", 0..20)).await.unwrap();
    let fourth = three.fourth().await;
    assert_eq!(fourth.id(), NodeId(4));
    assert_eq!(read(&fourth, &table(&fourth, "t")).await, once("s", 0..20), "a learner reads what was acknowledged");
    assert!(fourth.replica_status().iter().all(|replica| !replica.votes), "three vote");
    // Also a node that is dead can be taken out.
    let leader = three.leader(DATA).await;
    let gone = (leader + 1) % 3;
    three.kill(gone).await;
    fourth.remove_node(NodeId(gone as u64 + 1)).await.unwrap();
    eventually("the fourth votes", || async { fourth.replica_status().iter().all(|replica| replica.votes) }).await;
    insert(&fourth, &t, rows("s", 20..40)).await.unwrap();
    assert_eq!(read(three.node(leader), &t).await, once("s", 0..40));
    let unknown = fourth.remove_node(NodeId(77)).await.unwrap_err();
    assert!(unknown.to_string().contains("node 77 is not in the cluster"), "{unknown}");
    assert!(matches!(&unknown, Error::NotInState { .. }), "{unknown:?}");
    // Its id is not given again.
    let transport = three.network.at("impostor");
    let place = Place {
        transport,
        address: "impostor".to_owned(),
        join: vec![self::address(leader)],
        wanted: Some(NodeId(gone as u64 + 1)),
        ..Place::alone()
    };
    let impostor = NodeOptions {
        place,
        entropy: Arc::new(Entropy::seeded(99)),
        ..crate::support::options(Arc::new(SimulatedDisk::new(5)), 1 << 30)
    };
    let refused = Node::start(impostor).await.unwrap_err();
    assert!(refused.to_string().contains("ids are not given twice"), "{refused}");
    assert!(matches!(&refused, Error::NotInState { .. }), "{refused:?}");
    assert!(!three.node(leader).catalog().nodes.contains_key(&NodeId(gone as u64 + 1)));
    // It was removed while it was down: it learns of it from whomever it asks.
    let late =
        tokio::time::timeout(Duration::from_secs(20), three.open(gone)).await.expect("it does not wait for ever");
    assert!(matches!(&late, Err(Error::Removed(node)) if *node == NodeId(gone as u64 + 1)), "{late:?}");
    fourth.shutdown().await.unwrap();
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_removed_learns_of_it_also_when_it_was_cut_off() {
    let mut three = Three::start().await;
    three.node(0).create_table(events("t")).await.unwrap();
    let leader = three.leader(GroupId::CATALOG).await;
    let gone = (leader + 1) % 3;
    three.network.isolate(&address(gone));
    three.node(leader).remove_node(NodeId(gone as u64 + 1)).await.unwrap();
    let is_member = |node: &Node| node.replica_status().iter().all(|replica| replica.votes);
    eventually("one votes alone", || async {
        !is_member(three.node((leader + 2) % 3)) || is_member(three.node(leader))
    })
    .await;
    assert!(futures::poll!(Box::pin(three.node(gone).cast_out())).is_pending(), "nobody could tell it");
    three.network.mend();
    let learned = tokio::time::timeout(Duration::from_secs(20), three.node(gone).cast_out()).await;
    learned.expect("a node that is no member any more ends");
    let removed = three.nodes[gone].take().unwrap();
    removed.shutdown().await.unwrap();
    // One that removes itself gives up first what it leads.
    let own = three.leader(GroupId::CATALOG).await;
    three.node(own).remove_node(NodeId(own as u64 + 1)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), three.node(own).cast_out()).await.expect("it learns of it, too");
    three.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_waits_before_it_tries_again_to_reach_a_node() {
    let three = Three::start().await;
    let node = three.node(0);
    node.create_table(events("t")).await.unwrap();
    let leader = three.leader(DATA).await;
    three.network.isolate(&address((leader + 1) % 3));
    let (node, before) = (three.node(leader), three.network.refused());
    let t = table(node, "t");
    for at in 0..20 {
        insert(node, &t, rows("s", at..at + 1)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let tries = three.network.refused() - before;
    assert!(tries < 400, "{tries} tries to reach one node within two seconds");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_segment_is_fetched_from_a_node_that_has_it_whole() {
    let (mut three, t, path) = with_one_segment().await;
    // The first that the third node asks has it, but not as it was.
    three.disks[0].flip_bit(&path, 40, 3).unwrap();
    three.kill(2).await;
    storage::Disk::remove(&*three.disks[2], &path).await.unwrap();
    three.restart(2).await;
    assert_eq!(read(three.node(2), &t).await, once("s", 0..100));
    three.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_was_cut_off_under_a_reader_is_mended() {
    let (three, t, path) = with_one_segment().await;
    assert_eq!(read(three.node(1), &t).await, once("s", 0..100));
    let disk: &dyn storage::Disk = &*three.disks[1];
    let file = disk.open(&path, storage::disk::OpenMode::Write).await.unwrap();
    disk.set_len(file, 30).await.unwrap();
    disk.close(file).await.unwrap();
    let found = three.node(2).scrub(&t).await.unwrap();
    let mended = |found: &[cluster::NodeScrub]| {
        found.iter().map(|found| found.scrubbed.as_ref().unwrap().mended.len()).collect::<Vec<_>>()
    };
    assert_eq!(mended(&found), [0, 1, 0]);
    assert_eq!(read(three.node(1), &t).await, once("s", 0..100));
    // What is open is there as long as it is open, and only so long.
    disk.remove(&path).await.unwrap();
    assert_eq!(mended(&three.node(2).scrub(&t).await.unwrap()), [0, 1, 0]);
    assert!(three.disks[1].len_of(&path).unwrap() > 30);
    three.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_copied_data_directory_is_no_second_node() {
    let mut three = Three::start().await;
    three.node(0).create_table(events("t")).await.unwrap();
    let copy = Arc::new(three.disks[1].restart(1));
    let place = Place { transport: three.network.at("copy"), address: "copy".to_owned(), ..Place::alone() };
    let options = NodeOptions { place, ..options(copy, 1 << 30) };
    let refused = tokio::time::timeout(Duration::from_secs(60), Node::start(options)).await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("node 2 runs already, at node-2"), "{refused}");
    assert!(matches!(&refused, Error::NotInState { .. }), "{refused:?}");
    let t = table(three.node(1), "t");
    insert(three.node(1), &t, rows("s", 0..20)).await.unwrap();
    assert_eq!(three.node(0).catalog_linearizable().await.unwrap().nodes[&NodeId(2)].address, address(1));
    // It may move once it is there no more.
    three.kill(1).await;
    let place = Place { transport: three.network.at("moved"), address: "moved".to_owned(), ..Place::alone() };
    let moved = Node::start(NodeOptions { place, ..crate::support::options(three.disks[1].clone(), 1 << 30) });
    let moved = tokio::time::timeout(Duration::from_secs(60), moved).await.unwrap().unwrap();
    assert_eq!(read(&moved, &table(&moved, "t")).await, once("s", 0..20));
    moved.shutdown().await.unwrap();
    three.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_place_another_has_taken_is_down() {
    let mut three = Three::start().await;
    three.kill(2).await;
    let fourth = three.another(&address(2)).await;
    assert_eq!(fourth.id(), NodeId(4));
    let state = async |id: u64| three.node(0).nodes().await.iter().find(|node| node.node == NodeId(id)).unwrap().state;
    eventually("the fourth answers", || async { state(4).await == cluster::NodeState::Connected }).await;
    eventually("the third is down", || async { state(3).await == cluster::NodeState::Down }).await;
    assert_eq!(state(2).await, cluster::NodeState::Connected);
    fourth.shutdown().await.unwrap();
    three.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_majority_is_known_and_nodes_that_are_down_go_on_to_vote() {
    let mut three = Three::start().await;
    let has_quorum = |node: &Arc<Node>| node.replica_status().iter().all(|replica| replica.quorum);
    assert!(three.nodes.iter().flatten().all(has_quorum));
    three.kill(0).await;
    let other = three.node(1).clone();
    eventually("two of three are a majority", || async { has_quorum(&other) }).await;
    let nodes = other.nodes().await;
    assert!(nodes[0].replicas.is_none() && nodes[0].votes.iter().all(|(_, votes)| *votes), "{nodes:?}");
    assert_eq!(nodes[0].votes.len(), 2, "in each group");
    three.kill(2).await;
    let lost = || async { other.replica_status().iter().all(|replica| !replica.quorum) };
    eventually("one of three is none", lost).await;
    three.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_first_node_that_has_lost_its_disk_founds_no_second_cluster() {
    let mut three = Three::start().await;
    three.node(1).create_table(events("t")).await.unwrap();
    three.kill(0).await;
    three.disks[0] = Arc::new(SimulatedDisk::new(17));
    // It may be up before the others have called.
    let reason = match three.open_with(0, 1_000).await {
        Ok(mistaken) => {
            let reason = tokio::time::timeout(Duration::from_secs(20), mistaken.cast_out()).await;
            mistaken.shutdown().await.unwrap();
            reason.expect("the others look for their node there")
        }
        Err(reason) => reason,
    };
    assert!(matches!(&reason, Error::Mistaken(node) if *node == NodeId(1)), "{reason:?}");
    assert_eq!(three.node(1).catalog_linearizable().await.unwrap().nodes.len(), 3, "the others go on");
    three.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_starts_without_a_segment_that_nobody_gives_it_yet() {
    let (mut three, t, path) = with_one_segment().await;
    // The second has it no more, nor the third, whose vote is enough to go on; the first has it and is not there.
    for at in 0..3 {
        three.kill(at).await;
    }
    storage::Disk::remove(&*three.disks[1], &path).await.unwrap();
    storage::Disk::remove(&*three.disks[2], &path).await.unwrap();
    let (second, third) = tokio::join!(three.open(1), three.open(2));
    (three.nodes[1], three.nodes[2]) = (Some(second.unwrap()), Some(third.unwrap()));
    three.restart(0).await;
    assert_eq!(read(three.node(2), &t).await, once("s", 0..100));
    three.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_gets_what_was_merged_since_from_another_node() {
    let (three, t, path) = with_one_segment().await;
    let reading = three.node(1).snapshot(&t).await.unwrap();
    // As on a replica that was behind, and has not fetched it.
    storage::Disk::remove(&*three.disks[1], &path).await.unwrap();
    insert(three.node(0), &t, rows("later", 0..10)).await.unwrap();
    three.node(0).flush().await.unwrap();
    three.node(0).compact(&t).await.unwrap();
    let name = path.strip_prefix("segments/").unwrap().to_owned();
    eventually("nobody's manifest names it, nor a checkpoint", || async {
        insert(three.node(0), &t, rows("more", 0..1)).await.unwrap();
        three.node(0).flush().await.unwrap();
        let names = async |node: &Arc<Node>| {
            let snapshot = node.snapshot(&t).await.unwrap();
            snapshot.shards[0].segments.iter().any(|segment| segment.meta.name == name)
        };
        let mut named = false;
        for node in three.nodes.iter().flatten() {
            named |= names(node).await;
        }
        !named
    })
    .await;
    assert_eq!(count(three.node(1), &reading).await, once("s", 0..100));
    drop(reading);
    eventually("it goes with a checkpoint, once it has lingered", || async {
        insert(three.node(0), &t, rows("more", 0..1)).await.unwrap();
        three.node(0).flush().await.unwrap();
        tokio::time::advance(Duration::from_secs(5)).await;
        let mut there = false;
        for node in three.nodes.iter().flatten() {
            there |= objects(node).await.contains(&name);
        }
        !there
    })
    .await;
    three.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_nothing_names_after_a_restart_stays_as_long_as_another_node_may_count_on_it() {
    let mut three = Three::start().await;
    three.node(0).create_table(events("t")).await.unwrap();
    let t = table(three.node(0), "t");
    let held = object_store::path::Path::from("16384/1/5/held-for-a-statement.parquet");
    three.node(1).segment_store().put_opts(&held, "PAR1PAR1".into(), Default::default()).await.unwrap();
    three.kill(1).await;
    three.restart(1).await;
    let flush = async |three: &Three, value: i64| {
        insert(three.node(0), &t, rows("s", value..value + 1)).await.unwrap();
        three.node(0).flush().await.unwrap();
    };
    for value in 0..3 {
        flush(&three, value).await;
        let checkpoint = three.node(0).replica_status()[1].checkpoint;
        eventually("it has a newer checkpoint, and has collected", || async {
            three.node(1).replica_status()[1].checkpoint >= checkpoint
        })
        .await;
        assert!(objects(three.node(1)).await.contains(&held.to_string()), "another node's log may name it");
    }
    tokio::time::advance(Duration::from_secs(601)).await;
    eventually("it is gone", || async {
        flush(&three, 3).await;
        !objects(three.node(1)).await.contains(&held.to_string())
    })
    .await;
    three.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_disk_was_put_back_to_an_older_state_is_counted_no_more() {
    let mut three = Three::start().await;
    three.node(0).create_table(events("t")).await.unwrap();
    let t = table(three.node(0), "t");
    insert(three.node(0), &t, rows("before", 0..10)).await.unwrap();
    let older = three.disks[1].restart(1);
    insert(three.node(0), &t, rows("since", 0..10)).await.unwrap();
    let replica = |node: &Arc<Node>| node.replica_status().into_iter().find(|replica| replica.group == DATA).unwrap();
    let leader = replica(three.node(0)).leader;
    assert_eq!(leader, Some(NodeId(1)));
    let term = replica(three.node(0)).term;
    let has_all = || async { replica(three.node(1)).applied == replica(three.node(0)).applied };
    eventually("the second has acknowledged them", has_all).await;
    three.kill(1).await;
    three.disks[1] = Arc::new(older);
    // It may be up before its leader has called.
    let reason = match three.open(1).await {
        Ok(put_back) => {
            let reason = tokio::time::timeout(Duration::from_secs(20), put_back.cast_out()).await;
            put_back.shutdown().await.unwrap();
            reason.expect("its leader knows what it had acknowledged")
        }
        Err(reason) => reason,
    };
    assert!(matches!(&reason, Error::PutBack { acknowledged, here, .. } if here < acknowledged), "{reason:?}");
    assert_eq!(replica(three.node(0)).term, term, "its leader goes on");
    insert(three.node(2), &t, rows("after", 0..10)).await.unwrap();
    assert_eq!(read(three.node(2), &t).await.len(), 30);
    three.stop().await;
}
