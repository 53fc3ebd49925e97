//! Queries that never end and hardly yield must not keep anybody else from being served.

use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use crate::TestServer;

/// Rows on each side of the endless join: its pairs take hours.
const SIDE_ROWS: usize = 300_000;

/// No equality to hash by: every pair is looked at.
const ENDLESS: &str = "SELECT count(*) FROM side a JOIN side b ON a.n * b.n < a.n - b.n";

/// More than the query runtime has threads on most machines.
const ENDLESS_QUERIES: usize = 12;

/// Makes the table of [`ENDLESS`].
async fn make_side(server: &TestServer) {
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE IF NOT EXISTS side (n bigint)").await.unwrap();
    let sink = client.copy_in("COPY side FROM STDIN").await.unwrap();
    let rows: String = (1..=SIDE_ROWS).map(|n| format!("{n}\n")).collect();
    let mut sink = std::pin::pin!(sink);
    futures::SinkExt::send(&mut sink, bytes::Bytes::from(rows)).await.unwrap();
    sink.finish().await.unwrap();
}

/// A query that runs for hours, once it is known to run.
pub(crate) async fn begin_endless_query(server: &TestServer) -> JoinHandle<Result<(), tokio_postgres::Error>> {
    make_side(server).await;
    let running = queries_begun(server).await;
    let client = server.connect().await;
    let query = tokio::spawn(async move { client.batch_execute(ENDLESS).await });
    while queries_begun(server).await <= running {
        assert!(!query.is_finished(), "the endless query ended early");
        tokio::task::yield_now().await;
    }
    query
}

/// Statements that clients have begun, as `/metrics` tells.
async fn queries_begun(server: &TestServer) -> u64 {
    let (_, page) = server.http_get("/metrics").await;
    let line = page.lines().find(|line| line.starts_with("annal_statements_total "));
    let line = line.unwrap_or_else(|| panic!("statements are counted in\n{page}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_joins_delay_no_login_query_cancel_or_heartbeat() {
    let server = TestServer::start().await;
    make_side(&server).await;
    let term_before = term(&server).await;
    let mut endless = Vec::new();
    for _ in 0..ENDLESS_QUERIES {
        let client = server.connect().await;
        let cancel = client.cancel_token();
        endless.push((cancel, tokio::spawn(async move { client.batch_execute(ENDLESS).await })));
    }
    // Both burn all cores while these are answered.
    for _ in 0..20 {
        assert_eq!(server.http_get("/readyz").await.0, 200);
        let count: i64 = server.connect().await.query_one("SELECT count(*) FROM side", &[]).await.unwrap().get(0);
        assert_eq!(count, SIDE_ROWS as i64);
    }
    // There are more query threads than two joins can hold.
    let row = server.connect().await.query_one("SELECT 1::bigint", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 1);
    for (cancel, query) in endless {
        assert!(!query.is_finished(), "the endless query ended early");
        let stream = TcpStream::connect(server.address()).await.unwrap();
        cancel.cancel_query_raw(stream, NoTls).await.unwrap();
        let error = query.await.unwrap().expect_err("the query was cancelled");
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{error}");
    }
    // A missed heartbeat would have brought an election, and that a new term.
    assert_eq!(term(&server).await, term_before);
    server.connect().await.batch_execute("INSERT INTO side VALUES (0)").await.unwrap();
}

async fn term(server: &TestServer) -> i64 {
    let row = server.connect().await.query_one("SELECT max(term)::bigint FROM annal.shards", &[]).await.unwrap();
    row.get(0)
}
