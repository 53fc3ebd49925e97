//! `(SELECT v FROM m AS b WHERE b.dev = a.dev AND b.ts <= a.ts ORDER BY b.ts DESC LIMIT 1)`: for each value the nearest row before it, or behind it.
//!
//! To join all values with all rows before them would take time by the square. Here both lie in one order, by `dev` and `ts`: a count of the rows
//! met so far tells for each value which one was the last, and is the same for that row and for all values up to the next one.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::alias::AliasGenerator;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, Result, ScalarValue, TableReference};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_window::nth_value::first_value_udwf;
use datafusion::logical_expr::expr::{BinaryExpr, FieldMetadata, Sort as SortKey, WindowFunction};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Projection, Sort,
    WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition, lit, when,
};

use super::dependent::Domain;
use super::quantified::is_subquery;

/// The name of what is added, with a number behind it.
const PART: &str = "__annal_as_of";

/// The first row of `sort` for each value of the domain, with the domain's columns beside those of its input; values without a row are left out.
/// `None` when it does not ask for the nearest row.
pub(super) fn nearest(sort: &Sort, domain: &Domain, names: &AliasGenerator) -> Result<Option<LogicalPlan>> {
    let Some(asked) = Asked::of(sort)? else { return Ok(None) };
    let Some(rows) = asked.rows(domain, names)? else { return Ok(None) };
    let mut plan = rows;
    for (node, projection) in asked.projections.iter().rev() {
        let exprs = domain.all_settled(node, &projection.expr)?.into_iter().chain(domain.keys());
        plan = LogicalPlanBuilder::from(plan).project(exprs.collect::<Vec<_>>())?.build()?;
    }
    Ok(Some(plan))
}

/// What is asked of the rows.
struct Asked<'p> {
    /// What is computed of the row that is found, the last first.
    projections: Vec<(&'p LogicalPlan, &'p Projection)>,
    input: &'p Arc<LogicalPlan>,
    /// Conditions that say nothing of the value.
    own: Vec<Expr>,
    /// What must be equal: of the rows, and of the value.
    equal: Vec<(Expr, Expr)>,
    /// By what they are near, and to what.
    key: Expr,
    bound: Expr,
    /// Whether a row is wanted that comes before the bound, rather than behind it; and whether one that is there will do.
    before: bool,
    touches: bool,
    /// Which of several rows is the first.
    then: Vec<SortKey>,
}

impl<'p> Asked<'p> {
    fn of(sort: &'p Sort) -> Result<Option<Asked<'p>>> {
        let mut projections = Vec::new();
        let mut node = sort.input.as_ref();
        while let LogicalPlan::Projection(projection) = node {
            projections.push((node, projection));
            node = projection.input.as_ref();
        }
        let LogicalPlan::Filter(Filter { predicate, input, .. }) = node else { return Ok(None) };
        let computed = |key: &SortKey| {
            let expr = projections.iter().try_fold(key.expr.clone(), |expr, (_, below)| through(expr, below))?;
            Ok(SortKey { expr, ..key.clone() })
        };
        let mut keys = sort.expr.iter().map(computed).collect::<Result<Vec<_>>>()?;
        let all = || keys.iter().map(|key| &key.expr).chain([predicate]);
        if keys.is_empty() || !input.all_out_ref_exprs().is_empty() || !all().all(is_plain) {
            return Ok(None);
        }
        let then = keys.split_off(1);
        let SortKey { expr: key, asc, .. } = keys.remove(0);
        let (mut own, mut equal, mut bounds) = (Vec::new(), Vec::new(), Vec::new());
        for part in split_conjunction(predicate) {
            if !part.contains_outer() {
                own.push(part.clone());
                continue;
            }
            let Some((of_rows, op, of_value)) = sides(part) else { return Ok(None) };
            match op {
                Operator::Eq => equal.push((of_rows, of_value)),
                Operator::Lt | Operator::LtEq if !asc && of_rows == key => {
                    bounds.push((of_value, op == Operator::LtEq))
                }
                Operator::Gt | Operator::GtEq if asc && of_rows == key => bounds.push((of_value, op == Operator::GtEq)),
                _ => return Ok(None),
            }
        }
        let outer = |key: &SortKey| key.expr.contains_outer();
        let ([(bound, touches)], false) = (bounds.as_slice(), key.contains_outer() || then.iter().any(outer)) else {
            return Ok(None);
        };
        let (bound, touches) = (bound.clone(), *touches);
        Ok(Some(Asked { projections, input, own, equal, key, bound, before: !asc, touches, then }))
    }

    /// The row of each value that has one.
    fn rows(&self, domain: &Domain, names: &AliasGenerator) -> Result<Option<LogicalPlan>> {
        let of_rows = self.equal.iter().map(|(of_rows, _)| of_rows).chain([&self.key]);
        let of_value = self.equal.iter().map(|(_, of_value)| of_value).chain([&self.bound]);
        let of_value = of_value.map(|expr| domain.settled(expr.clone())).collect::<Result<Vec<_>>>()?;
        let of_rows: Vec<Expr> = of_rows.cloned().collect();
        let (rows, values) = (self.input.schema(), domain.rows.schema());
        for (one, other) in of_rows.iter().zip(&of_value) {
            let data_type = one.get_type(rows)?;
            if data_type != other.get_type(values)? || !is_ordered_as_equal(&data_type) {
                return Ok(None);
            }
        }
        let column = |name: &String| Expr::Column(Column::new_unqualified(name));
        let named = |count: usize| -> Vec<String> { (0..count).map(|_| names.next(PART)).collect() };
        let (by, then, found) = (named(of_rows.len()), named(self.then.len()), named(rows.fields().len()));
        let (kind, count) = (names.next(PART), names.next(PART));
        // A row that is at the bound comes before the value when it will do.
        let (row, value) = if self.touches { (0_i32, 1_i32) } else { (1, 0) };

        let known = |exprs: &[Expr]| exprs.iter().cloned().map(Expr::is_not_null).collect::<Vec<_>>();
        let null = |expr: &Expr, schema| Ok(Expr::Literal(ScalarValue::try_from(&expr.get_type(schema)?)?, None));
        let all_null = |exprs: &[Expr], schema| exprs.iter().map(|expr| null(expr, schema)).collect::<Result<Vec<_>>>();
        let columns: Vec<Expr> = rows.columns().into_iter().map(Expr::Column).collect();
        let keys: Vec<Expr> = self.then.iter().map(|key| key.expr.clone()).collect();
        let domain_names: Vec<String> = domain.columns.iter().map(|(_, name)| name.clone()).collect();
        let all_names: Vec<&String> =
            by.iter().chain([&kind]).chain(&then).chain(&found).chain(&domain_names).collect();
        let given = |parts: [Vec<Expr>; 5]| -> Vec<Expr> {
            parts.into_iter().flatten().zip(&all_names).map(|(expr, name)| expr.alias(*name)).collect()
        };
        let their =
            given([of_rows.clone(), vec![lit(row)], keys.clone(), columns.clone(), all_null(&domain.keys(), values)?]);
        let asked = conjunction(self.own.iter().cloned().chain(known(&of_rows))).unwrap_or_else(|| lit(true));
        let their = LogicalPlanBuilder::from(self.input.as_ref().clone()).filter(asked)?.project(their)?;
        let its = given([
            of_value.clone(),
            vec![lit(value)],
            all_null(&keys, rows)?,
            all_null(&columns, rows)?,
            domain.keys(),
        ]);
        let asked = conjunction(known(&of_value)).unwrap_or_else(|| lit(true));
        let its = LogicalPlanBuilder::from(domain.rows.clone()).filter(asked)?.project(its)?.build()?;

        let equal: Vec<Expr> = by[..by.len() - 1].iter().map(column).collect();
        let nearer = [(&by[by.len() - 1], self.before), (&kind, true)].map(|(name, asc)| column(name).sort(asc, false));
        // The first of them comes last, next to the value.
        let last = then.iter().zip(&self.then).map(|(name, key)| column(name).sort(!key.asc, !key.nulls_first));
        let order: Vec<SortKey> = nearer.into_iter().chain(last).collect();
        let over = |function: WindowFunctionDefinition, argument: Expr, within: Vec<Expr>| {
            let frame = WindowFrame::new_bounds(
                WindowFrameUnits::Rows,
                WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
                WindowFrameBound::CurrentRow,
            );
            let call = Expr::from(WindowFunction::new(function, vec![argument]));
            call.partition_by(within).order_by(order.clone()).window_frame(frame).build()
        };
        let is_row = when(column(&kind).eq(lit(row)), lit(1_i32)).end()?;
        let met = over(WindowFunctionDefinition::AggregateUDF(count_udaf()), is_row, equal.clone())?.alias(&count);
        let within: Vec<Expr> = equal.into_iter().chain([column(&count)]).collect();
        let first = |name: &String| {
            let function = WindowFunctionDefinition::WindowUDF(first_value_udwf());
            Ok(over(function, column(name), within.clone())?.alias(format!("{name}_first")))
        };
        let firsts = found.iter().map(first).collect::<Result<Vec<_>>>()?;
        // Both sides of a UNION have in common what is NULL in one of them, without what the other says of the type.
        let typed = |value: Expr, (table, field): (Option<&TableReference>, &FieldRef)| {
            let metadata = (!field.metadata().is_empty()).then(|| FieldMetadata::from(field.as_ref()));
            value.alias_qualified_with_metadata(table.cloned(), field.name(), metadata)
        };
        let found = found.iter().map(|name| column(&format!("{name}_first"))).zip(rows.iter());
        let restored = found.chain(domain.keys().into_iter().zip(values.iter())).map(|(value, of)| typed(value, of));
        let wanted = column(&kind).eq(lit(value)).and(column(&count).gt(lit(0_i64)));
        let plan = their.union(its)?.window([met])?.window(firsts)?.filter(wanted)?;
        plan.project(restored.collect::<Vec<_>>())?.build().map(Some)
    }
}

/// A condition that compares something of the rows with something of the value.
fn sides(condition: &Expr) -> Option<(Expr, Operator, Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return None };
    let is_of_rows = |expr: &Expr| !expr.contains_outer() && expr.any_column_refs();
    let is_of_value = |expr: &Expr| expr.contains_outer() && !expr.any_column_refs();
    match (left.as_ref(), right.as_ref()) {
        (left, right) if is_of_rows(left) && is_of_value(right) => Some((left.clone(), *op, right.clone())),
        (left, right) if is_of_value(left) && is_of_rows(right) => Some((right.clone(), op.swap()?, left.clone())),
        _ => None,
    }
}

/// Whether an expression gives the same whenever it is computed, and asks nothing else.
fn is_plain(expr: &Expr) -> bool {
    !expr.is_volatile() && !expr.exists(|part| Ok(is_subquery(part))).unwrap_or(true)
}

/// Whether values of a type that are equal are neighbours in an order, and are of one partition.
fn is_ordered_as_equal(data_type: &DataType) -> bool {
    !data_type.is_floating() && !data_type.is_nested() && !matches!(data_type, DataType::Interval(_))
}

/// An expression over a projection as one over its input.
fn through(expr: Expr, projection: &Projection) -> Result<Expr> {
    let below = expr.transform_up(|part| match part {
        Expr::Column(column) => {
            let at = projection.schema.index_of_column(&column)?;
            Ok(Transformed::yes(projection.expr[at].clone().unalias()))
        }
        other => Ok(Transformed::no(other)),
    });
    below.data()
}
