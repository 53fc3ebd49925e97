//! Subqueries that the planner takes for something else.
//!
//! - `(SELECT id FROM t WHERE …)` without a row is NULL, though `id` never is; the planner believes the column.
//! - `VALUES ((SELECT …))`: a row of VALUES is computed before subqueries are. So the rows become queries.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Expr, Query, SelectItem, SetExpr, Statement as Ast, Values, VisitMut, VisitorMut,
};

use super::insert::{call, parse_expression};
use super::names::{folded, name_of};
use crate::functions::MAYBE;

/// What stands before the name of a value that is sorted by a column of the same name.
const APART: &str = "annal_";

/// Says what they are. The columns of the statement are named already.
pub(super) fn settle(statement: &mut Ast) {
    let _all = VisitMut::visit(statement, &mut Subqueries);
}

struct Subqueries;

impl VisitorMut for Subqueries {
    type Break = ();

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let SetExpr::Values(values) = query.body.as_ref()
            && let Some(rows) = as_queries(values)
        {
            query.body = rows;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Subquery(query) = expr {
            may_be_absent(query);
        }
        ControlFlow::Continue(())
    }
}

/// A column that a scalar subquery gives may be NULL. What functions give says so itself, and an aggregate without a row has a value.
fn may_be_absent(query: &mut Query) {
    let order = query.order_by.clone();
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let [item] = select.projection.as_mut_slice() else { return };
    let (value, alias) = match item {
        SelectItem::UnnamedExpr(value) => (value.clone(), None),
        SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), Some(alias.clone())),
        _ => return,
    };
    let calls = ast::visit_expressions(&value, |part| match part {
        Expr::Function(_) | Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    if calls.is_break() || select.from.is_empty() {
        return;
    }
    let named = || {
        let name = name_of(&value).unwrap_or_else(|| "?column?".to_owned());
        // The planner would not tell the two apart.
        let is_sorted_by = order.as_ref().is_some_and(|order| names_in_table(order, &name));
        ast::Ident::with_quote('"', if is_sorted_by { format!("{APART}{name}") } else { name })
    };
    *item = SelectItem::ExprWithAlias { alias: alias.unwrap_or_else(named), expr: call(MAYBE, vec![value]) };
}

/// Whether ORDER BY names a column of a table that is called so.
fn names_in_table(order: &ast::OrderBy, name: &str) -> bool {
    let named = ast::visit_expressions(order, |part| match part {
        Expr::CompoundIdentifier(parts) if parts.last().is_some_and(|last| folded(last) == name) => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    named.is_break()
}

/// The rows of VALUES, each a query; `None` when none has a subquery.
fn as_queries(values: &Values) -> Option<Box<SetExpr>> {
    let has_subquery = ast::visit_expressions(&values.rows, |part| match part {
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    let cells = || values.rows.iter().flat_map(|row| row.iter());
    let is_default = |cell: &Expr| matches!(cell, Expr::Identifier(name) if name.value.eq_ignore_ascii_case("default"));
    if has_subquery.is_continue() || cells().any(is_default) {
        return None;
    }
    let row = |row: &[Expr]| {
        let cells: Vec<String> = (1..).zip(row).map(|(number, cell)| format!("{cell} AS column{number}")).collect();
        format!("SELECT {}", cells.join(", "))
    };
    let rows: Vec<String> = values.rows.iter().map(|cells| row(cells)).collect();
    match parse_expression(&format!("({})", rows.join(" UNION ALL "))) {
        Ok(Expr::Subquery(query)) => Some(query.body),
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
        settle(&mut ast);
        assert_eq!(ast.to_string(), expected, "{sql}");
    }

    #[test]
    fn subqueries_are_what_they_are() {
        check(
            "SELECT (SELECT id FROM t WHERE id = 9), (SELECT count(*) FROM t)",
            "SELECT (SELECT annal_maybe(id) AS \"id\" FROM t WHERE id = 9), (SELECT count(*) FROM t)",
        );
        check(
            "INSERT INTO t VALUES (1, (SELECT max(x) FROM t)), (2, 3)",
            "INSERT INTO t SELECT 1 AS column1, (SELECT max(x) FROM t) AS column2 UNION ALL SELECT 2 AS column1, 3 AS column2",
        );
        check(
            "SELECT (SELECT a.id FROM t AS a ORDER BY a.id LIMIT 1)",
            "SELECT (SELECT annal_maybe(a.id) AS \"annal_id\" FROM t AS a ORDER BY a.id LIMIT 1)",
        );
        check("SELECT * FROM (VALUES (1, 2)) AS v", "SELECT * FROM (VALUES (1, 2)) AS v");
    }
}
