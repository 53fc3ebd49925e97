//! `FROM t AS x (a)` renames the first column of `t` and leaves the others their names; the planner wants a name for each.

use std::ops::ControlFlow;

use cluster::Catalog;
use datafusion::sql::sqlparser::ast::{
    Ident, Query, Select, Statement as Ast, TableAlias, TableAliasColumnDef, TableFactor, Visit, VisitMut, Visitor,
    VisitorMut,
};

use super::relations::{Columns, Relations};

/// Adds the names that aliases leave out, as far as the statement and the catalog tell them.
pub(super) fn spell_out(statement: &mut Ast, catalog: &Catalog) {
    // Most statements name no columns there: to find them out costs more.
    if Visit::visit(&*statement, &mut Naming).is_break() {
        let _all = VisitMut::visit(statement, &mut Queries(Relations::new(catalog)));
    }
}

/// Looks for an alias that names columns.
struct Naming;

impl Visitor for Naming {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let mut tables = query.with.iter().flat_map(|with| &with.cte_tables);
        if tables.any(|table| names_columns(&table.alias)) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let alias = match factor {
            TableFactor::Table { alias, args: None, .. } | TableFactor::Derived { alias, .. } => alias.as_ref(),
            _ => None,
        };
        if alias.is_some_and(names_columns) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

struct Queries<'c>(Relations<'c>);

impl VisitorMut for Queries<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        for table in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
            let columns = self.0.of_query(&table.query);
            complete(&mut table.alias, columns);
        }
        self.0.enter(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.0.leave();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for from in &mut select.from {
            let joined = from.joins.iter_mut().map(|join| &mut join.relation);
            for factor in std::iter::once(&mut from.relation).chain(joined) {
                let columns = self.0.of_factor(factor);
                if let TableFactor::Table { alias: Some(alias), args: None, .. }
                | TableFactor::Derived { alias: Some(alias), .. } = factor
                {
                    complete(alias, columns);
                }
            }
        }
        ControlFlow::Continue(())
    }
}

fn names_columns(alias: &TableAlias) -> bool {
    !alias.columns.is_empty()
}

/// Adds the names of the columns behind those that the alias names.
fn complete(alias: &mut TableAlias, columns: Columns) {
    let named = alias.columns.len();
    if named > 0 {
        let others: Vec<Ident> = columns.into_iter().flatten().skip(named).collect();
        alias.columns.extend(others.into_iter().map(|name| TableAliasColumnDef { name, data_type: None }));
    }
}
