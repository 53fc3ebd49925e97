//! `count(t.*)`, `count(t)`, `t IS NULL`: of a table of FROM the whole row is asked for, which an outer join leaves NULL. The planner knows columns
//! only, and counts all rows for `t.*`; so it is asked of columns, as far as the statement and the catalog tell which there are.

use std::ops::ControlFlow;

use cluster::Catalog;
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    JoinOperator, ObjectName, ObjectNamePart, Query, Select, Statement as Ast, TableFactor, VisitMut, VisitorMut,
};

use super::insert::parse_expression;
use super::names::folded;
use super::relations::{Columns, Relations, name_of_factor, visit_own};

/// Spells out what a statement asks of whole rows.
pub(super) fn spell_out(statement: &mut Ast, catalog: &Catalog) {
    // Most statements ask for nothing of the kind.
    let asked = ast::visit_expressions(&*statement, |expr| match counted(expr).is_some() || tested(expr).is_some() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    if asked.is_break() {
        let _all = VisitMut::visit(statement, &mut Queries(Relations::new(catalog)));
    }
}

/// What may be the name of a relation, and whether it is said to be one.
type Named<'e> = (&'e Ident, bool);

fn named(expr: &Expr) -> Option<Named<'_>> {
    match expr {
        Expr::Identifier(name) => Some((name, false)),
        Expr::QualifiedWildcard(name, _) => last(name),
        _ => None,
    }
}

fn last(name: &ObjectName) -> Option<Named<'_>> {
    Some((name.0.last()?.as_ident()?, true))
}

/// What a call of `count` counts.
fn counted(expr: &Expr) -> Option<Named<'_>> {
    let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = expr else { return None };
    let ([ObjectNamePart::Identifier(function)], [FunctionArg::Unnamed(argument)]) =
        (name.0.as_slice(), list.args.as_slice())
    else {
        return None;
    };
    if !function.value.eq_ignore_ascii_case("count") {
        return None;
    }
    match argument {
        FunctionArgExpr::Expr(expr) => named(expr),
        FunctionArgExpr::QualifiedWildcard(name) => last(name),
        _ => None,
    }
}

/// What is tested for NULL.
fn tested(expr: &Expr) -> Option<Named<'_>> {
    match expr {
        Expr::IsNull(tested) | Expr::IsNotNull(tested) => named(tested),
        _ => None,
    }
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
        let rows = Rows(self.rows(select));
        visit_own(select, |expr| rows.spell_out(expr));
        ControlFlow::Continue(())
    }
}

/// A relation of FROM.
struct Row {
    name: Ident,
    columns: Columns,
    /// A column of it that is NULL only where the whole row is.
    never_null: Option<Ident>,
    /// Whether an outer join may leave the row out.
    may_be_absent: bool,
}

impl Queries<'_> {
    fn rows(&self, select: &Select) -> Vec<Row> {
        let mut rows = Vec::new();
        for from in &select.from {
            let first = rows.len();
            rows.extend(self.row(&from.relation));
            for join in &from.joins {
                use JoinOperator::{FullOuter, Left, LeftOuter, Right, RightOuter};
                if matches!(join.join_operator, Right(_) | RightOuter(_) | FullOuter(_)) {
                    rows[first..].iter_mut().for_each(|row| row.may_be_absent = true);
                }
                let may_be_absent = matches!(join.join_operator, Left(_) | LeftOuter(_) | FullOuter(_));
                rows.extend(self.row(&join.relation).map(|row| Row { may_be_absent, ..row }));
            }
        }
        rows
    }

    fn row(&self, factor: &TableFactor) -> Option<Row> {
        let (columns, never_null) = (self.0.of_factor(factor), self.0.never_null(factor));
        Some(Row { name: name_of_factor(factor)?, columns, never_null, may_be_absent: false })
    }
}

struct Rows(Vec<Row>);

impl Rows {
    /// The relation that is named, unless a column is.
    fn find(&self, (name, is_relation): Named<'_>) -> Option<&Row> {
        let is_same = |known: &Ident| folded(known) == folded(name);
        let is_column = |row: &Row| row.columns.as_ref().is_none_or(|columns| columns.iter().any(is_same));
        if !is_relation && self.0.iter().any(is_column) {
            return None;
        }
        self.0.iter().find(|row| is_same(&row.name))
    }

    fn spell_out(&self, expr: &mut Expr) {
        if let Some(row) = tested(expr).and_then(|named| self.find(named)) {
            let is = if matches!(expr, Expr::IsNull(_)) { "IS NULL" } else { "IS NOT NULL" };
            if let Some(said) = row.of_each(is, " AND ") {
                *expr = said;
            }
        } else if let Some(row) = counted(expr).and_then(|named| self.find(named)) {
            row.count(expr);
        }
    }
}

impl Row {
    /// What is said of each column, all together.
    fn of_each(&self, is: &str, between: &str) -> Option<Expr> {
        let said = self.columns.as_ref()?.iter().map(|column| format!("{}.{column} {is}", self.name));
        parse_expression(&format!("({})", said.collect::<Vec<_>>().join(between))).ok()
    }

    /// Whether the row is there. One of NULLs alone is taken for one that is not, where no column is known to be never NULL.
    fn is_there(&self) -> Option<Expr> {
        match &self.never_null {
            Some(column) => parse_expression(&format!("{}.{column} IS NOT NULL", self.name)).ok(),
            None => self.of_each("IS NOT NULL", " OR "),
        }
    }

    /// Lets `count` count the rows that are there.
    fn count(&self, call: &mut Expr) -> Option<()> {
        let Expr::Function(Function { args: FunctionArguments::List(list), filter, .. }) = call else { return None };
        let argument = match list.duplicate_treatment {
            Some(DuplicateTreatment::Distinct) => {
                let values = self.columns.as_ref()?.iter();
                let values = values.map(|column| Expr::CompoundIdentifier(vec![self.name.clone(), column.clone()]));
                FunctionArgExpr::Expr(Expr::Tuple(values.collect()))
            }
            _ => FunctionArgExpr::Wildcard,
        };
        if self.may_be_absent {
            let is_there = self.is_there()?;
            let only = match filter.take() {
                Some(filter) => Expr::BinaryOp {
                    left: Box::new(Expr::Nested(filter)),
                    op: BinaryOperator::And,
                    right: Box::new(is_there),
                },
                None => is_there,
            };
            *filter = Some(Box::new(only));
        }
        list.args = vec![FunctionArg::Unnamed(argument)];
        Some(())
    }
}
