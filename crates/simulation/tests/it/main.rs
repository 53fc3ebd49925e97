//! Seeds in the gate. `ANNAL_SEED=n` runs one seed of one node, `ANNAL_SEEDS=n` that many from 0.

// A run is one future, of everything from a client's statement down to its disk.
#![recursion_limit = "256"]

mod three;

use simulation::Report;

/// Seeds of a run without wishes.
const SEEDS: u64 = 40;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

fn run(seed: u64) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match runtime.block_on(simulation::run(seed)) {
        Ok(report) => report,
        Err(violation) => {
            panic!("seed {seed}: {violation}\nrepeat with: ANNAL_SEED={seed} cargo test -p simulation --test it")
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_when_the_power_fails() {
    if let Some(seed) = number("ANNAL_SEED") {
        println!("seed {seed}: {:?}", run(seed));
        return;
    }
    let mut total = Report::default();
    for seed in 0..number("ANNAL_SEEDS").unwrap_or(SEEDS) {
        let report = run(seed);
        total.statements += report.statements;
        total.acknowledged += report.acknowledged;
        total.crashes += report.crashes;
        total.rows += report.rows;
        total.seals += report.seals;
        total.merged += report.merged;
        total.expired += report.expired;
        total.recycled += report.recycled;
    }
    println!("{total:?}");
    // A run in which nothing is acknowledged or nothing survives would prove nothing.
    assert!(total.acknowledged * 4 > total.statements, "hardly anything was acknowledged: {total:?}");
    assert!(total.rows > 0, "nothing was ever found: {total:?}");
    let all = [total.crashes, total.seals, total.merged, total.expired, total.recycled];
    assert!(all.iter().all(|count| *count > 10), "something hardly ever happened: {total:?}");
}
