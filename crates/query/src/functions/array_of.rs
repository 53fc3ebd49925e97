//! `annal_array_of(element, array)` and `annal_element_of(array, element)`: the array and the element as what they are compared as. An array of
//! which nothing else is known is one of such elements, and numbers of several types become one. Statements do not name them; see
//! `session/parameters.rs`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::utils::take_function_args;
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::numeric;

/// What the function is called that gives the array.
pub(crate) const ARRAY_OF: &str = "annal_array_of";
/// What the function is called that gives the element.
pub(crate) const ELEMENT_OF: &str = "annal_element_of";

/// Both functions.
pub(super) fn all() -> [ScalarUDF; 2] {
    [Side::Array, Side::Element]
        .map(|side| ScalarUDF::from(Compared { side, signature: Signature::user_defined(Volatility::Immutable) }))
}

/// Which side of a comparison the function gives, which is its second argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Side {
    Array,
    Element,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Compared {
    side: Side,
    signature: Signature,
}

fn list(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(element, true)))
}

/// The type of the array. Of an element of no type it is one of texts, as a parameter is a text.
fn array_type(element: &DataType, array: &DataType) -> DataType {
    match (element, array) {
        (DataType::Null, DataType::Null | DataType::Utf8) => list(DataType::Utf8),
        (element, DataType::Null | DataType::Utf8) => list(element.clone()),
        (element, DataType::List(own)) => match in_common(element, own.data_type()) {
            Some(common) => list(common),
            None => array.clone(),
        },
        (_, array) => array.clone(),
    }
}

fn element_type(element: &DataType, array: &DataType) -> DataType {
    match array {
        DataType::List(own) => in_common(element, own.data_type()).unwrap_or_else(|| element.clone()),
        _ => element.clone(),
    }
}

/// What two numbers are compared as, when one is a numeric or a real and the other is not.
fn in_common(one: &DataType, other: &DataType) -> Option<DataType> {
    use DataType::{Decimal128, Float32, Float64};
    match (one, other) {
        (one, other) if one == other || !one.is_numeric() || !other.is_numeric() => None,
        (Float64 | Float32, _) | (_, Float64 | Float32) => Some(Float64),
        (Decimal128(..), _) | (_, Decimal128(..)) => numeric::holding([one, other]),
        _ => None,
    }
}

impl ScalarUDFImpl for Compared {
    fn name(&self) -> &'static str {
        match self.side {
            Side::Array => ARRAY_OF,
            Side::Element => ELEMENT_OF,
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let [beside, own] = take_function_args(self.name(), arguments)?;
        Ok(match self.side {
            Side::Array => array_type(beside, own),
            Side::Element => element_type(own, beside),
        })
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [beside, _] = take_function_args(self.name(), arguments)?;
        Ok(vec![beside.clone(), self.return_type(arguments)?])
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
