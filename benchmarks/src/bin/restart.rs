//! Time to ready after kill -9, and bytes per row on disk.
#![expect(clippy::print_stdout, reason = "the figures are the program's output")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use benchmarks::Error;
use benchmarks::devops::{self, Form, Readings, Size};
use benchmarks::machine::{Load, bytes_below};
use benchmarks::report::Report;
use benchmarks::servers::Server;
use clap::Parser;
use futures::SinkExt;
use serde::Serialize;

/// Loads rows into Annal, kills it and starts it again.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rows in batches of 10,000, each one COPY.
    #[arg(long, default_value_t = 1_000_000)]
    rows: usize,
    /// Hosts in the data.
    #[arg(long, default_value_t = 100)]
    hosts: usize,
    /// Seed of the data.
    #[arg(long, default_value_t = 123)]
    seed: u64,
    /// Times it is killed and started.
    #[arg(long, default_value_t = 5)]
    restarts: usize,
    /// Seconds to wait for the rows to be sealed before the last measurement; the first is taken at once.
    #[arg(long, default_value_t = 90)]
    settle_s: u64,
    /// The annal binary [default: beside this program].
    #[arg(long)]
    annal: Option<PathBuf>,
    /// Where the data directory is made.
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// Where the figures go, .json or .csv.
    #[arg(long, default_value = "restart.json")]
    out: PathBuf,
}

/// One restart.
#[derive(Debug, Serialize)]
struct Measurement {
    restart: usize,
    sealed: bool,
    rows: usize,
    ready_seconds: f64,
    count_seconds: f64,
    data_bytes: u64,
    segment_bytes: u64,
    segment_bytes_per_row: f64,
    load_one: f64,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments = Arguments::parse();
    let mut report = Report::begin("restart");
    println!("{} cores, load {:.2}", report.cores, report.load_before.one);
    let binary = match &arguments.annal {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("annal"),
    };
    let mut server = Server::start_annal(&binary, &arguments.directory).await?;
    load(&server, &arguments).await?;
    for restart in 0..arguments.restarts {
        let sealed = restart > 0 && restart + 1 == arguments.restarts;
        if sealed {
            wait_for_seal(&server, Duration::from_secs(arguments.settle_s)).await;
        }
        let measurement = measure(&mut server, restart, sealed, arguments.rows).await?;
        println!(
            "restart {restart}{}: ready {:.3} s, counted {:.3} s, data {:.1} MB, segments {:.1} MB, {:.2} B/row, load {:.2}",
            if sealed { " (sealed)" } else { "" },
            measurement.ready_seconds,
            measurement.count_seconds,
            measurement.data_bytes as f64 / 1e6,
            measurement.segment_bytes as f64 / 1e6,
            measurement.segment_bytes_per_row,
            measurement.load_one,
        );
        report.measurements.push(measurement);
    }
    report.write(&arguments.out)?;
    println!("load {:.2}; figures in {}", report.load_after.one, arguments.out.display());
    Ok(())
}

async fn load(server: &Server, arguments: &Arguments) -> Result<(), Error> {
    let client = server.connect().await?;
    let options = "WITH (time_column = 'time', series = 'hostname', split_interval = '12 hours')";
    client.simple_query(&format!("CREATE TABLE cpu ({}) {options}", devops::columns())).await?;
    let size = Size::of_rows(arguments.rows, arguments.hosts);
    let readings = Readings::new(size, arguments.seed).take(arguments.rows);
    for (lines, _) in devops::batches(readings, 10_000, Form::Copy) {
        let sink = client.copy_in("COPY cpu FROM STDIN (FORMAT csv)").await?;
        futures::pin_mut!(sink);
        sink.send(lines).await?;
        sink.finish().await?;
    }
    Ok(())
}

/// Waits until no row is in memory alone, or the time is over.
async fn wait_for_seal(server: &Server, patience: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < patience && server.metric("annal_memtable_bytes").await != Some(0) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn measure(server: &mut Server, restart: usize, sealed: bool, rows: usize) -> Result<Measurement, Error> {
    let load = Load::now();
    let ready = server.crash_and_restart().await?;
    let begin = Instant::now();
    let client = server.connect().await?;
    let stored: i64 = client.query_one("SELECT count(*) FROM cpu", &[]).await?.try_get(0)?;
    let counted = begin.elapsed();
    if usize::try_from(stored)? != rows {
        return Err(format!("{stored} of {rows} rows are there after restart {restart}").into());
    }
    let data = server.data_directory().ok_or("the server was started here")?;
    let segment_bytes = bytes_below(&data.join("segments"));
    Ok(Measurement {
        restart,
        sealed,
        rows,
        ready_seconds: ready.as_secs_f64(),
        count_seconds: counted.as_secs_f64(),
        data_bytes: bytes_below(&data),
        segment_bytes,
        segment_bytes_per_row: segment_bytes as f64 / rows as f64,
        load_one: load.one,
    })
}
