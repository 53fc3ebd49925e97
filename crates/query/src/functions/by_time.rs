//! `first(value, time)` and `last(value, time)`: the value of the earliest and of the latest row.
//!
//! Rows whose time is NULL do not count; a NULL value does. Among rows of equal time `first` takes the smallest value and `last` the
//! largest, NULL being the smallest of all, so that the answer does not depend on the order in which rows are read.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, make_comparator};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, TimeUnit};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

/// Which end of time is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum End {
    Earliest,
    Latest,
}

impl End {
    /// How a row at `ordering` from the best so far compares: `Greater` means it takes its place.
    fn prefer(self, ordering: Ordering) -> Ordering {
        match self {
            End::Earliest => ordering.reverse(),
            End::Latest => ordering,
        }
    }
}

/// `first`.
pub(super) fn first() -> AggregateUDF {
    AggregateUDF::from(ByTime::new("first", End::Earliest))
}

/// `last`.
pub(super) fn last() -> AggregateUDF {
    AggregateUDF::from(ByTime::new("last", End::Latest))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ByTime {
    name: &'static str,
    end: End,
    signature: Signature,
}

impl ByTime {
    fn new(name: &'static str, end: End) -> ByTime {
        ByTime { name, end, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for ByTime {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [value, _] => Ok(value.clone()),
            _ => plan_err!("function {} takes a value and a time", self.name),
        }
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [value, time] = arguments else { return plan_err!("function {} takes a value and a time", self.name) };
        let time = match time {
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => time.clone(),
            time if time.is_integer() => DataType::Int64,
            DataType::Null | DataType::Utf8 => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            other => return plan_err!("function {} cannot order rows by values of type {other}", self.name),
        };
        Ok(vec![value.clone(), time])
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![
            Arc::new(Field::new(format!("{}[value]", args.name), args.return_type().clone(), true)),
            Arc::new(Field::new(format!("{}[time]", args.name), DataType::Int64, true)),
        ])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Whole(Groups::try_new(self.end, args.return_field.data_type())?)))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups::try_new(self.end, args.return_field.data_type())?))
    }
}

/// The best row of each group so far.
#[derive(Debug)]
struct Groups {
    end: End,
    null: ScalarValue,
    values: Vec<ScalarValue>,
    /// Of the value beside it, as ordered integers; `None` while the group has no row.
    times: Vec<Option<i64>>,
    /// Bytes that values hold beyond their own size.
    heap_bytes: usize,
}

impl Groups {
    fn try_new(end: End, value: &DataType) -> Result<Groups> {
        let null = ScalarValue::try_new_null(value)?;
        Ok(Groups { end, null, values: Vec::new(), times: Vec::new(), heap_bytes: 0 })
    }

    fn grow(&mut self, groups: usize) {
        self.values.resize(groups, self.null.clone());
        self.times.resize(groups, None);
    }

    /// Takes rows in: the columns are values and times as integers.
    fn take(
        &mut self,
        values: &ArrayRef,
        times: &Int64Array,
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
    ) -> Result<()> {
        let compare = make_comparator(values.as_ref(), values.as_ref(), SortOptions::default())?;
        let mut best: HashMap<usize, usize> = HashMap::new();
        for (row, &group) in group_indices.iter().enumerate() {
            let passes = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if !passes || times.is_null(row) {
                continue;
            }
            let time = times.value(row);
            let ordering = match (best.get(&group), self.times[group]) {
                (Some(&other), _) => time.cmp(&times.value(other)).then_with(|| compare(row, other)),
                (None, Some(so_far)) => match time.cmp(&so_far) {
                    Ordering::Equal => compare_scalars(&ScalarValue::try_from_array(values, row)?, &self.values[group]),
                    ordering => ordering,
                },
                (None, None) => {
                    best.insert(group, row);
                    continue;
                }
            };
            if self.end.prefer(ordering) == Ordering::Greater {
                best.insert(group, row);
            }
        }
        for (group, row) in best {
            let value = ScalarValue::try_from_array(values, row)?;
            self.heap_bytes = (self.heap_bytes + heap_bytes(&value)).saturating_sub(heap_bytes(&self.values[group]));
            self.values[group] = value;
            self.times[group] = Some(times.value(row));
        }
        Ok(())
    }

    fn emit(&mut self, emit_to: EmitTo) -> Result<(ArrayRef, ArrayRef)> {
        let values = emit_to.take_needed(&mut self.values);
        let times = emit_to.take_needed(&mut self.times);
        self.heap_bytes = self.values.iter().map(heap_bytes).sum();
        let times: ArrayRef = Arc::new(times.into_iter().collect::<Int64Array>());
        let values = match values.is_empty() {
            true => arrow::array::new_empty_array(&self.null.data_type()),
            false => ScalarValue::iter_to_array(values)?,
        };
        Ok((values, times))
    }
}

/// NULL is smaller than any value, as in the comparator of arrays.
fn compare_scalars(a: &ScalarValue, b: &ScalarValue) -> Ordering {
    match (a.is_null(), b.is_null()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
    }
}

fn heap_bytes(value: &ScalarValue) -> usize {
    value.size().saturating_sub(size_of::<ScalarValue>())
}

fn times_as_integers(times: &ArrayRef) -> Result<Int64Array> {
    let times = match times.data_type() {
        DataType::Date32 => cast(times, &DataType::Int32)?,
        _ => Arc::clone(times),
    };
    Ok(cast(&times, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.grow(total_num_groups);
        let times = times_as_integers(&values[1])?;
        self.take(&values[0], &times, group_indices, filter)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(self.emit(emit_to)?.0)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (values, times) = self.emit(emit_to)?;
        Ok(vec![values, times])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.grow(total_num_groups);
        self.take(&states[0], states[1].as_primitive::<Int64Type>(), group_indices, None)
    }

    /// A row by itself is its own best, unless it does not count.
    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let times = times_as_integers(&values[1])?;
        let times = match filter {
            Some(filter) => {
                let kept = (0..times.len()).map(|row| {
                    (filter.is_valid(row) && filter.value(row) && times.is_valid(row)).then(|| times.value(row))
                });
                kept.collect::<Int64Array>()
            }
            None => times,
        };
        Ok(vec![Arc::clone(&values[0]), Arc::new(times)])
    }

    fn size(&self) -> usize {
        self.values.capacity() * size_of::<ScalarValue>()
            + self.times.capacity() * size_of::<Option<i64>>()
            + self.heap_bytes
    }
}

/// All rows as one group.
#[derive(Debug)]
struct Whole(Groups);

impl Accumulator for Whole {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(values, &vec![0; values[0].len()], None, 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states, &vec![0; states[0].len()], 1)
    }

    /// Leaves the state as it is: window frames ask again after more rows.
    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.0.values.first().unwrap_or(&self.0.null).clone())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let time = self.0.times.first().copied().flatten();
        Ok(vec![self.evaluate()?, ScalarValue::Int64(time)])
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.0.size()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Row = (Option<i64>, Option<i64>);

    fn columns(rows: &[Row]) -> Vec<ArrayRef> {
        vec![
            Arc::new(rows.iter().map(|(value, _)| *value).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|(_, time)| *time).collect::<Int64Array>()),
        ]
    }

    fn groups(end: End) -> Groups {
        Groups::try_new(end, &DataType::Int64).unwrap()
    }

    fn naive(end: End, rows: &[Row]) -> Option<i64> {
        let rows = rows.iter().filter_map(|(value, time)| time.map(|time| (time, *value)));
        match end {
            End::Earliest => rows.min(),
            End::Latest => rows.max(),
        }
        .and_then(|(_, value)| value)
    }

    fn row() -> impl Strategy<Value = Row> {
        (proptest::option::weighted(0.8, 0i64..5), proptest::option::weighted(0.8, 0i64..8))
    }

    proptest! {
        /// However rows are dealt to partitions and batches, the merged answer is that of one pass over all of them.
        #[test]
        fn merged_partials_equal_the_naive_answer(
            rows in proptest::collection::vec((row(), 0usize..3, 0usize..3), 0..60),
            batch in 1usize..7,
            latest in any::<bool>(),
        ) {
            let end = if latest { End::Latest } else { End::Earliest };
            let mut merged = groups(end);
            for partition in 0..3 {
                let mut partial = groups(end);
                let part: Vec<_> = rows.iter().filter(|(_, _, p)| *p == partition).collect();
                for chunk in part.chunks(batch) {
                    let chunk_rows: Vec<Row> = chunk.iter().map(|(row, ..)| *row).collect();
                    let indices: Vec<usize> = chunk.iter().map(|(_, group, _)| *group).collect();
                    partial.update_batch(&columns(&chunk_rows), &indices, None, 3).unwrap();
                }
                partial.grow(3);
                let state = partial.state(EmitTo::All).unwrap();
                merged.merge_batch(&state, &[0, 1, 2], 3).unwrap();
            }
            let answer = merged.evaluate(EmitTo::All).unwrap();
            let answer: Vec<Option<i64>> = answer.as_primitive::<Int64Type>().iter().collect();
            let expected: Vec<Option<i64>> = (0..3)
                .map(|group| {
                    let own: Vec<Row> = rows.iter().filter(|(_, g, _)| *g == group).map(|(row, ..)| *row).collect();
                    naive(end, &own)
                })
                .collect();
            prop_assert_eq!(answer, expected);
        }

        #[test]
        fn one_group_equals_the_naive_answer(rows in proptest::collection::vec(row(), 0..40), latest in any::<bool>()) {
            let end = if latest { End::Latest } else { End::Earliest };
            let mut whole = Whole(groups(end));
            for chunk in rows.chunks(7) {
                whole.update_batch(&columns(chunk)).unwrap();
            }
            prop_assert_eq!(whole.evaluate().unwrap(), ScalarValue::Int64(naive(end, &rows)));
        }
    }

    #[test]
    fn a_row_converted_to_state_counts_like_the_row() {
        let rows = [(Some(1), Some(5)), (Some(2), None), (Some(3), Some(9))];
        let filter = BooleanArray::from(vec![Some(true), Some(true), None]);
        let mut merged = groups(End::Latest);
        let state = groups(End::Latest).convert_to_state(&columns(&rows), Some(&filter)).unwrap();
        merged.merge_batch(&state, &[0, 0, 0], 1).unwrap();
        assert_eq!(merged.values, vec![ScalarValue::Int64(Some(1))]);
    }
}
