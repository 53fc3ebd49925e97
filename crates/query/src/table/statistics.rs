//! What is known of a unit's columns without reading it: from the manifest for segments, from the batches for rows in memory.
//!
//! Min and max leave NaN out, but comparisons in queries put NaN above every number; where a NaN may be, nothing is claimed.
//! Both order −0 below 0.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::common::stats::{ColumnStatistics, Precision, Statistics};
use event::{ColumnType, TableDefinition};
use storage::segment::StatisticsValue;

use super::unit::{HoledSegment, ScanUnit};

/// What is known of one column of one unit. Each value that is there is exact.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// NULLs.
    pub(crate) nulls: Option<u64>,
    /// Smallest value that is not NULL.
    pub(crate) min: Option<ScalarValue>,
    /// Largest value that is not NULL.
    pub(crate) max: Option<ScalarValue>,
    /// Sum of integers and decimals, in the type SQL gives it. Sums of floats depend on the order of addition and are left out.
    pub(crate) sum: Option<ScalarValue>,
}

/// What is known of the column at `position`.
pub(crate) fn known(unit: &ScanUnit, definition: &TableDefinition, position: usize) -> Known {
    match unit {
        ScanUnit::Segment(segment) => known_of_segment(segment, definition, position),
        // Without the deleted rows the bounds still hold; counts and sums do not.
        ScanUnit::Holed(HoledSegment { segment, .. }) => {
            let Known { nulls, min, max, .. } = known_of_segment(segment, definition, position);
            Known { nulls: nulls.filter(|nulls| *nulls == 0), min, max, sum: None }
        }
        ScanUnit::Memory { rows, .. } => {
            let is_time = definition.event().is_some_and(|event| event.time_column == position);
            let bound = |time: Option<i64>| {
                time.filter(|_| is_time).and_then(|us| {
                    scalar(&StatisticsValue::Integer(i128::from(us)), definition.columns[position].column_type)
                })
            };
            Known {
                nulls: Some(nulls_in_memory(unit, position)),
                min: bound(rows.time_min_us),
                max: bound(rows.time_max_us),
                sum: None,
            }
        }
        ScanUnit::Uncommitted(_) => Known { nulls: Some(nulls_in_memory(unit, position)), ..Known::default() },
    }
}

fn known_of_segment(segment: &storage::Segment, definition: &TableDefinition, position: usize) -> Known {
    let column = &definition.columns[position];
    let Some(statistics) = segment.meta.columns.iter().find(|c| c.column == column.id) else {
        // The segment is older than the column.
        return match column.initial {
            None => Known { nulls: Some(segment.meta.rows), ..Known::default() },
            Some(_) => {
                let value = ScalarValue::try_from_array(&column.of_older_rows(1), 0).ok();
                let value = value.filter(|value| !value.data_type().is_floating());
                Known { nulls: Some(0), min: value.clone(), max: value, sum: None }
            }
        };
    };
    let bound = |value: &Option<StatisticsValue>| match value {
        Some(value) if statistics.nans == 0 => scalar(value, column.column_type),
        _ => None,
    };
    Known {
        nulls: Some(statistics.nulls),
        min: bound(&statistics.min),
        max: bound(&statistics.max),
        sum: statistics.sum.as_ref().and_then(|value| sum(value, column.column_type)),
    }
}

/// Whether the unit is a segment with a NaN in the column at `position`.
pub(crate) fn may_hold_nan(unit: &ScanUnit, definition: &TableDefinition, position: usize) -> bool {
    let segment = match unit {
        ScanUnit::Segment(segment) | ScanUnit::Holed(HoledSegment { segment, .. }) => segment,
        ScanUnit::Memory { .. } | ScanUnit::Uncommitted(_) => return false,
    };
    let column = definition.columns[position].id;
    segment.meta.columns.iter().any(|statistics| statistics.column == column && statistics.nans > 0)
}

fn nulls_in_memory(unit: &ScanUnit, position: usize) -> u64 {
    unit.batches().iter().map(|batch| batch.column(position).null_count() as u64).sum()
}

/// A manifest value as a scalar of the column's Arrow type; `None` when it does not fit the type.
fn scalar(value: &StatisticsValue, column_type: ColumnType) -> Option<ScalarValue> {
    match (value, column_type.arrow()) {
        (StatisticsValue::Integer(v), DataType::Int16) => Some(ScalarValue::Int16(Some(i16::try_from(*v).ok()?))),
        (StatisticsValue::Integer(v), DataType::Int32) => Some(ScalarValue::Int32(Some(i32::try_from(*v).ok()?))),
        (StatisticsValue::Integer(v), DataType::Int64) => Some(ScalarValue::Int64(Some(i64::try_from(*v).ok()?))),
        (StatisticsValue::Integer(v), DataType::Date32) => Some(ScalarValue::Date32(Some(i32::try_from(*v).ok()?))),
        (StatisticsValue::Integer(v), DataType::Timestamp(TimeUnit::Microsecond, zone)) => {
            Some(ScalarValue::TimestampMicrosecond(Some(i64::try_from(*v).ok()?), zone))
        }
        (StatisticsValue::Integer(v), DataType::Time64(TimeUnit::Microsecond)) => {
            Some(ScalarValue::Time64Microsecond(Some(i64::try_from(*v).ok()?)))
        }
        (StatisticsValue::FloatBits(bits), DataType::Float64) => {
            Some(ScalarValue::Float64(Some(f64::from_bits(*bits))))
        }
        (StatisticsValue::FloatBits(bits), DataType::Float32) => {
            // The manifest keeps every float as the bits of its exact 64-bit equal.
            #[allow(clippy::cast_possible_truncation)]
            let narrow = f64::from_bits(*bits) as f32;
            Some(ScalarValue::Float32(Some(narrow)))
        }
        (StatisticsValue::Decimal(v), DataType::Decimal128(precision, scale)) => {
            Some(ScalarValue::Decimal128(Some(*v), precision, scale))
        }
        (StatisticsValue::Text(v), DataType::Utf8) => Some(ScalarValue::Utf8(Some(v.clone()))),
        (StatisticsValue::Boolean(v), DataType::Boolean) => Some(ScalarValue::Boolean(Some(*v))),
        _ => None,
    }
}

fn sum(value: &StatisticsValue, column_type: ColumnType) -> Option<ScalarValue> {
    match (value, column_type) {
        (StatisticsValue::Integer(v), ColumnType::SmallInt | ColumnType::Integer | ColumnType::BigInt) => {
            Some(ScalarValue::Int64(Some(i64::try_from(*v).ok()?)))
        }
        (StatisticsValue::Decimal(v), ColumnType::Numeric { precision, scale }) => {
            Some(ScalarValue::Decimal128(Some(*v), (precision + 10).min(38), scale))
        }
        _ => None,
    }
}

/// Statistics of all `units` together for the columns at `projection`, exact wherever they say so.
pub(crate) fn statistics(units: &[ScanUnit], definition: &TableDefinition, projection: &[usize]) -> Statistics {
    let rows: u64 = units.iter().map(ScanUnit::rows).sum();
    let column_statistics = projection.iter().map(|&position| column_statistics(units, definition, position)).collect();
    let all = Statistics { num_rows: exact_count(Some(rows)), total_byte_size: Precision::Absent, column_statistics };
    let holed = units.iter().any(|unit| matches!(unit, ScanUnit::Holed(_)));
    if holed { all.to_inexact() } else { all }
}

fn column_statistics(units: &[ScanUnit], definition: &TableDefinition, position: usize) -> ColumnStatistics {
    if position >= definition.columns.len() {
        return ColumnStatistics::new_unknown();
    }
    let mut nulls = Some(0u64);
    let mut min = Merge::Nothing;
    let mut max = Merge::Nothing;
    let mut sum = Merge::Nothing;
    for unit in units {
        let known = known(unit, definition, position);
        nulls = nulls.zip(known.nulls).and_then(|(a, b)| a.checked_add(b));
        // A unit of NULLs alone has neither bounds nor a sum, and takes nothing from those of the others.
        if known.nulls == Some(unit.rows()) {
            continue;
        }
        min = min.with(known.min, |a, b| Some(if b < a { b } else { a }));
        max = max.with(known.max, |a, b| Some(if b > a { b } else { a }));
        sum = sum.with(known.sum, |a, b| add(&a, &b));
    }
    ColumnStatistics {
        null_count: exact_count(nulls),
        max_value: max.precision(),
        min_value: min.precision(),
        sum_value: sum.precision(),
        distinct_count: Precision::Absent,
        byte_size: Precision::Absent,
    }
}

/// A value gathered over units: none seen yet, known so far, or lost.
enum Merge {
    Nothing,
    Known(ScalarValue),
    Lost,
}

impl Merge {
    fn with(
        self,
        value: Option<ScalarValue>,
        merge: impl Fn(ScalarValue, ScalarValue) -> Option<ScalarValue>,
    ) -> Merge {
        match (self, value) {
            (Merge::Lost, _) | (_, None) => Merge::Lost,
            (Merge::Nothing, Some(value)) => Merge::Known(value),
            (Merge::Known(so_far), Some(value)) => merge(so_far, value).map_or(Merge::Lost, Merge::Known),
        }
    }

    fn precision(self) -> Precision<ScalarValue> {
        match self {
            Merge::Known(value) => Precision::Exact(value),
            Merge::Nothing | Merge::Lost => Precision::Absent,
        }
    }
}

fn add(a: &ScalarValue, b: &ScalarValue) -> Option<ScalarValue> {
    match (a, b) {
        (ScalarValue::Int64(Some(a)), ScalarValue::Int64(Some(b))) => {
            Some(ScalarValue::Int64(Some(a.checked_add(*b)?)))
        }
        (ScalarValue::Decimal128(Some(a), precision, scale), ScalarValue::Decimal128(Some(b), ..)) => {
            Some(ScalarValue::Decimal128(Some(a.checked_add(*b)?), *precision, *scale))
        }
        _ => None,
    }
}

fn exact_count(count: Option<u64>) -> Precision<usize> {
    match count.and_then(|count| usize::try_from(count).ok()) {
        Some(count) => Precision::Exact(count),
        None => Precision::Absent,
    }
}
