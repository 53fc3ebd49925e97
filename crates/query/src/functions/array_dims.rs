//! `array_dims(array)`: `[1:2]`, and NULL for an array without elements.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::utils::take_function_args;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

static SIGNATURE: LazyLock<Signature> = LazyLock::new(|| Signature::user_defined(Volatility::Immutable));

/// The function.
pub(super) fn array_dims() -> ScalarUDF {
    ScalarUDF::from(ArrayDims)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ArrayDims;

impl ScalarUDFImpl for ArrayDims {
    fn name(&self) -> &'static str {
        "array_dims"
    }

    fn signature(&self) -> &Signature {
        &SIGNATURE
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [DataType::List(_) | DataType::Null] => Ok(arguments.to_vec()),
            [DataType::LargeList(element) | DataType::FixedSizeList(element, _)] => {
                Ok(vec![DataType::List(Arc::clone(element))])
            }
            _ => plan_err!("array_dims takes an array"),
        }
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [arrays] = take_function_args(self.name(), ColumnarValue::values_to_arrays(&arguments.args)?)?;
        let Some(lists) = arrays.as_list_opt::<i32>() else {
            return Ok(ColumnarValue::Array(Arc::new(StringArray::new_null(arrays.len()))));
        };
        let dimensions = (0..lists.len()).map(|row| {
            let elements = lists.value_length(row);
            (lists.is_valid(row) && elements > 0).then(|| format!("[1:{elements}]"))
        });
        Ok(ColumnarValue::Array(Arc::new(dimensions.collect::<StringArray>())))
    }
}
