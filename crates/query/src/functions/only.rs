//! `annal_only(array)`: the one element of an array, NULL of an empty one; several are refused as PostgreSQL refuses a subquery that gives more than
//! one row where a value is meant. Statements do not name it; see `session/quantified.rs`.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::utils::take_function_args;
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::refused;
use crate::error::Condition;

/// The function for elements of such a field, of which an array knows the type alone.
pub(crate) fn only(field: FieldRef) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(Only { field, signature: Signature::any(1, Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Only {
    field: FieldRef,
    signature: Signature,
}

impl ScalarUDFImpl for Only {
    fn name(&self) -> &'static str {
        "annal_only"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        internal_err!("the field says the type")
    }

    fn return_field_from_args(&self, _arguments: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(self.field.as_ref().clone().with_nullable(true)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let [arrays] = take_function_args(self.name(), arguments.args)?;
        let arrays = arrays.into_array(rows)?;
        let arrays = arrays.as_list::<i32>();
        let offsets = arrays.value_offsets();
        let place = |row: usize| match offsets[row + 1] - offsets[row] {
            _ if arrays.is_null(row) => Ok(None),
            0 => Ok(None),
            1 => Ok(Some(i64::from(offsets[row]))),
            _ => {
                let message = "more than one row returned by a subquery used as an expression";
                Err(refused(Condition::CardinalityViolation, message))
            }
        };
        let places = (0..arrays.len()).map(place).collect::<Result<Int64Array>>()?;
        Ok(ColumnarValue::Array(take(arrays.values(), &places, None)?))
    }
}
