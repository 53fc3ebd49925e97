//! Intervals in PostgreSQL's text forms.

use arrow::datatypes::IntervalMonthDayNano;

use super::{Refused, invalid, refused};
use crate::error::Condition;

const NS_PER_US: i128 = 1000;
const US_PER_SECOND: i128 = 1_000_000;
const US_PER_DAY: i128 = 86_400 * US_PER_SECOND;
const DAYS_PER_MONTH: i128 = 30;
/// Fractions of a unit are kept to this part of it.
const FRACTION: i128 = 1_000_000_000_000;

/// What has been read so far.
#[derive(Default)]
struct Parts {
    months: i128,
    days: i128,
    us: i128,
}

/// A unit, in the part it counts for.
#[derive(Clone, Copy)]
enum Unit {
    Months(i128),
    Days(i128),
    Us(i128),
}

/// Reads `1 day 02:03:04`, `-1 year 2 mons`, `P1DT2H`, `1-2`, `3 hours ago`; a number without a unit is of seconds.
///
/// # Errors
/// 22007 for text that is none, 22008 beyond what an interval holds.
pub fn parse_interval(text: &str) -> Result<IntervalMonthDayNano, Refused> {
    let parts = match text.trim().strip_prefix(['P', 'p']) {
        Some(iso) => iso_8601(iso),
        None => words(text),
    };
    let invalid = || refused(Condition::InvalidDatetimeFormat, invalid("interval", text).message);
    let Parts { months, days, us } = parts.ok_or_else(invalid)?;
    let beyond = || refused(Condition::DatetimeOverflow, format!("interval field value out of range: \"{text}\""));
    let months = i32::try_from(months).map_err(|_| beyond())?;
    let days = i32::try_from(days).map_err(|_| beyond())?;
    let nanoseconds = i64::try_from(us * NS_PER_US).map_err(|_| beyond())?;
    Ok(IntervalMonthDayNano::new(months, days, nanoseconds))
}

impl Parts {
    /// Adds a number, as parts of [`FRACTION`], of a unit; what is left of months becomes days, and of days time.
    fn add(&mut self, number: i128, unit: Unit) -> Option<()> {
        match unit {
            Unit::Months(width) => {
                let months = number.checked_mul(width)?;
                self.months = self.months.checked_add(months / FRACTION)?;
                match width {
                    1 => self.add(months % FRACTION, Unit::Days(DAYS_PER_MONTH)),
                    // A part of a year is whole months.
                    _ => {
                        self.months = self.months.checked_add(rounded(months % FRACTION))?;
                        Some(())
                    }
                }
            }
            Unit::Days(width) => {
                let days = number.checked_mul(width)?;
                self.days = self.days.checked_add(days / FRACTION)?;
                self.add(days % FRACTION, Unit::Us(US_PER_DAY))
            }
            Unit::Us(width) => {
                self.us = self.us.checked_add(rounded(number.checked_mul(width)?))?;
                Some(())
            }
        }
    }
}

/// The nearest whole number.
fn rounded(number: i128) -> i128 {
    (number + number.signum() * FRACTION / 2) / FRACTION
}

/// Words: numbers with units, a time, years and months.
fn words(text: &str) -> Option<Parts> {
    let mut parts = Parts::default();
    let spaced = spaced(text.trim().trim_start_matches('@'));
    let mut words = spaced.split_whitespace().peekable();
    let mut any = false;
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case("ago") && any && words.peek().is_none() {
            let Parts { months, days, us } = parts;
            return Some(Parts { months: -months, days: -days, us: -us });
        }
        any = true;
        if word.contains(':') {
            parts.us = parts.us.checked_add(clock(word)?)?;
            continue;
        }
        if let Some((years, months)) = word.trim_start_matches(['-', '+']).split_once('-') {
            let sign = if word.starts_with('-') { -1 } else { 1 };
            let (years, months) =
                (years.parse::<i32>().ok()?, months.parse::<u8>().ok().filter(|months| *months < 12)?);
            parts.months = parts.months.checked_add(sign * (i128::from(years) * 12 + i128::from(months)))?;
            continue;
        }
        let number = number(word)?;
        match words.peek().copied() {
            None => parts.add(number, Unit::Us(US_PER_SECOND))?,
            // `3 04:05:06`
            Some(next) if next.contains(':') => parts.add(number, Unit::Days(1))?,
            Some(next) => {
                parts.add(number, unit(next)?)?;
                words.next();
            }
        }
    }
    any.then_some(parts)
}

/// `1day2h` as `1 day 2 h`.
fn spaced(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut before: Option<char> = None;
    for c in text.chars() {
        let between = before.is_some_and(|b| {
            (b.is_ascii_digit() || b == '.') && c.is_ascii_alphabetic()
                || b.is_ascii_alphabetic() && !c.is_ascii_alphabetic()
        });
        if between {
            out.push(' ');
        }
        out.push(c);
        before = Some(c);
    }
    out
}

/// A decimal number, in parts of [`FRACTION`].
fn number(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(whole) || !are_digits(fraction) || whole.len() + fraction.len() == 0 || whole.len() > 15 {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: i128 = format!("{fraction:0<12.12}").parse().ok()?;
    Some(sign * (whole * FRACTION + fraction))
}

/// `[-]h:mm[:ss[.f]]` in microseconds.
fn clock(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut fields = digits.split(':');
    let (hours, minutes, seconds) = (fields.next()?, fields.next()?, fields.next().unwrap_or("0"));
    if fields.next().is_some() || seconds.starts_with(['-', '+']) {
        return None;
    }
    let hours: u32 = hours.parse().ok()?;
    let minutes: u8 = minutes.parse().ok().filter(|minutes| *minutes < 60)?;
    let seconds = number(seconds).filter(|seconds| *seconds < 60 * FRACTION)?;
    let whole = (i128::from(hours) * 60 + i128::from(minutes)) * 60 * US_PER_SECOND;
    Some(sign * (whole + rounded(seconds * US_PER_SECOND)))
}

fn unit(word: &str) -> Option<Unit> {
    let hour = 3600 * US_PER_SECOND;
    Some(match word.to_ascii_lowercase().trim_end_matches(',') {
        "millennium" | "millennia" | "mil" | "mils" => Unit::Months(12_000),
        "century" | "centuries" | "cent" | "c" => Unit::Months(1200),
        "decade" | "decades" | "dec" | "decs" => Unit::Months(120),
        "year" | "years" | "yr" | "yrs" | "y" => Unit::Months(12),
        "month" | "months" | "mon" | "mons" => Unit::Months(1),
        "week" | "weeks" | "w" => Unit::Days(7),
        "day" | "days" | "d" => Unit::Days(1),
        "hour" | "hours" | "hr" | "hrs" | "h" => Unit::Us(hour),
        "minute" | "minutes" | "min" | "mins" | "m" => Unit::Us(60 * US_PER_SECOND),
        "second" | "seconds" | "sec" | "secs" | "s" => Unit::Us(US_PER_SECOND),
        "millisecond" | "milliseconds" | "msec" | "msecs" | "ms" => Unit::Us(1000),
        "microsecond" | "microseconds" | "usec" | "usecs" | "us" => Unit::Us(1),
        _ => return None,
    })
}

/// What follows the P.
fn iso_8601(text: &str) -> Option<Parts> {
    let mut parts = Parts::default();
    let (mut in_time, mut any, mut rest) = (false, false, text.trim_end());
    while !rest.is_empty() {
        if let Some(time) = rest.strip_prefix(['T', 't']) {
            if std::mem::replace(&mut in_time, true) {
                return None;
            }
            rest = time;
            continue;
        }
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let (digits, named) = rest.split_at(end);
        let unit = match (named.as_bytes()[0].to_ascii_uppercase(), in_time) {
            (b'Y', false) => Unit::Months(12),
            (b'M', false) => Unit::Months(1),
            (b'W', false) => Unit::Days(7),
            (b'D', false) => Unit::Days(1),
            (b'H', true) => Unit::Us(3600 * US_PER_SECOND),
            (b'M', true) => Unit::Us(60 * US_PER_SECOND),
            (b'S', true) => Unit::Us(US_PER_SECOND),
            _ => return None,
        };
        parts.add(number(digits)?, unit)?;
        any = true;
        rest = &named[1..];
    }
    any.then_some(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::write;
    use super::*;

    fn read(text: &str) -> (i32, i32, i64) {
        let interval = parse_interval(text).unwrap_or_else(|refused| panic!("{text}: {refused:?}"));
        assert_eq!(interval.nanoseconds % 1000, 0, "{text}");
        (interval.months, interval.days, interval.nanoseconds / 1000)
    }

    /// Each as PostgreSQL 15 reads it.
    #[test]
    fn text_is_read_as_postgresql_reads_it() {
        let hour = 3_600_000_000;
        for (text, expected) in [
            ("1 day", (0, 1, 0)),
            ("1 year 2 mons -3 days 04:05:06.789", (14, -3, 14_706_789_000)),
            ("1-2", (14, 0, 0)),
            ("-1-2", (-14, 0, 0)),
            ("3 4:05:06", (0, 3, 14_706_000_000)),
            ("90", (0, 0, 90_000_000)),
            ("1.5", (0, 0, 1_500_000)),
            ("1.5 months", (1, 15, 0)),
            ("1.5 days", (0, 1, 12 * hour)),
            ("0.1 year", (1, 0, 0)),
            ("2 weeks ago", (0, -14, 0)),
            ("@ 1 hour 30 mins", (0, 0, hour + hour / 2)),
            ("1h30m", (0, 0, hour + hour / 2)),
            ("-00:00:01", (0, 0, -1_000_000)),
            ("P1Y2M3DT4H5M6S", (14, 3, 14_706_000_000)),
            ("PT36H", (0, 0, 36 * hour)),
            ("1 century", (1200, 0, 0)),
            ("250 ms 7 us", (0, 0, 250_007)),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        for text in [
            "",
            "  ",
            "day",
            "1 day day",
            "1 fortnight",
            "P",
            "PT",
            "P1H",
            "1:2:3:4",
            "1:60",
            "x",
            "ago",
            "1 ago 2",
            "--1 day",
        ] {
            let refused = parse_interval(text).unwrap_err();
            assert_eq!(refused.condition, Condition::InvalidDatetimeFormat, "{text}");
            assert_eq!(refused.message, format!("invalid input syntax for type interval: \"{text}\""));
        }
        for text in ["200000000 years", "3000000000 days", "300000000 hours"] {
            assert_eq!(parse_interval(text).unwrap_err().condition, Condition::DatetimeOverflow, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read(months: i32, days: i32, us in -9_000_000_000_000_000i64..9_000_000_000_000_000) {
            let mut text = String::new();
            write::interval(&mut text, months, days, us);
            prop_assert_eq!(read(&text), (months, days, us), "{}", text);
        }

        #[test]
        fn noise_is_refused_or_read(text in ".{0,40}") {
            let _ = parse_interval(&text);
        }
    }
}
