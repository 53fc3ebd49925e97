//! Runs `sql-tests/*.slt`: the SQL surface, specified by example.
//!
//! Every file is a test of its own and gets a server of its own. A file named `pg_*` runs in the simple and in the extended protocol, and
//! against real PostgreSQL: all three must give what the file says. `ANNAL_SLT_REGENERATE=1` writes what came into the
//! files instead, for `pg_*` files from PostgreSQL alone; review the result as a diff.

mod postgres;
mod run;
mod text;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tokio_postgres::Client;

use crate::oracle;
use crate::{TestCluster, TestServer};
use postgres::Protocol;

const REGENERATE: &str = "ANNAL_SLT_REGENERATE";
/// What files call the two servers.
const ANNAL: &str = "annal";
const POSTGRES: &str = "postgres";

macro_rules! files {
    ($($name:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                check(stringify!($name)).await;
            }
        )*

        const FILES: &[&str] = &[$(stringify!($name)),*];

        #[test]
        fn every_file_is_run() {
            let listed: BTreeSet<String> = [$(stringify!($name)),*].map(|name| format!("{name}.slt")).into();
            let there: BTreeSet<String> = std::fs::read_dir(directory())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name.ends_with(".slt"))
                .collect();
            assert_eq!(there, listed, "sql-tests/ and the list in sqllogic.rs differ");
        }
    };
}

files! {
    clauses,
    consistency,
    ddl,
    dedup,
    delete,
    differences,
    errors,
    pg_add_constraint,
    pg_aggregate,
    pg_arithmetic,
    pg_alter,
    pg_array,
    pg_bytea,
    pg_calendar,
    pg_catalog,
    pg_change,
    pg_constraints,
    pg_copy,
    pg_cursor,
    pg_create_as,
    pg_ddl,
    pg_ddl_block,
    pg_dependent,
    pg_errors,
    pg_forms,
    pg_identity,
    pg_ingest,
    pg_interval,
    pg_join,
    pg_json,
    pg_keys,
    pg_lateral,
    pg_like,
    pg_modifier,
    pg_numeric,
    pg_one_type,
    pg_operators,
    pg_ordinality,
    pg_predicates,
    pg_reports,
    pg_schema,
    pg_select_list,
    pg_subquery,
    pg_temporary,
    pg_time,
    pg_transaction,
    pg_truncate,
    pg_types,
    pg_view,
    time,
    retention,
    shards,
    views,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../sql-tests")
        .canonicalize()
        .expect("sql-tests/ is in the repository")
}

async fn check(name: &str) {
    let file = directory().join(format!("{name}.slt"));
    let portable = name.starts_with("pg_");
    if std::env::var_os(REGENERATE).is_some() {
        return regenerate(name, &file, portable).await;
    }
    let mut failures = on_annal(&file, Protocol::Simple).await;
    if portable {
        failures.extend(on_annal(&file, Protocol::Extended).await);
        let oracle = oracle::database(name).await;
        let found = run::failures(&file, POSTGRES, &[oracle.dsn().to_owned()], Protocol::Simple).await;
        failures.extend(found.into_iter().map(|failure| format!("on PostgreSQL: {failure}")));
    }
    assert!(failures.is_empty(), "{} failures\n\n{}", failures.len(), failures.join("\n"));
}

/// Every file once more on three nodes, one after the other, with connections to all of them: the same answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_file_on_three_nodes() {
    if std::env::var_os(REGENERATE).is_some() {
        return;
    }
    let cluster = TestCluster::start().await;
    // The first connection of each file is to a node that has joined.
    let mut dsns = cluster.dsns();
    dsns.rotate_left(1);
    let mut failures = Vec::new();
    for name in FILES {
        let file = directory().join(format!("{name}.slt"));
        failures.extend(run::failures(&file, ANNAL, &dsns, Protocol::Simple).await);
        clean(&cluster.connect(2).await).await;
    }
    assert!(failures.is_empty(), "{} failures\n\n{}", failures.len(), failures.join("\n"));
}

/// Drops what a file has left.
async fn clean(client: &Client) {
    let left = "SELECT table_schema, table_name, table_type FROM information_schema.tables \
                WHERE table_schema NOT IN ('pg_catalog', 'information_schema', 'annal') AND table_schema NOT LIKE 'pg_temp%'";
    for row in client.query(left, &[]).await.unwrap() {
        let [schema, name, kind] = [0, 1, 2].map(|column| row.get::<_, String>(column));
        let kind = if kind == "VIEW" { "VIEW" } else { "TABLE" };
        client.batch_execute(&format!("DROP {kind} IF EXISTS \"{schema}\".\"{name}\" CASCADE")).await.unwrap();
    }
    let schemas = "SELECT nspname FROM pg_namespace WHERE nspname NOT IN ('public', 'annal', 'information_schema') AND nspname NOT LIKE 'pg_%'";
    for row in client.query(schemas, &[]).await.unwrap() {
        client.batch_execute(&format!("DROP SCHEMA \"{}\" CASCADE", row.get::<_, &str>(0))).await.unwrap();
    }
}

async fn on_annal(file: &Path, protocol: Protocol) -> Vec<String> {
    let server = TestServer::start().await;
    run::failures(file, ANNAL, &[server.dsn()], protocol).await
}

async fn regenerate(name: &str, file: &Path, portable: bool) {
    if !portable {
        let server = TestServer::start().await;
        return run::regenerate(file, ANNAL, &server.dsn()).await;
    }
    let oracle = oracle::database(name).await;
    run::regenerate(file, POSTGRES, oracle.dsn()).await;
}
