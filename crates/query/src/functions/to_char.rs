//! `to_char(time, format)`: PostgreSQL's patterns, where the library's function takes those of C. Numbers are in
//! [`super::number_format`], intervals in [`super::interval_format`].

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, AsArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};
use datafusion::common::utils::take_function_args;
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::{interval_format, number_format};
use crate::error::{Condition, Error};
use crate::text::Zone;

const US_PER_SECOND: i64 = 1_000_000;
/// Months and days are padded to the longest of their names.
const NAME_WIDTH: usize = 9;
pub(super) const MONTHS: [&str; 12] = [
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
pub(super) const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

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
            DataType::Interval(_) => Ok(DataType::Utf8),
            ref number if number_format::is_number(number) => Ok(DataType::Utf8),
            ref other => {
                let message = format!("to_char of {} is not supported", kind(other));
                Err(refusal(
                    message,
                    "to_char takes a date, a timestamp, an interval or a number. Cast to text, or format in the client.",
                ))
            }
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let zone = Zone::of_session(&arguments.config_options);
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let [times, formats] = take_function_args(self.name(), arrays)?;
        if number_format::is_number(times.data_type()) {
            return Ok(ColumnarValue::Array(number_format::format_all(&times, &formats)?));
        }
        if matches!(times.data_type(), DataType::Interval(_)) {
            let intervals = cast(&times, &DataType::Interval(IntervalUnit::MonthDayNano))?;
            let formats = cast(&formats, &DataType::Utf8)?;
            return Ok(ColumnarValue::Array(interval_format::format_all(&intervals, formats.as_string::<i32>())?));
        }
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
            let moment = Moment { local: local.naive_utc(), offset, zone: zone.map(|zone| (zone, us)) };
            texts.append_value(moment.format(formats.value(row))?);
        }
        Ok(ColumnarValue::Array(Arc::new(texts.finish())))
    }
}

/// What clocks show, how far from UTC they are, and in which zone at which instant.
struct Moment {
    local: NaiveDateTime,
    offset: Option<i32>,
    zone: Option<(Zone, i64)>,
}

/// What a format may name, in either case; the names of months and days in three.
const PATTERNS: [&str; 65] = [
    "YYYY", "YYY", "YY", "Y,YYY", "Y", "IYYY", "IYY", "IY", "I", "CC", "AD", "BC", "A.D.", "B.C.", "MONTH", "Month",
    "month", "MON", "Mon", "mon", "MM", "RM", "MI", "MS", "DAY", "Day", "day", "DDD", "DD", "DY", "Dy", "dy", "D",
    "IDDD", "ID", "HH24", "HH12", "HH", "SSSSS", "SSSS", "SS", "US", "FF1", "FF2", "FF3", "FF4", "FF5", "FF6", "A.M.",
    "P.M.", "AM", "PM", "WW", "W", "IW", "Q", "J", "TZH", "TZM", "TZ", "OF", "FM", "FX", "TM", "SP",
];
pub(super) const ROMAN_MONTHS: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];
/// Roman months are padded to the longest of them.
pub(super) const ROMAN_WIDTH: usize = 4;

/// Patterns become what `put` writes for them, text in double quotes what is in them, all else itself. `put` is given the pattern, how it is
/// written, and whether it is filled up.
pub(super) fn formatted(
    format: &str,
    put: impl Fn(&mut String, &'static str, &str, bool) -> Result<()>,
) -> Result<String> {
    let mut out = String::new();
    let mut rest = format;
    let mut fill = true;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            let quoted = &rest[1..];
            let end = quoted.find('"').unwrap_or(quoted.len());
            out.push_str(&quoted[..end]);
            rest = quoted.get(end + 1..).unwrap_or("");
            continue;
        }
        let Some((pattern, written)) = pattern(rest) else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        rest = &rest[written.len()..];
        if matches!(pattern, "FM" | "TM" | "FX") {
            fill &= pattern == "FX";
            continue;
        }
        let begin = out.len();
        put(&mut out, pattern, written, fill)?;
        fill = true;
        if let Some(suffix @ ("TH" | "th")) = rest.get(..2)
            && out[begin..].ends_with(|last: char| last.is_ascii_digit())
        {
            let ending = ordinal_ending(&out[begin..]);
            out.push_str(&if suffix == "TH" { ending.to_uppercase() } else { ending.to_owned() });
            rest = &rest[2..];
        }
    }
    Ok(out)
}

impl Moment {
    fn format(&self, format: &str) -> Result<String> {
        formatted(format, |out, pattern, written, fill| self.put(out, pattern, written, fill))
    }

    fn put(&self, out: &mut String, pattern: &str, written: &str, fill: bool) -> Result<()> {
        let at = &self.local;
        let hour12 = (at.hour() + 11) % 12 + 1;
        let number = |out: &mut String, value: i64, width: usize| {
            // Writing to a String cannot fail.
            let _ok = if fill { write!(out, "{value:0width$}") } else { write!(out, "{value}") };
        };
        let cased = |text: &str| cased(text, written);
        let year = i64::from(at.year());
        let iso_year = i64::from(at.iso_week().year());
        let us = at.nanosecond() / 1_000;
        match pattern {
            "YYYY" => number(out, year, 4),
            "YYY" => number(out, year % 1000, 3),
            "YY" => number(out, year % 100, 2),
            "Y,YYY" => {
                let _ok = write!(out, "{},{:03}", year / 1000, year % 1000);
            }
            "Y" => number(out, year % 10, 1),
            "IYYY" => number(out, iso_year, 4),
            "IYY" => number(out, iso_year % 1000, 3),
            "IY" => number(out, iso_year % 100, 2),
            "I" => number(out, iso_year % 10, 1),
            "CC" => number(out, (year + 99) / 100, 2),
            "AD" | "BC" => out.push_str(&cased(if year > 0 { "AD" } else { "BC" })),
            "A.D." | "B.C." => out.push_str(&cased(if year > 0 { "A.D." } else { "B.C." })),
            "MONTH" | "Month" | "month" => name(out, MONTHS[at.month0() as usize], pattern, NAME_WIDTH, fill),
            "MON" | "Mon" | "mon" => name(out, &MONTHS[at.month0() as usize][..3], pattern, 0, fill),
            "DAY" | "Day" | "day" => name(out, self.weekday(), pattern, NAME_WIDTH, fill),
            "DY" | "Dy" | "dy" => name(out, &self.weekday()[..3], pattern, 0, fill),
            "MM" => number(out, at.month().into(), 2),
            "RM" => name(out, &cased(ROMAN_MONTHS[at.month0() as usize]), written, ROMAN_WIDTH, fill),
            "MI" => number(out, at.minute().into(), 2),
            "MS" => number(out, i64::from(us / 1_000), 3),
            "US" => number(out, us.into(), 6),
            "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => {
                let digits = usize::from(pattern.as_bytes()[2] - b'0');
                out.push_str(&format!("{us:06}")[..digits]);
            }
            "DDD" => number(out, at.ordinal().into(), 3),
            "IDDD" => {
                let day = (at.iso_week().week() - 1) * 7 + at.weekday().number_from_monday();
                number(out, day.into(), 3);
            }
            "DD" => number(out, at.day().into(), 2),
            "D" => number(out, i64::from(at.weekday().num_days_from_sunday()) + 1, 1),
            "ID" => number(out, at.weekday().number_from_monday().into(), 1),
            "HH24" => number(out, at.hour().into(), 2),
            "HH12" | "HH" => number(out, hour12.into(), 2),
            "SSSS" | "SSSSS" => number(out, at.num_seconds_from_midnight().into(), 1),
            "SS" => number(out, at.second().into(), 2),
            "AM" | "PM" => out.push_str(&cased(if at.hour() < 12 { "AM" } else { "PM" })),
            "A.M." | "P.M." => out.push_str(&cased(if at.hour() < 12 { "A.M." } else { "P.M." })),
            "WW" => number(out, i64::from(at.ordinal0() / 7 + 1), 2),
            "W" => number(out, i64::from(at.day0() / 7 + 1), 1),
            "IW" => number(out, at.iso_week().week().into(), 2),
            "Q" => number(out, i64::from(at.month0() / 3 + 1), 1),
            "J" => number(out, i64::from(at.num_days_from_ce()) + DAYS_BEFORE_CE, 1),
            "TZH" | "TZM" | "OF" => self.put_offset(out, pattern),
            "TZ" => out.push_str(&cased(&self.zone.map_or_else(String::new, |(zone, us)| zone.abbreviation_at(us)))),
            other => {
                let message = format!("to_char does not support the pattern \"{other}\"");
                return Err(refusal(message, "Offsets are written by OF, TZH and TZM."));
            }
        }
        Ok(())
    }

    fn weekday(&self) -> &'static str {
        DAYS[self.local.weekday().num_days_from_sunday() as usize]
    }

    fn put_offset(&self, out: &mut String, pattern: &str) {
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
pub(super) fn pattern(text: &str) -> Option<(&'static str, &str)> {
    let begins = |pattern: &&str| text.get(..pattern.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(pattern));
    let exact = |pattern: &&str| text.starts_with(*pattern);
    let found = PATTERNS.iter().copied().filter(begins).max_by_key(|pattern| (pattern.len(), exact(pattern)));
    found.map(|found| (found, &text[..found.len()]))
}

/// A text in the letters in which its pattern is written.
pub(super) fn cased(text: &str, written: &str) -> String {
    if written.starts_with(char::is_lowercase) { text.to_lowercase() } else { text.to_owned() }
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

/// What follows a number that counts: 1st, 2nd, 3rd, 4th, 11th.
fn ordinal_ending(digits: &str) -> &'static str {
    let tens = digits.len().checked_sub(2).map(|at| digits.as_bytes()[at]);
    match digits.as_bytes().last() {
        _ if tens == Some(b'1') => "th",
        Some(b'1') => "st",
        Some(b'2') => "nd",
        Some(b'3') => "rd",
        _ => "th",
    }
}

fn kind(data_type: &DataType) -> &'static str {
    match data_type {
        numbers if numbers.is_numeric() => "numbers",
        _ => "such values",
    }
}

fn refusal(message: String, hint: &str) -> DataFusionError {
    DataFusionError::External(Box::new(Error::hinted(Condition::FeatureNotSupported, message, hint)))
}
