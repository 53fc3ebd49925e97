//! Types of parameters: those that a driver declares, and those that an operator tells of an array.
//!
//! The planner knows a parameter's type from what stands beside it only. A declared one is written as a cast, which planning then takes as it
//! takes every other; a value of that type passes it unchanged.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::ast::{
    CastKind, DataType as SqlType, Expr as Written, Statement as Ast, Value, VisitMut, VisitorMut, visit_expressions,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use event::ColumnType;

use super::insert::{call, text_parameter};
use crate::functions::{ARRAY_OF, ELEMENT_OF};

/// The protocol counts the parameters of a statement in 16 bits.
const PARAMETERS_MAX: usize = 65_535;

/// Writes `$1` as `CAST($1 AS type)` where its type is declared, and `x = ANY($1)` so that an array of whatever `x` is is meant where it is not.
/// The columns of the statement are named already.
pub(super) fn spell_out(statement: &mut Ast, declared: &[Option<FieldRef>]) {
    let types = declared.iter().map(|field| field.as_ref().and_then(sql_type)).collect();
    let _all = VisitMut::visit(statement, &mut Parameters(types));
}

struct Parameters(Vec<Option<SqlType>>);

impl VisitorMut for Parameters {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Written) -> ControlFlow<()> {
        match expr {
            Written::AnyOp { left, right, .. } | Written::AllOp { left, right, .. } if is_to_settle(left, right) => {
                let (element, array) = (left.as_ref().clone(), right.as_ref().clone());
                if number(right).is_none() && !is_text(right) {
                    **left = call(ELEMENT_OF, vec![array.clone(), element.clone()]);
                }
                **right = call(ARRAY_OF, vec![element, array]);
            }
            _ => {}
        }
        if let Written::Value(_) = expr
            && let Some(data_type) = number(expr).and_then(|number| self.0.get(number).cloned().flatten())
        {
            let parameter = Box::new(std::mem::replace(expr, Written::Value(Value::Null.into())));
            *expr = Written::Cast { kind: CastKind::Cast, expr: parameter, data_type, array: false, format: None };
        }
        ControlFlow::Continue(())
    }
}

/// Types of `$1`, `$2`, …: what the client named, else what the plan says where it names one first, else text.
pub(super) fn types(plan: &LogicalPlan, given: &[Option<FieldRef>]) -> Result<Vec<FieldRef>> {
    let mut types: Vec<Option<FieldRef>> = given.to_vec();
    let mut note = |name: &str, field: Option<&FieldRef>| {
        let Some(number) = name.strip_prefix('$').and_then(|number| number.parse::<usize>().ok()) else { return };
        if number > PARAMETERS_MAX {
            return;
        }
        types.resize(types.len().max(number), None);
        if let (Some(slot), Some(field)) = (number.checked_sub(1).and_then(|at| types.get_mut(at)), field) {
            slot.get_or_insert_with(|| Arc::clone(field));
        }
    };
    let count: FieldRef = Arc::new(Field::new("", DataType::Int64, true));
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Limit(limit) = node {
            for expr in limit.skip.iter().chain(&limit.fetch) {
                if let Expr::Placeholder(placeholder) = expr.as_ref() {
                    note(&placeholder.id, Some(&count));
                }
            }
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                match expr {
                    Expr::Placeholder(placeholder) => note(&placeholder.id, placeholder.field.as_ref()),
                    // `$1::type`, and what stands where such a type is expected.
                    Expr::Cast(cast) => {
                        if let Expr::Placeholder(placeholder) = cast.expr.as_ref() {
                            note(&placeholder.id, placeholder.field.as_ref().or(Some(&cast.field)));
                        }
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(types.into_iter().map(|known| known.unwrap_or_else(text_parameter)).collect())
}

/// Gives numerics among the values the type that has their digits; the types of all parameters that are then to be declared, if those are others
/// than `declared`.
pub(super) fn with_digits(values: &mut [ScalarValue], declared: &[Option<FieldRef>]) -> Option<Vec<Option<FieldRef>>> {
    let mut types = declared.to_vec();
    for (at, value) in values.iter_mut().enumerate() {
        if let ScalarValue::Decimal128(Some(_), precision, _) = value {
            *precision = DECIMAL128_MAX_PRECISION;
        }
        let data_type = value.data_type();
        let is_numeric = match &data_type {
            DataType::Decimal128(..) => !value.is_null(),
            DataType::List(element) => matches!(element.data_type(), DataType::Decimal128(..)) && !value.is_null(),
            _ => false,
        };
        if is_numeric {
            types.resize(types.len().max(at + 1), None);
            types[at] = Some(Arc::new(Field::new("", data_type, true)));
        }
    }
    (types != declared).then_some(types)
}

/// Whether the library would not compare a value with the elements of an array as they are written: of an array that is a text or a parameter it
/// does not know the type, and numerics it compares with their like only.
fn is_to_settle(value: &Written, array: &Written) -> bool {
    let is_parameter = |expr: &Written| match expr {
        Written::Cast { expr, .. } => number(expr).is_some(),
        other => number(other).is_some(),
    };
    let has_point = |expr: &Written| match expr {
        Written::Value(v) => matches!(&v.value, Value::Number(text, _) if text.contains('.')),
        _ => false,
    };
    let mentions = |expr: &Written| {
        let found = visit_expressions(expr, |part| match has_point(part) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        });
        found.is_break()
    };
    match array {
        Written::Subquery(_) => false,
        array => is_text(array) || is_parameter(array) || mentions(value) || mentions(array),
    }
}

fn is_text(expr: &Written) -> bool {
    matches!(expr, Written::Value(value) if matches!(value.value, Value::SingleQuotedString(_)))
}

/// `$1` is 0.
fn number(expr: &Written) -> Option<usize> {
    match expr {
        Written::Nested(inner) => number(inner),
        Written::Value(value) => match &value.value {
            Value::Placeholder(name) => name.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1),
            _ => None,
        },
        _ => None,
    }
}

/// The type as a statement names it.
fn sql_type(field: &FieldRef) -> Option<SqlType> {
    let name = ColumnType::of(field)?.to_string();
    Parser::new(&PostgreSqlDialect {}).try_with_sql(&name).and_then(|mut parser| parser.parse_data_type()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::statement;

    fn check(sql: &str, declared: &[Option<ColumnType>], expected: &str) {
        let mut ast = statement::parse(sql).expect("valid").remove(0).ast.expect("not empty").as_ref().clone();
        let field = |declared: &Option<ColumnType>| declared.map(|declared| Arc::new(declared.field("", true)));
        spell_out(&mut ast, &declared.iter().map(field).collect::<Vec<_>>());
        assert_eq!(ast.to_string(), expected, "{sql}");
    }

    #[test]
    fn declared_types_are_casts() {
        check("SELECT id + $1 FROM t", &[Some(ColumnType::SmallInt)], "SELECT id + CAST($1 AS SMALLINT) FROM t");
        check(
            "SELECT $1::text, $2",
            &[None, Some(ColumnType::Double)],
            "SELECT $1::TEXT, CAST($2 AS DOUBLE PRECISION)",
        );
        check("SELECT $1", &[ColumnType::TimestampTz.array()], "SELECT CAST($1 AS TIMESTAMP WITH TIME ZONE[])");
    }

    #[test]
    fn an_array_is_one_of_what_it_is_compared_with() {
        check("SELECT s = ANY($1) FROM t", &[None], "SELECT s = ANY(annal_array_of(s, $1)) FROM t");
        check("SELECT s = ANY('{a}') FROM t", &[], "SELECT s = ANY(annal_array_of(s, '{a}')) FROM t");
        check("SELECT s = ANY(ARRAY[1]) FROM t", &[], "SELECT s = ANY(ARRAY[1]) FROM t");
    }
}
