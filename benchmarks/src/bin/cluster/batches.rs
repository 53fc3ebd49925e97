//! Batches of the prototype's sizes, by one client and by many.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use benchmarks::Error;
use benchmarks::machine::Load;
use benchmarks::report::Report;

use crate::running::{Cluster, batch, check_stored, copy, create, insert, send};
use crate::{Arguments, Measurement};

/// Rows written by the prototype that Annal completes, for each second and batch size: its published medians on three nodes.
const PROTOTYPE: [(usize, f64); 5] = [(1, 95.0), (49, 4_960.0), (490, 48_309.0), (4_900, 82_692.0), (49_000, 99_880.0)];

/// Clients that write one batch after the other, spread over the nodes; every acknowledged row is on a majority.
pub(crate) async fn batches(
    cluster: &Cluster,
    arguments: &Arguments,
    report: &mut Report<Measurement>,
) -> Result<(), Error> {
    let control = cluster.connect(0).await?;
    for (rows, prototype) in PROTOTYPE {
        for clients in [1, 16] {
            create(&control, "events", arguments.shards).await?;
            let until = Duration::from_secs(arguments.seconds);
            let before = cluster.server.work(&control).await;
            let (load, begin, next) = (Load::now(), Instant::now(), Arc::new(AtomicU64::new(0)));
            let mut writing = Vec::new();
            for client in 0..clients {
                let (client, next) = (cluster.connect(client).await?, next.clone());
                let copy = copy(&client, "events").await?;
                writing.push(tokio::spawn(async move {
                    let mut took = Vec::new();
                    while begin.elapsed() < until {
                        let first = next.fetch_add(rows as u64, Ordering::Relaxed);
                        let text = batch(first, rows);
                        let start = Instant::now();
                        match rows {
                            1 => insert(&client, first).await?,
                            _ => drop(send(&client, &copy, text).await?),
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
