//! `SELECT array_agg(x) FROM (SELECT x FROM t ORDER BY y) AS s`: an aggregate that keeps its rows' order gets them in the order of the query below
//! it. PostgreSQL does so without promising it, and applications count on it; the planner drops an order that nobody asked for. So each such call
//! asks for it.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Expr, Function, FunctionArgumentClause, FunctionArguments, Ident, ObjectNamePart, OrderBy, OrderByExpr,
    OrderByKind, Query, Select, SelectItem, SetExpr, Statement as Ast, TableAliasColumnDef, TableFactor, Value,
    VisitMut, VisitorMut,
};

use super::names::{folded, name_of};
use super::relations::visit_own;

/// Aggregates whose value depends on the order of their rows.
const KEEP_ORDER: [&str; 6] =
    ["array_agg", "string_agg", "json_agg", "jsonb_agg", "json_object_agg", "jsonb_object_agg"];
/// How the columns begin that the query below gives only for its order.
const HIDDEN: &str = "annal_order_";

/// Lets the aggregates of a statement ask for the order of what they read.
pub(super) fn ask_for_order(statement: &mut Ast) {
    let called = ast::visit_expressions(&*statement, |expr| match unordered(expr) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    if called.is_break() {
        let _all = VisitMut::visit(statement, &mut Selects);
    }
}

/// Whether an expression is a call that keeps the order of its rows and names none.
fn unordered(expr: &Expr) -> bool {
    let Expr::Function(Function { name, args: FunctionArguments::List(list), over: None, within_group, .. }) = expr
    else {
        return false;
    };
    let [ObjectNamePart::Identifier(function)] = name.0.as_slice() else { return false };
    let has_order = list.clauses.iter().any(|clause| matches!(clause, FunctionArgumentClause::OrderBy(_)));
    // DISTINCT has an order of its own.
    let is_plain = !has_order && list.duplicate_treatment.is_none() && within_group.is_empty();
    is_plain && KEEP_ORDER.iter().any(|known| function.value.eq_ignore_ascii_case(known))
}

/// Lets a call that names no order ask for this one.
fn ask(expr: &mut Expr, order: &[OrderByExpr]) {
    if unordered(expr)
        && let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = expr
    {
        list.clauses.push(FunctionArgumentClause::OrderBy(order.to_vec()));
    }
}

struct Selects;

impl VisitorMut for Selects {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let mut found = false;
        visit_own(&mut select.projection, |expr| found |= unordered(expr));
        if let Some(order) = if found { order_below(select) } else { None } {
            visit_own(&mut select.projection, |expr| ask(expr, &order));
        }
        ControlFlow::Continue(())
    }
}

/// The order of the one query that a SELECT reads, in terms of its columns; it gives more of them where that takes them.
fn order_below(select: &mut Select) -> Option<Vec<OrderByExpr>> {
    let [from] = select.from.as_mut_slice() else { return None };
    let TableFactor::Derived { subquery, alias: Some(alias), .. } = &mut from.relation else { return None };
    let Query { body, order_by: Some(OrderBy { kind: OrderByKind::Expressions(keys), .. }), .. } = subquery.as_mut()
    else {
        return None;
    };
    if !from.joins.is_empty() || keys.is_empty() {
        return None;
    }
    let is_select = matches!(body.as_ref(), SetExpr::Select(_));
    let inner = first_select(body)?;
    let mut hidden = Vec::new();
    let mut order = Vec::new();
    for key in keys.iter() {
        let column = match output(&key.expr, &inner.projection) {
            // Another name may have been given to it from outside.
            Some(at) => match alias.columns.get(at) {
                Some(renamed) => renamed.name.clone(),
                None => output_name(inner.projection.get(at)?)?,
            },
            // What is distinct, and what several queries give, is ordered by what it gives.
            None if inner.distinct.is_some() || !is_select => return None,
            None => {
                let name = Ident::new(format!("{HIDDEN}{}", hidden.len() + 1));
                hidden.push(SelectItem::ExprWithAlias { expr: key.expr.clone(), alias: name.clone() });
                name
            }
        };
        let expr = Expr::CompoundIdentifier(vec![alias.name.clone(), column]);
        order.push(OrderByExpr { expr, ..key.clone() });
    }
    if !hidden.is_empty() && !alias.columns.is_empty() {
        // Whoever names columns names all of them.
        let given = inner.projection.iter().skip(alias.columns.len()).chain(&hidden).map(output_name);
        let given = given.collect::<Option<Vec<_>>>()?.into_iter();
        alias.columns.extend(given.map(|name| TableAliasColumnDef { name, data_type: None }));
    }
    inner.projection.extend(hidden);
    Some(order)
}

/// The query that names the columns of several.
fn first_select(body: &mut SetExpr) -> Option<&mut Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::SetOperation { left, .. } => first_select(left),
        SetExpr::Query(query) => first_select(&mut query.body),
        _ => None,
    }
}

/// Which item of a SELECT list an ORDER BY key is.
fn output(key: &Expr, items: &[SelectItem]) -> Option<usize> {
    // Behind `*` nobody knows how many columns came before.
    if items.iter().any(|item| !matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. })) {
        return None;
    }
    if let Expr::Value(value) = key
        && let Value::Number(number, _) = &value.value
    {
        return number.parse::<usize>().ok()?.checked_sub(1).filter(|at| *at < items.len());
    }
    let is_named =
        |item: &SelectItem, name: &Ident| output_name(item).is_some_and(|known| folded(&known) == folded(name));
    let by_name = match key {
        Expr::Identifier(name) => items.iter().position(|item| is_named(item, name)),
        _ => None,
    };
    let is_it = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => expr == key,
        _ => false,
    };
    by_name.or_else(|| items.iter().position(is_it)).filter(|at| items.get(*at).and_then(output_name).is_some())
}

fn output_name(item: &SelectItem) -> Option<Ident> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.clone()),
        SelectItem::UnnamedExpr(expr) => name_of(expr).map(|name| Ident::with_quote('"', name)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::statement;

    fn check(sql: &str, expected: &str) {
        let parsed = statement::parse(sql).expect("valid").remove(0);
        let mut ast = parsed.ast.expect("not empty").as_ref().clone();
        ask_for_order(&mut ast);
        assert_eq!(ast.to_string(), expected, "{sql}");
    }

    #[test]
    fn aggregates_ask_for_the_order_below() {
        check(
            "SELECT array_agg(x), count(*) FROM (SELECT x FROM t ORDER BY x DESC NULLS LAST) AS s",
            "SELECT array_agg(x ORDER BY s.\"x\" DESC NULLS LAST), count(*) FROM (SELECT x FROM t ORDER BY x DESC NULLS LAST) AS s",
        );
        check(
            "SELECT string_agg(x, ',') FROM (SELECT x, y + 1 AS z FROM t ORDER BY 2, y + 1, ts LIMIT 3) AS s (a)",
            "SELECT string_agg(x, ',' ORDER BY s.z, s.z, s.annal_order_1) FROM (SELECT x, y + 1 AS z, ts AS annal_order_1 FROM t ORDER BY 2, y + 1, ts LIMIT 3) AS s (a, z, annal_order_1)",
        );
        check(
            "SELECT array_agg(x) FROM (SELECT x FROM t UNION SELECT y FROM u ORDER BY 1) AS s",
            "SELECT array_agg(x ORDER BY s.\"x\") FROM (SELECT x FROM t UNION SELECT y FROM u ORDER BY 1) AS s",
        );
        check(
            "SELECT json_agg(x) FROM (SELECT * FROM t ORDER BY t.ts) AS s",
            "SELECT json_agg(x ORDER BY s.annal_order_1) FROM (SELECT *, t.ts AS annal_order_1 FROM t ORDER BY t.ts) AS s",
        );
    }

    #[test]
    fn others_stay() {
        for sql in [
            "SELECT array_agg(x ORDER BY y) FROM (SELECT x, y FROM t ORDER BY x) AS s",
            "SELECT array_agg(DISTINCT x) FROM (SELECT x FROM t ORDER BY x DESC) AS s",
            "SELECT array_agg(x) FROM (SELECT x FROM t) AS s",
            "SELECT array_agg(x) FROM (SELECT DISTINCT x FROM t ORDER BY -x) AS s",
            "SELECT max(x), (SELECT array_agg(y) FROM t) FROM (SELECT x FROM t ORDER BY x) AS s",
        ] {
            check(sql, sql);
        }
    }
}
