//! `string_agg(a, ',' ORDER BY x), string_agg(b, ',' ORDER BY y)`: the planner gives aggregates that need an order one order, and refuses two. An
//! `array_agg` is content to sort by itself. So where there are several orders, texts are joined from arrays; and arrays of distinct values, which
//! come in the first order only, are sorted when they are there.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArguments, Ident, ObjectName, ObjectNamePart, OrderByKind, OrderByOptions, Query, SetExpr,
    Statement as Ast, Value, VisitMut, VisitorMut,
};

use super::insert::call;
use super::relations::visit_own;

const TEXTS: &str = "string_agg";
const ARRAY: &str = "array_agg";

/// Sorts, and joins texts from arrays, where it must be.
pub(super) fn settle(statement: &mut Ast) {
    let mut orders = BTreeSet::new();
    let several = ast::visit_expressions(&*statement, |expr| {
        match order(expr).is_some_and(|order| {
            orders.insert(order);
            orders.len() > 1
        }) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    if several.is_break() {
        let _all = VisitMut::visit(statement, &mut Queries);
    }
}

/// The order in which a call of `string_agg` or `array_agg` is to have its rows.
fn order(expr: &Expr) -> Option<String> {
    let Expr::Function(Function { name, args: FunctionArguments::List(list), over: None, .. }) = expr else {
        return None;
    };
    let [ObjectNamePart::Identifier(function)] = name.0.as_slice() else { return None };
    let clause = list.clauses.iter().find(|clause| matches!(clause, FunctionArgumentClause::OrderBy(_)));
    let is_one = [TEXTS, ARRAY].iter().any(|known| function.value.eq_ignore_ascii_case(known));
    clause.filter(|_| is_one).map(ToString::to_string)
}

struct Queries;

impl VisitorMut for Queries {
    type Break = ();

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let mut orders = BTreeSet::new();
        visit_calls(query, |expr| orders.extend(order(expr)));
        if orders.len() > 1 {
            visit_calls(query, |expr| {
                if let Some(joined) = from_array(expr) {
                    *expr = joined;
                }
            });
        }
        ControlFlow::Continue(())
    }
}

/// Visits what one SELECT may compute of its groups.
fn visit_calls(query: &mut Query, mut visit: impl FnMut(&mut Expr)) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    visit_own(&mut select.projection, &mut visit);
    visit_own(&mut select.having, &mut visit);
    if let Some(OrderByKind::Expressions(keys)) = query.order_by.as_mut().map(|order| &mut order.kind) {
        visit_own(keys, &mut visit);
    }
}

/// The same from an array that needs no order; `None` for what needs none already.
fn from_array(expr: &Expr) -> Option<Expr> {
    order(expr)?;
    let Expr::Function(function) = expr else { return None };
    let mut array = function.clone();
    let is_array = function.name.to_string().eq_ignore_ascii_case(ARRAY);
    let between = if is_array { None } else { Some(without_between(&mut array)?) };
    let FunctionArguments::List(list) = &mut array.args else { return None };
    let is_distinct = matches!(list.duplicate_treatment, Some(DuplicateTreatment::Distinct));
    let sorted = match is_distinct {
        // Its order can only be that of its values.
        true => {
            let orders = list.clauses.extract_if(.., |clause| matches!(clause, FunctionArgumentClause::OrderBy(_)));
            let Some(FunctionArgumentClause::OrderBy(keys)) = orders.last() else { return None };
            let OrderByOptions { asc, nulls_first } = keys.first()?.options;
            let descends = asc == Some(false);
            let word = |said: &str| Expr::value(Value::SingleQuotedString(said.to_owned()));
            let nulls = if nulls_first.unwrap_or(descends) { "NULLS FIRST" } else { "NULLS LAST" };
            let how = [word(if descends { "DESC" } else { "ASC" }), word(nulls)];
            call("array_sort", [Expr::Function(array)].into_iter().chain(how).collect())
        }
        false if is_array => return None,
        false => Expr::Function(array),
    };
    Some(match between {
        Some(between) => call("array_to_string", vec![sorted, between]),
        None => sorted,
    })
}

/// Makes a call of `string_agg` one of `array_agg`, of the texts that are there; gives what stands between them.
fn without_between(function: &mut Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &mut function.args else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(text)), FunctionArg::Unnamed(FunctionArgExpr::Expr(between))] =
        list.args.as_slice()
    else {
        return None;
    };
    // One that differs from row to row goes with its row.
    if !matches!(between, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_))) {
        return None;
    }
    let (between, is_there) = (between.clone(), Expr::IsNotNull(Box::new(Expr::Nested(Box::new(text.clone())))));
    list.args.truncate(1);
    let only = match function.filter.take() {
        Some(filter) => {
            Expr::BinaryOp { left: Box::new(is_there), op: BinaryOperator::And, right: Box::new(Expr::Nested(filter)) }
        }
        None => is_there,
    };
    function.filter = Some(Box::new(only));
    function.name = ObjectName::from(vec![Ident::new(ARRAY)]);
    Some(between)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::statement;

    fn check(sql: &str, expected: &str) {
        let parsed = statement::parse(sql).expect("valid").remove(0);
        let mut ast = parsed.ast.expect("a statement").as_ref().clone();
        settle(&mut ast);
        assert_eq!(ast.to_string(), expected);
    }

    #[test]
    fn texts_in_several_orders_are_joined_from_arrays() {
        check(
            "SELECT string_agg(a, ',' ORDER BY x), string_agg(DISTINCT b, '' ORDER BY b) FILTER (WHERE c OR d) FROM t",
            "SELECT array_to_string(array_agg(a ORDER BY x) FILTER (WHERE (a) IS NOT NULL), ','), \
             array_to_string(array_sort(array_agg(DISTINCT b) FILTER (WHERE (b) IS NOT NULL AND (c OR d)), 'ASC', 'NULLS LAST'), '') FROM t",
        );
        check(
            "SELECT array_agg(a ORDER BY x), array_agg(DISTINCT b ORDER BY b DESC) FROM t",
            "SELECT array_agg(a ORDER BY x), array_sort(array_agg(DISTINCT b), 'DESC', 'NULLS FIRST') FROM t",
        );
    }

    #[test]
    fn texts_in_one_order_stay() {
        let one = "SELECT string_agg(a, ',' ORDER BY x), string_agg(b, ',' ORDER BY x) FROM t";
        check(one, one);
        let apart = "SELECT string_agg(a, ',' ORDER BY x), (SELECT string_agg(b, ',' ORDER BY y) FROM u) FROM t";
        check(apart, apart);
        let by_row = "SELECT string_agg(a, b ORDER BY x), string_agg(c, b ORDER BY y) FROM t";
        check(by_row, by_row);
    }
}
