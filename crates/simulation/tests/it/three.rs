//! Three nodes among all faults. `ANNAL_SIM_SEED=n` runs one seed, `ANNAL_SIM_SEEDS=n` that many from 0, or from
//! `ANNAL_SIM_FIRST`. `RUST_LOG=simulation=info` tells what happens.

use std::time::Instant;

use simulation::cluster::{ClusterReport, run};

use crate::number;

/// Seeds of a run without wishes.
const SEEDS: u64 = 8;

fn run_seed(seed: u64) -> ClusterReport {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    match runtime.expect("a runtime").block_on(run(seed)) {
        Ok(report) => report,
        Err(violation) => {
            panic!(
                "seed {seed}: {violation}\nrepeat with: ANNAL_SIM_SEED={seed} cargo test -p simulation --test it three"
            )
        }
    }
}

#[test]
fn three_nodes_keep_what_they_acknowledge_whatever_fails() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).try_init();
    if let Some(seed) = number("ANNAL_SIM_SEED") {
        println!("seed {seed}: {:?}", run_seed(seed));
        return;
    }
    let mut total = ClusterReport::default();
    let first = number("ANNAL_SIM_FIRST").unwrap_or_default();
    for seed in first..first + number("ANNAL_SIM_SEEDS").unwrap_or(SEEDS) {
        let begun = Instant::now();
        let report = run_seed(seed);
        println!("seed {seed}: {} of {} acknowledged, {:?}", report.acknowledged, report.statements, begun.elapsed());
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
    println!("{total:?}");
    // A run in which nothing is acknowledged or nothing survives would prove nothing.
    assert!(total.acknowledged * 2 > total.statements, "hardly anything was acknowledged: {total:?}");
    assert!(total.rows > 0 && total.segments > 0 && total.reads > 0, "nothing was ever found: {total:?}");
    assert!(total.faults.len() >= 12, "hardly anything ever failed: {total:?}");
}
