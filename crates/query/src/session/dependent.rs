//! Subqueries that depend on the rows around them in a way that the library cannot take apart: by more than equalities below an aggregate, below
//! LIMIT, inside of UNION, in a list.
//!
//! Such a subquery is evaluated for all rows at once, as Neumann and Kemper have it ("Unnesting Arbitrary Queries", BTW 2015). The different values of
//! the outer columns that it refers to, its domain, are joined to the rows that it reads, and stay with them: groups are made for each of these
//! values, LIMIT counts within each, both sides of a join have the same. What comes out has the values beside it, and is joined by them to the rows
//! around.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::alias::AliasGenerator;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, Result, ScalarValue};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::Sort as SortKey;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprFunctionExt, ExprSchemable, Filter, Join, Limit, LogicalPlan, LogicalPlanBuilder,
    Operator, Projection, Sort, SubqueryAlias, Union, Unnest, Window, binary_expr, cast, lit, when,
};

use super::as_of;
use super::pull_up::lateral;

/// The names of the columns of a domain, of the number of a row within a value, and of what says that a group has rows.
const OUTER: &str = "__annal_outer";
const RANK: &str = "__annal_rank";
const THERE: &str = "__annal_there";

/// A subquery that depends on nothing any more.
pub(super) struct Apart {
    /// The columns of the subquery, and those of the domain.
    pub(super) plan: LogicalPlan,
    /// What it referred to, and the columns that have its values.
    keys: Vec<(Expr, Column)>,
}

impl Apart {
    /// The columns that have the values of the outer columns.
    pub(super) fn keys(&self) -> Vec<Expr> {
        self.keys.iter().map(|(_, own)| Expr::Column(own.clone())).collect()
    }

    /// Of which of its rows belong to a row around it.
    pub(super) fn condition(&self) -> Expr {
        same(self.keys.iter().map(|(outer, own)| (outer.clone(), Expr::Column(own.clone()))))
    }
}

/// `subquery` for all the values that the rows of `outer` have at once. Where `absent_is_null` says so, it may lack the row of a value for which it
/// is one row of NULLs. `None` when it refers to other rows too, or does what is not known here.
pub(super) fn apart(
    subquery: &LogicalPlan,
    outer: &LogicalPlan,
    names: &AliasGenerator,
    absent_is_null: bool,
) -> Result<Option<Apart>> {
    let Some(domain) = Domain::of(subquery, outer, names)? else { return Ok(None) };
    let plan = Pushed { names }.plan(subquery, &domain, absent_is_null)?;
    let keys = domain.columns.into_iter().map(|(outer, name)| (outer, Column::new_unqualified(name))).collect();
    Ok(plan.map(|plan| Apart { plan, keys }))
}

/// The different values of the outer columns that a subquery refers to.
#[derive(Clone)]
pub(super) struct Domain {
    pub(super) rows: LogicalPlan,
    /// The outer columns, and what they are called here. An interval is here as a text too: of intervals that are equal one stands for all in a
    /// group, and each is to be found again.
    pub(super) columns: Vec<(Expr, String)>,
}

impl Domain {
    fn of(subquery: &LogicalPlan, outer: &LogicalPlan, names: &AliasGenerator) -> Result<Option<Domain>> {
        let mut columns = Vec::new();
        for reference in subquery.all_out_ref_exprs() {
            let Expr::OuterReferenceColumn(_, column) = reference else { continue };
            if !outer.schema().has_column(&column) {
                return Ok(None);
            }
            let column = Expr::Column(column);
            if matches!(column.get_type(outer.schema())?, DataType::Interval(_)) {
                columns.push((cast(column.clone(), DataType::Utf8), names.next(OUTER)));
            }
            columns.push((column, names.next(OUTER)));
        }
        // The rows around are computed once more: they must be the same.
        if columns.is_empty() || is_volatile(outer)? {
            return Ok(None);
        }
        let values = columns.iter().map(|(column, name)| column.clone().alias(name));
        let rows = LogicalPlanBuilder::from(outer.clone()).project(values.collect::<Vec<_>>())?.distinct()?.build()?;
        Ok(Some(Domain { rows, columns }))
    }

    /// The same by other names, and the condition that both have one value.
    fn again(&self, names: &AliasGenerator) -> Result<(Domain, Expr)> {
        let columns: Vec<_> = self.columns.iter().map(|(column, _)| (column.clone(), names.next(OUTER))).collect();
        let renamed = self.keys().into_iter().zip(&columns).map(|(key, (_, name))| key.alias(name));
        let rows = LogicalPlanBuilder::from(self.rows.clone()).project(renamed.collect::<Vec<_>>())?.build()?;
        let again = Domain { rows, columns };
        let same = same(self.keys().into_iter().zip(again.keys()));
        Ok((again, same))
    }

    pub(super) fn keys(&self) -> Vec<Expr> {
        self.columns.iter().map(|(_, name)| Expr::Column(Column::new_unqualified(name))).collect()
    }

    /// An expression of the subquery over rows that have the values of the domain.
    pub(super) fn settled(&self, expr: Expr) -> Result<Expr> {
        let settled = expr.transform_up(|expr| match expr {
            Expr::OuterReferenceColumn(field, column) => {
                match self.columns.iter().find(|(outer, _)| outer.try_as_col() == Some(&column)) {
                    Some((_, name)) => Ok(Transformed::yes(Expr::Column(Column::new_unqualified(name)))),
                    None => Ok(Transformed::no(Expr::OuterReferenceColumn(field, column))),
                }
            }
            other => Ok(Transformed::no(other)),
        });
        settled.data()
    }

    /// The same of all expressions of a node, by the names that others know them by.
    pub(super) fn all_settled(&self, plan: &LogicalPlan, exprs: &[Expr]) -> Result<Vec<Expr>> {
        let names = NamePreserver::new(plan);
        let settled = |expr: &Expr| Ok(names.save(expr).restore(self.settled(expr.clone())?));
        exprs.iter().map(settled).collect()
    }
}

fn same(pairs: impl Iterator<Item = (Expr, Expr)>) -> Expr {
    conjunction(pairs.map(|(one, other)| binary_expr(one, Operator::IsNotDistinctFrom, other)))
        .unwrap_or_else(|| lit(true))
}

fn is_volatile(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|plan| {
        plan.apply_expressions(|expr| {
            found |= expr.is_volatile();
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

/// Carries a domain into a subquery. Each function gives the node with its columns by their names, and the domain's beside them.
struct Pushed<'n> {
    names: &'n AliasGenerator,
}

impl Pushed<'_> {
    fn plan(&self, plan: &LogicalPlan, domain: &Domain, absent_is_null: bool) -> Result<Option<LogicalPlan>> {
        if plan.all_out_ref_exprs().is_empty() {
            return LogicalPlanBuilder::from(plan.clone()).cross_join(domain.rows.clone())?.build().map(Some);
        }
        match plan {
            LogicalPlan::Filter(filter) => {
                let Some(input) = self.plan(&filter.input, domain, false)? else { return Ok(None) };
                let predicate = domain.settled(filter.predicate.clone())?;
                Ok(Some(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?)))
            }
            LogicalPlan::Projection(projection) => self.projection(plan, projection, domain, absent_is_null),
            // The first of FROM, where it has no rows before it to refer to.
            LogicalPlan::Subquery(subquery) => self.plan(&subquery.subquery, domain, absent_is_null),
            LogicalPlan::SubqueryAlias(alias) => self.alias(alias, domain, absent_is_null),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let input = self.plan(input, domain, false)?;
                Ok(input.map(|input| LogicalPlan::Distinct(Distinct::All(Arc::new(input)))))
            }
            LogicalPlan::Sort(sort) => self.sort(sort, domain),
            LogicalPlan::Limit(limit) => self.limit(limit, domain),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(plan, aggregate, domain, absent_is_null),
            LogicalPlan::Window(window) => self.window(plan, window, domain),
            LogicalPlan::Union(union) => self.union(union, domain),
            LogicalPlan::Join(join) => self.join(join, domain),
            LogicalPlan::Unnest(unnest) => {
                let Some(input) = self.plan(&unnest.input, domain, false)? else { return Ok(None) };
                let unnest = Unnest::try_new(Arc::new(input), unnest.exec_columns.clone(), unnest.options.clone())?;
                Ok(Some(LogicalPlan::Unnest(unnest)))
            }
            _ => Ok(None),
        }
    }

    fn projection(
        &self,
        plan: &LogicalPlan,
        projection: &Projection,
        domain: &Domain,
        absent_is_null: bool,
    ) -> Result<Option<LogicalPlan>> {
        let absent_is_null = absent_is_null && projection.expr.iter().all(keeps_null);
        let Some(input) = self.plan(&projection.input, domain, absent_is_null)? else { return Ok(None) };
        let exprs = domain.all_settled(plan, &projection.expr)?.into_iter().chain(domain.keys());
        LogicalPlanBuilder::from(input).project(exprs.collect::<Vec<_>>())?.build().map(Some)
    }

    /// The domain's columns have no table, so each of the others gets its name.
    fn alias(&self, alias: &SubqueryAlias, domain: &Domain, absent_is_null: bool) -> Result<Option<LogicalPlan>> {
        let Some(input) = self.plan(&alias.input, domain, absent_is_null)? else { return Ok(None) };
        let exprs = all_renamed(&alias.input, alias.schema.columns()).chain(domain.keys());
        LogicalPlanBuilder::from(input).project(exprs.collect::<Vec<_>>())?.build().map(Some)
    }

    fn sort(&self, sort: &Sort, domain: &Domain) -> Result<Option<LogicalPlan>> {
        if sort.fetch.is_some() {
            return Ok(None);
        }
        let Some(input) = self.plan(&sort.input, domain, false)? else { return Ok(None) };
        let expr = keys_of(sort, domain)?;
        Ok(Some(LogicalPlan::Sort(Sort { expr, input: Arc::new(input), fetch: None })))
    }

    /// Rows are numbered within each value.
    fn limit(&self, limit: &Limit, domain: &Domain) -> Result<Option<LogicalPlan>> {
        // What was projected after the order was made is projected after the limit.
        if let LogicalPlan::Projection(projection) = limit.input.as_ref() {
            let limit = LogicalPlan::Limit(Limit { input: Arc::clone(&projection.input), ..limit.clone() });
            let schema = Arc::clone(&projection.schema);
            let projection = Projection::try_new_with_schema(projection.expr.clone(), Arc::new(limit), schema)?;
            return self.plan(&LogicalPlan::Projection(projection), domain, false);
        }
        let skip = limit.skip.as_deref().map_or(Some(0), constant);
        let fetch = limit.fetch.as_deref().map(constant);
        let (Some(skip), false) = (skip, fetch == Some(None)) else { return Ok(None) };
        let (input, keys) = match limit.input.as_ref() {
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => (&sort.input, keys_of(sort, domain)?),
            _ => (&limit.input, Vec::new()),
        };
        let columns = input.schema().columns().into_iter().map(Expr::Column).chain(domain.keys());
        if let (0, Some(Some(1)), LogicalPlan::Sort(sort)) = (skip, fetch, limit.input.as_ref())
            && let Some(nearest) = as_of::nearest(sort, domain, self.names)?
        {
            return LogicalPlanBuilder::from(nearest).project(columns.collect::<Vec<_>>())?.build().map(Some);
        }
        let Some(rows) = self.plan(input, domain, false)? else { return Ok(None) };
        let name = self.names.next(RANK);
        let numbered = row_number().partition_by(domain.keys());
        let numbered = if keys.is_empty() { numbered } else { numbered.order_by(keys) };
        let number = numbered.build()?.alias(&name);
        let rank = || Expr::Column(Column::new_unqualified(&name));
        let mut within = rank().gt(lit(skip));
        if let Some(fetch) = fetch.flatten() {
            within = within.and(rank().lt_eq(lit(skip.saturating_add(fetch))));
        }
        let limited = LogicalPlanBuilder::from(rows).window([number])?.filter(within)?;
        limited.project(columns.collect::<Vec<_>>())?.build().map(Some)
    }

    fn aggregate(
        &self,
        plan: &LogicalPlan,
        aggregate: &Aggregate,
        domain: &Domain,
        absent_is_null: bool,
    ) -> Result<Option<LogicalPlan>> {
        if aggregate.group_expr.iter().any(|group| matches!(group, Expr::GroupingSet(_))) {
            return Ok(None);
        }
        let Some(input) = self.plan(&aggregate.input, domain, false)? else { return Ok(None) };
        let groups = domain.all_settled(plan, &aggregate.group_expr)?.into_iter().chain(domain.keys()).collect();
        let values = domain.all_settled(plan, &aggregate.aggr_expr)?;
        let grouped = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), groups, values)?);
        if !aggregate.group_expr.is_empty() {
            return Ok(Some(grouped));
        }
        let Some(empty) = of_no_rows(aggregate)? else { return Ok(None) };
        if absent_is_null && empty.iter().all(ScalarValue::is_null) {
            return Ok(Some(grouped));
        }
        self.with_empty(aggregate, grouped, empty, domain).map(Some)
    }

    /// An aggregate without groups gives a row also where there are none.
    fn with_empty(
        &self,
        aggregate: &Aggregate,
        grouped: LogicalPlan,
        empty: Vec<ScalarValue>,
        domain: &Domain,
    ) -> Result<LogicalPlan> {
        let (other, same) = domain.again(self.names)?;
        let there = self.names.next(THERE);
        let columns = aggregate.schema.columns();
        let kept = columns.iter().cloned().map(Expr::Column);
        let keys = domain.keys().into_iter().zip(&other.columns).map(|(key, (_, name))| key.alias(name));
        let known = kept.chain(keys).chain([lit(true).alias(&there)]);
        let grouped = LogicalPlanBuilder::from(grouped).project(known.collect::<Vec<_>>())?.build()?;
        let all = LogicalPlanBuilder::from(domain.rows.clone()).join_on(grouped, JoinType::Left, [same])?;
        let is_empty = Expr::Column(Column::new_unqualified(there)).is_null();
        let value = |(column, empty): (Column, ScalarValue)| {
            let value = Expr::Column(column.clone());
            let value = match empty.is_null() {
                true => value,
                false => when(is_empty.clone(), Expr::Literal(empty, None)).otherwise(value)?,
            };
            Ok(renamed(value, column))
        };
        let values = columns.into_iter().zip(empty).map(value).collect::<Result<Vec<_>>>()?;
        all.project(values.into_iter().chain(domain.keys()).collect::<Vec<_>>())?.build()
    }

    fn window(&self, plan: &LogicalPlan, window: &Window, domain: &Domain) -> Result<Option<LogicalPlan>> {
        let Some(input) = self.plan(&window.input, domain, false)? else { return Ok(None) };
        let names = NamePreserver::new(plan);
        let within = |expr: &Expr| {
            let within = domain.settled(expr.clone())?.transform_up(|expr| match expr {
                Expr::WindowFunction(mut call) => {
                    call.params.partition_by.extend(domain.keys());
                    Ok(Transformed::yes(Expr::WindowFunction(call)))
                }
                other => Ok(Transformed::no(other)),
            });
            Ok(names.save(expr).restore(within.data()?))
        };
        let calls = window.window_expr.iter().map(within).collect::<Result<Vec<_>>>()?;
        Ok(Some(LogicalPlan::Window(Window::try_new(calls, Arc::new(input))?)))
    }

    /// Columns go by their places.
    fn union(&self, union: &Union, domain: &Domain) -> Result<Option<LogicalPlan>> {
        let mut inputs = Vec::with_capacity(union.inputs.len());
        for input in &union.inputs {
            let Some(pushed) = self.plan(input, domain, false)? else { return Ok(None) };
            let columns = input.schema().columns().into_iter().map(Expr::Column).chain(domain.keys());
            inputs.push(Arc::new(LogicalPlanBuilder::from(pushed).project(columns.collect::<Vec<_>>())?.build()?));
        }
        let united = LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?);
        let columns: Vec<Expr> = all_renamed(&united, union.schema.columns()).chain(domain.keys()).collect();
        LogicalPlanBuilder::from(united).project(columns)?.build().map(Some)
    }

    /// The side that depends on the domain gets it; both, when each does, or when rows of the other stay that find no partner.
    fn join(&self, join: &Join, domain: &Domain) -> Result<Option<LogicalPlan>> {
        let depends = |side: &LogicalPlan| !side.all_out_ref_exprs().is_empty();
        let (left, right) = (depends(&join.left), depends(&join.right));
        let (other, same) = domain.again(self.names)?;
        let (left, right) = match join.join_type {
            _ if join.null_aware || lateral(&join.right).is_some() => return Ok(None),
            JoinType::Inner if !left && right => (None, Some(domain)),
            JoinType::Right if !left => (None, Some(domain)),
            JoinType::Right => (Some(&other), Some(domain)),
            JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
                (Some(domain), right.then_some(&other))
            }
            _ => return Ok(None),
        };
        let has_both = left.is_some() && right.is_some();
        let side = |plan: &Arc<LogicalPlan>, domain: Option<&Domain>| match domain {
            Some(domain) => self.plan(plan, domain, false),
            None => Ok(Some(plan.as_ref().clone())),
        };
        let (Some(left), Some(right)) = (side(&join.left, left)?, side(&join.right, right)?) else { return Ok(None) };
        let settled =
            |(left, right): &(Expr, Expr)| Ok((domain.settled(left.clone())?, domain.settled(right.clone())?));
        let on = join.on.iter().map(settled).collect::<Result<Vec<_>>>()?;
        let filter = join.filter.clone().map(|filter| domain.settled(filter)).transpose()?;
        let filter = conjunction(filter.into_iter().chain(has_both.then_some(same)));
        let joined = Join::try_new(
            Arc::new(left),
            Arc::new(right),
            on,
            filter,
            join.join_type,
            join.join_constraint,
            join.null_equality,
            false,
        )?;
        let columns = join.schema.columns().into_iter().map(Expr::Column).chain(domain.keys());
        let joined = LogicalPlanBuilder::from(LogicalPlan::Join(joined));
        joined.project(columns.collect::<Vec<_>>())?.build().map(Some)
    }
}

/// The first columns of a plan by the names of others.
pub(super) fn all_renamed(plan: &LogicalPlan, to: Vec<Column>) -> impl Iterator<Item = Expr> {
    plan.schema().columns().into_iter().zip(to).map(|(column, to)| renamed(Expr::Column(column), to))
}

fn renamed(expr: Expr, to: Column) -> Expr {
    match &expr {
        Expr::Column(column) if *column == to => expr,
        _ => expr.alias_qualified(to.relation, to.name),
    }
}

fn keys_of(sort: &Sort, domain: &Domain) -> Result<Vec<SortKey>> {
    let settled = |key: &SortKey| Ok(SortKey { expr: domain.settled(key.expr.clone())?, ..key.clone() });
    sort.expr.iter().map(settled).collect()
}

/// Whether an expression gives NULL when all columns are NULL, as far as it is plain to see.
fn keeps_null(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) => true,
        Expr::Alias(alias) => keeps_null(&alias.expr),
        Expr::Cast(cast) => keeps_null(&cast.expr),
        _ => false,
    }
}

/// What the aggregates give of no rows; `None` when one is computed of others.
fn of_no_rows(aggregate: &Aggregate) -> Result<Option<Vec<ScalarValue>>> {
    let mut values = Vec::with_capacity(aggregate.aggr_expr.len());
    for expr in &aggregate.aggr_expr {
        let Expr::AggregateFunction(call) = expr.clone().unalias() else { return Ok(None) };
        let data_type = expr.get_type(aggregate.input.schema())?;
        values.push(call.func.default_value(&data_type)?);
    }
    Ok(Some(values))
}

/// The number of LIMIT or OFFSET.
pub(super) fn constant(expr: &Expr) -> Option<u64> {
    match expr {
        Expr::Literal(ScalarValue::Int64(Some(rows)), _) => u64::try_from(*rows).ok(),
        Expr::Literal(ScalarValue::Int32(Some(rows)), _) => u64::try_from(*rows).ok(),
        Expr::Cast(cast) => constant(&cast.expr),
        _ => None,
    }
}
