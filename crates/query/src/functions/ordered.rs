//! The last step of `percentile_disc` and `mode`, whose first is `array_agg` of the values in their order.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::error::{Condition, Error};

/// `percentile_disc(fraction)`: the values, then the fraction.
pub(crate) const FRACTION: &str = "annal_at_fraction";
/// `mode()`.
pub(crate) const MODE: &str = "annal_most_frequent";

/// Both.
pub(super) fn all() -> [Arc<ScalarUDF>; 2] {
    [(FRACTION, 2), (MODE, 1)].map(|(name, arguments)| {
        Arc::new(ScalarUDF::from(OfOrdered { name, signature: Signature::any(arguments, Volatility::Immutable) }))
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfOrdered {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for OfOrdered {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments.first() {
            Some(DataType::List(element)) => Ok(element.data_type().clone()),
            _ => plan_err!("{} takes an array", self.name),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let Some(lists) = arrays.first().and_then(|array| array.as_list_opt::<i32>()) else {
            return plan_err!("{} takes an array", self.name);
        };
        let fractions = arrays.get(1).map(|fractions| cast(fractions, &DataType::Float64)).transpose()?;
        let found = (0..lists.len()).map(|row| match &fractions {
            _ if lists.is_null(row) || lists.value_length(row) == 0 => Ok(None),
            Some(fractions) if fractions.is_null(row) => Ok(None),
            Some(fractions) => at_fraction(lists, row, fractions.as_primitive::<Float64Type>().value(row)).map(Some),
            None => most_frequent(lists, row).map(Some),
        });
        let found = found.collect::<Result<UInt32Array>>()?;
        Ok(ColumnarValue::Array(take(lists.values(), &found, None)?))
    }
}

/// The place of the first value that at least this fraction of all is not behind.
fn at_fraction(lists: &ListArray, row: usize, fraction: f64) -> Result<u32> {
    if !(0.0..=1.0).contains(&fraction) {
        let message = format!("percentile value {fraction} is not between 0 and 1");
        return Err(DataFusionError::External(Box::new(Error::report(Condition::NumericOutOfRange, message))));
    }
    let count = lists.value_length(row);
    let place = ((fraction * f64::from(count)).ceil() as i32).clamp(1, count) - 1;
    Ok((lists.value_offsets()[row] + place).cast_unsigned())
}

/// The place of the value that comes most often, the first of several in their order.
fn most_frequent(lists: &ListArray, row: usize) -> Result<u32> {
    let values: ArrayRef = lists.value(row);
    let compare = arrow::array::make_comparator(&values, &values, Default::default())?;
    let (mut best, mut best_count, mut begin) = (0, 0, 0);
    for at in 1..=values.len() {
        if at < values.len() && compare(begin, at).is_eq() {
            continue;
        }
        if at - begin > best_count {
            (best, best_count) = (begin, at - begin);
        }
        begin = at;
    }
    Ok(lists.value_offsets()[row].cast_unsigned() + best as u32)
}
