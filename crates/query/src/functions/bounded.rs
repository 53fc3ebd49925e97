//! Functions of the library whose results can be of any size: they are refused before they are made when they would be too large.
//!
//! PostgreSQL makes one value at a time, here those of a batch of rows are there together.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::compute::kernels::length::length;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_err};
use datafusion::functions::string::{concat, repeat, replace};
use datafusion::functions::unicode::{lpad, rpad};
use datafusion::functions_nested::repeat::array_repeat_udf;
use datafusion::functions_nested::resize::array_resize_udf;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};

use super::checked::{Check, checked};
use super::refused;
use super::series;
use super::textcat::TEXTCAT;
use crate::error::{Condition, Error};

/// What PostgreSQL can allocate at once.
const VALUE_BYTES_MAX: u64 = 0x3fff_ffff;
/// The length that is stored before a value.
const HEADER_BYTES: u64 = 4;
/// Of the longest character.
const CHARACTER_BYTES_MAX: u64 = 4;
/// All values of a batch of several rows.
const BATCH_BYTES_MAX: u64 = 256 << 20;
/// What an element of an array takes, at least.
const ELEMENT_BYTES: u64 = 8;

/// The functions.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    vec![
        checked(repeat(), Check::Size(Size::Repeated)),
        checked(lpad(), Check::Size(Size::Padded)),
        checked(rpad(), Check::Size(Size::Padded)),
        checked(concat(), Check::Size(Size::Joined)),
        checked(replace(), Check::Size(Size::Replaced)),
        checked(series::generate_series(), Check::Size(Size::Series)),
        checked(array_repeat_udf(), Check::Size(Size::Elements)),
        checked(array_resize_udf(), Check::Size(Size::Elements)),
    ]
}

/// How large a result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Size {
    /// All texts together.
    Joined,
    /// The text with each of its characters replaced.
    Replaced,
    /// The text as often as the number says.
    Repeated,
    /// As many characters as the number says.
    Padded,
    /// As many elements as lie between two numbers.
    Series,
    /// As many elements as the number says.
    Elements,
}

impl Size {
    /// Calls the function, unless its results would be too large.
    pub(super) fn call(self, function: &ScalarUDF, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = match arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_))) {
            true => 1,
            false => arguments.number_rows,
        };
        self.check(function.name(), &arguments.args, rows)?;
        function.invoke_with_args(arguments)
    }

    fn check(self, name: &str, arguments: &[ColumnarValue], rows: usize) -> Result<()> {
        let size = match (self, arguments) {
            (Size::Joined, texts) => {
                let texts = texts.iter().map(Numbers::lengths).collect::<Result<Vec<_>>>()?;
                let joined = |row| texts.iter().map(|text| text.get(row)).fold(0, u64::saturating_add);
                total(rows, |row| allowed(joined(row)))?
            }
            (Size::Replaced, [text, from, to]) => {
                let [text, from, to] = [Numbers::lengths(text)?, Numbers::lengths(from)?, Numbers::lengths(to)?];
                total(rows, |row| {
                    let times = text.get(row) / from.get(row).max(1);
                    Ok(text.get(row).saturating_add(times.saturating_mul(to.get(row))))
                })?
            }
            (Size::Repeated, [text, count]) => {
                let (lengths, counts) = (Numbers::lengths(text)?, Numbers::of(count)?);
                total(rows, |row| allowed(lengths.get(row).saturating_mul(counts.get(row))))?
            }
            (Size::Padded, [text, count, fill @ ..]) => {
                let (lengths, counts) = (Numbers::lengths(text)?, Numbers::of(count)?);
                let is_narrow = match fill {
                    [] => true,
                    [ColumnarValue::Scalar(fill)] => fill.try_as_str().flatten().is_none_or(str::is_ascii),
                    _ => false,
                };
                let width = if is_narrow { 1 } else { CHARACTER_BYTES_MAX };
                total(rows, |row| {
                    allowed(counts.get(row).saturating_mul(CHARACTER_BYTES_MAX))?;
                    Ok(lengths.get(row).saturating_add(counts.get(row).saturating_mul(width)))
                })?
            }
            (Size::Series, [first, last, step @ ..]) if first.data_type() == DataType::Int64 => {
                let (first, last) = (Numbers::of(first)?, Numbers::of(last)?);
                let step = step.first().map(Numbers::of).transpose()?;
                total(rows, |row| {
                    let step = step.as_ref().map_or(1, |step| step.signed(row)).unsigned_abs().max(1);
                    let elements = first.signed(row).abs_diff(last.signed(row)) / step;
                    Ok(elements.saturating_add(1).saturating_mul(ELEMENT_BYTES))
                })?
            }
            // `array_repeat(element, count)`, `array_resize(array, count, ...)`.
            (Size::Elements, [_, count, ..]) => {
                let counts = Numbers::of(count)?;
                total(rows, |row| Ok(counts.get(row).saturating_mul(ELEMENT_BYTES)))?
            }
            _ => 0,
        };
        let is_array = matches!(self, Size::Series | Size::Elements);
        if size > BATCH_BYTES_MAX && (rows > 1 || is_array) {
            // Nobody wrote the name of the operator's function.
            let name = if name == TEXTCAT { "||" } else { name };
            let message = format!("the results of {name} do not fit into memory");
            let hint = "Those of a batch of rows are there together. Make them shorter, or of fewer rows at a time.";
            return Err(DataFusionError::External(Box::new(Error::hinted(Condition::OutOfMemory, message, hint))));
        }
        Ok(())
    }
}

fn total(rows: usize, size: impl Fn(usize) -> Result<u64>) -> Result<u64> {
    (0..rows).try_fold(0_u64, |all, row| Ok(all.saturating_add(size(row)?)))
}

/// The size of a value that PostgreSQL would make.
fn allowed(bytes: u64) -> Result<u64> {
    if bytes.saturating_add(HEADER_BYTES) > VALUE_BYTES_MAX {
        return Err(refused(Condition::ProgramLimitExceeded, "requested length too large"));
    }
    Ok(bytes)
}

/// A number for each row; NULL, of which nothing comes, is 0.
enum Numbers {
    One(i64),
    Each(ArrayRef),
}

impl Numbers {
    fn of(value: &ColumnarValue) -> Result<Numbers> {
        Ok(match value {
            ColumnarValue::Scalar(value) => match value.cast_to(&DataType::Int64)? {
                ScalarValue::Int64(number) => Numbers::One(number.unwrap_or(0)),
                other => return internal_err!("{other} is no number"),
            },
            ColumnarValue::Array(array) => Numbers::Each(cast(array, &DataType::Int64)?),
        })
    }

    /// How many bytes texts have; what is no text has few.
    fn lengths(value: &ColumnarValue) -> Result<Numbers> {
        match value {
            ColumnarValue::Scalar(value) => {
                let bytes = value.try_as_str().flatten().map_or(0, str::len);
                Ok(Numbers::One(i64::try_from(bytes).unwrap_or(i64::MAX)))
            }
            ColumnarValue::Array(array) if array.data_type().is_string() => {
                Numbers::of(&ColumnarValue::Array(length(array.as_ref())?))
            }
            ColumnarValue::Array(_) => Ok(Numbers::One(0)),
        }
    }

    fn signed(&self, row: usize) -> i64 {
        match self {
            Numbers::One(number) => *number,
            Numbers::Each(array) if array.is_valid(row) => array.as_primitive::<Int64Type>().value(row),
            Numbers::Each(_) => 0,
        }
    }

    /// What is below zero is nothing.
    fn get(&self, row: usize) -> u64 {
        u64::try_from(self.signed(row)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};

    use super::*;

    fn code(size: Size, arguments: &[ColumnarValue], rows: usize) -> Option<String> {
        size.check("repeat", arguments, rows).err().map(|error| error.find_root().to_string())
    }

    fn number(number: i64) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::Int64(Some(number)))
    }

    #[test]
    fn what_postgresql_cannot_hold_is_refused() {
        let text = |text: &str| ColumnarValue::Scalar(ScalarValue::from(text));
        let too_large = |found: Option<String>| found.is_some_and(|found| found.contains("requested length too large"));
        assert!(too_large(code(Size::Repeated, &[text("ab"), number(1 << 29)], 1)));
        assert_eq!(code(Size::Repeated, &[text("ab"), number(1 << 28)], 1), None);
        assert!(too_large(code(Size::Padded, &[text("ab"), number(1 << 28)], 1)));
        assert_eq!(code(Size::Padded, &[text("ab"), number(1 << 27)], 1), None);
        assert_eq!(code(Size::Repeated, &[text("ab"), number(-1)], 1), None);
    }

    #[test]
    fn the_values_of_a_batch_are_bounded_together() {
        let texts = ColumnarValue::Array(Arc::new(StringArray::from(vec![Some("x"), None, Some("y")])));
        let counts = |count: i64| ColumnarValue::Array(Arc::new(Int64Array::from(vec![count; 3])));
        assert_eq!(code(Size::Repeated, &[texts.clone(), counts(100 << 20)], 3), None);
        assert!(
            code(Size::Repeated, &[texts.clone(), counts(130 << 20)], 3).is_some_and(|found| found.contains("memory"))
        );
        let long = |bytes: usize| ColumnarValue::from(ScalarValue::from("x".repeat(bytes)));
        assert_eq!(code(Size::Joined, &[texts.clone(), long(80 << 20)], 3), None);
        assert!(code(Size::Joined, &[texts.clone(), long(90 << 20)], 3).is_some_and(|found| found.contains("memory")));
        assert_eq!(code(Size::Replaced, &[texts.clone(), long(1), long(120 << 20)], 3), None);
        let replaced = code(Size::Replaced, &[texts, long(1), long(130 << 20)], 3);
        assert!(replaced.is_some_and(|found| found.contains("memory")));
        assert_eq!(
            code(Size::Joined, &[number(1), long(300 << 20)], 1),
            None,
            "one value may be as large as PostgreSQL's"
        );
        assert!(code(Size::Series, &[number(1), number(1 << 40)], 1).is_some());
        assert_eq!(code(Size::Series, &[number(1), number(1 << 40), number(1 << 30)], 1), None);
    }
}
