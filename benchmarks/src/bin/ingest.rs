//! Ingest beside PostgreSQL: the same rows, the same connections, one durable commit for each batch, both servers in the same run.
#![expect(clippy::print_stdout, reason = "the figures are the program's output")]

use std::path::PathBuf;
use std::time::Instant;

use benchmarks::Error;
use benchmarks::devops::{self, Form, Readings, Size};
use benchmarks::machine::{Load, median};
use benchmarks::report::Report;
use benchmarks::servers::{Product, Server, Work};
use bytes::Bytes;
use clap::Parser;
use futures::SinkExt;
use serde::Serialize;
use tokio_postgres::Client;

/// Measures COPY and INSERT into Annal and PostgreSQL.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rows of each COPY workload.
    #[arg(long, default_value_t = 1_000_000)]
    rows: usize,
    /// Rows of the INSERT workload with 1,000-row statements.
    #[arg(long, default_value_t = 200_000)]
    insert_rows: usize,
    /// Rows for each client of the INSERT workloads with 1-row statements.
    #[arg(long, default_value_t = 1_000)]
    single_rows: usize,
    /// Hosts in the data.
    #[arg(long, default_value_t = 100)]
    hosts: usize,
    /// Times each workload runs on each server; medians are printed.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seed of the data.
    #[arg(long, default_value_t = 123)]
    seed: u64,
    /// Only workloads whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// The annal binary [default: beside this program].
    #[arg(long)]
    annal: Option<PathBuf>,
    /// Nodes of Annal, each a process; with several, every row is on a majority before it is acknowledged.
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// A running Annal instead of one started here.
    #[arg(long)]
    annal_dsn: Option<String>,
    /// The directory of PostgreSQL's programs.
    #[arg(long, default_value = "/usr/lib/postgresql/15/bin")]
    postgres: PathBuf,
    /// A running PostgreSQL instead of one started here.
    #[arg(long)]
    postgres_dsn: Option<String>,
    /// Where data directories are made; both servers write to the same disk.
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// Where the figures go, .json or .csv.
    #[arg(long, default_value = "ingest.json")]
    out: PathBuf,
}

struct Workload {
    name: &'static str,
    form: Form,
    clients: usize,
    rows: usize,
    batch: usize,
}

/// One run of one workload on one server.
#[derive(Debug, Serialize)]
struct Measurement {
    workload: &'static str,
    product: &'static str,
    round: usize,
    clients: usize,
    batch_rows: usize,
    rows: usize,
    seconds: f64,
    rows_per_second: f64,
    batch_ms_median: f64,
    batch_ms_max: f64,
    cpu_seconds: Option<f64>,
    written_bytes: Option<u64>,
    log_syncs: Option<u64>,
    /// Bytes written for each byte of the table and its indexes as they lie in the end, flushed.
    written_per_kept: Option<f64>,
    load_one: f64,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments = Arguments::parse();
    let mut report = Report::begin("ingest");
    println!("{} cores, load {:.2}", report.cores, report.load_before.one);
    let servers = [
        match &arguments.annal_dsn {
            Some(dsn) => Server::given(Product::Annal, dsn),
            None if arguments.nodes > 1 => {
                let binary = annal_binary(&arguments)?;
                Server::start_annal_cluster(&binary, &arguments.directory, arguments.nodes).await?
            }
            None => Server::start_annal(&annal_binary(&arguments)?, &arguments.directory).await?,
        },
        match &arguments.postgres_dsn {
            Some(dsn) => Server::given(Product::PostgreSql, dsn),
            None => Server::start_postgres(&arguments.postgres, &arguments.directory).await?,
        },
    ];
    let workloads = workloads(&arguments);
    if workloads.is_empty() {
        return Err(format!("no workload has \"{}\" in its name", arguments.only).into());
    }
    for workload in workloads {
        let batches = cut(&workload, &arguments);
        for round in 0..arguments.rounds {
            for server in &servers {
                let measurement = measure(server, &workload, &batches, round).await?;
                println!(
                    "{:14} {:10} {:>9.0} rows/s  cpu {:>7.2} s per M rows  written {:>7.1} B per row, {:>5.2} per byte kept  syncs {:>6}  load {:.2}",
                    measurement.workload,
                    measurement.product,
                    measurement.rows_per_second,
                    measurement.cpu_seconds.map_or(f64::NAN, |cpu| cpu * 1e6 / measurement.rows as f64),
                    measurement.written_bytes.map_or(f64::NAN, |bytes| bytes as f64 / measurement.rows as f64),
                    measurement.written_per_kept.unwrap_or(f64::NAN),
                    measurement.log_syncs.map_or("-".into(), |syncs| syncs.to_string()),
                    measurement.load_one,
                );
                report.measurements.push(measurement);
            }
        }
        print_ratio(&report, workload.name);
    }
    report.write(&arguments.out)?;
    println!("load {:.2}; figures in {}", report.load_after.one, arguments.out.display());
    Ok(())
}

fn annal_binary(arguments: &Arguments) -> Result<PathBuf, Error> {
    match &arguments.annal {
        Some(path) => Ok(path.clone()),
        None => Ok(std::env::current_exe()?.with_file_name("annal")),
    }
}

fn workloads(arguments: &Arguments) -> Vec<Workload> {
    let (copy, insert, single) = (arguments.rows, arguments.insert_rows, arguments.single_rows);
    let all = [
        Workload { name: "copy-10k-1", form: Form::Copy, clients: 1, rows: copy, batch: 10_000 },
        Workload { name: "copy-10k-2", form: Form::Copy, clients: 2, rows: copy, batch: 10_000 },
        Workload { name: "copy-one", form: Form::Copy, clients: 1, rows: copy, batch: copy },
        Workload { name: "insert-1k-1", form: Form::Insert, clients: 1, rows: insert, batch: 1_000 },
        Workload { name: "insert-1-1", form: Form::Insert, clients: 1, rows: single, batch: 1 },
        Workload { name: "insert-1-16", form: Form::Insert, clients: 16, rows: single * 16, batch: 1 },
    ];
    all.into_iter().filter(|workload| workload.name.contains(&arguments.only)).collect()
}

/// The batches of every client, written out before any clock starts. Batches go round the clients in time order.
fn cut(workload: &Workload, arguments: &Arguments) -> Vec<Vec<(Bytes, usize)>> {
    let size = Size::of_rows(workload.rows, arguments.hosts);
    let readings = Readings::new(size, arguments.seed).take(workload.rows);
    let mut clients = vec![Vec::new(); workload.clients];
    for (at, batch) in devops::batches(readings, workload.batch, workload.form).into_iter().enumerate() {
        clients[at % workload.clients].push(batch);
    }
    clients
}

async fn prepare(server: &Server, client: &Client) -> Result<(), Error> {
    client.simple_query("DROP TABLE IF EXISTS cpu").await?;
    let create = format!("CREATE TABLE cpu ({})", devops::columns());
    match server.product {
        Product::Annal => {
            let options = "WITH (time_column = 'time', series = 'hostname', split_interval = '12 hours')";
            client.simple_query(&format!("{create} {options}")).await?;
        }
        Product::PostgreSql => {
            client.simple_query(&create).await?;
            client.simple_query("CREATE INDEX ON cpu (hostname, time DESC)").await?;
            client.simple_query("CREATE INDEX ON cpu (time DESC)").await?;
        }
    }
    Ok(())
}

async fn measure(
    server: &Server,
    workload: &Workload,
    batches: &[Vec<(Bytes, usize)>],
    round: usize,
) -> Result<Measurement, Error> {
    let control = server.connect().await?;
    prepare(server, &control).await?;
    let mut clients = Vec::new();
    for _ in 0..workload.clients {
        clients.push(server.connect().await?);
    }
    let load = Load::now();
    let before = server.work(&control).await;
    let begin = Instant::now();
    let sending: Vec<_> = clients
        .into_iter()
        .zip(batches.to_vec())
        .map(|(client, batches)| tokio::spawn(send(client, batches, workload.form)))
        .collect();
    // Clients are kept until the work is read: a backend that has ended shows no written bytes.
    let (mut latencies, mut open) = (Vec::new(), Vec::new());
    let mut sent = Vec::new();
    for task in sending {
        sent.push(task.await??);
    }
    let seconds = begin.elapsed().as_secs_f64();
    for (client, took) in sent {
        if server.product == Product::PostgreSql {
            // Each backend counts its syncs, and tells when it is asked.
            client.simple_query("SELECT pg_stat_force_next_flush()").await?;
        }
        latencies.extend(took);
        open.push(client);
    }
    let after = server.work(&control).await;
    drop(open);
    let stored: i64 = control.query_one("SELECT count(*) FROM cpu", &[]).await?.try_get(0)?;
    if usize::try_from(stored)? != workload.rows {
        return Err(format!("{} holds {stored} of {} rows", server.product.name(), workload.rows).into());
    }
    let used = difference(before, after);
    let kept = kept_bytes(server, &control).await?;
    Ok(Measurement {
        workload: workload.name,
        product: server.product.name(),
        round,
        clients: workload.clients,
        batch_rows: workload.batch,
        rows: workload.rows,
        seconds,
        rows_per_second: workload.rows as f64 / seconds,
        batch_ms_median: median(&latencies).unwrap_or(0.0),
        batch_ms_max: latencies.iter().copied().fold(0.0, f64::max),
        cpu_seconds: used.usage.map(|usage| usage.cpu_s),
        written_bytes: used.usage.map(|usage| usage.written_bytes),
        log_syncs: used.syncs,
        written_per_kept: used.usage.map(|usage| usage.written_bytes as f64 / kept as f64),
        load_one: load.one,
    })
}

/// Sends the batches one after the other; gives the connection back and the milliseconds of each batch.
async fn send(client: Client, batches: Vec<(Bytes, usize)>, form: Form) -> Result<(Client, Vec<f64>), Error> {
    let mut latencies = Vec::with_capacity(batches.len());
    for (batch, rows) in batches {
        let begin = Instant::now();
        match form {
            Form::Copy => {
                let sink = client.copy_in("COPY cpu FROM STDIN (FORMAT csv)").await?;
                futures::pin_mut!(sink);
                // A message of a driver is some tens of kilobytes.
                for at in (0..batch.len()).step_by(64 << 10) {
                    sink.send(batch.slice(at..batch.len().min(at + (64 << 10)))).await?;
                }
                let stored = sink.finish().await?;
                if stored != rows as u64 {
                    return Err(format!("COPY of {rows} rows stored {stored}").into());
                }
            }
            Form::Insert => {
                client.simple_query(std::str::from_utf8(&batch)?).await?;
            }
        }
        latencies.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok((client, latencies))
}

/// Bytes of the table and its indexes once everything is on disk.
async fn kept_bytes(server: &Server, control: &Client) -> Result<i64, Error> {
    let sql = match server.product {
        Product::Annal => {
            control.simple_query("SELECT annal.flush()").await?;
            "SELECT sum(bytes)::bigint FROM annal.segments"
        }
        Product::PostgreSql => "SELECT pg_total_relation_size('cpu')",
    };
    Ok(control.query_one(sql, &[]).await?.try_get(0)?)
}

fn difference(before: Work, after: Work) -> Work {
    Work {
        usage: before.usage.zip(after.usage).map(|(before, after)| after.since(before)),
        syncs: before.syncs.zip(after.syncs).map(|(before, after)| after.saturating_sub(before)),
    }
}

fn print_ratio(report: &Report<Measurement>, workload: &str) {
    let rate = |product: Product| {
        let rates: Vec<f64> = report
            .measurements
            .iter()
            .filter(|m| m.workload == workload && m.product == product.name())
            .map(|m| m.rows_per_second)
            .collect();
        median(&rates).unwrap_or(f64::NAN)
    };
    let (annal, postgresql) = (rate(Product::Annal), rate(Product::PostgreSql));
    println!(
        "{workload:14} medians: annal {annal:.0}, postgresql {postgresql:.0} rows/s, ratio {:.2}\n",
        annal / postgresql
    );
}
