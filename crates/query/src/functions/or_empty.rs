//! `annal_or_empty(array)`: the array, or an empty one in the place of NULL. Statements do not name it; see `session/array_queries.rs`.

use std::sync::Arc;

use arrow::array::{Array, ListArray, Scalar, new_empty_array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::is_null;
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::utils::take_function_args;
use datafusion::common::{Result, internal_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// What the function is called.
pub(crate) const OR_EMPTY: &str = "annal_or_empty";

/// The function.
pub(super) fn or_empty() -> ScalarUDF {
    ScalarUDF::from(OrEmpty(Signature::any(1, Volatility::Immutable)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OrEmpty(Signature);

impl ScalarUDFImpl for OrEmpty {
    fn name(&self) -> &'static str {
        OR_EMPTY
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        internal_err!("the field of the array says the type")
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(arguments.arg_fields[0].as_ref().clone().with_nullable(false)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let [arrays] = take_function_args(OR_EMPTY, arguments.args)?;
        let DataType::List(element) = arrays.data_type() else { return plan_err!("{OR_EMPTY} takes an array") };
        let arrays = arrays.into_array(rows)?;
        if arrays.null_count() == 0 {
            return Ok(ColumnarValue::Array(arrays));
        }
        let values = new_empty_array(element.data_type());
        let empty = ListArray::try_new(element, OffsetBuffer::from_lengths([0]), values, None)?;
        Ok(ColumnarValue::Array(zip(&is_null(&arrays)?, &Scalar::new(empty), &arrays)?))
    }
}
