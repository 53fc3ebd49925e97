//! Types of parameters, those that a driver declares and those that the server finds: what a real PostgreSQL says of the same statement, and gives
//! for the same values.

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::bytes_of::Value;
use crate::{TestServer, oracle};

const TABLE: &str = "CREATE TABLE t (id integer PRIMARY KEY, b bigint, s text, ts timestamptz, d date, f double precision, u uuid, j jsonb);
    INSERT INTO t VALUES (1, 10, 'a', '2024-01-01 00:00:00+00', '2024-01-01', 1.5, '00000000-0000-0000-0000-000000000001', '{\"a\": 1}'),
        (2, 20, 'b', '2024-02-01 00:00:00+00', '2024-02-01', 2.5, '00000000-0000-0000-0000-000000000002', '[1]'),
        (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
    CREATE TABLE m (id integer PRIMARY KEY, n numeric(10,2), f double precision);
    INSERT INTO m VALUES (1, 1.50, 1.5), (2, 2.25, 0.1), (3, NULL, NULL)";

/// A value for a parameter, and the type that is declared for it, if any is.
type Parameter = (&'static str, Option<Type>);

/// Statements, and what their parameters are.
const STATEMENTS: &[(&str, &[Parameter])] = &[
    ("SELECT id + $1 FROM t ORDER BY 1", &[("5", Some(Type::INT2))]),
    ("SELECT id + $1 FROM t ORDER BY 1", &[("5000000000", Some(Type::INT8))]),
    ("SELECT id + $1 FROM t ORDER BY 1", &[("5.5", Some(Type::FLOAT8))]),
    ("SELECT id * $1 FROM t ORDER BY 1", &[("7", None)]),
    ("SELECT $1", &[("5", Some(Type::INT4))]),
    ("SELECT $1", &[("5", Some(Type::INT2))]),
    ("SELECT $1", &[("5", None)]),
    ("SELECT $1", &[("2024-01-01 00:00:00+00", Some(Type::TIMESTAMPTZ))]),
    ("SELECT $1, $2, $3", &[("t", Some(Type::BOOL)), ("2024-01-01", Some(Type::DATE)), ("\\x0102", Some(Type::BYTEA))]),
    ("SELECT $1", &[("00000000-0000-0000-0000-000000000001", Some(Type::UUID))]),
    ("SELECT $1", &[("{1,NULL,3}", Some(Type::INT4_ARRAY))]),
    ("SELECT $1", &[("{a,b}", Some(Type::TEXT_ARRAY))]),
    ("SELECT $1", &[("1.5", Some(Type::FLOAT4))]),
    ("SELECT $1", &[("{\"a\": 1}", Some(Type::JSONB))]),
    ("SELECT $1", &[("1.123456789012345678", Some(Type::NUMERIC))]),
    ("SELECT $1 * 2, $1 + 0.5", &[("1.123456789012345678", Some(Type::NUMERIC))]),
    ("SELECT $1 * 1.5", &[("2.25", None)]),
    ("SELECT $1::numeric", &[("2.25", None)]),
    ("SELECT $1", &[("{1.500000000000,NULL,0.123456789012}", Some(Type::NUMERIC_ARRAY))]),
    ("SELECT id FROM m WHERE n = $1", &[("1.5", Some(Type::NUMERIC))]),
    ("SELECT id FROM m WHERE n = $1", &[("1.501", None)]),
    ("SELECT id FROM m WHERE n > $1 ORDER BY id", &[("1.501", Some(Type::NUMERIC))]),
    ("SELECT id FROM m WHERE f = $1", &[("0.1", Some(Type::NUMERIC))]),
    ("SELECT id FROM m WHERE n = ANY($1) ORDER BY id", &[("{1.5,2.250}", Some(Type::NUMERIC_ARRAY))]),
    ("SELECT id FROM m WHERE n = ANY($1) ORDER BY id", &[("{1.5,2.25}", None)]),
    ("SELECT id FROM m WHERE f = ANY($1) ORDER BY id", &[("{1.5,0.1}", Some(Type::NUMERIC_ARRAY))]),
    ("SELECT id FROM m WHERE f <> ALL($1) ORDER BY id", &[("{1.5}", Some(Type::NUMERIC_ARRAY))]),
    (
        "INSERT INTO m VALUES ($1, $2, $3) RETURNING n, f",
        &[("4", None), ("1.005", None), ("1.005", Some(Type::NUMERIC))],
    ),
    ("UPDATE m SET n = n + $1 WHERE id = 1 RETURNING n", &[("0.005", Some(Type::NUMERIC))]),
    (
        "SELECT g FROM generate_series($1, $2, $3) AS g",
        &[("1", Some(Type::INT4)), ("5", Some(Type::INT4)), ("2", Some(Type::INT4))],
    ),
    ("SELECT g FROM generate_series($1, $2) AS g", &[("1", Some(Type::INT8)), ("3", Some(Type::INT8))]),
    (
        "SELECT g FROM generate_series($1, $2, $3) AS g",
        &[
            ("2024-01-01 00:00:00+00", Some(Type::TIMESTAMPTZ)),
            ("2024-01-03 00:00:00+00", Some(Type::TIMESTAMPTZ)),
            ("1 day", Some(Type::INTERVAL)),
        ],
    ),
    ("SELECT $1::bigint", &[("5", Some(Type::INT2))]),
    ("SELECT $1::text", &[("5", Some(Type::INT4))]),
    ("SELECT id FROM t WHERE id = $1", &[("2", Some(Type::INT8))]),
    ("SELECT id FROM t WHERE id = $1", &[("2", Some(Type::INT2))]),
    ("SELECT id FROM t WHERE f > $1 ORDER BY id", &[("1.5", Some(Type::FLOAT4))]),
    ("SELECT id FROM t WHERE s = $1", &[("a", Some(Type::VARCHAR))]),
    ("SELECT id FROM t WHERE u = $1", &[("00000000-0000-0000-0000-000000000002", Some(Type::UUID))]),
    ("SELECT id FROM t WHERE ts >= $1 ORDER BY id", &[("2024-01-15 00:00:00+00", Some(Type::TIMESTAMPTZ))]),
    ("SELECT id FROM t WHERE ts >= $1 ORDER BY id", &[("2024-01-15 00:00:00", Some(Type::TIMESTAMP))]),
    ("SELECT id FROM t WHERE d = $1", &[("2024-01-01", Some(Type::DATE))]),
    ("SELECT id FROM t ORDER BY id LIMIT $1 OFFSET $2", &[("1", Some(Type::INT8)), ("1", Some(Type::INT8))]),
    ("SELECT id FROM t ORDER BY id LIMIT $1", &[("2", Some(Type::INT4))]),
    ("SELECT id FROM t ORDER BY id LIMIT $1 OFFSET $2", &[("1", None), ("1", None)]),
    ("SELECT coalesce(b, $1) FROM t ORDER BY id", &[("5", Some(Type::INT4))]),
    ("SELECT coalesce($1, id) FROM t ORDER BY id", &[("5", None)]),
    (
        "SELECT CASE WHEN id = $1 THEN $2 ELSE 'x' END FROM t ORDER BY id",
        &[("1", Some(Type::INT2)), ("y", Some(Type::TEXT))],
    ),
    ("SELECT CASE WHEN $1 THEN 1 ELSE $2 END", &[("f", None), ("7", None)]),
    ("SELECT length($1)", &[("abc", Some(Type::TEXT))]),
    ("SELECT date_trunc($1, ts) FROM t WHERE id = 2", &[("year", None)]),
    ("SELECT id FROM t WHERE s = ANY($1) ORDER BY id", &[("{a,b}", None)]),
    ("SELECT id FROM t WHERE s = ANY($1) ORDER BY id", &[("{a,NULL}", Some(Type::TEXT_ARRAY))]),
    ("SELECT id FROM t WHERE id = ANY($1) ORDER BY id", &[("{1,3}", None)]),
    ("SELECT id FROM t WHERE b = ANY($1) ORDER BY id", &[("{10}", Some(Type::INT4_ARRAY))]),
    ("SELECT id FROM t WHERE id <> ALL($1) ORDER BY id", &[("{1,3}", None)]),
    ("SELECT id FROM t WHERE u = ANY($1) ORDER BY id", &[("{00000000-0000-0000-0000-000000000001}", None)]),
    ("SELECT id FROM t WHERE id = $1 OR b = $1 ORDER BY id", &[("10", None)]),
    ("SELECT id FROM t WHERE id IN ($1, $2) ORDER BY id", &[("1", None), ("3", None)]),
    ("SELECT id FROM t WHERE s LIKE $1 ORDER BY id", &[("a%", None)]),
    ("SELECT id FROM t WHERE id = $1 + 1", &[("1", None)]),
    ("SELECT ts + $1 FROM t WHERE id = 1", &[("1 day", None)]),
    ("SELECT ts - $1 FROM t WHERE id = 2", &[("2024-01-01 00:00:00+00", None)]),
    ("SELECT d - $1 FROM t WHERE id = 2", &[("2024-01-01", None)]),
    ("SELECT interval '1 day' * $1", &[("1.5", None)]),
    ("SELECT s || $1 FROM t WHERE id = 1", &[("!", None)]),
    ("SELECT NOT $1", &[("t", None)]),
    ("SELECT greatest(id, $1) FROM t ORDER BY id", &[("2", None)]),
    ("SELECT nullif(id, $1) FROM t ORDER BY id", &[("2", None)]),
    ("SELECT id FROM t WHERE (id, s) = ($1, $2)", &[("1", None), ("a", None)]),
    ("SELECT j ->> $1 FROM t WHERE id = 1", &[("a", Some(Type::TEXT))]),
    ("SELECT id FROM t WHERE j = $1", &[("{\"a\": 1}", None)]),
    ("INSERT INTO t (id, b) VALUES ($1, $2) RETURNING id, b", &[("4", Some(Type::INT2)), ("40", Some(Type::INT4))]),
    ("INSERT INTO t (id, f) VALUES ($1 + 1, $2) RETURNING id, f", &[("4", Some(Type::INT2)), ("4", Some(Type::INT4))]),
    ("INSERT INTO t (id, s) SELECT $1, $2 RETURNING id, s", &[("6", Some(Type::INT4)), ("six", Some(Type::TEXT))]),
    ("UPDATE t SET b = $1 WHERE id = $2 RETURNING b", &[("5", Some(Type::INT2)), ("4", None)]),
    ("UPDATE t SET s = $1 WHERE id = $2 RETURNING s", &[("5", None), ("4", None)]),
    ("DELETE FROM t WHERE id = $1 RETURNING id", &[("4", Some(Type::INT8))]),
];

/// What a server says and gives: types of parameters and columns, and the rows.
async fn answer(
    (server, postgres): (&Client, &Client),
    sql: &str,
    parameters: &[Parameter],
) -> Result<(Vec<Type>, Vec<Type>, Vec<Vec<Option<Value>>>), tokio_postgres::Error> {
    // An unknown type is the one that leaves it to the server.
    let declared: Vec<Type> =
        parameters.iter().map(|(_, declared)| declared.clone().unwrap_or(Type::UNKNOWN)).collect();
    let statement = server.prepare_typed(sql, &declared).await?;
    let mut values = Vec::new();
    for ((text, _), found) in parameters.iter().zip(statement.params()) {
        let sql = format!("SELECT '{text}'::{}", found.name());
        let row = postgres.query_one(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        values.push(row.get::<_, Value>(0));
    }
    let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
    let rows = server.query(&statement, &values).await?;
    let row = |row: &tokio_postgres::Row| (0..row.len()).map(|at| row.get(at)).collect();
    let columns = statement.columns().iter().map(|column| column.type_().clone()).collect();
    Ok((statement.params().to_vec(), columns, rows.iter().map(row).collect()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_have_the_types_that_postgresql_gives_them() {
    let (server, postgres) = (TestServer::start().await, oracle::database("parameters").await);
    let (annal, postgres) = (server.connect().await, postgres.connect().await);
    for client in [&annal, &postgres] {
        client.batch_execute(TABLE).await.unwrap();
    }
    let mut differences = Vec::new();
    for (sql, parameters) in STATEMENTS {
        let expected = answer((&postgres, &postgres), sql, parameters).await;
        let expected = expected.unwrap_or_else(|error| panic!("{sql} on PostgreSQL: {error:?}"));
        match answer((&annal, &postgres), sql, parameters).await {
            Ok(found) if found == expected => {}
            found => differences.push(format!("{sql} {parameters:?}\n  expected {expected:?}\n  found {found:?}")),
        }
    }
    assert!(differences.is_empty(), "{} of {}\n{}", differences.len(), STATEMENTS.len(), differences.join("\n"));
}
