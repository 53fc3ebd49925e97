//! The servers under measurement: started here with durable settings, or given by a connection string.

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::{Client, NoTls};

use crate::Error;
use crate::machine::Usage;

/// A server that does not answer by then does not start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Which product a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// This one.
    Annal,
    /// The comparator.
    PostgreSql,
}

impl Product {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Product::Annal => "annal",
            Product::PostgreSql => "postgresql",
        }
    }
}

/// A running server. One that was started here is killed, and its data removed, when this is dropped.
#[derive(Debug)]
pub struct Server {
    /// What it is.
    pub product: Product,
    /// How to connect.
    pub dsn: String,
    started: Option<Started>,
}

#[derive(Debug)]
struct Started {
    process: Child,
    command: Vec<String>,
    http_port: Option<u16>,
    data: TempDir,
}

/// What a server has done so far, as far as it can be seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Processor time and bytes written; `None` for a server that was not started here.
    pub usage: Option<Usage>,
    /// Syncs of the log.
    pub syncs: Option<u64>,
}

impl Server {
    /// A server that runs already.
    pub fn given(product: Product, dsn: &str) -> Self {
        Server { product, dsn: dsn.to_string(), started: None }
    }

    /// Starts Annal from its binary on an empty data directory below `parent`.
    pub async fn start_annal(binary: &Path, parent: &Path) -> Result<Self, Error> {
        let data = tempfile::Builder::new().prefix("annal-").tempdir_in(parent)?;
        let (port, http_port) = (free_port()?, free_port()?);
        let command = vec![
            binary.display().to_string(),
            "server".into(),
            "--data".into(),
            data.path().join("data").display().to_string(),
            "--listen".into(),
            format!("127.0.0.1:{port}"),
            "--http".into(),
            format!("127.0.0.1:{http_port}"),
        ];
        let process = spawn(&command, &data.path().join("log"))?;
        let dsn = format!("host=127.0.0.1 port={port} user=annal dbname=annal");
        let started = Started { process, command, http_port: Some(http_port), data };
        let server = Server { product: Product::Annal, dsn, started: Some(started) };
        server.ready().await?;
        Ok(server)
    }

    /// Starts a cluster of Annal below `parent` with `annal cluster start`; clients connect to its first node. Returns once all nodes vote.
    pub async fn start_annal_cluster(binary: &Path, parent: &Path, nodes: usize) -> Result<Self, Error> {
        let data = tempfile::Builder::new().prefix("annal-cluster-").tempdir_in(parent)?;
        let place = data.path().join("data");
        let mut command: Vec<String> = [&binary.display().to_string(), "cluster", "start"].map(String::from).to_vec();
        command.extend(["--port".into(), "0".into(), "--nodes".into(), nodes.to_string()]);
        command.extend(["--data".into(), place.display().to_string()]);
        let process = spawn(&command, &data.path().join("log"))?;
        let started = Started { process, command, http_port: None, data };
        let mut server = Server { product: Product::Annal, dsn: String::new(), started: Some(started) };
        let begin = Instant::now();
        let layout = loop {
            match std::fs::read(place.join("cluster.json")).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
                Some(layout) => break layout,
                None if begin.elapsed() > START_TIMEOUT => return Err("the cluster does not start".into()),
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let port = |key: &str| port_of(&layout, key);
        server.dsn = format!("host=127.0.0.1 port={} user=annal dbname=annal", port("sql")?);
        if let Some(started) = &mut server.started {
            started.http_port = Some(port("http")?);
        }
        server.ready().await?;
        let client = server.connect().await?;
        let voting = "SELECT count(*) FILTER (WHERE votes AND term IS NOT NULL) = count(*) AND count(DISTINCT node) = $1 FROM annal.replicas";
        while !client.query_one(voting, &[&i64::try_from(nodes)?]).await?.get::<_, bool>(0) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(server)
    }

    /// Starts PostgreSQL from its directory of programs with a new cluster below `parent`. As root it runs as user `postgres`, because
    /// PostgreSQL refuses root.
    pub async fn start_postgres(programs: &Path, parent: &Path) -> Result<Self, Error> {
        let data = tempfile::Builder::new().prefix("postgresql-").tempdir_in(parent)?;
        let port = free_port()?;
        let place = data.path().display().to_string();
        let root = std::fs::metadata("/proc/self")?.uid() == 0;
        let run_as: Vec<String> =
            if root { ["runuser", "-u", "postgres", "--"].map(String::from).to_vec() } else { Vec::new() };
        if root {
            finish(Command::new("chown").args(["postgres", &place]))?;
        }
        let program = |name: &str| programs.join(name).display().to_string();
        let mut initdb = run_as.clone();
        initdb.extend([program("initdb"), "-D".into(), format!("{place}/data")]);
        initdb.extend(["-A", "trust", "-U", "postgres", "--locale=C.UTF-8"].map(String::from));
        finish(Command::new(&initdb[0]).args(&initdb[1..]).stdout(Stdio::null()))?;
        let mut command = run_as;
        command.extend([program("postgres"), "-D".into(), format!("{place}/data")]);
        for setting in POSTGRES_SETTINGS {
            command.extend(["-c".into(), (*setting).into()]);
        }
        command.extend(["-c".into(), format!("port={port}"), "-c".into(), format!("unix_socket_directories={place}")]);
        let process = spawn(&command, &data.path().join("log"))?;
        let dsn = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres");
        let started = Started { process, command, http_port: None, data };
        let server = Server { product: Product::PostgreSql, dsn, started: Some(started) };
        server.ready().await?;
        Ok(server)
    }

    /// A new connection.
    pub async fn connect(&self) -> Result<Client, Error> {
        let (client, connection) = tokio_postgres::connect(&self.dsn, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Waits until it answers a query.
    pub async fn ready(&self) -> Result<(), Error> {
        let begin = Instant::now();
        loop {
            let error = match self.connect().await {
                Ok(client) => match client.simple_query("SELECT 1").await {
                    Ok(_) => return Ok(()),
                    Err(error) => error.into(),
                },
                Err(error) => error,
            };
            if begin.elapsed() > START_TIMEOUT {
                return Err(format!("{} does not answer: {error}", self.product.name()).into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Kills it with SIGKILL, starts it again on the same data and gives the time from the start of the process to the first answer.
    pub async fn crash_and_restart(&mut self) -> Result<Duration, Error> {
        let started = self.started.as_mut().ok_or("only a server that was started here can be killed")?;
        started.process.kill()?;
        started.process.wait()?;
        let begin = Instant::now();
        started.process = spawn(&started.command, &started.data.path().join("log"))?;
        self.ready().await?;
        Ok(begin.elapsed())
    }

    /// What it has done so far.
    pub async fn work(&self, client: &Client) -> Work {
        let usage = self.started.as_ref().map(|started| Usage::of_tree(started.process.id()));
        let syncs = match self.product {
            Product::Annal => self.metric("annal_log_syncs_total").await,
            Product::PostgreSql => match client.query_one("SELECT wal_sync FROM pg_stat_wal", &[]).await {
                Ok(row) => row.try_get::<_, i64>(0).ok().and_then(|syncs| u64::try_from(syncs).ok()),
                Err(_) => None,
            },
        };
        Work { usage, syncs }
    }

    /// One number of Annal's `/metrics`.
    pub async fn metric(&self, name: &str) -> Option<u64> {
        let port = self.started.as_ref()?.http_port?;
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: annal\r\nConnection: close\r\n\r\n").await.ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await.ok()?;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counters are whole and not negative"
        )]
        value.trim().parse::<f64>().ok().map(|value| value as u64)
    }

    /// The process of a server that was started here.
    pub fn process_id(&self) -> Option<u32> {
        Some(self.started.as_ref()?.process.id())
    }

    /// The data directory of an Annal that was started here.
    pub fn data_directory(&self) -> Option<PathBuf> {
        Some(self.started.as_ref()?.data.path().join("data"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(started) = &mut self.started {
            // The data is thrown away; there is nothing to save and nobody to tell.
            let tree = Command::new("pkill").args(["-KILL", "-P", &started.process.id().to_string()]).status();
            drop((tree, started.process.kill(), started.process.wait()));
        }
    }
}

/// Durable, and with room for the workload; the same as Annal promises.
const POSTGRES_SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "max_connections=50",
    "shared_buffers=2GB",
    "effective_cache_size=8GB",
    "work_mem=64MB",
    "maintenance_work_mem=512MB",
    "max_wal_size=8GB",
    "checkpoint_timeout=15min",
    "random_page_cost=1.1",
    "jit=off",
    "timezone=UTC",
    "fsync=on",
    "full_page_writes=on",
    "synchronous_commit=on",
    "wal_level=replica",
];

fn spawn(command: &[String], log: &Path) -> Result<Child, Error> {
    let log = std::fs::File::options().create(true).append(true).open(log)?;
    let process = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map_err(|error| format!("could not start \"{}\": {error}", command[0]))?;
    Ok(process)
}

fn finish(command: &mut Command) -> Result<(), Error> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}").into()) }
}

/// The port of the first node in the layout of a cluster.
fn port_of(layout: &serde_json::Value, key: &str) -> Result<u16, Error> {
    let address = layout["nodes"][0][key].as_str().and_then(|address| address.rsplit_once(':'));
    let port = address.and_then(|(_, port)| port.parse().ok());
    port.ok_or_else(|| format!("no \"{key}\" in the layout of the cluster").into())
}

/// A port that nobody listens on now.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16, Error> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
