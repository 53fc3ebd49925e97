//! `array_remove`, `array_replace`: of all elements that are equal, as PostgreSQL; what the library has under these names changes the first only.

use std::sync::Arc;

use arrow::array::Array;
use arrow::compute::is_null;
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, internal_err};
use datafusion::functions_nested::array_compact::array_compact_udf;
use datafusion::functions_nested::remove::array_remove_all_udf;
use datafusion::functions_nested::replace::array_replace_all_udf;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// The functions.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    let signature = Signature::user_defined(Volatility::Immutable);
    let named =
        |name, function| Arc::new(ScalarUDF::from(AllElements { name, function, signature: signature.clone() }));
    vec![named("array_remove", array_remove_all_udf()), named("array_replace", array_replace_all_udf())]
}

/// A function of the library under another name. An alias would not do: it takes turns with the library's function of that name.
#[derive(Debug, PartialEq, Eq, Hash)]
struct AllElements {
    name: &'static str,
    function: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for AllElements {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// NULL is an element like others; the library takes it for an unknown array.
    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let mut types = arguments.to_vec();
        if let Some(DataType::List(element)) = arguments.first() {
            for data_type in types.iter_mut().filter(|data_type| data_type.is_null()) {
                *data_type = element.data_type().clone();
            }
        }
        let field = |data_type: DataType| Arc::new(Field::new("", data_type, true));
        let fields: Vec<FieldRef> = types.into_iter().map(field).collect();
        let coerced = fields_with_udf(&fields, self.function.as_ref())?;
        Ok(coerced.iter().map(|field| field.data_type().clone()).collect())
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        internal_err!("the field of the array says the type")
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        self.function.return_field_from_args(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let removes_nulls = match arguments.args.as_slice() {
            [array, ColumnarValue::Scalar(element)] if element.is_null() => Some((array.to_array(rows)?, None)),
            [array, ColumnarValue::Array(elements)] if elements.null_count() > 0 => {
                Some((array.to_array(rows)?, Some(Arc::clone(elements))))
            }
            _ => None,
        };
        let Some((arrays, elements)) = removes_nulls else { return self.function.invoke_with_args(arguments) };
        // The library gives NULL where NULL is to be removed.
        let field = Arc::clone(&arguments.arg_fields[0]);
        let compacted = array_compact_udf().invoke_with_args(ScalarFunctionArgs {
            args: vec![ColumnarValue::Array(arrays)],
            arg_fields: vec![field],
            number_rows: rows,
            return_field: Arc::clone(&arguments.return_field),
            config_options: Arc::clone(&arguments.config_options),
        })?;
        let Some(elements) = elements else { return Ok(compacted) };
        let removed = self.function.invoke_with_args(arguments)?;
        let chosen = zip(&is_null(&elements)?, &compacted.into_array(rows)?, &removed.into_array(rows)?)?;
        Ok(ColumnarValue::Array(chosen))
    }
}
