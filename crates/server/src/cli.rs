//! The command line: `annal server`, `annal sql`, `annal demo`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use cluster::JoinToken;

use crate::error::Error;
use crate::moving::MoveOptions;
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
    /// Start and tend a cluster.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Make certificates with which nodes know each other.
    Cert(CertArgs),
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
    /// Where other nodes connect; without it the node is alone.
    #[arg(long, value_name = "ADDRESS")]
    cluster_listen: Option<String>,
    /// Where other nodes are told to connect, when that is another address [default: that of --cluster-listen].
    #[arg(long, value_name = "HOST:PORT")]
    cluster_address: Option<String>,
    /// A node of the cluster that an empty data directory shall belong to; may be said several times.
    #[arg(long, value_name = "HOST:PORT")]
    join: Vec<String>,
    /// The token to join with, as `annal cluster token` prints it; used up when the node is taken in.
    #[arg(long, value_name = "TOKEN", value_parser = join_token)]
    join_token: Option<JoinToken>,
    /// The id that the node must have; a new node asks for it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    node_id: Option<u64>,
    /// Listen beyond loopback although clients are not authenticated.
    #[arg(long)]
    insecure: bool,
    /// How log lines look: auto (text on a terminal, JSON otherwise), text or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Start a cluster on this machine, each node a process of its own that is restarted when it fails.
    Start(ClusterStartArgs),
    /// Show the nodes of a cluster and their replicas.
    Status(ConnectArgs),
    /// Take a node out of the cluster, for good; its replicas go to others.
    Remove(RemoveArgs),
    /// Move a replica that votes from one node to another, and show how far it is.
    Move(MoveArgs),
    /// Make a token with which one node can join within an hour.
    Token(ConnectArgs),
}

/// Flags of `annal cluster start`.
#[derive(Debug, Args)]
struct ClusterStartArgs {
    /// How many nodes; one, three, or another odd number [default: 3, or as many as there are].
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// The directory of the nodes' data directories; a cluster that is there is started again.
    #[arg(long, value_name = "DIR", default_value = "./annal-cluster")]
    data: PathBuf,
    /// Where clients of the first node connect; those of the others use the ports after it. 0 takes free ports [default: 6432, or where it was].
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
}

/// Where `annal cluster` finds a node.
#[derive(Debug, Args)]
struct ConnectArgs {
    /// Any node of the cluster.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6432")]
    connect: SocketAddr,
    /// The role.
    #[arg(long, value_name = "NAME", default_value = "annal")]
    user: String,
}

/// Flags of `annal cluster remove`.
#[derive(Debug, Args)]
struct RemoveArgs {
    /// The node's id.
    #[arg(value_name = "NODE")]
    node: u64,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Flags of `annal cluster move`.
#[derive(Debug, Args)]
struct MoveArgs {
    /// The group, as annal.replicas shows it.
    #[arg(value_name = "GROUP")]
    group: u64,
    /// The node that votes in it.
    #[arg(long, value_name = "NODE")]
    from: u64,
    /// The node that shall vote instead.
    #[arg(long, value_name = "NODE")]
    to: u64,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Flags of `annal cert`.
#[derive(Debug, Args)]
struct CertArgs {
    /// The directory of the authority, whose key signs nodes: keep it off the nodes.
    #[arg(long, value_name = "DIR", default_value = "./annal-certs")]
    dir: PathBuf,
    /// Names of the nodes; each gets a directory with what it needs. A number is a node's id, and binds its certificate to that.
    #[arg(value_name = "NAME", required = true)]
    nodes: Vec<String>,
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
    /// Run it on so many nodes, each a process of its own.
    #[arg(long, value_name = "N", default_value_t = 1)]
    nodes: usize,
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
                cluster_listen: args.cluster_listen,
                cluster_address: args.cluster_address,
                join: args.join,
                join_token: args.join_token,
                node_id: args.node_id,
                insecure: args.insecure,
                log_format: args.log_format,
            };
            crate::process::serve(&Settings::load(&overrides)?)
        }
        Command::Cluster(ClusterCommand::Start(args)) => {
            crate::local::run(&crate::local::LocalOptions { nodes: args.nodes, data: args.data, port: args.port })
        }
        Command::Cluster(ClusterCommand::Status(args)) => ask(
            "SELECT n.node, n.state, n.sql_address, n.cluster_address, count(*) FILTER (WHERE r.votes) AS votes, \
             count(*) FILTER (WHERE r.leader = n.node) AS leads \
             FROM annal.nodes n LEFT JOIN annal.replicas r ON r.node = n.node GROUP BY 1, 2, 3, 4 ORDER BY 1",
            args,
        ),
        Command::Cluster(ClusterCommand::Token(args)) => {
            crate::sql::print_one("SELECT annal.join_token()", args.connect, &args.user)
        }
        Command::Cluster(ClusterCommand::Remove(args)) => {
            ask(&format!("SELECT annal.remove_node({})", args.node), args.connect)
        }
        Command::Cluster(ClusterCommand::Move(MoveArgs { group, from, to, connect })) => {
            crate::moving::run(&MoveOptions { group, from, to, address: connect.connect, user: connect.user })
        }
        Command::Cert(args) => crate::certificates::run(&args.dir, &args.nodes),
        Command::Sql(args) => crate::sql::run(&SqlOptions {
            sql: args.sql,
            file: args.file,
            address: args.connect,
            user: args.user,
            format: args.format,
        }),
        Command::Demo(args) => {
            let (data_dir, listen) = (args.data, args.listen);
            crate::demo::run(&crate::demo::DemoOptions { data_dir, listen, nodes: args.nodes, exit: args.exit })
        }
    }
}

/// Any text may be one; the cluster knows.
fn join_token(text: &str) -> Result<JoinToken, Infallible> {
    Ok(JoinToken::new(text))
}

/// Asks one node about the cluster.
fn ask(sql: &str, to: ConnectArgs) -> Result<(), Error> {
    let (address, user) = (to.connect, to.user);
    crate::sql::run(&SqlOptions { sql: Some(sql.to_owned()), file: None, address, user, format: Format::Table })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
