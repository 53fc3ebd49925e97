//! Which type two numbers have in common, where the library decides otherwise: it takes a double precision beside a numeric for a numeric in
//! comparisons, and a real beside an integer for a real in arithmetic.
//!
//! It happens before types are settled, so that what is compared with a column of doubles is folded to a double and still prunes.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::{
    Between, BinaryExpr, Case, Cast, InList, InSubquery, ScalarFunction, SetComparison,
};
use datafusion::logical_expr::{
    Distinct, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, Projection, Subquery, cast,
};
use datafusion::sql::sqlparser::ast::{Query, Statement as Ast, Visit, Visitor};

use crate::functions::numeric::{self, Constant};
use crate::text::parse_numeric;

/// Where the metadata of a type say that it is `numeric` without a precision.
const ANY: &str = "annal.numeric";
/// Digits of such a numeric behind the point when neither the value nor its type says how many it has.
const ANY_SCALE: i8 = 10;
const DIGITS_MAX: u8 = DECIMAL128_MAX_PRECISION;

/// What PostgreSQL computes in double precision, or in numerics of as many digits as it takes: they are doubles here.
const OF_DOUBLES: [&str; 28] = [
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "cos",
    "cosh",
    "cot",
    "degrees",
    "exp",
    "ln",
    "log",
    "log10",
    "log2",
    "pow",
    "power",
    "radians",
    "signum",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "setseed",
    "width_bucket",
];
/// Whose arguments become one type.
const OF_ONE_TYPE: [&str; 6] = ["coalesce", "greatest", "least", "make_array", "nullif", "nvl"];

/// The type `numeric` without a precision. A value keeps the digits it has.
pub(super) fn any_numeric() -> FieldRef {
    let field = Field::new("", DataType::Decimal128(DIGITS_MAX, ANY_SCALE), true);
    Arc::new(field.with_metadata([(ANY.to_owned(), String::new())].into()))
}

/// Numbers with a point are numerics, but for statements with a recursive query, whose first part says the types of all others: numerics
/// would lose digits there.
pub(super) fn read_as_meant(state: &mut SessionState, statement: &Ast) {
    let is_recursive = has_recursion(statement).is_break();
    state.config_mut().options_mut().sql_parser.parse_float_as_decimal = !is_recursive;
}

fn has_recursion(statement: &Ast) -> ControlFlow<()> {
    struct Recursive;
    impl Visitor for Recursive {
        type Break = ();

        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            match query.with.as_ref().is_some_and(|with| with.recursive) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        }
    }
    Visit::visit(statement, &mut Recursive)
}

/// An expression, whose parts are settled already, with operands of the types that PostgreSQL gives them.
pub(super) fn settled(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(match expr {
        Expr::Literal(..) => literal(expr),
        Expr::Negative(inner) => match Constant::of(&inner).filter(|constant| constant.is_numeric()) {
            Some(constant) => constant.negated().literal().unwrap_or(Expr::Negative(inner)),
            None => Expr::Negative(inner),
        },
        Expr::Cast(Cast { expr, field }) if field.metadata().contains_key(ANY) => to_any_numeric(*expr, schema),
        Expr::Cast(Cast { expr, field }) => {
            match Constant::of(&expr).filter(|_| *field.data_type() == DataType::Float64) {
                Some(constant) => double(constant),
                None => Expr::Cast(Cast { expr, field }),
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_of_numbers(op) => binary(*left, op, *right, schema),
        Expr::ScalarFunction(call) => function(call, schema),
        // Several values have one type with the first: a real keeps it beside exact numbers.
        Expr::InList(InList { expr, list, negated }) if list.len() > 1 && is_real_beside(&expr, &list, schema) => {
            let list = list.into_iter().map(|value| as_real(value, schema)).collect();
            Expr::InList(InList { expr, list, negated })
        }
        Expr::InList(InList { expr, list, negated }) => {
            let mut all = of_equals(std::iter::once(*expr).chain(list).collect(), schema).into_iter();
            match all.next() {
                Some(expr) => Expr::InList(InList { expr: Box::new(expr), list: all.collect(), negated }),
                None => unreachable!("the value itself is among them"),
            }
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let (_, low) = compared((*expr).clone(), *low, schema);
            let (_, high) = compared((*expr).clone(), *high, schema);
            let all = [*expr, low, high];
            let is_wide = all[1..].iter().any(|end| is_double(end, schema));
            let [expr, low, high] = all.map(|one| Box::new(if is_wide { as_double_beside(one, schema) } else { one }));
            Expr::Between(Between { expr, negated, low, high })
        }
        Expr::Case(case) => of_case(case, schema),
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            let (expr, subquery) = beside_rows(*expr, subquery, schema)?;
            Expr::InSubquery(InSubquery { expr: Box::new(expr), subquery, negated })
        }
        Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
            let (expr, subquery) = beside_rows(*expr, subquery, schema)?;
            Expr::SetComparison(SetComparison { expr: Box::new(expr), subquery, op, quantifier })
        }
        other => other,
    })
}

/// Columns of numerics are doubles where another input of a UNION has doubles.
pub(super) fn settled_union(inputs: Vec<Arc<LogicalPlan>>) -> Result<Vec<Arc<LogicalPlan>>> {
    let width = inputs.iter().map(|input| input.schema().fields().len()).min().unwrap_or(0);
    let floats: Vec<Option<DataType>> =
        (0..width).map(|at| float_of(inputs.iter().map(|input| type_of_column(input, at)))).collect();
    let of_input = |input: Arc<LogicalPlan>| {
        let is_to_change = |at: usize| match floats.get(at) {
            Some(Some(float)) => is_numeric(&type_of_column(&input, at)).then(|| float.clone()),
            _ => None,
        };
        if (0..width).all(|at| is_to_change(at).is_none()) {
            return Ok(input);
        }
        let columns = input.schema().columns().into_iter().enumerate().map(|(at, column)| match is_to_change(at) {
            Some(float) => {
                let name = column.name.clone();
                cast(Expr::Column(column), float).alias(name)
            }
            None => Expr::Column(column),
        });
        let columns = columns.collect();
        Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(columns, input)?)))
    };
    inputs.into_iter().map(of_input).collect()
}

/// The type that a column will have. A UNION says that of its first input until types are settled.
fn type_of_column(plan: &LogicalPlan, at: usize) -> DataType {
    match plan {
        LogicalPlan::Union(union) => {
            let types: Vec<DataType> = union.inputs.iter().map(|input| type_of_column(input, at)).collect();
            let first = || types.iter().find(|data_type| !data_type.is_null()).cloned();
            common_type(&types).or_else(first).unwrap_or(DataType::Null)
        }
        LogicalPlan::Distinct(Distinct::All(input)) => type_of_column(input, at),
        other => other.schema().field(at).data_type().clone(),
    }
}

/// The same of the rows of VALUES.
pub(super) fn settled_rows(rows: Vec<Vec<Expr>>, schema: &DFSchema) -> Vec<Vec<Expr>> {
    let width = rows.first().map_or(0, Vec::len);
    let rows = as_written(rows, width, schema);
    let type_of = |cell: &Expr| cell.get_type(schema).unwrap_or(DataType::Null);
    let floats: Vec<Option<DataType>> =
        (0..width).map(|at| float_of(rows.iter().filter_map(|row| row.get(at)).map(type_of))).collect();
    let of_cell = |(at, cell): (usize, Expr)| match floats.get(at) {
        Some(Some(float)) => as_float(cell, float, schema),
        _ => cell,
    };
    rows.into_iter().map(|row| row.into_iter().enumerate().map(of_cell).collect()).collect()
}

/// The library casts doubles and numerics of one column to a numeric, when it plans the rows.
fn as_written(mut rows: Vec<Vec<Expr>>, width: usize, schema: &DFSchema) -> Vec<Vec<Expr>> {
    let is_cast_double = |cell: &Expr| match cell {
        Expr::Cast(Cast { expr, field }) if is_numeric(field.data_type()) => {
            matches!(expr.get_type(schema), Ok(DataType::Float64 | DataType::Float32))
        }
        _ => false,
    };
    for at in 0..width {
        if !rows.iter().filter_map(|row| row.get(at)).any(is_cast_double) {
            continue;
        }
        for cell in rows.iter_mut().filter_map(|row| row.get_mut(at)) {
            if let Expr::Cast(Cast { expr, field }) = cell
                && is_numeric(field.data_type())
            {
                *cell = std::mem::take(expr);
            }
        }
    }
    rows
}

fn is_numeric(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Decimal128(..) | DataType::Decimal256(..))
}

fn is_exact(data_type: &DataType) -> bool {
    is_numeric(data_type) || data_type.is_integer()
}

fn is_double(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|data_type| data_type == DataType::Float64)
}

/// Whether a real is compared with reals, exact numbers and NULL.
fn is_real_beside(expr: &Expr, list: &[Expr], schema: &DFSchema) -> bool {
    let is_real = |data_type: &DataType| *data_type == DataType::Float32;
    let fits = |data_type: DataType| is_real(&data_type) || is_exact(&data_type) || data_type.is_null();
    expr.get_type(schema).is_ok_and(|t| is_real(&t)) && list.iter().all(|value| value.get_type(schema).is_ok_and(fits))
}

fn as_real(expr: Expr, schema: &DFSchema) -> Expr {
    match Constant::of(&expr).map(|constant| constant.text().parse()) {
        Some(Ok(value)) => Expr::Literal(ScalarValue::Float32(Some(value)), None),
        _ if expr.get_type(schema).is_ok_and(|data_type| is_exact(&data_type)) => cast(expr, DataType::Float32),
        _ => expr,
    }
}

fn is_of_numbers(op: Operator) -> bool {
    use Operator::{
        Divide, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Plus,
    };
    matches!(
        op,
        Plus | Minus
            | Multiply
            | Divide
            | Modulo
            | Eq
            | NotEq
            | Lt
            | LtEq
            | Gt
            | GtEq
            | IsDistinctFrom
            | IsNotDistinctFrom
    )
}

/// Fewer than no digits behind the point are none.
fn literal(expr: Expr) -> Expr {
    match &expr {
        Expr::Literal(ScalarValue::Decimal128(Some(_), _, ..0), _) => {
            Constant::of(&expr).and_then(Constant::literal).unwrap_or(expr)
        }
        _ => expr,
    }
}

fn double(constant: Constant) -> Expr {
    let text = constant.text();
    Expr::Literal(ScalarValue::Float64(Some(text.parse().expect("a number is written as one"))), None)
}

/// As a float of that type, unless it is no exact number.
fn as_float(expr: Expr, float: &DataType, schema: &DFSchema) -> Expr {
    let Ok(data_type) = expr.get_type(schema) else { return expr };
    let is_narrow = data_type == DataType::Float32 && *float == DataType::Float64;
    if !is_numeric(&data_type) && !is_narrow {
        return expr;
    }
    match Constant::of(&expr).filter(|_| *float == DataType::Float64) {
        Some(constant) => double(constant),
        None => cast(expr, float.clone()),
    }
}

/// A number as a double that is compared with one or reckoned with one.
fn as_double_beside(expr: Expr, schema: &DFSchema) -> Expr {
    match Constant::of(&expr) {
        Some(constant) => double(constant),
        None if expr.get_type(schema).is_ok_and(|t| is_exact(&t) || t == DataType::Float32) => {
            cast(expr, DataType::Float64)
        }
        None => expr,
    }
}

/// The type of floats that numerics become beside numbers of these types.
fn float_of(types: impl Iterator<Item = DataType>) -> Option<DataType> {
    let (mut float, mut others) = (None, false);
    for data_type in types {
        match data_type {
            DataType::Float64 => float = Some(DataType::Float64),
            DataType::Float32 => float = float.or(Some(DataType::Float32)),
            other => others |= is_numeric(&other),
        }
    }
    float.filter(|_| others)
}

/// Values that become one type: numerics beside floats are floats.
fn of_one_type(values: Vec<Expr>, schema: &DFSchema) -> Vec<Expr> {
    let types = values.iter().map(|value| value.get_type(schema).unwrap_or(DataType::Null));
    match float_of(types) {
        Some(float) => values.into_iter().map(|value| as_float(value, &float, schema)).collect(),
        None => values,
    }
}

/// Values that are compared with the first: of a real and an exact number both are doubles.
fn of_equals(values: Vec<Expr>, schema: &DFSchema) -> Vec<Expr> {
    let types = || values.iter().map(|value| value.get_type(schema).unwrap_or(DataType::Null));
    let floats = types().any(|data_type| matches!(data_type, DataType::Float32 | DataType::Float64));
    match floats && types().any(|data_type| is_exact(&data_type)) {
        true => values.into_iter().map(|value| as_double_beside(value, schema)).collect(),
        false => values,
    }
}

/// Values of a CASE in the type that they have in common. The library says that it has the type of the first as long as they are not.
fn of_branches(values: Vec<Expr>, schema: &DFSchema) -> Vec<Expr> {
    let types: Vec<DataType> = values.iter().map(|value| value.get_type(schema).unwrap_or(DataType::Null)).collect();
    let Some(common) = common_type(&types) else { return values };
    let of_value = |(value, data_type): (Expr, DataType)| {
        if data_type == common || data_type.is_null() {
            return value;
        }
        match (&common, Constant::of(&value)) {
            (DataType::Float64, Some(constant)) => double(constant),
            _ => cast(value, common.clone()),
        }
    };
    values.into_iter().zip(types).map(of_value).collect()
}

/// The type that numbers have in common; `None` when they have one type, or are not all numbers.
fn common_type(types: &[DataType]) -> Option<DataType> {
    let mut numbers = types.iter().filter(|data_type| !data_type.is_null());
    let first = numbers.clone().next()?;
    if numbers.clone().all(|data_type| data_type == first) {
        return None;
    }
    if numbers.any(|data_type| !is_exact(data_type) && !matches!(data_type, DataType::Float32 | DataType::Float64)) {
        return None;
    }
    let has = |wanted: DataType| types.contains(&wanted);
    if has(DataType::Float64) {
        return Some(DataType::Float64);
    }
    if has(DataType::Float32) {
        return Some(DataType::Float32);
    }
    match types.iter().any(is_numeric) {
        true => numeric::holding(types.iter().filter(|data_type| !data_type.is_null())),
        false => [DataType::Int64, DataType::Int32].into_iter().find(|wider| types.contains(wider)),
    }
}

/// The operands of an operator. Of a real and an integer, or a numeric, both are doubles.
fn compared(left: Expr, right: Expr, schema: &DFSchema) -> (Expr, Expr) {
    let (Ok(of_left), Ok(of_right)) = (left.get_type(schema), right.get_type(schema)) else { return (left, right) };
    match (&of_left, &of_right) {
        (DataType::Float64, other) if is_numeric(other) => (left, as_double_beside(right, schema)),
        (other, DataType::Float64) if is_numeric(other) => (as_double_beside(left, schema), right),
        (DataType::Float32, other) | (other, DataType::Float32) if is_exact(other) => {
            (as_double_beside(left, schema), as_double_beside(right, schema))
        }
        // A text that is written beside a numeric is one, with the digits that it has.
        (DataType::Decimal128(..), DataType::Utf8) => (left, as_numeric(right)),
        (DataType::Utf8, DataType::Decimal128(..)) => (as_numeric(left), right),
        _ => (left, right),
    }
}

fn binary(left: Expr, op: Operator, right: Expr, schema: &DFSchema) -> Expr {
    let (left, right) = compared(left, right, schema);
    numeric::operation(&left, op, &right, schema)
        .unwrap_or_else(|| Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) }))
}

fn as_numeric(expr: Expr) -> Expr {
    match &expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => match parse_numeric(text) {
            Ok(value) => Expr::Literal(value, None),
            // It is refused where texts are read.
            Err(_) => expr,
        },
        _ => expr,
    }
}

/// A numeric keeps its digits, and a whole number has none behind the point.
pub(super) fn to_any_numeric(expr: Expr, schema: &DFSchema) -> Expr {
    let expr = as_numeric(expr);
    match expr.get_type(schema) {
        Ok(DataType::Decimal128(..)) => expr,
        Ok(DataType::Int16) => cast(expr, DataType::Decimal128(5, 0)),
        Ok(DataType::Int32) => cast(expr, DataType::Decimal128(10, 0)),
        Ok(DataType::Int64) => cast(expr, DataType::Decimal128(20, 0)),
        _ => cast(expr, DataType::Decimal128(DIGITS_MAX, ANY_SCALE)),
    }
}

fn function(mut call: ScalarFunction, schema: &DFSchema) -> Expr {
    if let Some(op) = numeric::operator_of(&call.func)
        && let [left, right] = call.args.as_slice()
    {
        return binary(left.clone(), op, right.clone(), schema);
    }
    let name = call.func.name();
    if name == "signum" && call.args.iter().all(|number| number.get_type(schema).is_ok_and(|t| is_numeric(&t))) {
        call.args = call.args.into_iter().map(|number| as_float(number, &DataType::Float64, schema)).collect();
        return cast(Expr::ScalarFunction(call), DataType::Decimal128(1, 0));
    }
    if OF_DOUBLES.contains(&name) {
        let double = |argument| as_float(argument, &DataType::Float64, schema);
        call.args = call.args.into_iter().map(double).collect();
    } else if OF_ONE_TYPE.contains(&name) {
        call.args = of_one_type(call.args, schema);
    } else if name.starts_with("array_") {
        call.args = of_elements(call.args, schema);
    } else if matches!(name, "ceil" | "floor" | "round" | "trunc") {
        return rounded(call, schema);
    }
    Expr::ScalarFunction(call)
}

/// An array and what is looked for among its elements, or put among them.
fn of_elements(arguments: Vec<Expr>, schema: &DFSchema) -> Vec<Expr> {
    let element = |argument: &Expr| match argument.get_type(schema) {
        Ok(DataType::List(element)) => element.data_type().clone(),
        Ok(other) => other,
        Err(_) => DataType::Null,
    };
    let Some(float) = float_of(arguments.iter().map(element)) else { return arguments };
    let of_argument = |argument: Expr| match argument.get_type(schema) {
        Ok(DataType::List(element)) if is_numeric(element.data_type()) => {
            cast(argument, DataType::List(Arc::new(Field::new_list_field(float.clone(), true))))
        }
        _ => as_float(argument, &float, schema),
    };
    arguments.into_iter().map(of_argument).collect()
}

/// A numeric that is rounded to so many digits has as many.
fn rounded(mut call: ScalarFunction, schema: &DFSchema) -> Expr {
    let Some(Ok(DataType::Decimal128(precision, scale))) = call.args.first().map(|number| number.get_type(schema))
    else {
        return Expr::ScalarFunction(call);
    };
    let digits = match call.args.get(1).map(Constant::of) {
        None => 0,
        Some(Some(digits)) => match digits.whole().and_then(|digits| i8::try_from(digits).ok()) {
            Some(digits) if digits <= DIGITS_MAX as i8 => digits.max(0),
            _ => return Expr::ScalarFunction(call),
        },
        Some(None) => return Expr::ScalarFunction(call),
    };
    if scale == digits && digits > 0 {
        return Expr::ScalarFunction(call);
    }
    // 9.5 is rounded to 10, which has a digit more before the point.
    let whole = i16::from(precision) - i16::from(scale) + 1;
    let number = std::mem::take(&mut call.args[0]);
    call.args[0] = cast(number, numeric::of_digits(whole, scale));
    cast(Expr::ScalarFunction(call), numeric::of_digits(whole, digits))
}

fn of_case(case: Case, schema: &DFSchema) -> Expr {
    let Case { expr, when_then_expr, else_expr } = case;
    let (whens, thens): (Vec<Expr>, Vec<Expr>) = when_then_expr.into_iter().map(|(when, then)| (*when, *then)).unzip();
    let (expr, whens) = match expr {
        Some(expr) => {
            let mut all = of_equals(std::iter::once(*expr).chain(whens).collect(), schema);
            let whens = all.split_off(1);
            (all.pop().map(Box::new), whens)
        }
        None => (None, whens),
    };
    let (branches, has_else) = (thens.len(), else_expr.is_some());
    let mut values = of_branches(thens.into_iter().chain(else_expr.map(|other| *other)).collect(), schema);
    let otherwise = if has_else { values.split_off(branches).pop() } else { None };
    let when_then_expr = whens.into_iter().zip(values).map(|(when, then)| (Box::new(when), Box::new(then))).collect();
    Expr::Case(Case { expr, when_then_expr, else_expr: otherwise.map(Box::new) })
}

/// A value and the rows of a subquery that it is compared with.
fn beside_rows(expr: Expr, subquery: Subquery, schema: &DFSchema) -> Result<(Expr, Subquery)> {
    let Ok(data_type) = expr.get_type(schema) else { return Ok((expr, subquery)) };
    let Some(found) = subquery.subquery.schema().fields().first().map(|field| field.data_type().clone()) else {
        return Ok((expr, subquery));
    };
    match (&data_type, &found) {
        (DataType::Float64 | DataType::Float32, found) if is_numeric(found) => {
            let rows = LogicalPlanBuilder::from(Arc::unwrap_or_clone(subquery.subquery));
            let column = rows.schema().columns().swap_remove(0);
            let name = column.name.clone();
            let rows = rows.project([cast(Expr::Column(column), DataType::Float64).alias(name)])?.build()?;
            Ok((expr, Subquery { subquery: Arc::new(rows), ..subquery }))
        }
        (numeric, DataType::Float64 | DataType::Float32) if is_numeric(numeric) => {
            Ok((cast(expr, DataType::Float64), subquery))
        }
        _ => Ok((expr, subquery)),
    }
}
