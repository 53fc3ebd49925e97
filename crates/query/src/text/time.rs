//! Dates and timestamps in ISO form, as PostgreSQL reads them.

use super::zone::{Zone, parse_offset};
use super::{Refused, refused};
use crate::error::Condition;

/// A second and a day, in microseconds.
pub(crate) const US_PER_SECOND: i64 = 1_000_000;
pub(crate) const DAY_US: i64 = 86_400 * US_PER_SECOND;
/// The last year PostgreSQL keeps in a timestamp.
const YEAR_MAX: i64 = 294_276;

/// Reads a date as days since 1970-01-01; a time after it is checked and left out.
///
/// # Errors
/// 22007 for text that is no date, 22008 for one out of range.
pub fn parse_date(text: &str) -> Result<i32, Refused> {
    let parsed = parse(text, "date")?;
    i32::try_from(parsed.days).map_err(|_| out_of_range(text))
}

/// Reads a timestamp without zone as microseconds since 1970-01-01; a zone in the text is checked and ignored, as
/// PostgreSQL does.
///
/// # Errors
/// 22007 for text that is no timestamp, 22008 for one out of range.
pub fn parse_timestamp(text: &str) -> Result<i64, Refused> {
    let parsed = parse(text, "timestamp")?;
    parsed.local_us().ok_or_else(|| out_of_range(text))
}

/// Reads a timestamp as microseconds since 1970-01-01 UTC; without a zone in the text it is one of `zone`.
///
/// # Errors
/// 22007 for text that is no timestamp, 22008 for one out of range.
pub fn parse_timestamptz(text: &str, zone: &Zone) -> Result<i64, Refused> {
    let parsed = parse(text, "timestamp with time zone")?;
    let local = parsed.local_us();
    local.and_then(|local| parsed.zone.as_ref().unwrap_or(zone).to_utc(local)).ok_or_else(|| out_of_range(text))
}

/// Reads a time of day as microseconds since midnight; 24:00:00 is the end of the day.
///
/// # Errors
/// 22007 for text that is no time, 22008 for one out of range.
pub fn parse_time(text: &str) -> Result<i64, Refused> {
    let no = || invalid("time", text);
    let trimmed = text.trim().to_ascii_lowercase();
    let (time, half) = match (trimmed.strip_suffix("am"), trimmed.strip_suffix("pm")) {
        (Some(time), _) => (time.trim_end(), Some(0)),
        (_, Some(time)) => (time.trim_end(), Some(DAY_US / 2)),
        _ => (trimmed.as_str(), None),
    };
    let mut at = 0;
    let us = clock(time.as_bytes(), &mut at).ok_or_else(no)?.ok_or_else(|| out_of_range(text))?;
    if at < time.len() {
        return Err(no());
    }
    match half {
        // 12 o'clock begins a half of the day.
        Some(half) if us < DAY_US / 2 + DAY_US / 24 => Ok(us % (DAY_US / 2) + half),
        Some(_) => Err(out_of_range(text)),
        None => Some(us).filter(|us| *us <= DAY_US).ok_or_else(|| out_of_range(text)),
    }
}

struct Parsed {
    days: i64,
    time_us: i64,
    zone: Option<Zone>,
}

impl Parsed {
    fn local_us(&self) -> Option<i64> {
        self.days.checked_mul(DAY_US)?.checked_add(self.time_us)
    }
}

fn invalid(type_name: &str, text: &str) -> Refused {
    refused(Condition::InvalidDatetimeFormat, format!("invalid input syntax for type {type_name}: \"{text}\""))
}

fn out_of_range(text: &str) -> Refused {
    refused(Condition::DatetimeOverflow, format!("date/time field value out of range: \"{text}\""))
}

/// `YYYY-MM-DD[( |T)HH:MM[:SS[.ffffff]]][ ][zone]`
fn parse(text: &str, type_name: &str) -> Result<Parsed, Refused> {
    let no = || invalid(type_name, text);
    let trimmed = text.trim();
    if trimmed.eq_ignore_ascii_case("epoch") {
        return Ok(Parsed { days: 0, time_us: 0, zone: Some(Zone::UTC) });
    }
    if matches!(trimmed.to_ascii_lowercase().as_str(), "infinity" | "-infinity" | "+infinity") {
        return Err(refused(
            Condition::FeatureNotSupported,
            format!("infinite values of type {type_name} are not supported"),
        ));
    }
    let bytes = trimmed.as_bytes();
    let mut at = 0;
    let year = digits(bytes, &mut at, 4, 6).ok_or_else(no)?;
    expect(bytes, &mut at, b"-").ok_or_else(no)?;
    let month = digits(bytes, &mut at, 1, 2).ok_or_else(no)?;
    expect(bytes, &mut at, b"-").ok_or_else(no)?;
    let day = digits(bytes, &mut at, 1, 2).ok_or_else(no)?;
    let days = days_of(year, month, day).ok_or_else(|| out_of_range(text))?;
    let time_us = match bytes.get(at) {
        Some(b' ' | b'T' | b't') if bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => {
            at += 1;
            clock(bytes, &mut at).ok_or_else(no)?.ok_or_else(|| out_of_range(text))?
        }
        _ => 0,
    };
    let rest = trimmed[at..].trim_start();
    let zone = match rest {
        "" => None,
        _ => Some(named_zone(rest).ok_or_else(no)?),
    };
    Ok(Parsed { days, time_us, zone })
}

fn named_zone(text: &str) -> Option<Zone> {
    match parse_offset(text.as_bytes()) {
        Some(seconds) => Some(Zone::Fixed(seconds)),
        None => Zone::parse(text),
    }
}

/// `HH:MM[:SS[.ffffff]]`; the outer `None` when it is none, the inner when a field is out of range.
fn clock(bytes: &[u8], at: &mut usize) -> Option<Option<i64>> {
    let hour = digits(bytes, at, 1, 2)?;
    expect(bytes, at, b":")?;
    let minute = digits(bytes, at, 2, 2)?;
    let mut second = 0;
    let mut fraction_us = 0;
    if bytes.get(*at) == Some(&b':') {
        *at += 1;
        second = digits(bytes, at, 2, 2)?;
        if matches!(bytes.get(*at), Some(b'.' | b',')) {
            *at += 1;
            fraction_us = fraction(bytes, at);
        }
    }
    // 24:00:00 is the end of the day and 60 seconds a leap second: both carry over.
    let valid =
        (hour < 24 || (hour == 24 && minute == 0 && second == 0 && fraction_us == 0)) && minute < 60 && second <= 60;
    Some(valid.then(|| ((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction_us))
}

/// Digits after the point as microseconds, rounded.
fn fraction(bytes: &[u8], at: &mut usize) -> i64 {
    let mut us = 0;
    let mut place = 100_000;
    while let Some(digit) = bytes.get(*at).filter(|byte| byte.is_ascii_digit()) {
        let digit = i64::from(digit - b'0');
        if place > 0 {
            us += digit * place;
            place /= 10;
            if place == 0 {
                place = -1;
            }
        } else if place == -1 {
            us += i64::from(digit >= 5);
            place = -2;
        }
        *at += 1;
    }
    us
}

fn digits(bytes: &[u8], at: &mut usize, least: usize, most: usize) -> Option<i64> {
    let start = *at;
    let mut value = 0;
    while *at - start < most {
        let Some(digit) = bytes.get(*at).filter(|byte| byte.is_ascii_digit()) else { break };
        value = value * 10 + i64::from(digit - b'0');
        *at += 1;
    }
    (*at - start >= least).then_some(value)
}

fn expect(bytes: &[u8], at: &mut usize, any_of: &[u8]) -> Option<()> {
    let found = bytes.get(*at).is_some_and(|byte| any_of.contains(byte));
    *at += usize::from(found);
    found.then_some(())
}

/// Days since 1970-01-01 of a day of the Gregorian calendar, `None` when there is no such day.
fn days_of(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=YEAR_MAX).contains(&year) || !(1..=length).contains(&day) {
        return None;
    }
    // Counts from March, so that the leap day comes last: Howard Hinnant's days_from_civil.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn us(text: &str) -> Result<i64, (Condition, String)> {
        parse_timestamptz(text, &Zone::UTC).map_err(|report| (report.condition, report.message))
    }

    #[test]
    fn forms() {
        let same = 1_357_017_300_123_457;
        for text in [
            "2013-01-01 05:15:00.123457",
            "2013-01-01T05:15:00.1234567Z",
            " 2013-01-01 05:15:00.123457+00 ",
            "2013-01-01 07:15:00.123457+02",
            "2013-01-01 00:15:00.123457-05:00",
            "2013-01-01 00:15:00.123457 America/New_York",
        ] {
            assert_eq!(us(text), Ok(same), "{text}");
        }
        assert_eq!(us("2013-01-01"), Ok(1_356_998_400_000_000));
        assert_eq!(us("2012-12-31 24:00"), Ok(1_356_998_400_000_000));
        assert_eq!(parse_date("1969-12-31").ok(), Some(-1));
        assert_eq!(parse_date("2000-02-29").ok(), Some(11_016));
    }

    #[test]
    fn refusals() {
        let condition = |text| us(text).map_err(|(condition, _)| condition);
        assert_eq!(condition("2013-13-01"), Err(Condition::DatetimeOverflow));
        assert_eq!(condition("2013-02-29"), Err(Condition::DatetimeOverflow));
        assert_eq!(condition("2013-02-28 25:00"), Err(Condition::DatetimeOverflow));
        assert_eq!(condition("294277-01-01"), Err(Condition::DatetimeOverflow));
        assert_eq!(condition("x"), Err(Condition::InvalidDatetimeFormat));
        assert_eq!(condition(""), Err(Condition::InvalidDatetimeFormat));
        assert_eq!(condition("2013-01-01 05:15 Mars"), Err(Condition::InvalidDatetimeFormat));
        assert_eq!(
            us("soon").map_err(|(_, message)| message),
            Err("invalid input syntax for type timestamp with time zone: \"soon\"".to_string())
        );
    }

    proptest! {
        #[test]
        fn agrees_with_chrono(us in -62_135_596_800_000_000i64..253_402_300_800_000_000) {
            let text = chrono::DateTime::from_timestamp_micros(us).expect("in range").to_rfc3339();
            prop_assert_eq!(parse_timestamptz(&text, &Zone::UTC).ok(), Some(us));
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = parse_timestamptz(&text, &Zone::UTC);
        }

        #[test]
        fn never_panics_on_near_misses(text in "[0-9: T.+-]{0,30}") {
            let _ = parse_timestamptz(&text, &Zone::UTC);
        }
    }
}
