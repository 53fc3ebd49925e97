//! What PostgreSQL allows in the list of a SELECT and the planner does not: a series as a column, EXISTS, and IN with a subquery.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType as SqlType, Expr, Function, FunctionArguments, GroupByExpr, Query, Select, SelectItem, SetExpr,
    VisitMut, VisitorMut,
};

use super::insert::{call, parse_expression};
use super::names::{are_integers, series_of_times};
use super::timescale::is_named;

const SERIES: &str = "generate_series";
const UNNEST: &str = "unnest";
/// The rows of an IN that was written out.
const IN_ROWS: &str = "annal_rows_of_in";

/// `generate_series(1, 3)` as `unnest(generate_series(1, 3))`, since the function gives an array outside of FROM; `EXISTS (SELECT ...)` as
/// `(SELECT count(*) ...) > 0`, since only a condition may be a semi-join, and `x IN (SELECT ...)` likewise. Nothing else is touched.
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
            Expr::Exists { subquery, negated } => exists(subquery, *negated),
            Expr::InSubquery { expr, subquery, negated } => is_in(expr, subquery, *negated),
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

/// True when one of the rows is equal; unknown when none is, but one might be. Each part is named three times, so one within another is left
/// alone: the statement would grow without bound.
fn is_in(expr: &Expr, subquery: &Query, negated: bool) -> Option<Expr> {
    let (expr, subquery) = (expr.to_string(), subquery.to_string());
    if expr.contains(IN_ROWS) || subquery.contains(IN_ROWS) {
        return None;
    }
    let count = |what: &str| format!("(SELECT count(*) FROM ({subquery}) AS {IN_ROWS} (annal_1){what})");
    let equal = count(&format!(" WHERE {IN_ROWS}.annal_1 = ({expr})"));
    let (found, not_found) = if negated { ("false", "true") } else { ("true", "false") };
    let text = format!(
        "(CASE WHEN {equal} > 0 THEN {found} WHEN {} = 0 THEN {not_found} WHEN ({expr}) IS NULL OR {} > 0 THEN NULL ELSE {not_found} END)",
        count(""),
        count(&format!(" WHERE {IN_ROWS}.annal_1 IS NULL")),
    );
    parse_expression(&text).ok()
}

fn exists(subquery: &Query, negated: bool) -> Option<Expr> {
    let mut counted = subquery.clone();
    let operator = if negated { "=" } else { ">" };
    if !count_rows(&mut counted) {
        return parse_expression(&format!("((SELECT count(*) FROM ({subquery}) AS annal_exists) {operator} 0)")).ok();
    }
    parse_expression(&format!("(({counted}) {operator} 0)")).ok()
}

/// Whether a query gives a row for each that it finds, but for a LIMIT.
pub(super) fn is_flat(query: &Query, select: &Select) -> bool {
    let ungrouped =
        matches!(&select.group_by, GroupByExpr::Expressions(by, others) if by.is_empty() && others.is_empty());
    let whole = query.with.is_none() && query.fetch.is_none();
    whole && ungrouped && select.distinct.is_none() && select.having.is_none()
}

/// Makes a query that gives rows one that counts them, when nothing but its list has to change; one that refers to the row around it must stay
/// as flat as it is.
fn count_rows(query: &mut Query) -> bool {
    let flat = matches!(query.body.as_ref(), SetExpr::Select(select) if is_flat(query, select));
    let SetExpr::Select(select) = query.body.as_mut() else { return false };
    let plain = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
            matches!(expr, Expr::Value(_) | Expr::Identifier(_) | Expr::CompoundIdentifier(_))
        }
        SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => true,
        _ => false,
    };
    if !flat || query.limit_clause.is_some() || !select.projection.iter().all(plain) {
        return false;
    }
    let Ok(count) = parse_expression("count(*)") else { return false };
    select.projection = vec![SelectItem::UnnamedExpr(count)];
    query.order_by = None;
    true
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

    #[test]
    fn exists_counts() {
        check(
            "SELECT EXISTS (SELECT 1 FROM u WHERE u.id = t.id ORDER BY 1) AS e FROM t",
            "SELECT ((SELECT count(*) FROM u WHERE u.id = t.id) > 0) AS e FROM t",
        );
        check(
            "SELECT NOT EXISTS (SELECT max(x) FROM u) FROM t",
            "SELECT ((SELECT count(*) FROM (SELECT max(x) FROM u) AS annal_exists) = 0) FROM t",
        );
        check("SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u)", "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u)");
    }
}
