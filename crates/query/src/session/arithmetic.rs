//! Puts PostgreSQL's arithmetic in the place of the library's, after types are settled and before constants are folded.
//!
//! Floats become numerics by their digits, and -0 is 0. Times and numerics keep the library's operators. What prunes compares columns with
//! constants, which are folded through these functions.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, JoinConstraint, Result, ScalarValue};
use datafusion::functions::math;
use datafusion::logical_expr::expr::{BinaryExpr, Case, Cast, InList, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, ScalarUDF, lit, when};
use datafusion::optimizer::AnalyzerRule;

use super::{kept_names, protect, truth};
use crate::functions::{arithmetic, float_digits, textcat};

/// Integers and floats refuse what they cannot hold; casts of floats and numerics to integers round.
#[derive(Debug)]
pub(crate) struct CheckArithmetic;

impl AnalyzerRule for CheckArithmetic {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let checked = plan.transform_up_with_subqueries(|plan| {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            let keep_apart: fn(Expr, &DFSchema) -> Result<Transformed<Expr>> = match &plan {
                // Its parts are looked at below, with those before them.
                LogicalPlan::Filter(_) => |expr, _| Ok(Transformed::no(expr)),
                LogicalPlan::Join(_) => protect::protect_parts,
                LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) => {
                    |expr, schema| protect::protect(expr, schema)?.transform_data(truth::as_computed)
                }
                _ => protect::protect,
            };
            let mut check = |expr: Expr| {
                let checked = expr.transform_up(|expr| Ok(checked(expr, &schema)))?;
                checked.transform_data(|expr| keep_apart(expr, &schema))
            };
            let changed = plan.map_expressions(|expr| kept_names::changed(expr, &names, &mut check))?;
            changed.map_data(|plan| protect::guard(keyed(plan).recompute_schema()?))
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
            if op == Operator::StringConcat && is(&left, DataType::is_string) && is(&right, DataType::is_string) {
                return call(textcat(), vec![*left, *right]);
            }
            let ours = arithmetic::of_operator(op).filter(|_| {
                let data_type = type_of(&left, schema);
                data_type.as_ref().is_some_and(is_number) && data_type == type_of(&right, schema)
            });
            match ours {
                Some(function) => joined(function, *left, op, *right),
                None => of_one_zero(Expr::BinaryExpr(BinaryExpr { left, op, right }), schema),
            }
        }
        Expr::Negative(value) if is(&value, is_integer) => call(arithmetic::negate(), vec![*value]),
        Expr::ScalarFunction(ScalarFunction { func, args })
            if func.name() == "abs" && args.len() == 1 && is(&args[0], is_integer) =>
        {
            call(arithmetic::absolute(), args)
        }
        Expr::ScalarFunction(ScalarFunction { func, args })
            if func.name() == "round" && args.len() == 1 && is(&args[0], is_float) =>
        {
            call(arithmetic::round_even(), args)
        }
        Expr::Cast(Cast { expr, field }) if is_integer(field.data_type()) && is(&expr, is_float) => {
            let is_round =
                matches!(&*expr, Expr::ScalarFunction(function) if function.func.name().starts_with("round"));
            if is_round {
                return Transformed::no(Expr::Cast(Cast { expr, field }));
            }
            let rounded = call(arithmetic::round_even(), vec![*expr]).data;
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
        Expr::Cast(Cast { expr, field }) => match field.data_type() {
            DataType::Decimal128(precision, scale) if is(&expr, is_float) => {
                call(float_digits::to_numeric(*precision, *scale), vec![*expr])
            }
            _ => Transformed::no(Expr::Cast(Cast { expr, field })),
        },
        other => of_one_zero(other, schema),
    }
}

/// A join whose keys are found by their bits finds 0 by -0.
fn keyed(plan: LogicalPlan) -> LogicalPlan {
    match plan {
        LogicalPlan::Join(mut join) if join.join_constraint == JoinConstraint::On => {
            for (left, right) in &mut join.on {
                *left = unsigned_zero(std::mem::take(left), join.left.schema());
                *right = unsigned_zero(std::mem::take(right), join.right.schema());
            }
            LogicalPlan::Join(join)
        }
        other => other,
    }
}

/// A float without the sign of -0; anything else stays as it is.
pub(super) fn unsigned_zero(expr: Expr, schema: &DFSchema) -> Expr {
    let function = arithmetic::unsigned_zero();
    let is_done = matches!(&expr, Expr::ScalarFunction(call) if call.func.name() == function.name());
    match !is_done && protect::may_be_zero(&expr) && expr.get_type(schema).is_ok_and(|t| is_float(&t)) {
        true => call(function, vec![expr]).data,
        false => expr,
    }
}

/// The library tells -0 from 0 where it looks a float up rather than comparing it, as it may where two columns are equal.
fn of_one_zero(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let is_of_floats = |expr: &Expr| expr.get_type(schema).is_ok_and(|data_type| is_float(&data_type));
    let unsigned = |expr: Expr| unsigned_zero(expr, schema);
    let has_columns = |expr: &Expr| !expr.column_refs().is_empty();
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Eq | Operator::IsNotDistinctFrom), right })
            if is_of_floats(&left) && has_columns(&left) && has_columns(&right) =>
        {
            let (left, right) = (Box::new(unsigned(*left)), Box::new(unsigned(*right)));
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::AggregateFunction(mut aggregate) if aggregate.params.distinct => {
            aggregate.params.args = aggregate.params.args.into_iter().map(unsigned).collect();
            for sort in &mut aggregate.params.order_by {
                sort.expr = unsigned(std::mem::take(&mut sort.expr));
            }
            Transformed::yes(Expr::AggregateFunction(aggregate))
        }
        Expr::InList(InList { expr, list, negated })
            if is_of_floats(&expr) && list.iter().any(protect::may_be_zero) =>
        {
            let list = list.into_iter().map(unsigned).collect();
            Transformed::yes(Expr::InList(InList { expr: Box::new(unsigned(*expr)), list, negated }))
        }
        Expr::Case(Case { expr: Some(value), when_then_expr, else_expr }) if is_of_floats(&value) => {
            let branches = when_then_expr.into_iter().map(|(when, then)| (Box::new(unsigned(*when)), then)).collect();
            let expr = Some(Box::new(unsigned(*value)));
            Transformed::yes(Expr::Case(Case { expr, when_then_expr: branches, else_expr }))
        }
        Expr::ScalarFunction(call) if call.func.name() == "nullif" && call.args.iter().all(is_of_floats) => {
            match null_if_equal(&call.args, schema) {
                Some(case) => Transformed::yes(case),
                None => Transformed::no(Expr::ScalarFunction(call)),
            }
        }
        Expr::WindowFunction(mut window) => {
            let keys = std::mem::take(&mut window.params.partition_by);
            window.params.partition_by = keys.into_iter().map(unsigned).collect();
            for sort in &mut window.params.order_by {
                sort.expr = unsigned(std::mem::take(&mut sort.expr));
            }
            Transformed::yes(Expr::WindowFunction(window))
        }
        other => Transformed::no(other),
    }
}

/// NULLIF as a comparison; `None` where the value would be another each time, or what is compared is not of one type.
fn null_if_equal(arguments: &[Expr], schema: &DFSchema) -> Option<Expr> {
    let [value, other] = arguments else { return None };
    let data_type = type_of(value, schema)?;
    if type_of(other, schema)? != data_type || value.is_volatile() {
        return None;
    }
    let null = lit(ScalarValue::try_from(&data_type).ok()?);
    when(value.clone().eq(other.clone()), null).otherwise(value.clone()).ok()
}

/// A call, or the call that `left` is with another argument.
fn joined(function: Arc<ScalarUDF>, left: Expr, op: Operator, right: Expr) -> Transformed<Expr> {
    match left {
        Expr::ScalarFunction(ScalarFunction { func, mut args }) => match arithmetic::longer(&func, op) {
            Some(longer) => {
                args.push(right);
                call(longer, args)
            }
            None => call(function, vec![Expr::ScalarFunction(ScalarFunction { func, args }), right]),
        },
        left => call(function, vec![left, right]),
    }
}

/// The type of an operand. Of a call it is that of its last argument, below which there is less than below the first.
fn type_of(expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if arithmetic::is_of_one_type(func) => {
            type_of(args.last()?, schema)
        }
        other => other.get_type(schema).ok(),
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
