//! Expressions that differ in casts alone are told apart: `avg(k)` and `avg(k::bigint)`, or GROUP BY `k` and `k::text`.
//!
//! The planner names what it groups by and aggregates after the expressions, and leaves casts out of the names. Where two names would be
//! one, casts go through a function that says the type; optimizing takes it away ([`crate::functions::cast_named`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Expr, GroupByExpr, Query, SelectItem, SetExpr, Statement as Ast, Value, Visit, VisitMut, Visitor, VisitorMut,
};

use super::insert::call;
use crate::functions::CAST_NAMED;

/// Rewrites the queries of a statement in which two such expressions meet.
pub(super) fn tell_apart(statement: &mut Ast) {
    let has_casts = ast::visit_expressions(&*statement, |expr| match expr {
        Expr::Cast { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    if has_casts.is_break() {
        let _all = VisitMut::visit(statement, &mut Queries);
    }
}

struct Queries;

impl VisitorMut for Queries {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let alike = alike(query);
        if !alike.is_empty() {
            let _all = VisitMut::visit(query, &mut Named(&alike));
        }
        ControlFlow::Continue(())
    }
}

/// The texts of function calls, and of what is grouped by, that are one without their casts.
fn alike(query: &Query) -> BTreeSet<String> {
    let mut seen = Seen::default();
    let _all = query.visit(&mut seen);
    if let SetExpr::Select(select) = query.body.as_ref()
        && let GroupByExpr::Expressions(grouped, _) = &select.group_by
        && !grouped.is_empty()
    {
        grouped.iter().for_each(|expr| seen.add(expr));
        for item in &select.projection {
            // GROUP BY may name it by its number.
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                seen.add(expr);
            }
        }
    }
    seen.0.into_values().filter(|texts| texts.len() > 1).flatten().collect()
}

/// Texts by what is left of them without casts and qualifiers.
#[derive(Default)]
struct Seen(BTreeMap<String, BTreeSet<String>>);

impl Seen {
    fn add(&mut self, expr: &Expr) {
        let mut plain = expr.clone();
        let _all = VisitMut::visit(&mut plain, &mut WithoutCasts);
        self.0.entry(plain.to_string().to_lowercase()).or_default().insert(expr.to_string());
    }
}

impl Visitor for Seen {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if matches!(expr, Expr::Function(_)) {
            self.add(expr);
        }
        ControlFlow::Continue(())
    }
}

struct WithoutCasts;

impl VisitorMut for WithoutCasts {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Cast { expr: inner, .. } | Expr::Nested(inner) => *expr = inner.as_ref().clone(),
            Expr::CompoundIdentifier(parts) => {
                if let Some(last) = parts.pop() {
                    *expr = Expr::Identifier(last);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Names the casts of expressions with these texts.
struct Named<'a>(&'a BTreeSet<String>);

impl VisitorMut for Named<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.0.contains(&expr.to_string()) {
            let _all = VisitMut::visit(expr, &mut NameCasts);
        }
        ControlFlow::Continue(())
    }
}

struct NameCasts;

impl VisitorMut for NameCasts {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { data_type, .. } = expr {
            let name = Expr::Value(Value::SingleQuotedString(data_type.to_string()).into());
            *expr = call(CAST_NAMED, vec![expr.clone(), name]);
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::statement;

    fn check(sql: &str, expected: &str) {
        let mut ast = statement::parse(sql).expect("valid").remove(0).ast.expect("not empty").as_ref().clone();
        tell_apart(&mut ast);
        assert_eq!(ast.to_string(), expected);
    }

    #[test]
    fn casts_are_named_where_they_make_a_difference() {
        check("SELECT avg(k::bigint) FROM t", "SELECT avg(k::BIGINT) FROM t");
        check("SELECT avg(k), avg(t.k::bigint) FROM t", "SELECT avg(k), avg(annal_cast(t.k::BIGINT, 'BIGINT')) FROM t");
        check(
            "SELECT k::text, count(*) FROM t GROUP BY k::text, k",
            "SELECT annal_cast(k::TEXT, 'TEXT'), count(*) FROM t GROUP BY annal_cast(k::TEXT, 'TEXT'), k",
        );
        check("SELECT k, k::text FROM t", "SELECT k, k::TEXT FROM t");
        check(
            "SELECT 1 FROM (SELECT sum(a::int), sum(a::bigint) FROM t) AS s",
            "SELECT 1 FROM (SELECT sum(annal_cast(a::INT, 'INT')), sum(annal_cast(a::BIGINT, 'BIGINT')) FROM t) AS s",
        );
    }
}
