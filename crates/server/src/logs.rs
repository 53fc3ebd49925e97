//! Structured logs on stderr. `error` means that an operator must act.

use std::io::IsTerminal;

use cluster::RAFT_LOG_TARGET;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::settings::{LogFormat, Settings};

/// The crates whose events speak the operator's language; libraries speak only from `warn` on.
const OURS: [&str; 7] = ["event", "storage", "replication", "cluster", "query", "wire", "server"];

/// Sends events of the whole process to stderr, once; a second call changes nothing.
pub(crate) fn start(settings: &Settings) {
    let filter = EnvFilter::new(directives(&settings.log_filter));
    let terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal);
    let json = match settings.log_format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let started = if json { lines.json().flatten_event(true).try_init() } else { lines.try_init() };
    if let Err(error) = started {
        tracing::debug!(%error, "logs were started before");
    }
}

/// A bare level is meant for our own events; anything else is taken as it is. Of Raft's library only errors are told: it warns of each message to a node
/// that is down, which `cluster` says once.
fn directives(filter: &str) -> String {
    let Ok(level) = filter.parse::<LevelFilter>() else { return filter.to_owned() };
    let ours = OURS.map(|name| format!("{name}={level}"));
    let (libraries, raft) = (level.min(LevelFilter::WARN), level.min(LevelFilter::ERROR));
    format!("{libraries},{RAFT_LOG_TARGET}={raft},{}", ours.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_keeps_libraries_quiet() {
        let begins =
            |level: &str, begin: String| assert!(directives(level).starts_with(&begin), "{}", directives(level));
        begins("info", format!("warn,{RAFT_LOG_TARGET}=error,event=info,storage=info,"));
        begins("error", format!("error,{RAFT_LOG_TARGET}=error,event=error,"));
        begins("off", format!("off,{RAFT_LOG_TARGET}=off,event=off,"));
        assert_eq!(directives("warn,storage=debug"), "warn,storage=debug");
    }
}
