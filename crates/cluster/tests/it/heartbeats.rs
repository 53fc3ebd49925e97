//! What a cluster says while nobody asks anything.

use std::time::Duration;

use crate::support::events;
use crate::three::Three;

/// Messages between the nodes in a while without statements.
async fn messages(three: &Three) -> u64 {
    // What the last statement left to do.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = three.network.messages();
    tokio::time::sleep(Duration::from_secs(3)).await;
    three.network.messages() - before
}

// By the test's own time, which passes only while nobody has anything to do.
#[tokio::test(start_paused = true)]
async fn many_tables_cost_no_more_heartbeats_than_few() {
    let three = Three::with_groups(3).await;
    for table in 0..5 {
        three.node(0).create_table(events(&format!("t{table}"))).await.unwrap();
    }
    let few = messages(&three).await;
    for table in 5..200 {
        three.node(table % 3).create_table(events(&format!("t{table}"))).await.unwrap();
    }
    let many = messages(&three).await;
    assert!(few > 0 && many <= few + few / 2, "{few} messages with 5 tables, {many} with 200");
    three.stop().await;
}
