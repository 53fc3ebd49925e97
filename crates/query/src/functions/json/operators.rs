//! The operators that look into JSON: `->`, `->>`, `#>`, `#>>`, `@>`, `<@`, `?`, `?|`, `?&`; and those that make another jsonb of one: `||`, `-`,
//! `#-`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray};
use arrow::compute::cast as cast_array;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::utils::take_function_args;
use datafusion::common::{DFSchema, Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use event::ColumnType;

use super::change;
use super::value::{Kind, as_text, at_path, contains, element, has, member};

/// Plans them.
#[derive(Debug)]
pub(crate) struct JsonOperators;

impl ExprPlanner for JsonOperators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let (left, right) = (json_of(&expr.left, schema), json_of(&expr.right, schema));
        if let Some(changed) = changed(&expr, left, right) {
            return Ok(PlannerResult::Planned(changed));
        }
        let Some(operator) = Operator::of(&expr.op) else { return Ok(PlannerResult::Original(expr)) };
        let RawBinaryExpr { op, left: one, right: other } = expr;
        let (json, argument) = match (operator, left, right) {
            (Operator::Contains { .. }, Some(ColumnType::Jsonb), _)
            | (Operator::Contains { .. }, _, Some(ColumnType::Jsonb)) => (as_jsonb(one, left), as_jsonb(other, right)),
            (Operator::Contains { .. }, ..) | (_, None, _) => {
                return Ok(PlannerResult::Original(RawBinaryExpr { op, left: one, right: other }));
            }
            (Operator::At { .. } | Operator::Has(Names::One), Some(_), _) => (one, other),
            (Operator::Path { .. } | Operator::Has(_), Some(_), _) => (one, as_texts(other)),
        };
        let function =
            Arc::new(ScalarUDF::from(Inside { operator, signature: Signature::any(2, Volatility::Immutable) }));
        let call = ScalarFunction::new_udf(function, vec![json, argument]);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
    }
}

/// Which JSON an operand is, if it is any. No operator that the library plans gives one, and to ask for the field of a long chain takes long.
fn json_of(side: &Expr, schema: &DFSchema) -> Option<ColumnType> {
    match side {
        Expr::BinaryExpr(_) | Expr::Literal(_, None) => None,
        side => side.to_field(schema).ok().and_then(|(_, field)| ColumnType::json_of(&field)),
    }
}

/// What makes another jsonb; `None` for other operators, and where there is none.
fn changed(expr: &RawBinaryExpr, left: Option<ColumnType>, right: Option<ColumnType>) -> Option<Expr> {
    let is_untyped =
        |side: &Expr| matches!(side, Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::Null, _) | Expr::Placeholder(_));
    let jsonb = Some(ColumnType::Jsonb);
    let may_be = |side: &Expr, json| json == jsonb || is_untyped(side);
    let is_jsonb = left == jsonb || right == jsonb;
    let are_jsonb = is_jsonb && may_be(&expr.left, left) && may_be(&expr.right, right);
    let argument = || expr.right.clone();
    let (function, argument) = match expr.op {
        BinaryOperator::StringConcat if are_jsonb => (change::join(), as_jsonb(argument(), right)),
        BinaryOperator::Minus if left == jsonb => (change::delete(), argument()),
        BinaryOperator::HashMinus if left == jsonb => (change::delete_path(), as_texts(argument())),
        _ => return None,
    };
    let json = as_jsonb(expr.left.clone(), left);
    Some(Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![json, argument])))
}

/// A text beside a jsonb is one.
fn as_jsonb(expr: Expr, json: Option<ColumnType>) -> Expr {
    match json {
        Some(_) => expr,
        None => Expr::Cast(Cast { expr: Box::new(expr), field: Arc::new(ColumnType::Jsonb.field("", true)) }),
    }
}

/// `'{a,b}'` is an array of texts.
fn as_texts(expr: Expr) -> Expr {
    let texts = ColumnType::Text.array().unwrap_or(ColumnType::Text);
    Expr::Cast(Cast { expr: Box::new(expr), field: Arc::new(texts.field("", true)) })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operator {
    /// A member by its name, or an element by its index.
    At { text: bool },
    /// What lies at the end of a path.
    Path { text: bool },
    /// Whether one contains the other; `turned` for `<@`.
    Contains { turned: bool },
    /// Whether it has members, or elements, of some names.
    Has(Names),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Names {
    One,
    Any,
    All,
}

impl Operator {
    fn of(op: &BinaryOperator) -> Option<Operator> {
        Some(match op {
            BinaryOperator::Arrow => Operator::At { text: false },
            BinaryOperator::LongArrow => Operator::At { text: true },
            BinaryOperator::HashArrow => Operator::Path { text: false },
            BinaryOperator::HashLongArrow => Operator::Path { text: true },
            BinaryOperator::AtArrow => Operator::Contains { turned: false },
            BinaryOperator::ArrowAt => Operator::Contains { turned: true },
            BinaryOperator::Question => Operator::Has(Names::One),
            BinaryOperator::QuestionPipe => Operator::Has(Names::Any),
            BinaryOperator::QuestionAnd => Operator::Has(Names::All),
            _ => return None,
        })
    }

    fn gives_json(self) -> bool {
        matches!(self, Operator::At { text: false } | Operator::Path { text: false })
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Inside {
    operator: Operator,
    signature: Signature,
}

impl ScalarUDFImpl for Inside {
    fn name(&self) -> &'static str {
        match self.operator {
            Operator::At { text: false } => "json_at",
            Operator::At { text: true } => "json_text_at",
            Operator::Path { text: false } => "json_at_path",
            Operator::Path { text: true } => "json_text_at_path",
            Operator::Contains { turned: false } => "json_contains",
            Operator::Contains { turned: true } => "json_is_contained",
            Operator::Has(Names::One) => "json_has",
            Operator::Has(Names::Any) => "json_has_any",
            Operator::Has(Names::All) => "json_has_all",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        internal_err!("the field of the JSON says the type")
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let json = ColumnType::json_of(&arguments.arg_fields[0]).filter(|_| self.operator.gives_json());
        Ok(Arc::new(match (json, self.operator) {
            (Some(json), _) => json.field(self.name(), true),
            (None, Operator::At { .. } | Operator::Path { .. }) => Field::new(self.name(), DataType::Utf8, true),
            (None, _) => Field::new(self.name(), DataType::Boolean, true),
        }))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let [jsons, others] = take_function_args(self.name(), arrays)?;
        let jsons = cast_array(&jsons, &DataType::Utf8)?;
        let jsons = jsons.as_string::<i32>();
        let answer: ArrayRef = match self.operator {
            Operator::At { text } => {
                let binary = arguments.arg_fields.first().and_then(|field| ColumnType::json_of(field));
                Arc::new(at(jsons, &others, text, binary == Some(ColumnType::Jsonb))?)
            }
            Operator::Path { text } => Arc::new(found(jsons, text, |row, json| path(&others, row, json))),
            Operator::Contains { turned } => {
                let others = others.as_string::<i32>();
                let pairs = jsons.iter().zip(others).map(|pair| match (pair, turned) {
                    ((Some(outer), Some(inner)), false) | ((Some(inner), Some(outer)), true) => {
                        Some(contains(outer, inner))
                    }
                    _ => None,
                });
                Arc::new(pairs.collect::<BooleanArray>())
            }
            Operator::Has(Names::One) => {
                let names = cast_array(&others, &DataType::Utf8)?;
                let pairs = jsons.iter().zip(names.as_string::<i32>());
                Arc::new(pairs.map(|(json, name)| Some(has(json?, name?))).collect::<BooleanArray>())
            }
            Operator::Has(wanted) => {
                let lists = others.as_list::<i32>();
                let answers = (0..jsons.len()).map(|row| {
                    if jsons.is_null(row) || lists.is_null(row) {
                        return None;
                    }
                    let names = lists.value(row);
                    let mut names = names.as_string::<i32>().iter().flatten();
                    let json = jsons.value(row);
                    Some(match wanted {
                        Names::All => names.all(|name| has(json, name)),
                        _ => names.any(|name| has(json, name)),
                    })
                });
                Arc::new(answers.collect::<BooleanArray>())
            }
        };
        Ok(ColumnarValue::Array(answer))
    }
}

/// The parts that `part` finds, as text or as JSON.
fn found<'a>(jsons: &'a StringArray, text: bool, part: impl Fn(usize, &'a str) -> Option<&'a str>) -> StringArray {
    let answers = (0..jsons.len()).map(|row| {
        let part = jsons.is_valid(row).then(|| part(row, jsons.value(row))).flatten()?;
        if text { as_text(part) } else { Some(part.to_owned()) }
    });
    answers.collect()
}

/// A `jsonb` that is no object and no array counts as an array of one element.
fn at(jsons: &StringArray, places: &ArrayRef, text: bool, binary: bool) -> Result<StringArray> {
    if places.data_type().is_integer() {
        let indexes = cast_array(places, &DataType::Int64)?;
        let indexes = indexes.as_primitive::<Int64Type>();
        return Ok(found(jsons, text, |row, json| {
            let index = indexes.is_valid(row).then(|| indexes.value(row))?;
            match Kind::of(json) {
                Kind::Array | Kind::Object => element(json, index),
                _ => (binary && matches!(index, 0 | -1)).then_some(json),
            }
        }));
    }
    let names = cast_array(places, &DataType::Utf8)?;
    let names = names.as_string::<i32>();
    Ok(found(jsons, text, |row, json| names.is_valid(row).then(|| member(json, names.value(row))).flatten()))
}

fn path<'j>(paths: &ArrayRef, row: usize, json: &'j str) -> Option<&'j str> {
    let lists = paths.as_list::<i32>();
    if lists.is_null(row) {
        return None;
    }
    let steps = lists.value(row);
    at_path(json, steps.as_string::<i32>().iter())
}
