//! `SELECT -k AS k FROM t ORDER BY k + 1`: what is computed in ORDER BY is computed of columns of FROM, and only a name by itself may be one of the
//! result. The planner looks among those of the result first.
//!
//! So a column of the result that hides one of FROM from such an expression goes by another name, which the client does not see. Below the
//! outermost query others may ask for it by its name: there the expression says whose column it means, as far as the planner takes that. Nor is a
//! subquery a column of the result that has its column's name.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use cluster::Catalog;
use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, OrderBy, OrderByExpr, OrderByKind, Query, Select, SelectItem, SetExpr, Statement as Ast,
    TableFactor, Visit, VisitMut, Visitor, VisitorMut,
};

use super::names::{folded, kept_apart};
use super::relations::{Relations, name_of_factor, relations, visit_own};

/// Lets ORDER BY of a statement's queries mean what PostgreSQL means.
pub(super) fn settle(statement: &mut Ast, catalog: &Catalog) {
    // Most statements order by names: to find out the columns costs more.
    if Visit::visit(&*statement, &mut Computing).is_break() {
        let outermost = outermost(statement);
        let _all = VisitMut::visit(statement, &mut Queries { relations: Relations::new(catalog), depth: 0, outermost });
    }
}

/// Whether the outermost query of a statement is one whose result goes to a client.
fn outermost(statement: &Ast) -> bool {
    match statement {
        Ast::Query(_) => true,
        Ast::Explain { statement, .. } => outermost(statement),
        _ => false,
    }
}

/// Looks for an ORDER BY that computes something.
struct Computing;

impl Visitor for Computing {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if ordered(query).is_some_and(|(_, keys)| keys.iter().any(|key| is_computed(&key.expr))) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

/// The SELECT of a query, and what it is ordered by. What is distinct is ordered by what it gives.
fn ordered(query: &Query) -> Option<(&Select, &[OrderByExpr])> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let OrderByKind::Expressions(keys) = &query.order_by.as_ref()?.kind else { return None };
    select.distinct.is_none().then_some((select.as_ref(), keys.as_slice()))
}

/// Whether it is not the name of a column of the result, or its number.
fn is_computed(key: &Expr) -> bool {
    !matches!(key, Expr::Identifier(_) | Expr::Value(_))
}

struct Queries<'c> {
    relations: Relations<'c>,
    /// How many queries are open.
    depth: usize,
    /// Whether the first of them is the one that the client asked.
    outermost: bool,
}

impl VisitorMut for Queries<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.relations.enter(query);
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        for key in keys_mut(query).iter_mut().filter(|key| is_computed(&key.expr)) {
            visit_own(&mut key.expr, name_value);
        }
        let hidden = self.hidden(query).unwrap_or_default();
        match hidden.is_empty() {
            true => {}
            false if self.outermost && self.depth == 1 => step_aside(query, &hidden),
            false => self.qualify(query, &hidden),
        }
        self.depth -= 1;
        self.relations.leave();
        ControlFlow::Continue(())
    }
}

impl Queries<'_> {
    /// The names of columns of FROM that columns of the result hide from ORDER BY.
    fn hidden(&self, query: &Query) -> Option<BTreeSet<String>> {
        let (select, keys) = ordered(query)?;
        let mut named = BTreeSet::new();
        for key in keys.iter().filter(|key| is_computed(&key.expr)) {
            visit_own(&mut key.expr.clone(), |part| match part {
                Expr::Identifier(name) => drop(named.insert(folded(name))),
                Expr::CompoundIdentifier(parts) => named.extend(parts.last().map(folded)),
                _ => {}
            });
        }
        named.retain(|name| select.projection.iter().any(|item| computes(item, name)));
        named.retain(|name| relations(select).into_iter().any(|factor| self.has(factor, name)));
        Some(named)
    }

    fn has(&self, factor: &TableFactor, name: &str) -> bool {
        self.relations.of_factor(factor).is_some_and(|columns| columns.iter().any(|column| folded(column) == name))
    }

    /// Says whose columns are meant. Rows that are not grouped would have two columns of one name then, which the planner does not take.
    fn qualify(&self, query: &mut Query, hidden: &BTreeSet<String>) {
        let Some((select, _)) = ordered(query) else { return };
        if matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty()) {
            return;
        }
        let owner = |name: &str| {
            let mut owners = relations(select).into_iter().filter(|factor| self.has(factor, name));
            owners.next().and_then(name_of_factor).filter(|_| owners.next().is_none())
        };
        let owners: Vec<_> = hidden.iter().map(|name| (name, owner(name))).collect();
        for key in keys_mut(query).iter_mut().filter(|key| is_computed(&key.expr)) {
            visit_own(&mut key.expr, |part| {
                let Expr::Identifier(name) = part else { return };
                let owner = owners.iter().find(|(hidden, _)| **hidden == folded(name));
                if let Some((_, Some(owner))) = owner {
                    *part = Expr::CompoundIdentifier(vec![owner.clone(), name.clone()]);
                }
            });
        }
    }
}

/// A subquery that is a value has a name that nothing else has: the planner takes it for the column of the result that is called so.
fn name_value(part: &mut Expr) {
    let Expr::Subquery(subquery) = part else { return };
    let SetExpr::Select(select) = subquery.body.as_mut() else { return };
    if let [item] = select.projection.as_mut_slice()
        && let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
        && subquery.order_by.is_none()
    {
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: kept_apart("value", 0) };
    }
}

/// Whether an item gives something else by that name than the column that is called so.
fn computes(item: &SelectItem, name: &str) -> bool {
    let SelectItem::ExprWithAlias { expr, alias } = item else { return false };
    let is_column = match expr {
        Expr::Identifier(column) => folded(column) == name,
        Expr::CompoundIdentifier(parts) => parts.last().is_some_and(|column| folded(column) == name),
        _ => false,
    };
    folded(alias) == name && !is_column
}

/// Gives columns of the result names that hide nothing, also where they are named.
fn step_aside(query: &mut Query, hidden: &BTreeSet<String>) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let mut renamed = Vec::new();
    for (at, item) in select.projection.iter_mut().enumerate() {
        let hides = hidden.iter().any(|name| computes(item, name));
        if let (true, SelectItem::ExprWithAlias { alias, .. }) = (hides, item) {
            let name = folded(alias);
            *alias = kept_apart(&name, at);
            renamed.push((name, alias.clone()));
        }
    }
    for key in keys_mut(query) {
        if let Expr::Identifier(name) = &mut key.expr
            && let Some((_, alias)) = renamed.iter().find(|(before, _)| *before == folded(name))
        {
            *name = alias.clone();
        }
    }
}

fn keys_mut(query: &mut Query) -> &mut [OrderByExpr] {
    match &mut query.order_by {
        Some(OrderBy { kind: OrderByKind::Expressions(keys), .. }) => keys,
        _ => &mut [],
    }
}
