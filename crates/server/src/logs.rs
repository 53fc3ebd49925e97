//! Structured logs on stderr. `error` means that an operator must act.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::panic::PanicHookInfo;

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
    match started {
        Ok(()) => std::panic::set_hook(Box::new(tell_panic)),
        Err(error) => tracing::debug!(%error, "logs were started before"),
    }
}

/// A panic is an event like others, so that it does not stand as text between lines of JSON.
fn tell_panic(panic: &PanicHookInfo<'_>) {
    let said = panic.payload_as_str().unwrap_or("something that is no text");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    // Where RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(place, thread = thread.name(), backtrace, "a thread panicked: {said}");
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

    #[test]
    fn a_panic_is_one_line_of_json() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer = std::sync::Arc::new(file.reopen().unwrap());
        let lines = tracing_subscriber::fmt().with_writer(writer).json().flatten_event(true).finish();
        let before = std::panic::take_hook();
        tracing::subscriber::with_default(lines, || {
            std::panic::set_hook(Box::new(tell_panic));
            let _panic = std::panic::catch_unwind(|| panic!("no \"{}\"\nat all", "room"));
        });
        std::panic::set_hook(before);
        let text = std::fs::read_to_string(file.path()).unwrap();
        let line: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(line["message"], "a thread panicked: no \"room\"\nat all", "{text}");
        assert!(line["place"].as_str().is_some_and(|place| place.contains("logs.rs:")), "{text}");
    }
}
