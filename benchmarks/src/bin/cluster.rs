//! Three nodes under load: small and large batches at quorum sync, leaders that are killed, and more than they can take.
#![expect(clippy::print_stdout, reason = "the figures are the program's output")]

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use benchmarks::Error;
use benchmarks::machine::{Load, median};
use benchmarks::report::Report;
use benchmarks::servers::Server;
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use futures::SinkExt;
use serde::Serialize;
use tokio_postgres::{Client, NoTls};

/// Rows written by the prototype that Annal completes, for each second and batch size: its published medians on three nodes.
const PROTOTYPE: [(usize, f64); 5] = [(1, 95.0), (49, 4_960.0), (490, 48_309.0), (4_900, 82_692.0), (49_000, 99_880.0)];
/// How long a statement after a kill may take before the leader counts as lost for good.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures a cluster of Annal on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "batches,failover,overload")]
    what: Vec<What>,
    /// Nodes, each a process.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Seconds of each measurement of batches.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Shards of the table of the measurement of batches.
    #[arg(long, default_value_t = 1)]
    shards: u32,
    /// Leaders killed.
    #[arg(long, default_value_t = 30)]
    kills: usize,
    /// Seconds of overload.
    #[arg(long, default_value_t = 300)]
    overload_seconds: u64,
    /// Times of its capacity that the cluster is offered.
    #[arg(long, default_value_t = 3.0)]
    overload: f64,
    /// The annal binary [default: beside this program].
    #[arg(long)]
    annal: Option<PathBuf>,
    /// Where data directories are made.
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// Where the figures go, .json or .csv.
    #[arg(long, default_value = "cluster.json")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Batches,
    Failover,
    Overload,
}

/// One figure of a run.
#[derive(Debug, Serialize)]
struct Measurement {
    what: &'static str,
    clients: usize,
    batch_rows: usize,
    rows_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// Processor time of all nodes for a million rows.
    cpu_s_per_million: f64,
    /// Bytes that all nodes have written for each row.
    written_per_row: f64,
    /// Syncs of the first node's log for each statement.
    syncs_per_statement: f64,
    refused: u64,
    load_one: f64,
}

impl Measurement {
    /// Sorted times of statements by so many clients, each of so many rows; what else there may be to say is unknown.
    fn of_times(what: &'static str, (clients, batch_rows): (usize, usize), took: &[f64], load: &Load) -> Measurement {
        Measurement {
            what,
            clients,
            batch_rows,
            rows_per_second: f64::NAN,
            p50_ms: quantile(took, 0.5),
            p99_ms: quantile(took, 0.99),
            max_ms: quantile(took, 1.0),
            cpu_s_per_million: f64::NAN,
            written_per_row: f64::NAN,
            syncs_per_statement: f64::NAN,
            refused: 0,
            load_one: load.one,
        }
    }
}

/// The cluster, and how to reach each of its nodes.
struct Cluster {
    server: Server,
    /// The SQL ports, in the order of the nodes' ids.
    ports: Vec<u16>,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments = Arguments::parse();
    let mut report = Report::begin("cluster");
    println!("{} cores, load {:.2}", report.cores, report.load_before.one);
    let binary = match &arguments.annal {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("annal"),
    };
    let server = match arguments.nodes {
        1 => Server::start_annal(&binary, &arguments.directory).await?,
        nodes => Server::start_annal_cluster(&binary, &arguments.directory, nodes).await?,
    };
    let ports = ports(&server)?;
    let cluster = Cluster { server, ports };
    for what in &arguments.what {
        match what {
            What::Batches => batches(&cluster, &arguments, &mut report).await?,
            What::Failover => failover(&cluster, arguments.kills, &mut report).await?,
            What::Overload => overload(&cluster, &arguments, &mut report).await?,
        }
    }
    report.write(&arguments.out)?;
    println!("load {:.2}; figures in {}", report.load_after.one, arguments.out.display());
    Ok(())
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

impl Cluster {
    /// A connection to the node of that number, from 0.
    async fn connect(&self, node: usize) -> Result<Client, Error> {
        let dsn = format!("host=127.0.0.1 port={} user=annal dbname=annal", self.ports[node % self.ports.len()]);
        let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// The process that listens for clients of that node.
    fn process_of(&self, node: usize) -> Option<u32> {
        let listen = format!("127.0.0.1:{}", self.ports[node]);
        let processes = std::fs::read_dir("/proc").ok()?.flatten();
        processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = command.split('\0');
            words.clone().nth(1) == Some("server") && words.any(|word| word == listen)
        })
    }

    fn resident_bytes(&self) -> u64 {
        let of = |node: usize| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.process_of(node)?)).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
        };
        (0..self.ports.len()).filter_map(of).sum()
    }
}

/// Events of about 21 bytes: a time, a number and a small one.
async fn create(client: &Client, shards: u32) -> Result<(), Error> {
    client.simple_query("DROP TABLE IF EXISTS events").await?;
    let options = format!("time_column = 'ts', series = 'kind', split_interval = '12 hours', shards = {shards}");
    let columns = "ts timestamptz NOT NULL, id bigint NOT NULL, kind integer NOT NULL";
    client.simple_query(&format!("CREATE TABLE events ({columns}) WITH ({options})")).await?;
    Ok(())
}

/// Rows of one batch as COPY takes them, their numbers from `first`.
fn batch(first: u64, rows: usize) -> Bytes {
    let mut text = String::with_capacity(rows * 48);
    for id in first..first + rows as u64 {
        let (second, micros) = (id / 1000 % 86_400, id % 1000 * 1000);
        let (hours, minutes, seconds) = (second / 3600, second / 60 % 60, second % 60);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "2013-01-01 {hours:02}:{minutes:02}:{seconds:02}.{micros:06}+00,{id},{}", id % 16);
    }
    text.into()
}

async fn send(client: &Client, rows: Bytes) -> Result<u64, tokio_postgres::Error> {
    let sink = client.copy_in("COPY events FROM STDIN (FORMAT csv)").await?;
    futures::pin_mut!(sink);
    for at in (0..rows.len()).step_by(64 << 10) {
        sink.send(rows.slice(at..rows.len().min(at + (64 << 10)))).await?;
    }
    sink.finish().await
}

async fn insert(client: &Client, id: u64) -> Result<(), tokio_postgres::Error> {
    let sql = format!("INSERT INTO events VALUES ('2013-01-01 00:00:00+00', {id}, 1)");
    client.simple_query(&sql).await.map(drop)
}

/// Every acknowledged row is there, once.
async fn check_stored(client: &Client, acknowledged: u64) -> Result<(), Error> {
    let row = client.query_one("SELECT count(*), count(DISTINCT id) FROM events", &[]).await?;
    let (stored, distinct): (i64, i64) = (row.get(0), row.get(1));
    if u64::try_from(stored)? == acknowledged && stored == distinct {
        return Ok(());
    }
    Err(format!("{stored} rows with {distinct} numbers are there, {acknowledged} were acknowledged").into())
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in the list")]
    let at = (q * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// Clients that write one batch after the other, spread over the nodes; every acknowledged row is on a majority.
async fn batches(cluster: &Cluster, arguments: &Arguments, report: &mut Report<Measurement>) -> Result<(), Error> {
    let control = cluster.connect(0).await?;
    for (rows, prototype) in PROTOTYPE {
        for clients in [1, 16] {
            create(&control, arguments.shards).await?;
            let until = Duration::from_secs(arguments.seconds);
            let before = cluster.server.work(&control).await;
            let (load, begin, next) = (Load::now(), Instant::now(), Arc::new(AtomicU64::new(0)));
            let mut writing = Vec::new();
            for client in 0..clients {
                let (client, next) = (cluster.connect(client).await?, next.clone());
                writing.push(tokio::spawn(async move {
                    let mut took = Vec::new();
                    while begin.elapsed() < until {
                        let first = next.fetch_add(rows as u64, Ordering::Relaxed);
                        let text = batch(first, rows);
                        let start = Instant::now();
                        match rows {
                            1 => insert(&client, first).await?,
                            _ => drop(send(&client, text).await?),
                        }
                        took.push(start.elapsed().as_secs_f64() * 1e3);
                    }
                    Ok::<_, tokio_postgres::Error>(took)
                }));
            }
            let mut took = Vec::new();
            for task in writing {
                took.extend(task.await??);
            }
            let seconds = begin.elapsed().as_secs_f64();
            let after = cluster.server.work(&control).await;
            let written = took.len() * rows;
            check_stored(&control, written as u64).await?;
            took.sort_by(f64::total_cmp);
            let usage = before.usage.zip(after.usage).map(|(before, after)| after.since(before));
            let syncs = before.syncs.zip(after.syncs).map(|(before, after)| after.saturating_sub(before));
            let measurement = Measurement {
                rows_per_second: written as f64 / seconds,
                cpu_s_per_million: usage.map_or(f64::NAN, |usage| usage.cpu_s * 1e6 / written as f64),
                written_per_row: usage.map_or(f64::NAN, |usage| usage.written_bytes as f64 / written as f64),
                syncs_per_statement: syncs.map_or(f64::NAN, |syncs| syncs as f64 / took.len() as f64),
                ..Measurement::of_times("batches", (clients, rows), &took, &load)
            };
            println!(
                "batches of {rows:>5}, {clients:>2} clients {:>9.0} rows/s, {:>6.1} x the prototype  p50 {:>7.2} p99 {:>7.2} ms  cpu {:>7.2} s per M rows  written {:>6.1} B per row  syncs {:>5.2} per statement  load {:.2}",
                measurement.rows_per_second,
                measurement.rows_per_second / prototype,
                measurement.p50_ms,
                measurement.p99_ms,
                measurement.cpu_s_per_million,
                measurement.written_per_row,
                measurement.syncs_per_statement,
                measurement.load_one,
            );
            report.measurements.push(measurement);
        }
    }
    Ok(())
}

/// The node that leads the group of the table, from 0.
async fn leader(client: &Client) -> Result<Option<usize>, Error> {
    let row = client.query_opt("SELECT leader FROM annal.shards WHERE table_name = 'events' LIMIT 1", &[]).await?;
    let leader: Option<i64> = row.and_then(|row| row.get(0));
    Ok(leader.and_then(|leader| usize::try_from(leader - 1).ok()))
}

/// Kills the leader of a table again and again while a client of another node writes, and takes the time until that is answered again.
async fn failover(cluster: &Cluster, kills: usize, report: &mut Report<Measurement>) -> Result<(), Error> {
    create(&cluster.connect(0).await?, 1).await?;
    let (load, mut gaps, mut acknowledged) = (Load::now(), Vec::new(), 0_u64);
    for kill in 0..kills {
        let asked = cluster.connect(kill).await?;
        let leader = leader(&asked).await?.ok_or("the group of the table has no leader")?;
        let client = cluster.connect(leader + 1).await?;
        insert(&client, acknowledged).await?;
        acknowledged += 1;
        let process = cluster.process_of(leader).ok_or("the leader has no process")?;
        std::process::Command::new("kill").args(["-9", &process.to_string()]).status()?;
        let killed = Instant::now();
        tokio::time::timeout(PATIENCE, insert(&client, acknowledged)).await.map_err(|_| "nobody leads any more")??;
        acknowledged += 1;
        gaps.push(killed.elapsed().as_secs_f64() * 1e3);
        // Until the one that was killed is back and votes.
        let back = "SELECT count(*) FILTER (WHERE votes AND lag < 100) = count(*) AND count(DISTINCT node) = $1 FROM annal.replicas";
        let begin = Instant::now();
        while !client.query_one(back, &[&i64::try_from(cluster.ports.len())?]).await?.get::<_, bool>(0) {
            if begin.elapsed() > PATIENCE {
                return Err("a node that was killed does not come back".into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    check_stored(&cluster.connect(0).await?, acknowledged).await?;
    gaps.sort_by(f64::total_cmp);
    println!(
        "{kills} leaders killed: first acknowledgement after p50 {:.0} ms, p99 {:.0} ms, at most {:.0} ms; all {acknowledged} acknowledged rows there  load {:.2}",
        median(&gaps).unwrap_or(f64::NAN),
        quantile(&gaps, 0.99),
        quantile(&gaps, 1.0),
        load.one,
    );
    report.measurements.push(Measurement::of_times("failover", (1, 1), &gaps, &load));
    Ok(())
}

/// What clients of an overloaded cluster have heard.
#[derive(Debug, Default)]
struct Heard {
    rows: AtomicU64,
    refused: AtomicU64,
    late: AtomicU64,
    took_ms: Mutex<Vec<f64>>,
}

/// Connections that each offer a batch whenever it is time, whether the last was taken or refused.
async fn offer(
    cluster: &Cluster,
    connections: usize,
    rows: usize,
    per_second: f64,
    seconds: u64,
    next: &Arc<AtomicU64>,
) -> Result<Arc<Heard>, Error> {
    let heard = Arc::new(Heard::default());
    let stop = Arc::new(AtomicBool::new(false));
    let pause = Duration::from_secs_f64(rows as f64 * connections as f64 / per_second);
    let mut offering = Vec::new();
    for connection in 0..connections {
        let client = cluster.connect(connection).await?;
        let (heard, stop, next) = (heard.clone(), stop.clone(), next.clone());
        offering.push(tokio::spawn(async move {
            let mut due = Instant::now() + pause.mul_f64(connection as f64 / connections as f64);
            while !stop.load(Ordering::Relaxed) {
                tokio::time::sleep_until(due.into()).await;
                // What was not offered in time because the last took long is offered no more.
                let missed = due.elapsed().as_secs_f64() / pause.as_secs_f64();
                heard.late.fetch_add(missed.max(0.0).floor() as u64, Ordering::Relaxed);
                due += pause.mul_f64(1.0 + missed.max(0.0).floor());
                let begin = Instant::now();
                let text = batch(next.fetch_add(rows as u64, Ordering::Relaxed), rows);
                match send(&client, text).await {
                    Ok(stored) => {
                        heard.rows.fetch_add(stored, Ordering::Relaxed);
                        heard.took_ms.lock().expect("nobody panics with it").push(begin.elapsed().as_secs_f64() * 1e3);
                    }
                    Err(error) if error.code().is_some_and(|code| code.code().starts_with("53")) => {
                        heard.refused.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        }));
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    for task in offering {
        task.await??;
    }
    Ok(heard)
}

/// Finds out what the cluster can take, offers several times as much, and looks at what becomes of it.
async fn overload(cluster: &Cluster, arguments: &Arguments, report: &mut Report<Measurement>) -> Result<(), Error> {
    const ROWS: usize = 2_000;
    const CONNECTIONS: usize = 96;
    let control = cluster.connect(0).await?;
    create(&control, 1).await?;
    let next = Arc::new(AtomicU64::new(0));
    let terms = "SELECT sum(term)::bigint FROM annal.replicas";
    let load = Load::now();
    // Eight connections that offer without pause, for as long: at first memory takes what has to be written as segments later.
    let begin = Instant::now();
    let heard = offer(cluster, 8, ROWS, 1e12, arguments.overload_seconds, &next).await?;
    let capacity = heard.rows.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64();
    let mut acknowledged = heard.rows.load(Ordering::Relaxed);
    let before: i64 = control.query_one(terms, &[]).await?.get(0);
    let begin = Instant::now();
    let seconds = arguments.overload_seconds;
    let heard = offer(cluster, CONNECTIONS, ROWS, capacity * arguments.overload, seconds, &next).await?;
    let goodput = heard.rows.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64();
    let resident = cluster.resident_bytes();
    acknowledged += heard.rows.load(Ordering::Relaxed);
    let after: i64 = control.query_one(terms, &[]).await?.get(0);
    // Once more, since by now there is more to merge than there was at first.
    let begin = Instant::now();
    let again = offer(cluster, 8, ROWS, 1e12, arguments.overload_seconds, &next).await?;
    let capacity_after = again.rows.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64();
    acknowledged += again.rows.load(Ordering::Relaxed);
    check_stored(&control, acknowledged).await?;
    let mut took = heard.took_ms.lock().expect("nobody panics with it").clone();
    took.sort_by(f64::total_cmp);
    let (refused, late) = (heard.refused.load(Ordering::Relaxed), heard.late.load(Ordering::Relaxed));
    println!(
        "overload {:.1} x for {seconds} s: capacity {capacity:.0} rows/s before and {capacity_after:.0} after, goodput {goodput:.0} ({:.2} of the first), {refused} batches refused, {late} not offered in time, p50 {:.1} p99 {:.1} ms of those taken, terms {before} -> {after}, {} MiB resident in all nodes, all {acknowledged} acknowledged rows there  load {:.2}",
        arguments.overload,
        goodput / capacity,
        quantile(&took, 0.5),
        quantile(&took, 0.99),
        resident >> 20,
        load.one,
    );
    report.measurements.push(Measurement {
        rows_per_second: goodput,
        refused,
        ..Measurement::of_times("overload", (CONNECTIONS, ROWS), &took, &load)
    });
    Ok(())
}
