//! A node for the tests of its parts.

use std::sync::Arc;

use event::{Entropy, SimulatedClock, limits};
use storage::Disk;
use tokio::runtime::Handle;

use crate::memory::MemoryBudget;
use crate::node::{Node, NodeOptions, Place};

/// Where its clock stands.
pub(crate) const START_US: i64 = 1_356_998_400_000_000;
const MEMORY_BYTES: usize = 1 << 28;

/// A node that is alone, with so many data groups when the disk is empty.
pub(crate) async fn start(disk: Arc<dyn Disk>, data_groups: usize) -> Arc<Node> {
    let options = NodeOptions {
        disk,
        clock: Arc::new(SimulatedClock::at(START_US)),
        entropy: Arc::new(Entropy::seeded(7)),
        consensus: Handle::current(),
        encode: Handle::current(),
        seal_bytes: limits::SEAL_BYTES,
        data_groups,
        lease_reads: false,
        log_file_bytes: limits::LOG_FILE_BYTES,
        memory: MemoryBudget::new(MEMORY_BYTES),
        remote: None,
        place: Place::alone(),
    };
    Node::start(options).await.expect("a node that is alone starts")
}
