//! `to_char(interval, format)`: the fields of an interval, each with its own sign. What only a day of the calendar has is refused.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::datatypes::{IntervalMonthDayNano, IntervalMonthDayNanoType};
use datafusion::common::{DataFusionError, Result};

use super::to_char::{ROMAN_MONTHS, ROMAN_WIDTH, cased, formatted};
use crate::error::{Condition, Error};

const NS_PER_US: i64 = 1_000;
const US_PER_SECOND: i64 = 1_000_000;
const MONTHS_PER_YEAR: i64 = 12;
const DAYS_PER_MONTH: i64 = 30;

/// Formats each of `intervals` by the format beside it.
pub(super) fn format_all(intervals: &ArrayRef, formats: &StringArray) -> Result<ArrayRef> {
    let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
    let mut texts = StringBuilder::new();
    for row in 0..intervals.len() {
        if intervals.is_null(row) || formats.is_null(row) {
            texts.append_null();
            continue;
        }
        let fields = Fields::of(intervals.value(row));
        texts.append_value(formatted(formats.value(row), |out, pattern, written, fill| {
            fields.put(out, pattern, written, fill)
        })?);
    }
    Ok(std::sync::Arc::new(texts.finish()))
}

/// An interval in fields. Hours may be more than a day has.
struct Fields {
    years: i64,
    months: i64,
    days: i64,
    hours: i64,
    minutes: i64,
    seconds: i64,
    us: i64,
}

impl Fields {
    fn of(interval: IntervalMonthDayNano) -> Fields {
        let (months, us) = (i64::from(interval.months), interval.nanoseconds / NS_PER_US);
        let seconds = us / US_PER_SECOND;
        Fields {
            years: months / MONTHS_PER_YEAR,
            months: months % MONTHS_PER_YEAR,
            days: interval.days.into(),
            hours: seconds / 3600,
            minutes: seconds / 60 % 60,
            seconds: seconds % 60,
            us: us % US_PER_SECOND,
        }
    }

    /// Days, as if months had thirty.
    fn all_days(&self) -> i64 {
        (self.years * MONTHS_PER_YEAR + self.months) * DAYS_PER_MONTH + self.days
    }

    fn put(&self, out: &mut String, pattern: &str, written: &str, fill: bool) -> Result<()> {
        let padded = |out: &mut String, value: i64, width: usize| {
            let width = if fill { width } else { 0 };
            // Writing to a String cannot fail.
            let _ok = write!(out, "{value:0width$}");
        };
        // A sign is a place more, but for days and fractions.
        let number = |out: &mut String, value: i64, width: usize| padded(out, value, width + usize::from(value < 0));
        let hour_of_half = |hours: i64| if hours % 12 == 0 { 12 } else { hours % 12 };
        let is_afternoon = self.hours % 24 >= 12;
        match pattern {
            "YYYY" => number(out, self.years, 4),
            "YYY" => number(out, self.years % 1000, 3),
            "YY" => number(out, self.years % 100, 2),
            "Y" => number(out, self.years % 10, 1),
            "Y,YYY" => {
                let _ok = write!(out, "{},{:03}", self.years / 1000, self.years % 1000);
            }
            "CC" => number(out, self.years / 100, 2),
            "MM" => number(out, self.months, 2),
            "Q" if self.months == 0 => {}
            "Q" => padded(out, (self.months - 1) / 3 + 1, 1),
            "RM" => self.put_roman(out, written, fill),
            "DDD" => padded(out, self.all_days(), 3),
            "DD" => padded(out, self.days, 2),
            "WW" => padded(out, (self.all_days() - 1) / 7 + 1, 2),
            "W" => padded(out, (self.days - 1) / 7 + 1, 1),
            "HH24" => number(out, self.hours, 2),
            "HH12" | "HH" => number(out, hour_of_half(self.hours), 2),
            "MI" => number(out, self.minutes, 2),
            "SS" => number(out, self.seconds, 2),
            "SSSS" | "SSSSS" => padded(out, self.hours * 3600 + self.minutes * 60 + self.seconds, 1),
            "MS" => padded(out, self.us / 1_000, 3),
            "US" => padded(out, self.us, 6),
            "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => {
                let digits = u32::from(pattern.as_bytes()[2] - b'0');
                padded(out, self.us / 10_i64.pow(6 - digits), digits as usize);
            }
            "AM" | "PM" => out.push_str(&cased(if is_afternoon { "PM" } else { "AM" }, written)),
            "A.M." | "P.M." => out.push_str(&cased(if is_afternoon { "P.M." } else { "A.M." }, written)),
            "J" | "IYYY" | "IYY" | "IY" | "I" | "IW" | "SP" => {
                let message = format!("to_char does not support the pattern \"{pattern}\" of intervals");
                return Err(refused(Condition::FeatureNotSupported, &message, "Format the interval in the client."));
            }
            _ => {
                let message = "invalid format specification for an interval value";
                let hint = "Intervals are not tied to specific calendar dates.";
                return Err(refused(Condition::InvalidDatetimeFormat, message, hint));
            }
        }
        Ok(())
    }

    /// Months that go back are counted from December.
    fn put_roman(&self, out: &mut String, written: &str, fill: bool) {
        let month = match (self.months, self.years) {
            (0, 0) => return,
            (0, years) => {
                if years > 0 {
                    12
                } else {
                    1
                }
            }
            (months, _) if months < 0 => months + 13,
            (months, _) => months,
        };
        let width = if fill { ROMAN_WIDTH } else { 0 };
        let name = usize::try_from(month - 1).ok().and_then(|at| ROMAN_MONTHS.get(at)).copied().unwrap_or_default();
        let _ok = write!(out, "{:width$}", cased(name, written));
    }
}

fn refused(condition: Condition, message: &str, hint: &str) -> DataFusionError {
    DataFusionError::External(Box::new(Error::hinted(condition, message, hint)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check((months, days, us): (i32, i32, i64), format: &str, expected: &str) {
        let fields = Fields::of(IntervalMonthDayNano::new(months, days, us * NS_PER_US));
        let text = formatted(format, |out, pattern, written, fill| fields.put(out, pattern, written, fill));
        assert_eq!(text.expect("it is formatted"), expected, "{format}");
    }

    /// Answers are PostgreSQL's.
    #[test]
    fn intervals_are_formatted_as_postgresql_does() {
        check((14, 3, 14_706_789_000), "YYYY-MM-DD HH24:MI:SS.MS US", "0001-02-03 04:05:06.789 789000");
        check((-14, -3, -14_706_789_000), "YYYY-MM-DD HH24:MI:SS.MS", "-0001--02--3 -04:-05:-06.-789");
        check((0, 0, 360_000_000_000), "HH24 HH HH12 AM", "100 04 04 AM");
        check((0, 5, 0), "DD DDD", "05 005");
        check((12, 5, 0), "DDD WW W Q CC YY Y,YYY RM FMDD", "365 53 1  00 01 0,001 XII  5");
        check((0, 0, -93_600_000_000), "HH24 HH12 PM", "-26 -02 AM");
        check((-5, 0, 0), "MM RM Q", "-05 VIII -1");
        check((3, 0, 0), "FMRM", "III");
        check((0, 0, -1_500_000), "SS.MS US SSSS FF3", "-01.-500 -500000 -1 -500");
        check((0, 1, 0), "DDth \"x\" HH24 FMMI", "01st x 00 0");
    }
}
