//! The first rows of a subquery for each row around it: LATERAL and scalar subqueries that end with LIMIT, which the planner cannot take apart,
//! as a join with numbered rows and as an aggregate.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, ExcludeSelectItem, Expr, Ident, Join, JoinConstraint, JoinOperator, LimitClause, ObjectName,
    ObjectNamePart, OrderByExpr, OrderByKind, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    TableFactor, Value, Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::ddl::folded;
use super::insert::parse_expression;
use super::select_list::is_flat;

/// Columns that number the rows, and that say for which row they are; a number keeps those of several subqueries apart.
const RANK: &str = "annal_rank";
const KEY: &str = "annal_key";
/// Aggregates make one row of many, before LIMIT; so does whatever is told which rows, or in which order.
const AGGREGATES: [&str; 39] = [
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "every",
    "first",
    "first_value",
    "json_agg",
    "json_object_agg",
    "jsonb_agg",
    "jsonb_object_agg",
    "last",
    "last_value",
    "max",
    "median",
    "min",
    "mode",
    "nth_value",
    "percentile_cont",
    "percentile_disc",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "sum",
    "unnest",
    "var_pop",
    "var_samp",
    "variance",
];
const REGRESSION: &str = "regr_";

/// `FROM d JOIN LATERAL (SELECT v FROM m WHERE m.dev = d.id ORDER BY ts DESC LIMIT 1) AS l ON true` as a join with `(SELECT v, row_number() OVER
/// (PARTITION BY m.dev ORDER BY ts DESC) AS annal_rank_0, m.dev AS annal_key_0_0 FROM m) AS l ON l.annal_key_0_0 = d.id AND l.annal_rank_0 <= 1`, and
/// `(SELECT v FROM m WHERE m.dev = d.id ORDER BY ts DESC LIMIT 1)` as `(SELECT first_value(v ORDER BY ts DESC) FROM m WHERE m.dev = d.id)`. What
/// refers to the row around must be qualified and stand in an equality; all else is left as it is.
pub(super) fn rewrite(part: &mut impl VisitMut) {
    let _all = part.visit(&mut FirstRows);
}

struct FirstRows;

impl VisitorMut for FirstRows {
    type Break = ();

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        laterals(select);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Subquery(query) = expr
            && let Some(first) = first_value(query)
        {
            *expr = first;
        }
        ControlFlow::Continue(())
    }
}

/// A subquery of one SELECT that ends with a LIMIT.
struct Limited<'a> {
    select: &'a Select,
    order: Vec<OrderByExpr>,
    limit: u64,
}

impl Limited<'_> {
    fn of(query: &Query) -> Option<Limited<'_>> {
        let SetExpr::Select(select) = query.body.as_ref() else { return None };
        let Some(LimitClause::LimitOffset { limit: Some(Expr::Value(limit)), offset: None, limit_by }) =
            &query.limit_clause
        else {
            return None;
        };
        let Value::Number(limit, _) = &limit.value else { return None };
        let plain = is_flat(query, select)
            && limit_by.is_empty()
            && select.named_window.is_empty()
            && select.qualify.is_none()
            && !select.projection.iter().any(aggregates);
        if !plain {
            return None;
        }
        let order = match query.order_by.as_ref().map(|order| &order.kind) {
            None => Vec::new(),
            Some(OrderByKind::Expressions(order)) => {
                order.iter().map(|by| ordered(select, by)).collect::<Option<Vec<_>>>()?
            }
            Some(OrderByKind::All(_)) => return None,
        };
        Some(Limited { select, order, limit: limit.parse().ok()? })
    }

    fn order_by(&self) -> String {
        if self.order.is_empty() { String::new() } else { format!(" ORDER BY {}", list(&self.order)) }
    }

    /// The names of its own tables.
    fn tables(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for table in &self.select.from {
            names.extend(name_of(&table.relation));
            names.extend(table.joins.iter().filter_map(|join| name_of(&join.relation)));
        }
        names
    }
}

/// What a column of ORDER BY is without the names and numbers that the list of the SELECT gives.
fn ordered(select: &Select, by: &OrderByExpr) -> Option<OrderByExpr> {
    let named = |name: &Ident| {
        select.projection.iter().find_map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } if folded(alias) == folded(name) => Some(expr.clone()),
            _ => None,
        })
    };
    match &by.expr {
        Expr::Value(_) => None,
        Expr::Identifier(name) => {
            let expr = named(name).unwrap_or_else(|| by.expr.clone());
            Some(OrderByExpr { expr, ..by.clone() })
        }
        _ => Some(by.clone()),
    }
}

fn aggregates(item: &SelectItem) -> bool {
    let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { return false };
    let mut found = Calls(false);
    let _all = expr.visit(&mut found);
    found.0
}

struct Calls(bool);

impl Visitor for Calls {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr {
            let name = function.name.0.last().and_then(ObjectNamePart::as_ident).map(folded).unwrap_or_default();
            let told = function.over.is_some() || function.filter.is_some() || !function.within_group.is_empty();
            self.0 |= told || AGGREGATES.contains(&name.as_str()) || name.starts_with(REGRESSION);
        }
        ControlFlow::Continue(())
    }
}

/// Under which name columns of a part of FROM can be qualified.
fn name_of(factor: &TableFactor) -> Option<String> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::UNNEST { alias: Some(alias), .. } => Some(folded(&alias.name)),
        TableFactor::Table { name, alias: None, .. } => name.0.last().and_then(ObjectNamePart::as_ident).map(folded),
        _ => None,
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Which of two sets of names the qualified columns of something belong to.
#[derive(Default)]
struct Sides {
    outer: bool,
    inner: bool,
}

/// `is_outer` says it of a qualifier; a column without one is taken for one of the subquery's own.
struct Qualifiers<'a> {
    is_outer: &'a dyn Fn(&str) -> bool,
    found: Sides,
}

impl Visitor for Qualifiers<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::CompoundIdentifier(parts) => {
                let table = parts.len().checked_sub(2).map(|at| folded(&parts[at])).unwrap_or_default();
                if (self.is_outer)(&table) { self.found.outer = true } else { self.found.inner = true }
            }
            Expr::Identifier(_) => self.found.inner = true,
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn sides(of: &impl Visit, is_outer: &dyn Fn(&str) -> bool) -> Sides {
    let mut qualifiers = Qualifiers { is_outer, found: Sides::default() };
    let _all = of.visit(&mut qualifiers);
    qualifiers.found
}

fn conjuncts(expr: &Expr, into: &mut Vec<Expr>) {
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            conjuncts(left, into);
            conjuncts(right, into);
        }
        Expr::Nested(inner) => conjuncts(inner, into),
        other => into.push(other.clone()),
    }
}

fn first_value(query: &Query) -> Option<Expr> {
    let limited = Limited::of(query).filter(|limited| limited.limit == 1)?;
    let [SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }] =
        limited.select.projection.as_slice()
    else {
        return None;
    };
    let own = limited.tables();
    let is_outer = |table: &str| !own.contains(table);
    if own.is_empty() || !sides(query, &is_outer).outer {
        return None;
    }
    // By more than equalities: that is for `dependent.rs`.
    pairs(limited.select, &is_outer)?;
    let counted = parse_expression(&format!("first_value({value}{})", limited.order_by())).ok()?;
    let mut first = query.clone();
    (first.order_by, first.limit_clause) = (None, None);
    if let SetExpr::Select(select) = first.body.as_mut() {
        select.projection = vec![SelectItem::UnnamedExpr(counted)];
    }
    Some(Expr::Subquery(Box::new(first)))
}

/// A LATERAL subquery with its rows numbered.
struct Numbered {
    factor: TableFactor,
    /// Takes the first of them for each row before it.
    condition: Expr,
    /// The columns that are there for the condition only.
    hidden: Vec<Ident>,
}

/// Rewrites the LATERAL subqueries in FROM. Their added columns are left out wherever all columns are asked for.
fn laterals(select: &mut Select) {
    let mut outer: Vec<String> = Vec::new();
    let mut hidden: BTreeMap<String, Vec<Ident>> = BTreeMap::new();
    let mut conditions = Vec::new();
    for table in &mut select.from {
        // A join that keeps rows without a partner comes before WHERE, where the condition would go.
        let keeps_others = table.joins.iter().any(|join| {
            matches!(
                join.join_operator,
                JoinOperator::Right(_) | JoinOperator::RightOuter(_) | JoinOperator::FullOuter(_)
            )
        });
        let name = name_of(&table.relation);
        if !keeps_others && let Some(first) = numbered(&table.relation, &outer, hidden.len()) {
            table.relation = first.factor;
            conditions.push(first.condition);
            hidden.insert(name.clone().unwrap_or_default(), first.hidden);
        }
        outer.extend(name);
        for join in &mut table.joins {
            let name = name_of(&join.relation);
            if let Some(columns) = numbered_join(join, &outer, hidden.len()) {
                hidden.insert(name.clone().unwrap_or_default(), columns);
            }
            outer.extend(name);
        }
    }
    for condition in conditions {
        select.selection = Some(match select.selection.take() {
            Some(others) => and(others, condition),
            None => condition,
        });
    }
    if hidden.is_empty() {
        return;
    }
    let without = |columns: &mut dyn Iterator<Item = &Ident>| {
        Some(ExcludeSelectItem::Multiple(columns.map(|column| ObjectName::from(vec![column.clone()])).collect()))
    };
    for item in &mut select.projection {
        match item {
            SelectItem::Wildcard(all) => all.opt_exclude = without(&mut hidden.values().flatten()),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(table), all) => {
                let table = table.0.last().and_then(ObjectNamePart::as_ident).map(folded).unwrap_or_default();
                if let Some(columns) = hidden.get(&table) {
                    all.opt_exclude = without(&mut columns.iter());
                }
            }
            _ => {}
        }
    }
}

fn and(left: Expr, right: Expr) -> Expr {
    let nested = |expr| Box::new(Expr::Nested(Box::new(expr)));
    Expr::BinaryOp { left: nested(left), op: BinaryOperator::And, right: nested(right) }
}

/// Rewrites one join; the columns that were added.
fn numbered_join(join: &mut Join, outer: &[String], number: usize) -> Option<Vec<Ident>> {
    let Numbered { factor, condition, hidden } = numbered(&join.relation, outer, number)?;
    let with = |on: &JoinConstraint| match on {
        JoinConstraint::On(others) => Some(JoinConstraint::On(and(others.clone(), condition.clone()))),
        JoinConstraint::None => Some(JoinConstraint::On(condition.clone())),
        JoinConstraint::Using(_) | JoinConstraint::Natural => None,
    };
    let operator = match &join.join_operator {
        JoinOperator::CrossJoin(on) | JoinOperator::Join(on) | JoinOperator::Inner(on) => {
            JoinOperator::Inner(with(on)?)
        }
        JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => JoinOperator::Left(with(on)?),
        _ => return None,
    };
    (join.relation, join.join_operator) = (factor, operator);
    Some(hidden)
}

fn numbered(factor: &TableFactor, outer: &[String], number: usize) -> Option<Numbered> {
    let TableFactor::Derived { lateral: true, subquery, alias: Some(alias), .. } = factor else { return None };
    let limited = Limited::of(subquery)?;
    let own = limited.tables();
    let is_outer = |table: &str| outer.iter().any(|name| name == table) && !own.contains(table);
    let pairs = pairs(limited.select, &is_outer)?;
    let select = limited.select;
    let others_bound = sides(&select.projection, &is_outer).outer
        || sides(&limited.order, &is_outer).outer
        || sides(&select.from, &is_outer).outer;
    let all = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    // New names go by their places: each column must have one, or none of them.
    let renames = !alias.columns.is_empty();
    let unclear = renames && (alias.columns.len() != select.projection.len() || select.projection.iter().any(all));
    if pairs.bound.is_empty() || others_bound || unclear {
        return None;
    }
    let (rank, key) = (format!("{RANK}_{number}"), |at: usize| format!("{KEY}_{number}_{at}"));
    let keys: Vec<&Expr> = pairs.bound.iter().map(|(own, _)| own).collect();
    let numbers = format!("row_number() OVER (PARTITION BY {}{}) AS {rank}", list(&keys), limited.order_by());
    let places = keys.iter().enumerate().map(|(at, own)| format!("{own} AS {}", key(at)));
    let added: Vec<String> = std::iter::once(numbers).chain(places).collect();
    let hidden: Vec<Ident> = std::iter::once(rank.clone()).chain((0..keys.len()).map(key)).map(Ident::new).collect();
    let selection = match pairs.free.as_slice() {
        [] => String::new(),
        free => format!(" WHERE {}", free.iter().map(|expr| format!("({expr})")).collect::<Vec<_>>().join(" AND ")),
    };
    let names: Vec<&Ident> = alias.columns.iter().map(|column| &column.name).chain(&hidden).collect();
    let renamed = if renames { format!(" ({})", list(&names)) } else { String::new() };
    let text = format!(
        "(SELECT {}, {} FROM {}{selection}) AS {}{renamed}",
        list(&select.projection),
        list(&added),
        list(&select.from),
        alias.name,
    );
    let factor = Parser::new(&PostgreSqlDialect {}).try_with_sql(&text);
    let factor = factor.and_then(|mut parser| parser.parse_table_factor()).ok()?;
    let name = &alias.name;
    let equal = pairs.bound.iter().enumerate().map(|(at, (_, outer))| format!("{name}.{} = ({outer})", key(at)));
    let condition: Vec<String> = equal.chain([format!("{name}.{rank} <= {}", limited.limit)]).collect();
    Some(Numbered { factor, condition: parse_expression(&condition.join(" AND ")).ok()?, hidden })
}

/// The conditions of a subquery.
struct Pairs {
    /// What must be equal: an expression of the subquery, and one of the row around it.
    bound: Vec<(Expr, Expr)>,
    /// Those that say nothing of the row around it.
    free: Vec<Expr>,
}

/// `None` when one refers to the row around it in another way.
fn pairs(select: &Select, is_outer: &dyn Fn(&str) -> bool) -> Option<Pairs> {
    let mut all = Vec::new();
    if let Some(selection) = &select.selection {
        conjuncts(selection, &mut all);
    }
    let mut pairs = Pairs { bound: Vec::new(), free: Vec::new() };
    for expr in all {
        if !sides(&expr, is_outer).outer {
            pairs.free.push(expr);
            continue;
        }
        let Expr::BinaryOp { left, op: BinaryOperator::Eq, right } = expr else { return None };
        match (sides(left.as_ref(), is_outer), sides(right.as_ref(), is_outer)) {
            (Sides { outer: false, inner: true }, Sides { outer: true, inner: false }) => {
                pairs.bound.push((*left, *right));
            }
            (Sides { outer: true, inner: false }, Sides { outer: false, inner: true }) => {
                pairs.bound.push((*right, *left));
            }
            _ => return None,
        }
    }
    Some(pairs)
}

#[cfg(test)]
mod tests {
    use crate::session::statement;

    fn check(sql: &str, expected: &str) {
        let parsed = statement::parse(sql).expect("valid").remove(0);
        let mut ast = parsed.ast.expect("not empty").as_ref().clone();
        super::rewrite(&mut ast);
        assert_eq!(ast.to_string(), expected, "{sql}");
    }

    #[test]
    fn the_first_rows_for_each_row_are_numbered() {
        check(
            "SELECT d.name, l.v FROM d JOIN LATERAL (SELECT v FROM m WHERE m.dev = d.id AND v > 0 ORDER BY ts DESC LIMIT 2) AS l ON true",
            "SELECT d.name, l.v FROM d INNER JOIN (SELECT v, row_number() OVER (PARTITION BY m.dev ORDER BY ts DESC) AS annal_rank_0, m.dev AS annal_key_0_0 FROM m WHERE (v > 0)) AS l ON (true) AND (l.annal_key_0_0 = (d.id) AND l.annal_rank_0 <= 2)",
        );
        check(
            "SELECT * FROM d, LATERAL (SELECT m.v AS w FROM m WHERE d.id = m.dev LIMIT 1) l",
            "SELECT * EXCLUDE (annal_rank_0, annal_key_0_0) FROM d, (SELECT m.v AS w, row_number() OVER (PARTITION BY m.dev) AS annal_rank_0, m.dev AS annal_key_0_0 FROM m) AS l WHERE l.annal_key_0_0 = (d.id) AND l.annal_rank_0 <= 1",
        );
    }

    #[test]
    fn the_first_value_for_each_row_is_an_aggregate() {
        check(
            "SELECT (SELECT v FROM m WHERE m.dev = d.id ORDER BY ts DESC LIMIT 1) FROM d",
            "SELECT (SELECT first_value(v ORDER BY ts DESC) FROM m WHERE m.dev = d.id) FROM d",
        );
    }

    #[test]
    fn what_cannot_be_told_apart_stays() {
        for sql in [
            "SELECT (SELECT v FROM m ORDER BY ts DESC LIMIT 1) FROM d",
            "SELECT (SELECT max(v) FROM m WHERE m.dev = d.id LIMIT 1) FROM d",
            "SELECT (SELECT v FROM m WHERE m.dev = d.id AND m.ts < d.ts ORDER BY ts DESC LIMIT 1) FROM d",
            "SELECT l.v FROM d JOIN LATERAL (SELECT v FROM m WHERE m.dev > d.id LIMIT 1) AS l ON true",
            "SELECT l.v FROM d JOIN LATERAL (SELECT v FROM m WHERE m.dev = d.id) AS l ON true",
            "SELECT l.v FROM d JOIN LATERAL (SELECT v FROM m WHERE m.dev = d.id ORDER BY 1 LIMIT 1) AS l ON true",
            "SELECT l.v FROM d, LATERAL (SELECT v FROM m WHERE m.dev = d.id LIMIT 1) AS l RIGHT JOIN e ON e.v = l.v",
        ] {
            check(sql, sql);
        }
    }
}
