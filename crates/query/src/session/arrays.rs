//! `ARRAY(SELECT x FROM t ORDER BY y)`: what a subquery gives as an array, an empty one where it gives nothing. The planner knows the aggregate alone.
//!
//! `ARRAY[d.low, d.high]`: the planner reads the elements as if no query stood around the one that they are in, and finds no `d` there. The arguments
//! of a function it reads as anything else.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Expr, Function, FunctionArguments, OrderBy, OrderByExpr, OrderByKind, Query, SelectItem, SetExpr,
    Statement as Ast, Value, VisitMut, VisitorMut,
};

use super::insert::{call, parse_expression};
use super::names::folded;
use super::select_list::is_flat;
use crate::functions::OR_EMPTY;

/// The rows of such a subquery.
const ROWS: &str = "annal_array";
/// The function that an array is.
const ARRAY: &str = "make_array";

/// Writes them with the aggregate, and arrays of columns as calls. The columns of the statement are named already, and aggregates have not yet asked for the order of what they read.
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
        if let Expr::Array(array) = expr
            && array.elem.iter().any(names_columns)
            // A text that is written is read as what stands beside it, and there alone.
            && !array.elem.iter().any(is_text)
        {
            *expr = call(ARRAY, std::mem::take(&mut array.elem));
        }
        ControlFlow::Continue(())
    }
}

fn names_columns(element: &Expr) -> bool {
    let named = ast::visit_expressions(element, |part| match part {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    named.is_break()
}

fn is_text(element: &Expr) -> bool {
    matches!(element, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)))
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
    }

    #[test]
    fn arrays_of_columns_are_calls() {
        check("SELECT ARRAY[a, t.b + 1]", "SELECT make_array(a, t.b + 1)");
        check(
            "SELECT (SELECT max(x) FROM UNNEST(ARRAY[d.a]) AS x)",
            "SELECT (SELECT max(x) FROM LATERAL (SELECT unnest(make_array(d.a)) AS x) AS x (x))",
        );
        for sql in ["SELECT ARRAY[1, 2]", "SELECT ARRAY[ts, '2024-01-01']"] {
            check(sql, sql);
        }
    }
}
