//! `annal sql`: what it prints, on which stream, and how it ends.

use std::process::Output;

use expect_test::{Expect, expect};

use crate::TestServer;
use crate::ports::free_port;
use crate::server::annal;

/// Runs `annal sql` against `server`; what it printed on both streams, and its exit code.
fn sql(server: &TestServer, args: &[&str]) -> (String, String, i32) {
    let address = server.address().to_string();
    let Output { status, stdout, stderr } = annal(["sql", "--connect", &address]).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(stdout), text(stderr), status.code().expect("it ends by itself"))
}

fn prints(server: &TestServer, args: &[&str], expected: Expect) {
    let (out, err, code) = sql(server, args);
    assert_eq!((err.as_str(), code), ("", 0), "{args:?}");
    expected.assert_eq(&out);
}

#[tokio::test]
async fn statements_of_the_command_line_and_of_a_file() {
    let server = TestServer::start().await;
    let create = "CREATE TABLE m (ts timestamptz NOT NULL, dev text, v double precision); \
        INSERT INTO m VALUES ('2026-01-01 00:00:00Z', 'a,b', 1.5), ('2026-01-01 00:01:00Z', NULL, -2)";
    prints(
        &server,
        &[create],
        expect![[r#"
            OK, 2 rows
        "#]],
    );
    let query = "SET timezone = 'UTC'; SELECT * FROM m ORDER BY ts; SELECT count(*) FROM m WHERE v > 100";
    prints(
        &server,
        &[query],
        expect![[r#"
             ts                     | dev | v
            ------------------------+-----+-----
             2026-01-01 00:00:00+00 | a,b | 1.5
             2026-01-01 00:01:00+00 |     |  -2
            (2 rows)

             count
            -------
                 0
            (1 row)

        "#]],
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "-- devices\nSELECT dev, v\nFROM m ORDER BY v DESC;\n").unwrap();
    prints(
        &server,
        &["--format", "csv", "--file", file.path().to_str().unwrap()],
        expect![[r#"
            dev,v
            "a,b",1.5
            ,-2
        "#]],
    );
}

#[tokio::test]
async fn the_first_error_ends_it_and_says_where() {
    let server = TestServer::start().await;
    let (out, err, code) =
        sql(&server, &["CREATE TABLE t (ts timestamptz NOT NULL);\nSELECT\n nosuch FROM t; SELECT 1"]);
    assert_eq!((out.as_str(), code), ("", 1));
    expect![[r#"
        annal: error: 42703: column "nosuch" does not exist
        LINE 2:  nosuch FROM t
                 ^
    "#]]
    .assert_eq(&err);
    let (_, err, code) = sql(&server, &["COPY t FROM STDIN"]);
    assert_eq!(code, 1);
    assert!(err.contains("COPY t FROM STDIN"), "{err}");
    let (_, err, code) = sql(&server, &["--file", "/nonexistent/script.sql"]);
    assert_eq!(code, 1);
    assert!(err.contains("could not read \"/nonexistent/script.sql\""), "{err}");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let address = format!("127.0.0.1:{}", free_port());
    let Output { status, stderr, .. } = annal(["sql", "--connect", &address, "SELECT 1"]).output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains(&format!("could not connect to a server at {address}")), "{stderr}");
    assert!(stderr.contains("hint: start one with \"annal server\""), "{stderr}");
}
