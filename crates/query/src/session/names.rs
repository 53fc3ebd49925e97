//! Columns of a result are named as PostgreSQL names them.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{
    DataType as SqlType, Expr, FunctionArg, FunctionArgExpr, GroupByExpr, Ident, ObjectNamePart, OrderByKind, Query,
    Select, SelectItem, SetExpr, Statement, TableAlias, TableAliasColumnDef, TableFactor, TableFunctionArgs,
    UnaryOperator, Value, VisitMut, VisitorMut, visit_expressions,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::{ordinality, row_functions};

/// Functions in FROM that give rows of one column.
const ONE_COLUMN_FUNCTIONS: [&str; 2] = ["generate_series", "unnest"];
/// Marks what was added to a name to keep it apart from an equal one; cut off again from the result.
const MARK: &str = "\u{1}";

/// `FROM generate_series(1, 3) AS n` has a column `n`, and without an alias one of the function's name; between integers it is an integer.
pub(crate) fn name_function_columns(statement: &mut Statement) {
    let _all = VisitMut::visit(statement, &mut FunctionColumns);
}

struct FunctionColumns;

impl VisitorMut for FunctionColumns {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        row_functions::name_values(select);
        ControlFlow::Continue(())
    }

    // After the parts, so that the call inside of a narrowed one is not met again.
    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let Some(rows) = row_functions::unnested(factor) {
            *factor = rows;
            return ControlFlow::Continue(());
        }
        if let Some(numbered) = ordinality::numbered(factor) {
            *factor = numbered;
        }
        let (alias, name) = match factor {
            TableFactor::Table { name, alias, args: Some(_), with_ordinality: false, .. } => {
                let name = name.0.last().and_then(ObjectNamePart::as_ident);
                (alias, name.map(|name| name.value.to_lowercase()).unwrap_or_default())
            }
            TableFactor::UNNEST { alias, array_exprs, with_offset: false, with_ordinality: false, .. }
                if array_exprs.len() == 1 =>
            {
                (alias, "unnest".to_owned())
            }
            _ => return ControlFlow::Continue(()),
        };
        if !ONE_COLUMN_FUNCTIONS.contains(&name.as_str()) {
            return ControlFlow::Continue(());
        }
        let alias = alias.get_or_insert_with(|| TableAlias {
            explicit: true,
            name: Ident::new(name),
            columns: vec![],
            at: None,
        });
        if alias.columns.is_empty() {
            alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
        }
        if let Some(series) = of_times(factor).or_else(|| narrowed(factor)) {
            *factor = series;
        }
        ControlFlow::Continue(())
    }
}

/// `generate_series(from, to, interval '1 day') AS a(b)` as `UNNEST(...)` of the function that gives an array: the one that gives rows knows no
/// times as fine as the tables', and no parameters. Dates are the timestamptz at which they begin.
fn of_times(factor: &TableFactor) -> Option<TableFactor> {
    let TableFactor::Table { name, alias, args: Some(arguments), with_ordinality: false, .. } = factor else {
        return None;
    };
    let series = series_of_times(&name.to_string(), &arguments.args).or_else(|| {
        // What gives rows is computed while it is planned, when parameters have no values yet.
        has_parameter(arguments).then(|| format!("{name}({})", comma_separated(&arguments.args)))
    })?;
    let alias = alias.as_ref().map(|alias| TableAlias { explicit: true, ..alias.clone() })?;
    let text = format!("UNNEST({series}) {alias}");
    Parser::new(&PostgreSqlDialect {}).try_with_sql(&text).and_then(|mut parser| parser.parse_table_factor()).ok()
}

fn comma_separated(arguments: &[FunctionArg]) -> String {
    arguments.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn has_parameter(arguments: &TableFunctionArgs) -> bool {
    let is_parameter = |expr: &Expr| matches!(expr, Expr::Value(v) if matches!(v.value, Value::Placeholder(_)));
    visit_expressions(&arguments.args, |expr| match is_parameter(expr) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    })
    .is_break()
}

/// The call that gives the times as an array; `None` when the step is no interval.
pub(super) fn series_of_times(name: &str, arguments: &[FunctionArg]) -> Option<String> {
    let [first, last, step] = arguments else { return None };
    let of = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    let (first, last, step) = (of(first)?, of(last)?, of(step)?);
    let is_interval = |expr: &Expr| match expr {
        Expr::Interval(_) => true,
        Expr::Cast { data_type, .. } => matches!(data_type, SqlType::Interval { .. }),
        _ => false,
    };
    if !is_text(&step) && !is_interval(&step) {
        return None;
    }
    // A text is a time as the other end is one; that a date is the instant at which it begins is known here, other types are written.
    let time_type = |expr: &Expr| match expr {
        Expr::TypedString(typed) => Some(typed.data_type.clone()),
        Expr::Cast { data_type, .. } => Some(data_type.clone()),
        _ => None,
    };
    let (of_first, of_last) = (time_type(&first), time_type(&last));
    let end = |expr: Expr, own: &Option<SqlType>, other: &Option<SqlType>| match (own, other) {
        (Some(SqlType::Date), _) => format!("CAST({expr} AS timestamptz)"),
        (None, Some(SqlType::Date)) if is_text(&expr) => format!("CAST({expr} AS timestamptz)"),
        (None, Some(other)) if is_text(&expr) => format!("CAST({expr} AS {other})"),
        _ => expr.to_string(),
    };
    let (first, last) = (end(first, &of_first, &of_last), end(last, &of_last, &of_first));
    Some(format!("{name}({first}, {last}, CAST({step} AS interval))"))
}

fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)))
}

/// `generate_series(1, 3) AS a(b)`, which the engine gives as bigint, as `(SELECT b::integer AS b FROM generate_series(1, 3) AS a(b)) AS a(b)`;
/// nothing when its arguments are not all integers of PostgreSQL's `integer`.
fn narrowed(factor: &TableFactor) -> Option<TableFactor> {
    let TableFactor::Table { alias: Some(alias), args: Some(arguments), .. } = factor else { return None };
    let integers = are_integers(&arguments.args);
    let [column] = alias.columns.as_slice() else { return None };
    if !integers {
        return None;
    }
    let name = &column.name;
    let alias = TableAlias { explicit: true, ..alias.clone() };
    let text = format!("(SELECT {name}::integer AS {name} FROM {factor}) {alias}");
    Parser::new(&PostgreSqlDialect {}).try_with_sql(&text).and_then(|mut parser| parser.parse_table_factor()).ok()
}

/// Whether all arguments are numbers of PostgreSQL's type integer.
pub(super) fn are_integers(arguments: &[FunctionArg]) -> bool {
    arguments.iter().all(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => is_integer(expr),
        _ => false,
    })
}

/// Whether an expression is a number of PostgreSQL's type integer, or one with a sign.
fn is_integer(expr: &Expr) -> bool {
    match expr {
        Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr } => is_integer(expr),
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => number.parse::<i32>().is_ok(),
            _ => false,
        },
        _ => false,
    }
}

/// Gives every column of the outermost SELECT that has no name of its own PostgreSQL's name, made distinct where two are equal.
pub(crate) fn name_columns(statement: &mut Statement) {
    let _all = VisitMut::visit(statement, &mut SetOperations);
    match statement {
        Statement::Query(query) => name_query(query),
        Statement::Explain { statement, .. } => name_columns(statement),
        _ => {}
    }
}

fn name_query(query: &mut Query) {
    if let Some(with) = &mut query.with {
        for table in &mut with.cte_tables {
            name_query(&mut table.query);
        }
    }
    let written = distinct_columns(query);
    name_body(&mut query.body);
    follow_distinct(query, &written);
}

/// The columns of a set operation go by their places and have the names of the first SELECT. The library takes a column of another SELECT for the
/// one of the first that has its name, and two of one name for one: so they have names that nobody else has.
struct SetOperations;

impl VisitorMut for SetOperations {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let mut body = query.body.as_mut();
        while let SetExpr::SetOperation { left, right, .. } = body {
            name_apart(right);
            body = left;
            if let SetExpr::Select(select) = body {
                name_select(select);
            }
        }
        ControlFlow::Continue(())
    }
}

fn name_apart(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            let is_grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
            for (at, item) in select.projection.iter_mut().enumerate() {
                let apart = || kept_apart("", at);
                match item {
                    SelectItem::UnnamedExpr(expr) => {
                        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: apart() };
                    }
                    // Its key may be called by that name.
                    SelectItem::ExprWithAlias { alias, .. } if !is_grouped => *alias = apart(),
                    _ => {}
                }
            }
        }
        // What it is ordered by may be called by these names.
        SetExpr::Query(query) if query.order_by.is_none() => name_apart(&mut query.body),
        SetExpr::Query(query) => name_query(query),
        SetExpr::SetOperation { left, right, .. } => {
            name_apart(left);
            name_apart(right);
        }
        _ => {}
    }
}

/// What a SELECT DISTINCT gives, as it was written.
fn distinct_columns(query: &Query) -> Vec<Option<Expr>> {
    match query.body.as_ref() {
        SetExpr::Select(select) if select.distinct.is_some() => {
            let written = |item: &SelectItem| match item {
                SelectItem::UnnamedExpr(expr) => Some(expr.clone()),
                _ => None,
            };
            select.projection.iter().map(written).collect()
        }
        _ => Vec::new(),
    }
}

/// ORDER BY of a SELECT DISTINCT can name a column of the result only: by the name it has now.
fn follow_distinct(query: &mut Query, written: &[Option<Expr>]) {
    let SetExpr::Select(select) = query.body.as_ref() else { return };
    let Some(OrderByKind::Expressions(order)) = query.order_by.as_mut().map(|order| &mut order.kind) else { return };
    for by in order {
        let column = written.iter().position(|column| column.as_ref() == Some(&by.expr));
        if let Some(SelectItem::ExprWithAlias { alias, .. }) = column.and_then(|at| select.projection.get(at)) {
            by.expr = Expr::Identifier(alias.clone());
        }
    }
}

fn name_body(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => name_select(select),
        SetExpr::Query(query) => name_query(query),
        SetExpr::SetOperation { left, .. } => name_body(left),
        _ => {}
    }
}

fn name_select(select: &mut Select) {
    for table in &mut select.from {
        let relations =
            std::iter::once(&mut table.relation).chain(table.joins.iter_mut().map(|join| &mut join.relation));
        for relation in relations {
            if let TableFactor::Derived { subquery, .. } = relation {
                name_query(subquery);
            }
        }
    }
    let mut taken = BTreeSet::new();
    // Which columns a wildcard brings is not known here, so every column beside one is kept apart from them.
    let wild = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    let beside_wildcard = select.projection.iter().any(wild);
    for (at, item) in select.projection.iter_mut().enumerate() {
        match item {
            SelectItem::UnnamedExpr(expr) => {
                let name = name_of(expr).unwrap_or_else(|| "?column?".to_owned());
                let plain = !beside_wildcard && matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
                let fresh = taken.insert(name.clone()) && !beside_wildcard;
                if plain && fresh {
                    continue;
                }
                let alias = if fresh { Ident::with_quote('"', name) } else { kept_apart(&name, at) };
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
            SelectItem::ExprWithAlias { alias, .. } if !taken.insert(folded(alias)) => {
                *alias = kept_apart(&folded(alias), at);
            }
            _ => {}
        }
    }
}

pub(super) fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// The name PostgreSQL gives an expression, `None` where it says `?column?`.
pub(super) fn name_of(expr: &Expr) -> Option<String> {
    let fixed = |name: &str| Some(name.to_owned());
    match expr {
        Expr::Identifier(ident) => Some(folded(ident)),
        Expr::CompoundIdentifier(parts) => parts.last().map(folded),
        Expr::Function(function) => match function.name.0.last() {
            Some(ObjectNamePart::Identifier(ident)) => Some(folded(ident)),
            _ => None,
        },
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => name_of(inner),
        Expr::Cast { expr, data_type, .. } => name_of(expr).or_else(|| Some(type_name(&data_type.to_string()))),
        Expr::TypedString(typed) => Some(type_name(&typed.data_type.to_string())),
        Expr::Case { else_result, .. } => else_result
            .as_deref()
            .and_then(|e| name_of(e).filter(|_| !matches!(e, Expr::Function(_))))
            .or(fixed("case")),
        Expr::Exists { .. } => fixed("exists"),
        Expr::Extract { .. } => fixed("extract"),
        Expr::Substring { .. } => fixed("substring"),
        Expr::Trim { .. } => fixed("btrim"),
        Expr::Position { .. } => fixed("position"),
        Expr::Overlay { .. } => fixed("overlay"),
        Expr::Ceil { .. } => fixed("ceil"),
        Expr::Floor { .. } => fixed("floor"),
        Expr::AtTimeZone { .. } => fixed("timezone"),
        Expr::Interval(_) => fixed("interval"),
        Expr::Array(_) => fixed("array"),
        Expr::Tuple(_) => fixed("row"),
        Expr::Value(value) => match &value.value {
            datafusion::sql::sqlparser::ast::Value::Boolean(_) => fixed("bool"),
            _ => None,
        },
        Expr::Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => match select.projection.first() {
                Some(SelectItem::ExprWithAlias { alias, .. }) => Some(folded(alias)),
                Some(SelectItem::UnnamedExpr(expr)) => name_of(expr),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// PostgreSQL's internal name of a type as SQL writes it.
fn type_name(sql: &str) -> String {
    let base = sql.to_lowercase();
    let base = base.split('(').next().unwrap_or_default().trim();
    let name = match base {
        "int" | "integer" => "int4",
        "bigint" => "int8",
        "smallint" => "int2",
        "real" => "float4",
        "double precision" | "double" | "float" => "float8",
        "boolean" => "bool",
        "decimal" | "dec" => "numeric",
        "character varying" => "varchar",
        "char" | "character" => "bpchar",
        "timestamp with time zone" => "timestamptz",
        "timestamp without time zone" => "timestamp",
        other => other,
    };
    name.to_owned()
}

/// Gives the outermost columns of a rewritten query the names its original had.
pub(crate) fn keep_names(original: &Statement, rewritten: &mut Statement) {
    let (Statement::Query(original), Statement::Query(rewritten)) = (original, rewritten) else { return };
    let (SetExpr::Select(original), SetExpr::Select(rewritten)) = (original.body.as_ref(), rewritten.body.as_mut())
    else {
        return;
    };
    if original.projection.len() != rewritten.projection.len() {
        return;
    }
    for (from, to) in original.projection.iter().zip(&mut rewritten.projection) {
        if let (SelectItem::ExprWithAlias { alias, .. }, SelectItem::UnnamedExpr(expr)) = (from, &*to) {
            *to = SelectItem::ExprWithAlias { expr: expr.clone(), alias: alias.clone() };
        }
    }
}

/// A name that is shown like `name` and that nobody else has, for the column at that place of the result.
pub(super) fn kept_apart(name: &str, at: usize) -> Ident {
    Ident::with_quote('"', format!("{name}{MARK}{at}"))
}

/// A column's name without the mark that kept it apart.
pub(super) fn shown_name(name: &str) -> &str {
    name.split(MARK).next().unwrap_or_default()
}

/// The schema as the client sees it: names without the marks that kept them apart, and any column may be NULL, for what a plan says
/// of that and what its batches say can differ.
pub(crate) fn shown(schema: &SchemaRef) -> SchemaRef {
    let shown = |field: &Arc<Field>| field.as_ref().clone().with_name(shown_name(field.name())).with_nullable(true);
    let fields: Vec<Field> = schema.fields().iter().map(shown).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, expected: &[&str]) {
        let statement = crate::session::statement::parse(sql).expect("valid").remove(0);
        let mut ast = statement.ast.expect("not empty").as_ref().clone();
        name_columns(&mut ast);
        let Statement::Query(query) = ast else { panic!("a query") };
        let SetExpr::Select(select) = *query.body else { panic!("a select") };
        let names: Vec<String> = select
            .projection
            .iter()
            .map(|item| match item {
                SelectItem::UnnamedExpr(expr) => name_of(expr).expect("a plain column"),
                SelectItem::ExprWithAlias { alias, .. } => {
                    folded(alias).split(MARK).next().unwrap_or_default().to_owned()
                }
                other => other.to_string(),
            })
            .collect();
        assert_eq!(names, expected, "{sql}");
    }

    #[test]
    fn names_are_postgresqls() {
        check(
            "select count(*), avg(v), 1, 1, 'x'::text, v::int, a.v, V",
            &["count", "avg", "?column?", "?column?", "text", "v", "v", "v"],
        );
        check(
            "select case when true then 1 end, true, extract(year from ts), coalesce(a, b)",
            &["case", "bool", "extract", "coalesce"],
        );
        check("select date '2013-01-01', (select max(x) from t), exists (select 1)", &["date", "max", "exists"]);
        check("select 1 as \"A\", 2 as B", &["A", "b"]);
    }
}
