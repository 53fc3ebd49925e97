//! `age(time [, time])`: years, months, days and time between two times, as calendars and clocks show them.

use std::sync::Arc;

use arrow::array::{Array, AsArray, IntervalMonthDayNanoArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, NaiveDateTime};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

use super::interval::too_long;
use crate::text::{DAY_US, US_PER_SECOND, Zone};

const NS_PER_US: i64 = 1_000;
const MONTHS: i32 = 12;

/// The function.
pub(super) fn age() -> ScalarUDF {
    ScalarUDF::from(Age(Signature::user_defined(Volatility::Stable)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Age(Signature);

impl ScalarUDFImpl for Age {
    fn name(&self) -> &'static str {
        "age"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    /// Timestamps, when one is there and nothing that has a zone; else instants, as which dates are taken.
    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let of_times = arguments.iter().all(|argument| {
            argument.is_null() || argument.is_string() || matches!(argument, DataType::Timestamp(..) | DataType::Date32)
        });
        if !of_times || !(1..=2).contains(&arguments.len()) {
            return plan_err!("function age does not exist for these arguments");
        }
        let local = arguments.iter().any(|argument| matches!(argument, DataType::Timestamp(_, None)))
            && !arguments.iter().any(|argument| matches!(argument, DataType::Timestamp(_, Some(_)) | DataType::Date32));
        let wanted = DataType::Timestamp(TimeUnit::Microsecond, (!local).then(|| "UTC".into()));
        Ok(vec![wanted; arguments.len()])
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Interval(IntervalUnit::MonthDayNano))
    }

    /// From one time alone it is counted to the beginning of today.
    fn simplify(&self, mut arguments: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let (1, Some(now)) = (arguments.len(), context.query_execution_start_time()) else {
            return Ok(ExprSimplifyResult::Original(arguments));
        };
        let zone = Zone::of_session(context.config_options());
        let now = now.timestamp_micros();
        let local = now.saturating_add(i64::from(zone.offset_at(now)) * US_PER_SECOND);
        let midnight = local.div_euclid(DAY_US) * DAY_US;
        let today = match context.get_data_type(&arguments[0])? {
            DataType::Timestamp(_, None) => ScalarValue::TimestampMicrosecond(Some(midnight), None),
            _ => ScalarValue::TimestampMicrosecond(zone.to_utc(midnight), Some("UTC".into())),
        };
        arguments.insert(0, lit(today));
        let call = datafusion::logical_expr::expr::ScalarFunction::new_udf(Arc::new(age()), arguments);
        Ok(ExprSimplifyResult::Simplified(Expr::ScalarFunction(call)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let zone = Zone::of_session(&arguments.config_options);
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let [later, earlier] = arrays.as_slice() else { return plan_err!("age takes two times here") };
        let zone = matches!(later.data_type(), DataType::Timestamp(_, Some(_))).then_some(zone);
        let (later, earlier) =
            (later.as_primitive::<TimestampMicrosecondType>(), earlier.as_primitive::<TimestampMicrosecondType>());
        let ages = later.iter().zip(earlier).map(|pair| match pair {
            (Some(later), Some(earlier)) => between(shown(later, zone)?, shown(earlier, zone)?).map(Some),
            _ => Ok(None),
        });
        Ok(ColumnarValue::Array(Arc::new(ages.collect::<Result<IntervalMonthDayNanoArray>>()?)))
    }
}

/// What calendars and clocks show.
fn shown(us: i64, zone: Option<Zone>) -> Result<NaiveDateTime> {
    let offset = zone.map_or(0, |zone| i64::from(zone.offset_at(us)) * US_PER_SECOND);
    let local = us.checked_add(offset).and_then(DateTime::from_timestamp_micros);
    local.map(|local| local.naive_utc()).ok_or_else(too_long)
}

/// Whole months first, then days of the month that the earlier time lies in, then time.
fn between(one: NaiveDateTime, other: NaiveDateTime) -> Result<IntervalMonthDayNano> {
    let negative = one < other;
    let (later, earlier) = if negative { (other, one) } else { (one, other) };
    let us_of_day = |at: NaiveDateTime| (at - at.date().and_time(chrono::NaiveTime::MIN)).num_microseconds();
    let (Some(mut us), Some(before)) = (us_of_day(later), us_of_day(earlier)) else { return Err(too_long()) };
    us -= before;
    let mut days = later.day() as i32 - earlier.day() as i32;
    let months = |at: NaiveDateTime| at.year() * MONTHS + at.month0() as i32;
    let mut months = months(later) - months(earlier);
    if us < 0 {
        (us, days) = (us + DAY_US, days - 1);
    }
    if days < 0 {
        (days, months) = (days + i32::from(earlier.num_days_in_month()), months - 1);
    }
    let sign = if negative { -1 } else { 1 };
    Ok(IntervalMonthDayNano::new(sign * months, sign * days, i64::from(sign) * us * NS_PER_US))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(one: &str, other: &str, expected: (i32, i32, i64)) {
        let at = |text: &str| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").unwrap();
        let age = between(at(one), at(other)).unwrap();
        assert_eq!((age.months, age.days, age.nanoseconds / 1_000_000_000), expected, "{one} and {other}");
    }

    #[test]
    fn months_come_before_days() {
        check("2001-04-10 00:00:00", "1957-06-13 00:00:00", (43 * 12 + 9, 27, 0));
        check("1957-06-13 00:00:00", "2001-04-10 00:00:00", (-(43 * 12 + 9), -27, 0));
        check("2012-03-01 00:00:00", "2012-01-31 00:00:00", (1, 1, 0));
        check("2013-01-01 01:00:00", "2012-12-31 02:00:00", (0, 0, 23 * 3600));
        check("2013-01-01 00:00:00", "2013-01-01 00:00:00", (0, 0, 0));
    }
}
