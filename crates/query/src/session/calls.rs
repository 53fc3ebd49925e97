//! Calls that PostgreSQL writes in a form of their own, as calls that can be planned: `extract(field FROM time)`, `localtimestamp`,
//! `current_timestamp(3)`, `make_interval(days => 2)`. The columns of the statement are named already.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType as SqlType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgOperator,
    FunctionArgumentClause, FunctionArgumentList, FunctionArguments, Ident, ObjectName, ObjectNamePart, TimezoneInfo,
    Value, VisitMut, VisitorMut,
};

use super::insert::{call, parse_expression};
use super::{first_rows, operators, select_list};
use crate::error::{Condition, Error};
use crate::functions::json::{LINES, LIST, OBJECT, ROW};
use crate::functions::regexp::MATCHES;
use crate::functions::{EXTRACT, FRACTION, MODE};

/// The arguments of `make_interval`; the last one is in seconds and may have a fraction.
const INTERVAL_FIELDS: [&str; 7] = ["years", "months", "weeks", "days", "hours", "mins", "secs"];

/// Rewrites them.
///
/// # Errors
/// 0A000 for `current_time`, whose type is not there.
pub(super) fn rewrite(part: &mut impl VisitMut) -> Result<(), Error> {
    operators::rewrite(part)?;
    first_rows::rewrite(part);
    select_list::rewrite(part);
    match part.visit(&mut Calls) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Calls;

impl VisitorMut for Calls {
    type Break = Error;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let rewritten = match expr {
            Expr::Extract { field, expr: time, .. } => {
                let name = field.to_string().trim_matches(['"', '\'']).to_lowercase();
                let name = Expr::Value(Value::SingleQuotedString(name).into());
                Some(call(EXTRACT, vec![name, time.as_ref().clone()]))
            }
            Expr::Function(function) => match of_function(function) {
                Ok(rewritten) => rewritten,
                Err(error) => return ControlFlow::Break(error),
            },
            _ => None,
        };
        if let Some(rewritten) = rewritten {
            *expr = rewritten;
        }
        ControlFlow::Continue(())
    }
}

fn of_function(function: &Function) -> Result<Option<Expr>, Error> {
    let [ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else { return Ok(None) };
    let name = if name.quote_style.is_some() { &name.value } else { &name.value.to_lowercase() };
    let arguments: &[FunctionArg] = match &function.args {
        FunctionArguments::List(list) => &list.args,
        _ => &[],
    };
    Ok(match name.as_str() {
        "localtimestamp" => digits(arguments).map(|digits| now_as(SqlType::Timestamp(digits, TimezoneInfo::None))),
        "localtime" => digits(arguments).map(|digits| now_as(SqlType::Time(digits, TimezoneInfo::None))),
        "current_timestamp" if !arguments.is_empty() => {
            digits(arguments).map(|digits| now_as(SqlType::Timestamp(digits, TimezoneInfo::Tz)))
        }
        "current_time" => {
            let message = "current_time is not supported: there is no type time with time zone";
            return Err(Error::hinted(Condition::FeatureNotSupported, message, "Use localtime, or now()."));
        }
        "timeofday" => of_values(arguments, |values| {
            values.is_empty().then(|| "to_char(clock_timestamp(), 'Dy Mon DD HH24:MI:SS.US YYYY TZ')".to_owned())
        }),
        "regexp_matches" => unnested(MATCHES, arguments),
        "regexp_split_to_table" => unnested("regexp_split_to_array", arguments),
        "make_interval" => interval(arguments),
        "mod" => of_values(arguments, |values| match values {
            [left, right] => Some(format!("(({left}) % ({right}))")),
            _ => None,
        }),
        "num_nulls" => of_values(arguments, |values| Some(counted(values, "IS NULL"))),
        "num_nonnulls" => of_values(arguments, |values| Some(counted(values, "IS NOT NULL"))),
        "isfinite" => of_values(arguments, |values| match values {
            [time] => Some(format!("(CAST({time} AS text) NOT IN ('infinity', '-infinity'))")),
            _ => None,
        }),
        // Transactions have no numbers; the microsecond in which one began is its own well enough.
        "txid_current" | "pg_current_xact_id" => of_values(arguments, |values| {
            values.is_empty().then(|| "CAST(round(date_part('epoch', now()) * 1000000) AS bigint)".to_owned())
        }),
        "jsonb_set" | "jsonb_insert" | "jsonb_delete_path" => with_path(function, arguments),
        "json_agg" | "jsonb_agg" => aggregated(function, name, arguments),
        "json_object_agg" | "jsonb_object_agg" => aggregated(function, name, arguments),
        "percentile_disc" | "mode" => ordered(function, name, arguments),
        "json_array_elements" | "jsonb_array_elements" => elements(name, arguments).map(|array| cast_to(array, name)),
        "json_array_elements_text" | "jsonb_array_elements_text" | "json_object_keys" | "jsonb_object_keys" => {
            elements(name, arguments)
        }
        _ => None,
    })
}

/// The second argument is a path, also where it is written as text.
fn with_path(function: &Function, arguments: &[FunctionArg]) -> Option<Expr> {
    let mut values = values_of(arguments)?;
    let path = values.get_mut(1).filter(|path| !matches!(path, Expr::Cast { .. }))?;
    *path = parse_expression(&format!("CAST({path} AS text[])")).ok()?;
    Some(call(&function.name.to_string(), values))
}

/// A function that gives rows, as a column of a SELECT: the one that gives them as an array.
fn unnested(array: &str, arguments: &[FunctionArg]) -> Option<Expr> {
    Some(call("unnest", vec![call(array, values_of(arguments)?)]))
}

/// Arguments that are expressions without names.
fn values_of(arguments: &[FunctionArg]) -> Option<Vec<Expr>> {
    let value = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value.clone()),
        _ => None,
    };
    arguments.iter().map(value).collect()
}

/// What `written` makes of such arguments, parsed.
fn of_values(arguments: &[FunctionArg], written: impl FnOnce(&[Expr]) -> Option<String>) -> Option<Expr> {
    parse_expression(&written(&values_of(arguments)?)?).ok()
}

/// How many of the values something is true of.
fn counted(values: &[Expr], what: &str) -> String {
    let one = |value: &Expr| format!("CASE WHEN ({value}) {what} THEN 1 ELSE 0 END");
    format!("({})", values.iter().map(one).collect::<Vec<_>>().join(" + "))
}

/// Nothing, or one number.
fn digits(arguments: &[FunctionArg]) -> Option<Option<u64>> {
    match arguments {
        [] => Some(None),
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value)))] => match &value.value {
            Value::Number(digits, _) => digits.parse().ok().map(Some),
            _ => None,
        },
        _ => None,
    }
}

fn now_as(data_type: SqlType) -> Expr {
    let now = Box::new(call("now", Vec::new()));
    Expr::Cast { kind: CastKind::Cast, expr: now, data_type, array: false, format: None }
}

/// `json_agg(x)` as `json_annal_list(array_agg(to_json(x)))`, with whatever stands in and behind the call.
fn aggregated(function: &Function, name: &str, arguments: &[FunctionArg]) -> Option<Expr> {
    let (json, _) = name.split_once('_')?;
    let values = values_of(arguments)?;
    let array_of = |value: Expr| {
        let mut collected = function.clone();
        collected.name = ObjectName::from(vec![Ident::new("array_agg")]);
        if let FunctionArguments::List(list) = &mut collected.args {
            list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(value))];
        }
        Expr::Function(collected)
    };
    let to_json = |value: &Expr| call(&format!("to_{json}"), vec![value.clone()]);
    let text = SqlType::Text;
    match (values.as_slice(), name.ends_with("object_agg")) {
        ([value], false) => {
            let list = if is_row(value) { LINES } else { LIST };
            Some(call(&format!("{json}_{list}"), vec![array_of(to_json(value))]))
        }
        ([key, value], true) => {
            let key = Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(key.clone()),
                data_type: text,
                array: false,
                format: None,
            };
            Some(call(&format!("{json}_{OBJECT}"), vec![array_of(key), array_of(to_json(value))]))
        }
        _ => None,
    }
}

/// Whether a value is a whole row, spelled out.
fn is_row(value: &Expr) -> bool {
    matches!(value, Expr::Function(function) if function.name.to_string().ends_with(ROW))
}

/// `percentile_disc(f) WITHIN GROUP (ORDER BY x)` as `annal_at_fraction(array_agg(x ORDER BY x), f)`, of the values that are not NULL.
fn ordered(function: &Function, name: &str, arguments: &[FunctionArg]) -> Option<Expr> {
    let [order] = function.within_group.as_slice() else { return None };
    let mut collected = function.clone();
    collected.name = ObjectName::from(vec![Ident::new("array_agg")]);
    collected.within_group = Vec::new();
    collected.args = FunctionArguments::List(FunctionArgumentList {
        duplicate_treatment: None,
        args: vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(order.expr.clone()))],
        clauses: vec![FunctionArgumentClause::OrderBy(vec![order.clone()])],
    });
    let present = Expr::IsNotNull(Box::new(order.expr.clone()));
    collected.filter = Some(Box::new(match collected.filter {
        Some(filter) => {
            Expr::BinaryOp { left: Box::new(Expr::Nested(filter)), op: BinaryOperator::And, right: Box::new(present) }
        }
        None => present,
    }));
    let collected = Expr::Function(collected);
    match (name, arguments) {
        ("mode", []) => Some(call(MODE, vec![collected])),
        ("percentile_disc", [FunctionArg::Unnamed(FunctionArgExpr::Expr(fraction))]) => {
            Some(call(FRACTION, vec![collected, fraction.clone()]))
        }
        _ => None,
    }
}

/// A function that gives rows, as a column of a SELECT.
fn elements(name: &str, arguments: &[FunctionArg]) -> Option<Expr> {
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(json))] = arguments else { return None };
    let (prefix, rest) = name.split_once('_')?;
    let part = match rest {
        "array_elements" => "elements_of_array",
        "array_elements_text" => "texts_of_array",
        _ => "keys_of_object",
    };
    Some(call("unnest", vec![call(&format!("{prefix}_{part}"), vec![json.clone()])]))
}

fn cast_to(expr: Expr, name: &str) -> Expr {
    let data_type = if name.starts_with("jsonb") { SqlType::JSONB } else { SqlType::JSON };
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

/// All arguments in their order, 0 for those that are not given; `None` for one that it does not have.
fn interval(arguments: &[FunctionArg]) -> Option<Expr> {
    let zero = || Expr::Value(Value::Number("0".to_owned(), false).into());
    let mut fields: [Expr; 7] = std::array::from_fn(|_| zero());
    let named = |name: &Ident| INTERVAL_FIELDS.iter().position(|field| name.value.eq_ignore_ascii_case(field));
    for (at, argument) in arguments.iter().enumerate() {
        let (at, value) = match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => (at, value),
            FunctionArg::Named {
                name,
                arg: FunctionArgExpr::Expr(value),
                operator: FunctionArgOperator::RightArrow | FunctionArgOperator::Assignment,
            }
            | FunctionArg::ExprNamed {
                name: Expr::Identifier(name),
                arg: FunctionArgExpr::Expr(value),
                operator: FunctionArgOperator::RightArrow | FunctionArgOperator::Assignment,
            } => (named(name)?, value),
            _ => return None,
        };
        *fields.get_mut(at)? = value.clone();
    }
    Some(call("make_interval", fields.into()))
}
