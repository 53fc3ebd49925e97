//! COPY of rows of which a part belongs to windows that were sealed long ago, beside COPY in order, in the same run.
#![expect(clippy::print_stdout, reason = "the figures are the program's output")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use benchmarks::Error;
use benchmarks::devops::{self, Form, Reading, Readings, Size};
use benchmarks::machine::{Load, median};
use benchmarks::report::Report;
use benchmarks::servers::Server;
use bytes::Bytes;
use clap::Parser;
use futures::SinkExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use tokio_postgres::Client;

/// Rows of a COPY.
const BATCH_ROWS: usize = 10_000;
/// How long the background may take to merge what late rows left.
const SETTLE_MAX: Duration = Duration::from_secs(120);

/// Measures what late rows cost.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rows in order that are there, sealed, before the clock starts.
    #[arg(long, default_value_t = 500_000)]
    history: usize,
    /// Rows of each measurement.
    #[arg(long, default_value_t = 1_000_000)]
    rows: usize,
    /// Clients that copy.
    #[arg(long, default_value_t = 2)]
    clients: usize,
    /// Percentages of late rows; the first is what the others are compared with.
    #[arg(long, value_delimiter = ',', default_value = "0,1,5,10,50")]
    late: Vec<u32>,
    /// Hosts in the data.
    #[arg(long, default_value_t = 100)]
    hosts: usize,
    /// Times each percentage is measured; medians are compared.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
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
    #[arg(long, default_value = "late.json")]
    out: PathBuf,
}

/// One run with one percentage.
#[derive(Debug, Serialize)]
struct Measurement {
    late_percent: u32,
    round: usize,
    rows: usize,
    seconds: f64,
    rows_per_second: f64,
    cpu_seconds: Option<f64>,
    written_bytes: Option<u64>,
    /// Segments when the last row was acknowledged, and when the background had come to rest.
    segments: i64,
    segments_settled: i64,
    settle_seconds: f64,
    load_one: f64,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments = Arguments::parse();
    let mut report = Report::begin("late");
    println!("{} cores, load {:.2}", report.cores, report.load_before.one);
    let binary = match &arguments.annal {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("annal"),
    };
    let server = Server::start_annal(&binary, &arguments.directory).await?;
    for round in 0..arguments.rounds {
        for late in &arguments.late {
            let measurement = measure(&server, &arguments, *late, round).await?;
            println!(
                "{late:>3} % late  {:>9.0} rows/s  cpu {:>6.2} s  written {:>7.1} MB  segments {:>4}, {:>3} after {:>5.1} s  load {:.2}",
                measurement.rows_per_second,
                measurement.cpu_seconds.unwrap_or(f64::NAN),
                measurement.written_bytes.map_or(f64::NAN, |bytes| bytes as f64 / 1e6),
                measurement.segments,
                measurement.segments_settled,
                measurement.settle_seconds,
                measurement.load_one,
            );
            report.measurements.push(measurement);
        }
    }
    print_ratios(&report, &arguments.late);
    report.write(&arguments.out)?;
    println!("load {:.2}; figures in {}", report.load_after.one, arguments.out.display());
    Ok(())
}

async fn measure(server: &Server, arguments: &Arguments, late: u32, round: usize) -> Result<Measurement, Error> {
    let control = server.connect().await?;
    control.simple_query("DROP TABLE IF EXISTS cpu").await?;
    let options = "WITH (time_column = 'time', series = 'hostname', split_interval = '12 hours')";
    control.simple_query(&format!("CREATE TABLE cpu ({}) {options}", devops::columns())).await?;
    let all = arguments.history + arguments.rows;
    let mut readings = Readings::new(Size::of_rows(all, arguments.hosts), arguments.seed).take(all);
    let history: Vec<Reading> = readings.by_ref().take(arguments.history).collect();
    let history_us = (devops::START_US, history.last().map_or(devops::START_US + 1, |reading| reading.time_us));
    for (lines, _) in devops::batches(history.into_iter(), BATCH_ROWS, Form::Copy) {
        copy(&control, lines).await?;
    }
    control.simple_query("SELECT annal.flush()").await?;
    let mut random = StdRng::seed_from_u64(arguments.seed + u64::from(late));
    let delayed = readings.map(|reading| {
        let is_late = random.random_range(0..100) < late;
        let time_us = if is_late { random.random_range(history_us.0..history_us.1) } else { reading.time_us };
        Reading { time_us, ..reading }
    });
    let mut clients = vec![Vec::new(); arguments.clients];
    for (at, (lines, _)) in devops::batches(delayed, BATCH_ROWS, Form::Copy).into_iter().enumerate() {
        clients[at % arguments.clients].push(lines);
    }
    let load = Load::now();
    let before = server.work(&control).await;
    let begin = Instant::now();
    let mut sending = Vec::new();
    for batches in clients {
        let client = server.connect().await?;
        sending.push(tokio::spawn(async move {
            for lines in batches {
                copy(&client, lines).await?;
            }
            Ok::<_, Error>(())
        }));
    }
    for task in sending {
        task.await??;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let after = server.work(&control).await;
    let used = before.usage.zip(after.usage).map(|(before, after)| after.since(before));
    let stored: i64 = control.query_one("SELECT count(*) FROM cpu", &[]).await?.try_get(0)?;
    if usize::try_from(stored)? != all {
        return Err(format!("{stored} of {all} rows are there").into());
    }
    let segments = count_segments(&control).await?;
    let (segments_settled, settle_seconds) = settle(&control).await?;
    Ok(Measurement {
        late_percent: late,
        round,
        rows: arguments.rows,
        seconds,
        rows_per_second: arguments.rows as f64 / seconds,
        cpu_seconds: used.map(|usage| usage.cpu_s),
        written_bytes: used.map(|usage| usage.written_bytes),
        segments,
        segments_settled,
        settle_seconds,
        load_one: load.one,
    })
}

async fn copy(client: &Client, lines: Bytes) -> Result<(), Error> {
    let sink = client.copy_in("COPY cpu FROM STDIN (FORMAT csv)").await?;
    futures::pin_mut!(sink);
    sink.send(lines).await?;
    sink.finish().await?;
    Ok(())
}

async fn count_segments(control: &Client) -> Result<i64, Error> {
    Ok(control.query_one("SELECT count(*) FROM annal.segments", &[]).await?.try_get(0)?)
}

/// Waits until the number of segments has not changed for a while; the number, and how long that took.
async fn settle(control: &Client) -> Result<(i64, f64), Error> {
    let begin = Instant::now();
    control.simple_query("SELECT annal.flush()").await?;
    let (mut last, mut changed) = (count_segments(control).await?, Instant::now());
    while changed.elapsed() < Duration::from_secs(5) && begin.elapsed() < SETTLE_MAX {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = count_segments(control).await?;
        if now != last {
            (last, changed) = (now, Instant::now());
        }
    }
    Ok((last, changed.duration_since(begin).as_secs_f64()))
}

fn print_ratios(report: &Report<Measurement>, shares: &[u32]) {
    let rate = |share: u32| {
        let of_share = report.measurements.iter().filter(|m| m.late_percent == share);
        median(&of_share.map(|m| m.rows_per_second).collect::<Vec<_>>()).unwrap_or(f64::NAN)
    };
    let control = shares.first().map_or(f64::NAN, |share| rate(*share));
    for share in shares {
        println!("{share:>3} % late: {:>9.0} rows/s, {:.2} of in order", rate(*share), rate(*share) / control);
    }
}
