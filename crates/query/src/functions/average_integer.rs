//! The average of integers: numeric, as PostgreSQL has it, from an exact sum.

use std::collections::BTreeSet;
use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array, UInt64Array};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int64Type, UInt64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

/// Digits behind the point; PostgreSQL gives as many to a quotient of about the size of one digit.
const SCALE: i8 = 16;
const DIGITS_MAX: u8 = 38;
/// `10 ^ SCALE`.
const UNIT: i128 = 10_i128.pow(SCALE as u32);
/// What it gives.
pub(super) const AVERAGE: DataType = DataType::Decimal128(DIGITS_MAX, SCALE);
const SUM: DataType = DataType::Decimal128(DIGITS_MAX, 0);

/// Whether an average of these is exact.
pub(super) fn is_integer(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64)
}

/// What partial averages are: count and sum, or all values when each counts once.
pub(super) fn state_fields(name: &str, is_distinct: bool) -> Vec<FieldRef> {
    if is_distinct {
        let values = Arc::new(Field::new_list_field(DataType::Int64, true));
        return vec![Arc::new(Field::new(format!("{name}[values]"), DataType::List(values), true))];
    }
    vec![
        Arc::new(Field::new(format!("{name}[count]"), DataType::UInt64, true)),
        Arc::new(Field::new(format!("{name}[sum]"), SUM, true)),
    ]
}

/// Sum and count of some integers. The sum of 2^64 of them fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Integers {
    sum: i128,
    count: u64,
}

impl Integers {
    fn add(&mut self, value: i64) {
        self.sum += i128::from(value);
        self.count += 1;
    }

    /// The average in units of its last digit, rounded half away from zero.
    fn average(self) -> Option<i128> {
        let count = i128::from(self.count);
        if count == 0 {
            return None;
        }
        // The remainder is below 2^64, so that its product with the unit fits.
        let (whole, rest) = (self.sum / count, self.sum % count * UNIT);
        let (digits, left) = (rest / count, rest % count);
        let up = if left.unsigned_abs() * 2 >= count.unsigned_abs() { self.sum.signum() } else { 0 };
        Some(whole * UNIT + digits + up)
    }
}

impl Accumulator for Integers {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        values[0].as_primitive::<Int64Type>().iter().flatten().for_each(|value| self.add(value));
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<Int64Type>().iter().flatten() {
            self.sum -= i128::from(value);
            self.count -= 1;
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::UInt64(Some(self.count)), ScalarValue::Decimal128(Some(self.sum), DIGITS_MAX, 0)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.count += states[0].as_primitive::<UInt64Type>().iter().flatten().sum::<u64>();
        self.sum += states[1].as_primitive::<Decimal128Type>().iter().flatten().sum::<i128>();
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Decimal128(self.average(), DIGITS_MAX, SCALE))
    }

    fn size(&self) -> usize {
        size_of::<Integers>()
    }
}

/// Integers of which each counts once.
#[derive(Debug, Default)]
pub(super) struct DistinctIntegers(BTreeSet<i64>);

impl Accumulator for DistinctIntegers {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.extend(values[0].as_primitive::<Int64Type>().iter().flatten());
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: Vec<ScalarValue> = self.0.iter().map(|value| ScalarValue::Int64(Some(*value))).collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Int64))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        states[0].as_list::<i32>().iter().flatten().try_for_each(|values| self.update_batch(&[values]))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut all = Integers::default();
        self.0.iter().for_each(|value| all.add(*value));
        all.evaluate()
    }

    fn size(&self) -> usize {
        size_of::<DistinctIntegers>() + self.0.len() * 2 * size_of::<i64>()
    }
}

/// The averages of many groups at once.
#[derive(Debug, Default)]
pub(super) struct IntegersByGroup(Vec<Integers>);

impl IntegersByGroup {
    /// The groups to be given out now; those left move to the front.
    fn take(&mut self, emit_to: EmitTo) -> Vec<Integers> {
        emit_to.take_needed(&mut self.0)
    }

    /// Calls `add` for the group of each row that counts.
    fn each(
        &mut self,
        rows: &[usize],
        filter: Option<&BooleanArray>,
        groups: usize,
        mut add: impl FnMut(&mut Integers, usize),
    ) {
        self.0.resize(groups, Integers::default());
        for (at, group) in rows.iter().enumerate() {
            if filter.is_none_or(|filter| filter.is_valid(at) && filter.value(at)) {
                add(&mut self.0[*group], at);
            }
        }
    }
}

impl GroupsAccumulator for IntegersByGroup {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let values = values[0].as_primitive::<Int64Type>();
        self.each(group_indices, opt_filter, total_num_groups, |group, at| {
            if values.is_valid(at) {
                group.add(values.value(at));
            }
        });
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        let (counts, sums) = (states[0].as_primitive::<UInt64Type>(), states[1].as_primitive::<Decimal128Type>());
        self.each(group_indices, None, total_num_groups, |group, at| {
            if counts.is_valid(at) && sums.is_valid(at) {
                group.count += counts.value(at);
                group.sum += sums.value(at);
            }
        });
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let averages = self.take(emit_to).into_iter().map(Integers::average);
        let averages = averages.collect::<Decimal128Array>().with_precision_and_scale(DIGITS_MAX, SCALE)?;
        Ok(Arc::new(averages))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let groups = self.take(emit_to);
        let counts = UInt64Array::from_iter_values(groups.iter().map(|group| group.count));
        let sums = Decimal128Array::from_iter_values(groups.iter().map(|group| group.sum));
        Ok(vec![Arc::new(counts), Arc::new(sums.with_precision_and_scale(DIGITS_MAX, 0)?)])
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values: &Int64Array = values[0].as_primitive();
        let counts =
            |at: usize| values.is_valid(at) && opt_filter.is_none_or(|filter| filter.is_valid(at) && filter.value(at));
        let rows = 0..values.len();
        let sums = rows.clone().map(|at| if counts(at) { i128::from(values.value(at)) } else { 0 });
        let sums = Decimal128Array::from_iter_values(sums).with_precision_and_scale(DIGITS_MAX, 0)?;
        Ok(vec![Arc::new(UInt64Array::from_iter_values(rows.map(|at| u64::from(counts(at))))), Arc::new(sums)])
    }

    fn size(&self) -> usize {
        self.0.capacity() * size_of::<Integers>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sum: i128, count: u64, expected: Option<i128>) {
        assert_eq!(Integers { sum, count }.average(), expected, "{sum} / {count}");
    }

    #[test]
    fn averages_are_rounded_half_away_from_zero_and_never_overflow() {
        check(0, 0, None);
        check(3, 2, Some(15_000_000_000_000_000));
        check(-3, 2, Some(-15_000_000_000_000_000));
        check(2, 3, Some(6_666_666_666_666_667));
        check(-2, 3, Some(-6_666_666_666_666_667));
        check(1, 1 << 60, Some(0));
        check(i128::from(i64::MIN) * (1 << 62), 1 << 62, Some(i128::from(i64::MIN) * UNIT));
        check(i128::from(i64::MAX) * (1 << 62), 1 << 62, Some(i128::from(i64::MAX) * UNIT));
    }
}
