//! Floats as numerics, by the digits that PostgreSQL takes for sure: 15 of a double precision, 6 of a real. The library rounds the binary
//! value, so that 1.005, which is a little less, becomes 1.00.

use std::fmt::LowerExp;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, PrimitiveArray};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float32Type, Float64Type};
use datafusion::common::utils::take_function_args;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::error::{Condition, Error, Report};
use crate::text::parse_decimal;

/// How many digits behind the first one PostgreSQL keeps.
const DOUBLE_DIGITS: usize = 14;
const REAL_DIGITS: usize = 5;

/// The function that makes numerics of `precision` digits, `scale` of them behind the point, from floats.
pub(crate) fn to_numeric(precision: u8, scale: i8) -> Arc<ScalarUDF> {
    let name = format!("numeric_{precision}_{scale}");
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(ScalarUDF::from(ToNumeric { precision, scale, name, signature }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToNumeric {
    precision: u8,
    scale: i8,
    name: String,
    signature: Signature,
}

impl ScalarUDFImpl for ToNumeric {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Decimal128(self.precision, self.scale))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = take_function_args(self.name(), arguments.args)?;
        let is_scalar = matches!(value, ColumnarValue::Scalar(_));
        let values = value.to_array(arguments.number_rows)?;
        let numerics = numerics(&values, self.precision, self.scale)
            .map_err(|report| DataFusionError::External(Box::new(Error::from(report))))?;
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&numerics, 0)?),
            false => ColumnarValue::Array(numerics),
        })
    }
}

/// Floats as numerics of `precision` digits, `scale` of them behind the point; anything else stays as it is.
///
/// # Errors
/// 22003 for a number with more digits, 0A000 for NaN.
pub(crate) fn numerics(values: &ArrayRef, precision: u8, scale: i8) -> Result<ArrayRef, Box<Report>> {
    let numerics = match values.data_type() {
        DataType::Float64 => of_floats(values.as_primitive::<Float64Type>(), DOUBLE_DIGITS, precision, scale)?,
        DataType::Float32 => of_floats(values.as_primitive::<Float32Type>(), REAL_DIGITS, precision, scale)?,
        _ => return Ok(Arc::clone(values)),
    };
    Ok(Arc::new(numerics.with_data_type(DataType::Decimal128(precision, scale))))
}

fn of_floats<T>(
    floats: &PrimitiveArray<T>,
    digits: usize,
    precision: u8,
    scale: i8,
) -> Result<Decimal128Array, Box<Report>>
where
    T: ArrowPrimitiveType<Native: Into<f64> + LowerExp>,
{
    floats.try_unary(|float| {
        let wide: f64 = float.into();
        if wide.is_nan() {
            let hint = Some("A column of double precision holds it.".to_owned());
            let report = Report::new(Condition::FeatureNotSupported, "NaN is not supported in type numeric");
            return Err(Box::new(Report { hint, ..report }));
        }
        if wide.is_infinite() {
            let detail = format!("A field with precision {precision}, scale {scale} cannot hold an infinite value.");
            return Err(Box::new(Report::new(Condition::NumericOutOfRange, "numeric field overflow").detailed(detail)));
        }
        parse_decimal(&format!("{float:.digits$e}"), precision, scale)
    })
}
