//! TimescaleDB's functions whose arguments have names, or that give rows, in a form that can be planned: `show_chunks(...)` as
//! `unnest(annal_chunks(...))`, in FROM and as a column of a SELECT, and `create_hypertable(...)` with its arguments in order.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, ObjectNamePart, Query,
    SelectItem, SetExpr, Statement as Ast, TableAlias, TableAliasColumnDef, TableFactor, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::pg_catalog::HYPERTABLE;
use crate::functions::CHUNKS;

const SHOW_CHUNKS: &str = "show_chunks";
const CREATE_HYPERTABLE: &str = "create_hypertable";

/// Rewrites the calls of a statement. One with arguments that it does not have stays, and is not found.
pub(super) fn rewrite_calls(statement: &mut Ast) {
    let _all = VisitMut::visit(statement, &mut Calls);
}

struct Calls;

impl VisitorMut for Calls {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        in_body(&mut query.body);
        ControlFlow::Continue(())
    }

    // One that gives a value may stand anywhere.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = expr
            && is_named(name, CREATE_HYPERTABLE)
            && let Some(call) = hypertable(&list.args)
        {
            *expr = call;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, alias, args: Some(arguments), with_ordinality, .. } = factor
            && is_named(name, SHOW_CHUNKS)
            && let Some(call) = chunks(&arguments.args)
        {
            let plain = || TableAlias { explicit: true, name: Ident::new(SHOW_CHUNKS), columns: vec![], at: None };
            let mut alias = alias.take().unwrap_or_else(plain);
            if alias.columns.is_empty() {
                alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
            }
            *factor = TableFactor::UNNEST {
                alias: Some(alias),
                array_exprs: vec![call],
                with_offset: false,
                with_offset_alias: None,
                with_ordinality: *with_ordinality,
            };
        }
        ControlFlow::Continue(())
    }
}

fn in_body(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            for item in &mut select.projection {
                let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { continue };
                let Some((rewritten, name)) = rewritten(expr) else { continue };
                *expr = rewritten.clone();
                if matches!(item, SelectItem::UnnamedExpr(_)) {
                    *item = SelectItem::ExprWithAlias { expr: rewritten, alias: Ident::new(name) };
                }
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            in_body(left);
            in_body(right);
        }
        _ => {}
    }
}

/// What takes the place of a call, and the name of its column.
fn rewritten(expr: &Expr) -> Option<(Expr, &'static str)> {
    let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = expr else { return None };
    if is_named(name, SHOW_CHUNKS) {
        return Some((parsed(&format!("unnest({})", chunks(&list.args)?))?, SHOW_CHUNKS));
    }
    if is_named(name, CREATE_HYPERTABLE) {
        return Some((hypertable(&list.args)?, CREATE_HYPERTABLE));
    }
    None
}

/// Whether a name without a schema is this one, in whatever letters.
pub(super) fn is_named(name: &ObjectName, wanted: &str) -> bool {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(name)] => name.value.eq_ignore_ascii_case(wanted),
        _ => false,
    }
}

fn chunks(arguments: &[FunctionArg]) -> Option<Expr> {
    let [table, older_than, newer_than] = in_order(arguments, ["relation", "older_than", "newer_than"], &[])?;
    parsed(&format!("{CHUNKS}({}, {}, {})", table?, bound(older_than), bound(newer_than)))
}

/// The second argument is the time column, or `by_range(column [, interval])`.
fn hypertable(arguments: &[FunctionArg]) -> Option<Expr> {
    const NAMES: [&str; 3] = ["relation", "time_column_name", "chunk_time_interval"];
    // There are no indexes, and rows that are there need not move.
    const MEANINGLESS: [&str; 4] = ["if_not_exists", "migrate_data", "create_default_indexes", "dimension"];
    let [table, column, width] = in_order(arguments, NAMES, &MEANINGLESS)?;
    let (column, width) = match column {
        Some(Expr::Function(Function { name, args: FunctionArguments::List(list), .. }))
            if is_named(name, "by_range") =>
        {
            let [column, width] = in_order(&list.args, ["column_name", "partition_interval"], &["partition_func"])?;
            (column?, width)
        }
        column => (column?, width),
    };
    parsed(&format!("{HYPERTABLE}({}, {column}, {})", table?, or_null(width)))
}

/// The arguments that have these names, or stand at their places; `None` when there is one that has none of them, nor of `meaningless`.
fn in_order<'a, const N: usize>(
    arguments: &'a [FunctionArg],
    names: [&str; N],
    meaningless: &[&str],
) -> Option<[Option<&'a Expr>; N]> {
    let mut given: [Option<&Expr>; N] = [None; N];
    for (at, argument) in arguments.iter().enumerate() {
        let (name, argument) = match argument {
            FunctionArg::Unnamed(argument) => (*names.get(at)?, argument),
            FunctionArg::Named { name, arg, .. } => (name.value.as_str(), arg),
            FunctionArg::ExprNamed { name: Expr::Identifier(name), arg, .. } => (name.value.as_str(), arg),
            FunctionArg::ExprNamed { .. } => return None,
        };
        if meaningless.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            continue;
        }
        let FunctionArgExpr::Expr(expr) = argument else { return None };
        let place = names.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        if given[place].replace(expr).is_some() {
            return None;
        }
    }
    Some(given)
}

/// A bound that is not said to be anything else is a time.
fn bound(expr: Option<&Expr>) -> String {
    match expr {
        Some(Expr::Value(text)) if matches!(text.value, Value::SingleQuotedString(_)) => {
            format!("CAST({text} AS timestamptz)")
        }
        expr => or_null(expr).to_string(),
    }
}

fn or_null(expr: Option<&Expr>) -> Expr {
    expr.cloned().unwrap_or_else(|| Expr::Value(Value::Null.into()))
}

fn parsed(text: &str) -> Option<Expr> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(text).and_then(|mut parser| parser.parse_expr()).ok()
}

#[cfg(test)]
mod tests {
    use crate::session::statement;

    fn check(sql: &str, expected: &str) {
        let ast = statement::parse(sql).expect("valid").remove(0).ast.expect("not empty");
        assert_eq!(ast.to_string(), expected);
    }

    #[test]
    fn show_chunks_gives_rows() {
        check("select show_chunks('t')", "SELECT unnest(annal_chunks('t', NULL, NULL)) AS show_chunks");
        check(
            "select c from show_chunks('t', newer_than => now(), older_than => '2013-01-01') as c",
            "SELECT c FROM UNNEST(annal_chunks('t', CAST('2013-01-01' AS TIMESTAMPTZ), now())) AS c (c)",
        );
        check(
            "select * from show_chunks('t')",
            "SELECT * FROM UNNEST(annal_chunks('t', NULL, NULL)) AS show_chunks (show_chunks)",
        );
        check("select show_chunks()", "SELECT show_chunks()");
        check("select show_chunks('t', nosuch => 1)", "SELECT show_chunks('t', nosuch => 1)");
    }

    #[test]
    fn create_hypertable_in_both_its_forms() {
        let named = "AS create_hypertable";
        check(
            "select create_hypertable('t', 'ts', if_not_exists => true)",
            &format!("SELECT annal_hypertable('t', 'ts', NULL) {named}"),
        );
        check(
            "select create_hypertable('t', by_range('ts', interval '1 day'))",
            &format!("SELECT annal_hypertable('t', 'ts', CAST('1 day' AS INTERVAL)) {named}"),
        );
        check(
            "select create_hypertable('t', 'ts', chunk_time_interval => 5) as h",
            "SELECT annal_hypertable('t', 'ts', 5) AS h",
        );
        check("select create_hypertable('t')", "SELECT create_hypertable('t')");
    }
}
