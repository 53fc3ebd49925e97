//! `justify_hours`, `justify_days`, `justify_interval`: time of whole days as days, days of whole months of 30 days as months.

use std::sync::Arc;

use arrow::array::{AsArray, IntervalMonthDayNanoArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::common::Result;
use datafusion::logical_expr::expr_fn::SimpleScalarUDF;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Signature, Volatility};

use super::interval::too_long;

const DAY_NS: i64 = 86_400_000_000_000;
const MONTH_DAYS: i32 = 30;
const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// All of them.
pub(super) fn all() -> [Arc<ScalarUDF>; 3] {
    [function("justify_hours", hours), function("justify_days", days), function("justify_interval", both)]
}

fn function(name: &str, justify: fn(IntervalMonthDayNano) -> Option<IntervalMonthDayNano>) -> Arc<ScalarUDF> {
    let answer = move |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let intervals = arrays[0].as_primitive::<IntervalMonthDayNanoType>().iter();
        let justified = intervals.map(|one| one.map(|one| justify(one).ok_or_else(too_long)).transpose());
        Ok(ColumnarValue::Array(Arc::new(justified.collect::<Result<IntervalMonthDayNanoArray>>()?)))
    };
    let signature = Signature::exact(vec![INTERVAL], Volatility::Immutable);
    Arc::new(ScalarUDF::from(SimpleScalarUDF::new_with_signature(name, signature, INTERVAL, Arc::new(answer))))
}

fn hours(interval: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let whole = i32::try_from(interval.nanoseconds / DAY_NS).ok()?;
    let (days, ns) = (interval.days.checked_add(whole)?, interval.nanoseconds % DAY_NS);
    let (days, ns) = days_agree(days, ns);
    Some(IntervalMonthDayNano::new(interval.months, days, ns))
}

fn days(interval: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let months = interval.months.checked_add(interval.days / MONTH_DAYS)?;
    let days = interval.days % MONTH_DAYS;
    let (months, days) = match (months, days) {
        (1.., ..=-1) => (months - 1, days + MONTH_DAYS),
        (..=-1, 1..) => (months + 1, days - MONTH_DAYS),
        agreeing => agreeing,
    };
    Some(IntervalMonthDayNano::new(months, days, interval.nanoseconds))
}

fn both(interval: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let all_days = i64::from(interval.days) + interval.nanoseconds / DAY_NS;
    let ns = interval.nanoseconds % DAY_NS;
    let all_months = i64::from(interval.months) + all_days / i64::from(MONTH_DAYS);
    let mut months = i32::try_from(all_months).ok()?;
    let mut days = i32::try_from(all_days % i64::from(MONTH_DAYS)).ok()?;
    if months > 0 && (days < 0 || days == 0 && ns < 0) {
        (months, days) = (months - 1, days + MONTH_DAYS);
    } else if months < 0 && (days > 0 || days == 0 && ns > 0) {
        (months, days) = (months + 1, days - MONTH_DAYS);
    }
    let (days, ns) = days_agree(days, ns);
    Some(IntervalMonthDayNano::new(months, days, ns))
}

/// Days and time with one sign.
fn days_agree(days: i32, ns: i64) -> (i32, i64) {
    match (days, ns) {
        (1.., ..=-1) => (days - 1, ns + DAY_NS),
        (..=-1, 1..) => (days + 1, ns - DAY_NS),
        agreeing => agreeing,
    }
}
