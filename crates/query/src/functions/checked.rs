//! Functions of the library with a look at their arguments, or at what they give, around them.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::bounded::Size;
use super::domain::Domain;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Check {
    /// How large the results are.
    Size(Size),
    /// Whether the function has a value there.
    Domain(Domain),
}

impl Check {
    /// Calls the function, unless something is wrong.
    fn call(self, function: &ScalarUDF, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self {
            Check::Size(size) => size.call(function, arguments),
            Check::Domain(domain) => domain.call(function, arguments),
        }
    }
}

/// The function with its check.
pub(super) fn checked(function: Arc<ScalarUDF>, check: Check) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(Checked { function, check }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    function: Arc<ScalarUDF>,
    check: Check,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.function.inner().return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        self.function.return_field_from_args(arguments)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.check.call(&self.function, arguments)
    }
}
