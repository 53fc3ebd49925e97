//! `time_bucket(width, time [, origin | offset | timezone …])` as TimescaleDB defines it.
//!
//! Buckets of days, hours and smaller are counted from Monday 2000-01-03 00:00, buckets of months from 2000-01-01, unless an origin is
//! given. With a time zone they follow its local time. Integers have buckets counted from 0.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
    TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveDateTime, Offset, TimeDelta, TimeZone};
use chrono_tz::Tz;
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, exec_err, plan_err};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

const DAY_US: i64 = 86_400_000_000;
/// Monday, 2000-01-03 00:00.
const ORIGIN_US: i64 = 10_959 * DAY_US;
/// Months from year 0 to 2000-01.
const ORIGIN_MONTHS: i64 = 2000 * 12;

/// `time_bucket`.
pub(super) fn time_bucket() -> ScalarUDF {
    ScalarUDF::from(TimeBucket { signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeBucket {
    signature: Signature,
}

impl ScalarUDFImpl for TimeBucket {
    fn name(&self) -> &'static str {
        "time_bucket"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [_, time, ..] => Ok(time.clone()),
            _ => plan_err!("function time_bucket takes a width and a time"),
        }
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [width, time, further @ ..] = arguments else {
            return plan_err!("function time_bucket takes a width and a time");
        };
        if time.is_integer() {
            return coerce_integers(width, time, further);
        }
        let time = match time {
            DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
            DataType::Date32 => DataType::Date32,
            DataType::Utf8 | DataType::Null => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            other => return plan_err!("function time_bucket has no buckets for values of type {other}"),
        };
        if !matches!(width, DataType::Interval(_) | DataType::Duration(_) | DataType::Utf8 | DataType::Null) {
            return plan_err!("function time_bucket takes an interval as its width, not {width}");
        }
        let further = coerce_further(&time, further)?;
        Ok([vec![interval(), time], further].concat())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let [width, time, further @ ..] = arguments.args.as_slice() else {
            return exec_err!("function time_bucket takes a width and a time");
        };
        let scalar = matches!(time, ColumnarValue::Scalar(_));
        let all_constant = matches!(width, ColumnarValue::Scalar(_))
            && further.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let times = time.to_array(if scalar && all_constant { 1 } else { rows })?;
        let length = times.len();
        let buckets = match times.data_type() {
            DataType::Int64 => {
                let parameter = |argument: &ColumnarValue| Rows::<Int64Type>::of(argument, length);
                let (width, offset) = (parameter(width)?, further.first().map(parameter).transpose()?);
                map::<Int64Type>(&times, |row, value| {
                    bucket_integer(width.at(row), offset.as_ref().map(|o| o.at(row)), value)
                })?
            }
            DataType::Date32 => {
                let plan = Plan::of(width, further, length)?;
                map::<Date32Type>(&times, |row, days| plan.bucket_days(row, days))?
            }
            _ => {
                let plan = Plan::of(width, further, length)?;
                let buckets = map::<TimestampMicrosecondType>(&times, |row, us| plan.bucket(row, us))?;
                arrow::compute::cast(&buckets, times.data_type())?
            }
        };
        if scalar && all_constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&buckets, 0)?));
        }
        Ok(ColumnarValue::Array(buckets))
    }

    /// A later time never has an earlier bucket, as long as the other arguments are constant and no zone sets clocks back.
    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        match inputs {
            [width, time] if width.sort_properties == SortProperties::Singleton => Ok(time.sort_properties),
            _ => Ok(SortProperties::Unordered),
        }
    }
}

fn interval() -> DataType {
    DataType::Interval(IntervalUnit::MonthDayNano)
}

fn coerce_integers(width: &DataType, time: &DataType, further: &[DataType]) -> Result<Vec<DataType>> {
    if further.len() > 1 || !(width.is_integer() || width.is_null()) || further.iter().any(|t| !t.is_integer()) {
        return plan_err!("function time_bucket of {time} takes integers: a width, a value and an offset");
    }
    Ok(vec![DataType::Int64; 2 + further.len()])
}

/// What may follow the time: an origin or an offset; or, with a zone, a zone, then an origin, then an offset.
fn coerce_further(time: &DataType, further: &[DataType]) -> Result<Vec<DataType>> {
    let has_zone = matches!(time, DataType::Timestamp(_, Some(_)));
    let coerced: Option<Vec<DataType>> = further
        .iter()
        .enumerate()
        .map(|(position, argument)| match argument {
            DataType::Utf8 if position == 0 && has_zone => Some(DataType::Utf8),
            DataType::Timestamp(..) | DataType::Date32 | DataType::Utf8 | DataType::Null => Some(match time {
                DataType::Timestamp(unit, _) if further.first() == Some(&DataType::Utf8) && has_zone => {
                    DataType::Timestamp(*unit, Some("UTC".into()))
                }
                DataType::Date32 => DataType::Timestamp(TimeUnit::Microsecond, None),
                time => time.clone(),
            }),
            DataType::Interval(_) | DataType::Duration(_) => Some(interval()),
            _ => None,
        })
        .collect();
    match coerced {
        Some(coerced) if further.len() <= if has_zone { 3 } else { 2 } => Ok(coerced),
        _ => plan_err!("function time_bucket takes an origin, an offset, or a time zone after the time"),
    }
}

/// A parameter's value in each row.
struct Rows<T: ArrowPrimitiveType> {
    values: PrimitiveArray<T>,
    constant: bool,
}

impl<T: ArrowPrimitiveType> Rows<T> {
    fn of(argument: &ColumnarValue, rows: usize) -> Result<Rows<T>> {
        let constant = matches!(argument, ColumnarValue::Scalar(_));
        let values = argument.to_array(if constant { 1 } else { rows })?;
        let values = match values.data_type() {
            DataType::Timestamp(unit, Some(_)) => arrow::compute::cast(&values, &DataType::Timestamp(*unit, None))?,
            _ => values,
        };
        match values.as_primitive_opt::<T>() {
            Some(values) => Ok(Rows { values: values.clone(), constant }),
            None => exec_err!("function time_bucket does not take {} there", values.data_type()),
        }
    }

    fn at(&self, row: usize) -> Option<T::Native> {
        let row = if self.constant { 0 } else { row };
        self.values.is_valid(row).then(|| self.values.value(row))
    }
}

/// Applies `bucket` to each value that is not NULL.
fn map<T: ArrowPrimitiveType>(
    values: &ArrayRef,
    bucket: impl Fn(usize, T::Native) -> Result<Option<T::Native>>,
) -> Result<ArrayRef> {
    let Some(values) = values.as_primitive_opt::<T>() else {
        return exec_err!("function time_bucket has no buckets for values of type {}", values.data_type());
    };
    let buckets = values.iter().enumerate().map(|(row, value)| value.map_or(Ok(None), |value| bucket(row, value)));
    Ok(Arc::new(buckets.collect::<Result<PrimitiveArray<T>>>()?))
}

fn bucket_integer(width: Option<i64>, offset: Option<Option<i64>>, value: i64) -> Result<Option<i64>> {
    let (Some(width), Some(offset)) = (width, offset.unwrap_or(Some(0))) else { return Ok(None) };
    if width <= 0 {
        return exec_err!("period must be greater than 0");
    }
    floor(value, width, offset).map(Some)
}

/// The largest `origin + k · width` that is at most `value`.
fn floor(value: i64, width: i64, origin: i64) -> Result<i64> {
    let origin = origin.rem_euclid(width);
    let bucket = i128::from(value) - (i128::from(value) - i128::from(origin)).rem_euclid(i128::from(width));
    i64::try_from(bucket).map_err(|_| out_of_range())
}

fn out_of_range() -> datafusion::error::DataFusionError {
    exec_datafusion_err!("timestamp out of range")
}

/// The parameters of one call over times.
struct Plan {
    width: Rows<IntervalMonthDayNanoType>,
    zone: Option<Vec<Option<Tz>>>,
    origin: Option<Rows<TimestampMicrosecondType>>,
    offset: Option<Rows<IntervalMonthDayNanoType>>,
}

impl Plan {
    fn of(width: &ColumnarValue, further: &[ColumnarValue], rows: usize) -> Result<Plan> {
        let mut plan = Plan { width: Rows::of(width, rows)?, zone: None, origin: None, offset: None };
        for argument in further {
            match argument.data_type() {
                DataType::Utf8 => plan.zone = Some(zones(argument, rows)?),
                DataType::Interval(_) => plan.offset = Some(Rows::of(argument, rows)?),
                _ => plan.origin = Some(Rows::of(argument, rows)?),
            }
        }
        Ok(plan)
    }

    /// The bucket of a time in microseconds; NULL when a parameter is.
    fn bucket(&self, row: usize, us: i64) -> Result<Option<i64>> {
        let zone = match &self.zone {
            Some(zones) => match zones[if zones.len() == 1 { 0 } else { row }] {
                Some(zone) => Some(zone),
                None => return Ok(None),
            },
            None => None,
        };
        let Some(width) = self.width.at(row) else { return Ok(None) };
        let origin = match &self.origin {
            Some(origin) => match origin.at(row) {
                Some(us) => Some(to_local(zone, us)?),
                None => return Ok(None),
            },
            None => None,
        };
        let offset = match &self.offset {
            Some(offset) => match offset.at(row) {
                Some(offset) => offset,
                None => return Ok(None),
            },
            None => IntervalMonthDayNano::new(0, 0, 0),
        };
        let local = shift(to_local(zone, us)?, offset, -1)?;
        let bucket = shift(bucket_local(local, width, origin)?, offset, 1)?;
        from_local(zone, bucket).map(Some)
    }

    fn bucket_days(&self, row: usize, days: i32) -> Result<Option<i32>> {
        let bucket = self.bucket(row, i64::from(days) * DAY_US)?;
        bucket.map(|us| i32::try_from(us.div_euclid(DAY_US)).map_err(|_| out_of_range())).transpose()
    }
}

fn zones(argument: &ColumnarValue, rows: usize) -> Result<Vec<Option<Tz>>> {
    let rows = if matches!(argument, ColumnarValue::Scalar(_)) { 1 } else { rows };
    let names = argument.to_array(rows)?;
    let parse = |name: &str| {
        let zone = chrono_tz::TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(name));
        zone.copied().ok_or_else(|| exec_datafusion_err!("time zone \"{name}\" not recognized"))
    };
    names.as_string::<i32>().iter().map(|name| name.map(parse).transpose()).collect()
}

fn bucket_local(us: i64, width: IntervalMonthDayNano, origin: Option<i64>) -> Result<i64> {
    if width.months != 0 {
        if width.days != 0 || width.nanoseconds != 0 {
            return exec_err!("month intervals cannot have day or time component");
        }
        return bucket_months(us, i64::from(width.months), origin);
    }
    let day_us = i64::from(width.days).checked_mul(DAY_US);
    match day_us.and_then(|us| us.checked_add(width.nanoseconds / 1000)) {
        Some(width) if width > 0 => floor(us, width, origin.unwrap_or(ORIGIN_US)),
        _ => exec_err!("period must be greater than 0"),
    }
}

/// Of an origin only its month counts.
fn bucket_months(us: i64, width: i64, origin: Option<i64>) -> Result<i64> {
    if width <= 0 {
        return exec_err!("period must be greater than 0");
    }
    let month = |us: i64| datetime(us).map(|at| i64::from(at.year()) * 12 + i64::from(at.month0()));
    let origin = origin.map_or(Ok(ORIGIN_MONTHS), month)?;
    let bucket = floor(month(us)?, width, origin)?;
    let year = i32::try_from(bucket.div_euclid(12)).map_err(|_| out_of_range())?;
    let month0 = u32::try_from(bucket.rem_euclid(12)).map_err(|_| out_of_range())?;
    let start = NaiveDate::from_ymd_opt(year, month0 + 1, 1).ok_or_else(out_of_range)?;
    Ok(start.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros())
}

/// `us` moved by `interval`, forwards or backwards.
fn shift(us: i64, interval: IntervalMonthDayNano, sign: i64) -> Result<i64> {
    let mut us = us;
    if interval.months != 0 {
        let months = i64::from(interval.months) * sign;
        let at = datetime(us)?;
        let count = Months::new(u32::try_from(months.abs()).map_err(|_| out_of_range())?);
        let moved = if months > 0 { at.checked_add_months(count) } else { at.checked_sub_months(count) };
        us = moved.ok_or_else(out_of_range)?.and_utc().timestamp_micros();
    }
    let fixed =
        i64::from(interval.days).checked_mul(DAY_US).and_then(|days| days.checked_add(interval.nanoseconds / 1000));
    fixed.and_then(|fixed| us.checked_add(fixed.checked_mul(sign)?)).ok_or_else(out_of_range)
}

fn datetime(us: i64) -> Result<NaiveDateTime> {
    DateTime::from_timestamp_micros(us).map(|at| at.naive_utc()).ok_or_else(out_of_range)
}

/// What clocks in `zone` show, as microseconds.
fn to_local(zone: Option<Tz>, us: i64) -> Result<i64> {
    let Some(zone) = zone else { return Ok(us) };
    Ok(zone.from_utc_datetime(&datetime(us)?).naive_local().and_utc().timestamp_micros())
}

/// When clocks in `zone` show `us`. Where they show it twice, the second time; where never, as if they had not been set forward:
/// PostgreSQL's choice in both cases.
fn from_local(zone: Option<Tz>, us: i64) -> Result<i64> {
    let Some(zone) = zone else { return Ok(us) };
    let local = datetime(us)?;
    if let Some(at) = zone.from_local_datetime(&local).latest() {
        return Ok(at.timestamp_micros());
    }
    let before = local.checked_sub_signed(TimeDelta::days(1)).ok_or_else(out_of_range)?;
    let offset = zone.offset_from_local_datetime(&before).latest().ok_or_else(out_of_range)?;
    Ok(us - i64::from(offset.fix().local_minus_utc()) * 1_000_000)
}

#[cfg(test)]
mod tests;
