//! `annal demo`, and its answers beside those of a real PostgreSQL.

use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use futures::SinkExt;
use server::demo::{CORRECTION, QUESTIONS, STORM_DAY, TABLES};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::server::annal;
use crate::{TestServer, oracle};

/// Relative distance at which two floating-point answers are the same: sums run in different orders, and DataFusion interpolates
/// percentiles in steps of a millionth between two values.
const TOLERANCE: f64 = 1e-6;

/// What PostgreSQL lacks of our functions, in its own terms.
const SHIMS: &str = "
CREATE FUNCTION time_bucket(interval, timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE
    AS $$ SELECT date_bin($1, $2, '2000-01-03T00:00:00Z') $$;
CREATE TYPE text_at AS (value text, at timestamptz);
CREATE FUNCTION later_text(pair text_at, value text, at timestamptz) RETURNS text_at LANGUAGE plpgsql IMMUTABLE
    AS $$ BEGIN IF pair.at >= at THEN RETURN pair; END IF; RETURN (value, at)::text_at; END $$;
CREATE FUNCTION value_of(pair text_at) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT pair.value $$;
CREATE AGGREGATE last(text, timestamptz) (SFUNC = later_text, STYPE = text_at, FINALFUNC = value_of);
CREATE TYPE integer_at AS (value integer, at timestamptz);
CREATE FUNCTION later_integer(pair integer_at, value integer, at timestamptz) RETURNS integer_at LANGUAGE plpgsql IMMUTABLE
    AS $$ BEGIN IF pair.at >= at THEN RETURN pair; END IF; RETURN (value, at)::integer_at; END $$;
CREATE FUNCTION value_of(pair integer_at) RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT pair.value $$;
CREATE AGGREGATE last(integer, timestamptz) (SFUNC = later_integer, STYPE = integer_at, FINALFUNC = value_of);
";

type Answer = Vec<Vec<Option<String>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_answers_as_postgresql_does() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("demo");
    let shown = run_demo(&data_dir);
    assert!(shown.contains("336,776 rows in "), "{shown}");
    for question in QUESTIONS {
        assert!(shown.contains(question.title), "{shown}");
    }

    let oracle = load_oracle().await;
    let before = answer(&oracle, STORM_DAY).await;
    oracle.batch_execute(CORRECTION).await.unwrap();
    let after = answer(&oracle, STORM_DAY).await;
    assert_ne!(before, after);
    assert_eq!(
        cells_under(&shown, "scheduled"),
        [before, after].concat(),
        "the correction is visible at once\n{shown}"
    );

    let again = run_demo(&data_dir);
    assert!(again.contains("flights   was loaded before"), "{again}");
    assert!(!again.contains("rows/s"), "{again}");

    let server = TestServer::start_in(&data_dir).await;
    let client = server.connect().await;
    for question in QUESTIONS {
        for sql in question.statements.iter().filter(|sql| sql.starts_with("SELECT")) {
            check_same(sql, &answer(&client, sql).await, &answer(&oracle, sql).await);
        }
    }
    check_pruning(&client, &oracle).await;
}

/// Runs the demonstration to its end, and gives what it printed.
fn run_demo(data_dir: &Path) -> String {
    let output = annal(["demo", "--exit", "--data"]).arg(data_dir).output().unwrap();
    let (shown, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{}\n{shown}\n{errors}", output.status);
    shown
}

/// PostgreSQL with the same rows.
async fn load_oracle() -> Client {
    let oracle = oracle::database("demo").await.connect().await;
    oracle.batch_execute(SHIMS).await.unwrap();
    for table in TABLES {
        oracle.batch_execute(&format!("CREATE TABLE {} ({})", table.name, table.columns)).await.unwrap();
        let mut csv = Vec::new();
        table.csv().read_to_end(&mut csv).unwrap();
        let sink = oracle.copy_in(&table.copy()).await.unwrap();
        let mut sink = std::pin::pin!(sink);
        sink.send(Bytes::from(csv)).await.unwrap();
        assert_eq!(sink.finish().await.unwrap(), table.rows);
    }
    oracle
}

async fn answer(client: &Client, sql: &str) -> Answer {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}\n{error:?}"));
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()),
        _ => None,
    });
    rows.collect()
}

/// Row by row and cell by cell; numbers as numbers.
fn check_same(sql: &str, ours: &Answer, theirs: &Answer) {
    assert!(!theirs.is_empty(), "{sql}\nhas an answer");
    assert_eq!(ours.len(), theirs.len(), "{sql}\n{ours:?}\n{theirs:?}");
    for (our_row, their_row) in ours.iter().zip(theirs) {
        assert_eq!(our_row.len(), their_row.len(), "{sql}");
        for (our_cell, their_cell) in our_row.iter().zip(their_row) {
            assert!(
                same(our_cell.as_deref(), their_cell.as_deref()),
                "{sql}\nours   {our_row:?}\ntheirs {their_row:?}"
            );
        }
    }
}

fn same(ours: Option<&str>, theirs: Option<&str>) -> bool {
    let number = |cell: Option<&str>| cell.and_then(|cell| cell.parse::<f64>().ok());
    match (number(ours), number(theirs)) {
        (Some(ours), Some(theirs)) => (ours - theirs).abs() <= TOLERANCE * theirs.abs().max(1.0),
        _ => ours == theirs,
    }
}

/// The rows of every table in `shown` whose first column is `column`.
fn cells_under(shown: &str, column: &str) -> Answer {
    let mut rows = Vec::new();
    let mut lines = shown.lines();
    while let Some(line) = lines.next() {
        if !(line.trim_start().starts_with(column) && line.contains('|')) {
            continue;
        }
        lines.next();
        let table = lines.by_ref().take_while(|line| line.contains('|'));
        rows.extend(table.map(|row| {
            let cells = row.split('|').map(|cell| cell.trim().to_owned());
            cells.map(|cell| (!cell.is_empty()).then_some(cell)).collect()
        }));
    }
    rows
}

/// EXPLAIN of one day reads one week of the year, and says how many weeks there are.
async fn check_pruning(client: &Client, oracle: &Client) {
    let weeks = "SELECT count(DISTINCT floor(extract(epoch FROM sched) / (7 * 86400))) FROM flights";
    let weeks: i64 = oracle.query_one(weeks, &[]).await.unwrap().get(0);
    let explain = QUESTIONS.last().expect("there are questions").statements[0];
    let plan: Vec<String> = answer(client, explain).await.into_iter().flatten().flatten().collect();
    let plan = plan.join("\n");
    assert!(plan.contains(&format!("splits total={weeks} pruned={} read=1", weeks - 1)), "{plan}");
}
