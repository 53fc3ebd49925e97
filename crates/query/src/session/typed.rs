//! Types that a statement writes in one place and means in others, before it is planned.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, Query, SetExpr, Statement, UnaryOperator, Value, Values, VisitMut,
    VisitorMut,
};

/// In `VALUES (date '2024-01-01'), ('2024-02-01')` the second is a date as well; and minus before an interval is meant for all of it,
/// where the library would negate the first number in its text.
pub(crate) fn spread_types(statement: &mut Statement) {
    // Each value of an INSERT has the type of its column.
    let kept = match statement {
        Statement::Insert(insert) => insert.source.as_mut().and_then(|source| match source.body.as_mut() {
            SetExpr::Values(values) => Some(std::mem::take(&mut values.rows)),
            _ => None,
        }),
        _ => None,
    };
    let _all = VisitMut::visit(statement, &mut Types);
    if let (Statement::Insert(insert), Some(mut rows)) = (statement, kept)
        && let Some(SetExpr::Values(values)) = insert.source.as_mut().map(|source| source.body.as_mut())
    {
        for cell in rows.iter_mut().flat_map(|row| row.iter_mut()) {
            let _all = VisitMut::visit(cell, &mut Types);
        }
        values.rows = rows;
    }
}

struct Types;

impl VisitorMut for Types {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let SetExpr::Values(values) = query.body.as_mut() {
            type_texts(values);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } = expr
            && matches!(inner.as_ref(), Expr::Interval(_))
        {
            let interval = std::mem::replace(inner.as_mut(), Expr::Value(Value::Null.into()));
            let minus_one = Expr::Value(Value::Number("-1".to_owned(), false).into());
            *expr =
                Expr::BinaryOp { left: Box::new(interval), op: BinaryOperator::Multiply, right: Box::new(minus_one) };
        }
        ControlFlow::Continue(())
    }
}

/// Texts in a column of VALUES get the type that another row names.
fn type_texts(values: &mut Values) {
    let width = values.rows.first().map_or(0, |row| row.len());
    for at in 0..width {
        let Some(data_type) = values.rows.iter().filter_map(|row| row.get(at)).find_map(named_type) else { continue };
        for cell in values.rows.iter_mut().filter_map(|row| row.get_mut(at)) {
            if matches!(cell, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_))) {
                let text = std::mem::replace(cell, Expr::Value(Value::Null.into()));
                *cell = Expr::Cast {
                    kind: CastKind::Cast,
                    expr: Box::new(text),
                    data_type: data_type.clone(),
                    array: false,
                    format: None,
                };
            }
        }
    }
}

/// The type that an expression names for its value.
fn named_type(expr: &Expr) -> Option<DataType> {
    match expr {
        Expr::Cast { data_type, .. } => Some(data_type.clone()),
        Expr::TypedString(typed) => Some(typed.data_type.clone()),
        Expr::Interval(_) => Some(DataType::Interval { fields: None, precision: None }),
        Expr::Nested(inner) => named_type(inner),
        _ => None,
    }
}
