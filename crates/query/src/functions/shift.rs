//! `annal_shift(zone, instant, interval)`: an instant moved as clocks of a zone are, months and days on the calendar there and the rest in time that
//! passes. Statements do not name it; see `session/zoned.rs`.

use std::sync::Arc;

use arrow::array::{AsArray, TimestampMicrosecondBuilder};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, Days, Months, NaiveDateTime};
use datafusion::common::utils::take_function_args;
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::refused;
use crate::error::Condition;
use crate::text::{US_PER_SECOND, Zone};

const NS_PER_US: i64 = 1_000;

/// The function.
pub(crate) fn shift() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(Shift(Signature::any(3, Volatility::Immutable))))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Shift(Signature);

impl ScalarUDFImpl for Shift {
    fn name(&self) -> &'static str {
        "annal_shift"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [zones, instants, intervals] =
            take_function_args(self.name(), ColumnarValue::values_to_arrays(&arguments.args)?)?;
        let zones = cast(&zones, &DataType::Utf8)?;
        let instants = cast(&instants, &self.return_type(&[])?)?;
        let intervals = cast(&intervals, &DataType::Interval(IntervalUnit::MonthDayNano))?;
        let (instants, intervals) =
            (instants.as_primitive::<TimestampMicrosecondType>(), intervals.as_primitive::<IntervalMonthDayNanoType>());
        let mut known: Option<(&str, Zone)> = None;
        let mut shifted = TimestampMicrosecondBuilder::with_capacity(instants.len());
        for ((name, us), interval) in zones.as_string::<i32>().iter().zip(instants).zip(intervals) {
            let (Some(name), Some(us), Some(interval)) = (name, us, interval) else {
                shifted.append_null();
                continue;
            };
            let zone = match known {
                Some((same, zone)) if same == name => zone,
                _ => match Zone::parse(name) {
                    Some(zone) => known.insert((name, zone)).1,
                    None => return plan_err!("there is no time zone \"{name}\""),
                },
            };
            shifted.append_value(moved(us, interval, &zone).ok_or_else(out_of_range)?);
        }
        Ok(ColumnarValue::Array(Arc::new(shifted.finish().with_timezone("UTC"))))
    }
}

pub(super) fn out_of_range() -> DataFusionError {
    refused(Condition::DatetimeOverflow, "timestamp out of range")
}

/// The instant moved by an interval; `None` beyond what there is.
pub(super) fn moved(us: i64, interval: IntervalMonthDayNano, zone: &Zone) -> Option<i64> {
    let mut us = us;
    if interval.months != 0 || interval.days != 0 {
        let shown = us.checked_add(i64::from(zone.offset_at(us)) * US_PER_SECOND)?;
        let shown: NaiveDateTime = DateTime::from_timestamp_micros(shown)?.naive_utc();
        let months = Months::new(interval.months.unsigned_abs());
        let shown =
            if interval.months < 0 { shown.checked_sub_months(months)? } else { shown.checked_add_months(months)? };
        let days = Days::new(u64::from(interval.days.unsigned_abs()));
        let shown = if interval.days < 0 { shown.checked_sub_days(days)? } else { shown.checked_add_days(days)? };
        us = zone.to_utc(shown.and_utc().timestamp_micros())?;
    }
    us.checked_add(interval.nanoseconds / NS_PER_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_and_days_are_those_of_the_calendar_and_hours_pass() {
        let zone = Zone::parse("Europe/Berlin").unwrap();
        let at = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros();
        let hours = |hours: i64| hours * 3_600_000_000_000;
        for (from, months, days, ns, to) in [
            ("2024-03-01T00:00:00+01:00", 1, 0, 0, "2024-04-01T00:00:00+02:00"),
            ("2024-07-01T00:30:00+02:00", -1, 0, 0, "2024-06-01T00:30:00+02:00"),
            ("2024-01-31T12:00:00+01:00", 1, 0, 0, "2024-02-29T12:00:00+01:00"),
            ("2024-03-30T12:00:00+01:00", 0, 1, 0, "2024-03-31T12:00:00+02:00"),
            ("2024-03-30T12:00:00+01:00", 0, 0, hours(24), "2024-03-31T13:00:00+02:00"),
            ("2024-03-31T12:00:00+02:00", 0, -1, hours(-1), "2024-03-30T11:00:00+01:00"),
        ] {
            let interval = IntervalMonthDayNano { months, days, nanoseconds: ns };
            assert_eq!(moved(at(from), interval, &zone), Some(at(to)), "{from}, {interval:?}");
        }
        assert_eq!(moved(i64::MAX, IntervalMonthDayNano { months: 1, days: 0, nanoseconds: 0 }, &zone), None);
    }
}
