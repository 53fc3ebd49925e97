//! Random queries, which Annal must answer as a real PostgreSQL does, or refuse with the same SQLSTATE.
//!
//! One seed is one query. `ANNAL_QUERIES` says how many (500), from `ANNAL_QUERY_FIRST` (0); `ANNAL_QUERY_SEED=n` repeats one.

mod expression;
mod query;
mod tables;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::{TestServer, oracle};

/// What the gate runs.
const QUERIES: u64 = 500;
/// Differences that are printed in full.
const SHOWN_MAX: usize = 10;
/// Rows of them that are.
const ROWS_SHOWN_MAX: usize = 5;
/// Relative distance at which two floats are the same: sums run in different orders.
const TOLERANCE: f64 = 1e-9;

type Rows = Vec<Vec<Option<String>>>;
/// The SQLSTATE of a refusal, and its words.
type Refusal = (SqlState, String);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_queries_are_answered_as_postgresql_answers_them() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let (first, count) = match number("ANNAL_QUERY_SEED") {
        Some(seed) => (seed, 1),
        None => (number("ANNAL_QUERY_FIRST").unwrap_or(0), number("ANNAL_QUERIES").unwrap_or(QUERIES)),
    };
    let (server, database) = (TestServer::start().await, oracle::database("random").await);
    let (annal, postgres) = (server.connect().await, database.connect().await);
    for statement in tables::statements() {
        for client in [&annal, &postgres] {
            client.batch_execute(&statement).await.unwrap_or_else(|error| panic!("{statement}\n{error:?}"));
        }
    }
    let mut differences = Vec::new();
    let mut refused = 0;
    for seed in first..first + count {
        let sql = query::random(seed);
        let expected = answer(&postgres, &sql).await;
        refused += u64::from(expected.is_err());
        let found = answer(&annal, &sql).await;
        if !is_same(&found, &expected) {
            let [theirs, ours] = [(&expected, &found), (&found, &expected)].map(|(own, other)| shown(own, other));
            differences.push(format!("seed {seed}: {sql}\n  PostgreSQL {theirs}\n  Annal      {ours}"));
        }
    }
    // Queries that only fail would show nothing.
    assert!(count == 1 || refused * 20 <= count, "PostgreSQL refuses {refused} of {count}");
    assert!(
        differences.is_empty(),
        "{} of {count} queries are answered otherwise; one is repeated by ANNAL_QUERY_SEED=n scripts/test.sh -p server random_queries\n{}",
        differences.len(),
        differences[..differences.len().min(SHOWN_MAX)].join("\n")
    );
}

/// The rows of a query in an order of their own, or the SQLSTATE of its refusal.
async fn answer(client: &Client, sql: &str) -> Result<Rows, Refusal> {
    let messages = match client.simple_query(sql).await {
        Ok(messages) => messages,
        Err(error) => {
            let said = error.as_db_error().unwrap_or_else(|| panic!("{sql}\n{error:?}"));
            return Err((said.code().clone(), said.message().to_owned()));
        }
    };
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()),
        _ => None,
    });
    let mut rows: Rows = rows.collect();
    rows.sort_by_cached_key(|row| row.iter().map(|cell| cell.as_deref().map(in_order)).collect::<Vec<_>>());
    Ok(rows)
}

/// What equal cells have in common: numbers may have other digits at their end.
fn in_order(cell: &str) -> String {
    match cell.parse::<f64>() {
        Ok(number) => format!("{:.5e}", if number == 0.0 { 0.0 } else { number }),
        Err(_) => cell.to_owned(),
    }
}

fn is_same(found: &Result<Rows, Refusal>, expected: &Result<Rows, Refusal>) -> bool {
    match (found, expected) {
        (Ok(found), Ok(expected)) => {
            found.len() == expected.len()
                && found
                    .iter()
                    .flatten()
                    .zip(expected.iter().flatten())
                    .all(|(found, expected)| is_same_cell(found, expected))
        }
        (Err((found, _)), Err((expected, _))) => found == expected,
        _ => false,
    }
}

fn is_same_cell(found: &Option<String>, expected: &Option<String>) -> bool {
    let number = |cell: &Option<String>| cell.as_ref().and_then(|cell| cell.parse::<f64>().ok());
    match (number(found), number(expected)) {
        (Some(found), Some(expected)) => {
            found == expected
                || (found - expected).abs() <= TOLERANCE * expected.abs().max(1.0)
                || (found.is_nan() && expected.is_nan())
        }
        _ => found == expected,
    }
}

/// The first rows of an answer that are not those of the other, or its refusal.
fn shown(answer: &Result<Rows, Refusal>, other: &Result<Rows, Refusal>) -> String {
    let rows = match answer {
        Ok(rows) => rows,
        Err((code, said)) => return format!("{}: {said}", code.code()),
    };
    let other = other.as_deref().unwrap_or_default();
    let is_other = |(at, row): &(usize, &Vec<Option<String>>)| {
        !other
            .get(*at)
            .is_some_and(|other| row.iter().zip(other).all(|(found, expected)| is_same_cell(found, expected)))
    };
    let cells = |row: &Vec<Option<String>>| {
        row.iter().map(|cell| cell.as_deref().unwrap_or("NULL")).collect::<Vec<_>>().join("|")
    };
    let differing = rows.iter().enumerate().filter(is_other).take(ROWS_SHOWN_MAX).map(|(_, row)| cells(row));
    format!("{} rows: {}", rows.len(), differing.collect::<Vec<_>>().join("  "))
}
