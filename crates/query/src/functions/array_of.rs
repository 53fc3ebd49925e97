//! `annal_array_of(element, array)`: the array, which is one of such elements when nothing else is known of it. Statements do not name it; see
//! `session/parameters.rs`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::utils::take_function_args;
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// What the function is called.
pub(crate) const ARRAY_OF: &str = "annal_array_of";

/// The function.
pub(super) fn array_of() -> ScalarUDF {
    ScalarUDF::from(ArrayOf(Signature::user_defined(Volatility::Immutable)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ArrayOf(Signature);

/// The type of the array. Of an element of no type it is one of texts, as a parameter is a text.
fn array_type(element: &DataType, array: &DataType) -> DataType {
    match (element, array) {
        (DataType::Null, DataType::Null) => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
        (element, DataType::Null | DataType::Utf8) => {
            DataType::List(Arc::new(Field::new_list_field(element.clone(), true)))
        }
        (_, array) => array.clone(),
    }
}

impl ScalarUDFImpl for ArrayOf {
    fn name(&self) -> &'static str {
        ARRAY_OF
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let [element, array] = take_function_args(self.name(), arguments)?;
        Ok(array_type(element, array))
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [element, array] = take_function_args(self.name(), arguments)?;
        Ok(vec![element.clone(), array_type(element, array)])
    }

    fn simplify(&self, mut arguments: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match arguments.pop() {
            Some(array) => Ok(ExprSimplifyResult::Simplified(array)),
            None => internal_err!("{} takes two arguments", self.name()),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [_, array] = take_function_args(self.name(), arguments.args)?;
        match array {
            ColumnarValue::Scalar(ScalarValue::Null) => {
                Ok(ColumnarValue::Scalar(ScalarValue::try_from(arguments.return_field.data_type())?))
            }
            array => Ok(array),
        }
    }
}
