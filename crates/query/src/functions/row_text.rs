//! The text of a row: `(1,"a b",)`. Statements do not name the function; a row that a query gives is shown by it.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::utils::take_function_args;
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::forms::{has_own_text, texts};
use crate::text::Zone;

/// Where the metadata of a field say that its texts are rows.
pub(crate) const RECORD: &str = "annal.record";

static ROW_TEXT: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(RowText(Signature::any(1, Volatility::Stable)))));

/// The text of what `row` gives.
pub(crate) fn row_text(row: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&ROW_TEXT), vec![row]))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RowText(Signature);

impl ScalarUDFImpl for RowText {
    fn name(&self) -> &'static str {
        "row_text"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, _arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let field = Field::new(self.name(), DataType::Utf8, true);
        Ok(Arc::new(field.with_metadata([(RECORD.to_owned(), String::new())].into())))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let zone = Zone::of_session(&arguments.config_options);
        let [rows] = take_function_args(self.name(), ColumnarValue::values_to_arrays(&arguments.args)?)?;
        let Some(rows) = rows.as_struct_opt() else { return internal_err!("a row is a struct") };
        Ok(ColumnarValue::Array(Arc::new(of_rows(rows, zone)?)))
    }
}

fn of_rows(rows: &StructArray, zone: Zone) -> Result<StringArray> {
    let columns = rows.columns().iter().map(|column| of_column(column, zone)).collect::<Result<Vec<_>>>()?;
    let of_row = |row: usize| {
        let mut text = String::from("(");
        for (at, (column, texts)) in rows.columns().iter().zip(&columns).enumerate() {
            if at > 0 {
                text.push(',');
            }
            if column.is_valid(row) && !column.data_type().is_null() {
                write_part(&mut text, texts.value(row));
            }
        }
        text.push(')');
        text
    };
    Ok((0..rows.len()).map(|row| rows.is_valid(row).then(|| of_row(row))).collect())
}

fn of_column(column: &ArrayRef, zone: Zone) -> Result<StringArray> {
    match column.data_type() {
        DataType::Struct(_) => of_rows(column.as_struct(), zone),
        DataType::Boolean => {
            let booleans = column.as_boolean().iter();
            Ok(booleans.map(|value| value.map(|value| if value { "t" } else { "f" })).collect())
        }
        data_type if has_own_text(data_type) => texts(column, zone),
        _ => Ok(cast(column, &DataType::Utf8)?.as_string::<i32>().clone()),
    }
}

/// In quotes when it is empty or has a character that means something between the columns of a row.
fn write_part(out: &mut String, text: &str) {
    let is_plain = !text.is_empty()
        && !text.contains(|c: char| matches!(c, '"' | '\\' | '(' | ')' | ',') || c.is_ascii_whitespace());
    if is_plain {
        out.push_str(text);
        return;
    }
    out.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            out.push(character);
        }
        out.push(character);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_could_be_misread_are_quoted() {
        for (text, expected) in
            [("a", "a"), ("", "\"\""), ("a b", "\"a b\""), ("x\"y\\", "\"x\"\"y\\\\\""), ("{1}", "{1}")]
        {
            let mut out = String::new();
            write_part(&mut out, text);
            assert_eq!(out, expected, "{text}");
        }
    }
}
