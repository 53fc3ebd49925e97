//! Syncs fail on one of three nodes: it ends with its exit code, the others go on, and it follows again when it is started again.

use std::process::{Child, Command, Stdio};

use crate::TestCluster;
use crate::load::{BETWEEN, under_load};
use crate::sync_failure::EXIT_NODE_FAILED;

/// From now on every sync of the process fails with EIO; ends with it.
struct FailingSyncs(Child);

impl FailingSyncs {
    fn of(pid: u32) -> FailingSyncs {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-q", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]);
        strace.args(["-e", "inject=fsync,fdatasync:error=EIO", "-p", &pid.to_string()]);
        FailingSyncs(strace.stdin(Stdio::null()).spawn().expect("scripts/setup-tests.sh installs strace"))
    }
}

impl Drop for FailingSyncs {
    fn drop(&mut self) {
        let _ended_with_the_process = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_syncs_fail_ends_and_the_others_go_on() {
    under_load(TestCluster::start().await, async |cluster, load| {
        for leads in [true, false] {
            let leader = cluster.leader(0).await;
            let place = if leads { leader } else { (leader + 1) % 3 };
            let syncs = FailingSyncs::of(cluster.node(place).pid());
            assert_eq!(cluster.node_mut(place).ended().await.code(), Some(EXIT_NODE_FAILED));
            drop(syncs);
            load.more(BETWEEN).await;
            cluster.node_mut(place).restart().await;
            load.find(cluster);
            load.more(BETWEEN).await;
        }
    })
    .await;
}
