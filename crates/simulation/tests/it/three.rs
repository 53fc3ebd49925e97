//! Three nodes among all faults. `ANNAL_SIM_SEED=n` runs one seed, `ANNAL_SIM_SEEDS=n` that many from 0, or from
//! `ANNAL_SIM_FIRST`, until `ANNAL_SIM_FAILURES` of them fail. `RUST_LOG=simulation=info` tells what happens.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use simulation::cluster::{ClusterReport, run};

use crate::number;

/// Seeds of a run without wishes.
const SEEDS: u64 = 8;
/// A seed takes a second or less; one that takes so long has no end.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs a seed on a thread of its own, so that one that never waits is noticed, too.
fn run_seed(seed: u64) -> Result<ClusterReport, String> {
    let (ended, outcome) = mpsc::channel();
    let thread = std::thread::Builder::new().name(format!("seed {seed}"));
    let thread = thread.spawn(move || drop(ended.send(run(seed)))).expect("a thread");
    match outcome.recv_timeout(PATIENCE) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => Err(format!("no end within {PATIENCE:?}")),
        Err(RecvTimeoutError::Disconnected) => {
            let panic = thread.join().expect_err("it sends before it ends");
            let reason = panic.downcast_ref::<String>().cloned();
            Err(format!("panicked: {}", reason.unwrap_or_default()))
        }
    }
}

fn repeat(seed: u64) -> String {
    format!("repeat with: ANNAL_SIM_SEED={seed} scripts/simulate.sh three")
}

fn told(seed: u64, outcome: Result<ClusterReport, String>) -> ClusterReport {
    outcome.unwrap_or_else(|reason| panic!("seed {seed} fails: {reason}\n{}", repeat(seed)))
}

/// Runs seeds on as many threads as there are processors, and tells of each. Ends after so many failures.
fn run_seeds(
    seeds: Range<u64>,
    failures_max: u64,
    tell: impl Fn(u64, &Result<ClusterReport, String>, Duration),
) -> (ClusterReport, u64) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(seeds.start);
    let (ended, outcomes) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (next, ended, end) = (&next, ended.clone(), seeds.end);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let begun = Instant::now();
                    if seed >= end || ended.send((seed, run_seed(seed), begun.elapsed())).is_err() {
                        return;
                    }
                }
            });
        }
        drop(ended);
        let (mut total, mut failures) = (ClusterReport::default(), 0);
        // Without a receiver the threads end with the seeds they are at.
        for (seed, outcome, took) in outcomes {
            tell(seed, &outcome, took);
            match outcome {
                Ok(report) => add(&mut total, report),
                Err(_) => failures += 1,
            }
            if failures >= failures_max {
                break;
            }
        }
        (total, failures)
    })
}

fn add(total: &mut ClusterReport, report: ClusterReport) {
    total.statements += report.statements;
    total.acknowledged += report.acknowledged;
    total.refused += report.refused;
    total.unknown += report.unknown;
    total.reads += report.reads;
    total.rows += report.rows;
    total.segments += report.segments;
    for (fault, count) in report.faults {
        *total.faults.entry(fault).or_default() += count;
    }
}

#[test]
fn three_nodes_keep_what_they_acknowledge_whatever_fails() {
    // Without a wish nothing: disks that fail are no news here.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into());
    let _ = tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).try_init();
    if let Some(seed) = number("ANNAL_SIM_SEED") {
        println!("seed {seed}: {:?}", told(seed, run_seed(seed)));
        return;
    }
    let first = number("ANNAL_SIM_FIRST").unwrap_or_default();
    let seeds = first..first + number("ANNAL_SIM_SEEDS").unwrap_or(SEEDS);
    let failures_max = number("ANNAL_SIM_FAILURES").unwrap_or(1);
    let (total, failures) = run_seeds(seeds, failures_max, |seed, outcome, took| match outcome {
        Ok(ClusterReport { acknowledged, statements, trace, .. }) => {
            println!("seed {seed}: {acknowledged} of {statements} acknowledged, trace {trace:016x}, {took:?}");
        }
        Err(reason) => println!("seed {seed} fails: {reason}\n{}", repeat(seed)),
    });
    assert_eq!(failures, 0, "seeds failed");
    println!("{total:?}");
    // A run in which nothing is acknowledged or nothing survives would prove nothing.
    assert!(total.acknowledged * 2 > total.statements, "hardly anything was acknowledged: {total:?}");
    assert!(total.rows > 0 && total.segments > 0 && total.reads > 0, "nothing was ever found: {total:?}");
    assert!(total.faults.len() >= 12, "hardly anything ever failed: {total:?}");
}

#[test]
#[cfg_attr(not(tokio_unstable), ignore = "scripts/simulate.sh runs it, with a runtime that takes a seed")]
fn one_seed_is_one_run() {
    let seed = number("ANNAL_SIM_SEED").or(number("ANNAL_SIM_FIRST")).unwrap_or_default();
    let once = told(seed, run_seed(seed));
    assert_eq!(once, told(seed, run_seed(seed)));
    assert_ne!(once.trace, told(seed, run_seed(seed + 1)).trace, "another seed is another run");
}
