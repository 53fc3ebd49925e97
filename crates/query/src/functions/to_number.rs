//! `to_number(text, format)`: reads what `to_char` writes. The answer has as many digits behind the point as its format, where PostgreSQL's has
//! as many as were read; ten when the format is no literal.

use std::sync::Arc;

use arrow::array::{AsArray, Decimal128Array};
use arrow::compute::cast;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef};
use datafusion::common::utils::take_function_args;
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::number_format::{Format, Node, Signed};
use super::refused;
use crate::error::Condition;

/// Digits behind the point when planning does not know the format.
const UNKNOWN_SCALE: i8 = 10;

/// The function.
pub(super) fn to_number() -> ScalarUDF {
    let texts = vec![DataType::Utf8, DataType::Utf8];
    ScalarUDF::from(ToNumber(Signature::exact(texts, Volatility::Immutable)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToNumber(Signature);

impl ScalarUDFImpl for ToNumber {
    fn name(&self) -> &'static str {
        "to_number"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        internal_err!("the format says how many digits there are")
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let format =
            arguments.scalar_arguments.get(1).copied().flatten().and_then(|format| format.try_as_str().flatten());
        let scale = match format {
            Some(format) => i8::try_from(Format::parse(format)?.behind).map_err(|_| overflow())?,
            None => UNKNOWN_SCALE,
        };
        if scale > DECIMAL128_MAX_PRECISION as i8 {
            return Err(overflow());
        }
        Ok(Arc::new(Field::new(self.name(), DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale), true)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let DataType::Decimal128(precision, scale) = *arguments.return_field.data_type() else {
            return internal_err!("a number that is no decimal");
        };
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let [texts, formats] = take_function_args(self.name(), arrays)?;
        let (texts, formats) = (cast(&texts, &DataType::Utf8)?, cast(&formats, &DataType::Utf8)?);
        let pairs = texts.as_string::<i32>().iter().zip(formats.as_string::<i32>());
        let mut known: Option<(&str, Format)> = None;
        let numbers = pairs.map(|pair| {
            let (Some(text), Some(format)) = pair else { return Ok(None) };
            let parsed = match known.take() {
                Some((of, parsed)) if of == format => parsed,
                _ => Format::parse(format)?,
            };
            let number = read(text, &parsed, scale);
            known = Some((format, parsed));
            // An empty format reads nothing.
            if format.is_empty() { Ok(None) } else { number.map(Some) }
        });
        let numbers = numbers.collect::<Result<Decimal128Array>>()?.with_precision_and_scale(precision, scale)?;
        Ok(ColumnarValue::Array(Arc::new(numbers)))
    }
}

/// What is read, in units of the last of `scale` digits.
fn read(text: &str, format: &Format, scale: i8) -> Result<i128> {
    let mut reading = Reading::default();
    let mut rest = text;
    for node in &format.nodes {
        let Some(next) = rest.chars().next() else { break };
        rest = match node {
            Node::Digit { .. } | Node::Point => reading.digit(rest, matches!(node, Node::Digit { .. }), format),
            Node::Group => rest.strip_prefix(',').unwrap_or(rest),
            // It stands before the first digit or behind the last one, wherever that is.
            Node::Sign => rest,
            Node::Minus => {
                if next == '-' {
                    reading.negative = Some(true);
                }
                &rest[next.len_utf8()..]
            }
            Node::Literal(_) => &rest[next.len_utf8()..],
        };
    }
    if reading.before.is_empty() && reading.behind.is_empty() {
        let message = "invalid input syntax for type numeric: \" \"";
        return Err(refused(Condition::InvalidTextRepresentation, message));
    }
    let scale = usize::try_from(scale).unwrap_or(0);
    let digits = format!("{}{:0<scale$.scale$}", reading.before, reading.behind);
    let number: i128 = digits.parse().map_err(|_| overflow())?;
    if number >= 10_i128.pow(u32::from(DECIMAL128_MAX_PRECISION)) {
        return Err(overflow());
    }
    Ok(if reading.negative == Some(true) { -number } else { number })
}

/// A number as far as it was read.
#[derive(Debug, Default)]
struct Reading {
    negative: Option<bool>,
    before: String,
    behind: String,
    has_point: bool,
}

impl Reading {
    /// Reads at the place of a digit or of the point, and gives what is behind it. Whatever else stands there is passed over.
    fn digit<'t>(&mut self, text: &'t str, is_digit: bool, format: &Format) -> &'t str {
        let mut rest = text.strip_prefix(' ').unwrap_or(text);
        let begins = self.before.is_empty() && self.behind.is_empty();
        if self.negative.is_none() && begins && is_digit {
            let opens = format.signed == Signed::Brackets && rest.starts_with('<');
            if rest.starts_with('-') || opens {
                self.negative = Some(true);
            } else if rest.starts_with('+') {
                self.negative = Some(false);
            }
            rest = if self.negative.is_some() { &rest[1..] } else { rest };
        }
        let Some(next) = rest.chars().next() else { return rest };
        let behind = &rest[next.len_utf8()..];
        let is_read = match next {
            digit if digit.is_ascii_digit() && !self.has_point => {
                self.before.push(digit);
                true
            }
            digit if digit.is_ascii_digit() && self.behind.len() < format.behind => {
                self.behind.push(digit);
                true
            }
            '.' if format.nodes.contains(&Node::Point) && !self.has_point => {
                self.has_point = true;
                true
            }
            _ => false,
        };
        self.sign_behind(next, behind, is_read, format)
    }

    /// A sign behind the last digit belongs to it, though the format may have more digits.
    fn sign_behind<'t>(&mut self, read: char, behind: &'t str, is_read: bool, format: &Format) -> &'t str {
        if self.negative.is_some() || self.before.is_empty() && self.behind.is_empty() {
            return behind;
        }
        let sign = |sign: char| match sign {
            '-' => Some(true),
            '+' => Some(false),
            _ => None,
        };
        let takes_sign = format.nodes.contains(&Node::Sign) || format.signed == Signed::Before;
        if takes_sign && is_read {
            self.negative = behind.chars().next().and_then(sign);
            return if self.negative.is_some() { &behind[1..] } else { behind };
        }
        if !takes_sign && !is_read && format.nodes.contains(&Node::Minus) {
            self.negative = sign(read);
        }
        behind
    }
}

fn overflow() -> DataFusionError {
    refused(Condition::NumericOutOfRange, "numeric field overflow")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str, format: &str) -> Result<i128> {
        let format = Format::parse(format)?;
        read(text, &format, i8::try_from(format.behind).map_err(|_| overflow())?)
    }

    /// Answers are PostgreSQL's.
    #[test]
    fn numbers_are_read_as_postgresql_does() {
        for (text, format, expected) in [
            ("12,454.8-", "99G999D9S", -124_548),
            ("12", "999.99", 1200),
            ("1.235", "9.99", 123),
            ("-34,338,492", "99G999G999", -34_338_492),
            ("<564646.654564>", "999999.999999PR", -564_646_654_564),
            ("0.00001-", "9.999999S", -10),
            ("5.01-", "FM9.999999S", -5_010_000),
            (" 12", "999", 12),
            ("123", "99", 12),
            ("12a", "999", 12),
            (".5", "9.9", 5),
            ("-5", "S9", -5),
            ("5-", "9MI", -5),
            ("+5", "9", 5),
            ("1.5", "99", 1),
            ("x12", "\"x\"99", 12),
            ("12%", "99%", 12),
            ("- 12", "S999", -12),
            ("12-", "999", 12),
            ("12 -", "999 S", 12),
        ] {
            assert_eq!(number(text, format).ok(), Some(expected), "{text} by {format}");
        }
        assert!(number("abc", "999").is_err() && number("", "999").is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_a_number_or_refused(text in "[0-9.,<> +é-]{0,8}", format in "[90.,S DGé-]{0,8}|9{40}") {
            // What matters is that no character is cut in two and nothing overflows.
            let _any = number(&text, &format);
        }
    }
}
