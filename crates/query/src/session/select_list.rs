//! What PostgreSQL allows in the list of a SELECT and the planner does not: a series as a column.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType as SqlType, Expr, Function, FunctionArguments, GroupByExpr, Query, Select, SelectItem, VisitMut,
    VisitorMut,
};

use super::insert::{call, parse_expression};
use super::names::{are_integers, series_of_times};
use super::timescale::is_named;

const SERIES: &str = "generate_series";
const UNNEST: &str = "unnest";

/// `generate_series(1, 3)` as `unnest(generate_series(1, 3))`, since the function gives an array outside of FROM. Nothing else is touched.
pub(super) fn rewrite(part: &mut impl VisitMut) {
    let _all = part.visit(&mut Lists);
}

struct Lists;

impl VisitorMut for Lists {
    type Break = ();

    // Those inside come first, so that the text of a subquery is final when it is moved.
    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                expr.visit(&mut Item::default())?;
            }
        }
        ControlFlow::Continue(())
    }
}

/// One column of the list; its subqueries have lists of their own.
#[derive(Default)]
struct Item {
    subqueries: usize,
    unnested: usize,
}

impl VisitorMut for Item {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.subqueries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.subqueries -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        self.unnested += usize::from(is_call_of(expr, UNNEST));
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        self.unnested -= usize::from(is_call_of(expr, UNNEST));
        if self.subqueries > 0 {
            return ControlFlow::Continue(());
        }
        let rewritten = match expr {
            Expr::Function(function) if self.unnested == 0 => rows_of(function),
            _ => None,
        };
        if let Some(rewritten) = rewritten {
            *expr = rewritten;
        }
        ControlFlow::Continue(())
    }
}

fn is_call_of(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Function(function) if is_named(&function.name, name))
}

/// A call that gives rows, as one that unnests an array.
fn rows_of(function: &Function) -> Option<Expr> {
    if is_named(&function.name, SERIES) {
        return series(function);
    }
    let FunctionArguments::List(list) = &function.args else { return None };
    let arguments: Vec<String> = list.args.iter().map(ToString::to_string).collect();
    let text = match arguments.as_slice() {
        [_, _] | [_, _, _] if is_named(&function.name, "string_to_table") => {
            format!("{UNNEST}(string_to_array({}))", arguments.join(", "))
        }
        [array, dimension] if is_named(&function.name, "generate_subscripts") && dimension == "1" => {
            format!("CAST({UNNEST}({SERIES}(1, cardinality({array}))) AS integer)")
        }
        _ => return None,
    };
    parse_expression(&text).ok()
}

/// Between integers its values are integers.
fn series(function: &Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let array = match series_of_times(SERIES, &list.args) {
        Some(text) => parse_expression(&text).ok()?,
        None => Expr::Function(function.clone()),
    };
    let rows = Box::new(call(UNNEST, vec![array]));
    if !are_integers(&list.args) {
        return Some(*rows);
    }
    Some(Expr::Cast { kind: CastKind::Cast, expr: rows, data_type: SqlType::Integer(None), array: false, format: None })
}

/// Whether a query gives a row for each that it finds, but for a LIMIT.
pub(super) fn is_flat(query: &Query, select: &Select) -> bool {
    let ungrouped =
        matches!(&select.group_by, GroupByExpr::Expressions(by, others) if by.is_empty() && others.is_empty());
    let whole = query.with.is_none() && query.fetch.is_none();
    whole && ungrouped && select.distinct.is_none() && select.having.is_none()
}

#[cfg(test)]
mod tests {
    use crate::session::statement;

    fn check(sql: &str, expected: &str) {
        let parsed = statement::parse(sql).expect("valid").remove(0);
        let mut ast = parsed.ast.expect("not empty").as_ref().clone();
        super::rewrite(&mut ast);
        super::rewrite(&mut ast);
        assert_eq!(ast.to_string(), expected, "{sql}");
    }

    #[test]
    fn a_series_is_rows_and_only_once() {
        check(
            "SELECT 1 + generate_series(1, 3) AS n",
            "SELECT 1 + CAST(unnest(generate_series(1, 3)) AS INTEGER) AS n",
        );
        check("SELECT generate_series(a, b) FROM t", "SELECT unnest(generate_series(a, b)) FROM t");
        check("SELECT unnest(generate_series(a, b)) FROM t", "SELECT unnest(generate_series(a, b)) FROM t");
        check(
            "SELECT (SELECT max(x) FROM unnest(array[1]) AS u (x))",
            "SELECT (SELECT max(x) FROM UNNEST(ARRAY[1]) AS u (x))",
        );
    }
}
