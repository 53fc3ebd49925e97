//! Settings of one process: flags over one TOML file over defaults, validated once.
//!
//! The file is read into `file::File`, whose fields are all optional and untyped beyond TOML's own types; [`Settings`]
//! holds what the rest of the process uses and cannot be wrong. Whoever has a `Settings` need not check again.

mod cluster;
mod file;
mod memory;
mod remote;
mod units;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::cluster::JoinToken;

pub use cluster::{Certificates, Cluster};
pub use file::{KEYS, Key};
pub use memory::Memory;
pub use remote::Remote;

/// Where PostgreSQL clients connect by default.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:6432";
/// Where health and metrics are served by default.
pub const HTTP_LISTEN_DEFAULT: &str = "127.0.0.1:6480";
/// The value of `http_listen` that turns HTTP off.
const HTTP_OFF: &str = "off";
/// The data directory by default, below the working directory.
const DATA_DIR_DEFAULT: &str = "./annal-data";
/// How long running statements may go on after SIGTERM.
const SHUTDOWN_GRACE_DEFAULT: Duration = Duration::from_secs(10);
/// Never fewer: one query that does not yield must not stop the others.
const QUERY_CORES_MIN: usize = 2;
/// More than this are a mistake.
const QUERY_CORES_MAX: usize = 256;

/// Each group has a leader of its own to heartbeat, elect and checkpoint.
const GROUPS_MAX: usize = 64;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// One human-readable line for each event.
    Text,
    /// One JSON object for each event.
    Json,
}

/// Validated settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Where PostgreSQL clients connect.
    pub listen: SocketAddr,
    /// Where health and metrics are served, when they are.
    pub http_listen: Option<SocketAddr>,
    /// The node's place among others; `None` when it is alone.
    pub cluster: Option<Cluster>,
    /// Groups that the tables of a new cluster are spread over.
    pub groups: usize,
    /// Whether a group's leader reads without asking a majority that answered it a moment ago.
    pub lease_reads: bool,
    /// How long running statements may go on after SIGTERM.
    pub shutdown_grace: Duration,
    /// How the node's memory is divided.
    pub memory: Memory,
    /// Where segments lie when not below the data directory.
    pub remote: Option<Remote>,
    /// Cores that queries may use.
    pub query_cores: usize,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which events are logged, in the language of `tracing_subscriber::EnvFilter`.
    pub log_filter: String,
}

/// What the command line says; it wins over the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// The data directory.
    pub data: Option<PathBuf>,
    /// Where PostgreSQL clients connect.
    pub listen: Option<String>,
    /// Where health and metrics are served.
    pub http: Option<String>,
    /// Where other nodes connect.
    pub cluster_listen: Option<String>,
    /// Where other nodes are told to connect.
    pub cluster_address: Option<String>,
    /// Nodes to join.
    pub join: Vec<String>,
    /// The token to join with.
    pub join_token: Option<JoinToken>,
    /// The id the node must have.
    pub node_id: Option<u64>,
    /// Listen beyond loopback without authentication.
    pub insecure: bool,
    /// How log lines look.
    pub log_format: Option<String>,
}

/// A wrong setting.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SettingsError {
    /// What is wrong and where.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl SettingsError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Settings {
    /// Reads the file named in `overrides`, if any, and lays the flags over it.
    pub fn load(overrides: &Overrides) -> Result<Settings, SettingsError> {
        let file = match &overrides.config {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    SettingsError::new(format!("could not read configuration file \"{}\": {error}", path.display()))
                })?;
                file::parse(&text, path)?
            }
            None => file::File::default(),
        };
        Self::resolve(file, overrides)
    }

    fn resolve(file: file::File, overrides: &Overrides) -> Result<Settings, SettingsError> {
        let insecure = overrides.insecure || file.insecure.unwrap_or(false);
        let listen = overrides.listen.clone().or(file.listen).unwrap_or_else(|| LISTEN_DEFAULT.to_owned());
        let listen = address("listen", &listen)?;
        refuse_open_door("listen", listen, insecure)?;
        let http_listen = overrides.http.clone().or(file.http_listen).unwrap_or_else(|| HTTP_LISTEN_DEFAULT.to_owned());
        let http_listen = match http_listen.as_str() {
            HTTP_OFF => None,
            text => Some(address("http_listen", text)?),
        };
        if let Some(http_listen) = http_listen {
            refuse_open_door("http_listen", http_listen, insecure)?;
        }
        let groups = groups(file.cluster.groups)?;
        let lease_reads = file.cluster.lease_reads.unwrap_or(false);
        let cluster = Cluster::resolve(file.cluster, overrides, insecure)?;
        let data_dir = overrides.data.clone().or(file.data_dir.map(PathBuf::from));
        let log_format = overrides.log_format.clone().or(file.log.format).unwrap_or_else(|| "auto".to_owned());
        Ok(Settings {
            data_dir: data_directory(data_dir.as_deref().unwrap_or(Path::new(DATA_DIR_DEFAULT)))?,
            listen,
            http_listen,
            cluster,
            groups,
            lease_reads,
            shutdown_grace: match file.shutdown_grace {
                Some(text) => units::duration("shutdown_grace", &text)?,
                None => SHUTDOWN_GRACE_DEFAULT,
            },
            memory: Memory::resolve(
                file.memory.as_deref(),
                file.query.memory.as_deref(),
                file.storage.seal_size.as_deref(),
                memory::of_machine(),
            )?,
            remote: Remote::resolve(&file.storage)?,
            query_cores: query_cores(file.query.cores)?,
            log_format: format_of(&log_format)?,
            log_filter: log_filter(file.log.filter)?,
        })
    }
}

fn address(key: &str, text: &str) -> Result<SocketAddr, SettingsError> {
    let text = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    text.parse().map_err(|_| {
        SettingsError::new(format!("\"{key}\" must be an IP address with a port, not \"{text}\""))
            .with_hint(format!("for example {LISTEN_DEFAULT}"))
    })
}

/// Nobody is asked for a password yet, so nobody outside this machine may reach the door by accident.
fn refuse_open_door(key: &str, address: SocketAddr, insecure: bool) -> Result<(), SettingsError> {
    if address.ip().is_loopback() || insecure {
        return Ok(());
    }
    Err(SettingsError::new(format!(
        "\"{key}\" is {address}, which other machines can reach, and clients are not authenticated"
    ))
    .with_hint("listen on 127.0.0.1, or say --insecure if the network itself keeps strangers out"))
}

fn data_directory(path: &Path) -> Result<PathBuf, SettingsError> {
    if path.exists() && !path.is_dir() {
        return Err(SettingsError::new(format!("data directory \"{}\" is not a directory", path.display())));
    }
    Ok(path.to_owned())
}

fn groups(groups: Option<i64>) -> Result<usize, SettingsError> {
    let Some(groups) = groups else { return Ok(event::limits::DATA_GROUPS) };
    let fitting = usize::try_from(groups).ok().filter(|groups| (1..=GROUPS_MAX).contains(groups));
    fitting.ok_or_else(|| {
        SettingsError::new(format!("\"cluster.groups\" must be between 1 and {GROUPS_MAX}, not {groups}"))
    })
}

fn query_cores(cores: Option<i64>) -> Result<usize, SettingsError> {
    let Some(cores) = cores else {
        let all = std::thread::available_parallelism().map_or(QUERY_CORES_MIN, std::num::NonZero::get);
        return Ok(all.clamp(QUERY_CORES_MIN, QUERY_CORES_MAX));
    };
    match usize::try_from(cores) {
        Ok(cores) if (QUERY_CORES_MIN..=QUERY_CORES_MAX).contains(&cores) => Ok(cores),
        _ => Err(SettingsError::new(format!(
            "\"query.cores\" must be between {QUERY_CORES_MIN} and {QUERY_CORES_MAX}, not {cores}"
        ))),
    }
}

fn format_of(text: &str) -> Result<LogFormat, SettingsError> {
    match text {
        "auto" => Ok(LogFormat::Auto),
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(SettingsError::new(format!("\"log.format\" must be auto, text or json, not \"{other}\""))),
    }
}

fn log_filter(text: Option<String>) -> Result<String, SettingsError> {
    let text = text.unwrap_or_else(|| "info".to_owned());
    match tracing_subscriber::EnvFilter::try_new(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(SettingsError::new(format!("\"log.filter\" is not a filter: {error}"))
            .with_hint("for example info, or info,storage=debug")),
    }
}

#[cfg(test)]
mod tests;
