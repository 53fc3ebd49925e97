//! `annal demo`: a year of real flights and weather through the doors every client uses.
//!
//! The demonstration is a client: it knows the node's address and speaks PostgreSQL to it. Nothing here reaches past
//! the wire, so what it shows is what any client gets.

mod data;
mod load;
mod queries;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

pub use data::{DemoTable, TABLES};
pub use queries::{CORRECTION, CORRECTION_MADE, QUESTIONS, Question, STORM_DAY};

use crate::error::Error;
use crate::local::{Local, LocalOptions};
use crate::process::Process;
use crate::settings::{Overrides, Settings};
use crate::table;

/// Decimals shown of a fraction.
const DECIMALS: usize = 2;

/// What the command line says.
#[derive(Debug, Default)]
pub struct DemoOptions {
    /// Keeps the data there; a temporary directory otherwise.
    pub data_dir: Option<PathBuf>,
    /// Where PostgreSQL clients connect; the default, or a free port when that is taken.
    pub listen: Option<String>,
    /// How many nodes; each of several is a process of its own, on free ports.
    pub nodes: usize,
    /// Ends after the questions.
    pub exit: bool,
}

/// Runs the demonstration to its end: after the questions, or when a signal comes.
pub fn run(options: &DemoOptions) -> Result<(), Error> {
    // Removed when it goes out of scope, after the process below has stopped.
    let temporary = match options.data_dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("annal-demo-").tempdir()?),
    };
    let data_dir = match (&options.data_dir, &temporary) {
        (Some(data_dir), _) => data_dir.clone(),
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => unreachable!("one of the two is there"),
    };
    if options.nodes > 1 {
        return run_on_several(options, data_dir);
    }
    let mut process = start(options, &data_dir)?;
    let address = process.address();
    say(&format!("annal {} listens on {address}, data in {}", env!("CARGO_PKG_VERSION"), data_dir.display()));
    match process.run_until_signal(show(address, data_dir.clone()))? {
        // A signal came first: that is a wish, not a failure.
        None => return process.stop(),
        Some(Err(error)) => {
            // The reason is worth more than what may go wrong while stopping.
            let _stopped = process.stop();
            return Err(error);
        }
        Some(Ok(())) => {}
    }
    if options.exit {
        return process.stop();
    }
    say(&format!("\nNow it is yours, until Ctrl-C:\n\n    psql \"{}\"\n", connection_line(address)));
    process.wait()
}

/// The same on several nodes: loaded through one of them, asked through another, which waits for its replica.
fn run_on_several(options: &DemoOptions, data: PathBuf) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut local =
            Local::start(&LocalOptions { nodes: Some(options.nodes), data: data.clone(), port: Some(0) }).await?;
        let addresses: Vec<SocketAddr> = local.layout().nodes.iter().map(|node| node.sql).collect();
        let own = data.join("node-1");
        let shown = tokio::select! {
            shown = show(addresses[options.nodes - 1], own) => Some(shown),
            _ = tokio::signal::ctrl_c() => None,
        };
        if options.exit || !matches!(shown, Some(Ok(()))) {
            local.stop().await?;
            return shown.unwrap_or(Ok(()));
        }
        say("\nNow it is yours, until Ctrl-C; any of these, and any may be killed:\n");
        for address in addresses {
            say(&format!("    psql \"{}\"", connection_line(address)));
        }
        local.tend().await
    })
}

/// Starts a node; a taken default port is no reason to give up.
fn start(options: &DemoOptions, data_dir: &Path) -> Result<Process, Error> {
    let mut overrides = Overrides {
        data: Some(data_dir.to_owned()),
        listen: options.listen.clone(),
        http: Some("off".to_owned()),
        ..Overrides::default()
    };
    let mut settings = Settings::load(&overrides)?;
    settings.log_filter = "warn".to_owned();
    match Process::start(&settings) {
        Err(Error::Listen { source, .. })
            if source.kind() == std::io::ErrorKind::AddrInUse && options.listen.is_none() =>
        {
            overrides.listen = Some("127.0.0.1:0".to_owned());
            settings.listen = Settings::load(&overrides)?.listen;
            Process::start(&settings)
        }
        started => started,
    }
}

/// What a PostgreSQL client needs to connect.
fn connection_line(address: SocketAddr) -> String {
    format!("host={} port={} user=annal dbname=annal", address.ip(), address.port())
}

/// Loads and asks, as a client.
async fn show(address: SocketAddr, data_dir: PathBuf) -> Result<(), Error> {
    let (client, connection) =
        tokio_postgres::connect(&connection_line(address), NoTls).await.map_err(|error| failed("connect", &error))?;
    let connection = tokio::spawn(connection);
    load::load(&client).await?;
    for question in QUESTIONS {
        ask(&client, question).await?;
    }
    say(&where_it_lies(&data_dir)?);
    drop(client);
    match connection.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(failed("end the connection", &error)),
        Err(error) => Err(Error::Demo(format!("the connection ended early: {error}"))),
    }
}

/// Puts one question and prints what comes back.
async fn ask(client: &Client, question: &Question) -> Result<(), Error> {
    say(&format!("\n{}", question.title));
    for sql in question.statements {
        if *sql == CORRECTION && correction_was_made(client).await? {
            say("\nThe correction was made when this directory was loaded.\n");
            continue;
        }
        say(&format!("\n{sql};\n"));
        let begin = Instant::now();
        let messages = client.simple_query(sql).await.map_err(|error| failed("run a query", &error))?;
        let seconds = begin.elapsed().as_secs_f64();
        say(&format!("{}({seconds:.3} s)", answer(&messages)));
    }
    Ok(())
}

async fn correction_was_made(client: &Client) -> Result<bool, Error> {
    let row = client.query_one(CORRECTION_MADE, &[]).await.map_err(|error| failed("run a query", &error))?;
    Ok(row.get::<_, i64>(0) > 0)
}

/// The rows as a table, or the number of rows written.
fn answer(messages: &[SimpleQueryMessage]) -> String {
    let mut header = Vec::new();
    let mut rows = Vec::new();
    let mut written = 0;
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                header = columns.iter().map(|column| column.name().to_owned()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                rows.push((0..row.len()).map(|column| row.get(column).map(shorten)).collect());
            }
            SimpleQueryMessage::CommandComplete(count) => written = *count,
            _ => {}
        }
    }
    if header.is_empty() { format!("{written} row written\n") } else { table::draw(&header, &rows) }
}

/// A fraction with many decimals is hard to read; the answer itself is not rounded.
fn shorten(cell: &str) -> String {
    match (cell.split_once('.'), cell.parse::<f64>()) {
        (Some((_, decimals)), Ok(value)) if decimals.len() > DECIMALS => format!("{value:.DECIMALS$}"),
        _ => cell.to_owned(),
    }
}

/// Where the Parquet files lie, and how dense they are.
fn where_it_lies(data_dir: &Path) -> Result<String, Error> {
    let segments = data_dir.join("segments");
    let (files, bytes) = parquet_below(&segments)?;
    let rows: u64 = TABLES.iter().map(|table| table.rows).sum();
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    let bytes_per_row = bytes as f64 / rows as f64;
    Ok(format!(
        "\nThe rows lie as plain Parquet, readable by any tool while the server runs:\n\n    {}\n\n    \
         {files} files, {:.1} MiB, {bytes_per_row:.1} bytes a row",
        segments.canonicalize().unwrap_or(segments).display(),
        mebibytes(bytes),
    ))
}

#[expect(clippy::cast_precision_loss, reason = "a size for people")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Number and bytes of the Parquet files in `dir` and below.
fn parquet_below(dir: &Path) -> Result<(u64, u64), Error> {
    let mut sum = (0, 0);
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "parquet") {
                sum = (sum.0 + 1, sum.1 + entry.metadata()?.len());
            }
        }
    }
    Ok(sum)
}

fn failed(what: &str, error: &tokio_postgres::Error) -> Error {
    let reason = match error.as_db_error() {
        Some(error) => format!("{} (SQLSTATE {})", error.message(), error.code().code()),
        None => error.to_string(),
    };
    Error::Demo(format!("could not {what}: {reason}"))
}

/// Prints a line; a reader that went away ends nothing.
fn say(text: &str) {
    let _gone = writeln!(std::io::stdout().lock(), "{text}");
}
