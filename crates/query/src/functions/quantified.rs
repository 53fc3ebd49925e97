//! `annal_any(operator, value, array)` and `annal_all(operator, value, array)`: `value operator ANY (array)` with PostgreSQL's three values. What the
//! library makes of ANY and ALL takes an element that is NULL for one that differs. Statements do not name them; see `session/operators.rs`.

use std::iter;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, StringArray, UInt32Array, new_empty_array,
};
use arrow::compute::kernels::cmp;
use arrow::compute::kernels::comparison::{ilike, like, nilike, nlike};
use arrow::compute::{concat, not, regexp_is_match, take};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNanoType};
use arrow::error::ArrowError;
use datafusion::common::utils::take_function_args;
use datafusion::common::{Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

use super::interval::{is_interval, length_us};

/// How many elements are compared at once: each has a copy of the value beside it.
const ELEMENTS_MAX: usize = 1 << 16;

/// What the function of ANY is called.
pub(crate) const ANY: &str = "annal_any";
/// What the function of ALL is called.
pub(crate) const ALL: &str = "annal_all";

/// The functions.
pub(super) fn all() -> [Arc<ScalarUDF>; 2] {
    [Quantifier::Any, Quantifier::All].map(|quantifier| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::from(Quantified { quantifier, signature }))
    })
}

/// Whether the functions know an operator.
pub(crate) fn knows(operator: &str) -> bool {
    Comparison::of(operator).is_some()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Quantifier {
    Any,
    All,
}

impl Quantifier {
    /// What one element can decide.
    fn decided(self) -> bool {
        self == Quantifier::Any
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
    Like,
    NotLike,
    Ilike,
    NotIlike,
    Matches { negated: bool, case_insensitive: bool },
}

impl Comparison {
    fn of(operator: &str) -> Option<Comparison> {
        Some(match operator {
            "=" => Comparison::Eq,
            "<>" => Comparison::NotEq,
            "<" => Comparison::Lt,
            "<=" => Comparison::LtEq,
            ">" => Comparison::Gt,
            ">=" => Comparison::GtEq,
            "~~" => Comparison::Like,
            "!~~" => Comparison::NotLike,
            "~~*" => Comparison::Ilike,
            "!~~*" => Comparison::NotIlike,
            "~" => Comparison::Matches { negated: false, case_insensitive: false },
            "~*" => Comparison::Matches { negated: false, case_insensitive: true },
            "!~" => Comparison::Matches { negated: true, case_insensitive: false },
            "!~*" => Comparison::Matches { negated: true, case_insensitive: true },
            _ => return None,
        })
    }

    fn compare(self, left: &ArrayRef, right: &ArrayRef) -> Result<BooleanArray, ArrowError> {
        let (left, right) = (&ordered(left), &ordered(right));
        match self {
            Comparison::Eq => cmp::eq(left, right),
            Comparison::NotEq => cmp::neq(left, right),
            Comparison::Lt => cmp::lt(left, right),
            Comparison::LtEq => cmp::lt_eq(left, right),
            Comparison::Gt => cmp::gt(left, right),
            Comparison::GtEq => cmp::gt_eq(left, right),
            Comparison::Like => like(left, right),
            Comparison::NotLike => nlike(left, right),
            Comparison::Ilike => ilike(left, right),
            Comparison::NotIlike => nilike(left, right),
            Comparison::Matches { negated, case_insensitive } => {
                let (texts, patterns) = (left.as_string::<i32>(), right.as_string::<i32>());
                let flags = case_insensitive.then(|| StringArray::from_iter_values(iter::repeat_n("i", texts.len())));
                let matched = regexp_is_match(texts, patterns, flags.as_ref())?;
                if negated { not(&matched) } else { Ok(matched) }
            }
        }
    }
}

/// Values that compare as they are meant: intervals by their lengths.
fn ordered(values: &ArrayRef) -> ArrayRef {
    match values.as_primitive_opt::<IntervalMonthDayNanoType>() {
        Some(intervals) => {
            Arc::new(intervals.iter().map(|interval| interval.and_then(length_us)).collect::<Int64Array>())
        }
        None => Arc::clone(values),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Quantified {
    quantifier: Quantifier,
    signature: Signature,
}

/// The type in which a value and the elements of an array are compared.
fn common_type(value: &DataType, array: &DataType) -> Result<DataType> {
    let element = match array {
        DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
            element.data_type()
        }
        // A text that is an array, of what it is compared with.
        DataType::Utf8 | DataType::Null => &DataType::Null,
        _ => return plan_err!("op ANY/ALL (array) requires array on right side"),
    };
    let is_text = DataType::is_string;
    match (value, element) {
        (DataType::Null, DataType::Null) => Ok(DataType::Utf8),
        (value, DataType::Null) => Ok(value.clone()),
        (DataType::Null, element) => Ok(element.clone()),
        (value, element) if value == element => Ok(element.clone()),
        (value, element) if is_text(value) && !is_text(element) => Ok(element.clone()),
        (value, element) => {
            let common = comparison_coercion(value, element).filter(|_| !(is_text(element) && value.is_numeric()));
            match common {
                Some(common) => Ok(common),
                None => plan_err!("values are not compared: `{value} and {element}`"),
            }
        }
    }
}

impl ScalarUDFImpl for Quantified {
    fn name(&self) -> &'static str {
        match self.quantifier {
            Quantifier::Any => ANY,
            Quantifier::All => ALL,
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [_, value, array] = take_function_args(self.name(), arguments)?;
        let common = common_type(value, array)?;
        let elements = DataType::List(Arc::new(Field::new_list_field(common.clone(), true)));
        Ok(vec![DataType::Utf8, common, elements])
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    /// A list of constants is what prunes.
    fn simplify(&self, arguments: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let elements = match arguments.as_slice() {
            [Expr::Literal(ScalarValue::Utf8(Some(operator)), _), _, Expr::Literal(ScalarValue::List(array), _)] => {
                let is_list = match self.quantifier {
                    Quantifier::Any => operator == "=",
                    Quantifier::All => operator == "<>",
                };
                let is_list = is_list && !is_interval(&array.value_type());
                Some(array).filter(|array| is_list && array.is_valid(0)).map(|array| array.value(0))
            }
            _ => None,
        };
        let Some(elements) = elements else { return Ok(ExprSimplifyResult::Original(arguments)) };
        let negated = !self.quantifier.decided();
        let present = (0..elements.len()).filter(|at| elements.is_valid(*at));
        let list = present.map(|at| ScalarValue::try_from_array(&elements, at).map(lit));
        let list = list.collect::<Result<Vec<Expr>>>()?;
        let Some(value) = arguments.into_iter().nth(1) else { return internal_err!("a value is compared") };
        let found = match list.is_empty() {
            true => lit(negated),
            false => Expr::InList(InList { expr: Box::new(value), list, negated }),
        };
        let unknown = lit(ScalarValue::Boolean(None));
        Ok(ExprSimplifyResult::Simplified(match (elements.null_count(), self.quantifier) {
            (0, _) => found,
            (_, Quantifier::Any) => found.or(unknown),
            (_, Quantifier::All) => found.and(unknown),
        }))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [operator, value, array] = take_function_args(self.name(), arguments.args)?;
        let ColumnarValue::Scalar(ScalarValue::Utf8(Some(operator))) = operator else {
            return internal_err!("an operator is a constant");
        };
        let Some(comparison) = Comparison::of(&operator) else { return internal_err!("no operator {operator}") };
        let is_constant = matches!((&value, &array), (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { arguments.number_rows };
        let values = value.into_array(rows)?;
        let mut compared = Vec::new();
        let mut at = 0;
        while at < rows {
            let count = fitting(&array, at, rows);
            let arrays = match &array {
                ColumnarValue::Array(arrays) => arrays.slice(at, count),
                ColumnarValue::Scalar(array) => array.to_array_of_size(count)?,
            };
            compared.push(self.compared(comparison, &values.slice(at, count), arrays.as_list())?);
            at += count;
        }
        if is_constant && let Some(compared) = compared.first() {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(compared, 0)?));
        }
        let compared: Vec<&dyn Array> = compared.iter().map(|compared| compared as &dyn Array).collect();
        match compared.is_empty() {
            true => Ok(ColumnarValue::Array(new_empty_array(&DataType::Boolean))),
            false => Ok(ColumnarValue::Array(concat(&compared)?)),
        }
    }
}

/// How many rows from a place on have few enough elements, one at least.
fn fitting(array: &ColumnarValue, from: usize, rows: usize) -> usize {
    let fits = |length: &dyn Fn(usize) -> usize| {
        let mut elements = 0;
        let fitting = (from..rows).take_while(|row| {
            elements += length(*row);
            elements <= ELEMENTS_MAX
        });
        fitting.count().max(1)
    };
    match array {
        ColumnarValue::Array(arrays) => {
            let arrays = arrays.as_list::<i32>();
            fits(&|row| usize::try_from(arrays.value_length(row)).unwrap_or_default())
        }
        ColumnarValue::Scalar(ScalarValue::List(array)) => {
            let length = usize::try_from(array.value_length(0)).unwrap_or_default();
            fits(&|_| length)
        }
        ColumnarValue::Scalar(_) => rows - from,
    }
}

impl Quantified {
    fn compared(&self, comparison: Comparison, values: &ArrayRef, arrays: &ListArray) -> Result<BooleanArray> {
        let offsets = arrays.value_offsets();
        let lengths = offsets.windows(2).enumerate();
        let places = lengths.flat_map(|(row, ends)| (ends[0]..ends[1]).map(move |_| row));
        let places: UInt32Array = places
            .map(|row| u32::try_from(row).map_err(|_| ArrowError::OffsetOverflowError(row)))
            .collect::<Result<Vec<_>, _>>()?
            .into();
        let first = usize::try_from(offsets[0]).unwrap_or_default();
        let elements = arrays.values().slice(first, places.len());
        let compared = comparison.compare(&take(values, &places, None)?, &elements)?;
        let decided = self.quantifier.decided();
        let mut at = 0;
        let of_row = |(row, ends): (usize, &[i32])| {
            let from = at;
            at += usize::try_from(ends[1] - ends[0]).unwrap_or_default();
            if arrays.is_null(row) {
                return None;
            }
            let mut any_unknown = false;
            for element in from..at {
                if compared.is_null(element) {
                    any_unknown = true;
                } else if compared.value(element) == decided {
                    return Some(decided);
                }
            }
            (!any_unknown).then_some(!decided)
        };
        Ok(offsets.windows(2).enumerate().map(of_row).collect())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int32Array;
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn null_is_unknown() {
        let arrays = ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), None]),
            Some(vec![Some(1), None]),
            Some(vec![]),
            None,
            Some(vec![Some(3)]),
        ]);
        let values: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), Some(2), None, Some(1), None]));
        let check = |quantifier, operator, expected: [Option<bool>; 5]| {
            let function = Quantified { quantifier, signature: Signature::user_defined(Volatility::Immutable) };
            let compared =
                function.compared(Comparison::of(operator).expect("known"), &values, &arrays).expect("compared");
            assert_eq!(compared.iter().collect::<Vec<_>>(), expected, "{quantifier:?} {operator}");
            // The rows of a slice begin elsewhere.
            let compared =
                function.compared(Comparison::of(operator).expect("known"), &values.slice(1, 4), &arrays.slice(1, 4));
            assert_eq!(
                compared.expect("compared").iter().collect::<Vec<_>>(),
                expected[1..],
                "{quantifier:?} {operator}"
            );
        };
        check(Quantifier::Any, "=", [Some(true), None, Some(false), None, None]);
        check(Quantifier::Any, ">", [None, Some(true), Some(false), None, None]);
        check(Quantifier::All, "<>", [Some(false), None, Some(true), None, None]);
        check(Quantifier::All, "=", [None, Some(false), Some(true), None, None]);
    }
}
