//! `d = 0 OR 10 / d > 2` and `CASE WHEN d = 0 THEN false ELSE 10 / d > 2 END` do not divide where `d` is 0.
//!
//! The library asks both sides of AND and OR of all rows of a batch, unless few are left, and makes ANDs and ORs of a CASE that gives booleans.
//! Where a side can fail, a CASE that gives numbers takes the place: its branches are computed for those rows only that come to them. Everything
//! else stays as it is, so that it prunes and runs as ever.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType, Result, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, BinaryExpr, Case, Cast, ScalarFunction, Sort};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, merge_schema, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Distinct, Expr, ExprSchemable, Filter, LogicalPlan, Operator, cast, lit};

use crate::functions::{arithmetic, numeric};

/// A value that may be NULL is asked for twice in an AND or OR of values, so that such ones inside of each other grow.
const LEVELS_MAX: usize = 3;
/// Of the operators and calls inside of each other that are looked through.
const DEPTH_MAX: usize = 64;

const COALESCE: &str = "coalesce";

/// What a CASE gives in the place of true, false and NULL.
const TRUE: ScalarValue = ScalarValue::Int8(Some(1));
const FALSE: ScalarValue = ScalarValue::Int8(Some(0));
const NULL: ScalarValue = ScalarValue::Int8(None);

/// Puts such a CASE wherever an expression needs one.
pub(super) fn protect(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if !contains(&expr, schema, Failing::AtAll) {
        return Ok(Transformed::no(expr));
    }
    expr.transform_down(|expr| of_node(expr, schema))
}

/// The same of what is a condition and may be taken apart: each part for itself.
pub(super) fn protect_parts(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if !contains(&expr, schema, Failing::AtAll) {
        return Ok(Transformed::no(expr));
    }
    let parts = split_conjunction_owned(expr).into_iter().map(|part| protect(condition(part, schema), schema));
    let parts: Vec<Expr> = parts.map(|part| part.map(|part| part.data)).collect::<Result<_>>()?;
    Ok(Transformed::yes(conjunction(parts).expect("a condition has a part")))
}

/// In WHERE and ON, a condition that can fail is asked of those rows only for which the conditions before it hold, and those of the queries and
/// joins below it. Of those count the ones that look at no other columns, so that it can still be pushed down as far.
pub(super) fn guard(plan: LogicalPlan) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Filter(Filter { predicate, input, .. }) => {
            let schema = input.schema();
            let parts = split_conjunction_owned(predicate).into_iter();
            let parts: Vec<Expr> =
                parts.map(|part| Ok(protect(condition(part, schema), schema)?.data)).collect::<Result<_>>()?;
            let predicate = guarded(&parts, &[&input], schema);
            let asked = predicate.column_refs().into_iter().cloned().collect();
            let input = kept(Arc::unwrap_or_clone(input), &asked)?.data;
            Ok(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?))
        }
        LogicalPlan::Join(mut join) => {
            if let Some(filter) = join.filter.take() {
                let schema = merge_schema(&[&join.left, &join.right]);
                let filter = guarded(&split_conjunction_owned(filter), &[&join.left, &join.right], &schema);
                let asked = filter.column_refs().into_iter().cloned().collect();
                join.filter = Some(filter);
                return kept_of_inputs(LogicalPlan::Join(join), &asked).data();
            }
            Ok(LogicalPlan::Join(join))
        }
        other => Ok(other),
    }
}

/// A condition over what a query below computes is asked together with the conditions of that query, so that these no longer come first. What
/// the query computes and the condition looks at is computed for those rows only which it has.
fn kept(plan: LogicalPlan, asked: &HashSet<Column>) -> Result<Transformed<LogicalPlan>> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => {
            let columns = alias.schema.columns().into_iter().zip(alias.input.schema().columns());
            let asked = columns.filter(|(given, _)| asked.contains(given)).map(|(_, column)| column).collect();
            kept_of_inputs(LogicalPlan::SubqueryAlias(alias), &asked)
        }
        LogicalPlan::Projection(mut projection) => {
            let mut below = HashSet::new();
            let schema = projection.input.schema();
            let guards = LazyCell::new(|| held(&projection.input));
            let mut is_changed = false;
            for (expr, given) in projection.expr.iter_mut().zip(projection.schema.columns()) {
                if !asked.contains(&given) {
                    continue;
                }
                below.extend(expr.column_refs().into_iter().cloned());
                if !contains(expr, schema, Failing::Often) {
                    continue;
                }
                let name = NamePreserver::new_for_projection().save(expr);
                let value = expr.clone().unalias();
                let columns = value.column_refs();
                let guards = guards.iter().filter(|guard| is_guard(guard, &columns));
                if let Some(only) = only_where(&value, guards, schema) {
                    *expr = name.restore(only);
                    is_changed = true;
                }
            }
            let changed = kept_of_inputs(LogicalPlan::Projection(projection), &below)?;
            match is_changed {
                true => Ok(Transformed::yes(changed.data.recompute_schema()?)),
                false => Ok(changed),
            }
        }
        plan @ (LogicalPlan::Filter(_) | LogicalPlan::Join(_) | LogicalPlan::Sort(_)) => kept_of_inputs(plan, asked),
        other => Ok(Transformed::no(other)),
    }
}

fn kept_of_inputs(plan: LogicalPlan, asked: &HashSet<Column>) -> Result<Transformed<LogicalPlan>> {
    if asked.is_empty() {
        return Ok(Transformed::no(plan));
    }
    let changed = plan.map_children(|input| kept(input, asked))?;
    if changed.transformed { changed.map_data(LogicalPlan::recompute_schema) } else { Ok(changed) }
}

/// A value that can fail where conditions hold, and NULL elsewhere; `None` when it stays as it is.
fn only_where<'a>(value: &Expr, conditions: impl Iterator<Item = &'a Expr>, schema: &DFSchema) -> Option<Expr> {
    if is_kept(value) || !contains(value, schema, Failing::Often) {
        return None;
    }
    // A CASE has no metadata, by which json is told from text.
    let (_, field) = value.to_field(schema).ok().filter(|(_, field)| field.metadata().is_empty())?;
    let null = lit(ScalarValue::try_from(field.data_type()).ok()?);
    let when_then_expr: Vec<_> =
        conditions.map(|when| (Box::new(when.clone().is_not_true()), Box::new(null.clone()))).collect();
    let case = Case { expr: None, when_then_expr, else_expr: Some(Box::new(value.clone())) };
    (!case.when_then_expr.is_empty()).then_some(Expr::Case(case))
}

/// Whether it is what [`only_where`] makes of a value.
fn is_kept(expr: &Expr) -> bool {
    let Expr::Case(Case { expr: None, when_then_expr, else_expr: Some(_) }) = expr else { return false };
    // It is seen again after `truth` was there.
    let is_guard = |when: &Expr| match when {
        Expr::IsNotTrue(_) => true,
        Expr::BinaryExpr(BinaryExpr { op: Operator::IsDistinctFrom, right, .. }) => **right == lit(true),
        _ => false,
    };
    let is_null = |then: &Expr| matches!(then, Expr::Literal(value, _) if value.is_null());
    when_then_expr.iter().all(|(when, then)| is_guard(when) && is_null(then))
}

fn guarded(parts: &[Expr], inputs: &[&LogicalPlan], schema: &DFSchema) -> Expr {
    let can_fail = |part: &Expr| !is_guarded(part) && contains(part, schema, Failing::Often);
    let below: Vec<Expr> = match parts.iter().any(can_fail) {
        true => inputs.iter().flat_map(|input| held(input)).collect(),
        false => Vec::new(),
    };
    let guarded = parts.iter().enumerate().map(|(at, part)| {
        if !can_fail(part) {
            return part.clone();
        }
        let columns = part.column_refs();
        let before = below.iter().chain(&parts[..at]).filter(|before| is_guard(before, &columns));
        let whens: Vec<(Expr, Expr)> = before.map(|before| (before.clone().is_not_true(), lit(NULL))).collect();
        if whens.is_empty() { part.clone() } else { protected(whens, as_number(part.clone())) }
    });
    conjunction(guarded).expect("a condition has a part")
}

/// The conditions that hold of all rows of a plan and cannot fail themselves, in its columns: the optimizer may ask others together with them.
fn held(plan: &LogicalPlan) -> Vec<Expr> {
    let own = |predicate: &Expr, schema: &DFSchema| {
        let parts = split_conjunction(predicate).into_iter();
        parts.filter(|part| !contains(part, schema, Failing::AtAll)).cloned().collect::<Vec<_>>()
    };
    match plan {
        LogicalPlan::Filter(filter) => {
            let mut all = held(&filter.input);
            all.extend(own(&filter.predicate, filter.input.schema()));
            all
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let columns = alias.input.schema().columns().into_iter().zip(alias.schema.columns());
            renamed(held(&alias.input), &columns.collect())
        }
        LogicalPlan::Projection(projection) => {
            let columns = projection.expr.iter().zip(projection.schema.columns());
            let columns = columns.filter_map(|(expr, given)| match expr.clone().unalias() {
                Expr::Column(column) => Some((column, given)),
                _ => None,
            });
            renamed(held(&projection.input), &columns.collect())
        }
        LogicalPlan::Join(join) => {
            use JoinType::{Inner, Left, LeftAnti, LeftMark, LeftSemi, Right, RightAnti, RightMark, RightSemi};
            let mut all = Vec::new();
            if matches!(join.join_type, Inner | Left | LeftSemi | LeftAnti | LeftMark) {
                all.extend(held(&join.left));
            }
            if matches!(join.join_type, Inner | Right | RightSemi | RightAnti | RightMark) {
                all.extend(held(&join.right));
            }
            if let (Some(filter), Inner) = (&join.filter, join.join_type) {
                all.extend(own(filter, &join.schema));
            }
            all
        }
        LogicalPlan::Sort(sort) => held(&sort.input),
        LogicalPlan::Distinct(Distinct::All(input)) => held(input),
        LogicalPlan::Window(window) => held(&window.input),
        _ => Vec::new(),
    }
}

/// Conditions by other names; those that look at anything else are left out.
fn renamed(conditions: Vec<Expr>, names: &HashMap<Column, Column>) -> Vec<Expr> {
    let renamed = |condition: Expr| {
        let known = condition.column_refs().into_iter().all(|column| names.contains_key(column));
        let rename = |expr| match expr {
            Expr::Column(column) => Transformed::yes(Expr::Column(names.get(&column).cloned().unwrap_or(column))),
            other => Transformed::no(other),
        };
        if known { condition.transform_up(|expr| Ok(rename(expr))).map(|renamed| renamed.data).ok() } else { None }
    };
    conditions.into_iter().filter_map(renamed).collect()
}

/// Which failures count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Failing {
    /// Divisions and casts, which a condition before them keeps from some rows in many a statement.
    Often,
    /// Sums and products out of range, too.
    AtAll,
}

fn of_node(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { op: op @ (Operator::And | Operator::Or), ref right, .. })
            if contains(right, schema, Failing::Often)
                && !is_protected(right)
                && levels(&expr, schema, DEPTH_MAX) <= LEVELS_MAX =>
        {
            Transformed::yes(value_of(split(expr, op), op, schema))
        }
        Expr::IsTrue(inner) => settle(Expr::IsTrue, *inner, schema),
        Expr::IsNotTrue(inner) => settle(Expr::IsNotTrue, *inner, schema),
        Expr::Case(case) => of_case(case, schema),
        Expr::AggregateFunction(call) if call.params.filter.is_some() => of_filtered(call, schema),
        // The library looks for what rows are sorted by in the plan, as it is written.
        Expr::AggregateFunction(ref call) if sorts(&call.params.order_by, schema) => as_it_is(expr),
        Expr::WindowFunction(ref call)
            if sorts(&call.params.order_by, schema)
                || call.params.partition_by.iter().any(|key| contains(key, schema, Failing::AtAll)) =>
        {
            as_it_is(expr)
        }
        // The library makes a CASE of it.
        Expr::ScalarFunction(ScalarFunction { func, args })
            if func.name() == COALESCE
                && args.iter().any(|arg| is_boolean(arg, schema))
                && args.iter().skip(1).any(|arg| contains(arg, schema, Failing::AtAll)) =>
        {
            let numbers = args.into_iter().map(as_number).collect();
            let first = Expr::ScalarFunction(ScalarFunction::new_udf(func, numbers));
            Transformed::yes(cast(first, DataType::Boolean))
        }
        other => Transformed::no(other),
    })
}

/// What an aggregate takes is computed for those rows only that its FILTER lets through.
fn of_filtered(mut call: AggregateFunction, schema: &DFSchema) -> Transformed<Expr> {
    let sorted = sorts(&call.params.order_by, schema);
    if let Some(filter) = call.params.filter.as_deref() {
        let filters: Vec<Expr> = split_conjunction(filter).into_iter().cloned().collect();
        for argument in &mut call.params.args {
            let filters = filters.iter().filter(|filter| is_guard(filter, &filter.column_refs()));
            if let Some(only) = only_where(argument, filters, schema) {
                *argument = only;
            }
        }
    }
    match sorted {
        true => as_it_is(Expr::AggregateFunction(call)),
        false => Transformed::yes(Expr::AggregateFunction(call)),
    }
}

fn sorts(keys: &[Sort], schema: &DFSchema) -> bool {
    keys.iter().any(|key| contains(&key.expr, schema, Failing::AtAll))
}

/// With all that is below it.
fn as_it_is(expr: Expr) -> Transformed<Expr> {
    Transformed::new(expr, false, TreeNodeRecursion::Jump)
}

fn settle(of: fn(Box<Expr>) -> Expr, inner: Expr, schema: &DFSchema) -> Transformed<Expr> {
    Transformed::yes(of(Box::new(condition(inner, schema))))
}

/// The branches of a CASE are conditions; what it gives is not to be a boolean where that could make an AND of it.
fn of_case(case: Case, schema: &DFSchema) -> Transformed<Expr> {
    let Case { expr: compared, when_then_expr, else_expr } = case;
    let gives_boolean = when_then_expr.iter().any(|(_, then)| is_boolean(then, schema));
    let fails = |expr: &Expr| contains(expr, schema, Failing::AtAll);
    let late = when_then_expr.iter().skip(1).map(|(when, _)| when).chain(when_then_expr.iter().map(|(_, then)| then));
    let is_needed = compared.is_none() && gives_boolean && late.chain(&else_expr).any(|expr| fails(expr));
    let is_search = compared.is_none();
    let given = |then: Box<Expr>| if is_needed { Box::new(as_number(*then)) } else { then };
    let when_then_expr = when_then_expr
        .into_iter()
        .map(|(when, then)| {
            let when = if is_search { Box::new(condition(*when, schema)) } else { when };
            (when, given(then))
        })
        .collect();
    let case = Expr::Case(Case { expr: compared, when_then_expr, else_expr: else_expr.map(given) });
    Transformed::yes(if is_needed { cast(case, DataType::Boolean) } else { case })
}

/// An AND or OR where NULL counts as false.
fn condition(expr: Expr, schema: &DFSchema) -> Expr {
    let Expr::BinaryExpr(BinaryExpr { op: op @ (Operator::And | Operator::Or), ref right, .. }) = expr else {
        return expr;
    };
    if is_protected(right) || !contains(right, schema, Failing::Often) {
        return expr;
    }
    let parts = split(expr, op);
    match op {
        Operator::And => {
            let whens = parts.into_iter().map(|part| (part.is_not_true(), lit(FALSE)));
            protected(whens.collect(), lit(TRUE))
        }
        _ => protected(parts.into_iter().map(|part| (part, lit(TRUE))).collect(), lit(FALSE)),
    }
}

/// An AND or OR of three values: NULL when nothing decides and any part is NULL.
fn value_of(parts: Vec<Expr>, op: Operator, schema: &DFSchema) -> Expr {
    let unknown: Vec<Expr> = parts.iter().filter(|part| part.nullable(schema).unwrap_or(true)).cloned().collect();
    let (otherwise, decided) = if op == Operator::And { (TRUE, FALSE) } else { (FALSE, TRUE) };
    let decisive = |part: Expr| if op == Operator::And { part.is_false() } else { part };
    let mut whens: Vec<(Expr, Expr)> = parts.into_iter().map(|part| (decisive(part), lit(decided.clone()))).collect();
    whens.extend(unknown.into_iter().map(|part| (part.is_null(), lit(NULL))));
    protected(whens, lit(otherwise))
}

/// The sides of a chain of one operator.
fn split(expr: Expr, op: Operator) -> Vec<Expr> {
    let mut parts = Vec::new();
    let mut open = vec![expr];
    while let Some(expr) = open.pop() {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: same, right }) if same == op => {
                open.push(*right);
                open.push(*left);
            }
            part => parts.push(part),
        }
    }
    parts
}

fn protected(whens: Vec<(Expr, Expr)>, otherwise: Expr) -> Expr {
    let when_then_expr = whens.into_iter().map(|(when, then)| (Box::new(when), Box::new(then))).collect();
    let case = Case { expr: None, when_then_expr, else_expr: Some(Box::new(otherwise)) };
    cast(Expr::Case(case), DataType::Boolean)
}

/// Analysis may come by more than once. No statement names the type of these numbers.
fn is_protected(expr: &Expr) -> bool {
    let is_number = |then: &Expr| match then {
        Expr::Literal(value, _) => value.data_type() == DataType::Int8,
        Expr::Cast(Cast { field, .. }) => *field.data_type() == DataType::Int8,
        _ => false,
    };
    case_of_boolean(expr).is_some_and(|case| case.when_then_expr.iter().all(|(_, then)| is_number(then)))
}

/// Whether it is what [`guard`] makes of a condition.
fn is_guarded(expr: &Expr) -> bool {
    let is_null = |then: &Expr| matches!(then, Expr::Literal(ScalarValue::Int8(None), _));
    case_of_boolean(expr).is_some_and(|case| case.when_then_expr.iter().all(|(_, then)| is_null(then)))
}

fn case_of_boolean(expr: &Expr) -> Option<&Case> {
    match expr {
        Expr::Cast(Cast { expr, field }) if *field.data_type() == DataType::Boolean => match expr.as_ref() {
            Expr::Case(case) => Some(case),
            _ => None,
        },
        _ => None,
    }
}

fn is_boolean(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|data_type| data_type == DataType::Boolean)
}

fn as_number(expr: Expr) -> Expr {
    cast(expr, DataType::Int8)
}

/// How many ANDs and ORs that can fail are inside of each other; more than any bound beyond `depth`.
fn levels(expr: &Expr, schema: &DFSchema, depth: usize) -> usize {
    if depth == 0 {
        return usize::MAX;
    }
    let mut deepest = 0;
    let Expr::BinaryExpr(BinaryExpr { op: op @ (Operator::And | Operator::Or), .. }) = expr else {
        let children = expr.apply_children(|child| {
            deepest = deepest.max(levels(child, schema, depth - 1));
            Ok(TreeNodeRecursion::Continue)
        });
        debug_assert!(children.is_ok(), "looking fails nowhere");
        return deepest;
    };
    let mut own = 0;
    let mut open = vec![expr];
    while let Some(part) = open.pop() {
        match part {
            Expr::BinaryExpr(BinaryExpr { left, op: same, right }) if same == op => {
                own = own.max(usize::from(contains(right, schema, Failing::Often)));
                open.extend([left.as_ref(), right.as_ref()]);
            }
            part => deepest = deepest.max(levels(part, schema, depth - 1)),
        }
    }
    deepest.saturating_add(own)
}

fn contains(expr: &Expr, schema: &DFSchema, failing: Failing) -> bool {
    expr.exists(|expr| Ok(can_fail(expr, schema, failing))).unwrap_or(true)
}

fn can_fail(expr: &Expr, schema: &DFSchema, failing: Failing) -> bool {
    match expr {
        Expr::BinaryExpr(BinaryExpr { op: Operator::Divide | Operator::Modulo, right, .. }) => may_be_zero(right),
        Expr::ScalarFunction(ScalarFunction { func, args }) if arithmetic::divides(func) || numeric::divides(func) => {
            may_be_zero(&args[1])
        }
        Expr::ScalarFunction(ScalarFunction { func, .. }) => {
            let reads_text = ["from_text", "to_number", "to_date", "to_timestamp", "interval_div"];
            reads_text.contains(&func.name()) || failing == Failing::AtAll && arithmetic::is_checked(func)
        }
        Expr::Cast(Cast { expr: inner, field }) if !matches!(inner.as_ref(), Expr::Literal(..)) => {
            inner.get_type(schema).is_ok_and(|from| is_refusing(&from, field.data_type()))
        }
        _ => false,
    }
}

/// Whether a cast refuses some values.
fn is_refusing(from: &DataType, to: &DataType) -> bool {
    use DataType::{Decimal128, Float32, Float64, Int16, Int32, Int64};
    match (from, to) {
        (from, to) if from.is_string() => !to.is_string(),
        (Int64, Int32 | Int16) | (Int32, Int16) => true,
        (Float32 | Float64 | Decimal128(..), Int64 | Int32 | Int16) => true,
        _ => false,
    }
}

/// Whether a number is 0 for some rows, as far as is seen.
pub(super) fn may_be_zero(number: &Expr) -> bool {
    match number {
        Expr::Literal(value, _) => {
            matches!(value.cast_to(&DataType::Float64), Ok(ScalarValue::Float64(Some(value))) if value == 0.0)
        }
        Expr::Cast(Cast { expr, .. }) => may_be_zero(expr),
        _ => true,
    }
}

fn is_guard(expr: &Expr, columns: &HashSet<&Column>) -> bool {
    let subqueries = expr.exists(|expr| {
        Ok(matches!(
            expr,
            Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::ScalarSubquery(_)
                | Expr::SetComparison(_)
                | Expr::OuterReferenceColumn(..)
        ))
    });
    !subqueries.unwrap_or(true) && !expr.is_volatile() && expr.column_refs().is_subset(columns)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};
    use datafusion::logical_expr::{col, table_scan, when};

    use super::*;

    fn table() -> Schema {
        let integer = |name: &str| Field::new(name, DataType::Int32, true);
        Schema::new(vec![integer("d"), integer("n"), Field::new("s", DataType::Utf8, true)])
    }

    fn schema() -> DFSchema {
        DFSchema::try_from(table()).unwrap()
    }

    fn quotient() -> Expr {
        (col("n") / col("d")).gt(lit(2))
    }

    #[test]
    fn what_can_fail_is_protected_once() {
        for expr in [
            col("d").eq(lit(0)).or(quotient()),
            col("d").not_eq(lit(0)).and(quotient()).and(col("n").gt(lit(5))),
            col("s").is_null().or(cast(col("s"), DataType::Int32).gt(lit(5)).and(quotient())),
            when(col("d").eq(lit(0)), lit(false)).otherwise(quotient()).unwrap(),
        ] {
            let once = protect(expr.clone(), &schema()).unwrap().data;
            assert_ne!(once, expr);
            assert_eq!(protect(once.clone(), &schema()).unwrap().data, once, "{expr}");
        }
    }

    #[test]
    fn ordinary_expressions_stay_as_they_are() {
        for expr in [
            col("d").eq(lit(0)).or(col("n").gt(lit(2))),
            (col("d") + lit(1)).gt(lit(0)).or((col("n") / lit(2)).gt(lit(2))),
            quotient().or(col("d").eq(lit(0))),
            when(col("d").eq(lit(0)), lit(1)).otherwise(col("n") / col("d")).unwrap(),
        ] {
            assert_eq!(protect(expr.clone(), &schema()).unwrap().data, expr);
        }
    }

    #[test]
    fn conditions_are_guarded_by_those_before_them() {
        let filter = |predicate: Expr| {
            let plan = table_scan(Some("t"), &table(), None).and_then(|scan| scan.filter(predicate)?.build());
            guard(plan.unwrap()).unwrap()
        };
        let of_quotient = |plan: &LogicalPlan| {
            let LogicalPlan::Filter(filter) = plan else { panic!("a filter") };
            split_conjunction_owned(filter.predicate.clone()).pop().expect("a part")
        };
        let guarded = filter(col("t.d").not_eq(lit(0)).and((col("t.n") / col("t.d")).gt(lit(2))));
        assert!(is_guarded(&of_quotient(&guarded)));
        assert_eq!(guard(guarded.clone()).unwrap(), guarded);
        // What looks at other columns could keep it from being pushed down.
        let apart = filter(col("t.s").is_null().and((col("t.n") / col("t.d")).gt(lit(2))));
        assert!(!is_guarded(&of_quotient(&apart)));
    }
}
