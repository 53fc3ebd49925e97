//! The average of integers and numerics: numeric, as PostgreSQL has it, from an exact sum.

use std::collections::BTreeSet;
use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array, UInt64Array};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, FieldRef, Int64Type, UInt64Type};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

use super::numeric::QUOTIENT_SCALE;
use super::refused;
use crate::error::Condition;

const DIGITS_MAX: u8 = DECIMAL128_MAX_PRECISION;

/// What is averaged: integers, as bigints, or numerics.
pub(super) fn is_exact(data_type: &DataType) -> bool {
    data_type.is_signed_integer() || matches!(data_type, DataType::Decimal128(..))
}

/// As what they are averaged.
pub(super) fn wide(data_type: &DataType) -> DataType {
    if data_type.is_signed_integer() { DataType::Int64 } else { data_type.clone() }
}

/// What the average of such is: with sixteen digits behind the point, which are PostgreSQL's for a quotient of about the size of one digit,
/// unless the values have more.
pub(super) fn average_of(data_type: &DataType) -> DataType {
    DataType::Decimal128(DIGITS_MAX, scale_of(data_type).max(QUOTIENT_SCALE))
}

fn scale_of(data_type: &DataType) -> i8 {
    match data_type {
        DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    }
}

/// What partial averages are: count and sum, or all values when each counts once.
pub(super) fn state_fields(name: &str, of: &DataType, is_distinct: bool) -> Vec<FieldRef> {
    if is_distinct {
        let values = Arc::new(Field::new_list_field(wide(of), true));
        return vec![Arc::new(Field::new(format!("{name}[values]"), DataType::List(values), true))];
    }
    let sum = DataType::Decimal128(DIGITS_MAX, scale_of(of));
    vec![
        Arc::new(Field::new(format!("{name}[count]"), DataType::UInt64, true)),
        Arc::new(Field::new(format!("{name}[sum]"), sum, true)),
    ]
}

/// Sum and count of some values, in units of their last digit. The sum of 2^64 bigints fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    sum: i128,
    count: u64,
}

impl Sum {
    fn add(&mut self, value: i128) -> Result<()> {
        match self.sum.checked_add(value) {
            Some(sum) => self.sum = sum,
            None => return Err(refused(Condition::NumericOutOfRange, "value overflows numeric format")),
        }
        self.count += 1;
        Ok(())
    }

    /// The average with so many digits more, rounded half away from zero.
    fn average(self, more: u32) -> Result<Option<i128>> {
        let count = i128::from(self.count);
        if count == 0 {
            return Ok(None);
        }
        let unit = 10_i128.pow(more);
        // The remainder is below 2^64, so that its product with the unit fits.
        let (whole, rest) = (self.sum / count, self.sum % count * unit);
        let (digits, left) = (rest / count, rest % count);
        let up = if left.unsigned_abs() * 2 >= count.unsigned_abs() { self.sum.signum() } else { 0 };
        match whole.checked_mul(unit).and_then(|whole| whole.checked_add(digits + up)) {
            Some(average) => Ok(Some(average)),
            None => Err(refused(Condition::NumericOutOfRange, "value overflows numeric format")),
        }
    }
}

/// What is averaged, and how many digits behind the point it has and its average.
#[derive(Clone, Copy, Debug)]
struct Scales {
    own: i8,
    average: i8,
}

impl Scales {
    fn of(data_type: &DataType) -> Scales {
        let own = scale_of(data_type);
        Scales { own, average: own.max(QUOTIENT_SCALE) }
    }

    fn average(self, sum: Sum) -> Result<Option<i128>> {
        sum.average((self.average - self.own).unsigned_abs().into())
    }
}

/// Values of a batch.
enum Values<'a> {
    Integers(&'a Int64Array),
    Numerics(&'a Decimal128Array),
}

impl<'a> Values<'a> {
    fn of(values: &'a ArrayRef) -> Result<Values<'a>> {
        Ok(match values.data_type() {
            DataType::Int64 => Values::Integers(values.as_primitive::<Int64Type>()),
            DataType::Decimal128(..) => Values::Numerics(values.as_primitive::<Decimal128Type>()),
            other => return internal_err!("an exact average of {other}"),
        })
    }

    fn get(&self, at: usize) -> Option<i128> {
        match self {
            Values::Integers(values) => values.is_valid(at).then(|| values.value(at).into()),
            Values::Numerics(values) => values.is_valid(at).then(|| values.value(at)),
        }
    }

    fn len(&self) -> usize {
        match self {
            Values::Integers(values) => values.len(),
            Values::Numerics(values) => values.len(),
        }
    }

    fn present(&self) -> impl Iterator<Item = i128> {
        (0..self.len()).filter_map(|at| self.get(at))
    }
}

/// The average of one group.
#[derive(Debug)]
pub(super) struct Exact {
    all: Sum,
    scales: Scales,
}

impl Exact {
    pub(super) fn of(data_type: &DataType) -> Exact {
        Exact { all: Sum::default(), scales: Scales::of(data_type) }
    }
}

impl Accumulator for Exact {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        Values::of(&values[0])?.present().try_for_each(|value| self.all.add(value))
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in Values::of(&values[0])?.present() {
            self.all.sum -= value;
            self.all.count -= 1;
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let sum = ScalarValue::Decimal128(Some(self.all.sum), DIGITS_MAX, self.scales.own);
        Ok(vec![ScalarValue::UInt64(Some(self.all.count)), sum])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (counts, sums) = (states[0].as_primitive::<UInt64Type>(), states[1].as_primitive::<Decimal128Type>());
        for (count, sum) in counts.iter().flatten().zip(sums.iter().flatten()) {
            self.all.add(sum)?;
            self.all.count = self.all.count - 1 + count;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Decimal128(self.scales.average(self.all)?, DIGITS_MAX, self.scales.average))
    }

    fn size(&self) -> usize {
        size_of::<Exact>()
    }
}

/// Values of which each counts once.
#[derive(Debug)]
pub(super) struct DistinctExact {
    values: BTreeSet<i128>,
    data_type: DataType,
}

impl DistinctExact {
    pub(super) fn of(data_type: &DataType) -> DistinctExact {
        DistinctExact { values: BTreeSet::new(), data_type: wide(data_type) }
    }
}

impl Accumulator for DistinctExact {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.extend(Values::of(&values[0])?.present());
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let value = |value: &i128| match self.data_type {
            DataType::Decimal128(precision, scale) => ScalarValue::Decimal128(Some(*value), precision, scale),
            _ => ScalarValue::Int64(i64::try_from(*value).ok()),
        };
        let values: Vec<ScalarValue> = self.values.iter().map(value).collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &self.data_type))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        states[0].as_list::<i32>().iter().flatten().try_for_each(|values| self.update_batch(&[values]))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut all = Exact::of(&self.data_type);
        self.values.iter().try_for_each(|value| all.all.add(*value))?;
        all.evaluate()
    }

    fn size(&self) -> usize {
        size_of::<DistinctExact>() + self.values.len() * 2 * size_of::<i128>()
    }
}

/// The averages of many groups at once.
#[derive(Debug)]
pub(super) struct ExactByGroup {
    groups: Vec<Sum>,
    scales: Scales,
}

impl ExactByGroup {
    pub(super) fn of(data_type: &DataType) -> ExactByGroup {
        ExactByGroup { groups: Vec::new(), scales: Scales::of(data_type) }
    }

    /// The groups to be given out now; those left move to the front.
    fn take(&mut self, emit_to: EmitTo) -> Vec<Sum> {
        emit_to.take_needed(&mut self.groups)
    }

    /// Calls `add` for the group of each row that counts.
    fn each(
        &mut self,
        rows: &[usize],
        filter: Option<&BooleanArray>,
        groups: usize,
        mut add: impl FnMut(&mut Sum, usize) -> Result<()>,
    ) -> Result<()> {
        self.groups.resize(groups, Sum::default());
        for (at, group) in rows.iter().enumerate() {
            if filter.is_none_or(|filter| filter.is_valid(at) && filter.value(at)) {
                add(&mut self.groups[*group], at)?;
            }
        }
        Ok(())
    }
}

impl GroupsAccumulator for ExactByGroup {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let values = Values::of(&values[0])?;
        self.each(group_indices, opt_filter, total_num_groups, |group, at| match values.get(at) {
            Some(value) => group.add(value),
            None => Ok(()),
        })
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        let (counts, sums) = (states[0].as_primitive::<UInt64Type>(), states[1].as_primitive::<Decimal128Type>());
        self.each(group_indices, None, total_num_groups, |group, at| {
            if counts.is_valid(at) && sums.is_valid(at) {
                group.add(sums.value(at))?;
                group.count = group.count - 1 + counts.value(at);
            }
            Ok(())
        })
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let averages = self.take(emit_to).into_iter().map(|group| self.scales.average(group));
        let averages = averages.collect::<Result<Decimal128Array>>()?;
        Ok(Arc::new(averages.with_precision_and_scale(DIGITS_MAX, self.scales.average)?))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let groups = self.take(emit_to);
        let counts = UInt64Array::from_iter_values(groups.iter().map(|group| group.count));
        let sums = Decimal128Array::from_iter_values(groups.iter().map(|group| group.sum));
        Ok(vec![Arc::new(counts), Arc::new(sums.with_precision_and_scale(DIGITS_MAX, self.scales.own)?)])
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = Values::of(&values[0])?;
        let counted = |at: usize| {
            values.get(at).filter(|_| opt_filter.is_none_or(|filter| filter.is_valid(at) && filter.value(at)))
        };
        let rows = 0..values.len();
        let sums = Decimal128Array::from_iter_values(rows.clone().map(|at| counted(at).unwrap_or(0)));
        let sums = sums.with_precision_and_scale(DIGITS_MAX, self.scales.own)?;
        let counts = UInt64Array::from_iter_values(rows.map(|at| u64::from(counted(at).is_some())));
        Ok(vec![Arc::new(counts), Arc::new(sums)])
    }

    fn size(&self) -> usize {
        self.groups.capacity() * size_of::<Sum>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sum: i128, count: u64, expected: Option<i128>) {
        assert_eq!(Sum { sum, count }.average(16).expect("it fits"), expected, "{sum} / {count}");
    }

    #[test]
    fn averages_are_rounded_half_away_from_zero_and_those_of_integers_never_overflow() {
        let unit = 10_i128.pow(16);
        check(0, 0, None);
        check(3, 2, Some(15_000_000_000_000_000));
        check(-3, 2, Some(-15_000_000_000_000_000));
        check(2, 3, Some(6_666_666_666_666_667));
        check(-2, 3, Some(-6_666_666_666_666_667));
        check(1, 1 << 60, Some(0));
        check(i128::from(i64::MIN) * (1 << 62), 1 << 62, Some(i128::from(i64::MIN) * unit));
        check(i128::from(i64::MAX) * (1 << 62), 1 << 62, Some(i128::from(i64::MAX) * unit));
    }
}
