//! `annal.nodes` and `annal.replicas`: the cluster as the node that is asked finds it now.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use cluster::{NodeStatus, ReplicaStatus};
use datafusion::error::Result;
use event::GroupId;

use super::columns::{self, batch, bigint, bigints, boolean, booleans, text, texts};

pub(super) fn schema() -> SchemaRef {
    columns::schema(vec![
        bigint("node"),
        text("state"),
        text("cluster_address"),
        text("sql_address"),
        bigint("boot"),
        boolean("own"),
    ])
}

/// One row for each node of the catalog.
pub(super) fn rows(nodes: &[NodeStatus]) -> Result<RecordBatch> {
    let columns = vec![
        bigints(nodes.iter().map(|n| Some(n.node.0))),
        texts(nodes.iter().map(|n| Some(n.state.name()))),
        texts(nodes.iter().map(|n| Some(&n.record.address))),
        texts(nodes.iter().map(|n| Some(&n.record.sql_address))),
        bigints(nodes.iter().map(|n| Some(n.record.boot))),
        booleans(nodes.iter().map(|n| Some(n.own))),
    ];
    batch(schema(), columns)
}

pub(super) fn replica_schema() -> SchemaRef {
    columns::schema(vec![
        bigint("node"),
        bigint("group_id"),
        bigint("leader"),
        bigint("term"),
        boolean("votes"),
        bigint("last_index"),
        bigint("committed"),
        bigint("applied"),
        bigint("checkpoint"),
        bigint("lag"),
    ])
}

/// A replica as its node says it is, or as others know it when that does not answer.
struct Replica {
    node: u64,
    group: GroupId,
    votes: bool,
    status: Option<ReplicaStatus>,
}

impl Replica {
    /// Those of a node.
    fn of(node: &NodeStatus) -> Vec<Replica> {
        let number = node.node.0;
        match &node.replicas {
            Some(replicas) => {
                let said =
                    |r: &ReplicaStatus| Replica { node: number, group: r.group, votes: r.votes, status: Some(*r) };
                replicas.iter().map(said).collect()
            }
            None => {
                let known = |(group, votes): &(GroupId, bool)| Replica {
                    node: number,
                    group: *group,
                    votes: *votes,
                    status: None,
                };
                node.votes.iter().map(known).collect()
            }
        }
    }
}

/// One row for each replica of each node; of a node that does not answer only what others know.
pub(super) fn replica_rows(nodes: &[NodeStatus]) -> Result<RecordBatch> {
    let replicas: Vec<Replica> = nodes.iter().flat_map(Replica::of).collect();
    let newest = |group: GroupId| {
        replicas.iter().filter_map(|r| r.status).filter(|s| s.group == group).map(|s| s.committed).max()
    };
    let number =
        |f: &dyn Fn(&ReplicaStatus) -> Option<u64>| bigints(replicas.iter().map(|r| r.status.as_ref().and_then(f)));
    let columns = vec![
        bigints(replicas.iter().map(|r| Some(r.node))),
        bigints(replicas.iter().map(|r| Some(r.group.0))),
        number(&|r| r.leader.map(|leader| leader.0)),
        number(&|r| Some(r.term)),
        booleans(replicas.iter().map(|r| Some(r.votes))),
        number(&|r| Some(r.last)),
        number(&|r| Some(r.committed)),
        number(&|r| Some(r.applied)),
        number(&|r| Some(r.checkpoint)),
        // Behind the newest entry that any node knows to be committed.
        number(&|r| newest(r.group).map(|newest| newest.saturating_sub(r.applied))),
    ];
    batch(replica_schema(), columns)
}
