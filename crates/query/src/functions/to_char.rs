//! `to_char(time, format)`: PostgreSQL's patterns, where the library's function takes those of C.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, AsArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};
use datafusion::common::utils::take_function_args;
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::error::{Condition, Error};
use crate::text::Zone;

const US_PER_SECOND: i64 = 1_000_000;
/// Months and days are padded to the longest of their names.
const NAME_WIDTH: usize = 9;
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The function.
pub(crate) fn to_char() -> ScalarUDF {
    ScalarUDF::from(ToChar(Signature::any(2, Volatility::Stable)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToChar(Signature);

impl ScalarUDFImpl for ToChar {
    fn name(&self) -> &'static str {
        "to_char"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments[0] {
            DataType::Timestamp(..) | DataType::Date32 | DataType::Null => Ok(DataType::Utf8),
            ref other => plan_err!("no function matches: to_char of {other}"),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let zone = arguments.config_options.execution.time_zone.as_deref().and_then(Zone::parse).unwrap_or(Zone::UTC);
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let [times, formats] = take_function_args(self.name(), arrays)?;
        let zone = matches!(times.data_type(), DataType::Timestamp(_, Some(_))).then_some(zone);
        let own = DataType::Timestamp(TimeUnit::Microsecond, zone.is_some().then(|| "UTC".into()));
        let (times, formats) = (cast(&times, &own)?, cast(&formats, &DataType::Utf8)?);
        let (times, formats) = (times.as_primitive::<TimestampMicrosecondType>(), formats.as_string::<i32>());
        let mut texts = StringBuilder::new();
        for row in 0..times.len() {
            if times.is_null(row) || formats.is_null(row) {
                texts.append_null();
                continue;
            }
            let us = times.value(row);
            let offset = zone.as_ref().map(|zone| zone.offset_at(us));
            let local = us.saturating_add(i64::from(offset.unwrap_or(0)) * US_PER_SECOND);
            let local = DateTime::from_timestamp_micros(local).ok_or_else(|| {
                let error = Error::report(Condition::DatetimeOverflow, "timestamp out of range");
                DataFusionError::External(Box::new(error))
            })?;
            texts.append_value(Moment { local: local.naive_utc(), offset }.format(formats.value(row)));
        }
        Ok(ColumnarValue::Array(Arc::new(texts.finish())))
    }
}

/// What clocks show, and how far from UTC they are.
struct Moment {
    local: NaiveDateTime,
    offset: Option<i32>,
}

/// Patterns, longer ones before those they begin with.
const PATTERNS: [&str; 40] = [
    "YYYY", "YYY", "YY", "Y,YYY", "Y", "IYYY", "IY", "MONTH", "Month", "month", "MON", "Mon", "mon", "MM", "MI", "MS",
    "DAY", "Day", "day", "DDD", "DD", "DY", "Dy", "dy", "D", "HH24", "HH12", "HH", "SSSS", "SS", "US", "A.M.", "P.M.",
    "AM", "PM", "WW", "IW", "ID", "Q", "J",
];

impl Moment {
    /// Patterns become what they stand for, text in double quotes what is in them, all else itself.
    fn format(&self, format: &str) -> String {
        let mut out = String::new();
        let mut rest = format;
        while let Some(first) = rest.chars().next() {
            if first == '"' {
                let quoted = &rest[1..];
                let end = quoted.find('"').unwrap_or(quoted.len());
                out.push_str(&quoted[..end]);
                rest = quoted.get(end + 1..).unwrap_or("");
                continue;
            }
            let (fill, after) = match rest.get(..2) {
                Some(prefix) if prefix.eq_ignore_ascii_case("FM") => (false, &rest[2..]),
                _ => (true, rest),
            };
            match pattern(after) {
                Some((pattern, written)) => {
                    self.put(&mut out, pattern, written, fill);
                    rest = &after[written.len()..];
                }
                None => {
                    out.push(first);
                    rest = &rest[first.len_utf8()..];
                }
            }
        }
        out
    }

    fn put(&self, out: &mut String, pattern: &str, written: &str, fill: bool) {
        let at = &self.local;
        let hour12 = (at.hour() + 11) % 12 + 1;
        let number = |out: &mut String, value: i64, width: usize| {
            // Writing to a String cannot fail.
            let _ok = if fill { write!(out, "{value:0width$}") } else { write!(out, "{value}") };
        };
        let year = i64::from(at.year());
        match pattern {
            "YYYY" => number(out, year, 4),
            "YYY" => number(out, year % 1000, 3),
            "YY" => number(out, year % 100, 2),
            "Y,YYY" => {
                let _ok = write!(out, "{},{:03}", year / 1000, year % 1000);
            }
            "Y" => number(out, year % 10, 1),
            "IYYY" => number(out, i64::from(at.iso_week().year()), 4),
            "IY" => number(out, i64::from(at.iso_week().year() % 100), 2),
            "MONTH" | "Month" | "month" => name(out, MONTHS[at.month0() as usize], pattern, NAME_WIDTH, fill),
            "MON" | "Mon" | "mon" => name(out, &MONTHS[at.month0() as usize][..3], pattern, 0, fill),
            "DAY" | "Day" | "day" => name(out, self.weekday(), pattern, NAME_WIDTH, fill),
            "DY" | "Dy" | "dy" => name(out, &self.weekday()[..3], pattern, 0, fill),
            "MM" => number(out, at.month().into(), 2),
            "MI" => number(out, at.minute().into(), 2),
            "MS" => number(out, i64::from(at.nanosecond() / 1_000_000), 3),
            "US" => number(out, i64::from(at.nanosecond() / 1_000), 6),
            "DDD" => number(out, at.ordinal().into(), 3),
            "DD" => number(out, at.day().into(), 2),
            "D" => number(out, i64::from(at.weekday().num_days_from_sunday()) + 1, 1),
            "ID" => number(out, at.weekday().number_from_monday().into(), 1),
            "HH24" => number(out, at.hour().into(), 2),
            "HH12" | "HH" => number(out, hour12.into(), 2),
            "SSSS" => number(out, at.num_seconds_from_midnight().into(), 1),
            "SS" => number(out, at.second().into(), 2),
            "AM" | "PM" | "A.M." | "P.M." => {
                let half = match (at.hour() >= 12, pattern.contains('.')) {
                    (false, false) => "AM",
                    (true, false) => "PM",
                    (false, true) => "A.M.",
                    (true, true) => "P.M.",
                };
                let is_lower = written.starts_with(char::is_lowercase);
                out.push_str(&if is_lower { half.to_lowercase() } else { half.to_owned() });
            }
            "WW" => number(out, i64::from(at.ordinal0() / 7 + 1), 2),
            "IW" => number(out, at.iso_week().week().into(), 2),
            "Q" => number(out, i64::from(at.month0() / 3 + 1), 1),
            "J" => number(out, i64::from(at.num_days_from_ce()) + DAYS_BEFORE_CE, 1),
            _ => self.put_zone(out, written),
        }
    }

    fn weekday(&self) -> &'static str {
        DAYS[self.local.weekday().num_days_from_sunday() as usize]
    }

    fn put_zone(&self, out: &mut String, pattern: &str) {
        let Some(offset) = self.offset else { return };
        let (sign, minutes) = if offset < 0 { ('-', -offset / 60) } else { ('+', offset / 60) };
        let _ok = match pattern {
            "TZH" => write!(out, "{sign}{:02}", minutes / 60),
            "TZM" => write!(out, "{:02}", minutes % 60),
            _ if minutes % 60 == 0 => write!(out, "{sign}{:02}", minutes / 60),
            _ => write!(out, "{sign}{:02}:{:02}", minutes / 60, minutes % 60),
        };
    }
}

/// Julian days from 4714-11-24 BC to the end of 1 BC.
const DAYS_BEFORE_CE: i64 = 1_721_425;

/// The pattern `text` begins with, and how it is written there: but for names in either case.
fn pattern(text: &str) -> Option<(&'static str, &str)> {
    let begins = |pattern: &&str| text.get(..pattern.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(pattern));
    let exact = |pattern: &&str| text.starts_with(*pattern);
    let zones = ["TZH", "TZM", "OF"];
    let found =
        PATTERNS.iter().copied().chain(zones).filter(begins).max_by_key(|pattern| (pattern.len(), exact(pattern)));
    found.map(|found| (found, &text[..found.len()]))
}

fn name(out: &mut String, name: &str, pattern: &str, width: usize, fill: bool) {
    let cased = match pattern {
        upper if upper.chars().all(char::is_uppercase) => name.to_uppercase(),
        lower if lower.chars().all(char::is_lowercase) => name.to_lowercase(),
        _ => name.to_owned(),
    };
    let width = if fill { width } else { 0 };
    let _ok = write!(out, "{cased:width$}");
}
