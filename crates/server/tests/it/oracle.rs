//! A real PostgreSQL 15 to compare answers with: one throw-away cluster for the whole run, a database for each test.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use crate::ports::free_port;

/// Where Debian puts the server's programs.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
/// The account that runs it when the tests run as root, which PostgreSQL refuses.
const ACCOUNT: &str = "postgres";
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A running cluster. A static is never dropped, so its end is tied to ours by a pipe instead.
struct Cluster {
    port: u16,
    /// A shell that stops the server and removes its directory once our end of its input closes.
    _guard: Child,
}

/// An empty database of its own.
pub(crate) struct Database {
    dsn: String,
}

impl Database {
    /// Where it is.
    pub(crate) fn dsn(&self) -> &str {
        &self.dsn
    }

    /// A client of its own connection.
    pub(crate) async fn connect(&self) -> Client {
        connect(&self.dsn).await.expect("PostgreSQL takes clients")
    }
}

/// A new database of the run's PostgreSQL, which is started when it is first asked for.
pub(crate) async fn database(name: &str) -> Database {
    let cluster = CLUSTER.get_or_init(start).await;
    let name = format!("{name}_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    let client = connect(&dsn(cluster.port, "postgres")).await.expect("PostgreSQL takes clients");
    client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    Database { dsn: dsn(cluster.port, &name) }
}

fn dsn(port: u16, database: &str) -> String {
    format!("host=127.0.0.1 port={port} user={ACCOUNT} dbname={database}")
}

async fn connect(dsn: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn start() -> Cluster {
    let initdb = PathBuf::from(PROGRAMS).join("initdb");
    assert!(initdb.exists(), "{} is missing: scripts/setup-tests.sh installs PostgreSQL 15", initdb.display());
    let port = free_port();
    // Everything in one script, so that the server cannot outlive us whenever we are killed.
    let script = format!(
        "set -e; cd /; dir=$(mktemp -d); trap 'rm -rf \"$dir\"' EXIT
         {PROGRAMS}/initdb -D \"$dir/data\" -U {ACCOUNT} -A trust --locale=C --encoding=UTF8 >\"$dir/initdb.log\"
         {PROGRAMS}/postgres -D \"$dir/data\" -p {port} -k \"$dir\" -c listen_addresses=127.0.0.1 -c fsync=off \
             -c timezone=UTC -c log_min_messages=fatal >/dev/null 2>&1 &
         server=$!; cat >/dev/null; kill -INT $server; wait $server || true"
    );
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", ACCOUNT, "--", "sh", "-c", &script]);
        command
    } else {
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        command
    };
    let mut guard = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    while connect(&dsn(port, "postgres")).await.is_err() {
        if let Some(status) = guard.try_wait().unwrap() {
            panic!("PostgreSQL ended with {status} before it took clients");
        }
        tokio::time::sleep(POLL).await;
    }
    Cluster { port, _guard: guard }
}
