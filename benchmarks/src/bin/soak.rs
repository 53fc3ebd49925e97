//! A node under mixed load for half an hour: does it keep its memory, threads and open files, and its answers?
#![expect(clippy::print_stdout, reason = "the figures are the program's output")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use benchmarks::Error;
use benchmarks::devops::{self, Form, Reading, Readings, Size};
use benchmarks::machine::{Load, median};
use benchmarks::report::Report;
use benchmarks::servers::Server;
use clap::Parser;
use futures::SinkExt;
use serde::Serialize;
use tokio::task::JoinHandle;

/// Rows of a COPY.
const BATCH_ROWS: usize = 5_000;
/// A COPY client rests so long after each batch: the load shall be steady, not the most there can be.
const BETWEEN_BATCHES: Duration = Duration::from_millis(250);
/// Between two one-row INSERTs of a client, and between two queries.
const BETWEEN_STATEMENTS: Duration = Duration::from_millis(20);
/// Splits of 12 hours that are kept; older ones are dropped.
const SPLITS_KEPT: i64 = 6;
/// What readers ask, in turn. The last ones fail, as statements of users do.
const QUERIES: [&str; 6] = [
    "SELECT time_bucket('1 hour', time) AS hour, max(usage_user) FROM cpu GROUP BY hour ORDER BY hour",
    "SELECT hostname, last(usage_user, time) FROM cpu GROUP BY hostname",
    "SELECT count(*) FROM cpu WHERE usage_user > 90 AND hostname = 'host_7'",
    "SELECT * FROM cpu ORDER BY time DESC LIMIT 100",
    "SELECT nonsense FROM cpu",
    "INSERT INTO cpu (time) VALUES ('no time')",
];

/// Runs a mixed load and watches the process.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seconds.
    #[arg(long, default_value_t = 1800)]
    seconds: u64,
    /// Seconds between two looks.
    #[arg(long, default_value_t = 10)]
    interval: u64,
    /// Seed of the data.
    #[arg(long, default_value_t = 123)]
    seed: u64,
    /// The annal binary [default: beside this program].
    #[arg(long)]
    annal: Option<PathBuf>,
    /// Where the data directory is made.
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// Where the figures go, .json or .csv.
    #[arg(long, default_value = "soak.json")]
    out: PathBuf,
}

/// One look at the process.
#[derive(Clone, Debug, Serialize)]
struct Measurement {
    second: f64,
    rows_written: u64,
    statements: u64,
    resident_mb: f64,
    threads: usize,
    open_files: usize,
    segments: i64,
    data_mb: f64,
    load_one: f64,
}

/// What the clients have done.
#[derive(Debug, Default)]
struct Done {
    stop: AtomicBool,
    rows: AtomicU64,
    statements: AtomicU64,
    /// The newest event time written, in microseconds.
    newest_us: AtomicU64,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments = Arguments::parse();
    let mut report = Report::begin("soak");
    println!("{} cores, load {:.2}", report.cores, report.load_before.one);
    let binary = match &arguments.annal {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("annal"),
    };
    let server = Arc::new(Server::start_annal(&binary, &arguments.directory).await?);
    let control = server.connect().await?;
    let options = "WITH (time_column = 'time', series = 'hostname', split_interval = '12 hours')";
    control.simple_query(&format!("CREATE TABLE cpu ({}) {options}", devops::columns())).await?;
    let done = Arc::new(Done::default());
    let clients = clients(&server, &done, arguments.seed);
    let begin = Instant::now();
    while begin.elapsed().as_secs() < arguments.seconds {
        tokio::time::sleep(Duration::from_secs(arguments.interval)).await;
        let newest_us = i64::try_from(done.newest_us.load(Ordering::Relaxed))?;
        let kept = devops::instant(newest_us.max(devops::START_US) - SPLITS_KEPT * devops::SPLIT_US);
        control.simple_query(&format!("SELECT drop_chunks('cpu', older_than => '{kept}'::timestamptz)")).await?;
        let segments = control.query_one("SELECT count(*) FROM annal.segments", &[]).await?.try_get(0)?;
        let look = look(&server, &done, begin.elapsed(), segments)?;
        println!(
            "{:>6.0} s  {:>10} rows  {:>8} statements  {:>7.1} MB resident  {:>3} threads  {:>4} files  {:>4} segments  {:>7.1} MB data  load {:.2}",
            look.second,
            look.rows_written,
            look.statements,
            look.resident_mb,
            look.threads,
            look.open_files,
            look.segments,
            look.data_mb,
            look.load_one
        );
        report.measurements.push(look);
        if let Some(ended) = clients.iter().find(|client| client.is_finished()) {
            return Err(format!("client {} ended before its time", ended.id()).into());
        }
    }
    done.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await??;
    }
    print_growth(&report.measurements);
    report.write(&arguments.out)?;
    println!("load {:.2}; figures in {}", report.load_after.one, arguments.out.display());
    Ok(())
}

fn clients(server: &Arc<Server>, done: &Arc<Done>, seed: u64) -> Vec<JoinHandle<Result<(), Error>>> {
    let mut clients = Vec::new();
    for number in 0..2 {
        clients.push(tokio::spawn(copy(server.clone(), done.clone(), seed + number)));
        clients.push(tokio::spawn(insert(server.clone(), done.clone())));
        clients.push(tokio::spawn(query(server.clone(), done.clone())));
    }
    clients.push(tokio::spawn(reconnect(server.clone(), done.clone())));
    clients
}

/// Batches without end; some rows of each are late.
async fn copy(server: Arc<Server>, done: Arc<Done>, seed: u64) -> Result<(), Error> {
    let client = server.connect().await?;
    let size = Size { hosts: 100, instants: usize::MAX / 1_000, interval_s: 60 };
    let mut readings = Readings::new(size, seed);
    while !done.stop.load(Ordering::Relaxed) {
        let batch: Vec<Reading> = readings.by_ref().take(BATCH_ROWS).collect();
        let newest_us = batch.last().map_or(0, |reading| reading.time_us);
        let late = batch.into_iter().enumerate().map(|(at, reading)| match at % 50 {
            0 => Reading { time_us: reading.time_us - devops::SPLIT_US, ..reading },
            _ => reading,
        });
        for (lines, rows) in devops::batches(late, BATCH_ROWS, Form::Copy) {
            let sink = client.copy_in("COPY cpu FROM STDIN (FORMAT csv)").await?;
            futures::pin_mut!(sink);
            sink.send(lines).await?;
            sink.finish().await?;
            done.rows.fetch_add(rows as u64, Ordering::Relaxed);
        }
        done.newest_us.fetch_max(u64::try_from(newest_us)?, Ordering::Relaxed);
        tokio::time::sleep(BETWEEN_BATCHES).await;
    }
    Ok(())
}

async fn insert(server: Arc<Server>, done: Arc<Done>) -> Result<(), Error> {
    let client = server.connect().await?;
    while !done.stop.load(Ordering::Relaxed) {
        let newest_us = i64::try_from(done.newest_us.load(Ordering::Relaxed))?.max(devops::START_US);
        let time = devops::instant(newest_us);
        client
            .simple_query(&format!("INSERT INTO cpu (time, hostname, usage_user) VALUES ('{time}', 'one', 1)"))
            .await?;
        done.rows.fetch_add(1, Ordering::Relaxed);
        done.statements.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(BETWEEN_STATEMENTS).await;
    }
    Ok(())
}

async fn query(server: Arc<Server>, done: Arc<Done>) -> Result<(), Error> {
    let client = server.connect().await?;
    for sql in QUERIES.iter().cycle() {
        if done.stop.load(Ordering::Relaxed) {
            break;
        }
        match client.simple_query(sql).await {
            Err(error) if error.as_db_error().is_none() => return Err(error.into()),
            // What the server says is not what is measured here.
            _ => {}
        }
        done.statements.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(BETWEEN_STATEMENTS).await;
    }
    Ok(())
}

/// Comes, asks, and goes without a word.
async fn reconnect(server: Arc<Server>, done: Arc<Done>) -> Result<(), Error> {
    while !done.stop.load(Ordering::Relaxed) {
        let client = server.connect().await?;
        client.query_one("SELECT count(*) FROM cpu WHERE hostname = $1", &[&"host_1"]).await?;
        done.statements.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(BETWEEN_STATEMENTS).await;
    }
    Ok(())
}

fn look(server: &Server, done: &Done, at: Duration, segments: i64) -> Result<Measurement, Error> {
    let process = server.process_id().ok_or("the server was started here")?;
    let process = Path::new("/proc").join(process.to_string());
    let entries = |name: &str| std::fs::read_dir(process.join(name)).map(Iterator::count);
    let status = std::fs::read_to_string(process.join("status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let resident: f64 = resident.map_or("0", |kb| kb.trim().trim_end_matches("kB").trim()).parse()?;
    let data = server.data_directory().ok_or("the server was started here")?;
    Ok(Measurement {
        second: at.as_secs_f64(),
        rows_written: done.rows.load(Ordering::Relaxed),
        statements: done.statements.load(Ordering::Relaxed),
        resident_mb: resident / 1e3,
        threads: entries("task")?,
        open_files: entries("fd")?,
        segments,
        data_mb: benchmarks::machine::bytes_below(&data) as f64 / 1e6,
        load_one: Load::now().one,
    })
}

/// One number of a look at the server.
type Figure = fn(&Measurement) -> f64;

/// The second quarter beside the last: what grows without end shows there.
fn print_growth(looks: &[Measurement]) {
    let quarter = looks.len() / 4;
    let (early, late) = (&looks[quarter..quarter * 2], &looks[looks.len() - quarter..]);
    let of = |looks: &[Measurement], figure: Figure| {
        median(&looks.iter().map(figure).collect::<Vec<_>>()).unwrap_or(f64::NAN)
    };
    let figures: [(&str, Figure); 4] = [
        ("resident MB", |look| look.resident_mb),
        ("threads", |look| look.threads as f64),
        ("open files", |look| look.open_files as f64),
        ("segments", |look| look.segments as f64),
    ];
    for (name, figure) in figures {
        let (early, late) = (of(early, figure), of(late, figure));
        println!("{name}: {early:.1} in the second quarter, {late:.1} in the last, ratio {:.2}", late / early);
    }
}
