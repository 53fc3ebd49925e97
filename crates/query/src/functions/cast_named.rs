//! `annal_cast(value, type)`: the value as it is, under a name that says the type it was cast to. Statements do not name it; see
//! `session/alike.rs`.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::utils::take_function_args;
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// Its name.
pub(crate) const CAST_NAMED: &str = "annal_cast";

/// The function.
pub(super) fn cast_named() -> ScalarUDF {
    ScalarUDF::from(CastNamed(Signature::any(2, Volatility::Immutable)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CastNamed(Signature);

impl ScalarUDFImpl for CastNamed {
    fn name(&self) -> &'static str {
        CAST_NAMED
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        internal_err!("the field of the value says the type")
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::clone(&arguments.arg_fields[0]))
    }

    fn simplify(&self, arguments: Vec<Expr>, _context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let [value, _] = take_function_args(CAST_NAMED, arguments)?;
        Ok(ExprSimplifyResult::Simplified(value))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value, _] = take_function_args(CAST_NAMED, arguments.args)?;
        Ok(value)
    }
}
