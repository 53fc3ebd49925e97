//! Which columns the relations of a statement have, as far as it and the catalog tell before it is planned.

use std::ops::ControlFlow;

use cluster::Catalog;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableAlias, TableFactor, VisitMut, VisitorMut,
};

use super::names::{folded, name_of};

/// A relation's columns, as they are referred to; `None` when it is not known which it has.
pub(super) type Columns = Option<Vec<Ident>>;

/// The tables of the catalog, and the queries that have names where the statement is looked at.
pub(super) struct Relations<'c> {
    catalog: &'c Catalog,
    /// The queries of WITH that can be named here: of each query that is open, from the outside in.
    named: Vec<Vec<(String, Columns)>>,
}

/// The relations of FROM, from left to right.
pub(super) fn relations(select: &Select) -> Vec<&TableFactor> {
    select
        .from
        .iter()
        .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)))
        .collect()
}

/// What a join says of its two sides, where it says it.
pub(super) fn constraint(operator: &JoinOperator) -> Option<&JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => Some(constraint),
        _ => None,
    }
}

/// Whether a join of FROM makes one column of two.
pub(super) fn merges(select: &Select) -> bool {
    let mut joins = select.from.iter().flat_map(|from| &from.joins);
    joins
        .any(|join| matches!(constraint(&join.join_operator), Some(JoinConstraint::Using(_) | JoinConstraint::Natural)))
}

/// The same, to be changed.
pub(super) fn constraint_mut(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => Some(constraint),
        _ => None,
    }
}

/// Visits the expressions of a part of one SELECT, from the inside out, but not those of its subqueries, which have relations of their own.
pub(super) fn visit_own(part: &mut impl VisitMut, visit: impl FnMut(&mut Expr)) {
    let _all = part.visit(&mut Own { visit, subqueries: 0 });
}

struct Own<F> {
    visit: F,
    subqueries: usize,
}

impl<F: FnMut(&mut Expr)> VisitorMut for Own<F> {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.subqueries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.subqueries -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.subqueries == 0 {
            (self.visit)(expr);
        }
        ControlFlow::Continue(())
    }
}

/// The name under which a relation's columns are found.
pub(super) fn name_of_factor(factor: &TableFactor) -> Option<Ident> {
    match factor {
        TableFactor::Table { name, alias, .. } => {
            alias.as_ref().map(|alias| alias.name.clone()).or_else(|| name.0.last()?.as_ident().cloned())
        }
        TableFactor::Derived { alias, .. } | TableFactor::UNNEST { alias, .. } => {
            alias.as_ref().map(|alias| alias.name.clone())
        }
        _ => None,
    }
}

/// The columns with the names that an alias gives them.
fn renamed(columns: Columns, alias: &TableAlias) -> Columns {
    let named = alias.columns.iter().map(|column| column.name.clone());
    columns.map(|columns| named.chain(columns.into_iter().skip(alias.columns.len())).collect())
}

/// What a table is called, and in which schema.
fn schema_and_name(name: &ObjectName) -> Option<(String, String)> {
    let parts: Vec<String> = name.0.iter().filter_map(ObjectNamePart::as_ident).map(folded).collect();
    match <[String; 2]>::try_from(parts) {
        Ok([schema, name]) => Some((schema, name)),
        Err(mut parts) if parts.len() == 1 => Some(("public".to_owned(), parts.remove(0))),
        Err(_) => None,
    }
}

impl Relations<'_> {
    /// Among the tables of the catalog.
    pub(super) fn new(catalog: &Catalog) -> Relations<'_> {
        Relations { catalog, named: Vec::new() }
    }

    /// From here on the queries of its WITH can be named.
    pub(super) fn enter(&mut self, query: &Query) {
        self.named.push(Vec::new());
        for table in query.with.iter().flat_map(|with| &with.cte_tables) {
            let columns = renamed(self.of_query(&table.query), &table.alias);
            if let Some(names) = self.named.last_mut() {
                names.push((folded(&table.alias.name), columns));
            }
        }
    }

    /// The query that was entered last has ended.
    pub(super) fn leave(&mut self) {
        self.named.pop();
    }

    /// The columns of a relation of FROM.
    pub(super) fn of_factor(&self, factor: &TableFactor) -> Columns {
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let columns = self.of_table(name);
                match alias {
                    Some(alias) => renamed(columns, alias),
                    None => columns,
                }
            }
            TableFactor::Table { alias: Some(alias), .. } | TableFactor::UNNEST { alias: Some(alias), .. } => {
                let columns: Vec<Ident> = alias.columns.iter().map(|column| column.name.clone()).collect();
                (!columns.is_empty()).then_some(columns)
            }
            TableFactor::Derived { subquery, alias: Some(alias), .. } => renamed(self.of_query(subquery), alias),
            _ => None,
        }
    }

    fn of_table(&self, name: &ObjectName) -> Columns {
        if let Some(columns) = self.of_named_query(name) {
            return columns.clone();
        }
        let (schema, name) = schema_and_name(name)?;
        let quoted = |name: &String| Ident::with_quote('"', name);
        let table = self.catalog.table(&schema, &name).map(|table| &table.definition.columns);
        let columns = table.or_else(|| self.catalog.view(&schema, &name).map(|view| &view.columns))?;
        Some(columns.iter().map(|column| quoted(&column.name)).collect())
    }

    /// The columns of the query of WITH that is called so.
    fn of_named_query(&self, name: &ObjectName) -> Option<&Columns> {
        let [ObjectNamePart::Identifier(name)] = name.0.as_slice() else { return None };
        let mut named = self.named.iter().rev().flat_map(|names| names.iter().rev());
        named.find(|(known, _)| *known == folded(name)).map(|(_, columns)| columns)
    }

    /// A column that is NULL in no row of a relation of FROM; `None` where none is known.
    pub(super) fn never_null(&self, factor: &TableFactor) -> Option<Ident> {
        let TableFactor::Table { name, args: None, .. } = factor else { return None };
        if self.of_named_query(name).is_some() {
            return None;
        }
        let (schema, name) = schema_and_name(name)?;
        let table = self.catalog.table(&schema, &name)?;
        let place = table.definition.columns.iter().position(|column| !column.nullable)?;
        self.of_factor(factor)?.into_iter().nth(place)
    }

    /// The columns of a query.
    pub(super) fn of_query(&self, query: &Query) -> Columns {
        // Its own WITH is not looked into.
        if query.with.is_some() { None } else { self.of_body(&query.body) }
    }

    fn of_body(&self, body: &SetExpr) -> Columns {
        match body {
            SetExpr::Select(select) => self.of_select(select),
            SetExpr::Query(query) => self.of_query(query),
            SetExpr::SetOperation { left, .. } => self.of_body(left),
            SetExpr::Values(values) => {
                let width = values.rows.first()?.len();
                Some((1..=width).map(|number| Ident::new(format!("column{number}"))).collect())
            }
            _ => None,
        }
    }

    fn of_select(&self, select: &Select) -> Columns {
        let mut columns = Vec::new();
        for item in &select.projection {
            match item {
                SelectItem::ExprWithAlias { alias, .. } => columns.push(alias.clone()),
                SelectItem::UnnamedExpr(expr) => columns.push(Ident::with_quote('"', name_of(expr)?)),
                SelectItem::Wildcard(_) => {
                    if merges(select) {
                        return None;
                    }
                    for factor in relations(select) {
                        columns.extend(self.of_factor(factor)?);
                    }
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                    let name = name.0.last()?.as_ident()?;
                    let named = |factor: &&TableFactor| {
                        name_of_factor(factor).is_some_and(|known| folded(&known) == folded(name))
                    };
                    let factors = relations(select);
                    columns.extend(self.of_factor(factors.iter().copied().find(|factor| named(factor))?)?);
                }
                _ => return None,
            }
        }
        Some(columns)
    }
}
