//! Settings of one session: SET, SHOW, RESET, with PostgreSQL's names.

use std::collections::{BTreeMap, BTreeSet};

use super::tokens;
use crate::error::{Condition, Report};
use crate::text::{Refused, Zone, refused};

/// What a client may do to a setting, and how its value is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Any text.
    Text,
    /// A boolean, kept as on or off.
    Boolean,
    /// An integer from 0.
    Integer,
    /// A duration, kept in milliseconds.
    Milliseconds,
    /// A time zone.
    Zone,
    /// A commit token.
    Positions,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Only what is true of this server: the default is the one value that is accepted.
    Only,
    /// Not to be changed by anybody.
    ReadOnly,
}

/// How new queries read, as settings spell it.
const CONSISTENCIES: &[&str] = &["strong", "session", "bounded", "eventual"];
/// Isolation levels, as settings spell them.
const ISOLATIONS: &[&str] = &["read uncommitted", "read committed", "repeatable read"];

/// Name as SHOW spells it, default, rule, whether the client is told of changes.
const KNOWN: &[(&str, &str, Rule, bool)] = &[
    ("annal.consistency", "strong", Rule::OneOf(CONSISTENCIES), false),
    ("annal.last_commit", "", Rule::ReadOnly, false),
    ("annal.last_staleness", "", Rule::ReadOnly, false),
    ("annal.max_staleness", "5s", Rule::Milliseconds, false),
    ("annal.min_commit", "", Rule::Positions, false),
    ("application_name", "", Rule::Text, true),
    ("bytea_output", "hex", Rule::Only, false),
    ("client_encoding", "UTF8", Rule::Only, true),
    ("client_min_messages", "notice", Rule::Text, false),
    ("DateStyle", "ISO, MDY", Rule::Only, true),
    ("default_table_access_method", "heap", Rule::ReadOnly, false),
    ("default_tablespace", "", Rule::Text, false),
    ("default_transaction_isolation", "read committed", Rule::OneOf(ISOLATIONS), false),
    ("default_transaction_read_only", "off", Rule::Boolean, false),
    ("extra_float_digits", "1", Rule::Integer, false),
    ("idle_in_transaction_session_timeout", "0", Rule::Milliseconds, false),
    ("in_hot_standby", "off", Rule::ReadOnly, true),
    ("integer_datetimes", "on", Rule::ReadOnly, true),
    ("IntervalStyle", "postgres", Rule::Only, true),
    ("is_superuser", "on", Rule::ReadOnly, true),
    ("jit", "off", Rule::Boolean, false),
    ("lc_collate", "C.UTF-8", Rule::ReadOnly, false),
    ("lc_ctype", "C.UTF-8", Rule::ReadOnly, false),
    ("lock_timeout", "0", Rule::Milliseconds, false),
    ("max_identifier_length", "63", Rule::ReadOnly, false),
    ("max_index_keys", "32", Rule::ReadOnly, false),
    ("password_encryption", "scram-sha-256", Rule::Only, false),
    ("row_security", "on", Rule::Boolean, false),
    ("search_path", "\"$user\", public", Rule::Text, false),
    ("server_encoding", "UTF8", Rule::ReadOnly, true),
    ("server_version", "15.18", Rule::ReadOnly, true),
    ("server_version_num", "150018", Rule::ReadOnly, false),
    ("session_authorization", "", Rule::ReadOnly, true),
    ("standard_conforming_strings", "on", Rule::Only, true),
    ("statement_timeout", "0", Rule::Milliseconds, false),
    ("synchronize_seqscans", "on", Rule::Boolean, false),
    ("synchronous_commit", "on", Rule::OneOf(&["on"]), false),
    ("TimeZone", "UTC", Rule::Zone, true),
    ("transaction_isolation", "read committed", Rule::Only, false),
    ("transaction_read_only", "off", Rule::Only, false),
];

/// The settings of one session.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The schema of the session's temporary tables.
    pub(crate) temporary: Option<String>,
    /// Values that differ from the default, by lower-case name.
    values: BTreeMap<String, String>,
    /// Values at the begin of the transaction, to return to when it fails; or those SET LOCAL replaced.
    saved: BTreeMap<String, Option<String>>,
    local: BTreeMap<String, Option<String>>,
    reported: Vec<(String, String)>,
    zone: Zone,
    changes: u64,
}

impl Settings {
    /// All defaults, for a session of `user`.
    pub(crate) fn new(user: &str) -> Self {
        let values = BTreeMap::from([("session_authorization".to_owned(), user.to_owned())]);
        Self {
            temporary: None,
            values,
            saved: BTreeMap::new(),
            local: BTreeMap::new(),
            reported: Vec::new(),
            zone: Zone::UTC,
            changes: 0,
        }
    }

    /// The value as SHOW prints it.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let key = canonical(name);
        if let Some(value) = self.values.get(&key) {
            return Some(shown(&key, value));
        }
        KNOWN.iter().find(|known| known.0.eq_ignore_ascii_case(&key)).map(|known| known.1.to_owned())
    }

    /// As `SET name = value`.
    ///
    /// # Errors
    /// 42704 for an unknown name, 22023 for a bad value, 0A000 for one this server cannot follow.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), Refused> {
        let key = canonical(name);
        let value = self.check(name, &key, value)?;
        self.saved.entry(key.clone()).or_insert_with(|| self.values.get(&key).cloned());
        self.put(&key, Some(value));
        Ok(())
    }

    /// As `SET LOCAL name = value`: until the transaction ends.
    ///
    /// # Errors
    /// As [`Settings::set`].
    pub(crate) fn set_local(&mut self, name: &str, value: &str) -> Result<(), Refused> {
        let key = canonical(name);
        let value = self.check(name, &key, value)?;
        self.local.entry(key.clone()).or_insert_with(|| self.values.get(&key).cloned());
        self.put(&key, Some(value));
        Ok(())
    }

    /// As `RESET name`.
    ///
    /// # Errors
    /// 42704 for an unknown name.
    pub(crate) fn reset(&mut self, name: &str) -> Result<(), Refused> {
        let key = canonical(name);
        if known(&key).is_none() && !key.contains('.') {
            return Err(unknown(name));
        }
        self.saved.entry(key.clone()).or_insert_with(|| self.values.get(&key).cloned());
        self.put(&key, None);
        Ok(())
    }

    /// As `RESET ALL`.
    pub(crate) fn reset_all(&mut self) {
        let keys: Vec<String> = self.values.keys().filter(|key| *key != "session_authorization").cloned().collect();
        for key in keys {
            self.put(&key, None);
        }
    }

    /// Ends a transaction: SET LOCAL is undone, and on failure every SET within it.
    pub(crate) fn end_transaction(&mut self, committed: bool) {
        for (key, value) in std::mem::take(&mut self.local) {
            self.put(&key, value);
        }
        for (key, value) in std::mem::take(&mut self.saved) {
            if !committed {
                self.put(&key, value);
            }
        }
    }

    /// Takes every setting back to what it was in `earlier`, a copy made in the same transaction.
    pub(crate) fn return_to(&mut self, earlier: &Settings) {
        let keys: BTreeSet<String> = self.values.keys().chain(earlier.values.keys()).cloned().collect();
        for key in keys {
            if self.values.get(&key) != earlier.values.get(&key) {
                self.put(&key, earlier.values.get(&key).cloned());
            }
        }
        self.saved.clone_from(&earlier.saved);
        self.local.clone_from(&earlier.local);
    }

    /// Changes the client must be told of, since the last call.
    pub(crate) fn take_reported(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.reported)
    }

    /// The session's time zone.
    pub(crate) fn zone(&self) -> Zone {
        self.zone
    }

    /// All settings with their values, in name order.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        let mut all: BTreeMap<String, String> =
            KNOWN.iter().map(|known| (known.0.to_owned(), self.get(known.0).unwrap_or_default())).collect();
        let dotted = self.values.iter().filter(|(key, _)| key.contains('.'));
        all.extend(dotted.map(|(key, value)| (key.clone(), value.clone())));
        all.into_iter().collect()
    }

    /// Schemas to search for unqualified names, that of the session's temporary tables first.
    pub(crate) fn search_path(&self) -> Vec<String> {
        let temporary = self.temporary.clone();
        let path = self.get("search_path").unwrap_or_default();
        let mut schemas: Vec<String> = path
            .split(',')
            .map(|part| part.trim().trim_matches('"').to_owned())
            .filter(|part| !part.is_empty() && part != "$user" && part != "pg_catalog")
            .collect();
        if schemas.is_empty() {
            schemas.push("public".to_owned());
        }
        schemas.push("pg_catalog".to_owned());
        schemas.splice(0..0, temporary);
        schemas
    }

    fn check(&self, name: &str, key: &str, value: &str) -> Result<String, Refused> {
        let Some((shown, default, rule, _)) = known(key) else {
            // Names with a dot belong to extensions and applications; they may be anything.
            return if key.contains('.') && !key.starts_with("datafusion.") {
                Ok(value.to_owned())
            } else {
                Err(unknown(name))
            };
        };
        let invalid = || {
            let message = format!("invalid value for parameter \"{shown}\": \"{value}\"");
            refused(Condition::InvalidParameterValue, message)
        };
        match rule {
            Rule::Text => Ok(value.to_owned()),
            Rule::Boolean => match value.to_ascii_lowercase().as_str() {
                "on" | "true" | "yes" | "1" | "t" => Ok("on".to_owned()),
                "off" | "false" | "no" | "0" | "f" => Ok("off".to_owned()),
                _ => Err(refused(
                    Condition::InvalidParameterValue,
                    format!("parameter \"{shown}\" requires a Boolean value"),
                )),
            },
            Rule::Integer => value.trim().parse::<i32>().map(|number| number.to_string()).map_err(|_| invalid()),
            Rule::Milliseconds => milliseconds(value).map(|ms| ms.to_string()).ok_or_else(invalid),
            Rule::Positions => tokens::read(value).map(|_| value.trim().to_owned()).ok_or_else(|| {
                let mut report = invalid();
                report.hint = Some("A commit token is what SHOW annal.last_commit gives, such as 1:7,3:12.".to_owned());
                report
            }),
            Rule::Zone => zone_named(value).map(|_| value.to_owned()).ok_or_else(invalid),
            Rule::OneOf(words) => {
                let word = value.to_ascii_lowercase();
                if words.contains(&word.as_str()) {
                    return Ok(word);
                }
                let mut report = invalid();
                report.hint = Some(format!("Available values: {}.", words.join(", ")));
                Err(report)
            }
            Rule::Only => only(shown, default, value),
            Rule::ReadOnly => {
                let message = format!("parameter \"{shown}\" cannot be changed");
                Err(refused(Condition::InvalidParameterValue, message))
            }
        }
    }

    /// Sets a value that only the server changes; no transaction takes it back.
    pub(crate) fn tell(&mut self, key: &str, value: String) {
        self.values.insert(key.to_owned(), value);
    }

    /// How often any setting was changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    fn put(&mut self, key: &str, value: Option<String>) {
        self.changes += 1;
        match value {
            Some(value) => self.values.insert(key.to_owned(), value),
            None => self.values.remove(key),
        };
        if key == "timezone" {
            self.zone = self.get(key).and_then(|value| zone_named(&value)).unwrap_or(Zone::UTC);
        }
        if let Some(&(shown, _, _, true)) = known(key) {
            let value = self.get(key).unwrap_or_default();
            self.reported.push((shown.to_owned(), value));
        }
    }
}

/// A value other than the default of a setting that this server follows in one way only.
fn only(shown: &str, default: &str, value: &str) -> Result<String, Refused> {
    let plain = |text: &str| text.to_ascii_lowercase().replace([' ', '-', '_', '\''], "");
    let same = plain(value) == plain(default)
        || matches!(
            (shown, plain(value).as_str()),
            ("DateStyle", "iso" | "iso,mdy") | ("client_encoding", "utf8" | "unicode")
        );
    if same {
        return Ok(default.to_owned());
    }
    let message = format!("value \"{value}\" of parameter \"{shown}\" is not supported");
    let mut report = refused(Condition::FeatureNotSupported, message);
    report.hint = Some(format!("The only value is \"{default}\"."));
    Err(report)
}

fn zone_named(value: &str) -> Option<Zone> {
    if value.eq_ignore_ascii_case("default") || value.eq_ignore_ascii_case("local") {
        return Some(Zone::UTC);
    }
    // A bare number counts hours east of UTC.
    if let Ok(hours) = value.trim().parse::<f64>() {
        return (hours.abs() <= 15.0).then_some(Zone::Fixed((hours * 3600.0) as i32));
    }
    Zone::named(value)
}

fn milliseconds(value: &str) -> Option<u64> {
    let value = value.trim();
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let number: u64 = value[..digits].parse().ok()?;
    let unit = match value[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit).filter(|ms| *ms <= i32::MAX as u64)
}

/// Durations are kept in milliseconds and shown with the largest unit that divides them.
fn shown(key: &str, value: &str) -> String {
    if !matches!(known(key), Some((_, _, Rule::Milliseconds, _))) {
        return value.to_owned();
    }
    let Ok(ms) = value.parse::<u64>() else { return value.to_owned() };
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)] {
        if ms > 0 && ms.is_multiple_of(size) {
            return format!("{}{unit}", ms / size);
        }
    }
    if ms == 0 { "0".to_owned() } else { format!("{ms}ms") }
}

/// Milliseconds of a shown duration.
pub(crate) fn duration_ms(value: &str) -> u64 {
    milliseconds(value).unwrap_or(0)
}

fn known(key: &str) -> Option<&'static (&'static str, &'static str, Rule, bool)> {
    KNOWN.iter().find(|known| known.0.eq_ignore_ascii_case(key))
}

fn canonical(name: &str) -> String {
    name.to_ascii_lowercase()
}

fn unknown(name: &str) -> Box<Report> {
    refused(Condition::UndefinedObject, format!("unrecognized configuration parameter \"{name}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: &str, expected: Result<&str, &str>) {
        let mut settings = Settings::new("me");
        let outcome = settings.set(name, value).map(|()| settings.get(name).unwrap_or_default());
        assert_eq!(outcome.map_err(|report| report.message), expected.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn values_are_checked_and_shown_as_postgresql_does() {
        check("STATEMENT_TIMEOUT", "1500", Ok("1500ms"));
        check("statement_timeout", "60s", Ok("1min"));
        check("statement_timeout", "soon", Err("invalid value for parameter \"statement_timeout\": \"soon\""));
        check("timezone", "Europe/Berlin", Ok("Europe/Berlin"));
        check("timezone", "Mars", Err("invalid value for parameter \"TimeZone\": \"Mars\""));
        check("datestyle", "iso", Ok("ISO, MDY"));
        check("datestyle", "german", Err("value \"german\" of parameter \"DateStyle\" is not supported"));
        check("server_version", "16", Err("parameter \"server_version\" cannot be changed"));
        check("my.own", "x", Ok("x"));
        check("annal.consistency", "BOUNDED", Ok("bounded"));
        check("annal.consistency", "weak", Err("invalid value for parameter \"annal.consistency\": \"weak\""));
        check("annal.min_commit", "1:7,3:12", Ok("1:7,3:12"));
        check("annal.min_commit", "7", Err("invalid value for parameter \"annal.min_commit\": \"7\""));
        check("annal.last_commit", "1:7", Err("parameter \"annal.last_commit\" cannot be changed"));
        check(
            "datafusion.execution.batch_size",
            "1",
            Err("unrecognized configuration parameter \"datafusion.execution.batch_size\""),
        );
        check("nonsense", "x", Err("unrecognized configuration parameter \"nonsense\""));
    }

    #[test]
    fn a_failed_transaction_undoes_its_settings() {
        let mut settings = Settings::new("me");
        settings.set("application_name", "a").expect("valid");
        settings.end_transaction(true);
        settings.set("application_name", "b").expect("valid");
        settings.set_local("jit", "on").expect("valid");
        settings.end_transaction(false);
        assert_eq!(settings.get("application_name").as_deref(), Some("a"));
        assert_eq!(settings.get("jit").as_deref(), Some("off"));
    }
}
