//! `make_date`, `make_time`, `make_timestamp`, `make_timestamptz`, `make_interval`: times out of their fields.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, IntervalMonthDayNanoArray, PrimitiveArray, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Float64Type, Int32Type, IntervalMonthDayNano, IntervalUnit, TimeUnit};
use chrono::NaiveDate;
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::interval::too_long;
use crate::error::{Condition, Error};
use crate::text::{DAY_US, US_PER_SECOND, Zone};

const MINUTE_US: i64 = 60 * US_PER_SECOND;
const HOUR_US: i64 = 60 * MINUTE_US;
const NS_PER_US: i64 = 1_000;

/// All of them.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    [What::Date, What::Time, What::Timestamp, What::TimestampTz, What::Interval]
        .into_iter()
        .map(|what| Arc::new(ScalarUDF::from(Make { what, signature: what.signature() })))
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
}

impl What {
    fn signature(self) -> Signature {
        // Without a zone's name it is that of the session.
        let of_session = matches!(self, What::TimestampTz);
        Signature::user_defined(if of_session { Volatility::Stable } else { Volatility::Immutable })
    }

    /// The types of its arguments.
    fn fields(self) -> Vec<DataType> {
        let (integers, others): (usize, &[DataType]) = match self {
            What::Date => (3, &[]),
            What::Time => (2, &[DataType::Float64]),
            What::Timestamp => (5, &[DataType::Float64]),
            What::TimestampTz => (5, &[DataType::Float64, DataType::Utf8]),
            What::Interval => (6, &[DataType::Float64]),
        };
        std::iter::repeat_n(DataType::Int32, integers).chain(others.iter().cloned()).collect()
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Make {
    what: What,
    signature: Signature,
}

impl ScalarUDFImpl for Make {
    fn name(&self) -> &'static str {
        match self.what {
            What::Date => "make_date",
            What::Time => "make_time",
            What::Timestamp => "make_timestamp",
            What::TimestampTz => "make_timestamptz",
            What::Interval => "make_interval",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let mut fields = self.what.fields();
        let whole = fields.len();
        fields.truncate(arguments.len());
        let counts = arguments.len() == whole || self.what == What::TimestampTz && arguments.len() + 1 == whole;
        let takes = |(wanted, given): (&DataType, &DataType)| match wanted {
            _ if given.is_null() => true,
            DataType::Int32 => given.is_integer(),
            DataType::Float64 => given.is_numeric(),
            _ => given.is_string(),
        };
        if counts && fields.iter().zip(arguments).all(takes) {
            return Ok(fields);
        }
        plan_err!("function {} does not exist for these arguments", self.name())
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(match self.what {
            What::Date => DataType::Date32,
            What::Time => DataType::Time64(TimeUnit::Microsecond),
            What::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            What::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            What::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let session = Zone::of_session(&arguments.config_options);
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let fields = Fields(&arrays);
        let count = arrays.first().map_or(0, |array| array.len());
        let rows = |make: &dyn Fn(usize) -> Result<i64>| -> Result<Vec<Option<i64>>> {
            (0..count).map(|row| fields.all_there(row).then(|| make(row)).transpose()).collect()
        };
        let instant = |row: usize| -> Result<i64> { Ok(fields.date(row)? * DAY_US + fields.clock(row, 3)?) };
        Ok(ColumnarValue::Array(match self.what {
            What::Date => {
                let days = rows(&|row| fields.date(row))?.into_iter().map(|day| day.map(|day| day as i32));
                Arc::new(days.collect::<Date32Array>())
            }
            What::Time => Arc::new(Time64MicrosecondArray::from(rows(&|row| fields.clock(row, 0))?)),
            What::Timestamp => Arc::new(TimestampMicrosecondArray::from(rows(&instant)?)),
            What::TimestampTz => {
                let zoned = |row: usize| -> Result<i64> {
                    let zone = match arrays.get(6) {
                        Some(names) => named_zone(names.as_string::<i32>().value(row))?,
                        None => session,
                    };
                    let beyond = || refusal(Condition::DatetimeOverflow, "timestamp out of range".to_owned());
                    zone.to_utc(instant(row)?).ok_or_else(beyond)
                };
                Arc::new(TimestampMicrosecondArray::from(rows(&zoned)?).with_timezone("UTC"))
            }
            What::Interval => {
                let intervals = (0..count).map(|row| fields.all_there(row).then(|| fields.interval(row)).transpose());
                Arc::new(intervals.collect::<Result<IntervalMonthDayNanoArray>>()?) as ArrayRef
            }
        }))
    }
}

/// The arguments of a call.
struct Fields<'a>(&'a [ArrayRef]);

impl Fields<'_> {
    fn all_there(&self, row: usize) -> bool {
        self.0.iter().all(|array| array.is_valid(row))
    }

    fn integer(&self, at: usize, row: usize) -> i64 {
        let integers: &PrimitiveArray<Int32Type> = self.0[at].as_primitive();
        integers.value(row).into()
    }

    fn double(&self, at: usize, row: usize) -> f64 {
        self.0[at].as_primitive::<Float64Type>().value(row)
    }

    /// Days since 1970 of the first three fields; years below 0 are before Christ.
    fn date(&self, row: usize) -> Result<i64> {
        let [year, month, day] = [0, 1, 2].map(|at| self.integer(at, row));
        let astronomical = if year < 0 { Some(year + 1) } else { Some(year).filter(|year| *year != 0) };
        let small = |field: i64| u32::try_from(field).ok();
        let date = astronomical
            .and_then(|year| i32::try_from(year).ok())
            .zip(small(month))
            .zip(small(day))
            .and_then(|((year, month), day)| NaiveDate::from_ymd_opt(year, month, day));
        date.map(|date| (date - NaiveDate::default()).num_days()).ok_or_else(|| {
            let message = format!("date field value out of range: {year}-{month:02}-{day:02}");
            refusal(Condition::DatetimeOverflow, message)
        })
    }

    /// Microseconds since midnight of the fields from `first` on.
    fn clock(&self, row: usize, first: usize) -> Result<i64> {
        let (hour, minute) = (self.integer(first, row), self.integer(first + 1, row));
        let seconds = self.double(first + 2, row);
        let us = (seconds * US_PER_SECOND as f64).round_ties_even();
        let fits = (0..=24).contains(&hour) && (0..60).contains(&minute) && (0.0..=60.0 * 1e6).contains(&us);
        let us = hour * HOUR_US + minute * MINUTE_US + us as i64;
        if fits && us <= DAY_US {
            return Ok(us);
        }
        let message = format!("time field value out of range: {hour}:{minute:02}:{seconds:02}");
        Err(refusal(Condition::DatetimeOverflow, message))
    }

    fn interval(&self, row: usize) -> Result<IntervalMonthDayNano> {
        let [years, months, weeks, days, hours, minutes] = [0, 1, 2, 3, 4, 5].map(|at| self.integer(at, row));
        let seconds = (self.double(6, row) * US_PER_SECOND as f64).round_ties_even();
        let seconds = Some(seconds).filter(|seconds| seconds.abs() < i64::MAX as f64).ok_or_else(too_long)?;
        let us = (hours * HOUR_US + minutes * MINUTE_US).checked_add(seconds as i64).ok_or_else(too_long)?;
        let months = i32::try_from(years * 12 + months).map_err(|_| too_long())?;
        let days = i32::try_from(weeks * 7 + days).map_err(|_| too_long())?;
        Ok(IntervalMonthDayNano::new(months, days, us.checked_mul(NS_PER_US).ok_or_else(too_long)?))
    }
}

fn named_zone(name: &str) -> Result<Zone> {
    let unknown = || refusal(Condition::InvalidParameterValue, format!("time zone \"{name}\" not recognized"));
    Zone::parse(name).ok_or_else(unknown)
}

fn refusal(condition: Condition, message: String) -> DataFusionError {
    DataFusionError::External(Box::new(Error::report(condition, message)))
}
