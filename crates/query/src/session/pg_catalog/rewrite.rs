//! Statements about the catalog, made plannable.
//!
//! Only a statement that names something of PostgreSQL's catalog is touched: what the library's rules do to make tools' queries
//! plannable (a correlated subquery becomes NULL, for one) must not happen to a client's own query.

mod subqueries;

use std::ops::ControlFlow;
use std::sync::LazyLock;

use cluster::Catalog;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    Query, SelectItem, SetExpr, Statement as Ast, TableFactor, Value, Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use datafusion_pg_catalog::sql::rules::{
    CurrentUserVariableToSessionUserFunctionCall, SqlStatementRewriteRule, StripCallableQualifier, StripCollate,
};

use self::subqueries::Subqueries;
use super::super::{insert, names};
use crate::error::{Condition, Error};
use crate::functions::{ALL, ANY};

static PARSER: LazyLock<PostgresCompatibilityParser> = LazyLock::new(PostgresCompatibilityParser::new);

/// Rewrites a statement about the catalog, its columns named already, into one that can be planned; others stay as they are. `text` is
/// what the client wrote.
///
/// # Errors
/// 42P01 when a name that is to become an oid is no relation's.
pub(crate) fn rewrite(mut ast: Ast, text: &str, catalog: &Catalog) -> Result<Ast, Error> {
    match mentions(&ast) {
        Mentions::Nothing => Ok(ast),
        Mentions::Words => {
            let _ = VisitMut::visit(&mut ast, &mut Zones);
            let rules: [&dyn SqlStatementRewriteRule; 3] =
                [&StripCallableQualifier, &CurrentUserVariableToSessionUserFunctionCall, &StripCollate];
            Ok(rules.iter().fold(ast, |ast, rule| rule.rewrite(ast)))
        }
        Mentions::Relations => {
            let _ = VisitMut::visit(&mut ast, &mut Zones);
            let mut names = RelationNames { catalog, changed: false };
            if let ControlFlow::Break(missing) = VisitMut::visit(&mut ast, &mut names) {
                let message = format!("relation \"{missing}\" does not exist");
                return Err(Error::report(Condition::UndefinedTable, message));
            }
            let mut defaults = InlineDefaults(names.changed);
            let _ = VisitMut::visit(&mut ast, &mut defaults);
            // The library knows some queries of tools by heart, by their tokens.
            if matches!(ast, Ast::Query(_))
                && !defaults.0
                && let Ok(mut statements) = PARSER.parse(text)
                && let [Ast::Query(_)] = statements.as_slice()
            {
                let mut known = statements.remove(0);
                names::keep_names(&ast, &mut known);
                names::name_columns(&mut known);
                let _ = VisitMut::visit(&mut known, &mut Subqueries);
                return Ok(known);
            }
            let mut ast = PARSER.rewrite(ast);
            let _ = VisitMut::visit(&mut ast, &mut Subqueries);
            Ok(ast)
        }
    }
}

/// What of PostgreSQL's catalog a statement names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mentions {
    Nothing,
    /// Functions, types, operators or registers.
    Words,
    /// Tables.
    Relations,
}

fn mentions(ast: &Ast) -> Mentions {
    let mut look = Look(Mentions::Nothing);
    let _ = Visit::visit(ast, &mut look);
    look.0
}

struct Look(Mentions);

impl Look {
    fn found(&mut self, what: Mentions) {
        self.0 = self.0.max(what);
    }
}

impl Visitor for Look {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        if is_of_catalog(relation) {
            self.found(Mentions::Relations);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function) if is_lookup(function) => self.found(Mentions::Relations),
            Expr::Function(function) if is_register(function) || is_of_catalog(&function.name) => {
                self.found(Mentions::Words);
            }
            Expr::Identifier(ident)
                if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("current_schema") =>
            {
                self.found(Mentions::Words);
            }
            Expr::Collate { .. } | Expr::AtTimeZone { .. } => self.found(Mentions::Words),
            Expr::BinaryOp { op: BinaryOperator::PGCustomBinaryOperator(_), .. } => self.found(Mentions::Relations),
            // Names become oids by a look into the catalog.
            Expr::Cast { data_type, .. } if is_oid_alias(data_type) => self.found(Mentions::Relations),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn is_of_catalog(name: &ObjectName) -> bool {
    let part = |part: Option<&Ident>| part.map(|ident| ident.value.to_lowercase()).unwrap_or_default();
    let first = part(name.0.first().and_then(|part| part.as_ident()));
    let last = part(name.0.last().and_then(|part| part.as_ident()));
    first == "pg_catalog" || first == "information_schema" || (name.0.len() == 1 && last.starts_with("pg_"))
}

fn is_register(function: &Function) -> bool {
    matches!(function.args, FunctionArguments::None)
        || matches!(
            function.name.to_string().to_lowercase().as_str(),
            "current_schema" | "current_schemas" | "current_database" | "version"
        )
}

/// `to_regclass(name)`.
fn is_lookup(function: &Function) -> bool {
    let name = function.name.to_string().to_lowercase();
    name.strip_prefix("pg_catalog.").unwrap_or(&name) == "to_regclass"
}

/// The name that `to_regclass` looks up.
fn looked_up(expr: &Expr) -> Option<String> {
    let Expr::Function(function) = expr else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(name))] = list.args.as_slice() else { return None };
    let text = |expr: &Expr| match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(name) => Some(name.clone()),
            _ => None,
        },
        _ => None,
    };
    let name = match name {
        Expr::Cast { expr, .. } => text(expr),
        name => text(name),
    };
    name.filter(|_| is_lookup(function))
}

/// Of `attnum = ANY (indkey)`, written as a call by then, both sides.
fn looked_into(expr: &mut Expr) -> Option<(&mut Expr, &mut Expr)> {
    let Expr::Function(function) = expr else { return None };
    let name = function.name.to_string();
    let FunctionArguments::List(list) = &mut function.args else { return None };
    match list.args.as_mut_slice() {
        [
            _,
            FunctionArg::Unnamed(FunctionArgExpr::Expr(number)),
            FunctionArg::Unnamed(FunctionArgExpr::Expr(numbers)),
        ] if (name == ANY || name == ALL) && is_of_numbers(numbers) => Some((number, numbers)),
        _ => None,
    }
}

/// The numbers of an index's columns are a text here, as they are written: `attnum = ANY (indkey)` looks into it.
fn is_of_numbers(expr: &Expr) -> bool {
    let column = match expr {
        Expr::Identifier(column) => Some(column),
        Expr::CompoundIdentifier(parts) => parts.last(),
        Expr::Nested(inner) => return is_of_numbers(inner),
        _ => None,
    };
    column.is_some_and(|column| ["indkey", "indclass", "indoption"].contains(&column.value.to_lowercase().as_str()))
}

fn is_oid_alias(data_type: &DataType) -> bool {
    match data_type {
        DataType::Regclass => true,
        DataType::Custom(name, _) => {
            let name = name.to_string().to_lowercase();
            let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
            name.starts_with("reg") || name == "oid"
        }
        _ => false,
    }
}

/// `x AT TIME ZONE z` is PostgreSQL's `timezone(z, x)`; the library's own has other types.
struct Zones;

impl VisitorMut for Zones {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::AtTimeZone { timestamp, time_zone } = expr else { return ControlFlow::Continue(()) };
        let Ok(mut call) = insert::parse_expression("timezone(NULL, CAST(NULL AS timestamptz))") else {
            return ControlFlow::Continue(());
        };
        let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = &mut call else {
            return ControlFlow::Continue(());
        };
        let null = Expr::Value(Value::Null.into());
        let time = std::mem::replace(timestamp.as_mut(), null.clone());
        let zone = std::mem::replace(time_zone.as_mut(), null);
        if let [
            FunctionArg::Unnamed(FunctionArgExpr::Expr(first)),
            FunctionArg::Unnamed(FunctionArgExpr::Expr(second)),
        ] = list.args.as_mut_slice()
        {
            *first = zone;
            // A literal of no type is a timestamptz.
            match (second, &time) {
                (Expr::Cast { expr: inner, .. }, Expr::Value(_)) => **inner = time,
                (second, _) => *second = time,
            }
        }
        *expr = call;
        ControlFlow::Continue(())
    }
}

/// `'name'::regclass` is the oid of the relation, `'name'::regclass::text` its name again.
struct RelationNames<'a> {
    catalog: &'a Catalog,
    changed: bool,
}

impl RelationNames<'_> {
    /// The oid of the table or view of that name; a break with a name that is nobody's; `None` for what the library's tables know.
    fn oid(&self, written: &str) -> ControlFlow<String, Option<u64>> {
        let parts: Vec<String> = written
            .split('.')
            .map(|part| match part.strip_prefix('"').and_then(|part| part.strip_suffix('"')) {
                Some(quoted) => quoted.to_owned(),
                None => part.to_lowercase(),
            })
            .collect();
        let (schema, name) = match parts.as_slice() {
            [name] => ("public", name.as_str()),
            [schema, name] => (schema.as_str(), name.as_str()),
            _ => return ControlFlow::Continue(None),
        };
        if written.bytes().all(|byte| byte.is_ascii_digit()) {
            return ControlFlow::Continue(None);
        }
        let table = self.catalog.table(schema, name).map(|table| table.definition.id);
        match table.or_else(|| self.catalog.view(schema, name).map(|view| view.id)) {
            Some(id) => ControlFlow::Continue(Some(id.0)),
            None if schema == "public" && !name.starts_with("pg_") && !name.ends_with("_pkey") => {
                ControlFlow::Break(written.to_owned())
            }
            None => ControlFlow::Continue(None),
        }
    }
}

fn relation_name(expr: &Expr) -> Option<String> {
    let Expr::Cast { expr, data_type, .. } = expr else { return None };
    let data_type = data_type.to_string().to_lowercase();
    let is_relation = data_type.strip_prefix("pg_catalog.").unwrap_or(&data_type) == "regclass";
    match expr.as_ref() {
        Expr::Value(value) if is_relation => match &value.value {
            Value::SingleQuotedString(name) => Some(name.clone()),
            Value::DollarQuotedString(name) => Some(name.value.clone()),
            _ => None,
        },
        _ => None,
    }
}

impl VisitorMut for RelationNames<'_> {
    type Break = String;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        if let Expr::Cast { expr: inner, data_type, .. } = expr
            && let Some(name) = relation_name(inner)
            && matches!(data_type.to_string().to_lowercase().as_str(), "text" | "varchar" | "pg_catalog.text")
            && self.oid(&name)?.is_some()
        {
            let name = name.strip_prefix("public.").unwrap_or(&name).to_owned();
            *expr = Expr::Value(Value::SingleQuotedString(name).into());
            self.changed = true;
            return ControlFlow::Continue(());
        }
        if let Some(name) = looked_up(expr) {
            *expr = match self.oid(&name) {
                ControlFlow::Continue(Some(oid)) => Expr::Value(Value::Number(oid.to_string(), false).into()),
                _ => Expr::Value(Value::Null.into()),
            };
            self.changed = true;
            return ControlFlow::Continue(());
        }
        if let Some((number, numbers)) = looked_into(expr) {
            let written = (format!("CAST({number} AS text)"), format!("string_to_array({numbers}, ' ')"));
            if let (Ok(text), Ok(list)) = (insert::parse_expression(&written.0), insert::parse_expression(&written.1)) {
                (*number, *numbers) = (text, list);
                self.changed = true;
            }
            return ControlFlow::Continue(());
        }
        if let Some(name) = relation_name(expr)
            && let Some(oid) = self.oid(&name)?
        {
            *expr = Expr::Value(Value::Number(oid.to_string(), false).into());
            self.changed = true;
        }
        ControlFlow::Continue(())
    }
}

/// `(SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum …)`, which every
/// tool that describes a table asks, cannot be planned as a correlated subquery; it is a function of the column.
struct InlineDefaults(bool);

impl VisitorMut for InlineDefaults {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let column = match expr {
            Expr::Subquery(query) => described_column(query),
            _ => None,
        };
        if let Some(column) = column
            && let Ok(call) = insert::parse_expression(&format!("column_default({column}.attrelid, {column}.attnum)"))
        {
            *expr = call;
            self.0 = true;
        }
        ControlFlow::Continue(())
    }
}

/// The outer relation whose `attnum` the subquery looks up in `pg_attrdef`.
fn described_column(query: &Query) -> Option<Ident> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let [from] = select.from.as_slice() else { return None };
    let TableFactor::Table { name, .. } = &from.relation else { return None };
    let table = name.0.last()?.as_ident()?;
    let [SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }] = select.projection.as_slice()
    else {
        return None;
    };
    let asks = value.to_string().to_lowercase();
    if !from.joins.is_empty() || !table.value.eq_ignore_ascii_case("pg_attrdef") || !asks.contains("pg_get_expr(") {
        return None;
    }
    outer_of(select.selection.as_ref()?)
}

fn outer_of(condition: &Expr) -> Option<Ident> {
    let is_named = |expr: &Expr, name: &str| match expr {
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [relation, column] if column.value.eq_ignore_ascii_case(name) => Some(relation.clone()),
            _ => None,
        },
        _ => None,
    };
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => outer_of(left).or_else(|| outer_of(right)),
        Expr::Nested(inner) => outer_of(inner),
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
            let (left, right) = match is_named(left, "adnum") {
                Some(_) => (left, right),
                None => (right, left),
            };
            is_named(left, "adnum").and_then(|_| is_named(right, "attnum"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(sql: &str) -> Ast {
        let statement = crate::session::statement::parse(sql).expect("valid").remove(0);
        statement.ast.expect("not empty").as_ref().clone()
    }

    #[test]
    fn only_what_names_the_catalog_is_touched() {
        for (sql, expected) in [
            ("select 'pg_class', (select max(v) from m x where x.dev = m.dev) from m", Mentions::Nothing),
            ("select current_user, version()", Mentions::Words),
            ("select pg_backend_pid()", Mentions::Words),
            ("select ts at time zone 'UTC' from m", Mentions::Words),
            ("select * from pg_class", Mentions::Relations),
            ("select relname from pg_catalog.pg_class", Mentions::Relations),
            ("select 'm'::regclass", Mentions::Relations),
            ("select * from information_schema.tables", Mentions::Relations),
        ] {
            assert_eq!(mentions(&parsed(sql)), expected, "{sql}");
        }
    }

    #[test]
    fn time_zones_are_a_function() {
        let rewritten = |sql: &str| rewrite(parsed(sql), sql, &Catalog::default()).map(|ast| ast.to_string()).ok();
        assert_eq!(
            rewritten("SELECT ts AT TIME ZONE 'UTC' AT TIME ZONE z, '2013-01-01' AT TIME ZONE z"),
            Some("SELECT timezone(z, timezone('UTC', ts)), timezone(z, CAST('2013-01-01' AS TIMESTAMPTZ))".to_owned())
        );
    }

    #[test]
    fn a_name_of_no_relation_is_refused() {
        let sql = "SELECT 'nosuch'::regclass";
        let refused = rewrite(parsed(sql), sql, &Catalog::default()).unwrap_err();
        assert_eq!(refused.to_string(), "relation \"nosuch\" does not exist");
    }

    #[test]
    fn a_default_is_a_function_of_its_column() {
        let sql = "SELECT a.attname, (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid, true) FROM pg_catalog.pg_attrdef d \
                   WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.atthasdef) FROM pg_catalog.pg_attribute a";
        let rewritten = rewrite(parsed(sql), sql, &Catalog::default()).expect("it names nothing").to_string();
        assert_eq!(rewritten, "SELECT a.attname, column_default(a.attrelid, a.attnum) FROM pg_catalog.pg_attribute a");
    }
}
