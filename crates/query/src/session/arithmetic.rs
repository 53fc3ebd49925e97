//! Puts PostgreSQL's arithmetic in the place of the library's, after types are settled and before constants are folded.
//!
//! Times and numerics keep the library's operators. What prunes compares columns with constants, which are folded through these functions.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::functions::math;
use datafusion::logical_expr::expr::{BinaryExpr, Cast, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, merge_schema, split_conjunction_owned};
use datafusion::logical_expr::{Expr, ExprSchemable, Filter, LogicalPlan, ScalarUDF, when};
use datafusion::optimizer::AnalyzerRule;

use crate::functions::arithmetic;

/// Integers and floats refuse what they cannot hold; casts of floats and numerics to integers round.
#[derive(Debug)]
pub(crate) struct CheckArithmetic;

impl AnalyzerRule for CheckArithmetic {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let checked = plan.transform_up_with_subqueries(|plan| {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            let changed = plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let checked = expr.transform_up(|expr| Ok(checked(expr, &schema)))?;
                Ok(checked.update_data(|expr| name.restore(expr)))
            })?;
            changed.map_data(|plan| guard(plan.recompute_schema()?))
        });
        Ok(checked?.data)
    }

    fn name(&self) -> &'static str {
        "check_arithmetic"
    }
}

fn checked(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let is = |expr: &Expr, fits: fn(&DataType) -> bool| expr.get_type(schema).is_ok_and(|data_type| fits(&data_type));
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let ours = arithmetic::of_operator(op)
                .filter(|_| is(&left, is_number) && left.get_type(schema).ok() == right.get_type(schema).ok());
            match ours {
                Some(function) => call(function, vec![*left, *right]),
                None => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
            }
        }
        Expr::Negative(value) if is(&value, is_integer) => call(arithmetic::negate(), vec![*value]),
        Expr::ScalarFunction(ScalarFunction { func, args })
            if func.name() == "abs" && args.len() == 1 && is(&args[0], is_integer) =>
        {
            call(arithmetic::absolute(), args)
        }
        // A literal with a fraction is a numeric, which rounds half away from zero.
        Expr::ScalarFunction(ScalarFunction { func, args })
            if func.name() == "round" && args.len() == 1 && is(&args[0], is_float) && !is_literal(&args[0]) =>
        {
            call(arithmetic::round_even(), args)
        }
        Expr::Cast(Cast { expr, field }) if is_integer(field.data_type()) && is(&expr, is_float) => {
            let is_round =
                matches!(&*expr, Expr::ScalarFunction(function) if function.func.name().starts_with("round"));
            if is_round {
                return Transformed::no(Expr::Cast(Cast { expr, field }));
            }
            let rounded = match &*expr {
                Expr::Literal(ScalarValue::Float64(Some(value)), facts) => {
                    Expr::Literal(ScalarValue::Float64(Some(value.round())), facts.clone())
                }
                _ => call(arithmetic::round_even(), vec![*expr]).data,
            };
            Transformed::yes(Expr::Cast(Cast { expr: Box::new(rounded), field }))
        }
        Expr::Cast(Cast { expr, field }) if is_integer(field.data_type()) && is(&expr, has_fraction) => {
            let rounded = call(math::round(), vec![*expr]).data;
            Transformed::yes(Expr::Cast(Cast { expr: Box::new(rounded), field }))
        }
        Expr::Cast(Cast { expr, field })
            if *field.data_type() == DataType::Float32 && is(&expr, |from| *from == DataType::Float64) =>
        {
            call(arithmetic::to_real(), vec![*expr])
        }
        other => Transformed::no(other),
    }
}

fn call(function: Arc<ScalarUDF>, arguments: Vec<Expr>) -> Transformed<Expr> {
    Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(function, arguments)))
}

fn is_integer(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int16 | DataType::Int32 | DataType::Int64)
}

fn is_float(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float32 | DataType::Float64)
}

fn has_fraction(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Decimal128(_, 1..) | DataType::Decimal256(_, 1..))
}

fn is_number(data_type: &DataType) -> bool {
    is_integer(data_type) || is_float(data_type)
}

fn is_literal(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(..))
}

/// `d <> 0 AND n / d > 1` does not divide where the first condition does not hold: the library evaluates both sides of AND, unless few
/// rows are left. Where the conditions before do not hold, the divisor becomes NULL; of them those count that look at no other columns,
/// so that what divides can still be pushed down as far.
fn guard(plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Filter(Filter { predicate, input, .. }) = plan else { return Ok(plan) };
    let parts = split_conjunction_owned(predicate);
    let mut guarded: Vec<Expr> = Vec::with_capacity(parts.len());
    for (at, part) in parts.iter().enumerate() {
        let columns = part.column_refs();
        let before = conjunction(parts[..at].iter().filter(|before| is_guard(before, &columns)).cloned());
        guarded.push(match before {
            Some(before) => part.clone().transform_up(|expr| guard_divisor(expr, &before))?.data,
            None => part.clone(),
        });
    }
    let predicate = conjunction(guarded).expect("a filter has a condition");
    Ok(LogicalPlan::Filter(Filter::try_new(predicate, input)?))
}

fn is_guard(expr: &Expr, columns: &HashSet<&Column>) -> bool {
    let subqueries = expr.exists(|expr| {
        Ok(matches!(
            expr,
            Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::ScalarSubquery(_)
                | Expr::SetComparison(_)
                | Expr::OuterReferenceColumn(..)
        ))
    });
    !subqueries.unwrap_or(true) && expr.column_refs().is_subset(columns)
}

/// Puts the condition into a division that was not given it before; analysis may come by more than once.
fn guard_divisor(expr: Expr, before: &Expr) -> Result<Transformed<Expr>> {
    match expr {
        Expr::ScalarFunction(mut call) if arithmetic::divides(&call.func) && may_be_zero(&call.args[1]) => {
            let divisor = std::mem::take(&mut call.args[1]);
            call.args[1] = when(before.clone(), divisor).end()?;
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn may_be_zero(divisor: &Expr) -> bool {
    !matches!(divisor, Expr::Literal(..) | Expr::Case(_))
}
