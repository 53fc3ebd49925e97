//! Products, quotients and remainders of numerics, as far as 38 digits go. The library gives a quotient four digits more than its dividend and cuts
//! off the rest, refuses a product of more than 38 digits behind the point, and takes any remainder of a division by 1 for 0.
//!
//! PostgreSQL decides for each quotient how many digits it has behind the point; here the digits behind the point are those of a column. So
//! constants are computed when a statement is planned and have PostgreSQL's digits, and columns have sixteen, which are PostgreSQL's for
//! quotients of about the size of one digit.

use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray, Decimal128Array};
use arrow::compute::kernels::arity::try_binary;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, i256};
use arrow::error::ArrowError;
use datafusion::common::utils::take_function_args;
use datafusion::common::{DFSchema, Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::refused;
use crate::error::Condition;

/// Digits behind the point of a quotient that is no constant, unless an operand has more.
pub(super) const QUOTIENT_SCALE: i8 = 16;
/// Digits behind the point of a product whose digits might not fit, unless a factor has more.
const PRODUCT_SCALE: i8 = 20;
/// Digits behind the point of a double that becomes a numeric.
const DOUBLE_SCALE: i8 = 10;
const DIGITS_MAX: u8 = DECIMAL128_MAX_PRECISION;
const SCALE_MAX: i8 = DECIMAL128_MAX_PRECISION as i8;
/// PostgreSQL's constants: what a quotient has at least, and how its digits are stored.
const SIGNIFICANT_DIGITS_MIN: i32 = 16;
const GROUP_DIGITS: i32 = 4;

static PRODUCT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function(Operation::Product));
static QUOTIENT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function(Operation::Quotient));
static REMAINDER: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function(Operation::Remainder));

fn function(operation: Operation) -> Arc<ScalarUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(ScalarUDF::from(Numeric { operation, signature }))
}

/// `div(dividend, divisor)`, the quotient without its digits behind the point.
pub(super) fn div() -> Arc<ScalarUDF> {
    function(Operation::Whole)
}

/// Whether `function` is one that divides.
pub(crate) fn divides(function: &ScalarUDF) -> bool {
    [Operation::Quotient, Operation::Remainder, Operation::Whole]
        .iter()
        .any(|operation| function.name() == operation.name())
}

/// The operator whose place a function has.
pub(crate) fn operator_of(function: &ScalarUDF) -> Option<Operator> {
    match function.inner().downcast_ref::<Numeric>()?.operation {
        Operation::Product => Some(Operator::Multiply),
        Operation::Quotient => Some(Operator::Divide),
        Operation::Remainder => Some(Operator::Modulo),
        Operation::Whole => None,
    }
}

/// Plans constants, products and quotients before the library refuses or cuts off.
#[derive(Debug)]
pub(crate) struct NumericArithmetic;

impl ExprPlanner for NumericArithmetic {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let op = match expr.op {
            BinaryOperator::Plus => Operator::Plus,
            BinaryOperator::Minus => Operator::Minus,
            BinaryOperator::Multiply => Operator::Multiply,
            BinaryOperator::Divide => Operator::Divide,
            BinaryOperator::Modulo => Operator::Modulo,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        Ok(match operation(&expr.left, op, &expr.right, schema) {
            Some(planned) => PlannerResult::Planned(planned),
            None => PlannerResult::Original(expr),
        })
    }
}

/// What is meant by an operator between exact numbers one of which is a numeric; `None` where the library's operator does it, and for other types.
pub(crate) fn operation(left: &Expr, op: Operator, right: &Expr, schema: &DFSchema) -> Option<Expr> {
    if let (Some(one), Some(other)) = (Constant::of(left), Constant::of(right)) {
        if !one.is_numeric && !other.is_numeric {
            return None;
        }
        if let Some(computed) = one.operate(op, &other) {
            return Some(computed);
        }
    }
    if !matches!(op, Operator::Multiply | Operator::Divide | Operator::Modulo) {
        return None;
    }
    let (of_left, of_right) = (left.get_type(schema).ok()?, right.get_type(schema).ok()?);
    let is_numeric = |data_type: &DataType| matches!(data_type, DataType::Decimal128(..));
    if !is_numeric(&of_left) && !is_numeric(&of_right) {
        return None;
    }
    let ((p, s), (q, t)) = (digits(&of_left)?, digits(&of_right)?);
    // A product with 0 the library would take for a 0 of another type.
    let is_zero = [left, right].iter().any(|factor| Constant::of(factor).is_some_and(|factor| factor.value == 0));
    let fits = p + q <= DIGITS_MAX && s + t <= SCALE_MAX && !is_zero;
    let function = match op {
        Operator::Multiply if fits => return None,
        Operator::Multiply => &PRODUCT,
        Operator::Modulo => &REMAINDER,
        _ => &QUOTIENT,
    };
    let call = ScalarFunction::new_udf(Arc::clone(function), vec![left.clone(), right.clone()]);
    Some(Expr::ScalarFunction(call))
}

/// A numeric of so many digits before and behind the point, or of as many before it as it can have.
pub(crate) fn of_digits(whole: i16, scale: i8) -> DataType {
    let precision = (whole + i16::from(scale)).clamp(1, DIGITS_MAX.into());
    DataType::Decimal128(precision.unsigned_abs() as u8, scale)
}

/// The numeric that holds exact numbers of all these types; `None` when one is of no such type.
pub(crate) fn holding<'a>(types: impl IntoIterator<Item = &'a DataType>) -> Option<DataType> {
    let digits: Option<Vec<(u8, i8)>> = types.into_iter().map(digits).collect();
    let digits = digits?;
    let whole = digits.iter().map(|(precision, scale)| i16::from(*precision) - i16::from(*scale)).max()?;
    Some(of_digits(whole, digits.iter().map(|(_, scale)| *scale).max()?))
}

/// Precision and scale of an exact number.
fn digits(data_type: &DataType) -> Option<(u8, i8)> {
    Some(match data_type {
        DataType::Decimal128(precision, scale) => (*precision, *scale),
        DataType::Int16 => (5, 0),
        DataType::Int32 => (10, 0),
        DataType::Int64 => (20, 0),
        _ => return None,
    })
}

/// A whole number or a numeric that a statement writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Constant {
    value: i128,
    /// Not negative.
    scale: i8,
    is_numeric: bool,
}

impl Constant {
    /// The constant that a literal is.
    pub(crate) fn of(expr: &Expr) -> Option<Constant> {
        let Expr::Literal(value, _) = expr else { return None };
        let whole = |value: i64| Constant { value: value.into(), scale: 0, is_numeric: false };
        match value {
            ScalarValue::Int16(Some(value)) => Some(whole((*value).into())),
            ScalarValue::Int32(Some(value)) => Some(whole((*value).into())),
            ScalarValue::Int64(Some(value)) => Some(whole(*value)),
            ScalarValue::Decimal128(Some(value), _, scale) if *scale < 0 => {
                let value = value.checked_mul(power(scale.unsigned_abs().into())?)?;
                Some(Constant { value, scale: 0, is_numeric: true })
            }
            ScalarValue::Decimal128(Some(value), _, scale) => {
                Some(Constant { value: *value, scale: *scale, is_numeric: true })
            }
            _ => None,
        }
    }

    /// The value as a literal of a type that it just fits; `None` when it has too many digits.
    pub(crate) fn literal(self) -> Option<Expr> {
        numeric(self.value, self.scale).map(|value| Expr::Literal(value, None))
    }

    /// Whether it is a numeric rather than a whole number.
    pub(crate) fn is_numeric(&self) -> bool {
        self.is_numeric
    }

    /// The value of a whole number.
    pub(crate) fn whole(&self) -> Option<i128> {
        (!self.is_numeric).then_some(self.value)
    }

    /// As text.
    pub(crate) fn text(self) -> String {
        let mut text = String::new();
        crate::text::write::decimal(&mut text, self.value, self.scale);
        text
    }

    /// Less than nothing, or more.
    pub(crate) fn negated(self) -> Constant {
        Constant { value: -self.value, ..self }
    }

    fn operate(&self, op: Operator, other: &Constant) -> Option<Expr> {
        let scale = self.scale.max(other.scale);
        let (value, scale) = match op {
            Operator::Plus => (self.at(scale)?.checked_add(other.at(scale)?)?, scale),
            Operator::Minus => (self.at(scale)?.checked_sub(other.at(scale)?)?, scale),
            Operator::Modulo => (self.at(scale)?.checked_rem(other.at(scale)?)?, scale),
            Operator::Multiply => (self.value.checked_mul(other.value)?, self.scale.checked_add(other.scale)?),
            Operator::Divide => {
                let scale = quotient_scale(self, other);
                let shift = i32::from(scale) + i32::from(other.scale) - i32::from(self.scale);
                (divided(self.value, other.value, u32::try_from(shift).ok()?)?, scale)
            }
            _ => return None,
        };
        Constant { value, scale, is_numeric: true }.literal()
    }

    fn at(&self, scale: i8) -> Option<i128> {
        self.value.checked_mul(power(u32::try_from(scale - self.scale).ok()?)?)
    }

    /// The group of four digits that comes first, and its place: that before the point is 0.
    fn first_group(&self) -> (i32, i128) {
        let value = self.value.unsigned_abs() as i128;
        if value == 0 {
            return (0, 0);
        }
        let digits = i32::from(count(value));
        let exponent = digits - i32::from(self.scale) - 1;
        let wanted = exponent.rem_euclid(GROUP_DIGITS) + 1;
        let group = match wanted.cmp(&digits) {
            Ordering::Less => value / 10_i128.pow((digits - wanted).unsigned_abs()),
            _ => value * 10_i128.pow((wanted - digits).unsigned_abs()),
        };
        (exponent.div_euclid(GROUP_DIGITS), group)
    }
}

/// A numeric of a type that it just fits; `None` when it has too many digits.
pub(crate) fn numeric(value: i128, scale: i8) -> Option<ScalarValue> {
    let precision = count(value).max(scale.unsigned_abs()).max(1);
    (scale >= 0 && precision <= DIGITS_MAX).then_some(ScalarValue::Decimal128(Some(value), precision, scale))
}

/// How many digits a number has.
fn count(value: i128) -> u8 {
    value.unsigned_abs().checked_ilog10().map_or(0, |power| power as u8 + 1)
}

fn power(of_ten: u32) -> Option<i128> {
    10_i128.checked_pow(of_ten)
}

/// How many digits PostgreSQL gives a quotient behind the point, or as many as fit.
fn quotient_scale(dividend: &Constant, divisor: &Constant) -> i8 {
    let ((weight, first), (weight_of_divisor, first_of_divisor)) = (dividend.first_group(), divisor.first_group());
    let weight = weight - weight_of_divisor - i32::from(first <= first_of_divisor);
    let own = i32::from(dividend.scale.max(divisor.scale));
    let whole = |constant: &Constant| i32::from(count(constant.value)) - i32::from(constant.scale);
    let room = i32::from(DIGITS_MAX) - (whole(dividend) - whole(divisor) + 1).max(0);
    let scale = (SIGNIFICANT_DIGITS_MIN - weight * GROUP_DIGITS).max(own).min(room).max(i32::from(dividend.scale));
    i8::try_from(scale).unwrap_or(SCALE_MAX)
}

/// `left * 10^shift / right`, rounded half away from zero; `None` when it cannot be held, or there is no quotient.
fn divided(left: i128, right: i128, shift: u32) -> Option<i128> {
    if right == 0 {
        return None;
    }
    if let Some(left) = power(shift).and_then(|power| left.checked_mul(power))
        && right != i128::MIN
    {
        let (quotient, rest) = (left.checked_div(right)?, left % right);
        let up = rest.unsigned_abs() >= right.unsigned_abs() - rest.unsigned_abs();
        let sign = if (left < 0) == (right < 0) { 1 } else { -1 };
        return Some(if up { quotient + sign } else { quotient });
    }
    let left = i256::from_i128(left).checked_mul(i256::from_i128(10).checked_pow(shift)?)?;
    of_wide(left, i256::from_i128(right))
}

/// The whole part of `left * 10^shift / right`.
fn whole(left: i128, right: i128, shift: i32) -> Option<i128> {
    let unit = i256::from_i128(10).checked_pow(shift.unsigned_abs())?;
    let (left, right) = (i256::from_i128(left), i256::from_i128(right));
    let quotient = match shift < 0 {
        true => left.checked_div(right.checked_mul(unit)?)?,
        false => left.checked_mul(unit)?.checked_div(right)?,
    };
    quotient.to_i128().filter(|value| count(*value) <= DIGITS_MAX)
}

/// What is left of `left * 10^up` after it is divided by `right * 10^right_up`; it has the sign of the dividend.
fn remainder((left, up): (i128, u32), (right, right_up): (i128, u32)) -> Option<i128> {
    let wide = |value, up| i256::from_i128(value).checked_mul(i256::from_i128(10).checked_pow(up)?);
    wide(left, up)?.checked_rem(wide(right, right_up)?)?.to_i128()
}

/// The quotient of wide numbers as a numeric.
fn of_wide(left: i256, right: i256) -> Option<i128> {
    let (quotient, rest) = (left.checked_div(right)?, left.checked_rem(right)?);
    let up = rest.wrapping_abs() >= right.wrapping_abs().wrapping_sub(rest.wrapping_abs());
    let sign = if left.is_negative() == right.is_negative() { i256::ONE } else { i256::MINUS_ONE };
    let rounded = if up { quotient.checked_add(sign)? } else { quotient };
    rounded.to_i128().filter(|value| count(*value) <= DIGITS_MAX)
}

/// `left * right / 10^dropped`, rounded half away from zero.
fn multiplied(left: i128, right: i128, dropped: u32) -> Option<i128> {
    if dropped == 0
        && let Some(product) = left.checked_mul(right)
    {
        return Some(product).filter(|value| count(*value) <= DIGITS_MAX);
    }
    let product = i256::from_i128(left).checked_mul(i256::from_i128(right))?;
    of_wide(product, i256::from_i128(10).checked_pow(dropped)?)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Product,
    Quotient,
    Remainder,
    Whole,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Product => "numeric_multiply",
            Operation::Quotient => "numeric_divide",
            Operation::Remainder => "numeric_modulo",
            Operation::Whole => "div",
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Numeric {
    operation: Operation,
    signature: Signature,
}

impl ScalarUDFImpl for Numeric {
    fn name(&self) -> &'static str {
        self.operation.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let coerced = arguments.iter().map(|argument| match digits(argument) {
            Some((precision, scale)) => Ok(DataType::Decimal128(precision, scale)),
            None if argument.is_null() => Ok(DataType::Decimal128(DIGITS_MAX, 0)),
            None if argument.is_numeric() && self.operation == Operation::Whole => {
                Ok(DataType::Decimal128(DIGITS_MAX, DOUBLE_SCALE))
            }
            None => plan_err!("{} is for numerics, not for {argument}", self.name()),
        });
        coerced.collect()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let [left, right] = take_function_args(self.name(), arguments)?;
        let of = |data_type: &DataType| digits(data_type).unwrap_or((DIGITS_MAX, 0));
        let ((p, s), (q, t)) = (of(left), of(right));
        Ok(match self.operation {
            Operation::Product => DataType::Decimal128(DIGITS_MAX.min(p + q), (s + t).min(s.max(t).max(PRODUCT_SCALE))),
            Operation::Quotient => DataType::Decimal128(DIGITS_MAX, s.max(t).max(QUOTIENT_SCALE)),
            Operation::Remainder => {
                let whole = (i16::from(p) - i16::from(s)).min(i16::from(q) - i16::from(t)).max(0);
                of_digits(whole, s.max(t))
            }
            Operation::Whole => DataType::Decimal128(DIGITS_MAX, 0),
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let DataType::Decimal128(precision, scale) = *arguments.return_field.data_type() else {
            return internal_err!("{} gives a numeric", self.name());
        };
        let [left, right] = take_function_args(self.name(), ColumnarValue::values_to_arrays(&arguments.args)?)?;
        let (left, right) = (left.as_primitive::<Decimal128Type>(), right.as_primitive::<Decimal128Type>());
        let (s, t) = (i32::from(left.scale()), i32::from(right.scale()));
        let overflow = || failed(Condition::NumericOutOfRange, "value overflows numeric format");
        let computed: Result<Decimal128Array, ArrowError> = match self.operation {
            Operation::Product => {
                let dropped = (s + t - i32::from(scale)).unsigned_abs();
                try_binary(left, right, |left, right| multiplied(left, right, dropped).ok_or_else(overflow))
            }
            Operation::Quotient => {
                let shift = (i32::from(scale) + t - s).unsigned_abs();
                try_binary(left, right, |left, right| match right {
                    0 => Err(failed(Condition::DivisionByZero, "division by zero")),
                    _ => divided(left, right, shift).ok_or_else(overflow),
                })
            }
            Operation::Remainder => {
                let up = |own: i32| (i32::from(scale) - own).unsigned_abs();
                try_binary(left, right, |left, right| match right {
                    0 => Err(failed(Condition::DivisionByZero, "division by zero")),
                    _ => remainder((left, up(s)), (right, up(t))).ok_or_else(overflow),
                })
            }
            Operation::Whole => try_binary(left, right, |left, right| match right {
                0 => Err(failed(Condition::DivisionByZero, "division by zero")),
                _ => whole(left, right, t - s).ok_or_else(overflow),
            }),
        };
        let computed = computed?.with_precision_and_scale(precision, scale)?;
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&computed, 0)?),
            false => ColumnarValue::Array(Arc::new(computed)),
        })
    }
}

fn failed(condition: Condition, message: &str) -> ArrowError {
    ArrowError::ExternalError(Box::new(refused(condition, message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(left: (i128, i8), op: Operator, right: (i128, i8), expected: &str) {
        let constant = |(value, scale)| Constant { value, scale, is_numeric: true };
        let computed = constant(left).operate(op, &constant(right));
        let text = computed.and_then(|computed| Constant::of(&computed)).map_or("none".to_owned(), Constant::text);
        assert_eq!(text, expected, "{left:?} {op} {right:?}");
    }

    #[test]
    fn constants_have_the_digits_that_postgresql_gives_them() {
        check((1, 1), Operator::Plus, (2, 1), "0.3");
        check((150, 2), Operator::Multiply, (15, 1), "2.250");
        check((55, 1), Operator::Modulo, (2, 0), "1.5");
        check((10, 1), Operator::Divide, (3, 0), "0.33333333333333333333");
        check((100, 1), Operator::Divide, (3, 0), "3.3333333333333333");
        check((-20, 1), Operator::Divide, (3, 0), "-0.66666666666666666667");
        check((1_000_000, 1), Operator::Divide, (3, 0), "33333.333333333333");
        check((1, 0), Operator::Divide, (1, 3), "1000.0000000000000000");
        check((10, 1), Operator::Divide, (0, 0), "none");
    }

    #[test]
    fn quotients_are_rounded_half_away_from_zero() {
        for (left, right, shift, expected) in
            [(1, 8, 2, Some(13)), (-1, 8, 2, Some(-13)), (1, 3, 2, Some(33)), (2, -3, 0, Some(-1)), (1, 0, 0, None)]
        {
            assert_eq!(divided(left, right, shift), expected, "{left} / {right}");
        }
        let wide = 10_i128.pow(37);
        assert_eq!(divided(wide, wide, 16), Some(10_i128.pow(16)));
        assert_eq!(divided(wide, 1, 16), None);
    }

    #[test]
    fn whole_quotients_are_not_rounded() {
        for (left, right, shift, expected) in [(75, 2, -1, 3), (75, 25, 1, 30), (-75, 2, -1, -3), (99, 100, 0, 0)] {
            assert_eq!(whole(left, right, shift), Some(expected), "{left} {right}");
        }
    }

    #[test]
    fn remainders_have_the_sign_of_the_dividend() {
        assert_eq!(remainder((125, 0), (1, 2)), Some(25));
        assert_eq!(remainder((-75, 0), (1, 2)), Some(-75));
        assert_eq!(remainder((7, 1), (25, 0)), Some(20));
        assert_eq!(remainder((10_i128.pow(37), 2), (3, 0)), Some(1));
    }

    #[test]
    fn products_drop_digits_that_have_no_room() {
        assert_eq!(multiplied(15, 15, 1), Some(23));
        assert_eq!(multiplied(-15, 15, 1), Some(-23));
        assert_eq!(multiplied(10_i128.pow(30), 10_i128.pow(30), 30), Some(10_i128.pow(30)));
        assert_eq!(multiplied(10_i128.pow(30), 10_i128.pow(30), 0), None);
    }
}
