//! Three nodes under load: small and large batches at quorum sync, leaders that are killed, and more than they can take.
#![expect(clippy::print_stdout, reason = "the figures are the program's output")]

mod batches;
mod failover;
mod latency;
mod nodes;
mod overload;
mod running;
mod tables;

use std::path::PathBuf;
use std::time::Duration;

use benchmarks::Error;
use benchmarks::machine::Load;
use benchmarks::report::Report;
use clap::{Parser, ValueEnum};
use serde::Serialize;

use crate::running::Cluster;

/// How long a statement after a kill may take before the leader counts as lost for good.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Measures a cluster of Annal on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "batches,tables,latency,failover,overload,nodes")]
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
    /// Rows that there are when nodes come back and join.
    #[arg(long, default_value_t = 20_000_000)]
    rows: u64,
    /// Leaders killed.
    #[arg(long, default_value_t = 30)]
    kills: usize,
    /// Seconds of overload.
    #[arg(long, default_value_t = 300)]
    overload_seconds: u64,
    /// Seconds of finding out what the cluster can take, before the overload and after it.
    #[arg(long, default_value_t = 120)]
    capacity_seconds: u64,
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
    /// 1, 4 and 16 tables at once, and one table in 1 and 4 shards.
    Tables,
    /// How long a statement takes at 10, 50 and 90 % of the capacity.
    Latency,
    Failover,
    Overload,
    /// A node that is killed and comes back, and one that joins.
    Nodes,
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
    p999_ms: f64,
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
            p999_ms: quantile(took, 0.999),
            max_ms: quantile(took, 1.0),
            cpu_s_per_million: f64::NAN,
            written_per_row: f64::NAN,
            syncs_per_statement: f64::NAN,
            refused: 0,
            load_one: load.one,
        }
    }
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
    let cluster = Cluster::start(&binary, &arguments.directory, arguments.nodes).await?;
    for what in &arguments.what {
        match what {
            What::Batches => batches::batches(&cluster, &arguments, &mut report).await?,
            What::Tables => tables::tables(&cluster, &arguments, &mut report).await?,
            What::Latency => latency::latency(&cluster, &arguments, &mut report).await?,
            What::Failover => failover::failover(&cluster, arguments.kills, &mut report).await?,
            What::Overload => overload::overload(&cluster, &arguments, &mut report).await?,
            What::Nodes => nodes::nodes(&cluster, &binary, &arguments, &mut report).await?,
        }
    }
    report.write(&arguments.out)?;
    println!("load {:.2}; figures in {}", report.load_after.one, arguments.out.display());
    Ok(())
}

/// The value below which that part of the sorted ones lies.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in the list")]
    let at = (q * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}
