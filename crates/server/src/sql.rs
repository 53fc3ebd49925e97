//! `annal sql`: runs statements on a server and prints their rows, for scripts and for machines without psql.
//!
//! It is a client like any other and speaks PostgreSQL to any address. It stops at the first error.

use std::io::{IsTerminal, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio_postgres::error::{DbError, ErrorPosition};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::error::Error;
use crate::table::{self, Row};

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// As psql draws them, with their number.
    Table,
    /// Comma-separated values with a header line; nothing else is printed.
    Csv,
}

/// What the command line says.
#[derive(Debug)]
pub(crate) struct SqlOptions {
    /// Statements; those of `file` otherwise.
    pub(crate) sql: Option<String>,
    /// A script; "-" is standard input.
    pub(crate) file: Option<PathBuf>,
    /// The server.
    pub(crate) address: SocketAddr,
    /// The role.
    pub(crate) user: String,
    /// How rows are printed.
    pub(crate) format: Format,
}

/// Runs all statements, or ends with the first that fails.
pub(crate) fn run(options: &SqlOptions) -> Result<(), Error> {
    let script = script(options)?;
    let statements = query::split_statements(&script).map_err(|error| failure(&error.to_string(), None))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run_all(options, &statements))
}

fn script(options: &SqlOptions) -> Result<String, Error> {
    let file = match (&options.sql, &options.file) {
        (Some(sql), _) => return Ok(sql.clone()),
        (None, Some(file)) if file.as_os_str() != "-" => file,
        (None, _) => {
            let mut script = String::new();
            std::io::stdin().read_to_string(&mut script)?;
            return Ok(script);
        }
    };
    std::fs::read_to_string(file)
        .map_err(|error| failure(&format!("could not read \"{}\": {error}", file.display()), None))
}

/// A connection to a server, driven until it is dropped.
pub(crate) async fn connect(address: SocketAddr, user: &str) -> Result<Client, Error> {
    let mut config = tokio_postgres::Config::new();
    config.host(address.ip().to_string()).port(address.port());
    config.user(user).dbname("annal").application_name("annal sql");
    let (client, connection) = config.connect(NoTls).await.map_err(|error| {
        let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        let hint = "start one with \"annal server\", or name another with --connect".to_owned();
        failure(&format!("could not connect to a server at {address}: {reason}"), Some(hint))
    })?;
    // It ends with the client; what it says then the client has been told.
    tokio::spawn(connection);
    Ok(client)
}

async fn run_all(options: &SqlOptions, statements: &[&str]) -> Result<(), Error> {
    let client = connect(options.address, &options.user).await?;
    for statement in statements {
        let printed = run_one(&client, statement, options.format).await?;
        if write!(std::io::stdout().lock(), "{printed}").is_err() {
            // Whoever read the rows has enough.
            break;
        }
    }
    Ok(())
}

/// Prints the one value of a statement and nothing else, for scripts that pass it on.
pub(crate) fn print_one(sql: &str, address: SocketAddr, user: &str) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let value: String = runtime.block_on(async {
        let client = connect(address, user).await?;
        let row = client.query_one(sql, &[]).await.map_err(|error| failed(sql, &error))?;
        row.try_get(0).map_err(|error| failed(sql, &error))
    })?;
    writeln!(std::io::stdout().lock(), "{value}")?;
    Ok(())
}

/// Why a statement failed, as it is printed.
pub(crate) fn failed(statement: &str, error: &tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(error) => refused(statement, error),
        None => failure(&format!("{error}, while running\n{statement}"), None),
    }
}

async fn run_one(client: &Client, statement: &str, format: Format) -> Result<String, Error> {
    let messages = client.simple_query(statement).await.map_err(|error| failed(statement, &error))?;
    let mut header = None;
    let mut rows: Vec<Row> = Vec::new();
    let mut count = 0;
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                header = Some(columns.iter().map(|column| column.name().to_owned()).collect::<Vec<_>>());
            }
            SimpleQueryMessage::Row(row) => {
                rows.push((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect());
            }
            SimpleQueryMessage::CommandComplete(affected) => count = affected,
            _ => {}
        }
    }
    Ok(match (header, format) {
        (Some(header), Format::Table) => format!("{}({})\n\n", table::draw(&header, &rows), number(rows.len() as u64)),
        (Some(header), Format::Csv) => table::csv(&header, &rows),
        // Whoever reads a terminal wants to know that something happened; a script reads rows.
        (None, Format::Table) if count > 0 || std::io::stdout().is_terminal() => format!("OK, {}\n", number(count)),
        (None, _) => String::new(),
    })
}

fn number(rows: u64) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") }
}

/// The server's answer with the line of the statement it points at, as psql shows it.
fn refused(statement: &str, error: &DbError) -> Error {
    let mut message = format!("{}: {}", error.code().code(), error.message());
    if let Some(ErrorPosition::Original(position)) = error.position()
        && let Some(place) = place(statement, *position as usize)
    {
        message.push('\n');
        message.push_str(&place);
    }
    if let Some(detail) = error.detail() {
        message.push_str("\nDETAIL: ");
        message.push_str(detail);
    }
    failure(&message, error.hint().map(str::to_owned))
}

/// The line that holds the `position`-th character, counted from 1, and a caret below it.
fn place(statement: &str, position: usize) -> Option<String> {
    let before: String = statement.chars().take(position.checked_sub(1)?).collect();
    let number = before.matches('\n').count();
    let line = statement.lines().nth(number)?;
    let label = format!("LINE {}: ", number + 1);
    let column = before.rsplit('\n').next().map_or(0, |start| start.chars().count());
    Some(format!("{label}{line}\n{}^", " ".repeat(label.len() + column)))
}

fn failure(message: &str, hint: Option<String>) -> Error {
    Error::Sql { message: message.to_owned(), hint }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_caret_stands_below_the_place() {
        expect![[r#"
            LINE 2:  FROM nosuch
                          ^"#]]
        .assert_eq(&place("SELECT 1\n FROM nosuch\n WHERE true", 16).unwrap());
        assert_eq!(place("SELECT 1", 0), None);
    }
}
