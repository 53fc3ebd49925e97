//! The command line: `annal server`, `annal sql`, `annal demo`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::error::Error;
use crate::settings::{Overrides, Settings};
use crate::sql::{Format, SqlOptions};

/// A replicated time-series event database that speaks PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "annal", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve PostgreSQL clients from a data directory until SIGTERM.
    Server(ServerArgs),
    /// Run statements on a server and print their rows.
    Sql(SqlArgs),
    /// Load a year of real flights and weather, query it, and stay up for psql.
    Demo(DemoArgs),
}

/// Flags of `annal server`; each wins over the same key of the configuration file.
#[derive(Debug, Args)]
struct ServerArgs {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory; made when it is not there [default: ./annal-data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where PostgreSQL clients connect; port 0 takes a free one [default: 127.0.0.1:6432].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where /livez, /readyz and /metrics are served, or "off" [default: 127.0.0.1:6480].
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
    /// Listen beyond loopback although clients are not authenticated.
    #[arg(long)]
    insecure: bool,
    /// How log lines look: auto (text on a terminal, JSON otherwise), text or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

/// Flags of `annal sql`.
#[derive(Debug, Args)]
struct SqlArgs {
    /// Statements, separated by semicolons; each is a transaction of its own unless they say BEGIN.
    #[arg(value_name = "SQL", required_unless_present = "file")]
    sql: Option<String>,
    /// Reads the statements from a file; "-" is standard input.
    #[arg(long, short, value_name = "FILE", conflicts_with = "sql")]
    file: Option<PathBuf>,
    /// The server.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6432")]
    connect: SocketAddr,
    /// The role.
    #[arg(long, value_name = "NAME", default_value = "annal")]
    user: String,
    /// How rows are printed.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

/// Flags of `annal demo`.
#[derive(Debug, Args)]
struct DemoArgs {
    /// Keep the data in this directory, and do not load it again when it is there.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// End after the queries.
    #[arg(long)]
    exit: bool,
    /// Where PostgreSQL clients connect [default: 127.0.0.1:6432, or a free port when that is taken].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

/// Reads the command line and runs its command to the end.
pub fn run() -> Result<(), Error> {
    match Cli::parse().command {
        Command::Server(args) => {
            let overrides = Overrides {
                config: args.config,
                data: args.data,
                listen: args.listen,
                http: args.http,
                insecure: args.insecure,
                log_format: args.log_format,
            };
            crate::process::serve(&Settings::load(&overrides)?)
        }
        Command::Sql(args) => crate::sql::run(&SqlOptions {
            sql: args.sql,
            file: args.file,
            address: args.connect,
            user: args.user,
            format: args.format,
        }),
        Command::Demo(args) => {
            crate::demo::run(&crate::demo::DemoOptions { data_dir: args.data, listen: args.listen, exit: args.exit })
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
