//! Text literals read as PostgreSQL reads them, and timestamps as fine as the tables keep them.
//!
//! Where a statement compares or casts a text literal, the library would read it in its own syntax, in UTC, and refuse it in its own
//! words. After types are settled and before anything is folded, each such literal becomes a value of its type here.

use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::functions::core::expr_fn::nullif;
use datafusion::logical_expr::expr::{
    Between, BinaryExpr, Case, Cast, InList, InSubquery, ScalarFunction, SetComparison,
};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::logical_expr::utils::{grouping_set_to_exprlist, merge_schema};
use datafusion::logical_expr::{
    Distinct, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, ScalarUDF, Subquery, Union, binary_expr,
    lit,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::sql::sqlparser::ast::{DataType as SqlType, ExactNumberInfo, TimezoneInfo};
use event::ColumnType;

use super::{arithmetic, group_columns, kept_names, null_if, numbers, outer_types, zoned};
use crate::error::Error;
use crate::functions::interval::{is_interval, length};
use crate::functions::one_type::OF_ONE_TYPE;
use crate::functions::{self, forms, json};
use crate::text::{Zone, parse_json, parse_scalar};

/// Digits of the largest whole number the library's parser gives that is no bigint.
const UINT64_DIGITS: u8 = 20;

/// Turns casts of text literals into values.
#[derive(Debug)]
pub(crate) struct ReadLiterals;

impl AnalyzerRule for ReadLiterals {
    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let zone = Zone::of_session(config);
        let read = plan.transform_up_with_subqueries(|plan| {
            let names = NamePreserver::new(&plan);
            let schema = merge_schema(&plan.inputs());
            let mut read = |expr: Expr| expr.transform_up(|expr| value_of(expr, &zone, &schema));
            let changed = plan.map_expressions(|expr| kept_names::changed(expr, &names, &mut read))?;
            if changed.transformed { changed.map_data(LogicalPlan::recompute_schema) } else { Ok(changed) }
        });
        Ok(read?.data)
    }

    fn name(&self) -> &'static str {
        "read_literals"
    }
}

fn value_of(expr: Expr, zone: &Zone, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if let Some(zoned) = zoned::in_zone(&expr, zone, schema) {
        return Ok(Transformed::yes(zoned));
    }
    let Expr::Cast(Cast { expr: inner, field }) = &expr else { return Ok(only_constants(expr)) };
    let from = inner.to_field(schema).ok().map(|(_, from)| from);
    let is_json = from.as_ref().is_some_and(|from| ColumnType::json_of(from).is_some());
    let text = match inner.as_ref() {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) if !is_json => Some(text),
        _ => None,
    };
    let Some(text) = text else {
        let function = from.and_then(|from| cast_function(&from, field));
        return Ok(match function {
            Some(function) => {
                Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![(**inner).clone()])))
            }
            None => Transformed::no(expr),
        });
    };
    let json = ColumnType::json_of(field);
    let value = match json {
        Some(json) => parse_json(text, json),
        None if is_read(field.data_type()) => parse_scalar(text, field.data_type(), zone),
        None => return Ok(Transformed::no(expr)),
    };
    let value = value.map_err(|refused| external(Error::Reported(refused)))?;
    let facts = json.map(|_| FieldMetadata::from(field.as_ref()));
    Ok(Transformed::yes(Expr::Literal(value, facts)))
}

/// `x IN (1, NULL)` is `x IN (1) OR NULL`, `x NOT IN (1, NULL)` is `x NOT IN (1) AND NULL`, and `x IN (1, y)` is `x IN (1) OR x = y`: where the
/// library joins two lists of one value, it takes whatever is not written alike for different.
fn only_constants(expr: Expr) -> Transformed<Expr> {
    let Expr::InList(InList { expr: value, list, negated }) = expr else { return Transformed::no(expr) };
    if list.iter().all(|one| is_constant(one) && !is_null(one)) {
        return Transformed::no(Expr::InList(InList { expr: value, list, negated }));
    }
    let (constants, others): (Vec<Expr>, Vec<Expr>) = list.into_iter().partition(is_constant);
    let (nulls, constants): (Vec<Expr>, Vec<Expr>) = constants.into_iter().partition(is_null);
    let mut parts = Vec::with_capacity(others.len() + 2);
    if !constants.is_empty() {
        parts.push(Expr::InList(InList { expr: value.clone(), list: constants, negated }));
    }
    let op = if negated { Operator::NotEq } else { Operator::Eq };
    parts.extend(others.into_iter().map(|other| binary_expr((*value).clone(), op, other)));
    if !nulls.is_empty() {
        parts.push(lit(ScalarValue::Boolean(None)));
    }
    let parts = parts.into_iter();
    let joined = if negated { parts.reduce(Expr::and) } else { parts.reduce(Expr::or) };
    Transformed::yes(joined.unwrap_or_else(|| lit(negated)))
}

/// A literal, or what will be one.
fn is_constant(expr: &Expr) -> bool {
    let varies = expr.exists(|part| {
        Ok(matches!(
            part,
            Expr::Column(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
        ))
    });
    !varies.unwrap_or(true) && !expr.is_volatile()
}

fn is_null(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => value.is_null(),
        Expr::Cast(Cast { expr, .. }) => is_null(expr),
        _ => false,
    }
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// What casts one type to another where the library cannot, or does otherwise.
fn cast_function(from: &Field, to: &Field) -> Option<Arc<ScalarUDF>> {
    let is_text = DataType::is_string;
    let json = ColumnType::json_of(to);
    if json.is_some() && json == ColumnType::json_of(from) {
        return None;
    }
    let is_json = ColumnType::json_of(from).is_some();
    if ColumnType::json_of(from) == Some(ColumnType::Jsonb)
        && let Some(function) = ColumnType::of(to).and_then(json::from_jsonb)
    {
        return Some(function);
    }
    match (from.data_type(), to.data_type()) {
        (from, DataType::Utf8) if is_text(from) && json.is_some() => json.map(forms::from_text),
        (from, DataType::Binary) if is_text(from) => Some(forms::from_text(ColumnType::Bytea)),
        (from, DataType::FixedSizeBinary(_)) if is_text(from) => Some(forms::from_text(ColumnType::Uuid)),
        (from, DataType::Interval(_)) if is_text(from) => Some(forms::from_text(ColumnType::Interval)),
        (from, DataType::List(_)) if is_text(from) => ColumnType::of(to).map(forms::from_text),
        // The cast takes away that it is JSON.
        (DataType::Utf8, to) if is_text(to) && is_json => Some(forms::to_text()),
        (from, to) if is_text(to) && forms::has_own_text(from) => Some(forms::to_text()),
        _ => None,
    }
}

/// A whole number is an integer when it fits one, else a bigint, else numeric; the library has them all as bigint, or without a sign.
/// Before types are settled, so that an operator's are those of its operands.
pub(crate) fn narrow(plan: LogicalPlan) -> Result<LogicalPlan> {
    // What a recursive query reads of itself was typed with its first part.
    if is_recursive(&plan)? {
        return Ok(plan);
    }
    narrowed(group_columns::apart(plan)?)
}

/// The same from the inputs up: what a subquery refers to outside of it has its type by then.
fn narrowed(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = match plan {
        LogicalPlan::Join(mut join) => {
            join.left = Arc::new(narrowed(Arc::unwrap_or_clone(join.left))?);
            let right = outer_types::retyped(Arc::unwrap_or_clone(join.right), join.left.schema())?;
            join.right = Arc::new(narrowed(right)?);
            LogicalPlan::Join(join)
        }
        other => other.map_children(|input| narrowed(input).map(Transformed::yes))?.data,
    };
    let schema = merge_schema(&plan.inputs());
    let of_subquery = |subquery| outer_types::retyped(subquery, &schema).and_then(narrowed).map(Transformed::yes);
    narrowed_node(plan.map_subqueries(of_subquery)?.data)
}

fn narrowed_node(plan: LogicalPlan) -> Result<LogicalPlan> {
    // How many rows is counted in bigint.
    if matches!(plan, LogicalPlan::Limit(_)) {
        return Ok(plan);
    }
    if let LogicalPlan::Union(union) = plan {
        let inputs = numbers::settled_union(union.inputs)?;
        return Ok(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?));
    }
    if let LogicalPlan::Distinct(Distinct::All(input)) = plan {
        return Ok(LogicalPlan::Distinct(Distinct::All(told_apart(input)?)));
    }
    if let LogicalPlan::Values(values) = plan {
        let none = DFSchema::empty();
        let settle_one = |expr| settled(expr, &none);
        let rows = values.values.into_iter().map(|row| row.into_iter().map(settle_one).collect());
        let rows = numbers::settled_rows(rows.collect::<Result<_>>()?, &none);
        return LogicalPlanBuilder::values(rows)?.build();
    }
    let names = NamePreserver::new(&plan);
    let schema = merge_schema(&plan.inputs());
    let groups: Vec<Expr> = match &plan {
        LogicalPlan::Aggregate(aggregate) => {
            grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect()
        }
        LogicalPlan::Distinct(Distinct::On(distinct)) => distinct.on_expr.clone(),
        _ => Vec::new(),
    };
    let mut settle = |expr: Expr| {
        let is_group = groups.contains(&expr);
        let settled = settled(expr, &schema)?;
        Ok(Transformed::yes(if is_group { group_key(settled, &schema) } else { settled }))
    };
    let changed = match plan {
        LogicalPlan::Sort(_) => plan.map_expressions(|expr| settle(expr)?.map_data(|key| Ok(order_key(key, &schema)))),
        _ => plan.map_expressions(|expr| kept_names::changed(expr, &names, &mut settle)),
    }?;
    name_groups(changed.data)?.recompute_schema()
}

/// `grouping(k % 2)` names a group by what it is computed by: as the group is written by now, with the name that it has kept.
fn name_groups(mut plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Aggregate(aggregate) = &mut plan else { return Ok(plan) };
    let groups: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
    let named = |argument: Expr| {
        let group = groups.iter().find(|group| matches!(group, Expr::Alias(alias) if *alias.expr == argument));
        group.cloned().unwrap_or(argument)
    };
    for expr in &mut aggregate.aggr_expr {
        let changed = std::mem::take(expr).transform_down(|expr| match expr {
            Expr::AggregateFunction(mut call) if call.func.name() == "grouping" => {
                call.params.args = call.params.args.into_iter().map(named).collect();
                Ok(Transformed::new(Expr::AggregateFunction(call), true, TreeNodeRecursion::Jump))
            }
            other => Ok(Transformed::no(other)),
        });
        *expr = changed?.data;
    }
    Ok(plan)
}

/// An expression with the types that PostgreSQL gives it and its parts.
fn settled(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let settled = expr.transform_up(|expr| {
        let settled = match null_if::of_call(&expr) {
            Some((value, other)) => {
                let equal = settled_whole(value.clone().eq(other.clone()), schema)?;
                null_if::equal(value, equal, other, schema)?
            }
            None => settled_whole(expr, schema)?,
        };
        Ok(Transformed::yes(settled))
    });
    Ok(settled?.data)
}

/// The same of an expression whose parts are settled.
fn settled_whole(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let expr = numbers::settled(narrow_one(read_results(read_beside(expr, schema), schema)), schema)?;
    let expr = narrow_series(count_elements(widen_sum(expr, schema)), schema);
    Ok(shown_in_concat(of_jsonb(by_value(beside_rows(expr, schema)?, schema)?, schema), schema))
}

/// One of several values of jsonb is of that type, also where the library computes it by something that knows no such types.
fn of_jsonb(expr: Expr, schema: &DFSchema) -> Expr {
    let is_jsonb = match &expr {
        Expr::ScalarFunction(call) if OF_ONE_TYPE.contains(&call.func.name()) => {
            call.args.iter().any(|value| is_jsonb(value, schema))
        }
        Expr::Case(case) => {
            let results = case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr);
            results.into_iter().any(|result| is_jsonb(result, schema))
        }
        _ => false,
    };
    if is_jsonb { json::normal(expr) } else { expr }
}

/// The greatest, or the least, of values that the library does not order as they are ordered: the first that is there and that none is beyond.
fn extreme(mut values: Vec<Expr>, is_greatest: bool, schema: &DFSchema) -> Result<Expr> {
    let keys: Vec<Expr> = values.iter().map(|value| order_key(value.clone(), schema)).collect();
    let last = values.pop();
    let branches = values.into_iter().zip(&keys).map(|(value, key)| {
        let is_extreme =
            keys.iter().filter(|other| *other != key).fold(value.clone().is_not_null(), |so_far, other| {
                let holds =
                    if is_greatest { key.clone().gt_eq(other.clone()) } else { key.clone().lt_eq(other.clone()) };
                so_far.and(other.clone().is_null().or(holds))
            });
        (Box::new(is_extreme), Box::new(value))
    });
    let when_then_expr = branches.collect::<Vec<_>>();
    let last = last.unwrap_or_else(|| lit(ScalarValue::Null));
    match when_then_expr.is_empty() {
        true => Ok(last),
        false => Ok(Expr::Case(Case { expr: None, when_then_expr, else_expr: Some(Box::new(last)) })),
    }
}

/// `concat` shows values as a client sees them, where a cast to text, which the library does there, says `true`.
fn shown_in_concat(expr: Expr, schema: &DFSchema) -> Expr {
    let is_boolean = |argument: &Expr| argument.get_type(schema).is_ok_and(|data_type| data_type == DataType::Boolean);
    let letter = |argument: Expr| {
        let branches = [(true, "t"), (false, "f")].map(|(value, letter)| (Box::new(lit(value)), Box::new(lit(letter))));
        Expr::Case(Case { expr: Some(Box::new(argument)), when_then_expr: branches.to_vec(), else_expr: None })
    };
    match expr {
        Expr::ScalarFunction(mut call) if matches!(call.func.name(), "concat" | "concat_ws") => {
            let shown = |argument| if is_boolean(&argument) { letter(argument) } else { argument };
            call.args = call.args.into_iter().map(shown).collect();
            Expr::ScalarFunction(call)
        }
        other => other,
    }
}

/// Elements are counted in integers, and the length of an empty array is NULL.
fn count_elements(expr: Expr) -> Expr {
    let Expr::ScalarFunction(call) = &expr else { return expr };
    let integer = |count: Expr| datafusion::logical_expr::cast(count, DataType::Int32);
    match call.func.name() {
        "cardinality" => integer(expr),
        "array_length" => nullif(integer(expr), lit(0_i32)),
        _ => expr,
    }
}

/// A series between integers is one of integers; the library's is of bigints.
fn narrow_series(expr: Expr, schema: &DFSchema) -> Expr {
    let is_integer = |arg: &Expr| matches!(arg.get_type(schema), Ok(DataType::Int16 | DataType::Int32));
    match &expr {
        Expr::ScalarFunction(call) if call.func.name() == "generate_series" && call.args.iter().all(is_integer) => {
            let integers = DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true)));
            datafusion::logical_expr::cast(expr, integers)
        }
        _ => expr,
    }
}

/// The sum of bigints is a numeric, which they cannot overflow; the library's would wrap.
fn widen_sum(expr: Expr, schema: &DFSchema) -> Expr {
    let is_bigint = |args: &[Expr]| matches!(args, [arg] if arg.get_type(schema).is_ok_and(|t| t == DataType::Int64));
    let widen = |args: &mut [Expr]| {
        let arg = std::mem::take(&mut args[0]);
        args[0] = datafusion::logical_expr::cast(arg, DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0));
    };
    match expr {
        Expr::AggregateFunction(mut call) if call.func.name() == "sum" && is_bigint(&call.params.args) => {
            widen(&mut call.params.args);
            Expr::AggregateFunction(call)
        }
        Expr::WindowFunction(mut call) if call.fun.name() == "sum" && is_bigint(&call.params.args) => {
            widen(&mut call.params.args);
            Expr::WindowFunction(call)
        }
        other => other,
    }
}

/// What rows are grouped by. Equal values of jsonb may have several texts.
fn group_key(expr: Expr, schema: &DFSchema) -> Expr {
    if is_jsonb(&expr, schema) { json::normal(expr) } else { expr }
}

/// Rows of which equal ones are the same.
fn told_apart(input: Arc<LogicalPlan>) -> Result<Arc<LogicalPlan>> {
    let schema = Arc::clone(input.schema());
    let is_jsonb = |field: &Field| ColumnType::json_of(field) == Some(ColumnType::Jsonb);
    if !schema.fields().iter().any(|field| is_jsonb(field)) {
        return Ok(input);
    }
    let columns = schema.iter().map(|(table, field)| {
        let column = Expr::Column(Column::new(table.cloned(), field.name()));
        match is_jsonb(field) {
            true => json::normal(column).alias_qualified(table.cloned(), field.name()),
            false => column,
        }
    });
    let columns: Vec<Expr> = columns.collect();
    Ok(Arc::new(LogicalPlanBuilder::from(Arc::unwrap_or_clone(input)).project(columns)?.build()?))
}

/// Intervals are compared by how long they are, where the library compares them part by part, and jsonb as values, which are texts to it.
fn by_value(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let are_intervals = |sides: &[&Expr]| {
        let types = sides.iter().map(|side| side.get_type(schema).unwrap_or(DataType::Null));
        let (intervals, rest): (Vec<_>, Vec<_>) = types.partition(is_interval);
        !intervals.is_empty() && rest.iter().all(DataType::is_null)
    };
    let are_ordered = |sides: &[&Expr]| are_intervals(sides) || sides.iter().all(|side| is_jsonb(side, schema));
    Ok(match expr {
        Expr::ScalarFunction(call)
            if matches!(call.func.name(), "greatest" | "least")
                && are_ordered(&call.args.iter().collect::<Vec<_>>()) =>
        {
            extreme(call.args, call.func.name() == "greatest", schema)?
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) && are_ordered(&[&left, &right]) => {
            let (left, right) = (order_key(*left, schema), order_key(*right, schema));
            Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) })
        }
        Expr::InList(InList { expr, list, negated })
            if are_ordered(&std::iter::once(expr.as_ref()).chain(&list).collect::<Vec<_>>()) =>
        {
            let list = list.into_iter().map(|one| order_key(one, schema)).collect();
            Expr::InList(InList { expr: Box::new(order_key(*expr, schema)), list, negated })
        }
        Expr::Between(Between { expr, negated, low, high }) if are_ordered(&[&expr, &low, &high]) => {
            let [expr, low, high] = [expr, low, high].map(|one| Box::new(order_key(*one, schema)));
            Expr::Between(Between { expr, negated, low, high })
        }
        Expr::Case(Case { expr: Some(value), when_then_expr, else_expr })
            if are_ordered(
                &std::iter::once(value.as_ref())
                    .chain(when_then_expr.iter().map(|(when, _)| when.as_ref()))
                    .collect::<Vec<_>>(),
            ) =>
        {
            let branches =
                when_then_expr.into_iter().map(|(when, then)| (Box::new(order_key(*when, schema)), then)).collect();
            Expr::Case(Case { expr: Some(Box::new(order_key(*value, schema))), when_then_expr: branches, else_expr })
        }
        Expr::AggregateFunction(mut call)
            if call.params.distinct && call.params.args.iter().any(|arg| is_jsonb(arg, schema)) =>
        {
            call.params.args = call.params.args.into_iter().map(|arg| group_key(arg, schema)).collect();
            Expr::AggregateFunction(call)
        }
        Expr::AggregateFunction(mut call)
            if call.params.distinct
                && call.func.name() == "count"
                && call.params.args.iter().all(|arg| are_intervals(&[arg])) =>
        {
            call.params.args = call.params.args.into_iter().map(|arg| order_key(arg, schema)).collect();
            Expr::AggregateFunction(call)
        }
        Expr::AggregateFunction(mut call) if matches!(call.params.args.as_slice(), [arg] if are_intervals(&[arg])) => {
            // The one that comes first, or last, by its length.
            let extreme = match call.func.name() {
                "min" => functions::first,
                "max" => functions::last,
                _ => return Ok(Expr::AggregateFunction(call)),
            };
            call.func = extreme();
            let key = order_key(call.params.args[0].clone(), schema);
            call.params.args.push(key);
            call.params.distinct = false;
            Expr::AggregateFunction(call)
        }
        Expr::WindowFunction(mut call) => {
            for sort in &mut call.params.order_by {
                sort.expr = order_key(std::mem::take(&mut sort.expr), schema);
            }
            let keys = std::mem::take(&mut call.params.partition_by);
            call.params.partition_by = keys.into_iter().map(|key| group_key(key, schema)).collect();
            Expr::WindowFunction(call)
        }
        other => other,
    })
}

/// The same of a value and the rows of a subquery, and floats without the sign of -0.
fn beside_rows(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let by_key = |value: Expr, subquery: Subquery| {
        let rows = subquery.subquery.schema();
        let given = Expr::Column(Column::from(rows.qualified_field(0)));
        let has_key = |value: &Expr, schema: &DFSchema| {
            is_jsonb(value, schema) || value.get_type(schema).is_ok_and(|data_type| is_interval(&data_type))
        };
        let (value_key, given_key) = match has_key(&value, schema) && has_key(&given, rows) {
            true => (order_key(value, schema), order_key(given.clone(), rows)),
            false => (arithmetic::unsigned_zero(value, schema), arithmetic::unsigned_zero(given.clone(), rows)),
        };
        if given_key == given {
            return Ok((value_key, subquery));
        }
        let key = given_key.alias(rows.field(0).name());
        let keys = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone()).project([key])?.build()?;
        Ok::<_, DataFusionError>((value_key, subquery.with_plan(Arc::new(keys))))
    };
    Ok(match expr {
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            let (expr, subquery) = by_key(*expr, subquery)?;
            Expr::InSubquery(InSubquery { expr: Box::new(expr), subquery, negated })
        }
        Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
            let (expr, subquery) = by_key(*expr, subquery)?;
            Expr::SetComparison(SetComparison { expr: Box::new(expr), subquery, op, quantifier })
        }
        other => other,
    })
}

/// What a value is ordered by.
fn order_key(expr: Expr, schema: &DFSchema) -> Expr {
    match expr.get_type(schema) {
        Ok(data_type) if is_interval(&data_type) => length(expr),
        _ if is_jsonb(&expr, schema) => json::order_key(expr),
        _ => expr,
    }
}

fn is_jsonb(expr: &Expr, schema: &DFSchema) -> bool {
    expr.to_field(schema).is_ok_and(|(_, field)| ColumnType::json_of(&field) == Some(ColumnType::Jsonb))
}

/// Text beside a value of a type that the library does not compare with text is of that type.
fn read_beside(expr: Expr, schema: &DFSchema) -> Expr {
    let beside = |side: &Expr| side.to_field(schema).ok().map(|(_, field)| field).filter(|field| is_own(field));
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) => {
            let (left_field, right_field) = (beside(&left), beside(&right));
            let (left, right) = (read_as(*left, right_field), read_as(*right, left_field));
            Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) })
        }
        Expr::InList(InList { expr, list, negated }) => {
            let field = beside(&expr);
            let list = list.into_iter().map(|one| read_as(one, field.clone())).collect();
            Expr::InList(InList { expr, list, negated })
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let field = beside(&expr);
            let (low, high) = (read_as(*low, field.clone()), read_as(*high, field));
            Expr::Between(Between { expr, negated, low: Box::new(low), high: Box::new(high) })
        }
        Expr::ScalarFunction(mut call) if OF_ONE_TYPE.contains(&call.func.name()) => {
            let field = one_field(call.args.iter(), schema);
            call.args = call.args.into_iter().map(|value| read_as(value, field.clone())).collect();
            Expr::ScalarFunction(call)
        }
        Expr::Case(Case { expr: Some(value), when_then_expr, else_expr }) => {
            let field = beside(&value);
            let of_branch = |(when, then): (Box<Expr>, Box<Expr>)| (Box::new(read_as(*when, field.clone())), then);
            let when_then_expr = when_then_expr.into_iter().map(of_branch).collect();
            Expr::Case(Case { expr: Some(value), when_then_expr, else_expr })
        }
        other => other,
    }
}

/// The results of a CASE, of which those that are written as text are of the type of the others.
fn read_results(expr: Expr, schema: &DFSchema) -> Expr {
    let Expr::Case(Case { expr: value, when_then_expr, else_expr }) = expr else { return expr };
    let results = when_then_expr.iter().map(|(_, then)| then).chain(&else_expr).map(AsRef::as_ref);
    let field = one_field(results, schema);
    let read = |result: Box<Expr>| Box::new(read_as(*result, field.clone()));
    let when_then_expr = when_then_expr.into_iter().map(|(when, then)| (when, read(then))).collect();
    Expr::Case(Case { expr: value, when_then_expr, else_expr: else_expr.map(read) })
}

/// The type of the first of several values that is no text; none for numerics, which have no precision beside a text.
fn one_field<'e>(mut values: impl Iterator<Item = &'e Expr>, schema: &DFSchema) -> Option<FieldRef> {
    let is_typed = |field: &FieldRef| {
        let data_type = field.data_type();
        ColumnType::json_of(field).is_some() || !data_type.is_string() && !data_type.is_null()
    };
    let field = values.find_map(|value| value.to_field(schema).ok().map(|(_, field)| field).filter(is_typed))?;
    (!field.data_type().is_decimal()).then_some(field)
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn is_own(field: &Field) -> bool {
    let data_type = field.data_type();
    matches!(data_type, DataType::Binary | DataType::FixedSizeBinary(_))
        || matches!(data_type, DataType::List(_))
        || is_interval(data_type)
        || ColumnType::json_of(field).is_some()
}

/// A literal as the cast that [`ReadLiterals`] reads.
fn read_as(expr: Expr, field: Option<FieldRef>) -> Expr {
    match (field, &expr) {
        (Some(field), Expr::Literal(ScalarValue::Utf8(Some(_)), _)) => Expr::Cast(Cast { expr: Box::new(expr), field }),
        _ => expr,
    }
}

fn is_recursive(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|plan| {
        found |= matches!(plan, LogicalPlan::RecursiveQuery(_));
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn narrow_one(expr: Expr) -> Expr {
    match expr {
        Expr::Literal(ScalarValue::Int64(Some(number)), facts) => match i32::try_from(number) {
            Ok(number) => Expr::Literal(ScalarValue::Int32(Some(number)), facts),
            Err(_) => Expr::Literal(ScalarValue::Int64(Some(number)), facts),
        },
        Expr::Literal(ScalarValue::UInt64(Some(number)), facts) => {
            Expr::Literal(ScalarValue::Decimal128(Some(i128::from(number)), UINT64_DIGITS, 0), facts)
        }
        other => other,
    }
}

/// The types whose text form is PostgreSQL's business.
fn is_read(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal128(_, _)
            | DataType::Boolean
            | DataType::Binary
            | DataType::FixedSizeBinary(_)
            | DataType::Date32
            | DataType::Time64(_)
            | DataType::Timestamp(_, _)
            | DataType::Interval(_)
            | DataType::List(_)
    )
}

/// Timestamps of SQL are microseconds, as in tables: coarser than the library's own, and with PostgreSQL's range.
#[derive(Debug)]
pub(crate) struct Microseconds(pub(crate) Option<Arc<dyn TypePlanner>>);

impl TypePlanner for Microseconds {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        let planned = |column_type: ColumnType| Ok(Some(Arc::new(column_type.field("", true))));
        let zone = match sql_type {
            SqlType::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) | SqlType::Datetime(_) => None,
            SqlType::Timestamp(_, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => Some("UTC".into()),
            SqlType::Numeric(ExactNumberInfo::None)
            | SqlType::Decimal(ExactNumberInfo::None)
            | SqlType::Dec(ExactNumberInfo::None) => return Ok(Some(numbers::any_numeric())),
            SqlType::Uuid => return planned(ColumnType::Uuid),
            SqlType::Bytea => return planned(ColumnType::Bytea),
            SqlType::JSON => return planned(ColumnType::Json),
            SqlType::JSONB => return planned(ColumnType::Jsonb),
            SqlType::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => return planned(ColumnType::Time),
            SqlType::Array(_) => return super::ddl::column_type(sql_type).map_err(external).and_then(planned),
            _ => return self.0.as_ref().map_or(Ok(None), |next| next.plan_type_field(sql_type)),
        };
        let data_type = DataType::Timestamp(TimeUnit::Microsecond, zone);
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}
