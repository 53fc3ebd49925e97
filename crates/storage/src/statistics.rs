//! Exact statistics of one column of a segment.

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use event::{Column, ColumnId};

use crate::Error;
use crate::segment::{ColumnStatistics, StatisticsValue};

/// Longer text is not kept as a smallest or largest value.
const TEXT_BYTES_MAX: usize = 64;

/// Statistics over all `values` of a column, in their order (which float sums depend on).
pub(crate) fn column_statistics(column: &Column, values: &ArrayRef) -> Result<ColumnStatistics, Error> {
    let bounds = match values.data_type() {
        DataType::Int16 => integers::<Int16Type>(values, true),
        DataType::Int32 => integers::<Int32Type>(values, true),
        DataType::Int64 => integers::<Int64Type>(values, true),
        DataType::Date32 => integers::<Date32Type>(values, false),
        DataType::Time64(_) => integers::<Time64MicrosecondType>(values, false),
        DataType::Timestamp(..) => integers::<TimestampMicrosecondType>(values, false),
        DataType::Decimal128(..) => decimals(values.as_primitive()),
        DataType::Float32 => floats(values.as_primitive::<Float32Type>().iter().flatten().map(f64::from)),
        DataType::Float64 => floats(values.as_primitive::<Float64Type>().iter().flatten()),
        DataType::Boolean => plain(values.as_boolean().iter().flatten(), |value| Some(StatisticsValue::Boolean(value))),
        // What nobody looks up by range.
        DataType::Binary | DataType::FixedSizeBinary(_) | DataType::Interval(_) | DataType::List(_) => {
            Bounds::default()
        }
        DataType::Utf8 => plain(values.as_string::<i32>().iter().flatten(), text),
        other => return Err(Error::Columns(format!("column \"{}\" has type {other}", column.name))),
    };
    let Bounds { nans, min, max, sum } = bounds;
    Ok(ColumnStatistics { column: column.id, nulls: values.null_count() as u64, nans, min, max, sum })
}

/// All of a column's statistics but the NULLs.
#[derive(Default)]
struct Bounds {
    nans: u64,
    min: Option<StatisticsValue>,
    max: Option<StatisticsValue>,
    sum: Option<StatisticsValue>,
}

/// Smallest and largest of `values`, without a sum.
fn plain<T: Ord + Copy>(values: impl Iterator<Item = T>, keep: impl Fn(T) -> Option<StatisticsValue>) -> Bounds {
    match bounds(values) {
        None => Bounds::default(),
        Some((min, max)) => Bounds { min: keep(min), max: keep(max), ..Bounds::default() },
    }
}

fn bounds<T: Ord + Copy>(mut values: impl Iterator<Item = T>) -> Option<(T, T)> {
    let first = values.next()?;
    Some(values.fold((first, first), |(min, max), value| (min.min(value), max.max(value))))
}

/// Integers of any width, dates and timestamps. The sum of 2³² values of 64 bits always fits.
fn integers<T: ArrowPrimitiveType>(values: &ArrayRef, with_sum: bool) -> Bounds
where
    T::Native: Ord + Into<i128>,
{
    let values: &PrimitiveArray<T> = values.as_primitive();
    let Some((min, max)) = bounds(values.iter().flatten()) else { return Bounds::default() };
    let sum = || StatisticsValue::Integer(values.iter().flatten().map(Into::<i128>::into).sum());
    Bounds {
        nans: 0,
        min: Some(StatisticsValue::Integer(min.into())),
        max: Some(StatisticsValue::Integer(max.into())),
        sum: with_sum.then(sum),
    }
}

fn decimals(values: &PrimitiveArray<Decimal128Type>) -> Bounds {
    let Some((min, max)) = bounds(values.iter().flatten()) else { return Bounds::default() };
    let sum = values.iter().flatten().try_fold(0i128, i128::checked_add);
    Bounds {
        nans: 0,
        min: Some(StatisticsValue::Decimal(min)),
        max: Some(StatisticsValue::Decimal(max)),
        sum: sum.map(StatisticsValue::Decimal),
    }
}

/// Floats as doubles; −0 is below 0. A sum with NaN in it is the one canonical NaN.
fn floats(values: impl Iterator<Item = f64>) -> Bounds {
    let (mut nans, mut sum, mut range, mut any) = (0, 0.0, None, false);
    for value in values {
        any = true;
        sum += value;
        if value.is_nan() {
            nans += 1;
            continue;
        }
        let (min, max) = range.unwrap_or((value, value));
        let min = if value.total_cmp(&min).is_lt() { value } else { min };
        let max = if value.total_cmp(&max).is_gt() { value } else { max };
        range = Some((min, max));
    }
    let bits =
        |value: f64| StatisticsValue::FloatBits(if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() });
    Bounds {
        nans,
        min: range.map(|(min, _)| bits(min)),
        max: range.map(|(_, max)| bits(max)),
        sum: any.then(|| bits(sum)),
    }
}

fn text(value: &str) -> Option<StatisticsValue> {
    (value.len() <= TEXT_BYTES_MAX).then(|| StatisticsValue::Text(value.to_owned()))
}

/// Statistics of a column over several batches of rows.
#[derive(Debug)]
pub(crate) struct ColumnTotals {
    column: ColumnId,
    nulls: u64,
    nans: u64,
    min: Total,
    max: Total,
    sum: Total,
}

/// One value of several batches.
#[derive(Debug, Default)]
enum Total {
    /// No batch had a value.
    #[default]
    Nothing,
    /// It cannot be told, since it cannot for one of the batches.
    Unknown,
    /// The value.
    Known(StatisticsValue),
}

impl ColumnTotals {
    pub(crate) fn new(column: &Column) -> Self {
        let (min, max, sum) = Default::default();
        Self { column: column.id, nulls: 0, nans: 0, min, max, sum }
    }

    /// Adds the statistics of a batch with that many rows.
    pub(crate) fn add(&mut self, part: ColumnStatistics, rows: u64) {
        self.nulls += part.nulls;
        self.nans += part.nans;
        let values = rows - part.nulls;
        if values > part.nans {
            self.min.add(part.min, |a, b| Some(if compare(&b, &a)?.is_lt() { b } else { a }));
            self.max.add(part.max, |a, b| Some(if compare(&b, &a)?.is_gt() { b } else { a }));
        }
        if values > 0 {
            self.sum.add(part.sum, add);
        }
    }

    pub(crate) fn finish(self) -> ColumnStatistics {
        let [min, max, sum] = [self.min, self.max, self.sum].map(Total::finish);
        ColumnStatistics { column: self.column, nulls: self.nulls, nans: self.nans, min, max, sum }
    }
}

impl Total {
    fn add(
        &mut self,
        part: Option<StatisticsValue>,
        combine: impl Fn(StatisticsValue, StatisticsValue) -> Option<StatisticsValue>,
    ) {
        let combined = match (std::mem::take(self), part) {
            (Total::Nothing, part) => part,
            (Total::Known(total), Some(part)) => combine(total, part),
            (Total::Known(_), None) | (Total::Unknown, _) => None,
        };
        *self = combined.map_or(Total::Unknown, Total::Known);
    }

    fn finish(self) -> Option<StatisticsValue> {
        match self {
            Total::Known(value) => Some(value),
            Total::Nothing | Total::Unknown => None,
        }
    }
}

/// How two values of one column compare; `None` when they are not of one type.
fn compare(a: &StatisticsValue, b: &StatisticsValue) -> Option<Ordering> {
    use StatisticsValue::{Boolean, Decimal, FloatBits, Integer, Text};
    Some(match (a, b) {
        (Integer(a), Integer(b)) | (Decimal(a), Decimal(b)) => a.cmp(b),
        (FloatBits(a), FloatBits(b)) => f64::from_bits(*a).total_cmp(&f64::from_bits(*b)),
        (Text(a), Text(b)) => a.cmp(b),
        (Boolean(a), Boolean(b)) => a.cmp(b),
        _ => return None,
    })
}

/// The sum of two sums; `None` when it overflows or there is none.
fn add(a: StatisticsValue, b: StatisticsValue) -> Option<StatisticsValue> {
    use StatisticsValue::{Decimal, FloatBits, Integer};
    Some(match (a, b) {
        (Integer(a), Integer(b)) => Integer(a.checked_add(b)?),
        (Decimal(a), Decimal(b)) => Decimal(a.checked_add(b)?),
        (FloatBits(a), FloatBits(b)) => {
            let sum = f64::from_bits(a) + f64::from_bits(b);
            FloatBits(if sum.is_nan() { f64::NAN.to_bits() } else { sum.to_bits() })
        }
        _ => return None,
    })
}
