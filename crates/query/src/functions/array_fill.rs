//! `array_fill(value, lengths)`: an array of as many equal elements. Arrays have one dimension that begins at 1.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, UInt64Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef, Int32Type};
use datafusion::common::utils::take_function_args;
use datafusion::common::{DataFusionError, Result, internal_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::refused;
use crate::error::Condition;

/// Elements of one batch of rows, which are in memory together.
const ELEMENTS_MAX: u64 = 32 << 20;

/// The function.
pub(super) fn array_fill() -> ScalarUDF {
    ScalarUDF::from(ArrayFill(Signature::user_defined(Volatility::Immutable)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ArrayFill(Signature);

fn lengths() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true)))
}

impl ScalarUDFImpl for ArrayFill {
    fn name(&self) -> &'static str {
        "array_fill"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [DataType::List(_), ..] => Err(of_several_dimensions()),
            [value, _] => Ok(vec![value.clone(), lengths()]),
            [_, _, _] => {
                Err(refused(Condition::FeatureNotSupported, "arrays with bounds of their own are not supported"))
            }
            _ => plan_err!("array_fill takes a value and an array of lengths"),
        }
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        internal_err!("the field of the value says the type")
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let value = &arguments.arg_fields[0];
        let element = Field::new_list_field(value.data_type().clone(), true).with_metadata(value.metadata().clone());
        Ok(Arc::new(Field::new(self.name(), DataType::List(Arc::new(element)), true)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let DataType::List(element) = arguments.return_field.data_type() else {
            return internal_err!("array_fill gives an array");
        };
        let [values, dimensions] = take_function_args(self.name(), ColumnarValue::values_to_arrays(&arguments.args)?)?;
        let counts = counts(&dimensions)?;
        let total: u64 = counts.iter().flatten().sum();
        if total > ELEMENTS_MAX {
            return Err(refused(Condition::OutOfMemory, "the results of array_fill do not fit into memory"));
        }
        let rows =
            (0_u64..).zip(&counts).flat_map(|(row, count)| std::iter::repeat_n(row, count.unwrap_or(0) as usize));
        let elements: ArrayRef = take(&values, &UInt64Array::from_iter_values(rows), None)?;
        let offsets = OffsetBuffer::from_lengths(counts.iter().map(|count| count.unwrap_or(0) as usize));
        let nulls = NullBuffer::from_iter(counts.iter().map(Option::is_some));
        let lists = ListArray::try_new(Arc::clone(element), offsets, elements, Some(nulls))?;
        Ok(ColumnarValue::Array(Arc::new(lists)))
    }
}

fn of_several_dimensions() -> DataFusionError {
    refused(Condition::FeatureNotSupported, "arrays of more than one dimension are not supported")
}

/// How many elements each array has; `None` where no length is known.
fn counts(dimensions: &ArrayRef) -> Result<Vec<Option<u64>>> {
    let dimensions = dimensions.as_list::<i32>();
    let of_row = |row: usize| {
        if dimensions.is_null(row) {
            return Err(refused(Condition::NullValueNotAllowed, "dimension array or low bound array cannot be null"));
        }
        let lengths = dimensions.value(row);
        let lengths = lengths.as_primitive::<Int32Type>();
        match lengths.len() {
            0 => Ok(Some(0)),
            1 if lengths.is_null(0) => Err(refused(Condition::NullValueNotAllowed, "dimension values cannot be null")),
            1 => match u64::try_from(lengths.value(0)) {
                Ok(count) => Ok(Some(count)),
                Err(_) => Err(refused(
                    Condition::ProgramLimitExceeded,
                    format!("array size exceeds the maximum allowed: {}", lengths.value(0)),
                )),
            },
            _ => Err(of_several_dimensions()),
        }
    };
    (0..dimensions.len()).map(of_row).collect()
}
