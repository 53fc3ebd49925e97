//! Values in binary, and COPY in binary: byte by byte what a real PostgreSQL says.

use std::pin::pin;

use bytes::Bytes;
use futures::{SinkExt, TryStreamExt};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::bytes_of::Value;
use crate::{TestServer, oracle};

/// The only value of a query: its type, its binary and its text form.
async fn value(client: &Client, sql: &str) -> (u32, Option<Value>, Option<String>) {
    let row = client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let text = client.simple_query(sql).await.unwrap().into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
        _ => None,
    });
    (row.columns()[0].type_().oid(), row.get(0), text.expect("a row"))
}

/// A column type, and values of it.
const TYPES: [(&str, &[&str]); 24] = [
    ("smallint", &["0", "-32768", "32767"]),
    ("integer", &["0", "-2147483648", "2147483647"]),
    ("bigint", &["0", "-9223372036854775808", "9223372036854775807"]),
    ("real", &["0", "-0", "1.1", "3.4e38", "1e-40", "NaN", "Infinity", "-Infinity"]),
    ("double precision", &["0", "-0", "0.1", "1e308", "5e-324", "NaN", "Infinity", "-Infinity"]),
    ("numeric(12,3)", &["0", "0.001", "-0.001", "12345.678", "100000000", "-99999999.999", "10000.0001"]),
    ("numeric(38,0)", &["99999999999999999999999999999999999999", "-10000", "10000000000000000"]),
    ("boolean", &["true", "false"]),
    ("text", &["", "a", "grüße \\ \"x\"\t\n"]),
    ("date", &["2000-01-01", "1999-12-31", "4713-11-24 BC", "5000000-01-01", "infinity", "-infinity"]),
    ("timestamp", &["2000-01-01 00:00:00.000001", "1969-12-31 23:59:59.5", "4713-11-24 BC", "infinity", "-infinity"]),
    ("timestamptz", &["2013-01-01 12:34:56.789+02", "1900-01-01 00:00+00", "infinity", "-infinity"]),
    ("time", &["00:00:00", "23:59:59.999999", "24:00"]),
    ("interval", &["0", "1 year -2 days 00:00:00.000001", "-100 years", "200000 hours"]),
    ("uuid", &["00000000-0000-0000-0000-000000000007"]),
    ("bytea", &["", "\\x00ff"]),
    ("json", &["{\"a\" : [1, null]}"]),
    ("jsonb", &["{\"a\": [1, null]}"]),
    ("integer[]", &["{}", "{1,NULL,-3}"]),
    ("text[]", &["{}", "{\"a b\",NULL,\"NULL\",\"\",\"{,}\"}"]),
    ("double precision[]", &["{0.1,NaN,-Infinity}"]),
    ("numeric(10,2)[]", &["{0.1,-123}"]),
    ("timestamptz[]", &["{\"2013-01-01 12:34:56.789+02\",NULL}"]),
    ("jsonb[]", &["{\"{\\\"a\\\": 1}\",NULL}"]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_every_type_go_both_ways() {
    let (server, postgres) = (TestServer::start().await, oracle::database("binary").await);
    let (annal, postgres) = (server.connect().await, postgres.connect().await);
    for (at, (name, texts)) in TYPES.iter().enumerate() {
        for client in [&annal, &postgres] {
            client.batch_execute(&format!("CREATE TABLE t{at} (n integer, v {name})")).await.unwrap();
        }
        let insert = annal.prepare(&format!("INSERT INTO t{at} VALUES ($1, $2)")).await.unwrap();
        for (n, text) in texts.iter().enumerate() {
            let n = i32::try_from(n).unwrap();
            let quoted = text.replace('\'', "''");
            postgres.batch_execute(&format!("INSERT INTO t{at} VALUES ({n}, '{quoted}')")).await.unwrap();
            let select = format!("SELECT v FROM t{at} WHERE n = {n}");
            let expected = value(&postgres, &select).await;
            let bytes = expected.1.clone().expect("it is not NULL");
            annal.execute(&insert, &[&n, &bytes]).await.unwrap_or_else(|error| panic!("{name} {text}: {error:?}"));
            assert_eq!(value(&annal, &select).await, expected, "{name} {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_have_postgresqls_bytes() {
    let (server, postgres) = (TestServer::start().await, oracle::database("binary").await);
    let (annal, postgres) = (server.connect().await, postgres.connect().await);
    for expression in [
        "NULL::integer",
        "INTERVAL '1 month 2 days 3 hours 4 minutes 5.6 seconds'",
        "INTERVAL '-1 day'",
        "ARRAY[1::bigint, 2, 3]",
        "ARRAY['a', NULL, 'b c', '\"', '']",
        "ARRAY[1.5::double precision, NULL]",
        "count(*)",
        "'123456789012345678901234567890123456.78'::numeric(38,2)",
        "now() IS NULL",
    ] {
        let sql = format!("SELECT {expression}");
        assert_eq!(value(&annal, &sql).await, value(&postgres, &sql).await, "{sql}");
    }
}

/// What COPY sends, message by message.
async fn copied_out(client: &Client, sql: &str) -> Vec<Bytes> {
    client.copy_out(sql).await.unwrap().try_collect().await.unwrap()
}

async fn copy_in(client: &Client, sql: &str, data: Vec<Bytes>) -> u64 {
    let mut sink = pin!(client.copy_in(sql).await.unwrap());
    for data in data {
        sink.send(data).await.unwrap();
    }
    sink.finish().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_in_binary_is_postgresqls() {
    let (server, postgres) = (TestServer::start().await, oracle::database("binary").await);
    let (annal, postgres) = (server.connect().await, postgres.connect().await);
    let columns: Vec<String> = TYPES.iter().enumerate().map(|(at, (name, _))| format!("c{at} {name}")).collect();
    for client in [&annal, &postgres] {
        client.batch_execute(&format!("CREATE TABLE t (n integer NOT NULL, {})", columns.join(", "))).await.unwrap();
    }
    let rows = TYPES.iter().map(|(_, texts)| texts.len()).max().unwrap();
    for n in 0..=rows {
        // COPY refuses infinite times, in binary as in text.
        let value = |texts: &&[&str]| {
            texts
                .get(n)
                .filter(|text| !text.ends_with("infinity"))
                .map_or("NULL".to_owned(), |text| format!("'{text}'"))
        };
        let values: Vec<String> = TYPES.iter().map(|(_, texts)| value(texts)).collect();
        postgres.batch_execute(&format!("INSERT INTO t VALUES ({n}, {})", values.join(", "))).await.unwrap();
    }
    let rows = rows as u64 + 1;
    let out = "COPY (SELECT * FROM t ORDER BY n) TO STDOUT (FORMAT binary)";
    let expected = copied_out(&postgres, out).await;
    assert_eq!(copy_in(&annal, "COPY t FROM STDIN (FORMAT binary)", expected.clone()).await, rows);
    assert_eq!(copied_out(&annal, out).await, expected);
    // Some columns in another order, cut into single bytes, in the old syntax.
    annal.batch_execute("CREATE TABLE t2 (n integer NOT NULL, v bigint)").await.unwrap();
    let some = "COPY (SELECT c2 AS v, n FROM t ORDER BY n) TO STDOUT WITH BINARY";
    let bytes = copied_out(&annal, some).await;
    assert_eq!(bytes, copied_out(&postgres, some).await);
    let bytes = bytes.concat().into_iter().map(|byte| Bytes::copy_from_slice(&[byte])).collect();
    assert_eq!(copy_in(&annal, "COPY t2 (v, n) FROM STDIN WITH BINARY", bytes).await, rows);
    let sum = "SELECT sum(n)::bigint, count(v) FROM t2";
    let row = annal.query_one(sum, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), ((0..rows as i64).sum(), 3));
    // Nothing but the header and the end.
    let none = "COPY (SELECT n FROM t WHERE n < 0) TO STDOUT (FORMAT binary)";
    assert_eq!(copied_out(&annal, none).await, copied_out(&postgres, none).await);
}
