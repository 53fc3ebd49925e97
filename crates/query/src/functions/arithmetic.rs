//! Arithmetic that refuses what it cannot hold, as PostgreSQL's does: integers that overflow, floats that overflow, underflow or are
//! divided by zero. The library's own operators wrap, or answer with an infinity.
//!
//! No client names these functions; [`crate::session`]'s analysis puts them where a statement has an operator or a cast.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Datum, PrimitiveArray};
use arrow::compute::kernels::{cast, numeric};
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type};
use arrow::error::ArrowError;
use datafusion::common::utils::take_function_args;
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr_common::datum::apply;

use crate::error::{Condition, Error};

static ADD: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function(Operation::Add));
static SUBTRACT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function(Operation::Subtract));
static MULTIPLY: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function(Operation::Multiply));
static DIVIDE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function(Operation::Divide));
static NEGATE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function(Operation::Negate));
static ABSOLUTE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function(Operation::Absolute));
static ROUND_EVEN: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function(Operation::RoundEven));
static UNSIGNED_ZERO: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function(Operation::UnsignedZero));
static TO_REAL: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function(Operation::ToReal));

/// The checked function for an operator, if there is one.
pub(crate) fn of_operator(operator: Operator) -> Option<Arc<ScalarUDF>> {
    let function = match operator {
        Operator::Plus => &ADD,
        Operator::Minus => &SUBTRACT,
        Operator::Multiply => &MULTIPLY,
        Operator::Divide => &DIVIDE,
        _ => return None,
    };
    Some(Arc::clone(function))
}

/// `-x` of integers.
pub(crate) fn negate() -> Arc<ScalarUDF> {
    Arc::clone(&NEGATE)
}

/// `abs(x)` of integers.
pub(crate) fn absolute() -> Arc<ScalarUDF> {
    Arc::clone(&ABSOLUTE)
}

/// The nearest whole float; of two as near the even one.
pub(crate) fn round_even() -> Arc<ScalarUDF> {
    Arc::clone(&ROUND_EVEN)
}

/// The float, or 0 for -0.
pub(crate) fn unsigned_zero() -> Arc<ScalarUDF> {
    Arc::clone(&UNSIGNED_ZERO)
}

/// `double precision` to `real`.
pub(crate) fn to_real() -> Arc<ScalarUDF> {
    Arc::clone(&TO_REAL)
}

/// Whether `function` may refuse a row that another condition would have kept from it.
pub(crate) fn divides(function: &ScalarUDF) -> bool {
    function.name() == Operation::Divide.name()
}

/// Whether `function` refuses what it cannot hold.
pub(crate) fn is_checked(function: &ScalarUDF) -> bool {
    function.name().starts_with("checked_")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Negate,
    Absolute,
    RoundEven,
    UnsignedZero,
    ToReal,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Add => "checked_add",
            Operation::Subtract => "checked_subtract",
            Operation::Multiply => "checked_multiply",
            Operation::Divide => "checked_divide",
            Operation::Negate => "checked_negate",
            Operation::Absolute => "checked_abs",
            Operation::RoundEven => "round_even",
            Operation::UnsignedZero => "unsigned_zero",
            Operation::ToReal => "checked_real",
        }
    }

    fn arguments(self) -> usize {
        match self {
            Operation::Add | Operation::Subtract | Operation::Multiply | Operation::Divide => 2,
            Operation::Negate
            | Operation::Absolute
            | Operation::RoundEven
            | Operation::UnsignedZero
            | Operation::ToReal => 1,
        }
    }
}

/// Arguments are of one type, which is the result's, but for casts.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    operation: Operation,
    /// What is done with the result and each argument that follows.
    more: Vec<Operation>,
    name: String,
    signature: Signature,
}

fn function(operation: Operation) -> Arc<ScalarUDF> {
    let signature = Signature::any(operation.arguments(), Volatility::Immutable);
    let name = operation.name().to_owned();
    Arc::new(ScalarUDF::from(Checked { operation, more: Vec::new(), name, signature }))
}

/// The function for a chain that ends with another operator: `a + b - c` is one call. Whoever looks at an expression looks at all that is below it,
/// again at each step, which takes long where a chain is as deep as it is long.
pub(crate) fn longer(function: &ScalarUDF, operator: Operator) -> Option<Arc<ScalarUDF>> {
    let chain = function.inner().downcast_ref::<Checked>()?;
    let (operation, sign) = match operator {
        Operator::Plus => (Operation::Add, '+'),
        Operator::Minus => (Operation::Subtract, '-'),
        Operator::Multiply => (Operation::Multiply, '*'),
        _ => return None,
    };
    if !matches!(chain.operation, Operation::Add | Operation::Subtract | Operation::Multiply) {
        return None;
    }
    let more: Vec<Operation> = chain.more.iter().copied().chain([operation]).collect();
    let signature = Signature::any(chain.operation.arguments() + more.len(), Volatility::Immutable);
    let name = format!("{}{sign}", chain.name);
    Some(Arc::new(ScalarUDF::from(Checked { operation: chain.operation, more, name, signature })))
}

/// Whether all arguments of `function` are of the type of its result.
pub(crate) fn is_of_one_type(function: &ScalarUDF) -> bool {
    function.inner().downcast_ref::<Checked>().is_some_and(|checked| checked.operation != Operation::ToReal)
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(match self.operation {
            Operation::ToReal => DataType::Float32,
            _ => arguments[0].clone(),
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let data_type = self.return_type(&[args.arg_fields[0].data_type().clone()])?;
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), data_type, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let data_type = args.args[0].data_type();
        if self.operation.arguments() == 1 {
            let [value] = take_function_args(self.name(), args.args)?;
            let unary = |value: &ArrayRef| of_one(self.operation, value);
            return match &value {
                ColumnarValue::Array(array) => Ok(ColumnarValue::Array(unary(array)?)),
                ColumnarValue::Scalar(scalar) => {
                    let answer = unary(&scalar.to_array()?)?;
                    Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&answer, 0)?))
                }
            };
        }
        let mut values = args.args.into_iter();
        let Some(first) = values.next() else { return internal_err!("{} takes arguments", self.name()) };
        let operations = std::iter::once(self.operation).chain(self.more.iter().copied());
        operations.zip(values).try_fold(first, |left, (operation, right)| of_two(operation, &left, &right, &data_type))
    }
}

fn of_two(
    operation: Operation,
    left: &ColumnarValue,
    right: &ColumnarValue,
    data_type: &DataType,
) -> Result<ColumnarValue> {
    let kernel: fn(&dyn Datum, &dyn Datum) -> Result<ArrayRef, ArrowError> = match operation {
        Operation::Add => numeric::add,
        Operation::Subtract => numeric::sub,
        Operation::Multiply => numeric::mul,
        _ => numeric::div,
    };
    match data_type {
        DataType::Float64 | DataType::Float32 => of_floats(operation, left, right, kernel),
        _ => apply(left, right, kernel).map_err(|error| worded(error, data_type)),
    }
}

fn of_one(operation: Operation, value: &ArrayRef) -> Result<ArrayRef> {
    match (operation, value.data_type()) {
        (Operation::Negate, data_type) => {
            numeric::neg(value).map_err(|error| worded(DataFusionError::from(error), data_type))
        }
        (Operation::Absolute, DataType::Int16) => absolutes::<Int16Type>(value, i16::checked_abs),
        (Operation::Absolute, DataType::Int32) => absolutes::<Int32Type>(value, i32::checked_abs),
        (Operation::Absolute, DataType::Int64) => absolutes::<Int64Type>(value, i64::checked_abs),
        (Operation::RoundEven, DataType::Float64) => {
            Ok(Arc::new(value.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round_ties_even)))
        }
        (Operation::RoundEven, DataType::Float32) => {
            Ok(Arc::new(value.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::round_ties_even)))
        }
        (Operation::UnsignedZero, DataType::Float64) => {
            Ok(Arc::new(value.as_primitive::<Float64Type>().unary::<_, Float64Type>(|value| value + 0.0)))
        }
        (Operation::UnsignedZero, DataType::Float32) => {
            Ok(Arc::new(value.as_primitive::<Float32Type>().unary::<_, Float32Type>(|value| value + 0.0)))
        }
        (Operation::ToReal, DataType::Float64) => {
            let reals = cast::cast(value, &DataType::Float32)?;
            let (wide, narrow) = (value.as_primitive::<Float64Type>(), reals.as_primitive::<Float32Type>());
            for (wide, narrow) in wide.iter().flatten().zip(narrow.iter().flatten()) {
                refuse(narrow.is_infinite() && wide.is_finite(), "overflow")?;
                refuse(narrow == 0.0 && wide != 0.0, "underflow")?;
            }
            Ok(reals)
        }
        (operation, data_type) => internal_err!("{} is not for {data_type}", operation.name()),
    }
}

fn absolutes<T: ArrowPrimitiveType>(
    value: &ArrayRef,
    absolute: fn(T::Native) -> Option<T::Native>,
) -> Result<ArrayRef> {
    let answer: PrimitiveArray<T> = value
        .as_primitive::<T>()
        .try_unary(|value| absolute(value).ok_or_else(|| ArrowError::ArithmeticOverflow(String::new())))
        .map_err(|error| worded(DataFusionError::from(error), &T::DATA_TYPE))?;
    Ok(Arc::new(answer))
}

/// Computes without looking, then looks at the results: where all are ordinary numbers so were the operands.
fn of_floats(
    operation: Operation,
    left: &ColumnarValue,
    right: &ColumnarValue,
    kernel: fn(&dyn Datum, &dyn Datum) -> Result<ArrayRef, ArrowError>,
) -> Result<ColumnarValue> {
    let answer = apply(left, right, kernel)?;
    let results = wide(&answer.to_array(1)?)?;
    let results = results.as_primitive::<Float64Type>();
    let scales = matches!(operation, Operation::Multiply | Operation::Divide);
    let is_odd = |value: f64| !value.is_finite() || scales && value == 0.0;
    if !results.values().iter().fold(false, |odd, value| odd | is_odd(*value)) {
        return Ok(answer);
    }
    let (left, right) = (wide(&left.to_array(results.len())?)?, wide(&right.to_array(results.len())?)?);
    let operands = left.as_primitive::<Float64Type>().iter().zip(right.as_primitive::<Float64Type>());
    for ((left, right), result) in operands.zip(results) {
        let (Some(left), Some(right), Some(result)) = (left, right, result) else { continue };
        if operation == Operation::Divide && right == 0.0 && !left.is_nan() {
            return Err(reported(Condition::DivisionByZero, "division by zero"));
        }
        refuse(result.is_infinite() && !left.is_infinite() && !right.is_infinite(), "overflow")?;
        let vanished = match operation {
            Operation::Multiply => left != 0.0 && right != 0.0,
            Operation::Divide => left != 0.0 && !right.is_infinite(),
            _ => false,
        };
        refuse(result == 0.0 && vanished, "underflow")?;
    }
    Ok(answer)
}

/// `real` as `double precision`, where what is infinite or zero stays so.
fn wide(floats: &ArrayRef) -> Result<ArrayRef> {
    Ok(cast::cast(floats, &DataType::Float64)?)
}

fn refuse(is_out: bool, what: &str) -> Result<()> {
    match is_out {
        true => Err(reported(Condition::NumericOutOfRange, &format!("value out of range: {what}"))),
        false => Ok(()),
    }
}

fn reported(condition: Condition, message: &str) -> DataFusionError {
    DataFusionError::External(Box::new(Error::report(condition, message)))
}

/// An overflow is told by the type that could not hold the value.
fn worded(error: DataFusionError, data_type: &DataType) -> DataFusionError {
    let overflow = match &error {
        DataFusionError::ArrowError(inner, _) => matches!(**inner, ArrowError::ArithmeticOverflow(_)),
        _ => false,
    };
    let name = match data_type {
        DataType::Int16 => "smallint",
        DataType::Int32 => "integer",
        DataType::Int64 => "bigint",
        _ => return error,
    };
    if overflow { reported(Condition::NumericOutOfRange, &format!("{name} out of range")) } else { error }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int32Array};

    use super::*;

    fn message(error: &DataFusionError) -> String {
        error.find_root().to_string()
    }

    #[test]
    fn floats_are_refused_where_an_ordinary_operand_gives_none() {
        let column = |values: Vec<Option<f64>>| ColumnarValue::Array(Arc::new(Float64Array::from(values)));
        let divide = |left, right| of_floats(Operation::Divide, &left, &right, numeric::div);
        assert!(message(&divide(column(vec![Some(1.0)]), column(vec![Some(0.0)])).unwrap_err()).contains("by zero"));
        divide(column(vec![None, Some(f64::NAN)]), column(vec![Some(0.0), Some(0.0)])).unwrap();
        divide(column(vec![Some(f64::INFINITY), Some(0.0)]), column(vec![Some(2.0), Some(3.0)])).unwrap();
        let multiply = |left, right| of_floats(Operation::Multiply, &left, &right, numeric::mul);
        let over = multiply(column(vec![Some(1e300)]), column(vec![Some(1e300)])).unwrap_err();
        assert!(message(&over).contains("overflow"));
        let under = multiply(column(vec![Some(1e-300)]), column(vec![Some(1e-300)])).unwrap_err();
        assert!(message(&under).contains("underflow"));
        multiply(column(vec![Some(0.0), Some(f64::INFINITY)]), column(vec![Some(5.0), Some(2.0)])).unwrap();
    }

    #[test]
    fn the_end_of_the_range_has_no_absolute_value() {
        let ends: ArrayRef = Arc::new(Int32Array::from(vec![i32::MIN]));
        for operation in [Operation::Absolute, Operation::Negate] {
            assert!(message(&of_one(operation, &ends).unwrap_err()).contains("integer out of range"));
        }
    }
}
