//! The session's time zone: a name of the IANA database or a fixed offset.

use std::fmt;

use chrono::{LocalResult, NaiveDateTime, Offset, TimeZone};
use chrono_tz::{OffsetName, Tz};
use datafusion::config::ConfigOptions;

/// A time zone as `SET TimeZone` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// Seconds east of UTC, always the same.
    Fixed(i32),
    /// A zone of the IANA database.
    Named(Tz),
}

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Zone = Zone::Fixed(0);

    /// The zone of the session whose settings those are.
    pub(crate) fn of_session(config: &ConfigOptions) -> Zone {
        config.execution.time_zone.as_deref().and_then(Zone::parse).unwrap_or(Zone::UTC)
    }

    /// Reads what stands for the name of a zone: an offset counts hours west of UTC there, as POSIX has it, also behind letters that
    /// name it: `-05:30` and `UTC-05:30` are east.
    pub(crate) fn named(text: &str) -> Option<Zone> {
        let text = text.trim();
        let letters = text.bytes().take_while(u8::is_ascii_alphabetic).count();
        match text.get(letters..).and_then(|offset| parse_offset(offset.as_bytes())) {
            Some(seconds) if letters == 0 || letters > 2 => Some(Zone::Fixed(-seconds)),
            _ => Zone::parse(text),
        }
    }

    /// Reads a name (in any case) or an offset such as `+02`, `-05:30`, which counts hours east of UTC as those of times do.
    pub fn parse(text: &str) -> Option<Zone> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("utc") || text.eq_ignore_ascii_case("z") || text.eq_ignore_ascii_case("gmt") {
            return Some(Zone::UTC);
        }
        if let Some(seconds) = parse_offset(text.as_bytes()) {
            return Some(Zone::Fixed(seconds));
        }
        chrono_tz::TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(text)).copied().map(Zone::Named)
    }

    /// Seconds east of UTC at the instant `us` microseconds after 1970-01-01 UTC.
    pub fn offset_at(&self, us: i64) -> i32 {
        match self {
            Zone::Fixed(seconds) => *seconds,
            Zone::Named(zone) => match chrono::DateTime::from_timestamp_micros(us) {
                Some(instant) => zone.offset_from_utc_datetime(&instant.naive_utc()).fix().local_minus_utc(),
                None => 0,
            },
        }
    }

    /// What the zone is called at the instant `us` microseconds after 1970-01-01 UTC: `CET`, `EDT`, `UTC`, or an offset where there is no
    /// such name.
    pub(crate) fn abbreviation_at(&self, us: i64) -> String {
        let colon = match (self, chrono::DateTime::from_timestamp_micros(us)) {
            (Zone::Fixed(0), _) => return "UTC".to_owned(),
            (Zone::Fixed(_), _) => ":",
            (Zone::Named(zone), instant) => {
                let offset = instant.map(|instant| zone.offset_from_utc_datetime(&instant.naive_utc()));
                if let Some(name) = offset.as_ref().and_then(OffsetName::abbreviation) {
                    return name.to_owned();
                }
                ""
            }
        };
        let offset = self.offset_at(us);
        let (sign, minutes) = if offset < 0 { ('-', -offset / 60) } else { ('+', offset / 60) };
        match minutes % 60 {
            0 => format!("{sign}{:02}", minutes / 60),
            rest => format!("{sign}{:02}{colon}{rest:02}", minutes / 60),
        }
    }

    /// The instant at which clocks of the zone show `local_us` (microseconds since 1970-01-01 on the clock). A time that a
    /// change of the clocks left out is read with the offset before it, one that comes twice as the second, as PostgreSQL does.
    pub fn to_utc(&self, local_us: i64) -> Option<i64> {
        let seconds = match self {
            Zone::Fixed(seconds) => *seconds,
            Zone::Named(zone) => {
                let local: NaiveDateTime = chrono::DateTime::from_timestamp_micros(local_us)?.naive_utc();
                match zone.offset_from_local_datetime(&local) {
                    LocalResult::Single(offset) | LocalResult::Ambiguous(_, offset) => offset.fix().local_minus_utc(),
                    LocalResult::None => self.offset_at(local_us.checked_sub(86_400_000_000)?),
                }
            }
        };
        local_us.checked_sub(i64::from(seconds) * 1_000_000)
    }
}

/// As Arrow names zones: `America/New_York`, `+05:30`.
impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Zone::Fixed(0) => f.write_str("UTC"),
            Zone::Fixed(seconds) => {
                let sign = if *seconds < 0 { '-' } else { '+' };
                let minutes = seconds.abs() / 60;
                write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
            }
            Zone::Named(zone) => f.write_str(zone.name()),
        }
    }
}

/// Reads `+hh`, `+hhmm`, `+hh:mm` or `+hh:mm:ss`, with either sign, as seconds.
pub(super) fn parse_offset(text: &[u8]) -> Option<i32> {
    let (sign, digits) = match text {
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let two = |at: usize| -> Option<i32> {
        let pair = digits.get(at..at + 2)?;
        pair.iter().all(u8::is_ascii_digit).then(|| i32::from(pair[0] - b'0') * 10 + i32::from(pair[1] - b'0'))
    };
    let (hours, minutes, seconds) = match digits.len() {
        1 if digits[0].is_ascii_digit() => (i32::from(digits[0] - b'0'), 0, 0),
        2 => (two(0)?, 0, 0),
        4 if digits[1] == b':' && digits[0].is_ascii_digit() => (i32::from(digits[0] - b'0'), two(2)?, 0),
        4 => (two(0)?, two(2)?, 0),
        5 if digits[2] == b':' => (two(0)?, two(3)?, 0),
        8 if digits[2] == b':' && digits[5] == b':' => (two(0)?, two(3)?, two(6)?),
        _ => return None,
    };
    let valid = hours <= 15 && minutes < 60 && seconds < 60;
    valid.then_some(sign * (hours * 3600 + minutes * 60 + seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_change() {
        let new_york = Zone::parse("america/new_york").expect("a known zone");
        // 2013-07-01 00:00 is EDT, 2013-01-01 00:00 is EST.
        assert_eq!(new_york.to_utc(1_372_636_800_000_000), Some(1_372_651_200_000_000));
        assert_eq!(new_york.to_utc(1_356_998_400_000_000), Some(1_357_016_400_000_000));
        // 2013-03-10 02:30 does not exist: read with the offset before, EST.
        assert_eq!(new_york.to_utc(1_362_882_600_000_000), Some(1_362_900_600_000_000));
    }

    #[test]
    fn offsets_as_names_count_west() {
        for (text, east) in
            [("+05:30", -19_800), ("-02", 7_200), ("UTC-3", 10_800), ("gmt+05:30", -19_800), ("UTC-5:30", 19_800)]
        {
            assert_eq!(Zone::named(text), Some(Zone::Fixed(east)), "{text}");
        }
        assert_eq!(Zone::parse("+05:30"), Some(Zone::Fixed(19_800)));
        assert_eq!(Zone::named("Etc/GMT+5").map(|zone| zone.offset_at(0)), Some(-18_000));
        assert_eq!(Zone::named("A+5"), None);
    }

    #[test]
    fn abbreviations() {
        let berlin = Zone::parse("Europe/Berlin").expect("a known zone");
        assert_eq!(berlin.abbreviation_at(1_356_998_400_000_000), "CET");
        assert_eq!(berlin.abbreviation_at(1_372_636_800_000_000), "CEST");
        assert_eq!(Zone::UTC.abbreviation_at(0), "UTC");
        assert_eq!(
            Zone::parse("Asia/Kathmandu").map(|zone| zone.abbreviation_at(1_372_636_800_000_000)).as_deref(),
            Some("+0545")
        );
        assert_eq!(Zone::Fixed(-19_800).abbreviation_at(0), "-05:30");
        assert_eq!(Zone::Fixed(7_200).abbreviation_at(0), "+02");
    }

    #[test]
    fn offsets() {
        assert_eq!(Zone::parse("+02"), Some(Zone::Fixed(7200)));
        assert_eq!(Zone::parse("-05:30"), Some(Zone::Fixed(-19800)));
        assert_eq!(Zone::parse("+0530"), Some(Zone::Fixed(19800)));
        assert_eq!(Zone::parse("Mars/Olympus"), None);
        for name in ["UTC", "+02:00", "-05:30", "Europe/Berlin"] {
            assert_eq!(Zone::parse(name).map(|zone| zone.to_string()).as_deref(), Some(name));
        }
    }
}
