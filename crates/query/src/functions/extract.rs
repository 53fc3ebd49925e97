//! `extract(field FROM time)`, a numeric, and `date_part(field, time)`, a double: the fields of times and intervals.
//!
//! The library's `date_part` gives integers, and whole seconds. What depends on the session's zone comes here as what clocks show there
//! ([`crate::session`]).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Field, FieldRef, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::common::utils::take_function_args;
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::{Condition, Error};
use crate::text::{DAY_US, US_PER_SECOND, Zone};

/// The name under which `extract` is planned.
pub(crate) const EXTRACT: &str = "annal_extract";

/// Digits of the numeric: those of an i64, and one more.
const PRECISION: u8 = 20;
const MINUTE_US: i64 = 60 * US_PER_SECOND;
const HOUR_US: i64 = 60 * MINUTE_US;
const NS_PER_US: i64 = 1_000;
/// As PostgreSQL counts the seconds of an interval.
const YEAR_US: i64 = 365 * DAY_US + DAY_US / 4;
const MONTH_US: i64 = 30 * DAY_US;

/// Both.
pub(super) fn all() -> [Arc<ScalarUDF>; 2] {
    [true, false].map(|numeric| {
        Arc::new(ScalarUDF::from(Extract { numeric, signature: Signature::user_defined(Volatility::Immutable) }))
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Extract {
    numeric: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Extract {
    fn name(&self) -> &'static str {
        if self.numeric { EXTRACT } else { "date_part" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [field, time] = arguments else { return plan_err!("extract takes a field and a time") };
        if !field.is_string() && !field.is_null() {
            return plan_err!("extract takes the name of a field");
        }
        let time = match time {
            DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
            DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
            DataType::Interval(_) | DataType::Duration(_) => DataType::Interval(IntervalUnit::MonthDayNano),
            // Only `extract` knows dates as such.
            DataType::Date32 | DataType::Date64 if self.numeric => DataType::Date32,
            DataType::Date32 | DataType::Date64 => DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Null => DataType::Timestamp(TimeUnit::Microsecond, None),
            _ => return plan_err!("extract takes a time or an interval, not a {time}"),
        };
        Ok(vec![DataType::Utf8, time])
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        internal_err!("the name of the field says the type")
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let data_type = match self.numeric {
            false => DataType::Float64,
            true => {
                let Some(Some(ScalarValue::Utf8(Some(name)))) = arguments.scalar_arguments.first() else {
                    return plan_err!("extract takes the name of a field");
                };
                let of_date = *arguments.arg_fields[1].data_type() == DataType::Date32;
                let scale = Part::named(name).map_or(0, |part| part.scale(of_date));
                DataType::Decimal128(PRECISION, scale)
            }
        };
        Ok(Arc::new(Field::new(self.name(), data_type, true)))
    }

    /// A year is a span of time, by which splits are left out.
    fn preimage(&self, arguments: &[Expr], compared: &Expr, context: &SimplifyContext) -> Result<PreimageResult> {
        let [Expr::Literal(ScalarValue::Utf8(Some(name)), _), time] = arguments else {
            return Ok(PreimageResult::None);
        };
        let (Some(Part::Year), Some(year)) = (Part::named(name), compared.as_literal().and_then(whole)) else {
            return Ok(PreimageResult::None);
        };
        let data_type = context.get_data_type(time)?;
        let (Some(from), Some(to)) = (new_year(year, &data_type), new_year(year.saturating_add(1), &data_type)) else {
            return Ok(PreimageResult::None);
        };
        let interval = Box::new(Interval::try_new(from, to)?);
        Ok(PreimageResult::Range { expr: time.clone(), interval })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let zone = Zone::of_session(&arguments.config_options);
        let [names, times] = take_function_args(self.name(), &arguments.args)?;
        let times = times.to_array(arguments.number_rows)?;
        // The name is the same in all rows, but for that of `date_part(column, time)`.
        let names = match names {
            ColumnarValue::Scalar(name) => name.to_array()?,
            ColumnarValue::Array(names) => Arc::clone(names),
        };
        let names = cast(&names, &DataType::Utf8)?;
        let names = names.as_string::<i32>();
        let mut known: Option<(&str, Part)> = None;
        let values = (0..times.len()).map(|row| {
            let at = if names.len() == 1 { 0 } else { row };
            if names.is_null(at) || times.is_null(row) {
                return Ok(None);
            }
            let name = names.value(at);
            let part = match known {
                Some((before, part)) if before == name => part,
                _ => part_of(name, times.data_type())?,
            };
            known = Some((name, part));
            of_row(&times, row, name, part, zone).map(Some)
        });
        let values = values.collect::<Result<Vec<Option<(i64, i8)>>>>()?;
        Ok(ColumnarValue::Array(match arguments.return_type() {
            DataType::Decimal128(precision, scale) => {
                let mantissas = values.into_iter().map(|value| value.map(|(mantissa, _)| mantissa.into()));
                let numerics = mantissas.collect::<Decimal128Array>();
                Arc::new(numerics.with_precision_and_scale(*precision, *scale)?) as ArrayRef
            }
            _ => {
                let doubles = values
                    .into_iter()
                    .map(|value| value.map(|(mantissa, scale)| mantissa as f64 / 10_f64.powi(scale.into())));
                Arc::new(doubles.collect::<Float64Array>())
            }
        }))
    }
}

/// The whole number that a literal is.
fn whole(literal: &ScalarValue) -> Option<i32> {
    match literal {
        ScalarValue::Decimal128(Some(number), _, 0) => i32::try_from(*number).ok(),
        ScalarValue::Float64(Some(number)) => Some(*number as i32).filter(|whole| f64::from(*whole) == *number),
        _ => None,
    }
}

/// The beginning of a year after Christ, as a value of that type.
fn new_year(year: i32, data_type: &DataType) -> Option<ScalarValue> {
    let date = NaiveDate::from_ymd_opt(year, 1, 1).filter(|_| year > 0)?;
    let days = (date - NaiveDate::default()).num_days();
    match data_type {
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            Some(ScalarValue::TimestampMicrosecond(Some(days * DAY_US), zone.clone()))
        }
        DataType::Date32 => Some(ScalarValue::Date32(Some(i32::try_from(days).ok()?))),
        _ => None,
    }
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Microseconds,
    Milliseconds,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
    Dow,
    IsoDow,
    Doy,
    IsoYear,
    Epoch,
    Timezone,
    TimezoneHour,
    TimezoneMinute,
}

impl Part {
    fn named(name: &str) -> Option<Part> {
        Some(match name.to_ascii_lowercase().as_str() {
            "microsecond" | "microseconds" | "us" | "usec" | "usecs" | "useconds" => Part::Microseconds,
            "millisecond" | "milliseconds" | "ms" | "msec" | "msecs" | "mseconds" => Part::Milliseconds,
            "second" | "seconds" | "sec" | "secs" | "s" => Part::Second,
            "minute" | "minutes" | "min" | "mins" | "m" => Part::Minute,
            "hour" | "hours" | "hr" | "hrs" | "h" => Part::Hour,
            "day" | "days" | "d" => Part::Day,
            "week" | "weeks" | "w" => Part::Week,
            "month" | "months" | "mon" | "mons" => Part::Month,
            "quarter" | "qtr" => Part::Quarter,
            "year" | "years" | "yr" | "yrs" | "y" => Part::Year,
            "decade" | "decades" | "dec" | "decs" => Part::Decade,
            "century" | "centuries" | "cent" | "c" => Part::Century,
            "millennium" | "millennia" | "mil" | "mils" => Part::Millennium,
            "dow" => Part::Dow,
            "isodow" => Part::IsoDow,
            "doy" => Part::Doy,
            "isoyear" => Part::IsoYear,
            "epoch" => Part::Epoch,
            "timezone" => Part::Timezone,
            "timezone_hour" | "timezone_h" => Part::TimezoneHour,
            "timezone_minute" | "timezone_m" => Part::TimezoneMinute,
            _ => return None,
        })
    }

    /// Digits after the point.
    fn scale(self, of_date: bool) -> i8 {
        match self {
            Part::Epoch if of_date => 0,
            Part::Second | Part::Epoch => 6,
            Part::Milliseconds => 3,
            _ => 0,
        }
    }
}

/// What PostgreSQL calls a type whose fields are asked for.
pub(super) fn type_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Timestamp(_, None) => "timestamp without time zone",
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone",
        DataType::Date32 => "date",
        DataType::Time64(_) => "time without time zone",
        _ => "interval",
    }
}

/// # Errors
/// 22023 for a name that no part has.
pub(super) fn part_of(name: &str, data_type: &DataType) -> Result<Part> {
    Part::named(name).ok_or_else(|| not_recognized(name, data_type))
}

pub(super) fn not_recognized(name: &str, data_type: &DataType) -> DataFusionError {
    let message = format!("unit \"{}\" not recognized for type {}", name.to_lowercase(), type_name(data_type));
    refusal(Condition::InvalidParameterValue, message)
}

/// The value, as a number of units of 10 to the minus so many.
fn of_row(times: &ArrayRef, row: usize, name: &str, part: Part, zone: Zone) -> Result<(i64, i8)> {
    let found = match times.data_type() {
        DataType::Timestamp(_, zoned) => {
            let us = times.as_primitive::<TimestampMicrosecondType>().value(row);
            let offset = zoned.is_some().then(|| i64::from(zone.offset_at(us)));
            of_offset(part, offset).map_or_else(|| of_timestamp(part, us), |value| Ok(Some(value)))?
        }
        DataType::Date32 => {
            let days = i64::from(times.as_primitive::<Date32Type>().value(row));
            match part {
                Part::Epoch => Some(days * (DAY_US / US_PER_SECOND)),
                part if of_clock(part, 0).is_some() => None,
                part => of_timestamp(part, days * DAY_US)?,
            }
        }
        DataType::Time64(_) => {
            let us = times.as_primitive::<Time64MicrosecondType>().value(row);
            if part == Part::Epoch { Some(us) } else { of_clock(part, us) }
        }
        _ => of_interval(part, times.as_primitive::<IntervalMonthDayNanoType>().value(row)),
    };
    let unsupported = || {
        let type_name = type_name(times.data_type());
        let message = format!("unit \"{}\" not supported for type {type_name}", name.to_lowercase());
        refusal(Condition::FeatureNotSupported, message)
    };
    let of_date = *times.data_type() == DataType::Date32;
    found.map(|value| (value, part.scale(of_date))).ok_or_else(unsupported)
}

fn of_offset(part: Part, offset: Option<i64>) -> Option<i64> {
    let offset = offset?;
    match part {
        Part::Timezone => Some(offset),
        Part::TimezoneHour => Some(offset / 3600),
        Part::TimezoneMinute => Some(offset / 60 % 60),
        _ => None,
    }
}

/// Fields of a time of day; hours beyond a day count on.
fn of_clock(part: Part, us: i64) -> Option<i64> {
    Some(match part {
        Part::Hour => us / HOUR_US,
        Part::Minute => us / MINUTE_US % 60,
        Part::Second | Part::Milliseconds | Part::Microseconds => us % MINUTE_US,
        _ => return None,
    })
}

fn of_timestamp(part: Part, us: i64) -> Result<Option<i64>> {
    if part == Part::Epoch {
        return Ok(Some(us));
    }
    if let Some(value) = of_clock(part, us.rem_euclid(DAY_US)) {
        return Ok(Some(value));
    }
    let beyond = || refusal(Condition::DatetimeOverflow, "timestamp out of range".to_owned());
    let date = DateTime::from_timestamp_micros(us).ok_or_else(beyond)?.date_naive();
    // There is no year 0 before Christ.
    let (year, before) = (i64::from(date.year()), |year: i64| if year > 0 { year } else { year - 1 });
    let counted = |width: i64| match year {
        1.. => (year + width - 1) / width,
        _ => -((width - 1 - (year - 1)) / width),
    };
    Ok(Some(match part {
        Part::Day => date.day().into(),
        Part::Week => date.iso_week().week().into(),
        Part::Month => date.month().into(),
        Part::Quarter => i64::from(date.month0() / 3 + 1),
        Part::Year => before(year),
        Part::Decade => year.div_euclid(10),
        Part::Century => counted(100),
        Part::Millennium => counted(1000),
        Part::Dow => date.weekday().num_days_from_sunday().into(),
        Part::IsoDow => date.weekday().number_from_monday().into(),
        Part::Doy => date.ordinal().into(),
        Part::IsoYear => before(date.iso_week().year().into()),
        _ => return Ok(None),
    }))
}

fn of_interval(part: Part, interval: IntervalMonthDayNano) -> Option<i64> {
    let (months, days) = (i64::from(interval.months), i64::from(interval.days));
    let us = interval.nanoseconds / NS_PER_US;
    let (years, months) = (months / 12, months % 12);
    Some(match part {
        Part::Day => days,
        Part::Month => months,
        Part::Quarter => months / 3 + 1,
        Part::Year => years,
        Part::Decade => years / 10,
        Part::Century => years / 100,
        Part::Millennium => years / 1000,
        Part::Epoch => (years * YEAR_US).checked_add(months * MONTH_US + days * DAY_US)?.checked_add(us)?,
        part => of_clock(part, us)?,
    })
}

pub(super) fn refusal(condition: Condition, message: String) -> DataFusionError {
    DataFusionError::External(Box::new(Error::report(condition, message)))
}
