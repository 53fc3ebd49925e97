//! `annal_maybe(value)`: the value as it is, which may be NULL. Statements do not name it; see `session/subqueries.rs`.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::utils::take_function_args;
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// Its name.
pub(crate) const MAYBE: &str = "annal_maybe";

/// The function.
pub(super) fn maybe() -> ScalarUDF {
    ScalarUDF::from(Maybe(Signature::any(1, Volatility::Immutable)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Maybe(Signature);

impl ScalarUDFImpl for Maybe {
    fn name(&self) -> &'static str {
        MAYBE
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        internal_err!("the field of the value says the type")
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(arguments.arg_fields[0].as_ref().clone().with_nullable(true)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = take_function_args(MAYBE, arguments.args)?;
        Ok(value)
    }
}
