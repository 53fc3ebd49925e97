//! What jsonb values are ordered by, and are equal by: bytes that stand in PostgreSQL's order.
//!
//! Objects come after arrays, those after booleans, numbers, texts and null. Of two arrays, or objects, the one with more elements comes last; of as
//! many, the first that differ decide. `1.0` is as large as `1`.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, BinaryBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::DataFusionError;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_fn::SimpleScalarUDF;
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarUDF, Signature, Volatility};
use serde_json::value::RawValue;

/// The kinds of values, in their order.
const EMPTY_OUTERMOST_ARRAY: u8 = 0;
const NULL: u8 = 1;
const TEXT: u8 = 2;
const NUMBER: u8 = 3;
const BOOLEAN: u8 = 4;
const ARRAY: u8 = 5;
const OBJECT: u8 = 6;

/// What is below zero, zero, and above.
const NEGATIVE: u8 = 0;
const ZERO: u8 = 1;
const POSITIVE: u8 = 2;

static ORDER_KEY: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let answer = |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let values: ArrayRef = cast(&arrays[0], &DataType::Utf8)?;
        let (mut keys, mut key) = (BinaryBuilder::new(), Vec::new());
        for value in values.as_string::<i32>() {
            key.clear();
            match value {
                None => keys.append_null(),
                Some("[]") => keys.append_value([EMPTY_OUTERMOST_ARRAY]),
                Some(value) => {
                    write(&mut key, value).map_err(|error| DataFusionError::External(Box::new(error)))?;
                    keys.append_value(&key);
                }
            }
        }
        Ok(ColumnarValue::Array(Arc::new(keys.finish())))
    };
    let signature = Signature::any(1, Volatility::Immutable);
    let name = "jsonb_order";
    Arc::new(ScalarUDF::from(SimpleScalarUDF::new_with_signature(name, signature, DataType::Binary, Arc::new(answer))))
});

/// An expression for what a jsonb is ordered by.
pub(crate) fn order_key(value: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&ORDER_KEY), vec![value]))
}

fn write(key: &mut Vec<u8>, text: &str) -> serde_json::Result<()> {
    match text.as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
            let mut members: Vec<_> = members.into_iter().collect();
            members.sort_by_key(|(name, _)| name.len());
            key.push(OBJECT);
            count(key, members.len());
            for (name, value) in members {
                write_text(key, &name);
                write(key, value.get())?;
            }
        }
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(text)?;
            key.push(ARRAY);
            count(key, elements.len());
            for element in elements {
                write(key, element.get())?;
            }
        }
        Some(b'"') => {
            key.push(TEXT);
            write_text(key, &serde_json::from_str::<String>(text)?);
        }
        Some(b't') => key.extend([BOOLEAN, 1]),
        Some(b'f') => key.extend([BOOLEAN, 0]),
        Some(b'n') => key.push(NULL),
        _ => {
            key.push(NUMBER);
            write_number(key, text);
        }
    }
    Ok(())
}

fn count(key: &mut Vec<u8>, elements: usize) {
    key.extend(u32::try_from(elements).unwrap_or(u32::MAX).to_be_bytes());
}

/// No text of a jsonb has a zero byte in it.
fn write_text(key: &mut Vec<u8>, text: &str) {
    key.extend(text.as_bytes());
    key.push(0);
}

/// A number as a jsonb has it, without an exponent: its sign, the digits it has before the point, and the digits, without zeros at either end.
/// Those of negative numbers are turned round.
fn write_number(key: &mut Vec<u8>, text: &str) {
    let (sign, text) = text.strip_prefix('-').map_or((POSITIVE, text), |text| (NEGATIVE, text));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    let Some(first) = digits.iter().position(|digit| *digit != b'0') else {
        key.push(ZERO);
        return;
    };
    let last = digits.iter().rposition(|digit| *digit != b'0').unwrap_or(first);
    // Below zero for 0.001.
    let before_point = i32::try_from(whole.len()).unwrap_or(i32::MAX) - i32::try_from(first).unwrap_or(i32::MAX);
    key.push(sign);
    let from = key.len();
    key.extend((before_point.cast_unsigned() ^ (1 << 31)).to_be_bytes());
    key.extend(&digits[first..=last]);
    key.push(0);
    if sign == NEGATIVE {
        for byte in &mut key[from..] {
            *byte = !*byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Vec<u8> {
        let mut key = Vec::new();
        write(&mut key, text).expect("valid");
        key
    }

    #[test]
    fn values_stand_in_the_order_of_postgresql() {
        let ascending = [
            "null",
            r#""a""#,
            r#""aa""#,
            r#""b""#,
            "-100",
            "-99.5",
            "-1.5",
            "-1.25",
            "-0.01",
            "0",
            "0.001",
            "0.01",
            "0.5",
            "1",
            "1.25",
            "2",
            "9",
            "10",
            "99",
            "100.5",
            "false",
            "true",
            "[2]",
            "[[1]]",
            "[1, 1]",
            "[1, 2]",
            "{}",
            r#"{"a": 1}"#,
            r#"{"a": 2}"#,
            r#"{"b": 0}"#,
            r#"{"a": 0, "b": 0}"#,
        ];
        for pair in ascending.windows(2) {
            assert!(key(pair[0]) < key(pair[1]), "{pair:?}");
        }
        for (one, other) in [("1.0", "1"), ("0.00", "0"), ("-0.50", "-0.5"), ("[1.10]", "[1.1]"), ("100", "100.000")] {
            assert_eq!(key(one), key(other), "{one} {other}");
        }
    }
}
