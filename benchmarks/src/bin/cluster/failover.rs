//! Leaders that are killed, and how long nobody leads.

use std::time::{Duration, Instant};

use benchmarks::Error;
use benchmarks::machine::{Load, median};
use benchmarks::report::Report;
use tokio_postgres::Client;

use crate::running::{Cluster, check_stored, create, insert};
use crate::{Measurement, PATIENCE, quantile};

/// The node that leads the group of the table, from 0.
pub(crate) async fn leader(client: &Client) -> Result<Option<usize>, Error> {
    let row = client.query_opt("SELECT leader FROM annal.shards WHERE table_name = 'events' LIMIT 1", &[]).await?;
    let leader: Option<i64> = row.and_then(|row| row.get(0));
    Ok(leader.and_then(|leader| usize::try_from(leader - 1).ok()))
}

/// Kills the leader of a table again and again while a client of another node writes, and takes the time until that is answered again.
pub(crate) async fn failover(cluster: &Cluster, kills: usize, report: &mut Report<Measurement>) -> Result<(), Error> {
    create(&cluster.connect(0).await?, "events", 1).await?;
    let (load, mut gaps, mut acknowledged) = (Load::now(), Vec::new(), 0_u64);
    for kill in 0..kills {
        let asked = cluster.connect(kill).await?;
        let leader = leader(&asked).await?.ok_or("the group of the table has no leader")?;
        let client = cluster.connect(leader + 1).await?;
        insert(&client, acknowledged).await?;
        acknowledged += 1;
        let process = cluster.process_of(leader).ok_or("the leader has no process")?;
        std::process::Command::new("kill").args(["-9", &process.to_string()]).status()?;
        let killed = Instant::now();
        tokio::time::timeout(PATIENCE, insert(&client, acknowledged)).await.map_err(|_| "nobody leads any more")??;
        acknowledged += 1;
        gaps.push(killed.elapsed().as_secs_f64() * 1e3);
        // Until the one that was killed is back and votes.
        let back = "SELECT count(*) FILTER (WHERE votes AND lag < 100) = count(*) AND count(DISTINCT node) = $1 FROM annal.replicas";
        let begin = Instant::now();
        while !client.query_one(back, &[&i64::try_from(cluster.ports.len())?]).await?.get::<_, bool>(0) {
            if begin.elapsed() > PATIENCE {
                return Err("a node that was killed does not come back".into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    check_stored(&cluster.connect(0).await?, acknowledged).await?;
    gaps.sort_by(f64::total_cmp);
    println!(
        "{kills} leaders killed: first acknowledgement after p50 {:.0} ms, p99 {:.0} ms, at most {:.0} ms; all {acknowledged} acknowledged rows there  load {:.2}",
        median(&gaps).unwrap_or(f64::NAN),
        quantile(&gaps, 0.99),
        quantile(&gaps, 1.0),
        load.one,
    );
    report.measurements.push(Measurement::of_times("failover", (1, 1), &gaps, &load));
    Ok(())
}
