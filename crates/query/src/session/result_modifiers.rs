//! Lengths and precisions of a result's columns: `varchar(10)`, `timestamp(3)`. Where a column of a table comes through a query unchanged, its
//! modifier comes with it, as in PostgreSQL; what is computed has none.
//!
//! Planning knows types without modifiers. They are found in the plan afterwards, and fields carry them to whoever describes or keeps the
//! result.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, TableScan};
use datafusion::sql::sqlparser::ast::{Expr as Written, SelectItem, SetExpr, Statement as Ast};
use event::{Column, ColumnType, Modifier};

use super::modifiers::modifier;
use crate::functions::ROUND_TIME;
use crate::table::stored::StoredTable;

/// Where a field's metadata say its modifier.
const KEY: &str = "annal.modifier";

/// The modifier of a result's column, when it has one.
pub fn modifier_of(field: &Field) -> Option<Modifier> {
    let (kind, number) = field.metadata().get(KEY)?.split_once(' ')?;
    match (kind, number) {
        ("varchar", "") => Some(Modifier::Varchar { length: None }),
        ("varchar", length) => Some(Modifier::Varchar { length: Some(length.parse().ok()?) }),
        ("fraction", digits) => Some(Modifier::Fraction { digits: digits.parse().ok()? }),
        _ => None,
    }
}

/// The schema with a modifier for each of its columns that has one.
pub(super) fn with_modifiers(schema: &SchemaRef, modifiers: &[Option<Modifier>]) -> SchemaRef {
    if modifiers.iter().all(Option::is_none) {
        return Arc::clone(schema);
    }
    let fields = schema.fields().iter().zip(modifiers).map(|(field, modifier)| {
        let text = match modifier {
            Some(Modifier::Varchar { length: Some(length) }) => format!("varchar {length}"),
            Some(Modifier::Varchar { length: None }) => "varchar ".to_owned(),
            Some(Modifier::Fraction { digits }) => format!("fraction {digits}"),
            None => return field.as_ref().clone(),
        };
        let mut metadata = field.metadata().clone();
        metadata.insert(KEY.to_owned(), text);
        field.as_ref().clone().with_metadata(metadata)
    });
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}

/// What casts to `varchar` say that are columns of a query; planning will know them as text. Empty when it is not known which column is which.
pub(super) fn written(statement: &Ast) -> Vec<Option<Modifier>> {
    let Ast::Query(query) = statement else { return Vec::new() };
    let SetExpr::Select(select) = query.body.as_ref() else { return Vec::new() };
    let of_item = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(of_cast(expr)),
        _ => None,
    };
    select.projection.iter().map(of_item).collect::<Option<_>>().unwrap_or_default()
}

fn of_cast(expr: &Written) -> Option<Modifier> {
    match expr {
        Written::Nested(inner) => of_cast(inner),
        Written::Cast { data_type, .. } => {
            modifier(data_type).ok().flatten().filter(|modifier| matches!(modifier, Modifier::Varchar { .. }))
        }
        _ => None,
    }
}

/// The modifier of each column that a plan gives.
pub(super) fn of_plan(plan: &LogicalPlan) -> Vec<Option<Modifier>> {
    let modifier = |found| match found {
        Found::Modifier(modifier) => Some(modifier),
        Found::None | Found::Null | Found::Numeric => None,
    };
    columns(plan).into_iter().map(modifier).collect()
}

/// Which columns that a plan gives are numerics whose precision a statement says. That of others is what their values need.
pub(super) fn declared_numerics(plan: &LogicalPlan) -> Vec<bool> {
    columns(plan).into_iter().map(|found| found == Found::Numeric).collect()
}

/// What is known of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// It has no modifier.
    None,
    /// It is NULL, and becomes whatever stands above or below it.
    Null,
    /// It is a numeric of a column, or one that is cast to it.
    Numeric,
    Modifier(Modifier),
}

fn columns(plan: &LogicalPlan) -> Vec<Found> {
    let mut found = match plan {
        LogicalPlan::TableScan(scan) => of_table(scan),
        LogicalPlan::Projection(projection) => of_exprs(&projection.expr, &projection.input),
        LogicalPlan::Filter(filter) => columns(&filter.input),
        LogicalPlan::Sort(sort) => columns(&sort.input),
        LogicalPlan::Limit(limit) => columns(&limit.input),
        LogicalPlan::SubqueryAlias(alias) => columns(&alias.input),
        LogicalPlan::Distinct(Distinct::All(input)) => columns(input),
        LogicalPlan::Distinct(Distinct::On(distinct)) => of_exprs(&distinct.select_expr, &distinct.input),
        LogicalPlan::Join(join) if plan.schema().columns() == join.right.schema().columns() => columns(&join.right),
        LogicalPlan::Join(join) => {
            // A semi-join gives the columns of one side, of which nothing is left over.
            let mut both = columns(&join.left);
            both.extend(columns(&join.right));
            both
        }
        LogicalPlan::Aggregate(aggregate) => of_exprs(&aggregate.group_expr, &aggregate.input),
        LogicalPlan::Window(window) => columns(&window.input),
        LogicalPlan::Union(union) => {
            let inputs = union.inputs.iter().map(|input| columns(input));
            inputs.reduce(|one, other| one.into_iter().zip(other).map(in_common).collect()).unwrap_or_default()
        }
        _ => Vec::new(),
    };
    // Columns that follow are computed.
    found.resize(plan.schema().fields().len(), Found::None);
    found
}

fn of_table(scan: &TableScan) -> Vec<Found> {
    let Ok(provider) = source_as_provider(&scan.source) else { return Vec::new() };
    let Some(table) = provider.downcast_ref::<StoredTable>() else { return Vec::new() };
    let named = |name: &str| table.definition().columns.iter().find(|column| column.name == name);
    let found = |field: &Arc<Field>| match named(field.name()) {
        Some(Column { modifier: Some(modifier), .. }) => Found::Modifier(*modifier),
        Some(Column { column_type: ColumnType::Numeric { .. }, .. }) => Found::Numeric,
        _ => Found::None,
    };
    scan.projected_schema.fields().iter().map(found).collect()
}

fn of_exprs(exprs: &[Expr], input: &LogicalPlan) -> Vec<Found> {
    let below = columns(input);
    exprs.iter().map(|expr| of_expr(expr, input.schema(), &below)).collect()
}

fn of_expr(expr: &Expr, schema: &DFSchema, below: &[Found]) -> Found {
    match expr {
        Expr::Alias(alias) => of_expr(&alias.expr, schema, below),
        Expr::Column(column) => {
            schema.maybe_index_of_column(column).and_then(|at| below.get(at)).copied().unwrap_or(Found::None)
        }
        Expr::Literal(value, _) if value.is_null() => Found::Null,
        Expr::Cast(cast) => match of_expr(&cast.expr, schema, below) {
            Found::Null => Found::Null,
            _ if matches!(cast.field.data_type(), DataType::Decimal128(..)) => Found::Numeric,
            _ => Found::None,
        },
        // A cast to a type of so many digits.
        Expr::ScalarFunction(call) if call.func.name() == ROUND_TIME => match call.args.as_slice() {
            [_, Expr::Literal(digits, _)] => {
                digits_of(digits).map_or(Found::None, |digits| Found::Modifier(Modifier::Fraction { digits }))
            }
            _ => Found::None,
        },
        _ => Found::None,
    }
}

fn digits_of(number: &ScalarValue) -> Option<u8> {
    match number {
        ScalarValue::Int32(Some(digits)) => u8::try_from(*digits).ok(),
        ScalarValue::Int64(Some(digits)) => u8::try_from(*digits).ok(),
        _ => None,
    }
}

/// What two columns that become one keep: a type of both, and its length when that is the same.
fn in_common((one, other): (Found, Found)) -> Found {
    use Modifier::Varchar;
    match (one, other) {
        (one, other) if one == other => one,
        (Found::Null, known) | (known, Found::Null) => known,
        (Found::Modifier(Varchar { .. }), Found::Modifier(Varchar { .. })) => Found::Modifier(Varchar { length: None }),
        _ => Found::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_carry_modifiers() {
        let fields = ["a", "b", "c", "d"].map(|name| Field::new(name, DataType::Utf8, true));
        let modifiers = [
            Some(Modifier::Varchar { length: Some(10) }),
            Some(Modifier::Varchar { length: None }),
            Some(Modifier::Fraction { digits: 3 }),
            None,
        ];
        let schema = with_modifiers(&Arc::new(Schema::new(fields.to_vec())), &modifiers);
        let carried: Vec<Option<Modifier>> = schema.fields().iter().map(|field| modifier_of(field)).collect();
        assert_eq!(carried, modifiers);
    }

    #[test]
    fn what_becomes_one_keeps_what_both_have() {
        let varchar = |length| Found::Modifier(Modifier::Varchar { length });
        assert_eq!(in_common((varchar(Some(3)), varchar(Some(3)))), varchar(Some(3)));
        assert_eq!(in_common((varchar(Some(3)), varchar(Some(4)))), varchar(None));
        assert_eq!(in_common((varchar(Some(3)), Found::Null)), varchar(Some(3)));
        assert_eq!(in_common((varchar(Some(3)), Found::None)), Found::None);
    }
}
