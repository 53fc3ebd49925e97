//! What nodes say of the machines they run on: the clock, and whether the disk has room.
//!
//! A clock may be wrong and a disk full on one machine alone. Who leads a group asks the others before it forgets rows for their age, and before
//! it gives them a group.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use event::NodeId;
use futures::future::join_all;
use serde::{Deserialize, Serialize};

use crate::message::{Request, from_json};
use crate::node::Node;
use crate::transport::Lane;

/// How long the answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// The state of the machine of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostStatus {
    /// Its clock, in microseconds since 1970.
    pub(crate) now_us: i64,
    /// Whether its disk has no room for the log or for segments: who leads there refuses rows.
    pub(crate) is_full: bool,
}

impl Node {
    /// The state of this node's machine.
    pub(crate) fn host_status(&self) -> HostStatus {
        let no_segments = self.data.values().any(|data| data.disk_full.load(Ordering::Relaxed));
        HostStatus { now_us: self.clock.now_us(), is_full: no_segments || self.log.is_full() }
    }

    /// The state of the machine of another node; `None` when it does not answer.
    pub(crate) async fn ask_host(&self, node: NodeId) -> Option<HostStatus> {
        let answer = self.network.call(node, Lane::Heartbeat, &Request::Host, ANSWER_WAIT).await.ok()?;
        from_json(&answer).ok()
    }

    /// The time that most of these nodes agree has come, in microseconds since 1970; `None` when most of them do not answer. One clock that is
    /// ahead of the others' does not matter, one that is behind neither.
    pub(crate) async fn agreed_now_us(&self, nodes: &BTreeSet<NodeId>) -> Option<i64> {
        let ask = |node: &NodeId| {
            let node = *node;
            async move {
                let own = node == self.identity.node;
                if own { Some(self.host_status()) } else { self.ask_host(node).await }
            }
        };
        let answers = join_all(nodes.iter().map(ask)).await.into_iter().flatten();
        agreed(answers.map(|host| host.now_us).collect(), nodes.len())
    }
}

/// The lower median of the times that were told, when most of those asked told theirs.
fn agreed(mut times: Vec<i64>, asked: usize) -> Option<i64> {
    if times.len() * 2 <= asked {
        return None;
    }
    times.sort_unstable();
    times.get((times.len() - 1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_clock_decides_nothing() {
        assert_eq!(agreed(vec![100, 101, 4_000], 3), Some(101), "ahead");
        assert_eq!(agreed(vec![100, 101, -4_000], 3), Some(100), "behind");
        assert_eq!(
            agreed(vec![100, 4_000], 3),
            Some(100),
            "one does not answer: which of the two is right nobody knows"
        );
        assert_eq!(agreed(vec![4_000], 3), None);
        assert_eq!(agreed(vec![100], 1), Some(100));
        assert_eq!(agreed(vec![1, 2, 3, 4], 4), Some(2));
        assert_eq!(agreed(vec![1, 2], 4), None);
    }
}
