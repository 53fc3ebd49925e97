//! `to_date(text, format)` and `to_timestamp(text, format)`, with the patterns of `to_char`; and `to_timestamp(seconds)`.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Date32Array, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimeUnit};
use chrono::NaiveDate;
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::to_char::{DAYS, MONTHS, pattern};
use crate::error::{Condition, Error, Report};
use crate::text::{DAY_US, US_PER_SECOND, Zone};

/// The Julian day of 1970-01-01.
const JULIAN_1970: i64 = 2_440_588;

/// Both.
pub(super) fn all() -> [Arc<ScalarUDF>; 2] {
    [true, false].map(|date| {
        Arc::new(ScalarUDF::from(FromChar { date, signature: Signature::user_defined(Volatility::Stable) }))
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FromChar {
    date: bool,
    signature: Signature,
}

impl ScalarUDFImpl for FromChar {
    fn name(&self) -> &'static str {
        if self.date { "to_date" } else { "to_timestamp" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let text = |argument: &DataType| argument.is_string() || argument.is_null();
        match arguments {
            [one, other] if text(one) && text(other) => Ok(vec![DataType::Utf8, DataType::Utf8]),
            [seconds] if !self.date && (seconds.is_numeric() || seconds.is_null()) => Ok(vec![DataType::Float64]),
            _ => plan_err!("{} takes a text and a format", self.name()),
        }
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(match self.date {
            true => DataType::Date32,
            false => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let zone = Zone::of_session(&arguments.config_options);
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let answer: ArrayRef = match arrays.as_slice() {
            [texts, formats] => {
                let (texts, formats) = (cast(texts, &DataType::Utf8)?, cast(formats, &DataType::Utf8)?);
                let pairs = texts.as_string::<i32>().iter().zip(formats.as_string::<i32>());
                let read = pairs.map(|pair| match pair {
                    (Some(text), Some(format)) => Read::of(text, format).map(|read| Some((read, text))),
                    _ => Ok(None),
                });
                let read = read.collect::<Result<Vec<_>>>()?;
                if self.date {
                    let days = read.into_iter().map(|row| row.map(|(read, text)| read.days(text)).transpose());
                    Arc::new(days.collect::<Result<Date32Array>>()?)
                } else {
                    let instants =
                        read.into_iter().map(|row| row.map(|(read, text)| read.instant(text, zone)).transpose());
                    Arc::new(instants.collect::<Result<TimestampMicrosecondArray>>()?.with_timezone("UTC"))
                }
            }
            [seconds] => {
                let seconds = seconds.as_primitive::<Float64Type>().iter();
                let instants = seconds.map(|seconds| seconds.map(of_seconds).transpose());
                Arc::new(instants.collect::<Result<TimestampMicrosecondArray>>()?.with_timezone("UTC"))
            }
            _ => return plan_err!("{} takes a text and a format", self.name()),
        };
        Ok(ColumnarValue::Array(answer))
    }
}

fn of_seconds(seconds: f64) -> Result<i64> {
    let us = (seconds * US_PER_SECOND as f64).round_ties_even();
    if us.abs() < i64::MAX as f64 {
        return Ok(us as i64);
    }
    Err(refusal(Condition::DatetimeOverflow, format!("timestamp out of range: \"{seconds}\"")))
}

/// What a text says; what it does not say is 0 or 1.
#[derive(Debug, Default)]
struct Read {
    year: Option<i64>,
    before_christ: bool,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    julian: Option<i64>,
    hour: i64,
    /// Whether the hour was written on a clock of twelve hours, and whether it is after noon.
    half_day: bool,
    afternoon: Option<bool>,
    minute: i64,
    second: i64,
    us: i64,
    seconds_of_day: Option<i64>,
    offset_hours: Option<i64>,
    offset_minutes: i64,
}

impl Read {
    fn of(text: &str, format: &str) -> Result<Read> {
        let mut read = Read::default();
        let (mut rest, mut format) = (text, format);
        while let Some(first) = format.chars().next() {
            if first == '"' {
                let quoted = &format[1..];
                let end = quoted.find('"').unwrap_or(quoted.len());
                rest = after(rest, quoted[..end].chars().count());
                format = quoted.get(end + 1..).unwrap_or("");
                continue;
            }
            let Some((pattern, written)) = pattern(format) else {
                format = &format[first.len_utf8()..];
                rest = match (is_separator(first), rest.chars().next()) {
                    // What separates fields stands for anything that does, or for nothing.
                    (true, Some(found)) if !is_separator(found) => rest,
                    _ => after(rest, 1),
                };
                continue;
            };
            format = &format[written.len()..];
            if matches!(pattern, "FM" | "TM" | "FX") {
                continue;
            }
            rest = read.field(pattern, rest.trim_start(), !format.starts_with(|next: char| next.is_alphanumeric()))?;
        }
        Ok(read)
    }

    /// Reads one field; gives what is behind it. A field that another follows at once has no more digits than its pattern.
    fn field<'t>(&mut self, pattern: &str, text: &'t str, open: bool) -> Result<&'t str> {
        let named = |names: &[&str], least: Option<usize>| {
            let found = names.iter().position(|name| {
                let name = &name[..least.unwrap_or(name.len())];
                text.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name))
            });
            found.map(|at| (at, &text[least.unwrap_or(names[at].len())..])).ok_or_else(|| {
                let word: String = text.chars().take_while(|c| !c.is_whitespace()).collect();
                let error =
                    invalid(&word, pattern, "The given value did not match any of the allowed values for this field.");
                DataFusionError::External(Box::new(error))
            })
        };
        let digits = |most: usize| number(text, pattern, if open { usize::MAX } else { most });
        let rest = match pattern {
            "YYYY" | "IYYY" => self.number(digits(4)?, |read, year| read.year = Some(year)),
            "Y,YYY" => {
                let (thousands, rest) = number(text, pattern, usize::MAX)?;
                let (year, rest) = number(rest.strip_prefix(',').unwrap_or(rest), pattern, 3)?;
                self.year = Some(thousands.saturating_mul(1000).saturating_add(year));
                rest
            }
            "YYY" | "YY" | "Y" => {
                let most = pattern.len();
                let before = text;
                let (year, rest) = digits(most)?;
                let written = before.len() - rest.len();
                self.year = Some(if written > most.max(3) { year } else { near_2020(year) });
                rest
            }
            "MONTH" | "Month" | "month" => {
                let (at, rest) = named(&MONTHS, None)?;
                self.month = Some(at as i64 + 1);
                rest
            }
            "MON" | "Mon" | "mon" => {
                let (at, rest) = named(&MONTHS, Some(3))?;
                self.month = Some(at as i64 + 1);
                rest
            }
            // The day of the week says nothing that the date does not.
            "DAY" | "Day" | "day" => named(&DAYS, None)?.1,
            "DY" | "Dy" | "dy" => named(&DAYS, Some(3))?.1,
            "D" | "ID" | "Q" => digits(1)?.1,
            "MM" => self.number(digits(2)?, |read, month| read.month = Some(month)),
            "DD" => self.number(digits(2)?, |read, day| read.day = Some(day)),
            "DDD" => self.number(digits(3)?, |read, day| read.day_of_year = Some(day)),
            "J" => self.number(digits(usize::MAX)?, |read, day| read.julian = Some(day)),
            "HH24" => self.number(digits(2)?, |read, hour| read.hour = hour),
            "HH12" | "HH" => {
                self.half_day = true;
                self.number(digits(2)?, |read, hour| read.hour = hour)
            }
            "MI" => self.number(digits(2)?, |read, minute| read.minute = minute),
            "SS" => self.number(digits(2)?, |read, second| read.second = second),
            "SSSS" | "SSSSS" => self.number(digits(5)?, |read, seconds| read.seconds_of_day = Some(seconds)),
            "MS" => self.fraction(digits(3)?, text, 3),
            "US" => self.fraction(digits(6)?, text, 6),
            "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => {
                let most = usize::from(pattern.as_bytes()[2] - b'0');
                self.fraction(digits(most)?, text, most)
            }
            "AM" | "PM" => {
                let (at, rest) = named(&["AM", "PM"], None)?;
                (self.half_day, self.afternoon) = (true, Some(at == 1));
                rest
            }
            "A.M." | "P.M." => {
                let (at, rest) = named(&["A.M.", "P.M."], None)?;
                (self.half_day, self.afternoon) = (true, Some(at == 1));
                rest
            }
            "AD" | "BC" => {
                let (at, rest) = named(&["AD", "BC"], None)?;
                self.before_christ = at == 1;
                rest
            }
            "TZH" => {
                let (sign, digits) = match text.as_bytes().first() {
                    Some(b'-') => (-1, &text[1..]),
                    Some(b'+') => (1, &text[1..]),
                    _ => (1, text),
                };
                let (hours, rest) = number(digits, pattern, 2)?;
                self.offset_hours = Some(sign * hours);
                rest
            }
            "TZM" => self.number(digits(2)?, |read, minutes| read.offset_minutes = minutes),
            other => {
                let message = format!("the pattern \"{other}\" is not supported here");
                let hint = "Patterns are YYYY, MM, MON, MONTH, DD, DDD, HH24, HH12, MI, SS, MS, US, AM, TZH and TZM.";
                return Err(DataFusionError::External(Box::new(Error::hinted(
                    Condition::FeatureNotSupported,
                    message,
                    hint,
                ))));
            }
        };
        Ok(rest)
    }

    fn number<'t>(&mut self, (value, rest): (i64, &'t str), set: impl FnOnce(&mut Read, i64)) -> &'t str {
        set(self, value);
        rest
    }

    /// Digits behind the point of a second: `5` is half of one.
    fn fraction<'t>(&mut self, (value, rest): (i64, &'t str), text: &str, most: usize) -> &'t str {
        let written = (text.len() - rest.len()).min(most) as u32;
        self.us = self.us.saturating_add(value.saturating_mul(10_i64.pow(6_u32.saturating_sub(written))));
        rest
    }

    fn days(&self, text: &str) -> Result<i32> {
        let beyond = || refusal(Condition::DatetimeOverflow, format!("date/time field value out of range: \"{text}\""));
        if let Some(julian) = self.julian {
            return i32::try_from(julian.saturating_sub(JULIAN_1970)).map_err(|_| beyond());
        }
        let year = match (self.year.unwrap_or(0), self.before_christ) {
            (year, true) => 1_i64.saturating_sub(year),
            (year, false) => year,
        };
        let year = i32::try_from(year).map_err(|_| beyond())?;
        let small = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
        let date = match (self.day_of_year, self.month) {
            (Some(day), None) => NaiveDate::from_yo_opt(year, small(day)),
            (_, month) => NaiveDate::from_ymd_opt(year, small(month.unwrap_or(1)), small(self.day.unwrap_or(1))),
        };
        let date = date.ok_or_else(beyond)?;
        i32::try_from((date - NaiveDate::default()).num_days()).map_err(|_| beyond())
    }

    fn instant(&self, text: &str, zone: Zone) -> Result<i64> {
        let beyond = || refusal(Condition::DatetimeOverflow, format!("date/time field value out of range: \"{text}\""));
        let mut hour = self.hour;
        if self.half_day {
            if !(1..=12).contains(&hour) && self.seconds_of_day.is_none() {
                let message = format!("hour \"{hour}\" is invalid for the 12-hour clock");
                let hint = "Use the 24-hour clock, or give an hour between 1 and 12.";
                let error = Error::hinted(Condition::InvalidDatetimeFormat, message, hint);
                return Err(DataFusionError::External(Box::new(error)));
            }
            hour = match self.afternoon {
                Some(true) => hour % 12 + 12,
                Some(false) => hour % 12,
                None => hour,
            };
        }
        let seconds = match self.seconds_of_day {
            Some(seconds) => seconds,
            None if hour < 24 && self.minute < 60 && self.second < 60 => hour * 3600 + self.minute * 60 + self.second,
            None => return Err(beyond()),
        };
        let of_day = seconds.checked_mul(US_PER_SECOND).and_then(|us| us.checked_add(self.us)).ok_or_else(beyond)?;
        let midnight = i64::from(self.days(text)?).checked_mul(DAY_US);
        let local = midnight.and_then(|midnight| midnight.checked_add(of_day)).ok_or_else(beyond)?;
        let zone = match self.offset_hours {
            Some(hours) => {
                let minutes = Some(self.offset_minutes).filter(|minutes| *minutes < 60).ok_or_else(beyond)?;
                let seconds = hours.abs() * 3600 + minutes * 60;
                let seconds = if hours < 0 { -seconds } else { seconds };
                Zone::Fixed(i32::try_from(seconds).map_err(|_| beyond())?)
            }
            None => zone,
        };
        zone.to_utc(local).ok_or_else(beyond)
    }
}

fn is_separator(character: char) -> bool {
    character.is_ascii() && !character.is_ascii_alphanumeric()
}

fn after(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).map_or("", |(at, _)| &text[at..])
}

/// A year of fewer digits is the one nearest to 2020.
fn near_2020(year: i64) -> i64 {
    match year {
        ..70 => year + 2000,
        70..100 => year + 1900,
        100..520 => year + 2000,
        520..1000 => year + 1000,
        _ => year,
    }
}

/// At most so many digits, and what is behind them.
fn number<'t>(text: &'t str, pattern: &str, most: usize) -> Result<(i64, &'t str)> {
    let digits = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    match text[..digits].parse() {
        Ok(value) => Ok((value, &text[digits..])),
        Err(_) if digits == 0 => {
            let found: String = text.chars().take(most.min(pattern.len())).collect();
            Err(DataFusionError::External(Box::new(invalid(&found, pattern, "Value must be an integer."))))
        }
        Err(_) => Err(refusal(
            Condition::DatetimeOverflow,
            format!("value for \"{pattern}\" in source string is out of range"),
        )),
    }
}

/// PostgreSQL's refusal of a field.
fn invalid(found: &str, pattern: &str, detail: &str) -> Error {
    let message = format!("invalid value \"{found}\" for \"{pattern}\"");
    Report::new(Condition::InvalidDatetimeFormat, message).detailed(detail).into()
}

fn refusal(condition: Condition, message: String) -> DataFusionError {
    DataFusionError::External(Box::new(Error::report(condition, message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instant(text: &str, format: &str) -> Option<i64> {
        Read::of(text, format).and_then(|read| read.instant(text, Zone::UTC)).ok()
    }

    #[test]
    fn whatever_is_written_is_read_or_refused() {
        assert_eq!(instant("1970-01-02 00:00:01.5", "YYYY-MM-DD HH24:MI:SS.MS"), Some(DAY_US + 1_500_000));
        assert_eq!(instant("1970-01-01 01:00 -00", "YYYY-MM-DD HH24:MI TZH"), Some(3_600_000_000));
        let long = "9".repeat(18);
        for format in
            ["YYYY", "J", "SSSSS", "US", "MS", "FF1", "DDD", "Y,YYY", "HH24", "TZH:TZM", "BC YYYY", "é MM", "\"", "\"é"]
        {
            for text in
                [long.as_str(), "", "é", "-", "99999", "12:9999999999", "BC 999999999999999999", "BC 0", "99,999"]
            {
                // What matters is that nothing overflows, and that no character is cut in two.
                let _any = (instant(text, format), Read::of(text, format).and_then(|read| read.days(text)));
            }
        }
    }
}
