//! A disk that is full for a while: writes are refused with 53100 and a hint, reads go on, and all resumes without a restart.
//!
//! The server runs on a small tmpfs of its own mount namespace; a file of the test takes the room and gives it back.

use std::fs;
use std::path::PathBuf;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::TestServer;
use crate::load::noise;

/// Mounts the file system where the data directory will lie, takes room, and becomes the server.
const MOUNT: &str = r#"for arg; do [ "$before" = --data ] && dir=$(dirname "$arg"); before=$arg; done
mount -t tmpfs -o size=400m tmpfs "$dir" && head -c 280M /dev/zero > "$dir/ballast" && exec "$0" "$@""#;
/// The wrapper of a server whose data directory lies on a disk with room for one file of the log, and little more, beside the [`ballast`].
pub(crate) const ON_A_SMALL_DISK: [&str; 6] = ["unshare", "--mount", "--map-root-user", "sh", "-c", MOUNT];
/// More than the log may take before it is noticed that the next file has no room.
const STATEMENTS_MAX: usize = 300;
/// Bytes of text in one statement; random, so that they are as many in the log.
const STATEMENT_BYTES: usize = 400_000;

/// The file that takes the room of such a server's disk: whoever removes it gives that back.
pub(crate) fn ballast(server: &TestServer) -> PathBuf {
    let outside = server.data_dir().parent().unwrap().strip_prefix("/").unwrap().to_owned();
    PathBuf::from(format!("/proc/{}/root", server.pid())).join(outside).join("ballast")
}

async fn insert(client: &Client, number: usize) -> Result<u64, tokio_postgres::Error> {
    let text = noise(number as u64, STATEMENT_BYTES);
    client.execute(&format!("INSERT INTO t VALUES (now(), {number}, '{text}')"), &[]).await
}

async fn count(client: &Client) -> (i64, i64) {
    let row = client.query_one("SELECT count(*), count(DISTINCT n) FROM t WHERE length(pad) > 0", &[]).await.unwrap();
    (row.get(0), row.get(1))
}

fn assert_disk_full(error: &tokio_postgres::Error) {
    let told = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
    assert_eq!(*told.code(), SqlState::DISK_FULL, "{told}");
    assert!(told.hint().is_some_and(|hint| hint.contains("Free some space")), "{told:?}");
}

/// Tries until it succeeds; the runner's own limit ends it otherwise.
async fn until_there_is_room<T, F: Future<Output = Result<T, tokio_postgres::Error>>>(
    mut attempt: impl FnMut() -> F,
) -> T {
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => assert_disk_full(&error),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_they_resume_by_themselves() {
    let server = TestServer::start_under(&ON_A_SMALL_DISK).await;
    let ballast = ballast(&server);
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE t (ts timestamptz NOT NULL, n bigint, pad text)").await.unwrap();

    let mut acknowledged = 0;
    let refused = loop {
        match insert(&client, acknowledged).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < STATEMENTS_MAX, "the disk was never full");
    };
    assert_disk_full(&refused);
    assert!(acknowledged > 10, "the room that is there is used");
    assert_disk_full(&insert(&client, acknowledged).await.unwrap_err());
    let create = "CREATE TABLE u (ts timestamptz NOT NULL)";
    assert_disk_full(&client.batch_execute(create).await.unwrap_err());
    assert_eq!(count(&client).await, (acknowledged as i64, acknowledged as i64), "reads go on");

    fs::remove_file(&ballast).unwrap();
    until_there_is_room(|| insert(&client, acknowledged)).await;
    client.batch_execute(create).await.unwrap();
    assert_eq!(count(&client).await.0, acknowledged as i64 + 1);

    // No room for a segment: the rows stay in memory, are read, and are written when there is.
    for number in 0..10 {
        insert(&client, 1_000 + number).await.unwrap();
    }
    let before = count(&client).await;
    fill(&ballast);
    let refused = client.batch_execute("SELECT annal.flush()").await.unwrap_err();
    assert_disk_full(&refused);
    assert_eq!(count(&client).await, before);
    fs::remove_file(&ballast).unwrap();
    until_there_is_room(|| client.batch_execute("SELECT annal.flush()")).await;
    assert_eq!(count(&client).await, before);
    let row = client.query_one("SELECT sum(rows)::bigint FROM annal.segments", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), before.0, "all rows lie in segments");
}

/// Takes all room there is.
fn fill(path: &std::path::Path) {
    let mut file = fs::File::create(path).unwrap();
    let zeros = vec![0; 4096];
    while std::io::Write::write_all(&mut file, &zeros).is_ok() {}
}
