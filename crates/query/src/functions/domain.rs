//! Functions of the library that PostgreSQL refuses outside of their domain, and where the result cannot be held. The library answers with NaN, an
//! infinity, zero, or a character that no text may have.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::{DataFusionError, Result};
use datafusion::functions::math;
use datafusion::functions::string;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};

use super::checked::{Check, checked};
use super::refused;
use crate::error::Condition;

/// The functions.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    vec![
        checked(math::sqrt(), Check::Domain(Domain::Root)),
        checked(math::ln(), Check::Domain(Domain::Logarithm)),
        checked(math::log(), Check::Domain(Domain::Logarithm)),
        checked(math::log2(), Check::Domain(Domain::Logarithm)),
        checked(math::log10(), Check::Domain(Domain::Logarithm)),
        checked(math::exp(), Check::Domain(Domain::Exponential)),
        checked(math::power(), Check::Domain(Domain::Power)),
        checked(math::acos(), Check::Domain(Domain::Ratio)),
        checked(math::asin(), Check::Domain(Domain::Ratio)),
        checked(math::atanh(), Check::Domain(Domain::Ratio)),
        checked(math::acosh(), Check::Domain(Domain::Cosine)),
        checked(string::chr(), Check::Domain(Domain::Character)),
    ]
}

/// Which arguments a function takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Domain {
    /// None below zero.
    Root,
    /// None up to zero.
    Logarithm,
    /// All whose power can be held.
    Exponential,
    /// A base and an exponent.
    Power,
    /// From -1 to 1.
    Ratio,
    /// From 1.
    Cosine,
    /// The number of a character.
    Character,
}

impl Domain {
    /// Calls the function, unless it has no value there.
    pub(super) fn call(self, function: &ScalarUDF, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let given = ColumnarValue::values_to_arrays(&arguments.args)?;
        if self == Domain::Character {
            check_characters(&given)?;
            return function.invoke_with_args(arguments);
        }
        let given = given.iter().map(doubles).collect::<Result<Vec<_>>>()?;
        self.check_arguments(&given)?;
        let answer = function.invoke_with_args(arguments)?;
        let results = doubles(&answer.to_array(1)?)?;
        let is_odd = |value: &f64| !value.is_finite() || *value == 0.0;
        if results.values().iter().any(is_odd) {
            for row in (0..results.len()).filter(|row| results.is_valid(*row) && is_odd(&results.value(*row))) {
                if let Some(given) = at(&given, row) {
                    self.check_result(&given, results.value(row))?;
                }
            }
        }
        Ok(answer)
    }

    /// Refuses arguments that the function does not take.
    fn check_arguments(self, given: &[Float64Array]) -> Result<()> {
        let is_suspect = |value: &f64| match self {
            Domain::Root => *value < 0.0,
            Domain::Logarithm => *value <= 0.0 || *value == 1.0,
            Domain::Power => *value <= 0.0,
            Domain::Ratio => value.abs() > 1.0,
            Domain::Cosine => *value < 1.0,
            Domain::Exponential | Domain::Character => false,
        };
        let rows = given.iter().map(|values| values.len()).max().unwrap_or(0);
        if !given.iter().any(|values| values.values().iter().any(is_suspect)) {
            return Ok(());
        }
        (0..rows).filter_map(|row| at(given, row)).try_for_each(|given| self.check_one(&given))
    }

    fn check_one(self, given: &[f64]) -> Result<()> {
        let Some(&first) = given.first() else { return Ok(()) };
        let power = |message: &str| Err(refused(Condition::InvalidPower, message));
        let logarithm = |message: &str| Err(refused(Condition::InvalidLogarithm, message));
        match self {
            Domain::Root if first < 0.0 => power("cannot take square root of a negative number"),
            Domain::Logarithm if given.contains(&0.0) => logarithm("cannot take logarithm of zero"),
            Domain::Logarithm if given.iter().any(|value| *value < 0.0) => {
                logarithm("cannot take logarithm of a negative number")
            }
            // Of two arguments the first is the base.
            Domain::Logarithm if given.len() == 2 && first == 1.0 => {
                Err(refused(Condition::DivisionByZero, "division by zero"))
            }
            Domain::Power => {
                let exponent = given.get(1).copied().unwrap_or(1.0);
                if first == 0.0 && exponent < 0.0 {
                    return power("zero raised to a negative power is undefined");
                }
                if first < 0.0 && exponent.is_finite() && exponent.fract() != 0.0 {
                    return power("a negative number raised to a non-integer power yields a complex result");
                }
                Ok(())
            }
            Domain::Ratio if first.abs() > 1.0 => Err(out_of_range()),
            Domain::Cosine if first < 1.0 => Err(out_of_range()),
            _ => Ok(()),
        }
    }

    /// Refuses arguments whose result cannot be held.
    fn check_result(self, given: &[f64], result: f64) -> Result<()> {
        let is_finite = given.iter().all(|value| value.is_finite());
        match (self, given) {
            (Domain::Power, [base, _]) => held(result, is_finite, *base != 0.0),
            (Domain::Exponential, _) => held(result, is_finite, true),
            _ => Ok(()),
        }
    }
}

fn out_of_range() -> DataFusionError {
    refused(Condition::NumericOutOfRange, "input is out of range")
}

/// The arguments in a row, a constant one being there once; `None` when one is NULL.
fn at(given: &[Float64Array], row: usize) -> Option<Vec<f64>> {
    let one = |values: &Float64Array| {
        let row = if values.len() == 1 { 0 } else { row };
        values.is_valid(row).then(|| values.value(row))
    };
    given.iter().map(one).collect()
}

/// Whether the result of finite arguments is a number that can be held, and not zero where it cannot be.
fn held(result: f64, is_finite: bool, is_positive: bool) -> Result<()> {
    if is_finite && result.is_infinite() {
        return Err(refused(Condition::NumericOutOfRange, "value out of range: overflow"));
    }
    if is_finite && is_positive && result == 0.0 {
        return Err(refused(Condition::NumericOutOfRange, "value out of range: underflow"));
    }
    Ok(())
}

fn doubles(values: &ArrayRef) -> Result<Float64Array> {
    Ok(cast(values, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
}

fn check_characters(given: &[ArrayRef]) -> Result<()> {
    let Some(numbers) = given.first() else { return Ok(()) };
    for number in cast(numbers, &DataType::Int64)?.as_primitive::<Int64Type>().iter().flatten() {
        if number == 0 {
            return Err(refused(Condition::ProgramLimitExceeded, "null character not permitted"));
        }
        if number < 0 {
            return Err(refused(Condition::InvalidParameterValue, "character number must be positive"));
        }
        if u32::try_from(number).ok().and_then(char::from_u32).is_none() {
            let message = format!("requested character too large for encoding: {number}");
            return Err(refused(Condition::ProgramLimitExceeded, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(domain: Domain, given: &[f64], result: f64, expected: Option<&str>) {
        let columns: Vec<Float64Array> = given.iter().map(|value| Float64Array::from(vec![*value])).collect();
        let outcome = domain.check_arguments(&columns).and_then(|()| domain.check_result(given, result));
        let refusal = outcome.err().map(|error| error.to_string());
        assert_eq!(refusal.is_some(), expected.is_some(), "{domain:?} {given:?}");
        if let (Some(refusal), Some(expected)) = (refusal, expected) {
            assert!(refusal.contains(expected), "{refusal}");
        }
    }

    #[test]
    fn what_has_no_result_is_refused() {
        check(Domain::Root, &[-1.0], f64::NAN, Some("square root"));
        check(Domain::Root, &[f64::NAN], f64::NAN, None);
        check(Domain::Logarithm, &[0.0], f64::NEG_INFINITY, Some("of zero"));
        check(Domain::Logarithm, &[2.0, -1.0], f64::NAN, Some("negative"));
        check(Domain::Logarithm, &[1.0], 0.0, None);
        check(Domain::Power, &[0.0, -1.0], f64::INFINITY, Some("undefined"));
        check(Domain::Power, &[-1.0, 0.5], f64::NAN, Some("complex"));
        check(Domain::Power, &[10.0, 400.0], f64::INFINITY, Some("overflow"));
        check(Domain::Power, &[0.0, 2.0], 0.0, None);
        check(Domain::Exponential, &[-1000.0], 0.0, Some("underflow"));
        check(Domain::Exponential, &[f64::NEG_INFINITY], 0.0, None);
        check(Domain::Cosine, &[0.5], f64::NAN, Some("range"));
    }
}
