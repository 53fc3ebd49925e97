//! More than the cluster can take.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use benchmarks::Error;
use benchmarks::machine::Load;
use benchmarks::report::Report;

use crate::running::{Acknowledged, Cluster, batch, copy, create, send};
use crate::{Arguments, Measurement, quantile};

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
    (next, all): (&Arc<AtomicU64>, &Arc<Acknowledged>),
) -> Result<Arc<Heard>, Error> {
    let heard = Arc::new(Heard::default());
    let stop = Arc::new(AtomicBool::new(false));
    let pause = Duration::from_secs_f64(rows as f64 * connections as f64 / per_second);
    let mut offering = Vec::new();
    for connection in 0..connections {
        let client = cluster.connect(connection).await?;
        let copy = copy(&client, "events").await?;
        let (heard, stop, next, all) = (heard.clone(), stop.clone(), next.clone(), all.clone());
        offering.push(tokio::spawn(async move {
            let mut due = Instant::now() + pause.mul_f64(connection as f64 / connections as f64);
            while !stop.load(Ordering::Relaxed) {
                tokio::time::sleep_until(due.into()).await;
                // What was not offered in time because the last took long is offered no more.
                let missed = due.elapsed().as_secs_f64() / pause.as_secs_f64();
                heard.late.fetch_add(missed.max(0.0).floor() as u64, Ordering::Relaxed);
                due += pause.mul_f64(1.0 + missed.max(0.0).floor());
                let begin = Instant::now();
                let first = next.fetch_add(rows as u64, Ordering::Relaxed);
                match send(&client, &copy, batch(first, rows)).await {
                    Ok(stored) => {
                        all.add(first, stored);
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
pub(crate) async fn overload(
    cluster: &Cluster,
    arguments: &Arguments,
    report: &mut Report<Measurement>,
) -> Result<(), Error> {
    const ROWS: usize = 2_000;
    const CONNECTIONS: usize = 96;
    let control = cluster.connect(0).await?;
    create(&control, "events", 1).await?;
    let (next, all) = (Arc::new(AtomicU64::new(0)), Arc::new(Acknowledged::default()));
    let terms = "SELECT sum(term)::bigint FROM annal.replicas";
    let load = Load::now();
    // Eight connections that offer without pause, for minutes: at first memory takes what has to be written as segments later.
    let begin = Instant::now();
    let heard = offer(cluster, 8, ROWS, 1e12, arguments.capacity_seconds, (&next, &all)).await?;
    let capacity = heard.rows.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64();
    let before: i64 = control.query_one(terms, &[]).await?.get(0);
    let begin = Instant::now();
    let seconds = arguments.overload_seconds;
    let heard = offer(cluster, CONNECTIONS, ROWS, capacity * arguments.overload, seconds, (&next, &all)).await?;
    let goodput = heard.rows.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64();
    let resident = cluster.resident_bytes();
    let after: i64 = control.query_one(terms, &[]).await?.get(0);
    // Once more, since by now there is more to merge than there was at first.
    let begin = Instant::now();
    let again = offer(cluster, 8, ROWS, 1e12, arguments.capacity_seconds, (&next, &all)).await?;
    let capacity_after = again.rows.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64();
    all.check(&control).await?;
    let acknowledged = all.rows();
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
