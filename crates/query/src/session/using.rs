//! `JOIN … USING (id)` and NATURAL JOIN: the columns named so are one in the result, the first ones of `*`, and what `id` alone means. Its value is
//! the left one, the right one of a RIGHT JOIN, and of a FULL JOIN whichever is there.
//!
//! The planner takes the first of the two for it where it may, and calls it ambiguous elsewhere. So such a join becomes one with ON, and what names
//! its columns names what they are, as far as the statement and the catalog tell which columns there are.

use std::ops::ControlFlow;

use cluster::Catalog;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, JoinConstraint, JoinOperator, OrderBy, OrderByKind, Query, Select, SelectItem,
    SetExpr, Statement as Ast, TableWithJoins, Value, Visit, VisitMut, Visitor, VisitorMut, WildcardAdditionalOptions,
};

use super::insert::call;
use super::names::{folded, name_of};
use super::relations::{Columns, Relations, constraint, constraint_mut, merges, name_of_factor, visit_own};

/// Spells out the joins of a statement's queries.
pub(super) fn spell_out(statement: &mut Ast, catalog: &Catalog) {
    // Most statements have none of them: to find out the columns costs more.
    if Visit::visit(&*statement, &mut Merging).is_break() {
        // What a query names is looked at from the inside out.
        let _all = VisitMut::visit(statement, &mut Queries(Relations::new(catalog)));
    }
}

/// Looks for a join that makes one column of two.
struct Merging;

impl Visitor for Merging {
    type Break = ();

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if merges(select) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

struct Queries<'c>(Relations<'c>);

impl VisitorMut for Queries<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.0.enter(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        // The queries of WITH are spelled out by now, and tell more.
        self.0.leave();
        self.0.enter(query);
        self.spell_out(&mut query.body, query.order_by.as_mut());
        self.0.leave();
        ControlFlow::Continue(())
    }
}

/// What columns named in a join are.
#[derive(Clone)]
struct Merged {
    name: String,
    value: Expr,
}

/// What joins give.
#[derive(Default)]
struct Joined {
    /// The columns that were named in them.
    merged: Vec<Merged>,
    /// All columns in their order, with what they are; `None` when that is not known.
    all: Option<Vec<(Ident, Expr)>>,
    /// The conditions of the joins that have others now.
    conditions: Vec<Option<Expr>>,
}

impl Queries<'_> {
    fn spell_out(&self, body: &mut SetExpr, order_by: Option<&mut OrderBy>) {
        match body {
            SetExpr::Select(select) => {
                self.spell_out_select(select, order_by);
            }
            SetExpr::SetOperation { left, right, .. } => {
                self.spell_out(left, None);
                self.spell_out(right, None);
            }
            _ => {}
        }
    }

    /// Leaves a SELECT as it is when too little is known.
    fn spell_out_select(&self, select: &mut Select, order_by: Option<&mut OrderBy>) -> Option<()> {
        if !merges(select) {
            return None;
        }
        let mut whole = Joined { all: Some(Vec::new()), ..Joined::default() };
        for from in &select.from {
            let Joined { merged, all, conditions } = self.joined(from)?;
            whole.merged.extend(merged);
            whole.all = whole.all.zip(all).map(|(before, more)| before.into_iter().chain(more).collect());
            whole.conditions.extend(conditions);
        }
        let Joined { merged, all, conditions } = whole;
        select.projection = spelled_items(&select.projection, &merged, all.as_deref())?;
        let joins = select.from.iter_mut().flat_map(|from| &mut from.joins);
        for (join, condition) in joins.zip(conditions) {
            if let (Some(constraint), Some(condition)) = (constraint_mut(&mut join.join_operator), condition) {
                *constraint = JoinConstraint::On(condition);
            }
        }
        // A name that other relations have as well is ambiguous, and the planner says so.
        let count = |name: &str| all.iter().flatten().filter(|(column, _)| folded(column) == name).count();
        let merged: Vec<Merged> = merged.into_iter().filter(|merged| count(&merged.name) <= 1).collect();
        visit_own(select, |expr| spell_names(expr, &merged));
        if let Some(OrderBy { kind: OrderByKind::Expressions(keys), .. }) = order_by {
            for key in keys {
                // The name of a column of the result means that one.
                let is_output = |name: &Ident| select.projection.iter().any(|item| is_named(item, &folded(name)));
                if !matches!(&key.expr, Expr::Identifier(name) if is_output(name)) {
                    visit_own(&mut key.expr, |expr| spell_names(expr, &merged));
                }
            }
        }
        Some(())
    }

    /// What the joins of one item of FROM give; `None` when too little is known.
    fn joined(&self, from: &TableWithJoins) -> Option<Joined> {
        let mut joined = Joined::default();
        let first = (name_of_factor(&from.relation), self.0.of_factor(&from.relation));
        joined.all = columns_of(&first);
        let mut left = vec![first];
        for join in &from.joins {
            let right = (name_of_factor(&join.relation), self.0.of_factor(&join.relation));
            let named = match constraint(&join.join_operator) {
                Some(JoinConstraint::Using(names)) => {
                    names.iter().map(|name| name.0.last()?.as_ident().cloned()).collect::<Option<Vec<Ident>>>()?
                }
                Some(JoinConstraint::Natural) => common(joined.all.as_deref()?, right.1.as_deref()?),
                _ => {
                    joined.all =
                        joined.all.zip(columns_of(&right)).map(|(all, more)| all.into_iter().chain(more).collect());
                    joined.conditions.push(None);
                    left.push(right);
                    continue;
                }
            };
            let mut condition = None;
            let mut values = Vec::new();
            for column in named {
                let ours = left_value(&column, &joined.merged, &left)?;
                let theirs = Expr::CompoundIdentifier(vec![right.0.clone()?, column.clone()]);
                let value = match &join.join_operator {
                    JoinOperator::Right(_) | JoinOperator::RightOuter(_) => theirs.clone(),
                    JoinOperator::FullOuter(_) => call("coalesce", vec![ours.clone(), theirs.clone()]),
                    JoinOperator::Join(_)
                    | JoinOperator::Inner(_)
                    | JoinOperator::Left(_)
                    | JoinOperator::LeftOuter(_) => ours.clone(),
                    _ => return None,
                };
                condition = Some(and(condition, binary(ours, BinaryOperator::Eq, theirs)));
                values.push((column, value));
            }
            let is_named = |column: &Ident| values.iter().any(|(named, _)| folded(named) == folded(column));
            let rest = joined.all.take().zip(columns_of(&right)).map(|(all, more)| all.into_iter().chain(more));
            let rest = rest.map(|rest| rest.filter(|(column, _)| !is_named(column)).collect::<Vec<_>>());
            joined.all = rest.map(|rest| values.iter().cloned().chain(rest).collect());
            joined.merged.retain(|merged| !values.iter().any(|(named, _)| folded(named) == merged.name));
            joined.merged.extend(values.into_iter().map(|(named, value)| Merged { name: folded(&named), value }));
            // Without a common column a NATURAL JOIN pairs all rows.
            joined.conditions.push(Some(condition.unwrap_or_else(|| Expr::Value(Value::Boolean(true).into()))));
            left.push(right);
        }
        Some(joined)
    }
}

/// A relation's columns with what they are.
fn columns_of((name, columns): &(Option<Ident>, Columns)) -> Option<Vec<(Ident, Expr)>> {
    let (name, columns) = (name.as_ref()?, columns.as_ref()?);
    let of = |column: &Ident| (column.clone(), Expr::CompoundIdentifier(vec![name.clone(), column.clone()]));
    Some(columns.iter().map(of).collect())
}

/// The columns that both sides have, in the order of the left one.
fn common(left: &[(Ident, Expr)], right: &[Ident]) -> Vec<Ident> {
    let is_right = |column: &Ident| right.iter().any(|other| folded(other) == folded(column));
    left.iter().map(|(column, _)| column.clone()).filter(|column| is_right(column)).collect()
}

/// What a column of the left side is: one that a join has merged already, or that of the one relation that has it.
fn left_value(column: &Ident, merged: &[Merged], left: &[(Option<Ident>, Columns)]) -> Option<Expr> {
    if let Some(merged) = merged.iter().find(|merged| merged.name == folded(column)) {
        return Some(merged.value.clone());
    }
    let has_it = |columns: &Columns| match columns {
        Some(columns) => columns.iter().any(|known| folded(known) == folded(column)),
        None => true,
    };
    let mut having = left.iter().filter(|(_, columns)| has_it(columns));
    match (having.next(), having.next()) {
        (Some((Some(name), _)), None) => Some(Expr::CompoundIdentifier(vec![name.clone(), column.clone()])),
        _ => None,
    }
}

/// The items of a SELECT list with `*` and the merged columns spelled out, which keep their names.
fn spelled_items(items: &[SelectItem], merged: &[Merged], all: Option<&[(Ident, Expr)]>) -> Option<Vec<SelectItem>> {
    let mut spelled = Vec::with_capacity(items.len());
    for item in items {
        match item {
            SelectItem::Wildcard(options) if is_plain(options) => {
                spelled.extend(all?.iter().map(|(name, value)| named(name.clone(), value.clone())));
            }
            SelectItem::Wildcard(_) => return None,
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => {
                let value = merged.iter().find(|merged| merged.name == folded(name));
                spelled.push(value.map_or_else(|| item.clone(), |merged| named(name.clone(), merged.value.clone())));
            }
            other => spelled.push(other.clone()),
        }
    }
    Some(spelled)
}

fn is_plain(options: &WildcardAdditionalOptions) -> bool {
    let WildcardAdditionalOptions { opt_ilike, opt_exclude, opt_except, opt_replace, opt_rename, opt_alias, .. } =
        options;
    opt_ilike.is_none()
        && opt_exclude.is_none()
        && opt_except.is_none()
        && opt_replace.is_none()
        && opt_rename.is_none()
        && opt_alias.is_none()
}

fn named(alias: Ident, expr: Expr) -> SelectItem {
    match expr {
        Expr::CompoundIdentifier(_) => SelectItem::UnnamedExpr(expr),
        expr => SelectItem::ExprWithAlias { expr, alias },
    }
}

fn is_named(item: &SelectItem, name: &str) -> bool {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => folded(alias) == name,
        SelectItem::UnnamedExpr(expr) => name_of(expr).is_some_and(|known| known == name),
        _ => false,
    }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn and(before: Option<Expr>, more: Expr) -> Expr {
    match before {
        Some(before) => binary(before, BinaryOperator::And, more),
        None => more,
    }
}

/// Puts what they are in the place of merged columns that are named alone.
fn spell_names(expr: &mut Expr, merged: &[Merged]) {
    if let Expr::Identifier(name) = expr
        && let Some(merged) = merged.iter().find(|merged| merged.name == folded(name))
    {
        *expr = merged.value.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::statement;

    fn check(sql: &str, expected: &str) {
        let parsed = statement::parse(sql).expect("valid").remove(0);
        let mut ast = parsed.ast.expect("not empty").as_ref().clone();
        spell_out(&mut ast, &Catalog::default());
        assert_eq!(ast.to_string(), expected, "{sql}");
    }

    const A: &str = "(SELECT 1 AS k, 2 AS x) AS a";
    const B: &str = "(SELECT 1 AS k, 3 AS y) AS b";
    const C: &str = "(SELECT 1 AS k, 4 AS x) AS c";

    #[test]
    fn a_merged_column_is_the_value_of_its_side() {
        for (join, value) in [("JOIN", "a.k"), ("LEFT JOIN", "a.k"), ("RIGHT JOIN", "b.k")] {
            check(
                &format!("SELECT k, k + y FROM {A} {join} {B} USING (k) WHERE k > 0 ORDER BY k, -k"),
                &format!(
                    "SELECT {value}, {value} + y FROM {A} {join} {B} ON a.k = b.k WHERE {value} > 0 ORDER BY k, -{value}"
                ),
            );
        }
        check(
            &format!("SELECT k, count(*) FROM {A} FULL JOIN {B} USING (k) GROUP BY k"),
            &format!(
                "SELECT coalesce(a.k, b.k) AS k, count(*) FROM {A} FULL JOIN {B} ON a.k = b.k GROUP BY coalesce(a.k, b.k)"
            ),
        );
    }

    #[test]
    fn all_columns_begin_with_the_merged_ones() {
        check(
            &format!("SELECT * FROM {A} JOIN {B} USING (k) JOIN {C} USING (x, k)"),
            &format!("SELECT a.x, a.k, b.y FROM {A} JOIN {B} ON a.k = b.k JOIN {C} ON a.x = c.x AND a.k = c.k"),
        );
        check(
            &format!("SELECT * FROM {A} NATURAL JOIN {B}"),
            &format!("SELECT a.k, a.x, b.y FROM {A} JOIN {B} ON a.k = b.k"),
        );
        check(
            &format!("SELECT s.k FROM (SELECT * FROM {A} NATURAL JOIN (SELECT 5 AS z) AS d) AS s JOIN {B} USING (k)"),
            &format!(
                "SELECT s.k FROM (SELECT a.k, a.x, d.z FROM {A} JOIN (SELECT 5 AS z) AS d ON true) AS s JOIN {B} ON s.k = b.k"
            ),
        );
    }

    #[test]
    fn what_is_not_known_is_left_to_the_planner() {
        for sql in [
            "SELECT * FROM nosuch AS a JOIN other AS b USING(k)",
            "SELECT k FROM nosuch AS a NATURAL JOIN other AS b",
            "SELECT k FROM nosuch AS a JOIN other AS b ON true JOIN third AS c USING(k)",
        ] {
            check(sql, sql);
        }
        check(
            "SELECT x FROM nosuch AS a JOIN other AS b USING (k) WHERE k IN (SELECT k FROM third)",
            "SELECT x FROM nosuch AS a JOIN other AS b ON a.k = b.k WHERE a.k IN (SELECT k FROM third)",
        );
    }
}
