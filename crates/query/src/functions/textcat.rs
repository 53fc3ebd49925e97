//! `a || b` of texts, refused where the results of a batch would not fit into memory.

use std::sync::{Arc, LazyLock};

use arrow::compute::kernels::concat_elements::concat_elements_dyn;
use arrow::datatypes::DataType;
use datafusion::common::utils::take_function_args;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::bounded::Size;
use super::checked::{Check, checked};

/// What the function is called.
pub(super) const TEXTCAT: &str = "textcat";

static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let signature = Signature::string(2, Volatility::Immutable);
    checked(Arc::new(ScalarUDF::from(TextCat(signature))), Check::Size(Size::Joined))
});

/// `textcat(a, b)`, NULL where either is.
pub(crate) fn textcat() -> Arc<ScalarUDF> {
    Arc::clone(&FUNCTION)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TextCat(Signature);

impl ScalarUDFImpl for TextCat {
    fn name(&self) -> &'static str {
        TEXTCAT
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let texts = ColumnarValue::values_to_arrays(&arguments.args)?;
        let [left, right] = take_function_args(self.name(), texts)?;
        let joined = concat_elements_dyn(&left, &right)?;
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&joined, 0)?),
            false => ColumnarValue::Array(joined),
        })
    }
}
