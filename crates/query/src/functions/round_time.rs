//! `annal_round_time(time, digits)`: a time with so many digits of a second's fraction. Statements do not name it; it is what a cast to
//! `timestamp(p)` does.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::utils::take_function_args;
use datafusion::common::{Result, ScalarValue, exec_err, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::text::modifier::rounded;

/// Its name.
pub(crate) const ROUND_TIME: &str = "annal_round_time";

/// The function.
pub(super) fn round_time() -> ScalarUDF {
    ScalarUDF::from(RoundTime(Signature::any(2, Volatility::Immutable)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RoundTime(Signature);

impl ScalarUDFImpl for RoundTime {
    fn name(&self) -> &'static str {
        ROUND_TIME
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        internal_err!("the field of the time says the type")
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::clone(&arguments.arg_fields[0]))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [time, digits] = take_function_args(ROUND_TIME, arguments.args)?;
        let ColumnarValue::Scalar(digits) = digits else { return exec_err!("{ROUND_TIME} needs a constant") };
        let ScalarValue::Int64(Some(digits)) = digits.cast_to(&DataType::Int64)? else {
            return exec_err!("{ROUND_TIME} needs a number of digits");
        };
        let digits = u8::try_from(digits).unwrap_or(u8::MAX);
        match time {
            ColumnarValue::Array(times) => Ok(ColumnarValue::Array(rounded(&times, digits))),
            ColumnarValue::Scalar(time) => {
                let time = ScalarValue::try_from_array(&rounded(&time.to_array()?, digits), 0)?;
                Ok(ColumnarValue::Scalar(time))
            }
        }
    }
}
