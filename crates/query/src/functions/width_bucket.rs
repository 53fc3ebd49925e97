//! `width_bucket(value, low, high, count)`: which of so many buckets of equal width a value lies in; 0 below them, one more than there are above.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int32Array};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::expr_fn::SimpleScalarUDF;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Signature, Volatility};

use crate::error::{Condition, Error};

/// The function.
pub(super) fn width_bucket() -> ScalarUDF {
    let numbers = vec![DataType::Float64, DataType::Float64, DataType::Float64, DataType::Int64];
    let answer = |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let [value, low, high] = [0, 1, 2].map(|at| arrays[at].as_primitive::<Float64Type>());
        let count = arrays[3].as_primitive::<Int64Type>();
        let of_row = |row: usize| {
            let is_null = value.is_null(row) || low.is_null(row) || high.is_null(row) || count.is_null(row);
            let bucket = || bucket(value.value(row), low.value(row), high.value(row), count.value(row));
            (!is_null).then(bucket).transpose()
        };
        let buckets = (0..value.len()).map(of_row).collect::<Result<Int32Array>>()?;
        Ok(ColumnarValue::Array(Arc::new(buckets)))
    };
    let signature = Signature::exact(numbers, Volatility::Immutable);
    ScalarUDF::from(SimpleScalarUDF::new_with_signature("width_bucket", signature, DataType::Int32, Arc::new(answer)))
}

fn bucket(value: f64, low: f64, high: f64, count: i64) -> Result<i32> {
    let refused =
        |message: &str| Err(DataFusionError::External(Box::new(Error::report(Condition::InvalidWidthBucket, message))));
    let beyond = || {
        let message = "integer out of range";
        DataFusionError::External(Box::new(Error::report(Condition::NumericOutOfRange, message)))
    };
    if count <= 0 {
        return refused("count must be greater than zero");
    }
    if value.is_nan() || low.is_nan() || high.is_nan() {
        return refused("operand, lower bound, and upper bound cannot be NaN");
    }
    if !low.is_finite() || !high.is_finite() {
        return refused("lower and upper bounds must be finite");
    }
    if low == high {
        return refused("lower bound cannot equal upper bound");
    }
    let count = i32::try_from(count).map_err(|_| beyond())?;
    // Bounds may go down.
    let (below, above) = if low < high { (value < low, value >= high) } else { (value > low, value <= high) };
    if below {
        return Ok(0);
    }
    if above {
        return count.checked_add(1).ok_or_else(beyond);
    }
    let place = (value - low) / (high - low) * f64::from(count);
    #[expect(clippy::cast_possible_truncation, reason = "between 0 and the count, which is an i32")]
    Ok((place.floor() as i32).min(count - 1) + 1)
}
