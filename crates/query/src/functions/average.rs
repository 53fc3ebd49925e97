//! `avg`: the library's, but of integers and numerics a numeric, and of intervals as well.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Field, FieldRef, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, UInt64Type,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, Signature, Volatility,
};

use super::average_exact::{DistinctExact, Exact, ExactByGroup, average_of, is_exact, state_fields, wide};
use super::interval::{divided, is_interval, too_long};

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// `avg`.
pub(super) fn average() -> AggregateUDF {
    AggregateUDF::from(Average { others: avg_udaf(), signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Average {
    /// The average of anything else.
    others: Arc<AggregateUDF>,
    signature: Signature,
}

impl AggregateUDFImpl for Average {
    fn name(&self) -> &str {
        self.others.name()
    }

    fn aliases(&self) -> &[String] {
        self.others.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        if let [argument] = arguments
            && is_interval(argument)
        {
            return Ok(arguments.to_vec());
        }
        if let [argument] = arguments
            && is_exact(argument)
        {
            return Ok(vec![wide(argument)]);
        }
        let fields: Vec<FieldRef> =
            arguments.iter().map(|argument| Arc::new(Field::new("", argument.clone(), true))).collect();
        let coerced = fields_with_udf(&fields, self.others.as_ref())?;
        Ok(coerced.iter().map(|field| field.data_type().clone()).collect())
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [argument] if is_interval(argument) => Ok(INTERVAL),
            [argument] if is_exact(argument) => Ok(average_of(argument)),
            others => self.others.return_type(others),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if let [field] = args.input_fields
            && is_exact(field.data_type())
        {
            return Ok(state_fields(args.name, field.data_type(), args.is_distinct));
        }
        if !is_interval(args.return_field.data_type()) {
            return self.others.state_fields(args);
        }
        Ok(vec![
            Arc::new(Field::new(format!("{}[count]", args.name), DataType::UInt64, true)),
            Arc::new(Field::new(format!("{}[sum]", args.name), INTERVAL, true)),
        ])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match kind(&args) {
            Kind::Exact(of) if args.is_distinct => Ok(Box::new(DistinctExact::of(&of))),
            Kind::Exact(of) => Ok(Box::new(Exact::of(&of))),
            Kind::Intervals => Ok(Box::<Intervals>::default()),
            Kind::Others => self.others.accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match kind(&args) {
            Kind::Others => self.others.create_sliding_accumulator(args),
            Kind::Exact(_) | Kind::Intervals => self.accumulator(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        match kind(&args) {
            Kind::Exact(_) => !args.is_distinct,
            Kind::Intervals => false,
            Kind::Others => self.others.groups_accumulator_supported(args),
        }
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        match kind(&args) {
            Kind::Exact(of) => Ok(Box::new(ExactByGroup::of(&of))),
            Kind::Intervals | Kind::Others => self.others.create_groups_accumulator(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.others.documentation()
    }
}

/// What there is to average.
enum Kind {
    /// Integers and numerics.
    Exact(DataType),
    Intervals,
    Others,
}

fn kind(args: &AccumulatorArgs) -> Kind {
    match args.expr_fields {
        [field] if is_exact(field.data_type()) => Kind::Exact(field.data_type().clone()),
        [field] if is_interval(field.data_type()) => Kind::Intervals,
        _ => Kind::Others,
    }
}

/// The sum of intervals, each part for itself, and how many there are.
#[derive(Debug, Default)]
struct Intervals {
    months: i64,
    days: i64,
    ns: i128,
    count: u64,
}

impl Intervals {
    /// Adds intervals, or takes away those of a frame that moved on.
    fn add(&mut self, intervals: &ArrayRef, sign: i64) {
        for interval in intervals.as_primitive::<IntervalMonthDayNanoType>().iter().flatten() {
            self.months += sign * i64::from(interval.months);
            self.days += sign * i64::from(interval.days);
            self.ns += i128::from(sign) * i128::from(interval.nanoseconds);
        }
    }

    fn sum(&self) -> Result<Option<IntervalMonthDayNano>> {
        if self.count == 0 {
            return Ok(None);
        }
        let parts = (i32::try_from(self.months), i32::try_from(self.days), i64::try_from(self.ns));
        match parts {
            (Ok(months), Ok(days), Ok(ns)) => Ok(Some(IntervalMonthDayNano::new(months, days, ns))),
            _ => Err(too_long()),
        }
    }
}

fn present(values: &ArrayRef) -> u64 {
    (values.len() - values.null_count()) as u64
}

impl Accumulator for Intervals {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count += present(&values[0]);
        self.add(&values[0], 1);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count -= present(&values[0]);
        self.add(&values[0], -1);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::UInt64(Some(self.count)), ScalarValue::IntervalMonthDayNano(self.sum()?)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.count += states[0].as_primitive::<UInt64Type>().iter().flatten().sum::<u64>();
        self.add(&states[1], 1);
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::IntervalMonthDayNano(self.sum()?.map(|sum| divided(sum, self.count))))
    }

    fn size(&self) -> usize {
        size_of::<Intervals>()
    }
}
