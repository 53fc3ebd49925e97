//! Subqueries of tools' queries, as aggregates that can be planned, and lists that are always empty.
//!
//! Only for statements about the catalog, where a scalar subquery looks up one row: its value is then also the greatest.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Query, Select, SelectItem, SetExpr,
    VisitorMut,
};

use crate::session::insert::parse_expression;

/// Aggregates that a subquery may have already.
const AGGREGATES: [&str; 7] = ["array_agg", "bool_and", "bool_or", "count", "max", "min", "string_agg"];
/// Columns that list options and privileges: there are none.
const EMPTY_LISTS: [&str; 2] = ["reloptions", "acl"];

/// See the module.
pub(super) struct Subqueries;

impl VisitorMut for Subqueries {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let planned = match expr {
            Expr::Function(function) => empty_list(function).or_else(|| array(function)),
            Expr::Subquery(query) => looked_up(query),
            _ => None,
        };
        if let Some(planned) = planned {
            *expr = planned;
        }
        ControlFlow::Continue(())
    }
}

/// `array_to_string(c.reloptions …, ', ')` and the like: NULL, as PostgreSQL has it where nothing is said.
fn empty_list(function: &Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(first)) = list.args.first()? else { return None };
    let is_list = |name: &str| EMPTY_LISTS.iter().any(|list| name.to_lowercase().ends_with(list));
    let named = match leftmost(first) {
        Expr::Identifier(column) => is_list(&column.value),
        Expr::CompoundIdentifier(parts) => parts.last().is_some_and(|column| is_list(&column.value)),
        _ => false,
    };
    let joins = last_name(function) == "array_to_string";
    (joins && named).then(|| parse_expression("CAST(NULL AS text)").ok()).flatten()
}

fn leftmost(expr: &Expr) -> &Expr {
    match expr {
        Expr::BinaryOp { left, .. } => leftmost(left),
        expr => expr,
    }
}

/// `ARRAY(SELECT x FROM …)`.
fn array(function: &Function) -> Option<Expr> {
    let FunctionArguments::Subquery(query) = &function.args else { return None };
    if last_name(function) != "array" {
        return None;
    }
    let mut query = query.clone();
    let order = query.order_by.take().map(|order| format!(" {order}")).unwrap_or_default();
    let value = only_value(&query)?.to_string();
    // `ORDER BY 1` is by the value.
    let order = order.replace(" BY 1", &format!(" BY {value}"));
    replace_value(&mut query, &format!("array_agg({value}{order})"))?;
    parse_expression(&format!("coalesce(({query}), make_array())")).ok()
}

/// A scalar subquery without aggregate, over rows of which at most one is meant.
fn looked_up(query: &Query) -> Option<Expr> {
    let value = only_value(query)?.to_string();
    let text = value.to_lowercase();
    if AGGREGATES.iter().any(|aggregate| text.contains(&format!("{aggregate}("))) {
        return None;
    }
    let mut query = query.clone();
    query.order_by = None;
    replace_value(&mut query, &format!("max({value})"))?;
    Some(Expr::Subquery(Box::new(query)))
}

fn last_name(function: &Function) -> String {
    let name = function.name.0.last().and_then(|part| part.as_ident());
    name.map(|name| name.value.to_lowercase()).unwrap_or_default()
}

/// The one expression of a plain SELECT over rows.
fn only_value(query: &Query) -> Option<&Expr> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let Select { projection, from, distinct: None, group_by: GroupByExpr::Expressions(groups, _), .. } =
        select.as_ref()
    else {
        return None;
    };
    match projection.as_slice() {
        [SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }]
            if groups.is_empty() && !from.is_empty() && query.limit_clause.is_none() =>
        {
            Some(value)
        }
        _ => None,
    }
}

fn replace_value(query: &mut Query, text: &str) -> Option<()> {
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    select.projection = vec![SelectItem::UnnamedExpr(parse_expression(text).ok()?)];
    Some(())
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::ast::VisitMut;

    use super::*;

    fn rewritten(sql: &str) -> String {
        let statement = crate::session::statement::parse(sql).unwrap().remove(0);
        let mut ast = statement.ast.unwrap().as_ref().clone();
        let _ = VisitMut::visit(&mut ast, &mut Subqueries);
        ast.to_string()
    }

    #[test]
    fn subqueries_become_aggregates() {
        assert_eq!(
            rewritten(
                "SELECT r.rolname, ARRAY(SELECT b.rolname FROM m JOIN b ON m.roleid = b.oid WHERE m.member = r.oid ORDER BY 1) AS memberof FROM r"
            ),
            "SELECT r.rolname, coalesce((SELECT array_agg(b.rolname ORDER BY b.rolname) FROM m JOIN b ON m.roleid = b.oid WHERE m.member = r.oid), make_array()) AS memberof FROM r"
        );
        assert_eq!(
            rewritten("SELECT 1 FROM t WHERE t.r = 0 OR (SELECT c.k = 'c' FROM c WHERE c.oid = t.r)"),
            "SELECT 1 FROM t WHERE t.r = 0 OR (SELECT max(c.k = 'c') FROM c WHERE c.oid = t.r)"
        );
    }

    #[test]
    fn what_can_be_planned_stays() {
        for sql in [
            "SELECT (SELECT count(*) FROM c WHERE c.oid = t.r) FROM t",
            "SELECT (SELECT c.a FROM c LIMIT 1)",
            "SELECT (SELECT 1)",
            "SELECT array_to_string(names, ', ') FROM t",
        ] {
            assert_eq!(rewritten(sql), sql);
        }
    }

    #[test]
    fn there_are_no_options_and_no_privileges() {
        assert_eq!(
            rewritten(
                "SELECT pg_catalog.array_to_string(c.reloptions || array(SELECT x FROM u), ', '), array_to_string(relacl, ',') FROM c"
            ),
            "SELECT CAST(NULL AS TEXT), CAST(NULL AS TEXT) FROM c"
        );
    }
}
