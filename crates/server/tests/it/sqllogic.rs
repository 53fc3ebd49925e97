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

use crate::TestServer;
use crate::oracle;
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
    ddl,
    dedup,
    delete,
    differences,
    errors,
    pg_aggregate,
    pg_arithmetic,
    pg_alter,
    pg_array,
    pg_catalog,
    pg_change,
    pg_constraints,
    pg_copy,
    pg_create_as,
    pg_ddl,
    pg_ddl_block,
    pg_errors,
    pg_forms,
    pg_identity,
    pg_ingest,
    pg_interval,
    pg_join,
    pg_keys,
    pg_schema,
    pg_temporary,
    pg_time,
    pg_transaction,
    pg_truncate,
    pg_types,
    pg_view,
    time,
    retention,
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
        let found = run::failures(&file, POSTGRES, oracle.dsn(), Protocol::Simple).await;
        failures.extend(found.into_iter().map(|failure| format!("on PostgreSQL: {failure}")));
    }
    assert!(failures.is_empty(), "{} failures\n\n{}", failures.len(), failures.join("\n"));
}

async fn on_annal(file: &Path, protocol: Protocol) -> Vec<String> {
    let server = TestServer::start().await;
    run::failures(file, ANNAL, &server.dsn(), protocol).await
}

async fn regenerate(name: &str, file: &Path, portable: bool) {
    if !portable {
        let server = TestServer::start().await;
        return run::regenerate(file, ANNAL, &server.dsn()).await;
    }
    let oracle = oracle::database(name).await;
    run::regenerate(file, POSTGRES, oracle.dsn()).await;
}
