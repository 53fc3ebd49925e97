//! The configuration file: raw values as TOML gives them, unknown keys refused by name.

use std::path::Path;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use super::SettingsError;

/// A key of the configuration file.
#[derive(Debug)]
pub struct Key {
    /// Its full name, with the table it lies in.
    pub name: &'static str,
    /// Its value when the file does not say, as the documentation prints it.
    pub default: &'static str,
}

/// Every key there is, in the order of docs/configuration.md.
pub const KEYS: &[Key] = &[
    Key { name: "data_dir", default: "./annal-data" },
    Key { name: "listen", default: super::LISTEN_DEFAULT },
    Key { name: "http_listen", default: super::HTTP_LISTEN_DEFAULT },
    Key { name: "insecure", default: "false" },
    Key { name: "shutdown_grace", default: "10 s" },
    Key { name: "cluster.listen", default: "off: the node is alone" },
    Key { name: "cluster.address", default: "cluster.listen" },
    Key { name: "cluster.join", default: "[]: an empty data directory founds a cluster" },
    Key { name: "cluster.authority", default: "none: connections between nodes are not encrypted" },
    Key { name: "cluster.certificate", default: "none" },
    Key { name: "cluster.key", default: "none" },
    Key { name: "cluster.groups", default: "3" },
    Key { name: "cluster.lease_reads", default: "false" },
    Key { name: "memory", default: "half of the machine's memory" },
    Key { name: "query.memory", default: "half of memory" },
    Key { name: "query.cores", default: "the number of cores, at least 2" },
    Key { name: "storage.seal_size", default: "64 MiB, at most a sixteenth of memory" },
    Key { name: "storage.url", default: "below the data directory" },
    Key { name: "storage.endpoint", default: "Amazon's" },
    Key { name: "storage.region", default: "us-east-1" },
    Key { name: "storage.cache_size", default: "4 GiB" },
    Key { name: "log.format", default: "auto" },
    Key { name: "log.filter", default: "info" },
];

/// How far a key may be from a known one to be taken for a slip of it.
const SLIP_MIN: f64 = 0.6;

/// The file as written.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub(super) data_dir: Option<String>,
    pub(super) listen: Option<String>,
    pub(super) http_listen: Option<String>,
    pub(super) insecure: Option<bool>,
    pub(super) shutdown_grace: Option<String>,
    pub(super) cluster: Cluster,
    pub(super) memory: Option<String>,
    pub(super) query: Query,
    pub(super) storage: Storage,
    pub(super) log: Log,
}

/// The table `[cluster]`.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub(super) struct Cluster {
    pub(super) listen: Option<String>,
    pub(super) address: Option<String>,
    pub(super) join: Option<Vec<String>>,
    pub(super) authority: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
    pub(super) groups: Option<i64>,
    pub(super) lease_reads: Option<bool>,
}

/// The table `[query]`.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub(super) struct Query {
    pub(super) memory: Option<String>,
    pub(super) cores: Option<i64>,
}

/// The table `[storage]`.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub(super) struct Storage {
    pub(super) seal_size: Option<String>,
    pub(super) url: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) region: Option<String>,
    pub(super) cache_size: Option<String>,
}

/// The table `[log]`.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    pub(super) format: Option<String>,
    pub(super) filter: Option<String>,
}

/// Reads `text`, the content of the file at `path`.
pub(super) fn parse(text: &str, path: &Path) -> Result<File, SettingsError> {
    let place = |offset: usize| format!("configuration file \"{}\", line {}", path.display(), line_of(text, offset));
    let syntax = |error: &toml::de::Error| {
        let offset = error.span().map_or(0, |span| span.start);
        SettingsError::new(format!("{}: {}", place(offset), error.message()))
    };
    let table = DeTable::parse(text).map_err(|error| syntax(&error))?;
    if let Some((name, offset)) = unknown_key(table.get_ref(), "") {
        let error = SettingsError::new(format!("{}: unknown key \"{name}\"", place(offset)));
        return Err(match nearest(&name) {
            Some(key) => error.with_hint(format!("did you mean \"{key}\"?")),
            None => error.with_hint("docs/configuration.md lists every key"),
        });
    }
    toml::from_str(text).map_err(|error| syntax(&error))
}

/// The first key, in the order of the file, that nobody reads, with its offset.
fn unknown_key(table: &DeTable<'_>, prefix: &str) -> Option<(String, usize)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries.into_iter().find_map(|(key, value)| {
        let name = format!("{prefix}{}", key.get_ref());
        if KEYS.iter().any(|known| known.name == name) {
            return None;
        }
        let below = format!("{name}.");
        match value.get_ref() {
            DeValue::Table(inner) if KEYS.iter().any(|known| known.name.starts_with(&below)) => {
                unknown_key(inner, &below)
            }
            _ => Some((name, key.span().start)),
        }
    })
}

/// The known key most like `name`, compared with and without the table.
fn nearest(name: &str) -> Option<&'static str> {
    let last = |text: &str| text.rsplit('.').next().map(str::to_owned).unwrap_or_default();
    let likeness = |known: &str| {
        let whole = strsim::normalized_damerau_levenshtein(name, known);
        whole.max(strsim::normalized_damerau_levenshtein(&last(name), &last(known)) * 0.99)
    };
    KEYS.iter()
        .map(|key| (likeness(key.name), key.name))
        .filter(|(likeness, _)| *likeness >= SLIP_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}
