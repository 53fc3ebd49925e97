//! `EXISTS (SELECT FROM readings AS r WHERE r.dev = dev.id)` where `readings` has a column `dev`, and a table `dev` stands around the subquery.
//!
//! PostgreSQL looks for a table of that name first, in all queries around; the planner takes `dev` for the column, and `id` for a field of it. So the
//! table around gets another name.
//!
//! `(SELECT d.name, ...)` where `d` stands around: what the planner calls such a column is not what it is called outside, so it is said.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use cluster::Catalog;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    Statement as Ast, TableAlias, TableFactor, Visit, VisitMut, Visitor, VisitorMut,
};

use super::names::folded;
use super::relations::{Relations, name_of_factor, relations};

/// What is added to such a name. No identifier that is written has it.
const APART: &str = "\u{2}";

/// Gives other names to tables that a subquery names like one of its own columns, and names to the columns that it takes from around it.
pub(super) fn tell_apart(statement: &mut Ast, catalog: &Catalog) {
    if Visit::visit(&*statement, &mut Nested(0)).is_continue() {
        return;
    }
    let _all = VisitMut::visit(statement, &mut Named(0));
    let mut found =
        Found { relations: Relations::new(catalog), scopes: Vec::new(), queries: 0, taken: BTreeSet::new() };
    let _all = Visit::visit(&*statement, &mut found);
    if !found.taken.is_empty() {
        let _all = VisitMut::visit(statement, &mut Renamed { taken: found.taken, scopes: Vec::new(), queries: 0 });
    }
}

/// A text with the names as they were written.
pub(super) fn as_written(text: &str) -> String {
    text.replace(APART, "")
}

/// Stops at a query inside of another. Counts those that are open.
struct Nested(usize);

impl Visitor for Nested {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.0 += 1;
        if self.0 > 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.0 -= 1;
        ControlFlow::Continue(())
    }
}

/// Names the columns in the lists of subqueries that are none of their tables'. Counts the queries that are open.
struct Named(usize);

impl VisitorMut for Named {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.0 += 1;
        let tables = tables_of(query);
        if let (true, SetExpr::Select(select)) = (self.0 > 1, query.body.as_mut())
            && relations(select).len() == tables.len()
        {
            for item in &mut select.projection {
                if let SelectItem::UnnamedExpr(expr) = item
                    && let Expr::CompoundIdentifier(parts) = &*expr
                    && let [table, column] = parts.as_slice()
                    && !tables.contains(&folded(table))
                {
                    *item = SelectItem::ExprWithAlias { alias: column.clone(), expr: expr.clone() };
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.0 -= 1;
        ControlFlow::Continue(())
    }
}

/// A query with the number that it has in the order in which queries are met.
struct Scope {
    query: usize,
    /// The names of its tables.
    tables: BTreeSet<String>,
    /// The columns of its tables, as far as they are known.
    columns: BTreeSet<String>,
}

fn select_of(query: &Query) -> Option<&Select> {
    match query.body.as_ref() {
        SetExpr::Select(select) => Some(select),
        _ => None,
    }
}

fn tables_of(query: &Query) -> BTreeSet<String> {
    let factors = select_of(query).map(relations).unwrap_or_default();
    factors.into_iter().filter_map(name_of_factor).map(|name| folded(&name)).collect()
}

/// The table that a column with a qualifier names.
fn qualifier(expr: &Expr) -> Option<&Ident> {
    match expr {
        Expr::CompoundIdentifier(parts) if parts.len() == 2 => parts.first(),
        _ => None,
    }
}

/// Finds the tables that are taken for columns.
struct Found<'c> {
    relations: Relations<'c>,
    /// From the outside in.
    scopes: Vec<Scope>,
    queries: usize,
    /// Queries by their numbers, with a table of each.
    taken: BTreeSet<(usize, String)>,
}

impl Visitor for Found<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.relations.enter(query);
        let factors = select_of(query).map(relations).unwrap_or_default();
        let known = factors.into_iter().filter_map(|factor| self.relations.of_factor(factor));
        let columns = known.flatten().map(|column| folded(&column)).collect();
        self.scopes.push(Scope { query: self.queries, tables: tables_of(query), columns });
        self.queries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.scopes.pop();
        self.relations.leave();
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let Some(table) = qualifier(expr).map(folded) else { return ControlFlow::Continue(()) };
        let is_named = |scope: &Scope| scope.tables.contains(&table);
        if let Some(at) = self.scopes.iter().rposition(is_named)
            && self.scopes[at + 1..].iter().any(|scope| scope.columns.contains(&table))
        {
            self.taken.insert((self.scopes[at].query, table));
        }
        ControlFlow::Continue(())
    }
}

/// Renames them, where they stand and where they are named.
struct Renamed {
    taken: BTreeSet<(usize, String)>,
    /// The names of the tables of each query, and those that are renamed.
    scopes: Vec<(BTreeSet<String>, BTreeSet<String>)>,
    queries: usize,
}

impl Renamed {
    fn rename(&self, name: &mut Ident) {
        let table = folded(name);
        if let Some((_, renamed)) = self.scopes.iter().rev().find(|(tables, _)| tables.contains(&table))
            && renamed.contains(&table)
        {
            *name = apart(&table);
        }
    }
}

impl VisitorMut for Renamed {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let tables = tables_of(query);
        let is_taken = |table: &&String| self.taken.contains(&(self.queries, (*table).clone()));
        let renamed: BTreeSet<String> = tables.iter().filter(is_taken).cloned().collect();
        self.queries += 1;
        self.scopes.push((tables, renamed.clone()));
        let SetExpr::Select(select) = query.body.as_mut() else { return ControlFlow::Continue(()) };
        for from in &mut select.from {
            let joined = from.joins.iter_mut().map(|join| &mut join.relation);
            for factor in std::iter::once(&mut from.relation).chain(joined) {
                if let Some(name) =
                    name_of_factor(factor).map(|name| folded(&name)).filter(|name| renamed.contains(name))
                {
                    call_apart(factor, &name);
                }
            }
        }
        for item in &mut select.projection {
            if let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) = item
                && let [ObjectNamePart::Identifier(table)] = name.0.as_mut_slice()
            {
                self.rename(table);
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::CompoundIdentifier(parts) if parts.len() == 2 => self.rename(&mut parts[0]),
            // With the schema of the table, which has another name than in its schema now.
            Expr::CompoundIdentifier(parts) if parts.len() == 3 => {
                let mut table = parts[1].clone();
                self.rename(&mut table);
                if table != parts[1] {
                    parts.splice(..2, [table]);
                }
            }
            Expr::QualifiedWildcard(ObjectName(parts), _) => {
                if let [ObjectNamePart::Identifier(table)] = parts.as_mut_slice() {
                    self.rename(table);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn apart(table: &str) -> Ident {
    Ident::with_quote('"', format!("{table}{APART}"))
}

fn call_apart(factor: &mut TableFactor, table: &str) {
    match factor {
        TableFactor::Table { alias, .. } | TableFactor::Derived { alias, .. } | TableFactor::UNNEST { alias, .. } => {
            match alias {
                Some(alias) => alias.name = apart(table),
                None => {
                    *alias = Some(TableAlias { explicit: true, name: apart(table), columns: Vec::new(), at: None });
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::statement;

    fn check(sql: &str, expected: &str) {
        let parsed = statement::parse(sql).expect("valid").remove(0);
        let mut ast = parsed.ast.expect("not empty").as_ref().clone();
        tell_apart(&mut ast, &Catalog::default());
        assert_eq!(ast.to_string().replace(APART, "+"), expected, "{sql}");
    }

    #[test]
    fn a_table_around_is_meant_before_a_column() {
        check(
            "SELECT dev.*, dev.id FROM dev WHERE EXISTS (SELECT 1 FROM (SELECT 1 AS dev) AS r WHERE r.dev = dev.id) ORDER BY dev.id",
            "SELECT \"dev+\".*, \"dev+\".id FROM dev AS \"dev+\" WHERE EXISTS (SELECT 1 FROM (SELECT 1 AS dev) AS r \
             WHERE r.dev = \"dev+\".id) ORDER BY \"dev+\".id",
        );
        check(
            "SELECT d.id FROM dev AS d WHERE EXISTS (SELECT 1 FROM (SELECT 1 AS d) AS r WHERE r.d = d.id AND EXISTS (SELECT 1 FROM e AS d WHERE d.x = r.d))",
            "SELECT \"d+\".id FROM dev AS \"d+\" WHERE EXISTS (SELECT 1 FROM (SELECT 1 AS d) AS r WHERE r.d = \"d+\".id AND \
             EXISTS (SELECT 1 FROM e AS d WHERE d.x = r.d))",
        );
    }

    #[test]
    fn columns_from_around_are_called_as_they_are() {
        check(
            "SELECT l.t FROM j, LATERAL (SELECT j.t, e.v FROM e) AS l",
            "SELECT l.t FROM j, LATERAL (SELECT j.t AS t, e.v FROM e) AS l",
        );
        check(
            "SELECT public.d.id FROM d WHERE EXISTS (SELECT 1 FROM (SELECT 1 AS d) AS r WHERE r.d = d.id)",
            "SELECT \"d+\".id FROM d AS \"d+\" WHERE EXISTS (SELECT 1 FROM (SELECT 1 AS d) AS r WHERE r.d = \"d+\".id)",
        );
    }

    #[test]
    fn messages_say_what_was_written() {
        assert_eq!(as_written(&format!("column dev{APART}.idd does not exist")), "column dev.idd does not exist");
    }

    #[test]
    fn what_is_clear_stays() {
        for sql in [
            "SELECT dev.id FROM dev WHERE EXISTS (SELECT 1 FROM (SELECT 1 AS x) AS r WHERE r.x = dev.id)",
            "SELECT (SELECT dev.id FROM (SELECT 1 AS dev, 2 AS id) AS dev) FROM dev",
            "SELECT dev.id FROM (SELECT 1 AS dev, 2 AS id) AS dev",
        ] {
            check(sql, sql);
        }
    }
}
