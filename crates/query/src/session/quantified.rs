//! `IN`, `ANY`, `ALL` and `EXISTS` of a subquery, wherever they stand, with three values as PostgreSQL has them, and subqueries that are values.
//!
//! The library knows such a predicate as a join where it is a condition of WHERE by itself. In any other place it would take NULL for false, or not
//! know it at all. There the rows of the node get a column by a join that marks those for which the subquery has a row, and the predicate becomes an
//! expression over such marks: true where one is found, NULL where none is but one may be, else false. What does not depend on the row is asked once,
//! by a count. A subquery that is a value and depends on the row may give one row, which is looked at where it is used: the library wants an
//! aggregate there, and knows it in the list of a SELECT and in a condition only. What depends on the row in ways that the library cannot take apart
//! is evaluated for all rows at once (`dependent.rs`).
//!
//! Types are settled by then: both sides of a comparison have one type.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::common::alias::AliasGenerator;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, Result, ScalarValue, Spans};
use datafusion::functions_aggregate::expr_fn::{array_agg, count};
use datafusion::logical_expr::expr::{
    BinaryExpr, Case, Cast, Exists, InSubquery, Like, ScalarFunction, SetComparison, SetQuantifier,
};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Distinct, Expr, ExprSchemable, Filter, Join, LogicalPlan, LogicalPlanBuilder, Operator, Projection, ScalarUDF,
    Sort, Subquery, SubqueryAlias, binary_expr, lit, not,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::decorrelate::PullUpCorrelatedExpr;

use super::dependent::{self, all_renamed, constant};
use super::lateral_joins;
use super::pull_up::pulled_up;
use crate::functions;

/// The name behind which the rows of a subquery stand.
const ROWS: &str = "__annal_rows";
/// The name of a value that is computed once for a row.
const VALUE: &str = "__annal_value";
/// How the library calls the column that such a join adds.
const MARK: &str = "mark";

/// Says what predicates over subqueries are where the library does not.
#[derive(Debug)]
pub(crate) struct SettleSubqueries {
    names: AliasGenerator,
}

impl Default for SettleSubqueries {
    fn default() -> SettleSubqueries {
        SettleSubqueries { names: AliasGenerator::new() }
    }
}

impl AnalyzerRule for SettleSubqueries {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| self.settled(plan)).data()
    }

    fn name(&self) -> &'static str {
        "settle_subqueries"
    }
}

impl SettleSubqueries {
    fn settled(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let plan = match plan {
            LogicalPlan::Join(join) => match lateral_joins::apart(&join, &self.names)? {
                Some(apart) => return Ok(Transformed::yes(apart)),
                None => LogicalPlan::Join(join),
            },
            plan => plan,
        };
        if let LogicalPlan::SubqueryAlias(alias) = &plan {
            return Ok(match renamed(alias)? {
                Some(renamed) => Transformed::yes(renamed),
                None => Transformed::no(plan),
            });
        }
        let mut found = false;
        plan.apply_expressions(|expr| {
            found |= expr.exists(|part| Ok(is_predicate(part) || is_correlated(part)))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !found {
            return Ok(Transformed::no(plan));
        }
        match plan {
            LogicalPlan::Filter(filter) => self.filtered(filter),
            LogicalPlan::Join(join) => self.joined(join),
            LogicalPlan::Sort(sort) => self.sorted(sort),
            LogicalPlan::Projection(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Distinct(Distinct::On(_)) => self.computed(plan),
            other => Ok(Transformed::no(other)),
        }
    }

    /// The parts of a condition: those that the library makes joins of stay.
    fn filtered(&self, filter: Filter) -> Result<Transformed<LogicalPlan>> {
        let mut marked = Marked::over(filter.input.as_ref(), &self.names);
        let parts = split_conjunction_owned(filter.predicate).into_iter();
        let parts: Vec<Expr> = parts.map(|part| marked.part(part)).collect::<Result<_>>()?;
        let predicate = conjunction(parts).unwrap_or_else(|| lit(true));
        let restored = marked.original();
        let filtered = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(marked.plan))?);
        restore(filtered, restored).map(Transformed::yes)
    }

    /// What is asked of the rows of an inner join may be asked of them afterwards; of another, what looks at one side is asked of that.
    fn joined(&self, mut join: Join) -> Result<Transformed<LogicalPlan>> {
        let Some(predicate) = join.filter.take() else { return Ok(Transformed::no(LogicalPlan::Join(join))) };
        if join.join_type == JoinType::Inner {
            return self.filtered(Filter::try_new(predicate, Arc::new(LogicalPlan::Join(join)))?);
        }
        let columns = join.schema.columns();
        let mut sides = [&join.left, &join.right].map(|side| Marked::over(side, &self.names));
        let settled = predicate.transform_down(|part| {
            if !is_predicate(&part) && !is_correlated(&part) {
                return Ok(Transformed::no(part));
            }
            let side = sides.iter_mut().find(|side| side.has_all(&part));
            let settled = match side {
                Some(side) => {
                    let settled = side.value(part)?;
                    side.apart(settled)?
                }
                None => part,
            };
            Ok(Transformed::new(settled, true, TreeNodeRecursion::Jump))
        })?;
        let added = sides.iter().any(|side| side.original().is_some());
        let [left, right] = sides.map(|side| Arc::new(side.plan));
        (join.left, join.right, join.filter) = (left, right, Some(settled.data));
        let joined = LogicalPlan::Join(join).recompute_schema()?;
        restore(joined, added.then_some(columns)).map(Transformed::yes)
    }

    /// A key may look at columns of the rows that the list of the SELECT leaves out.
    fn sorted(&self, mut sort: Sort) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Projection(projection) = sort.input.as_ref() else {
            return self.computed(LogicalPlan::Sort(sort));
        };
        let below = Marked::over(&projection.input, &self.names);
        let given = Marked::over(&sort.input, &self.names);
        let columns = sort.input.schema().columns();
        let mut exprs = projection.expr.clone();
        for key in &mut sort.expr {
            let settled = key.expr.clone().transform_down(|part| {
                let is_value = is_correlated(&part) || is_predicate(&part);
                if !is_value || given.has_all(&part) || !below.has_all(&part) {
                    return Ok(Transformed::no(part));
                }
                let name = self.names.next(VALUE);
                exprs.push(part.alias(&name));
                Ok(Transformed::new(Expr::Column(Column::new_unqualified(name)), true, TreeNodeRecursion::Jump))
            })?;
            key.expr = settled.data;
        }
        if exprs.len() == columns.len() {
            return self.computed(LogicalPlan::Sort(sort));
        }
        let longer = LogicalPlanBuilder::from(below.plan).project(exprs)?.build()?;
        sort.input = Arc::new(self.computed(longer)?.data);
        let sorted = self.computed(LogicalPlan::Sort(sort))?.data;
        restore(sorted, Some(columns)).map(Transformed::yes)
    }

    fn computed(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let [input] = plan.inputs()[..] else { return Ok(Transformed::no(plan)) };
        // The library knows what depends on the row in a list only.
        let in_list = matches!(plan, LogicalPlan::Projection(_));
        let is_sort = matches!(plan, LogicalPlan::Sort(_));
        let names = NamePreserver::new(&plan);
        let mut marked = Marked::over(input, &self.names);
        let mut exprs = Vec::new();
        for expr in plan.expressions() {
            let name = names.save(&expr);
            let settled = marked.value(expr)?;
            let settled = if in_list { settled } else { marked.apart(settled)? };
            exprs.push(if is_sort { settled } else { name.restore(settled) });
        }
        let keeps = is_sort || matches!(plan, LogicalPlan::Window(_));
        let restored = if keeps { marked.original() } else { None };
        let restored = restored.map(|_| plan.schema().columns());
        restore(with(plan, exprs, marked.plan)?, restored).map(Transformed::yes)
    }
}

/// A plan with other expressions over another input.
fn with(plan: LogicalPlan, mut exprs: Vec<Expr>, input: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Distinct(Distinct::On(mut distinct)) = plan else {
        return plan.with_new_exprs(exprs, vec![input]);
    };
    // The library does not take these at once.
    let keys = exprs.split_off(distinct.on_expr.len() + distinct.select_expr.len());
    for (sort, key) in distinct.sort_expr.iter_mut().flatten().zip(keys) {
        sort.expr = key;
    }
    distinct.select_expr = exprs.split_off(distinct.on_expr.len());
    distinct.on_expr = exprs;
    distinct.input = Arc::new(input);
    Ok(LogicalPlan::Distinct(Distinct::On(distinct)))
}

/// A query in FROM that depends on rows around it with its columns by their names outside: the library does not look through a name.
fn renamed(alias: &SubqueryAlias) -> Result<Option<LogicalPlan>> {
    // What stands behind LATERAL is looked for by its name.
    if matches!(alias.input.as_ref(), LogicalPlan::Subquery(_)) || alias.input.all_out_ref_exprs().is_empty() {
        return Ok(None);
    }
    let named = all_renamed(&alias.input, alias.schema.columns());
    LogicalPlanBuilder::from(alias.input.as_ref().clone()).project(named.collect::<Vec<_>>())?.build().map(Some)
}

/// Takes away the columns that were added.
fn restore(plan: LogicalPlan, columns: Option<Vec<Column>>) -> Result<LogicalPlan> {
    match columns {
        Some(columns) => LogicalPlanBuilder::from(plan).project(columns.into_iter().map(Expr::Column))?.build(),
        None => Ok(plan),
    }
}

fn is_predicate(expr: &Expr) -> bool {
    matches!(expr, Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_))
}

fn is_correlated(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarSubquery(subquery) if !subquery.outer_ref_columns.is_empty())
}

pub(super) fn is_subquery(expr: &Expr) -> bool {
    is_predicate(expr) || matches!(expr, Expr::ScalarSubquery(_))
}

/// `value op ANY (subquery)` or `value op ALL (subquery)`.
#[derive(Clone, Debug)]
struct Quantified {
    value: Expr,
    op: Operator,
    quantifier: SetQuantifier,
    subquery: Subquery,
}

impl Quantified {
    fn of(expr: &Expr) -> Option<Quantified> {
        match expr {
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                let (op, quantifier) = match negated {
                    false => (Operator::Eq, SetQuantifier::Any),
                    true => (Operator::NotEq, SetQuantifier::All),
                };
                Some(Quantified { value: expr.as_ref().clone(), op, quantifier, subquery: subquery.clone() })
            }
            Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => Some(Quantified {
                value: expr.as_ref().clone(),
                op: *op,
                quantifier: *quantifier,
                subquery: subquery.clone(),
            }),
            Expr::Not(inner) => match inner.as_ref() {
                Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                    Quantified::of(&Expr::InSubquery(InSubquery::new(expr.clone(), subquery.clone(), !negated)))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// Of which rows decide: that compare for ANY, that do not for ALL.
    fn decides(&self) -> Expr {
        let compared = |op| match like(op) {
            Some((negated, case_insensitive)) => Expr::Like(Like {
                negated,
                expr: Box::new(self.value.clone()),
                pattern: Box::new(Expr::Column(row())),
                escape_char: None,
                case_insensitive,
            }),
            None => binary_expr(self.value.clone(), op, Expr::Column(row())),
        };
        match (self.quantifier, self.op.negate()) {
            (SetQuantifier::Any, _) => compared(self.op),
            (SetQuantifier::All, Some(opposite)) => compared(opposite),
            (SetQuantifier::All, None) => not(compared(self.op)),
        }
    }

    /// The predicate as the library has it, where it has.
    fn as_in(&self) -> Option<Expr> {
        let negated = match (self.op, self.quantifier) {
            (Operator::Eq, SetQuantifier::Any) => false,
            (Operator::NotEq, SetQuantifier::All) => true,
            _ => return None,
        };
        Some(Expr::InSubquery(InSubquery::new(Box::new(self.value.clone()), self.subquery.clone(), negated)))
    }
}

/// The pattern operators, which the library has as expressions of their own: whether they are negated, and whether case does not matter.
fn like(op: Operator) -> Option<(bool, bool)> {
    match op {
        Operator::LikeMatch => Some((false, false)),
        Operator::ILikeMatch => Some((false, true)),
        Operator::NotLikeMatch => Some((true, false)),
        Operator::NotILikeMatch => Some((true, true)),
        _ => None,
    }
}

/// The rows of a node with the marks that were asked for.
struct Marked<'n> {
    original: LogicalPlan,
    plan: LogicalPlan,
    names: &'n AliasGenerator,
    /// What predicates became. Equal ones become the same: windows over equal keys are computed together.
    known: HashMap<Expr, Expr>,
}

impl<'n> Marked<'n> {
    fn over(input: &LogicalPlan, names: &'n AliasGenerator) -> Marked<'n> {
        Marked { original: input.clone(), plan: input.clone(), names, known: HashMap::new() }
    }

    /// The columns there were, when there are more by now.
    fn original(&self) -> Option<Vec<Column>> {
        let columns = self.original.schema().columns();
        (columns.len() < self.plan.schema().fields().len()).then_some(columns)
    }

    /// Whether the rows have all that a subquery of an expression, and what it is compared with, look at.
    fn has_all(&self, expr: &Expr) -> bool {
        let schema = self.original.schema();
        let here = |outer: &Expr| match outer {
            Expr::OuterReferenceColumn(_, column) => schema.has_column(column),
            _ => false,
        };
        let found = expr.exists(|part| {
            Ok(match part {
                Expr::Column(column) => !schema.has_column(column),
                Expr::Exists(Exists { subquery, .. })
                | Expr::InSubquery(InSubquery { subquery, .. })
                | Expr::SetComparison(SetComparison { subquery, .. })
                | Expr::ScalarSubquery(subquery) => !subquery.outer_ref_columns.iter().all(here),
                _ => false,
            })
        });
        !found.unwrap_or(true)
    }

    /// One of the conditions of WHERE.
    fn part(&mut self, expr: Expr) -> Result<Expr> {
        let expr = peeled(flat(expr))?;
        let is_exists = |expr: &Expr| matches!(expr, Expr::Exists(_));
        let is_join = |expr: &Expr| is_exists(expr) || matches!(expr, Expr::Not(inner) if is_exists(inner));
        if split_conjunction(&expr).into_iter().all(is_join) {
            return if can_be_joined(&expr)? { Ok(expr) } else { self.condition(expr) };
        }
        let Some(mut quantified) = Quantified::of(&expr) else { return self.condition(expr) };
        quantified.subquery = self.named_apart(&quantified.subquery)?;
        if quantified.value.exists(|part| Ok(is_subquery(part)))? || one_row(&quantified.subquery) {
            return self.condition(expr);
        }
        let depends = !quantified.subquery.outer_ref_columns.is_empty();
        match (quantified.as_in(), quantified.quantifier) {
            (Some(semi_join), SetQuantifier::Any) if can_be_joined(&semi_join)? => Ok(semi_join),
            // The library's join knows NULL where it has a column to compare and nothing else.
            (Some(anti_join), SetQuantifier::All) if !depends && !quantified.value.column_refs().is_empty() => {
                Ok(anti_join)
            }
            _ => self.condition(expr),
        }
    }

    /// A condition where NULL counts as false.
    fn condition(&mut self, expr: Expr) -> Result<Expr> {
        let expr = flat(expr);
        if let Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) = expr {
            return Ok(binary_expr(self.condition(*left)?, op, self.condition(*right)?));
        }
        match Quantified::of(&expr) {
            Some(quantified) if quantified.quantifier == SetQuantifier::Any && !one_row(&quantified.subquery) => {
                let value = self.value(quantified.value.clone())?;
                let quantified = Quantified { value: self.once(value)?, ..quantified };
                Ok(self.found(&quantified.subquery, Some(quantified.decides()))?.unwrap_or(expr))
            }
            _ => self.value(expr),
        }
    }

    /// Any expression.
    fn value(&mut self, expr: Expr) -> Result<Expr> {
        let settled = expr.transform_up(|expr| {
            if let Some(settled) = self.known.get(&expr) {
                return Ok(Transformed::yes(settled.clone()));
            }
            let settled = match &expr {
                Expr::ScalarSubquery(subquery) if is_correlated(&expr) => self.row_value(subquery)?,
                Expr::Exists(Exists { subquery, negated }) => {
                    let found = self.found(&bare(subquery), None)?;
                    found.map(|found| if *negated { not(found) } else { found })
                }
                // Its negation is seen where it is negated.
                Expr::Not(_) => None,
                other => match Quantified::of(other) {
                    Some(quantified) => self.quantified(quantified)?,
                    None => None,
                },
            };
            Ok(match settled {
                Some(settled) => {
                    self.known.insert(expr, settled.clone());
                    Transformed::yes(settled)
                }
                None => Transformed::no(expr),
            })
        });
        settled.data()
    }

    /// What may be true, false or NULL.
    fn quantified(&mut self, quantified: Quantified) -> Result<Option<Expr>> {
        if one_row(&quantified.subquery) {
            let only = Expr::ScalarSubquery(quantified.subquery);
            return Ok(Some(binary_expr(quantified.value, quantified.op, only)));
        }
        let quantified = Quantified { value: self.once(quantified.value.clone())?, ..quantified };
        let Some(found) = self.found(&quantified.subquery, Some(quantified.decides()))? else {
            return Ok(None);
        };
        let Some(unknown) = self.unknown(&quantified)? else { return Ok(None) };
        let (decided, otherwise) = match quantified.quantifier {
            SetQuantifier::Any => (true, false),
            SetQuantifier::All => (false, true),
        };
        let null = lit(ScalarValue::Boolean(None));
        let whens =
            [(found, lit(decided))].into_iter().chain(unknown.into_iter().map(|unknown| (unknown, null.clone())));
        let when_then_expr = whens.map(|(when, then)| (Box::new(when), Box::new(then))).collect();
        Ok(Some(Expr::Case(Case { expr: None, when_then_expr, else_expr: Some(Box::new(lit(otherwise))) })))
    }

    /// When a predicate that no row decides is NULL: under any of these conditions. `None` when that cannot be asked.
    fn unknown(&mut self, quantified: &Quantified) -> Result<Option<Vec<Expr>>> {
        let Quantified { value, subquery, .. } = quantified;
        let value_may = value.nullable(self.plan.schema())?;
        let row_may = subquery.subquery.schema().field(0).is_nullable();
        if !value_may && !row_may {
            return Ok(Some(Vec::new()));
        }
        if !subquery.outer_ref_columns.is_empty() {
            let found = self.found(subquery, Some(quantified.decides().is_null()))?;
            return Ok(found.map(|found| vec![found]));
        }
        let mut unknown = Vec::new();
        if value_may {
            let any = self.found(subquery, None)?;
            unknown.extend(any.map(|any| value.clone().is_null().and(any)));
        }
        if row_may {
            unknown.extend(self.found(subquery, Some(Expr::Column(row()).is_null()))?);
        }
        Ok(Some(unknown))
    }

    /// Whether the subquery has a row of which a condition over [`row`] is true. `None` when the rows around it and its own cannot be joined.
    fn found(&mut self, subquery: &Subquery, condition: Option<Expr>) -> Result<Option<Expr>> {
        if one_row(subquery) && condition.is_none() {
            return Ok(Some(lit(true)));
        }
        if condition.as_ref().is_some_and(Expr::contains_outer) {
            return Ok(None);
        }
        let row = row();
        let is_own = |condition: &Expr| condition.column_refs().into_iter().all(|column| *column == row);
        if subquery.outer_ref_columns.is_empty() && condition.as_ref().is_none_or(is_own) {
            return counted(&subquery.subquery, condition).map(Some);
        }
        self.mark(subquery, condition)
    }

    fn mark(&mut self, subquery: &Subquery, condition: Option<Expr>) -> Result<Option<Expr>> {
        if !self.has_all(&Expr::ScalarSubquery(subquery.clone())) {
            return Ok(None);
        }
        let pull_up = PullUpCorrelatedExpr::new().with_exists_sub_query(condition.is_none());
        let asked = if condition.is_some() { self.named_apart(subquery)? } else { subquery.clone() };
        // Where an aggregate would have given a row of no rows, a join finds none.
        let pulled = pulled_up(&asked.subquery, pull_up)?.filter(|(_, pull_up)| !pull_up.pulled_up_scalar_agg);
        let Some((pulled, pull_up)) = pulled else { return self.mark_apart(&asked.subquery, condition) };
        let name = self.names.next(ROWS);
        let rows = LogicalPlanBuilder::from(pulled).alias(name.as_str())?.build()?;
        let here = |column: &Column| Column::new(Some(name.as_str()), &column.name);
        let own: HashSet<Column> = pull_up.correlated_subquery_cols_map.into_values().flatten().collect();
        let joined = pull_up
            .join_filters
            .into_iter()
            .map(|filter| replaced(filter, |column| own.contains(column).then(|| here(column))));
        let first = here(&Column::from(rows.schema().qualified_field(0)));
        let condition = condition.map(|condition| of_row(condition, &first));
        let filters: Vec<Expr> = joined.chain(condition).collect::<Result<_>>()?;
        let filter = conjunction(filters).unwrap_or_else(|| lit(true));
        let columns = rows.schema().columns().into_iter();
        let asked = filter.column_refs();
        let needed: Vec<Expr> = columns.filter(|column| asked.contains(column)).map(Expr::Column).collect();
        let rows = if needed.is_empty() { rows } else { LogicalPlanBuilder::from(rows).project(needed)?.build()? };
        let plan = std::mem::take(&mut self.plan);
        self.plan = LogicalPlanBuilder::from(plan).join_on(rows, JoinType::LeftMark, Some(filter))?.build()?;
        Ok(Some(Expr::Column(Column::new(Some(name), MARK))))
    }

    /// The same of a subquery that the library cannot take apart.
    fn mark_apart(&mut self, subquery: &LogicalPlan, condition: Option<Expr>) -> Result<Option<Expr>> {
        let Some(apart) = dependent::apart(subquery, &self.original, self.names, false)? else { return Ok(None) };
        let name = self.names.next(ROWS);
        let mut columns = apart.keys();
        let mut asked = vec![apart.condition()];
        if let Some(condition) = condition {
            let first = Column::from(subquery.schema().qualified_field(0));
            asked.push(of_row(condition, &first)?);
            columns.push(Expr::Column(first));
        }
        let own: HashSet<Column> = columns.iter().flat_map(Expr::column_refs).cloned().collect();
        let here = |column: &Column| Column::new(Some(name.as_str()), &column.name);
        let asked = asked.into_iter().map(|part| replaced(part, |column| own.contains(column).then(|| here(column))));
        let filter = conjunction(asked.collect::<Result<Vec<_>>>()?);
        let rows = LogicalPlanBuilder::from(apart.plan).project(columns)?.alias(name.as_str())?.build()?;
        let plan = std::mem::take(&mut self.plan);
        self.plan = LogicalPlanBuilder::from(plan).join_on(rows, JoinType::LeftMark, filter)?.build()?;
        Ok(Some(Expr::Column(Column::new(Some(name), MARK))))
    }

    /// What a subquery gives that depends on the row, and may give one row.
    fn row_value(&mut self, subquery: &Subquery) -> Result<Option<Expr>> {
        let (rows, one) = match only(subquery)? {
            Some((rows, one)) => (rows, Some(one)),
            None => (subquery.clone(), None),
        };
        let value_of = |value: Expr| match &one {
            Some(one) => Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(one), vec![value])),
            None => value,
        };
        let pull_up = PullUpCorrelatedExpr::new().with_need_handle_count_bug(true);
        let can_be_joined = pulled_up(&rows.subquery, pull_up)?.is_some();
        if !can_be_joined && self.has_all(&Expr::ScalarSubquery(rows.clone())) {
            let name = self.names.next(VALUE);
            let named = first_named(rows.subquery.as_ref().clone(), &name)?;
            if let Some(apart) = dependent::apart(&named, &self.original, self.names, true)? {
                let filter = apart.condition();
                let plan = std::mem::take(&mut self.plan);
                self.plan = LogicalPlanBuilder::from(plan).join_on(apart.plan, JoinType::Left, [filter])?.build()?;
                return Ok(Some(value_of(Expr::Column(Column::new_unqualified(name)))));
            }
        }
        Ok(one.is_some().then(|| value_of(Expr::ScalarSubquery(rows))))
    }

    /// A subquery that depends on the rows around it, with a name of its own for what it gives: the columns that it is joined by are given
    /// beside it, and one of them may have the same.
    fn named_apart(&self, subquery: &Subquery) -> Result<Subquery> {
        if subquery.outer_ref_columns.is_empty() {
            return Ok(subquery.clone());
        }
        let name = self.names.next(VALUE);
        Ok(subquery.with_plan(Arc::new(first_named(subquery.subquery.as_ref().clone(), &name)?)))
    }

    /// A value that is computed but once for each row, since it is asked for several times.
    fn once(&mut self, value: Expr) -> Result<Expr> {
        if value.is_volatile() || value.exists(|part| Ok(is_subquery(part)))? {
            return self.column(value);
        }
        Ok(value)
    }

    /// The same with what depends on the row in columns of their own.
    fn apart(&mut self, expr: Expr) -> Result<Expr> {
        let apart = expr.transform_down(|part| {
            if !is_correlated(&part) {
                return Ok(Transformed::no(part));
            }
            if let Some(column) = self.known.get(&part) {
                return Ok(Transformed::yes(column.clone()));
            }
            let column = self.column(part.clone())?;
            self.known.insert(part, column.clone());
            Ok(Transformed::yes(column))
        });
        apart.data()
    }

    fn column(&mut self, value: Expr) -> Result<Expr> {
        let name = self.names.next(VALUE);
        let plan = std::mem::take(&mut self.plan);
        let columns = plan.schema().columns().into_iter().map(Expr::Column);
        let columns: Vec<Expr> = columns.chain([value.alias(&name)]).collect();
        self.plan = LogicalPlanBuilder::from(plan).project(columns)?.build()?;
        Ok(Expr::Column(Column::new_unqualified(name)))
    }
}

/// `CASE WHEN EXISTS (...) THEN true WHEN EXISTS (...) THEN NULL ELSE false END` is its first EXISTS where NULL counts as false, and others of its
/// kind likewise are ANDs and ORs.
fn flat(expr: Expr) -> Expr {
    let Expr::Case(case) = &expr else { return expr };
    let asks = case.when_then_expr.iter().all(|(when, _)| matches!(when.as_ref(), Expr::Exists(_)));
    let (true, None, Some(otherwise)) = (asks, &case.expr, case.else_expr.as_deref().and_then(is_true)) else {
        return expr;
    };
    let mut flat = lit(otherwise);
    for (when, then) in case.when_then_expr.iter().rev() {
        let when = when.as_ref().clone();
        let Some(then) = is_true(then) else { return expr };
        flat = match (then, is_true(&flat)) {
            (true, Some(false)) => when,
            (true, _) => when.or(flat),
            (false, Some(true)) => not(when),
            (false, _) => not(when).and(flat),
        };
    }
    flat
}

/// Whether a constant is true, rather than false or NULL.
fn is_true(expr: &Expr) -> Option<bool> {
    match expr {
        Expr::Literal(ScalarValue::Boolean(value), _) => Some(*value == Some(true)),
        Expr::Literal(value, _) if value.is_null() => Some(false),
        Expr::Cast(Cast { expr, .. }) => is_true(expr),
        _ => None,
    }
}

/// A plan whose only column has another name.
fn first_named(plan: LogicalPlan, name: &str) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Projection(projection) if projection.expr.len() == 1 => {
            let given = projection.expr[0].clone().unalias().alias(name);
            Ok(LogicalPlan::Projection(Projection::try_new(vec![given], projection.input)?))
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let input = first_named(Arc::unwrap_or_clone(input), name)?;
            Ok(LogicalPlan::Distinct(Distinct::All(Arc::new(input))))
        }
        plan => {
            let given = Expr::Column(Column::from(plan.schema().qualified_field(0))).alias(name);
            Ok(LogicalPlan::Projection(Projection::try_new(vec![given], Arc::new(plan))?))
        }
    }
}

/// What stands for the column of a subquery in a condition.
fn row() -> Column {
    Column::new(Some(ROWS), VALUE)
}

/// A condition over [`row`] with a column in its place.
fn of_row(condition: Expr, column: &Column) -> Result<Expr> {
    let row = row();
    replaced(condition, |found| (*found == row).then(|| column.clone()))
}

fn replaced(expr: Expr, with: impl Fn(&Column) -> Option<Column>) -> Result<Expr> {
    let replaced = expr.transform_up(|expr| match expr {
        Expr::Column(column) => match with(&column) {
            Some(other) => Ok(Transformed::yes(Expr::Column(other))),
            None => Ok(Transformed::no(Expr::Column(column))),
        },
        other => Ok(Transformed::no(other)),
    });
    replaced.data()
}

/// Whether a subquery that does not depend on the rows around it has a row of which the condition is true.
fn counted(plan: &LogicalPlan, condition: Option<Expr>) -> Result<Expr> {
    let mut rows = LogicalPlanBuilder::from(plan.clone());
    if let Some(condition) = condition {
        rows = rows.filter(of_row(condition, &Column::from(plan.schema().qualified_field(0)))?)?;
    }
    let counted = rows.limit(0, Some(1))?.aggregate(Vec::<Expr>::new(), [count(lit(1_i64))])?.build()?;
    let subquery = Subquery { subquery: Arc::new(counted), outer_ref_columns: Vec::new(), spans: Spans::new() };
    Ok(Expr::ScalarSubquery(subquery).gt(lit(0_i64)))
}

/// What a subquery gives that depends on the rows around it, and gives one row for each of them if it gives any; `None` for one that cannot give more.
fn only(subquery: &Subquery) -> Result<Option<(Subquery, Arc<ScalarUDF>)>> {
    let plan = subquery.subquery.as_ref();
    if plan.max_rows().is_some_and(|rows| rows <= 1) || aggregates(plan) {
        return Ok(None);
    }
    let plan = match plan {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => sort.input.as_ref(),
        other => other,
    };
    let (table, field) = plan.schema().qualified_field(0);
    let value = Expr::Column(Column::from((table, field)));
    let function = functions::only(Arc::clone(field));
    let rows = LogicalPlanBuilder::from(plan.clone()).aggregate(Vec::<Expr>::new(), [array_agg(value)])?.build()?;
    Ok(Some((subquery.with_plan(Arc::new(rows)), function)))
}

/// Whether the library makes joins of all predicates over subqueries in a condition.
fn can_be_joined(condition: &Expr) -> Result<bool> {
    let cannot = condition.exists(|part| match part {
        Expr::Exists(Exists { subquery, .. }) | Expr::InSubquery(InSubquery { subquery, .. }) => {
            let pull_up = PullUpCorrelatedExpr::new().with_exists_sub_query(matches!(part, Expr::Exists(_)));
            let pulled = pulled_up(&subquery.subquery, pull_up)?;
            Ok(pulled.is_none_or(|(_, pull_up)| pull_up.pulled_up_scalar_agg))
        }
        _ => Ok(false),
    })?;
    Ok(!cannot)
}

/// Whether a subquery is an aggregate, as the library wants one that is a value.
fn aggregates(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => aggregates(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => aggregates(&alias.input),
        LogicalPlan::Filter(filter) => {
            matches!(filter.input.as_ref(), LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty())
        }
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        _ => false,
    }
}

/// EXISTS without what does not say whether there is a row.
fn peeled(expr: Expr) -> Result<Expr> {
    let peeled = expr.transform_up(|expr| match expr {
        Expr::Exists(Exists { subquery, negated }) => Ok(Transformed::yes(match one_row(&subquery) {
            true => lit(!negated),
            false => Expr::Exists(Exists { subquery: bare(&subquery), negated }),
        })),
        other => Ok(Transformed::no(other)),
    });
    peeled.data()
}

/// A subquery without its order and its limit, where that leaves a row if there is one.
fn bare(subquery: &Subquery) -> Subquery {
    let mut plan = &subquery.subquery;
    loop {
        plan = match plan.as_ref() {
            LogicalPlan::Sort(sort) if sort.fetch != Some(0) => &sort.input,
            LogicalPlan::Projection(projection) => &projection.input,
            LogicalPlan::Limit(limit) if limit.skip.is_none() && limit.fetch.as_deref().is_none_or(is_positive) => {
                &limit.input
            }
            _ => break,
        }
    }
    let outer_ref_columns = plan.all_out_ref_exprs();
    Subquery { subquery: Arc::clone(plan), outer_ref_columns, spans: Spans::new() }
}

fn is_positive(limit: &Expr) -> bool {
    constant(limit).is_some_and(|rows| rows > 0)
}

/// Whether a subquery gives one row, whatever it reads.
fn one_row(subquery: &Subquery) -> bool {
    let mut plan = subquery.subquery.as_ref();
    loop {
        plan = match plan {
            LogicalPlan::Projection(projection) => &projection.input,
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::Aggregate(aggregate) => return aggregate.group_expr.is_empty(),
            _ => return false,
        }
    }
}
