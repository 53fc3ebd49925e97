//! The real psql as a client: what it asks the catalog, copies, prints of an error, and cancels.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use expect_test::{Expect, expect};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use crate::TestServer;

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);
/// Between two tries of Ctrl-C: psql may not have sent its query yet.
const INTERRUPT_EVERY: Duration = Duration::from_millis(200);

/// What psql printed.
struct Printed {
    out: String,
    err: String,
    success: bool,
}

fn command(server: &TestServer, arguments: &[&str]) -> Command {
    let address = server.address();
    let mut command = Command::new("psql");
    command
        .args(["-X", "-h", &address.ip().to_string(), "-p", &address.port().to_string(), "-U", "annal", "-d", "annal"])
        .args(arguments)
        .env("PGCONNECT_TIMEOUT", "30")
        .env("LC_ALL", "C.UTF-8")
        .env_remove("PGOPTIONS")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn psql(server: &TestServer, arguments: &[&str]) -> Printed {
    let output = command(server, arguments).output().await.expect("scripts/setup-tests.sh installs psql");
    Printed {
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
        success: output.status.success(),
    }
}

/// psql prints `expected` on stdout and nothing on stderr.
async fn prints(server: &TestServer, commands: &[&str], expected: Expect) {
    let arguments: Vec<&str> = commands.iter().flat_map(|command| ["-c", command]).collect();
    let printed = psql(server, &arguments).await;
    assert_eq!(printed.err, "", "{commands:?}");
    assert!(printed.success);
    let lines: Vec<&str> = printed.out.lines().map(str::trim_end).collect();
    expected.assert_eq(&(lines.join("\n") + "\n"));
}

/// psql prints `expected` on stderr.
async fn complains(server: &TestServer, command: &str, expected: Expect) {
    let printed = psql(server, &["-c", command]).await;
    assert!(!printed.success, "{command} should fail and printed {}", printed.out);
    expected.assert_eq(&printed.err);
}

async fn server_with_flights() -> TestServer {
    let server = TestServer::start().await;
    let client = server.connect().await;
    let create = "CREATE TABLE flights (sched timestamptz NOT NULL, origin text NOT NULL, dep_delay double precision, \
                  fare numeric(8,2), cancelled boolean DEFAULT false) WITH (series = 'origin', split_interval = '1 day')";
    client.batch_execute(create).await.unwrap();
    let insert = "INSERT INTO flights VALUES ('2013-01-01 05:15+00', 'EWR', 2, 99.5, false), \
                  ('2013-01-01 05:29+00', 'LGA', NULL, NULL, true)";
    client.batch_execute(insert).await.unwrap();
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn describes_a_table() {
    let server = server_with_flights().await;
    prints(
        &server,
        &[r"\d flights"],
        expect![[r#"
                                    Table "public.flights"
              Column   |           Type           | Collation | Nullable | Default
            -----------+--------------------------+-----------+----------+---------
             sched     | timestamp with time zone |           | not null |
             origin    | text                     |           | not null |
             dep_delay | double precision         |           |          |
             fare      | numeric(8,2)             |           |          |
             cancelled | boolean                  |           |          | false

        "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_tables_schemas_and_databases() {
    let server = server_with_flights().await;
    for command in [r"\d", r"\dt"] {
        let expected = expect![[r#"
                    List of relations
             Schema |  Name   | Type  | Owner
            --------+---------+-------+-------
             public | flights | table | annal
            (1 row)

        "#]];
        prints(&server, &[command], expected).await;
    }
    let printed = psql(&server, &["-At", "-c", r"\dn"]).await;
    assert!(printed.out.lines().any(|line| line.starts_with("public|")), "{}{}", printed.out, printed.err);
    let printed = psql(&server, &["-At", "-c", r"\l"]).await;
    assert!(printed.out.lines().any(|line| line.starts_with("annal|")), "{}{}", printed.out, printed.err);
    assert!(printed.out.contains("UTF8"), "{}", printed.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_not_there() {
    let server = TestServer::start().await;
    let printed = psql(&server, &["-c", r"\d nosuch"]).await;
    assert_eq!(printed.err, "Did not find any relation named \"nosuch\".\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_statements_and_tags() {
    let server = TestServer::start().await;
    prints(
        &server,
        &[
            "SELECT 1 AS one; SELECT 'two' AS two, NULL AS three",
            "CREATE TABLE t (ts timestamptz NOT NULL, v integer)",
            "INSERT INTO t VALUES ('2013-01-01', 1), ('2013-01-02', 2)",
            "BEGIN",
            "INSERT INTO t SELECT ts, v + 2 FROM t",
            "ROLLBACK",
            "SELECT v FROM t ORDER BY v",
            "SET application_name = 'x'",
            "SHOW application_name",
            "DROP TABLE t",
        ],
        expect![[r#"
             one
            -----
               1
            (1 row)

             two | three
            -----+-------
             two |
            (1 row)

            CREATE TABLE
            INSERT 0 2
            BEGIN
            INSERT 0 2
            ROLLBACK
             v
            ---
             1
             2
            (2 rows)

            SET
             application_name
            ------------------
             x
            (1 row)

            DROP TABLE
        "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timing_is_printed() {
    let server = TestServer::start().await;
    let printed = psql(&server, &["-c", r"\timing", "-c", "SELECT 1"]).await;
    assert!(printed.out.contains("Timing is on.") && printed.out.contains("Time: "), "{}", printed.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_point_at_the_place() {
    let server = server_with_flights().await;
    complains(
        &server,
        "SELECT orgin FROM flights",
        expect![[r#"
            ERROR:  column "orgin" does not exist
            LINE 1: SELECT orgin FROM flights
                           ^
            HINT:  Perhaps you meant to reference the column "flights.origin".
        "#]],
    )
    .await;
    complains(
        &server,
        "SELECT * FROM flihgts",
        expect![[r#"
            ERROR:  relation "flihgts" does not exist
            LINE 1: SELECT * FROM flihgts
                                  ^
            HINT:  Perhaps you meant to reference the table "flights".
        "#]],
    )
    .await;
    complains(
        &server,
        "SELECT 'ü€😀', origin\nFROM flights WHERE dep_delay > 1 ANDD true",
        expect![[r#"
            ERROR:  syntax error at or near "ANDD"
            LINE 2: FROM flights WHERE dep_delay > 1 ANDD true
                                                     ^
        "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_in_and_out() {
    let server = server_with_flights().await;
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).display().to_string();
    std::fs::write(path("in.csv"), "sched,origin,fare\n2013-01-02T05:00Z,\"J,F\"\"K\",1.5\n2013-01-03T05:00Z,LGA,\n")
        .unwrap();
    let copy = format!(r"\copy flights (sched, origin, fare) FROM '{}' WITH (FORMAT csv, HEADER)", path("in.csv"));
    prints(&server, &[&copy], expect!["COPY 2\n"]).await;
    let copy =
        format!(r"\copy (SELECT * FROM flights ORDER BY sched) TO '{}' WITH (FORMAT csv, HEADER)", path("out.csv"));
    prints(&server, &[&copy], expect!["COPY 4\n"]).await;
    expect![[r#"
        sched,origin,dep_delay,fare,cancelled
        2013-01-01 05:15:00+00,EWR,2,99.50,f
        2013-01-01 05:29:00+00,LGA,,,t
        2013-01-02 05:00:00+00,"J,F""K",,1.50,f
        2013-01-03 05:00:00+00,LGA,,,f
    "#]]
    .assert_eq(&read(Path::new(&path("out.csv"))));
    let copy = format!(r"\copy flights TO '{}'", path("out.txt"));
    prints(&server, &[&copy], expect!["COPY 4\n"]).await;
    let client = server.connect().await;
    client
        .batch_execute(
            "CREATE TABLE back (sched timestamptz NOT NULL, origin text, dep_delay double precision, fare numeric(8,2), \
             cancelled boolean)",
        )
        .await
        .unwrap();
    let copy = format!(r"\copy back FROM '{}'", path("out.txt"));
    prints(&server, &[&copy], expect!["COPY 4\n"]).await;
    let differing = "SELECT count(*) FROM (SELECT * FROM flights EXCEPT SELECT * FROM back) AS d";
    assert_eq!(client.query_one(differing, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_copy_names_line_and_column_and_leaves_nothing() {
    let server = server_with_flights().await;
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("bad.csv");
    std::fs::write(&file, "2013-01-02,JFK,1\n2013-01-02,JFK,late\n").unwrap();
    let copy = format!(r"\copy flights (sched, origin, dep_delay) FROM '{}' WITH (FORMAT csv)", file.display());
    complains(
        &server,
        &copy,
        expect![[r#"
            ERROR:  invalid input syntax for type double precision: "late"
            CONTEXT:  COPY flights, line 2, column dep_delay: "late"
        "#]],
    )
    .await;
    prints(
        &server,
        &[r"\pset format unaligned", r"\pset tuples_only", "SELECT count(*) FROM flights"],
        expect![[r#"
        Output format is unaligned.
        Tuples only is on.
        2
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_c_cancels_the_query_and_not_the_server() {
    let server = server_with_flights().await;
    let endless = "SELECT count(*) FROM generate_series(1, 10000000) AS a(x), generate_series(1, 10000000) AS b(y) \
                   WHERE a.x + b.y < 0";
    let mut child = command(&server, &["-c", endless]).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    // Before it has sent the query, psql ends by the signal.
    let runs = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%a.x + b.y < 0' AND state = 'active'";
    let watching = server.connect().await;
    while watching.query_one(runs, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        tokio::time::sleep(POLL).await;
    }
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.unwrap(),
            () = tokio::time::sleep(INTERRUPT_EVERY) => kill_process(pid, Signal::INT).unwrap(),
        }
    };
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
    assert!(!status.success());
    assert!(said.contains("ERROR:  canceling statement due to user request"), "psql said {said:?}");
    prints(
        &server,
        &["SELECT count(*) FROM flights"],
        expect![[r#"
         count
        -------
             2
        (1 row)

    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_stops_at_its_first_error() {
    let server = server_with_flights().await;
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("script.sql");
    let script = "-- a comment\nINSERT INTO flights VALUES ('2013-02-01', 'JFK');\n\nINSERT INTO flights VALUES ('2013-02-02', NULL);\n";
    std::fs::write(&file, script).unwrap();
    let file = file.display().to_string();
    let printed = psql(&server, &["-v", "ON_ERROR_STOP=1", "--single-transaction", "-f", &file]).await;
    assert!(!printed.success);
    assert!(printed.err.contains("null value in column \"origin\" of relation \"flights\""), "{}", printed.err);
    let count = server.connect().await.query_one("SELECT count(*) FROM flights", &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 2, "the whole script is one transaction");
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn describes_more_when_asked_for_more() {
    let server = server_with_flights().await;
    let create =
        "CREATE TABLE e (ts timestamptz NOT NULL, dev text CHECK (dev <> ''), v real DEFAULT 1, PRIMARY KEY (dev, ts))";
    psql(&server, &["-c", create, "-c", "INSERT INTO e VALUES (now(), 'a')"]).await;
    let expected = expect![[r#"
                                                             Table "public.e"
         Column |           Type           | Collation | Nullable | Default | Storage  | Compression | Stats target | Description
        --------+--------------------------+-----------+----------+---------+----------+-------------+--------------+-------------
         ts     | timestamp with time zone |           | not null |         | plain    |             |              |
         dev    | text                     |           | not null |         | extended |             |              |
         v      | real                     |           |          | 1       | plain    |             |              |
        Indexes:
            "e_pkey" PRIMARY KEY, btree (dev, ts)
        Check constraints:
            "e_dev_check" CHECK (dev <> '')
        Access method: heap

        "#]];
    prints(&server, &[r"\d+ e"], expected).await;
    let expected = expect![[r#"
                   List of roles
         Role name | Attributes | Member of
        -----------+------------+-----------
         annal     | Superuser  | {}

        "#]];
    prints(&server, &[r"\du"], expected).await;
    let printed = psql(&server, &["-At", "-c", r"\df time_bucket"]).await;
    assert!(printed.out.contains("public|time_bucket|bigint|bucket_width bigint"), "{}{}", printed.out, printed.err);
    let printed = psql(&server, &["-At", "-c", r"\dt+ e"]).await;
    assert!(printed.out.starts_with("public|e|table|annal|permanent|heap|"), "{}{}", printed.out, printed.err);
    assert!(!printed.out.contains("|0 bytes|"), "a row is there: {}", printed.out);
    for command in
        [r"\l+", r"\dn+", r"\dT", r"\db", r"\dx", r"\dv", r"\di", r"\ds", r"\dm", r"\dC", r"\do", r"\dconfig timezone"]
    {
        let printed = psql(&server, &["-At", "-c", command]).await;
        assert!(!printed.err.contains("ERROR"), "{command}: {}", printed.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_a_query() {
    let server = TestServer::start().await;
    let mut script = tempfile::NamedTempFile::new().unwrap();
    script.write_all(b"SELECT 'again' AS what\n\\watch 0.01\n").unwrap();
    let mut child = command(&server, &["-At", "-f", script.path().to_str().unwrap()]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = 0;
    while seen < 3 {
        let line = lines.next_line().await.unwrap().expect("psql goes on until it is stopped");
        seen += usize::from(line == "again");
    }
    child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shows_views_also_after_a_kill() {
    let mut server = server_with_flights().await;
    let create = "CREATE VIEW late AS SELECT origin, count(*) FROM flights GROUP BY origin";
    psql(&server, &["-c", create]).await;
    server.kill().await;
    server.restart().await;
    prints(
        &server,
        &[r"\dv"],
        expect![[r#"
              List of relations
         Schema | Name | Type | Owner
        --------+------+------+-------
         public | late | view | annal
        (1 row)

    "#]],
    )
    .await;
    prints(
        &server,
        &[r"\d+ late"],
        expect![[r#"
                                    View "public.late"
         Column |  Type  | Collation | Nullable | Default | Storage  | Description
        --------+--------+-----------+----------+---------+----------+-------------
         origin | text   |           |          |         | extended |
         count  | bigint |           |          |         | plain    |
        View definition:
         SELECT origin, count(*) FROM flights GROUP BY origin;

    "#]],
    )
    .await;
    prints(
        &server,
        &["SELECT * FROM late ORDER BY origin"],
        expect![[r#"
         origin | count
        --------+-------
         EWR    |     1
         LGA    |     1
        (2 rows)

    "#]],
    )
    .await;
}
