//! Looking for damage while the cluster works: every replica reads all its segments, and replicas at one index must have one state.
//!
//! A damaged segment is replaced by another node's; one that no node has sound is named. What differs between replicas that have applied the
//! same entries is never mended by itself: which of them is right only the log knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use event::{GroupId, NodeId, ShardId, TableId};
use serde::{Deserialize, Serialize};
use storage::Error as StorageError;
use tokio_util::task::AbortOnDropHandle;

use crate::catalog::Table;
use crate::error::Error;
use crate::message::{Request, from_json};
use crate::node::Node;
use crate::transport::Lane;

/// Reading everything takes its time.
const SCRUB_WAIT: Duration = Duration::from_secs(3600);

/// What one node found of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrubbed {
    /// Segments read.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segments that were damaged or missing, and are another node's by now.
    pub mended: Vec<String>,
    /// Segments that are damaged, and why.
    pub damaged: Vec<String>,
    /// Of each shard: the index it stands at, and a checksum of its state.
    pub states: Vec<(ShardId, u64, u32)>,
}

/// What a scrub of a table found on one node.
#[derive(Debug)]
pub struct NodeScrub {
    /// The node.
    pub node: NodeId,
    /// What it found; an error when it did not answer.
    pub scrubbed: Result<Scrubbed, Error>,
    /// Shards whose state is another than that of the leader's replica at the same index.
    pub differs: Vec<ShardId>,
}

impl Node {
    /// Reads all segments of a table on every node that can be reached, mends what another node has sound, and compares the replicas.
    ///
    /// # Errors
    /// When the table's group has no leader.
    pub async fn scrub(&self, table: &Table) -> Result<Vec<NodeScrub>, Error> {
        let groups: Vec<GroupId> = table.shards.iter().map(|placement| placement.group).collect();
        let request = Request::Scrub { table: table.definition.id };
        let mut found = vec![(self.identity.node, self.scrub_here(table.definition.id).await)];
        // One node at a time: it costs the disk of each.
        for node in self.network.others() {
            let answer = self.network.call(node, Lane::Bulk, &request, SCRUB_WAIT).await;
            let scrubbed = answer.map_err(|error| Error::Peer(error.to_string()));
            found.push((node, scrubbed.and_then(|bytes| from_json(&bytes).map_err(Error::Peer))));
        }
        found.sort_by_key(|(node, _)| *node);
        let leaders: Vec<NodeId> =
            groups.iter().filter_map(|group| self.data.get(group).and_then(|data| data.group.leader())).collect();
        let states = found.iter().filter_map(|(node, found)| Some((*node, found.as_ref().ok()?.states.clone())));
        let differs = differing(&states.collect(), &leaders);
        let scrub = |(node, scrubbed): (NodeId, Result<Scrubbed, Error>)| {
            let differs = differs.get(&node).cloned().unwrap_or_default();
            NodeScrub { node, scrubbed, differs }
        };
        Ok(found.into_iter().map(scrub).collect())
    }

    /// The part of this node, for another one: by the threads that may be busy for long.
    pub(crate) async fn scrub_aside(self: Arc<Self>, table: TableId) -> Result<Scrubbed, Error> {
        let encode = self.encode.clone();
        let scrubbed = AbortOnDropHandle::new(encode.spawn(async move { self.scrub_here(table).await }));
        scrubbed.await.map_err(|error| Error::ShuttingDown(error.to_string()))?
    }

    /// The part of this node.
    pub(crate) async fn scrub_here(&self, table: TableId) -> Result<Scrubbed, Error> {
        let mut scrubbed = Scrubbed::default();
        for data in self.data.values() {
            // What was acknowledged before is looked at, wherever this node is.
            self.read_barrier(&data.group).await?;
            let reader = data.reader();
            for (shard, definition) in reader.shards() {
                if definition.id != table {
                    continue;
                }
                let (mut cut, view) = reader.cut_of(&[shard]);
                let Some((_, snapshot)) = cut.pop().flatten() else { continue };
                if view.is_whole() {
                    scrubbed.states.push((shard, snapshot.index, snapshot.checksum()));
                }
                for segment in &snapshot.segments {
                    let meta = &segment.meta;
                    scrubbed.segments += 1;
                    scrubbed.bytes += meta.bytes;
                    // One that was never here is fetched as it would have been sooner or later.
                    let was_here = self.copies.is_held(&meta.name) || self.store.is_here(&meta.name).await;
                    match self.store.verify_or_mend(meta).await {
                        Ok(true) if was_here => scrubbed.mended.push(meta.name.clone()),
                        Ok(_) => {}
                        Err(error @ StorageError::Corrupt { .. }) => scrubbed.damaged.push(error.to_string()),
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        Ok(scrubbed)
    }
}

/// The shards of each node that are not as on a leader at the same index.
fn differing(
    states: &BTreeMap<NodeId, Vec<(ShardId, u64, u32)>>,
    leaders: &[NodeId],
) -> BTreeMap<NodeId, Vec<ShardId>> {
    let right: Vec<(ShardId, u64, u32)> =
        leaders.iter().filter_map(|leader| states.get(leader)).flatten().copied().collect();
    let differs = |(shard, index, checksum): &(ShardId, u64, u32)| {
        right.iter().any(|(other, at, sum)| other == shard && at == index && sum != checksum)
    };
    let of =
        |states: &Vec<(ShardId, u64, u32)>| states.iter().filter(|s| differs(s)).map(|(shard, ..)| *shard).collect();
    states.iter().map(|(node, states)| (*node, of(states))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_at_one_index_have_one_state() {
        let shard = ShardId(1);
        let states =
            [(NodeId(1), vec![(shard, 7, 5)]), (NodeId(2), vec![(shard, 7, 6)]), (NodeId(3), vec![(shard, 6, 4)])];
        let found = differing(&states.into(), &[NodeId(1)]);
        assert_eq!(found[&NodeId(2)], [shard]);
        assert!(found[&NodeId(1)].is_empty() && found[&NodeId(3)].is_empty(), "another index says nothing");
    }
}
