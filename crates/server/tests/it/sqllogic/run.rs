//! Runs one file against one server, to its end, and says what did not hold.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use sqllogictest::{Normalizer, Runner, parse_file};

use super::postgres::{Connection, Letter, Protocol, SEPARATOR, types_agree};

/// Runs every record of the file; each that does not hold gives a text with file and line.
/// `skipif`/`onlyif` know the labels `simple` and `extended`, and the `server`'s: `annal` and `postgres`.
/// Connections go to the nodes at `dsns` in turn.
pub(super) async fn failures(file: &Path, server: &str, dsns: &[String], protocol: Protocol) -> Vec<String> {
    let records = match parse_file::<Letter>(file) {
        Ok(records) => records,
        Err(error) => return vec![error.to_string()],
    };
    let turn = AtomicUsize::new(0);
    let mut runner = Runner::new(|| {
        let dsn = &dsns[turn.fetch_add(1, Ordering::Relaxed) % dsns.len()];
        Connection::open(dsn, protocol)
    });
    runner.add_label(if protocol == Protocol::Extended { "extended" } else { "simple" });
    runner.add_label(server);
    runner.with_normalizer(exact);
    runner.with_validator(rows_agree);
    runner.with_column_validator(types_agree);
    let mut failed = Vec::new();
    for record in records {
        if let Err(error) = runner.run_async(record).await {
            failed.push(format!("{protocol:?} protocol: {}", error.display(false)));
        }
    }
    failed
}

/// Writes what the server gives into the file.
pub(super) async fn regenerate(file: &Path, server: &str, dsn: &str) {
    let mut runner = Runner::new(|| Connection::open(dsn, Protocol::SimpleWithTypes));
    runner.add_label("simple");
    runner.add_label(server);
    runner
        .update_test_file(file, SEPARATOR, rows_agree, exact, types_agree)
        .await
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

/// Nothing is forgiven but blanks at a line's end, which editors remove.
#[expect(clippy::ptr_arg, reason = "the runner asks for this type")]
fn exact(value: &String) -> String {
    value.trim_end().to_string()
}

fn rows_agree(normalizer: Normalizer, actual: &[Vec<String>], expected: &[String]) -> bool {
    actual.len() == expected.len()
        && actual.iter().zip(expected).all(|(row, line)| normalizer(&row.join(SEPARATOR)) == normalizer(line))
}
