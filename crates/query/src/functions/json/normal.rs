//! The one text that equal jsonb values have in common: numbers without zeros at the end, `1` for `1.0`. What is told apart by its text, where
//! rows are grouped, is told apart by this one.

use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::common::utils::take_function_args;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use event::ColumnType;

use super::value::plain_number;

static NORMAL: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(Normal(Signature::any(1, Volatility::Immutable)))));

/// An expression for what all values equal to a jsonb have in common.
pub(crate) fn normal(value: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&NORMAL), vec![value]))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Normal(Signature);

impl ScalarUDFImpl for Normal {
    fn name(&self) -> &'static str {
        "jsonb_normal"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, _arguments: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(ColumnType::Jsonb.field(self.name(), true)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [values] = take_function_args(self.name(), ColumnarValue::values_to_arrays(&arguments.args)?)?;
        let values = cast(&values, &DataType::Utf8)?;
        let normal = values.as_string::<i32>().iter().map(|value| value.map(of_text));
        Ok(ColumnarValue::Array(Arc::new(normal.collect::<StringArray>())))
    }
}

/// A jsonb has numbers without exponents, and everything else in one form.
fn of_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut is_string) = (text, false);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\\' if is_string => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            _ if is_string => first.len_utf8(),
            '0'..='9' | '-' => {
                let end = rest.find(|c: char| !matches!(c, '0'..='9' | '-' | '.')).unwrap_or(rest.len());
                let number = plain_number(&rest[..end]);
                out.push_str(if number == "-0" { "0" } else { number });
                rest = &rest[end..];
                continue;
            }
            _ => first.len_utf8(),
        };
        is_string ^= first == '"';
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_change() {
        for (text, expected) in [
            ("1.0", "1"),
            ("-0.0", "0"),
            ("100", "100"),
            ("[1.50, 0.10, -2.00]", "[1.5, 0.1, -2]"),
            (r#"{"a 1.0": "2.0", "b\"3.0": 4.0}"#, r#"{"a 1.0": "2.0", "b\"3.0": 4}"#),
            (r#""\\", 1"#, r#""\\", 1"#),
            ("true", "true"),
        ] {
            assert_eq!(of_text(text), expected, "{text}");
        }
    }
}
