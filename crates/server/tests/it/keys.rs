//! Keys hold whoever writes at once: of many clients one gets a key, and no update of it is lost. Also after kill -9.

use std::collections::BTreeMap;

use futures::future::join_all;
use tokio_postgres::Client;

use crate::TestServer;

const CLIENTS: usize = 3;
const KEYS: i32 = 6;

/// Which keys this client got; all others were refused as taken.
async fn take_all(client: Client, who: usize) -> Vec<i32> {
    let mut got = Vec::new();
    for step in 0..KEYS {
        // Each begins elsewhere.
        let key = (step + who as i32 * 5) % KEYS;
        match client.execute(&format!("INSERT INTO taken VALUES ({key}, 'client {who}')"), &[]).await {
            Ok(1) => got.push(key),
            Ok(rows) => panic!("{rows} rows of one"),
            Err(error) => assert_eq!(error.code().unwrap().code(), "23505", "{error}"),
        }
    }
    got
}

async fn count_up(client: Client) {
    let statement = "INSERT INTO counted AS c VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET n = c.n + excluded.n";
    let statement = client.prepare(statement).await.unwrap();
    for step in 0..KEYS {
        assert_eq!(client.execute(&statement, &[&(step % 3)]).await.unwrap(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_gets_a_key_and_no_update_is_lost() {
    let mut server = TestServer::start().await;
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE taken (id integer PRIMARY KEY, who text)").await.unwrap();
    client.batch_execute("CREATE TABLE counted (id integer PRIMARY KEY, n bigint)").await.unwrap();
    let clients = join_all((0..CLIENTS * 2).map(|_| server.connect())).await;
    let (takers, counters): (Vec<_>, Vec<_>) = clients.into_iter().enumerate().partition(|(at, _)| at % 2 == 0);
    let takers = join_all(takers.into_iter().map(|(at, client)| take_all(client, at)));
    let counters = join_all(counters.into_iter().map(|(_, client)| count_up(client)));
    let (got, _) = tokio::join!(takers, counters);
    let mut winners = BTreeMap::new();
    for (at, keys) in got.iter().enumerate() {
        for key in keys {
            assert_eq!(winners.insert(*key, format!("client {}", at * 2)), None, "two clients got {key}");
        }
    }
    assert_eq!(winners.len(), KEYS as usize, "every key was got by somebody");

    server.kill().await;
    server.restart().await;
    let client = server.connect().await;
    let rows = client.query("SELECT id, who FROM taken", &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| (row.get(0), row.get(1))).collect::<BTreeMap<i32, String>>(), winners);
    let rows = client.query("SELECT id, n FROM counted ORDER BY id", &[]).await.unwrap();
    let each = i64::from(KEYS / 3) * CLIENTS as i64;
    let counted: Vec<(i32, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(counted, [(0, each), (1, each), (2, each)]);
    let refused = client.execute("INSERT INTO taken VALUES (3, 'late')", &[]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "23505");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_lost_a_key_meanwhile_is_refused() {
    let server = TestServer::start().await;
    let (mut one, other) = (server.connect().await, server.connect().await);
    other.batch_execute("CREATE TABLE t (id integer PRIMARY KEY, note text)").await.unwrap();
    let block = one.transaction().await.unwrap();
    block.execute("INSERT INTO t VALUES (1, 'block')", &[]).await.unwrap();
    other.execute("INSERT INTO t VALUES (1, 'other')", &[]).await.unwrap();
    let refused = block.commit().await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "23505");
    let rows = one.query("SELECT note FROM t", &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<&str>>(), ["other"]);
}
