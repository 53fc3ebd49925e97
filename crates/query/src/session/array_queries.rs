//! `ARRAY(SELECT x FROM t ORDER BY y)`: what a subquery gives as an array, an empty one where it gives nothing. The planner knows the aggregate alone.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Expr, Function, FunctionArguments, OrderBy, OrderByExpr, OrderByKind, Query, SelectItem, SetExpr,
    Statement as Ast, Value, VisitMut, VisitorMut,
};

use super::insert::parse_expression;
use super::names::folded;
use super::select_list::is_flat;
use crate::functions::OR_EMPTY;

/// The rows of such a subquery.
const ROWS: &str = "annal_array";

/// Writes them with the aggregate. The columns of the statement are named already, and aggregates have not yet asked for the order of what they read.
pub(super) fn spell_out(statement: &mut Ast) {
    let _all = VisitMut::visit(statement, &mut Arrays);
}

struct Arrays;

impl VisitorMut for Arrays {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(Function { name, args: FunctionArguments::Subquery(query), .. }) = expr
            && name.to_string().eq_ignore_ascii_case("array")
        {
            let collected = collected(query)
                .unwrap_or_else(|| format!("SELECT array_agg({ROWS}.annal_1) FROM ({query}) AS {ROWS} (annal_1)"));
            if let Ok(array) = parse_expression(&format!("{OR_EMPTY}(({collected}))")) {
                *expr = array;
            }
        }
        ControlFlow::Continue(())
    }
}

/// The query with the aggregate in its list, where that is all there is to change: one that refers to the row around it must stay as flat as it is.
fn collected(query: &Query) -> Option<String> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let [item] = select.projection.as_slice() else { return None };
    let (value, alias) = match item {
        SelectItem::UnnamedExpr(value) => (value, None),
        SelectItem::ExprWithAlias { expr, alias } => (expr, Some(alias)),
        _ => return None,
    };
    let calls = ast::visit_expressions(value, |part| match part {
        Expr::Function(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    if !is_flat(query, select) || query.limit_clause.is_some() || calls.is_break() {
        return None;
    }
    let keys = match &query.order_by {
        None => Vec::new(),
        Some(OrderBy { kind: OrderByKind::Expressions(keys), .. }) => keys.clone(),
        Some(_) => return None,
    };
    let is_value = |key: &Expr| match key {
        Expr::Value(number) => matches!(&number.value, Value::Number(number, _) if number == "1"),
        Expr::Identifier(name) => alias.is_some_and(|alias| folded(alias) == folded(name)),
        _ => false,
    };
    let of_key = |key: &OrderByExpr| match is_value(&key.expr) {
        true => OrderByExpr { expr: value.clone(), ..key.clone() }.to_string(),
        false => key.to_string(),
    };
    let keys: Vec<String> = keys.iter().map(of_key).collect();
    let order = if keys.is_empty() { String::new() } else { format!(" ORDER BY {}", keys.join(", ")) };
    let mut query = query.clone();
    query.order_by = None;
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    let call = parse_expression(&format!("array_agg({value}{order})")).ok()?;
    select.projection = vec![SelectItem::UnnamedExpr(call)];
    Some(query.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::statement;

    fn check(sql: &str, expected: &str) {
        let parsed = statement::parse(sql).expect("valid").remove(0);
        let mut ast = parsed.ast.expect("not empty").as_ref().clone();
        spell_out(&mut ast);
        assert_eq!(ast.to_string(), expected, "{sql}");
    }

    #[test]
    fn subqueries_are_collected() {
        check(
            "SELECT ARRAY(SELECT u.x AS y FROM u WHERE u.id = t.id ORDER BY y DESC, u.z) FROM t",
            "SELECT annal_or_empty((SELECT array_agg(u.x ORDER BY u.x DESC, u.z) FROM u WHERE u.id = t.id)) FROM t",
        );
        check(
            "SELECT ARRAY(SELECT max(x) FROM u)",
            "SELECT annal_or_empty((SELECT array_agg(annal_array.annal_1) FROM (SELECT max(x) FROM u) AS annal_array (annal_1)))",
        );
        check("SELECT ARRAY[1, 2]", "SELECT ARRAY[1, 2]");
    }
}
