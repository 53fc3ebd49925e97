//! Parameters whose type says less than their values: numerics have the digits behind the point that they come with.

use std::sync::Arc;

use arrow::array::Decimal128Array;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType};
use datafusion::common::ScalarValue;
use datafusion::common::utils::SingleRowListArrayBuilder;

use super::array::{binary_array, parse_array};
use super::number::parse_numeric;
use super::{Refused, Zone, parse_scalar, refused};
use crate::binary;
use crate::error::Condition;

/// Object id of numeric.
const NUMERIC_OID: u32 = 1700;

/// Reads a parameter in text form.
///
/// # Errors
/// As [`parse_scalar`].
pub fn parse_parameter(text: &str, data_type: &DataType, zone: &Zone) -> Result<ScalarValue, Refused> {
    match data_type {
        DataType::Decimal128(..) => parse_numeric(text),
        DataType::List(element) if matches!(element.data_type(), DataType::Decimal128(..)) => {
            let elements =
                parse_array(text)?.into_iter().map(|element| element.as_deref().map(parse_numeric).transpose());
            list(elements.collect::<Result<_, _>>()?)
        }
        data_type => parse_scalar(text, data_type, zone),
    }
}

/// Reads an array of numerics in binary form.
///
/// # Errors
/// 22P03 for bytes that are none, 22003 for too many digits.
pub fn numerics_of(bytes: &[u8]) -> Result<ScalarValue, Refused> {
    let element = |element: Option<&[u8]>| match element {
        Some(bytes) => parse_numeric(&binary::numeric_text(bytes).ok_or_else(binary::malformed)?).map(Some),
        None => Ok(None),
    };
    list(binary_array(bytes, NUMERIC_OID)?.into_iter().map(element).collect::<Result<_, _>>()?)
}

/// An array whose elements have as many digits behind the point as the one that has most.
fn list(elements: Vec<Option<ScalarValue>>) -> Result<ScalarValue, Refused> {
    let parts = |element: &ScalarValue| match element {
        ScalarValue::Decimal128(Some(value), _, scale) => Some((*value, *scale)),
        _ => None,
    };
    let elements: Vec<Option<(i128, i8)>> = elements.iter().map(|element| element.as_ref().and_then(parts)).collect();
    let scale = elements.iter().flatten().map(|(_, scale)| *scale).max().unwrap_or(0);
    let overflow = || refused(Condition::NumericOutOfRange, "value overflows numeric format".to_owned());
    let widened = elements.into_iter().map(|element| match element {
        Some((value, own)) => {
            let unit = 10_i128.pow((scale - own).unsigned_abs().into());
            value.checked_mul(unit).map(Some).ok_or_else(overflow)
        }
        None => Ok(None),
    });
    let values = widened.collect::<Result<Decimal128Array, _>>()?;
    let values = values.with_precision_and_scale(DECIMAL128_MAX_PRECISION, scale).map_err(|_| overflow())?;
    Ok(SingleRowListArrayBuilder::new(Arc::new(values)).with_nullable(true).build_list_scalar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numerics_keep_their_digits() {
        let numerics = DataType::new_list(DataType::Decimal128(38, 10), true);
        let list = parse_parameter("{1.5,NULL,0.123456789012}", &numerics, &Zone::UTC).expect("an array");
        assert_eq!(list.data_type(), DataType::new_list(DataType::Decimal128(38, 12), true));
        let one = parse_parameter("1.50", &DataType::Decimal128(38, 10), &Zone::UTC);
        assert_eq!(one.ok(), Some(ScalarValue::Decimal128(Some(150), 3, 2)));
    }
}
