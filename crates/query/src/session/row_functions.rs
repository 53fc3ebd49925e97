//! Functions that give rows, in FROM: the function that gives them as an array, unnested. As columns of a SELECT they are in
//! [`super::calls`] and [`super::select_list`].

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem, TableAlias,
    TableAliasColumnDef, TableFactor, Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::names::series_of_times;
use super::ordinality;
use crate::functions::regexp::MATCHES;

const SERIES: &str = "generate_series";
const UNNEST: &str = "unnest";
/// What the number's column is called when nothing is said.
const ORDINALITY: &str = "ordinality";
/// The rows before their last column has its type.
const UNTYPED: &str = "annal_untyped_rows";

/// What stands in FROM instead of a function.
struct Rows {
    /// Arrays that are unnested beside each other, one for each column.
    arrays: Vec<String>,
    /// The columns' names, where the function gives them names of their own.
    named: &'static [&'static str],
    /// The type of the last column, where unnesting loses it.
    last_type: Option<&'static str>,
}

/// The function's rows; `None` for other functions and other arguments.
fn rows(name: &str, arguments: &[String]) -> Option<Rows> {
    let all = arguments.join(", ");
    let plain = |array: String| Rows { arrays: vec![array], named: &[], last_type: None };
    let (json, of_json) = match name.split_once('_') {
        Some((json @ ("json" | "jsonb"), of_json)) if arguments.len() == 1 => (json, of_json),
        _ => ("", ""),
    };
    let part = |part: &str| format!("{json}_{part}({all})");
    let last_type = Some(if json == "json" { "json" } else { "jsonb" });
    Some(match (name, of_json) {
        ("regexp_matches", _) => plain(format!("{MATCHES}({all})")),
        ("regexp_split_to_table", _) => plain(format!("regexp_split_to_array({all})")),
        ("string_to_table", _) => plain(format!("string_to_array({all})")),
        ("generate_subscripts", _) => match arguments {
            [array, dimension] if dimension == "1" => {
                let last_type = Some("integer");
                let numbers = format!("generate_series(1, CAST(cardinality({array}) AS bigint))");
                Rows { arrays: vec![numbers], named: &[], last_type }
            }
            _ => return None,
        },
        (_, "array_elements") => Rows { arrays: vec![part("elements_of_array")], named: &["value"], last_type },
        (_, "array_elements_text") => Rows { arrays: vec![part("texts_of_array")], named: &["value"], last_type: None },
        (_, "object_keys") => plain(part("keys_of_object")),
        (_, "each") => {
            Rows { arrays: vec![part("names_of_each"), part("values_of_each")], named: &["key", "value"], last_type }
        }
        (_, "each_text") => Rows {
            arrays: vec![part("names_of_each_text"), part("texts_of_each_text")],
            named: &["key", "value"],
            last_type: None,
        },
        _ => return None,
    })
}

/// A call in FROM.
struct Call<'f> {
    name: Ident,
    arguments: &'f [FunctionArg],
    alias: Option<&'f TableAlias>,
    with_ordinality: bool,
}

impl<'f> Call<'f> {
    fn of(factor: &'f TableFactor) -> Option<Call<'f>> {
        match factor {
            TableFactor::Table { name, args: Some(list), alias, with_ordinality, .. } => Some(Call {
                name: plain_name(name)?,
                arguments: &list.args,
                alias: alias.as_ref(),
                with_ordinality: *with_ordinality,
            }),
            TableFactor::Function { name, args, alias, with_ordinality, .. } => Some(Call {
                name: plain_name(name)?,
                arguments: args,
                alias: alias.as_ref(),
                with_ordinality: *with_ordinality,
            }),
            _ => None,
        }
    }

    fn texts(&self) -> Vec<String> {
        self.arguments.iter().map(ToString::to_string).collect()
    }

    fn rows(&self) -> Option<Rows> {
        rows(&self.name.value, &self.texts())
    }

    fn has_columns(&self) -> bool {
        self.arguments.iter().any(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => has_columns(expr),
            _ => false,
        })
    }
}

fn plain_name(name: &ObjectName) -> Option<Ident> {
    let name = match name.0.as_slice() {
        [ObjectNamePart::Identifier(name)] => name,
        [ObjectNamePart::Identifier(schema), ObjectNamePart::Identifier(name)] if schema.value == "pg_catalog" => name,
        _ => return None,
    };
    Some(Ident::new(name.value.to_lowercase()))
}

/// The same rows without the function; `None` for what is none. Numbers of rows of two columns are not to be had.
pub(super) fn unnested(factor: &TableFactor) -> Option<TableFactor> {
    if let Some(lateral) = lateral(factor) {
        return Some(lateral);
    }
    let call = Call::of(factor)?;
    let rows = call.rows()?;
    if call.with_ordinality && rows.arrays.len() > 1 {
        return None;
    }
    let alias = complete(call.alias, rows.named, &call.name, call.with_ordinality);
    let ordinality = if call.with_ordinality { " WITH ORDINALITY" } else { "" };
    let unnested = |alias: &TableAlias| {
        let unnest = parsed(&format!("UNNEST({}){ordinality} {alias}", rows.arrays.join(", ")))?;
        Some(ordinality::numbered(&unnest).unwrap_or(unnest))
    };
    let Some(data_type) = rows.last_type else { return unnested(&alias) };
    let untyped = unnested(&TableAlias { name: Ident::new(UNTYPED), ..alias.clone() })?;
    let columns = alias.columns.iter().enumerate().map(|(at, column)| {
        let name = &column.name;
        if at + 1 == rows.arrays.len() { format!("CAST({name} AS {data_type}) AS {name}") } else { name.to_string() }
    });
    parsed(&format!("(SELECT {} FROM {untyped}) {alias}", columns.collect::<Vec<_>>().join(", ")))
}

/// A function, or `unnest`, of columns of the tables before it: a subquery that [`super::lateral_rows`] takes apart.
fn lateral(factor: &TableFactor) -> Option<TableFactor> {
    let plain = |arrays: Vec<String>| Rows { arrays, named: &[], last_type: None };
    let (rows, name, alias, with_ordinality) = match factor {
        TableFactor::UNNEST { array_exprs, alias, with_offset: false, with_ordinality, .. }
            if array_exprs.iter().any(has_columns) =>
        {
            let rows = plain(array_exprs.iter().map(ToString::to_string).collect());
            (rows, Ident::new(UNNEST), alias.as_ref(), *with_ordinality)
        }
        factor => {
            let call = Call::of(factor).filter(Call::has_columns)?;
            let rows = match call.name.value.as_str() {
                SERIES => {
                    let numbers = || format!("{SERIES}({})", call.texts().join(", "));
                    plain(vec![series_of_times(SERIES, call.arguments).unwrap_or_else(numbers)])
                }
                UNNEST => plain(call.texts()),
                _ => call.rows()?,
            };
            (rows, call.name, call.alias, call.with_ordinality)
        }
    };
    let alias = complete(alias, rows.named, &name, with_ordinality);
    let mut items: Vec<String> = rows.arrays.iter().map(|array| format!("{UNNEST}({array})")).collect();
    if let (Some(data_type), Some(last)) = (rows.last_type, items.last_mut()) {
        *last = format!("CAST({last} AS {data_type})");
    }
    if let (true, [array]) = (with_ordinality, rows.arrays.as_slice()) {
        items.push(format!("{UNNEST}({SERIES}(CAST(1 AS bigint), CAST(cardinality({array}) AS bigint)))"));
    }
    if items.len() != alias.columns.len() {
        return None;
    }
    let items = items.iter().zip(&alias.columns).map(|(item, column)| format!("{item} AS {}", column.name));
    parsed(&format!("LATERAL (SELECT {}) {alias}", items.collect::<Vec<_>>().join(", ")))
}

/// Whether an expression in FROM names columns, which are those of other tables there.
fn has_columns(expr: &Expr) -> bool {
    expr.visit(&mut Columns { subqueries: 0 }).is_break()
}

/// Stops at the first column outside of subqueries.
struct Columns {
    subqueries: usize,
}

impl Visitor for Columns {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.subqueries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.subqueries -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) if self.subqueries == 0 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// The alias with a name for each column. A lone column that has no name of its own is called as the table.
fn complete(alias: Option<&TableAlias>, named: &[&str], function: &Ident, numbered: bool) -> TableAlias {
    let own = || TableAlias { explicit: true, name: function.clone(), columns: Vec::new(), at: None };
    let mut alias = TableAlias { explicit: true, ..alias.cloned().unwrap_or_else(own) };
    let lone = alias.name.clone();
    let names = match named {
        [] => vec![lone],
        names => names.iter().map(|name| Ident::new(*name)).collect(),
    };
    let names = names.into_iter().chain(numbered.then(|| Ident::new(ORDINALITY)));
    for name in names.skip(alias.columns.len()) {
        alias.columns.push(TableAliasColumnDef { name, data_type: None });
    }
    alias
}

fn parsed(text: &str) -> Option<TableFactor> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(text).and_then(|mut parser| parser.parse_table_factor()).ok()
}

/// `e` of `FROM jsonb_array_elements(...) AS e` is the value of a row, whose column has another name. Before the function is gone.
pub(super) fn name_values(select: &mut Select) {
    let factors = select
        .from
        .iter()
        .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)));
    let values = factors.filter_map(|factor| {
        let call = Call::of(factor)?;
        let ([column], alias) = (call.rows()?.named, call.alias?) else { return None };
        alias.columns.is_empty().then(|| (alias.name.clone(), Ident::new(*column)))
    });
    for (table, column) in values.collect::<Vec<_>>() {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(Expr::Identifier(name)) = item
                && *name == table
            {
                let expr = Expr::CompoundIdentifier(vec![table.clone(), column.clone()]);
                *item = SelectItem::ExprWithAlias { expr, alias: table.clone() };
            }
        }
        let _all = VisitMut::visit(select, &mut Values { table, column });
    }
}

struct Values {
    table: Ident,
    column: Ident,
}

impl VisitorMut for Values {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if matches!(expr, Expr::Identifier(name) if *name == self.table) {
            *expr = Expr::CompoundIdentifier(vec![self.table.clone(), self.column.clone()]);
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use crate::session::statement;

    fn check(sql: &str, expected: &str) {
        let parsed = statement::parse(sql).expect("valid").remove(0);
        assert_eq!(parsed.ast.expect("not empty").to_string(), expected, "{sql}");
    }

    #[test]
    fn functions_that_give_rows_are_unnested() {
        check(
            "SELECT * FROM string_to_table('a,b', ',')",
            "SELECT * FROM UNNEST(string_to_array('a,b', ',')) AS string_to_table (string_to_table)",
        );
        check(
            "SELECT * FROM jsonb_array_elements_text('[1]') AS e (x)",
            "SELECT * FROM UNNEST(jsonb_texts_of_array('[1]')) AS e (x)",
        );
        check(
            "SELECT * FROM json_each('{}') AS e",
            "SELECT * FROM (SELECT key, CAST(value AS JSON) AS value FROM UNNEST(json_names_of_each('{}'), json_values_of_each('{}')) \
             AS annal_untyped_rows (key, value)) AS e (key, value)",
        );
        check("SELECT * FROM generate_subscripts(a, 2)", "SELECT * FROM generate_subscripts(a, 2)");
    }

    #[test]
    fn columns_of_other_tables_make_it_lateral() {
        check(
            "SELECT x FROM t, unnest(t.list) WITH ORDINALITY AS u (x, n)",
            "SELECT x FROM t, LATERAL (SELECT unnest(t.list) AS x, unnest(generate_series(CAST(1 AS BIGINT), CAST(cardinality(t.list) AS BIGINT))) AS n) \
             AS u (x, n)",
        );
        check(
            "SELECT i FROM t CROSS JOIN LATERAL generate_series(1, n) AS i",
            "SELECT i FROM t CROSS JOIN LATERAL (SELECT unnest(generate_series(1, n)) AS i) AS i (i)",
        );
        check(
            "SELECT e.key FROM t, jsonb_each_text(b) e",
            "SELECT e.key FROM t, LATERAL (SELECT unnest(jsonb_names_of_each_text(b)) AS key, unnest(jsonb_texts_of_each_text(b)) AS value) \
             AS e (key, value)",
        );
    }

    #[test]
    fn the_table_is_its_value() {
        check(
            "SELECT e, e -> 'a' FROM jsonb_array_elements_text('[1]') e WHERE e IS NOT NULL",
            "SELECT e.value AS e, e.value -> 'a' FROM UNNEST(jsonb_texts_of_array('[1]')) AS e (value) WHERE e.value IS NOT NULL",
        );
    }
}
