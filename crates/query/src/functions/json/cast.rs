//! Casts of jsonb to booleans and numbers. No client names the function; [`crate::session`]'s analysis puts it where a statement has such a cast.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::utils::take_function_args;
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use event::ColumnType;

use super::value::Kind;
use crate::error::{Condition, Error};
use crate::functions::refused;
use crate::text::{ColumnBuilder, Refused, Zone, parse_numeric};

/// The function to a type of numbers or booleans; `None` for other types.
pub(crate) fn from_jsonb(column_type: ColumnType) -> Option<Arc<ScalarUDF>> {
    use ColumnType::{BigInt, Boolean, Double, Integer, Numeric, Real, SmallInt};
    let is_there = matches!(column_type, Boolean | SmallInt | Integer | BigInt | Real | Double | Numeric { .. });
    let signature = Signature::any(1, Volatility::Immutable);
    is_there.then(|| Arc::new(ScalarUDF::from(FromJsonb { column_type, signature })))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FromJsonb {
    column_type: ColumnType,
    signature: Signature,
}

impl ScalarUDFImpl for FromJsonb {
    fn name(&self) -> &'static str {
        "from_jsonb"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.column_type.arrow())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [values] = take_function_args(self.name(), ColumnarValue::values_to_arrays(&arguments.args)?)?;
        let values = cast(&values, &DataType::Utf8)?;
        let mut builder = ColumnBuilder::new(self.column_type, Zone::UTC);
        for value in values.as_string::<i32>() {
            match value {
                Some(value) => self.append(&mut builder, value)?,
                None => builder.append_null(),
            }
        }
        Ok(ColumnarValue::Array(builder.finish()))
    }
}

impl FromJsonb {
    /// Without precision and scale.
    fn type_name(&self) -> String {
        match self.column_type {
            ColumnType::Numeric { .. } => "numeric".to_owned(),
            other => other.to_string(),
        }
    }

    fn append(&self, builder: &mut ColumnBuilder, value: &str) -> Result<()> {
        let kind = Kind::of(value);
        let fits = match self.column_type {
            ColumnType::Boolean => kind == Kind::Boolean,
            _ => kind == Kind::Number,
        };
        if !fits {
            let kind = if kind == Kind::Number { "numeric" } else { kind.name() };
            let message = format!("cannot cast jsonb {kind} to type {}", self.type_name());
            return Err(refused(Condition::InvalidParameterValue, message));
        }
        let whole = matches!(self.column_type, ColumnType::SmallInt | ColumnType::Integer | ColumnType::BigInt);
        if !whole {
            return builder.append_text(value).map_err(reported);
        }
        let rounded = match parse_numeric(value).map_err(reported)? {
            ScalarValue::Decimal128(Some(value), _, scale) => rounded(value, scale),
            other => return internal_err!("{other} is no numeric"),
        };
        let out_of_range = |_| refused(Condition::NumericOutOfRange, format!("{} out of range", self.type_name()));
        builder.append_text(&rounded.to_string()).map_err(out_of_range)
    }
}

/// Half away from zero.
fn rounded(value: i128, scale: i8) -> i128 {
    let unit = 10_i128.pow(scale.max(0).unsigned_abs().into());
    let (whole, rest) = (value / unit, value % unit);
    let up = rest.unsigned_abs() * 2 >= unit.unsigned_abs() && unit > 1;
    if up { whole + value.signum() } else { whole }
}

fn reported(refused: Refused) -> DataFusionError {
    DataFusionError::External(Box::new(Error::Reported(refused)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_half_away_from_zero() {
        for (value, scale, expected) in [(17, 1, 2), (25, 1, 3), (-25, 1, -3), (24, 1, 2), (7, 0, 7)] {
            assert_eq!(rounded(value, scale), expected, "{value} {scale}");
        }
    }
}
