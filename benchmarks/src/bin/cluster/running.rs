//! The cluster under measurement, and what it is asked to keep.

use std::fmt::{Display, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use benchmarks::Error;
use benchmarks::servers::Server;
use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::{Client, NoTls, Statement};

/// The cluster, and how to reach each of its nodes.
pub(crate) struct Cluster {
    pub(crate) server: Server,
    /// The SQL ports, in the order of the nodes' ids.
    pub(crate) ports: Vec<u16>,
}

impl Cluster {
    /// Starts so many nodes from the binary, with data below `parent`.
    pub(crate) async fn start(binary: &Path, parent: &Path, nodes: usize) -> Result<Cluster, Error> {
        let server = match nodes {
            1 => Server::start_annal(binary, parent).await?,
            nodes => Server::start_annal_cluster(binary, parent, nodes).await?,
        };
        let ports = ports(&server)?;
        Ok(Cluster { server, ports })
    }

    /// A connection to the node of that number, from 0.
    pub(crate) async fn connect(&self, node: usize) -> Result<Client, Error> {
        let dsn = format!("host=127.0.0.1 port={} user=annal dbname=annal", self.ports[node % self.ports.len()]);
        let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// The process that listens for clients of that node.
    pub(crate) fn process_of(&self, node: usize) -> Option<u32> {
        let listen = format!("127.0.0.1:{}", self.ports[node]);
        let processes = std::fs::read_dir("/proc").ok()?.flatten();
        processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = command.split('\0');
            words.clone().nth(1) == Some("server") && words.any(|word| word == listen)
        })
    }

    pub(crate) fn resident_bytes(&self) -> u64 {
        let of = |node: usize| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.process_of(node)?)).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
        };
        (0..self.ports.len()).filter_map(of).sum()
    }
}

fn ports(server: &Server) -> Result<Vec<u16>, Error> {
    let layout =
        server.data_directory().map(|data| data.join("cluster.json")).and_then(|path| std::fs::read(path).ok());
    let Some(layout) = layout else {
        let port = server.dsn.split_whitespace().find_map(|part| part.strip_prefix("port="));
        return Ok(vec![port.ok_or("a server without a port")?.parse()?]);
    };
    let layout: serde_json::Value = serde_json::from_slice(&layout)?;
    let nodes = layout["nodes"].as_array().ok_or("a layout without nodes")?;
    let port = |node: &serde_json::Value| node["sql"].as_str()?.rsplit_once(':')?.1.parse().ok();
    nodes.iter().map(|node| port(node).ok_or_else(|| "a node without a port".into())).collect()
}

/// Events of about 21 bytes: a time, a number and a small one.
pub(crate) async fn create(client: &Client, name: &str, shards: u32) -> Result<(), Error> {
    client.simple_query(&format!("DROP TABLE IF EXISTS {name}")).await?;
    let options = format!("time_column = 'ts', series = 'kind', split_interval = '12 hours', shards = {shards}");
    let columns = "ts timestamptz NOT NULL, id bigint NOT NULL, kind integer NOT NULL";
    client.simple_query(&format!("CREATE TABLE {name} ({columns}) WITH ({options})")).await?;
    Ok(())
}

/// Rows of one batch as COPY takes them, their numbers from `first`.
pub(crate) fn batch(first: u64, rows: usize) -> Bytes {
    batch_numbered(first, rows, |place| place)
}

/// The same with numbers that nothing compresses, no two of them equal.
pub(crate) fn scattered_batch(first: u64, rows: usize) -> Bytes {
    // Each step can be undone. (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.)
    let mixed = |place: u64| {
        let once = (place ^ (place >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let twice = (once ^ (once >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (twice ^ (twice >> 31)).cast_signed()
    };
    batch_numbered(first, rows, mixed)
}

fn batch_numbered<N: Display>(first: u64, rows: usize, number: impl Fn(u64) -> N) -> Bytes {
    let mut text = String::with_capacity(rows * 48);
    for id in first..first + rows as u64 {
        let number = number(id);
        let (second, micros) = (id / 1000 % 86_400, id % 1000 * 1000);
        let (hours, minutes, seconds) = (second / 3600, second / 60 % 60, second % 60);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "2013-01-01 {hours:02}:{minutes:02}:{seconds:02}.{micros:06}+00,{number},{}", id % 16);
    }
    text.into()
}

/// The statement that [`send`] repeats.
pub(crate) async fn copy(client: &Client, name: &str) -> Result<Statement, tokio_postgres::Error> {
    client.prepare(&format!("COPY {name} FROM STDIN (FORMAT csv)")).await
}

pub(crate) async fn send(client: &Client, copy: &Statement, rows: Bytes) -> Result<u64, tokio_postgres::Error> {
    let sink = client.copy_in(copy).await?;
    futures::pin_mut!(sink);
    for at in (0..rows.len()).step_by(64 << 10) {
        sink.send(rows.slice(at..rows.len().min(at + (64 << 10)))).await?;
    }
    sink.finish().await
}

pub(crate) async fn insert(client: &Client, id: u64) -> Result<(), tokio_postgres::Error> {
    let sql = format!("INSERT INTO events VALUES ('2013-01-01 00:00:00+00', {id}, 1)");
    client.simple_query(&sql).await.map(drop)
}

/// Acknowledged rows by what can be asked of hundreds of millions: how many, and the sum of their numbers.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    rows: AtomicU64,
    numbers: AtomicU64,
}

impl Acknowledged {
    /// Adds the rows whose numbers begin with `first`.
    pub(crate) fn add(&self, first: u64, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.numbers.fetch_add(rows * first + rows * rows.saturating_sub(1) / 2, Ordering::Relaxed);
    }

    /// How many there are.
    pub(crate) fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Compares with what is stored: a row lost and one doubled show in the sum.
    pub(crate) async fn check(&self, client: &Client) -> Result<(), Error> {
        let row = client.query_one("SELECT count(*), sum(id)::bigint FROM events", &[]).await?;
        let (rows, numbers): (i64, i64) = (row.get(0), row.get(1));
        let (rows, numbers) = (u64::try_from(rows)?, u64::try_from(numbers)?);
        if (rows, numbers) == (self.rows(), self.numbers.load(Ordering::Relaxed)) {
            return Ok(());
        }
        Err(format!("{rows} rows are there whose numbers add up to {numbers}, acknowledged were {self:?}").into())
    }
}

/// Every acknowledged row is there, once.
pub(crate) async fn check_stored(client: &Client, acknowledged: u64) -> Result<(), Error> {
    let row = client.query_one("SELECT count(*), count(DISTINCT id) FROM events", &[]).await?;
    let (stored, distinct): (i64, i64) = (row.get(0), row.get(1));
    if u64::try_from(stored)? == acknowledged && stored == distinct {
        return Ok(());
    }
    Err(format!("{stored} rows with {distinct} numbers are there, {acknowledged} were acknowledged").into())
}
