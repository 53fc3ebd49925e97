//! How long a statement takes when the cluster has little, half, and nearly all it can do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use benchmarks::Error;
use benchmarks::machine::Load;
use benchmarks::report::Report;

use crate::running::{Cluster, batch, copy, create, send};
use crate::{Arguments, Measurement};

const CLIENTS: usize = 16;

/// Sixteen clients that send whenever it is time. What a statement takes is counted from when it was due: who falls behind waits longer.
pub(crate) async fn latency(
    cluster: &Cluster,
    arguments: &Arguments,
    report: &mut Report<Measurement>,
) -> Result<(), Error> {
    for rows in [1, 1_000] {
        create(&cluster.connect(0).await?, "events", 1).await?;
        let next = Arc::new(AtomicU64::new(0));
        let until = Duration::from_secs(arguments.seconds);
        let begin = Instant::now();
        let most = run(cluster, rows, Duration::ZERO, until, &next).await?;
        let capacity = most.len() as f64 / begin.elapsed().as_secs_f64();
        println!("capacity with {rows} rows a statement: {capacity:.0} statements/s by {CLIENTS} clients");
        for percent in [10.0, 50.0, 90.0] {
            let load = Load::now();
            let pause = Duration::from_secs_f64(CLIENTS as f64 * 100.0 / (capacity * percent));
            let mut took = run(cluster, rows, pause, until, &next).await?;
            took.sort_by(f64::total_cmp);
            let measurement = Measurement {
                rows_per_second: took.len() as f64 * rows as f64 / until.as_secs_f64(),
                ..Measurement::of_times("latency", (CLIENTS, rows), &took, &load)
            };
            println!(
                "{rows:>4} rows a statement at {percent:>2.0} % of capacity  p50 {:>6.2} p99 {:>6.2} p99.9 {:>6.2} ms  load {:.2}",
                measurement.p50_ms, measurement.p99_ms, measurement.p999_ms, measurement.load_one,
            );
            report.measurements.push(measurement);
        }
    }
    Ok(())
}

/// What statements took in milliseconds, each client sending one every `pause`, or one after the other.
async fn run(
    cluster: &Cluster,
    rows: usize,
    pause: Duration,
    until: Duration,
    next: &Arc<AtomicU64>,
) -> Result<Vec<f64>, Error> {
    let mut sending = Vec::new();
    let begin = Instant::now();
    for number in 0..CLIENTS {
        let (client, next) = (cluster.connect(number).await?, next.clone());
        let copy = copy(&client, "events").await?;
        sending.push(tokio::spawn(async move {
            let mut took = Vec::new();
            let mut due = begin + pause.mul_f64(number as f64 / CLIENTS as f64);
            while due - begin < until {
                tokio::time::sleep_until(due.into()).await;
                let text = batch(next.fetch_add(rows as u64, Ordering::Relaxed), rows);
                send(&client, &copy, text).await?;
                took.push(due.elapsed().as_secs_f64() * 1e3);
                due = if pause.is_zero() { Instant::now() } else { due + pause };
            }
            Ok::<_, tokio_postgres::Error>(took)
        }));
    }
    let mut took = Vec::new();
    for task in sending {
        took.extend(task.await??);
    }
    Ok(took)
}
