//! A node that is killed and comes back with its data, and one that joins and has to get all of it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use benchmarks::Error;
use benchmarks::machine::{Load, bytes_below};
use benchmarks::report::Report;
use benchmarks::servers::free_port;
use tokio_postgres::{Client, NoTls};

use crate::failover::leader;
use crate::running::{Cluster, copy, create, scattered_batch, send};
use crate::{Arguments, Measurement};

const ROWS: usize = 10_000;
const CLIENTS: usize = 4;
/// Nobody waits longer for a node.
const PATIENCE: Duration = Duration::from_secs(300);
/// A process that ends when the measurement does.
struct Joining(Child);

impl Drop for Joining {
    fn drop(&mut self) {
        // Its data is thrown away.
        drop((self.0.kill(), self.0.wait()));
    }
}

/// Loads rows, kills a follower and the leader, and lets a node join.
pub(crate) async fn nodes(
    cluster: &Cluster,
    binary: &Path,
    arguments: &Arguments,
    report: &mut Report<Measurement>,
) -> Result<(), Error> {
    create(&cluster.connect(0).await?, "events", 1).await?;
    load_rows(cluster, arguments.rows).await?;
    let leader = leader(&cluster.connect(0).await?).await?.ok_or("the group of the table has no leader")?;
    for (node, what) in [((leader + 1) % cluster.ports.len(), "a follower"), (leader, "the leader")] {
        let load = Load::now();
        let process = cluster.process_of(node).ok_or("the node has no process")?;
        let begin = Instant::now();
        Command::new("kill").args(["-9", &process.to_string()]).status()?;
        while cluster.process_of(node).is_none_or(|other| other == process) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let restarted = begin.elapsed();
        answers(cluster.ports[node], arguments.rows, begin).await?;
        let took = begin.elapsed() - restarted;
        println!(
            "{what} killed with {} rows: it answers from all of them {:.2} s after its process was started again  load {:.2}",
            arguments.rows,
            took.as_secs_f64(),
            load.one
        );
        report.measurements.push(Measurement::of_times("restart", (1, 1), &[took.as_secs_f64() * 1e3], &load));
    }
    join(cluster, binary, arguments, report).await
}

async fn load_rows(cluster: &Cluster, rows: u64) -> Result<(), Error> {
    let next = Arc::new(AtomicU64::new(0));
    let mut loading = Vec::new();
    for number in 0..CLIENTS {
        let (client, next) = (cluster.connect(number).await?, next.clone());
        let copy = copy(&client, "events").await?;
        loading.push(tokio::spawn(async move {
            loop {
                let first = next.fetch_add(ROWS as u64, Ordering::Relaxed);
                if first >= rows {
                    return Ok::<_, tokio_postgres::Error>(());
                }
                let count = ROWS.min(usize::try_from(rows - first).unwrap_or(ROWS));
                send(&client, &copy, scattered_batch(first, count)).await?;
            }
        }));
    }
    for task in loading {
        task.await??;
    }
    Ok(())
}

/// Waits until a node counts all rows.
async fn answers(port: u16, rows: u64, begin: Instant) -> Result<Client, Error> {
    let dsn = format!("host=127.0.0.1 port={port} user=annal dbname=annal");
    while begin.elapsed() < PATIENCE {
        if let Ok((client, connection)) = tokio_postgres::connect(&dsn, NoTls).await {
            tokio::spawn(connection);
            let counted = client.query_one("SELECT count(*) FROM events", &[]).await;
            match counted.map(|row| row.get::<_, i64>(0)) {
                Ok(count) if u64::try_from(count)? == rows => return Ok(client),
                Ok(count) => return Err(format!("{count} of {rows} rows are there").into()),
                Err(_) => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err("a node does not answer".into())
}

/// Starts one more node on an empty directory, beside a plain copy of the same files.
async fn join(
    cluster: &Cluster,
    binary: &Path,
    arguments: &Arguments,
    report: &mut Report<Measurement>,
) -> Result<(), Error> {
    let first = cluster.connect(0).await?;
    first.simple_query("SELECT annal.flush()").await?;
    let bytes: i64 = first.query_one("SELECT sum(bytes)::bigint FROM annal.segments", &[]).await?.get(0);
    let bytes = u64::try_from(bytes)?;
    let seed: String =
        first.query_one("SELECT cluster_address FROM annal.nodes ORDER BY node LIMIT 1", &[]).await?.get(0);
    let place = tempfile::Builder::new().prefix("annal-joining-").tempdir_in(&arguments.directory)?;
    let (port, cluster_port) = (free_port()?, free_port()?);
    let data = place.path().join("data");
    let load = Load::now();
    let begin = Instant::now();
    let mut command = Command::new(binary);
    command.args(["server", "--http", "off", "--data"]).arg(&data);
    command.args(["--listen", &format!("127.0.0.1:{port}"), "--cluster-listen", &format!("127.0.0.1:{cluster_port}")]);
    command.args(["--join", &seed]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let joining = Joining(command.spawn()?);
    let client = answers(port, arguments.rows, begin).await?;
    let answered = begin.elapsed();
    let segments = data.join("segments");
    while bytes_below(&segments) < bytes && begin.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let whole = begin.elapsed();
    let id: i64 = client.query_one("SELECT node FROM annal.nodes WHERE own", &[]).await?.get(0);
    let copied = copy_files(&segments, &place.path().join("copy"))?;
    println!(
        "a node that joins {} rows in {} MiB: it answers after {:.2} s and holds all after {:.2} s ({:.0} MiB/s); a synced copy of the files takes {:.2} s  load {:.2}",
        arguments.rows,
        bytes >> 20,
        answered.as_secs_f64(),
        whole.as_secs_f64(),
        bytes as f64 / whole.as_secs_f64() / f64::from(1 << 20),
        copied.as_secs_f64(),
        load.one
    );
    report.measurements.push(Measurement::of_times("join", (1, 1), &[whole.as_secs_f64() * 1e3], &load));
    first.simple_query(&format!("SELECT annal.remove_node({id})")).await?;
    drop(joining);
    Ok(())
}

fn copy_files(from: &Path, to: &Path) -> Result<Duration, Error> {
    let begin = Instant::now();
    let copied = Command::new("cp").arg("-r").args([from, to]).status()?.success();
    let synced = Command::new("sync").arg("-f").arg(to).status()?.success();
    if copied && synced { Ok(begin.elapsed()) } else { Err("the files could not be copied".into()) }
}
