//! The built binary as a child process, with a data directory of its own.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::{Client, Config, NoTls};

use crate::network;

/// The program under test, built by cargo with the tests.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_annal");
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(10);
/// Keeps the directories of failed tests when set.
const KEEP: &str = "ANNAL_TEST_KEEP";

/// A running server. Killed and removed when dropped; prints its log when the test failed.
pub(crate) struct TestServer {
    child: Child,
    /// Holds the data directory and the log; none when the test owns the directory.
    temporary: Option<TempDir>,
    data_dir: PathBuf,
    log_path: PathBuf,
    setup: Setup,
    address: SocketAddr,
    http_address: SocketAddr,
}

/// How a server is run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    /// Flags of the test, before our own.
    pub(crate) args: Vec<String>,
    /// A program that runs the server, and its flags; none when it is our own child.
    pub(crate) wrapper: Vec<String>,
    /// The network namespace it runs in, when that is not the test's.
    pub(crate) namespace: Option<PathBuf>,
}

/// Where clients of a server come in.
#[derive(Clone, Debug)]
pub(crate) struct Entrance {
    address: SocketAddr,
    namespace: Option<PathBuf>,
}

/// The `annal` program with `args`, its output captured, its input closed.
pub(crate) fn annal<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(args: I) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl TestServer {
    /// A server with an empty data directory, ready for clients.
    pub(crate) async fn start() -> TestServer {
        Self::start_with(&[]).await
    }

    /// The same with more flags, which go before the test's own.
    pub(crate) async fn start_with(args: &[&str]) -> TestServer {
        Self::start_as(Setup { args: owned(args), ..Setup::default() }).await
    }

    /// A server as the child of `wrapper`, a program and its flags.
    pub(crate) async fn start_under(wrapper: &[&str]) -> TestServer {
        Self::start_as(Setup { wrapper: owned(wrapper), ..Setup::default() }).await
    }

    /// A server with an empty data directory that is run like that.
    pub(crate) async fn start_as(setup: Setup) -> TestServer {
        let temporary = tempfile::Builder::new().prefix("annal-test-").tempdir().unwrap();
        let data_dir = temporary.path().join("data");
        let log_path = temporary.path().join("server.log");
        Self::launch(data_dir, log_path, setup, Some(temporary)).await
    }

    /// A server on a data directory that the test owns.
    pub(crate) async fn start_in(data_dir: &Path) -> TestServer {
        Self::launch(data_dir.to_owned(), data_dir.with_extension("log"), Setup::default(), None).await
    }

    async fn launch(data_dir: PathBuf, log_path: PathBuf, setup: Setup, temporary: Option<TempDir>) -> TestServer {
        let child = spawn(&data_dir, &log_path, &setup);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server =
            TestServer { child, temporary, data_dir, log_path, setup, address: nowhere, http_address: nowhere };
        server.wait_until_ready().await;
        server
    }

    /// Waits until the process says where it listens and answers `/readyz`.
    async fn wait_until_ready(&mut self) {
        (self.http_address, self.address) = loop {
            // The log is appended to over restarts: only what the last process said counts.
            let log = self.log();
            let said = log.rsplit_once(STARTED).map_or("", |(_, said)| said);
            let address_of = |message: &str| said.lines().find_map(|line| address_in(line, message));
            if let (Some(http), Some(address)) = (address_of("health and metrics are served"), address_of("ready for"))
            {
                break (http, address);
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended with {status} before it was ready");
            }
            tokio::time::sleep(POLL).await;
        };
        while self.http_get("/readyz").await.0 != 200 {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Where clients come in; another address after each restart.
    pub(crate) fn entrance(&self) -> Entrance {
        Entrance { address: self.address, namespace: self.setup.namespace.clone() }
    }

    /// The same in words, for clients that are not in the namespace of the server.
    pub(crate) fn dsn(&self) -> String {
        format!("host={} port={} user=annal dbname=annal", self.address.ip(), self.address.port())
    }

    /// Where PostgreSQL clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The data directory.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Everything the server wrote to stderr, over all restarts.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log_path).unwrap_or_default()
    }

    /// A client of its own connection.
    pub(crate) async fn connect(&self) -> Client {
        self.entrance().connect().await.expect("the server takes clients")
    }

    /// Status and body of a page.
    pub(crate) async fn http_get(&self, path: &str) -> (u16, String) {
        let mut stream = reach(self.http_address, self.setup.namespace.as_deref()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        let status = response.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        let body = response.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
        (status, body)
    }

    /// Bytes of memory the process itself has now, without mapped files.
    pub(crate) fn anonymous_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        line.map_or(0, |kib| kib.trim().trim_end_matches("kB").trim().parse::<u64>().expect("kilobytes") << 10)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until the process has ended by itself or by a signal sent before.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// kill -9.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }

    /// SIGTERM, and the exit status.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Starts the ended server again on the same data, with another address.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(&self.data_dir, &self.log_path, &self.setup);
        self.wait_until_ready().await;
    }

    /// The same as our own child.
    pub(crate) async fn restart_without_wrapper(&mut self) {
        self.setup.wrapper.clear();
        self.restart().await;
    }
}

impl Entrance {
    /// A client of its own connection.
    pub(crate) async fn connect(&self) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
        let stream = reach(self.address, self.namespace.as_deref()).await?;
        stream.set_nodelay(true)?;
        let (client, connection) = Config::new().user("annal").dbname("annal").connect_raw(stream, NoTls).await?;
        // Ends with the client, or with the server.
        tokio::spawn(connection);
        Ok(client)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if !self.setup.wrapper.is_empty() {
            kill_holder_of(&self.data_dir);
        }
        // It may have ended before; either way it is gone afterwards.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the server on {} ---\n{}--- end of the log ---", self.data_dir.display(), self.log());
            if let (Some(temporary), true) = (self.temporary.take(), std::env::var_os(KEEP).is_some()) {
                eprintln!("kept: {}", temporary.keep().display());
            }
        }
    }
}

/// Begins the log of a process in a file that holds several.
const STARTED: &str = "=== started ===\n";

/// Kills the process that holds the data directory: a wrapper that is killed leaves its child behind.
fn kill_holder_of(data_dir: &Path) {
    let holder = std::fs::read_to_string(data_dir.join("LOCK")).unwrap_or_default();
    if let Some(pid) = holder.trim().parse().ok().and_then(Pid::from_raw) {
        let _gone = kill_process(pid, Signal::KILL);
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A connection to a server that may be in another namespace.
async fn reach(address: SocketAddr, namespace: Option<&Path>) -> std::io::Result<TcpStream> {
    match namespace {
        None => TcpStream::connect(address).await,
        Some(namespace) => network::connect_inside(namespace, address),
    }
}

fn spawn(data_dir: &Path, log_path: &Path, setup: &Setup) -> Child {
    let mut log: File = OpenOptions::new().create(true).append(true).open(log_path).unwrap();
    std::io::Write::write_all(&mut log, STARTED.as_bytes()).unwrap();
    let enter = setup.namespace.iter().flat_map(|path| ["nsenter".to_owned(), format!("--net={}", path.display())]);
    let mut words = enter.chain(setup.wrapper.iter().cloned()).chain([PROGRAM.to_owned()]);
    let mut command = Command::new(words.next().expect("the program itself is one"));
    command.args(words).stdin(Stdio::null()).arg("server").args(&setup.args).arg("--data").arg(data_dir);
    command.args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--log-format", "json"]);
    // For tests with an object store, which takes any.
    command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
    command.stdout(Stdio::null()).stderr(log);
    command.spawn().unwrap_or_else(|error| panic!("could not run {command:?}: {error}"))
}

/// The address in a line of the log whose message begins with `message`.
fn address_in(line: &str, message: &str) -> Option<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    line.get("message")?.as_str()?.starts_with(message).then_some(())?;
    line.get("address")?.as_str()?.parse().ok()
}
