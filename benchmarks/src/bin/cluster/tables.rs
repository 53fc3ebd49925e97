//! Several tables at once, and one table in several shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use benchmarks::Error;
use benchmarks::machine::Load;
use benchmarks::report::Report;

use crate::running::{Cluster, batch, copy, create, send};
use crate::{Arguments, Measurement};

const ROWS: usize = 10_000;
const CLIENTS: usize = 16;

/// Sixteen clients that load batches of 10,000 rows into so many tables of so many shards.
pub(crate) async fn tables(
    cluster: &Cluster,
    arguments: &Arguments,
    report: &mut Report<Measurement>,
) -> Result<(), Error> {
    let control = cluster.connect(0).await?;
    for (what, tables, shards) in [("1 table", 1, 1), ("4 tables", 4, 1), ("16 tables", 16, 1), ("4 shards", 1, 4)] {
        let names: Vec<String> = (0..tables).map(|table| format!("events_{table}")).collect();
        for name in &names {
            create(&control, name, shards).await?;
        }
        let before = cluster.server.work(&control).await;
        let (load, begin, next) = (Load::now(), Instant::now(), Arc::new(AtomicU64::new(0)));
        let mut writing = Vec::new();
        for number in 0..CLIENTS {
            let (client, next) = (cluster.connect(number).await?, next.clone());
            let copy = copy(&client, &names[number % tables]).await?;
            let until = Duration::from_secs(arguments.seconds);
            writing.push(tokio::spawn(async move {
                let mut took = Vec::new();
                while begin.elapsed() < until {
                    let text = batch(next.fetch_add(ROWS as u64, Ordering::Relaxed), ROWS);
                    let start = Instant::now();
                    send(&client, &copy, text).await?;
                    took.push(start.elapsed().as_secs_f64() * 1e3);
                }
                Ok::<_, tokio_postgres::Error>(took)
            }));
        }
        let mut took = Vec::new();
        for task in writing {
            took.extend(task.await??);
        }
        let written = took.len() * ROWS;
        let seconds = begin.elapsed().as_secs_f64();
        let usage = before.usage.zip(cluster.server.work(&control).await.usage);
        took.sort_by(f64::total_cmp);
        let measurement = Measurement {
            rows_per_second: written as f64 / seconds,
            cpu_s_per_million: usage
                .map_or(f64::NAN, |(before, after)| after.since(before).cpu_s * 1e6 / written as f64),
            ..Measurement::of_times(what, (CLIENTS, ROWS), &took, &load)
        };
        println!(
            "{tables:>2} tables of {shards} shards, {CLIENTS} clients {:>9.0} rows/s  p50 {:>7.2} p99 {:>7.2} ms  cpu {:>5.2} s per M rows  load {:.2}",
            measurement.rows_per_second,
            measurement.p50_ms,
            measurement.p99_ms,
            measurement.cpu_s_per_million,
            measurement.load_one,
        );
        report.measurements.push(measurement);
        for name in &names {
            control.simple_query(&format!("DROP TABLE {name}")).await?;
        }
    }
    Ok(())
}
