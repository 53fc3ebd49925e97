//! `annal.shards`: where each shard lives and how far its group is.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use cluster::{Catalog, NodeState, NodeStatus, ShardStatus};
use datafusion::error::Result;
use event::TableDefinition;

use super::columns::{self, batch, bigint, bigints, text, texts};

pub(super) fn schema() -> SchemaRef {
    columns::schema(vec![
        bigint("shard"),
        text("table_schema"),
        text("table_name"),
        bigint("group_id"),
        bigint("leader"),
        bigint("term"),
        bigint("committed"),
        bigint("applied"),
        bigint("lag"),
        bigint("voters"),
        bigint("voters_connected"),
        text("quorum"),
    ])
}

/// How many voters a group can still do without: `whole` when as many vote as are wanted and all answer, `degraded` while a majority of those that
/// vote does, else `lost`.
fn quorum(wanted: usize, voters: usize, connected: usize) -> &'static str {
    match connected {
        connected if connected == voters && voters >= wanted => "whole",
        connected if connected > voters / 2 => "degraded",
        _ => "lost",
    }
}

/// One row for each shard; `nodes` as they answer now.
pub(super) fn rows(catalog: &Catalog, shards: &[ShardStatus], nodes: &[NodeStatus]) -> Result<RecordBatch> {
    let is_connected = |node: &NodeStatus| node.state == NodeState::Connected;
    let connected = |s: &ShardStatus| nodes.iter().filter(|n| is_connected(n) && s.voters.contains(&n.node)).count();
    let table = |status: &ShardStatus| catalog.tables.get(&status.table);
    // Nodes that are not there are not missed.
    let wanted = |s: &ShardStatus| table(s).map_or(0, |t| t.definition.replicas.count()).min(nodes.len());
    let name =
        |f: &dyn Fn(&TableDefinition) -> String| texts(shards.iter().map(|s| table(s).map(|t| f(&t.definition))));
    let number = |f: &dyn Fn(&ShardStatus) -> Option<u64>| bigints(shards.iter().map(f));
    let columns = vec![
        number(&|s| Some(s.shard.0)),
        name(&|d| d.namespace.clone()),
        name(&|d| d.name.clone()),
        number(&|s| Some(s.group.0)),
        number(&|s| s.leader.map(|leader| leader.0)),
        number(&|s| Some(s.term)),
        number(&|s| Some(s.committed)),
        number(&|s| Some(s.applied)),
        number(&|s| Some(s.committed.saturating_sub(s.applied))),
        number(&|s| Some(s.voters.len() as u64)),
        number(&|s| Some(connected(s) as u64)),
        texts(shards.iter().map(|s| Some(quorum(wanted(s), s.voters.len(), connected(s))))),
    ];
    batch(schema(), columns)
}

#[cfg(test)]
mod tests {
    use super::quorum;

    #[test]
    fn a_majority_is_more_than_half() {
        assert_eq!([3, 2, 1, 0].map(|connected| quorum(3, 3, connected)), ["whole", "degraded", "lost", "lost"]);
        assert_eq!([5, 3, 2].map(|connected| quorum(3, 5, connected)), ["whole", "degraded", "lost"]);
        assert_eq!(quorum(1, 1, 1), "whole");
    }

    #[test]
    fn one_voter_of_two_nodes_is_not_all_there_could_be() {
        assert_eq!([1, 0].map(|connected| quorum(2, 1, connected)), ["degraded", "lost"]);
    }
}
