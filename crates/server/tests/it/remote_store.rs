//! Segments in an S3-compatible store: written there, read through copies here, deleted there. The store is moto's server.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::Client;

use crate::TestServer;
use crate::ports::free_port;
use crate::python::environment;

const BUCKET: &str = "annal-test";
/// Rows of a COPY that goes the bulk way.
const BULK_ROWS: u64 = 120_000;
/// Rows of each INSERT.
const INSERT_ROWS: i64 = 20;

/// A store that forgets everything when it is dropped.
struct S3 {
    child: Child,
    address: SocketAddr,
}

impl S3 {
    async fn start() -> S3 {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut command = Command::new(environment().join("bin/moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &free.port().to_string()]).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let store = S3 { child: child.expect("scripts/setup-tests.sh prepares the store"), address: free };
        while TcpStream::connect(free).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        store.request("PUT", &format!("/{BUCKET}")).await;
        store
    }

    async fn request(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        response
    }

    /// Names of all objects.
    async fn objects(&self) -> Vec<String> {
        let listed = self.request("GET", &format!("/{BUCKET}?list-type=2")).await;
        let names = listed.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap().to_owned());
        names.collect()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Files below a directory, with their lengths.
fn files(directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.clone(), path.metadata().unwrap().len())),
        }
    }
    found
}

async fn figures(client: &Client) -> (i64, i64, i64) {
    let row = client.query_one("SELECT count(*), sum(n)::bigint, count(DISTINCT n) FROM e", &[]).await.unwrap();
    (row.get(0), row.get(1), row.get(2))
}

/// The bulk way and the way over memory.
async fn load(client: &Client) -> (i64, i64, i64) {
    let create = "CREATE TABLE e (ts timestamptz NOT NULL, n bigint, pad text) WITH (split_interval = '1 day')";
    client.batch_execute(create).await.unwrap();
    let mut sink = Box::pin(client.copy_in("COPY e FROM STDIN").await.unwrap());
    let line =
        |n: u64| format!("2024-01-0{} 00:00:{:02}+00\t{n}\tpadding of ordinary width {n}\n", n % 3 + 1, n / 3 % 60);
    sink.send(Bytes::from((0..BULK_ROWS).map(line).collect::<String>())).await.unwrap();
    sink.as_mut().finish().await.unwrap();
    for day in 1..=3 {
        let insert = format!(
            "INSERT INTO e SELECT '2024-01-0{day}'::timestamptz, -{day}000 - n, 'late' FROM generate_series(1, {INSERT_ROWS}) AS n"
        );
        client.batch_execute(&insert).await.unwrap();
        client.batch_execute("SELECT annal.flush()").await.unwrap();
    }
    let bulk = i64::try_from(BULK_ROWS).unwrap();
    let late: i64 = (1..=3).map(|day| (1..=INSERT_ROWS).map(|n| -day * 1000 - n).sum::<i64>()).sum();
    (bulk + 3 * INSERT_ROWS, bulk * (bulk - 1) / 2 + late, bulk + 3 * INSERT_ROWS)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_lie_in_the_store_and_copies_here() {
    let store = S3::start().await;
    let config = tempfile::NamedTempFile::new().unwrap();
    let text = format!("[storage]\nurl = \"s3://{BUCKET}/some/place\"\nendpoint = \"http://{}\"", store.address);
    std::fs::write(config.path(), text).unwrap();
    let mut server = TestServer::start_with(&["--config", config.path().to_str().unwrap()]).await;
    let client = server.connect().await;
    let expected = load(&client).await;
    assert_eq!(figures(&client).await, expected);
    let cache = server.data_dir().join("cache");
    assert_eq!(files(&server.data_dir().join("segments")), [], "nothing lies where embedded segments lie");

    // What the server names is what is there, and compaction and the end of a table delete there.
    client.batch_execute("SELECT annal.compact('e'); SELECT annal.flush()").await.unwrap();
    let named = client.query("SELECT path FROM annal.segments ORDER BY path", &[]).await.unwrap();
    let named: Vec<String> = named.iter().map(|row| row.get::<_, String>(0)).collect();
    let mut there = store.objects().await.iter().map(|name| format!("s3://{BUCKET}/{name}")).collect::<Vec<_>>();
    there.sort();
    assert_eq!((named.len(), &named), (3, &there), "one segment of each day");
    let manifest: String = client.query_one("SELECT annal.manifest('e')", &[]).await.unwrap().get(0);
    assert!(named.iter().all(|path| manifest.contains(path)), "{manifest}");

    // Copies may go at any time, and a damaged one is fetched again.
    server.kill().await;
    std::fs::remove_dir_all(&cache).unwrap();
    server.restart().await;
    assert_eq!(figures(&server.connect().await).await, expected);
    assert_eq!(files(&cache).len(), 3);
    server.kill().await;
    for (path, length) in files(&cache) {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[usize::try_from(length / 2).unwrap()] ^= 0x10;
        std::fs::write(&path, bytes).unwrap();
    }
    server.restart().await;
    let client = server.connect().await;
    assert_eq!(figures(&client).await, expected);
    assert_eq!(server.log().matches("was damaged and is fetched again").count(), 3);

    // Without the store what is here is read, and rows go into the log.
    client.batch_execute("CREATE TABLE gone (ts timestamptz NOT NULL); INSERT INTO gone VALUES (now())").await.unwrap();
    for statement in ["SELECT annal.flush()", "DROP TABLE gone", "SELECT annal.flush()"] {
        client.batch_execute(statement).await.unwrap();
    }
    assert_eq!(store.objects().await.len(), 3, "a dropped table's objects go");
    drop(store);
    client.batch_execute("INSERT INTO e VALUES ('2024-01-01', 0, 'without the store')").await.unwrap();
    let (rows, ..) = figures(&client).await;
    assert_eq!(rows, expected.0 + 1);
}
