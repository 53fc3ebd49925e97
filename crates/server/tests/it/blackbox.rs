//! Damage from outside: flipped bytes and shortened files below the data directory of a stopped server. The server, or the query that meets
//! the damage, names the file; what is answered is never wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::TestServer;

/// A start that takes longer hangs.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Where bytes are flipped, in thousandths of the file.
const PLACES: [u64; 9] = [0, 10, 125, 300, 450, 600, 800, 950, 999];
/// Reads every byte of every column.
const READ_ALL: &str = "SELECT count(*), sum(n)::bigint, count(DISTINCT n), sum(length(pad)), count(DISTINCT ts), \
                        sum(CAST(v AS bigint))::bigint FROM e";

/// What a server on damaged files does.
#[derive(Debug)]
enum Outcome {
    /// It does not start; its log.
    Refused(String),
    /// It starts and the query fails; message and detail.
    Failed(String),
    /// It answers.
    Answered(Vec<i64>),
}

/// A stopped server's data: segments, a checkpoint, and statements that are in the log alone.
struct Loaded {
    place: TempDir,
    expected: Vec<i64>,
}

impl Loaded {
    async fn new() -> Loaded {
        let place = tempfile::Builder::new().prefix("annal-damage-").tempdir().unwrap();
        let mut server = TestServer::start_in(&place.path().join("data")).await;
        let client = server.connect().await;
        let create = "CREATE TABLE e (ts timestamptz NOT NULL, dev text, n bigint, v double precision, pad text) \
                      WITH (series = 'dev', split_interval = '1 day')";
        client.batch_execute(create).await.unwrap();
        for batch in 0..4 {
            copy(&client, "e", lines(batch * 2_000, 2_000)).await;
            client.batch_execute("SELECT annal.flush()").await.unwrap();
        }
        client.batch_execute("SELECT annal.compact('e')").await.unwrap();
        client.batch_execute("SELECT annal.flush()").await.unwrap();
        for batch in 4..40 {
            copy(&client, "e", lines(batch * 2_000, 500)).await;
        }
        let expected = read_all(&client).await.unwrap();
        assert_eq!(expected[0], 4 * 2_000 + 36 * 500);
        assert!(server.stop().await.success());
        Loaded { place, expected }
    }

    /// The files of one kind, newest name last.
    fn files(&self, directory: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut waiting = vec![self.place.path().join("data").join(directory)];
        while let Some(at) = waiting.pop() {
            for entry in fs::read_dir(at).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { waiting.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        assert!(!found.is_empty(), "there are files in {directory}/");
        found.iter().map(|path| path.strip_prefix(self.place.path().join("data")).unwrap().to_owned()).collect()
    }

    /// Copies the data, lets `damage` at one file of the copy and says what a server makes of it.
    async fn outcome(&self, file: &Path, damage: impl FnOnce(&Path)) -> Outcome {
        let copy = tempfile::Builder::new().prefix("annal-damaged-").tempdir().unwrap();
        let data = copy.path().join("data");
        // The log is preallocated: only what is written in it is copied.
        let mut copying = Command::new("cp");
        copying.args(["-r", "--sparse=always"]).arg(self.place.path().join("data")).arg(&data);
        assert!(copying.status().unwrap().success());
        damage(&data.join(file));
        let log = data.with_extension("log");
        let start = tokio::spawn(async move { TestServer::start_in(&data).await });
        match tokio::time::timeout(START_PATIENCE, start).await.expect("the server starts or ends") {
            Err(_) => Outcome::Refused(fs::read_to_string(log).unwrap()),
            Ok(server) => match read_all(&server.connect().await).await {
                Ok(answer) => Outcome::Answered(answer),
                Err(message) => Outcome::Failed(message),
            },
        }
    }

    /// Whether the damage was found, after checking that it is named and that no answer is wrong.
    fn check(&self, file: &Path, what: &str, outcome: Outcome) -> bool {
        let name = file.file_name().unwrap().to_str().unwrap();
        match outcome {
            Outcome::Answered(answer) => {
                assert_eq!(answer, self.expected, "{what} of {}: the answer is wrong", file.display());
                false
            }
            Outcome::Refused(said) | Outcome::Failed(said) => {
                assert!(said.contains(name), "{what}: {} is not named in\n{said}", file.display());
                true
            }
        }
    }

    /// Flips a byte at every place of a file, one at a time; the number of flips that were found.
    async fn flip_everywhere(&self, file: &Path, length: u64) -> usize {
        let mut found = 0;
        for place in PLACES {
            let at = (length * place / 1000).min(length - 1);
            let outcome = self.outcome(file, |path| flip(path, at)).await;
            if let Outcome::Refused(said) | Outcome::Failed(said) = &outcome {
                assert!(
                    said.contains("offset"),
                    "the flip at {at} of {} is found without offset:\n{said}",
                    file.display()
                );
            }
            found += usize::from(self.check(file, &format!("a flip at {at}"), outcome));
        }
        found
    }
}

async fn read_all(client: &Client) -> Result<Vec<i64>, String> {
    match client.query_one(READ_ALL, &[]).await {
        Ok(row) => Ok((0..row.len()).map(|at| row.get::<_, i64>(at)).collect()),
        Err(error) => {
            let db = error.as_db_error().unwrap_or_else(|| panic!("the connection broke: {error:?}"));
            Err(format!("{}: {} {}", db.code().code(), db.message(), db.detail().unwrap_or_default()))
        }
    }
}

async fn copy(client: &Client, table: &str, lines: String) {
    let sink = client.copy_in(&format!("COPY {table} FROM STDIN")).await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::from(lines)).await.unwrap();
    sink.finish().await.unwrap();
}

/// Rows numbered from `first`, over three days and seven devices; nothing in them repeats, so that no byte of a file is idle.
fn lines(first: u64, rows: u64) -> String {
    (first..first + rows)
        .map(|n| {
            let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
            let (day, second, micro) = (n % 3 + 1, n / 3 % 86_400, mixed % 1_000_000);
            let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
            let time = format!("2024-01-0{day} {hour:02}:{minute:02}:{second:02}.{micro:06}+00");
            format!("{time}\tdev{}\t{n}\t{}\t{mixed:x}\n", n % 7, mixed % 100_000)
        })
        .collect()
}

fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[usize::try_from(at).unwrap()] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn shorten(path: &Path, length: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// The end of what is written in a file that is preallocated with zeros.
fn written_length(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_of_a_segment_is_found() {
    let loaded = Loaded::new().await;
    let files = loaded.files("segments");
    assert_eq!(files.len(), 3, "each day's segments are merged: {files:?}");
    let length = fs::metadata(loaded.place.path().join("data").join(&files[0])).unwrap().len();
    let found = loaded.flip_everywhere(&files[0], length).await;
    assert_eq!(found, PLACES.len(), "a checksum covers every byte of a segment");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_of_a_checkpoint_is_found() {
    let loaded = Loaded::new().await;
    for file in loaded.files("checkpoints") {
        let length = fs::metadata(loaded.place.path().join("data").join(&file)).unwrap().len();
        let found = loaded.flip_everywhere(&file, length).await;
        assert_eq!(found, PLACES.len(), "a checksum covers every byte of {}", file.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_of_the_log_forgets_nothing() {
    let loaded = Loaded::new().await;
    for file in loaded.files("log") {
        let length = written_length(&loaded.place.path().join("data").join(&file));
        // The last write before a kill may look like a torn tail; everything before it is covered.
        let found = loaded.flip_everywhere(&file, length - length / 100).await;
        assert!(found > 0, "no flip in {} was found", file.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shortened_and_missing_files_are_named() {
    let loaded = Loaded::new().await;
    for directory in ["segments", "checkpoints", "log"] {
        let file = loaded.files(directory).swap_remove(0);
        let length = fs::metadata(loaded.place.path().join("data").join(&file)).unwrap().len();
        for shorter in [0, length / 2, length - 1] {
            let outcome = loaded.outcome(&file, |path| shorten(path, shorter)).await;
            let what = format!("{shorter} of {length} bytes");
            assert!(loaded.check(&file, &what, outcome), "{what} of {} went unnoticed", file.display());
        }
    }
    let segment = loaded.files("segments").swap_remove(0);
    let outcome = loaded.outcome(&segment, |path| fs::remove_file(path).unwrap()).await;
    assert!(loaded.check(&segment, "removal", outcome), "the removal of {} went unnoticed", segment.display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_rows_for_sealed_splits_stay_over_restarts() {
    let mut server = TestServer::start().await;
    let client = server.connect().await;
    let create = "CREATE TABLE e (ts timestamptz NOT NULL, n bigint) WITH (split_interval = '1 hour')";
    client.batch_execute(create).await.unwrap();
    let mut expected = Vec::new();
    for round in 0..4_i64 {
        let client = server.connect().await;
        // Each round writes into every hour that was sealed before, and into one that was not.
        for hour in 0..=round {
            let n = round * 10 + hour;
            let insert = format!("INSERT INTO e VALUES ('2024-01-01 {hour:02}:{round:02}:00+00', {n})");
            client.batch_execute(&insert).await.unwrap();
            expected.push(n);
        }
        expected.sort_unstable();
        assert_eq!(numbers(&client).await, expected, "late rows are visible at once");
        if round % 2 == 0 {
            client.batch_execute("SELECT annal.flush()").await.unwrap();
            assert_eq!(numbers(&client).await, expected, "sealing moves rows and loses none");
        }
        server.kill().await;
        server.restart().await;
        let client = server.connect().await;
        assert_eq!(numbers(&client).await, expected, "kill -9 in round {round}");
        let hour =
            client.query("SELECT n FROM e WHERE ts >= '2024-01-01 00:00:00' AND ts < '2024-01-01 01:00:00'", &[]);
        assert_eq!(hour.await.unwrap().len() as i64, round + 1, "a split's rows of several seals are read together");
    }
}

async fn numbers(client: &Client) -> Vec<i64> {
    let rows = client.query("SELECT n FROM e ORDER BY n", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}
