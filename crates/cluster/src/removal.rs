//! A node that was taken out of the cluster learns of it, and ends: nobody listens to it any more, and it would ask for ever.
//!
//! It learns from its own catalog, when the entry that removes it still reaches it; from the refusal of whatever it asks of another node; and,
//! since one that neither votes nor serves clients asks nothing, by asking when it has heard from nobody for a while. Ids are never given
//! twice, so that who says once that a node was removed is right for ever. As long as it votes it goes on, and is heard: its group may need it
//! to give its vote to another.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::error::Error;
use crate::message::Request;
use crate::network::Network;
use crate::node::Node;

/// Between two looks.
const TICK: Duration = Duration::from_millis(500);
/// A node that has not heard from any other for so long asks.
const ALONE: Duration = Duration::from_secs(3);
/// How long the answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// Runs until the node is known to be removed, or is gone. `seeds` are addresses of nodes, for one that has no catalog yet.
pub(crate) async fn watch(network: Weak<Network>, seeds: Vec<String>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(network) = Weak::upgrade(&network) else { return };
        if network.is_outcast() {
            return;
        }
        if network.alone_for() > ALONE {
            ask(&network, &seeds).await;
        }
    }
}

/// Asks other nodes anything at all.
async fn ask(network: &Arc<Network>, seeds: &[String]) {
    let mut addresses = network.other_addresses();
    addresses.extend(seeds.iter().cloned());
    let asked = addresses.iter().map(|address| network.ask(address, &Request::Status, ANSWER_WAIT));
    // Who is refused for having been removed is told so by the network; nothing else matters.
    futures::future::join_all(asked).await;
}

impl Node {
    /// Looks in the catalog.
    pub(crate) fn look_for_own_removal(&self) {
        let own = self.identity.node;
        let may_vote = || {
            let data = self.data.values().any(|data| data.group.voters().contains(&own));
            data || self.catalog.voters().contains(&own)
        };
        if self.network.was_removed(own) && !may_vote() {
            self.network.note_removed();
        }
    }

    /// Completes once this node is known to have been taken out of the cluster, with [`Error::Removed`]: it then gets nothing any more, and has to
    /// end; what it acknowledged is with the others. Or with [`Error::Mistaken`], when it holds nothing and another cluster looks for a node
    /// of its own here; or with [`Error::PutBack`], when its data directory is an older one.
    pub async fn cast_out(&self) -> Error {
        self.network.cast_out().await
    }
}
