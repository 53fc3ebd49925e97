//! `row_to_json(t)`, `json_agg(t)`: a table of FROM, named where a value stands, is its whole row. The planner knows columns only, so the row is
//! spelled out, as far as the statement and the catalog tell which columns the table has; `row(1, 'x')` is spelled out likewise.

use std::ops::ControlFlow;

use arrow::datatypes::{DataType, Field};
use cluster::Catalog;
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Expr as Planned, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{
    self, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, ObjectNamePart, Query,
    Select, Statement as Ast, TableFactor, Value, VisitMut, VisitorMut,
};

use super::insert::call;
use super::names::{folded, shown_name};
use super::relations::{Columns, Relations, name_of_factor, relations, visit_own};
use crate::functions::json::ROW;
use crate::functions::row_text;

/// Functions of one value that take a row.
const TAKE_ROWS: [&str; 5] = ["row_to_json", "to_json", "to_jsonb", "json_agg", "jsonb_agg"];

/// Spells them out, in a statement whose columns are named already.
pub(super) fn spell_out(statement: &mut Ast, catalog: &Catalog) {
    // Most statements call none of them: to find out the columns costs more.
    let called = ast::visit_expressions(&*statement, |expr| match taker(expr) {
        Some(_) => ControlFlow::Break(()),
        None => ControlFlow::Continue(()),
    });
    if called.is_continue() {
        return;
    }
    let _all = VisitMut::visit(statement, &mut Queries(Relations::new(catalog)));
}

/// A plan that gives the text of each row that a column holds.
pub(super) fn shown(plan: LogicalPlan) -> Result<LogicalPlan> {
    let is_row = |field: &Field| matches!(field.data_type(), DataType::Struct(_));
    if !plan.schema().fields().iter().any(|field| is_row(field)) {
        return Ok(plan);
    }
    let shown = plan.schema().iter().map(|(table, field)| {
        let column = Planned::Column(Column::new(table.cloned(), field.name()));
        match is_row(field) {
            true => row_text(column).alias_qualified(table.cloned(), field.name()),
            false => column,
        }
    });
    let shown = shown.collect::<Vec<_>>();
    LogicalPlanBuilder::from(plan).project(shown)?.build()
}

/// The one of [`TAKE_ROWS`] that an expression calls.
fn taker(expr: &Expr) -> Option<&'static str> {
    let Expr::Function(Function { name, .. }) = expr else { return None };
    let [ObjectNamePart::Identifier(function)] = name.0.as_slice() else { return None };
    TAKE_ROWS.into_iter().find(|known| function.value.eq_ignore_ascii_case(known))
}

struct Queries<'c>(Relations<'c>);

impl VisitorMut for Queries<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.0.enter(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.0.leave();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let columns = |factor: &TableFactor| Some((name_of_factor(factor)?, self.0.of_factor(factor)));
        let calls = Calls(relations(select).into_iter().filter_map(columns).collect());
        visit_own(select, |expr| calls.spell_out(expr));
        ControlFlow::Continue(())
    }
}

/// The relations that calls in one SELECT may name.
struct Calls(Vec<(Ident, Columns)>);

impl Calls {
    /// Spells out the row that a call takes.
    fn spell_out(&self, expr: &mut Expr) {
        let Some(function) = taker(expr) else { return };
        let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = expr else { return };
        if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))) = list.args.first_mut()
            && let Some(row) = self.row(argument, function)
        {
            *argument = row;
        }
        if function == "row_to_json" && list.args.len() == 1 {
            *name = ObjectName::from(vec![Ident::new("to_json")]);
        }
    }

    /// The row that `argument` is, spelled out.
    fn row(&self, argument: &Expr, function: &str) -> Option<Expr> {
        let values: Vec<(String, Expr)> = match argument {
            Expr::Identifier(table) => {
                // A column of that name comes first.
                let same = |ident: &Ident| folded(ident) == folded(table);
                if self.0.iter().any(|(_, columns)| columns.iter().flatten().any(same)) {
                    return None;
                }
                let (name, columns) = self.0.iter().find(|(name, _)| same(name))?;
                let value = |column: &Ident| {
                    let expr = Expr::CompoundIdentifier(vec![name.clone(), column.clone()]);
                    (shown_name(&folded(column)).to_owned(), expr)
                };
                columns.as_ref()?.iter().map(value).collect()
            }
            Expr::Tuple(values) => numbered(values.clone()),
            Expr::Function(Function { name, args: FunctionArguments::List(list), .. })
                if name.to_string().eq_ignore_ascii_case("row") =>
            {
                let value = |argument: &FunctionArg| match argument {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value.clone()),
                    _ => None,
                };
                numbered(list.args.iter().map(value).collect::<Option<_>>()?)
            }
            _ => return None,
        };
        let json = if function.contains("jsonb") { "jsonb" } else { "json" };
        let text = |name: String| Expr::Value(Value::SingleQuotedString(name).into());
        let arguments = values.into_iter().flat_map(|(name, value)| [text(name), value]).collect();
        Some(call(&format!("{json}_{ROW}"), arguments))
    }
}

/// The columns of a row that has no names for them.
fn numbered(values: Vec<Expr>) -> Vec<(String, Expr)> {
    (1..).zip(values).map(|(number, value)| (format!("f{number}"), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{names, statement};

    fn check(sql: &str, expected: &str) {
        let parsed = statement::parse(sql).expect("valid").remove(0);
        let mut ast = parsed.ast.expect("not empty").as_ref().clone();
        names::name_columns(&mut ast);
        spell_out(&mut ast, &Catalog::default());
        assert_eq!(ast.to_string(), expected, "{sql}");
    }

    #[test]
    fn whole_rows_are_spelled_out() {
        check(
            "SELECT row_to_json(t) FROM (SELECT 1 AS a, b FROM u) AS t",
            "SELECT to_json(json_annal_row('a', t.a, 'b', t.\"b\")) AS \"row_to_json\" FROM (SELECT 1 AS a, b FROM u) AS t",
        );
        check(
            "WITH w (x) AS (SELECT 1 AS a) SELECT jsonb_agg(w) FROM w",
            "WITH w (x) AS (SELECT 1 AS a) SELECT jsonb_agg(jsonb_annal_row('x', w.x)) AS \"jsonb_agg\" FROM w",
        );
        check("SELECT to_json(row(1, 'x')) AS r", "SELECT to_json(json_annal_row('f1', 1, 'f2', 'x')) AS r");
    }

    #[test]
    fn columns_come_first_and_unknown_tables_stay() {
        check("SELECT to_json(t) AS j FROM (SELECT 1 AS t) AS t", "SELECT to_json(t) AS j FROM (SELECT 1 AS t) AS t");
        check("SELECT json_agg(t) AS j FROM nosuch AS t", "SELECT json_agg(t) AS j FROM nosuch AS t");
    }
}
