//! Types that a statement writes in one place and means in others, before it is planned.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, Fetch, Function, Interval, LimitClause, NamedWindowDefinition,
    NamedWindowExpr, Query, SetExpr, Statement, UnaryOperator, Value, Values, VisitMut, VisitorMut, WindowFrameBound,
    WindowSpec, WindowType,
};

use super::insert::parse_expression;

/// Of a numeric.
const NUMBER_DIGITS_MAX: usize = 38;

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
        // A number is read as one of its column.
        for cell in rows.iter_mut().flat_map(|row| row.iter_mut()).filter(|cell| !is_number(cell)) {
            settle(cell);
        }
        values.rows = rows;
    }
}

/// The same of one expression.
pub(super) fn settle(expr: &mut Expr) {
    let _all = VisitMut::visit(expr, &mut Types);
}

fn is_number(expr: &Expr) -> bool {
    match expr {
        Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr } | Expr::Nested(expr) => is_number(expr),
        Expr::Value(value) => matches!(value.value, Value::Number(..)),
        _ => false,
    }
}

struct Types;

impl VisitorMut for Types {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let SetExpr::Values(values) = query.body.as_mut() {
            type_texts(values);
        }
        fetch_as_limit(query);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } = expr
            && matches!(named_type(inner), Some(DataType::Interval { .. }))
        {
            let interval = std::mem::replace(inner.as_mut(), Expr::Value(Value::Null.into()));
            let minus_one = Expr::Value(Value::Number("-1".to_owned(), false).into());
            *expr =
                Expr::BinaryOp { left: Box::new(interval), op: BinaryOperator::Multiply, right: Box::new(minus_one) };
        }
        if let Expr::Value(value) = expr
            && let Value::Number(text, _) = &value.value
            && let Some(plain) = plain_number(text)
        {
            *expr = plain;
        }
        if let Some(time) = special_time(expr) {
            *expr = time;
        }
        if let Some(text) = interval_text(expr) {
            *expr = cast(text, DataType::Interval { fields: None, precision: None });
        }
        if let Expr::Function(Function { over: Some(WindowType::WindowSpec(window)), .. }) = expr {
            keep_bounds(window);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let SetExpr::Select(select) = query.body.as_mut() {
            for NamedWindowDefinition(_, window) in &mut select.named_window {
                if let NamedWindowExpr::WindowSpec(window) = window {
                    keep_bounds(window);
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// The planner takes intervals that bound a frame as they are written, and nothing else.
fn keep_bounds(window: &mut WindowSpec) {
    let Some(frame) = &mut window.window_frame else { return };
    for bound in std::iter::once(&mut frame.start_bound).chain(&mut frame.end_bound) {
        if let WindowFrameBound::Preceding(Some(bound)) | WindowFrameBound::Following(Some(bound)) = bound
            && let Expr::Cast { expr: text, data_type: DataType::Interval { .. }, .. } = bound.as_mut()
        {
            let value = std::mem::replace(text, Box::new(Expr::Value(Value::Null.into())));
            **bound = Expr::Interval(Interval {
                value,
                leading_field: None,
                leading_precision: None,
                last_field: None,
                fractional_seconds_precision: None,
            });
        }
    }
}

/// The text of `interval '1 day 02:03'`, which the library would read in its own syntax.
fn interval_text(expr: &Expr) -> Option<Expr> {
    let Expr::Interval(Interval { value, leading_field: None, last_field: None, .. }) = expr else { return None };
    matches!(value.as_ref(), Expr::Value(text) if matches!(text.value, Value::SingleQuotedString(_)))
        .then(|| value.as_ref().clone())
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

/// `'today'::date`, and the other words that PostgreSQL reads as times; what they mean depends on when they are read.
fn special_time(expr: &Expr) -> Option<Expr> {
    let (text, data_type) = match expr {
        Expr::Cast { expr, data_type, kind: CastKind::Cast | CastKind::DoubleColon, .. } => match expr.as_ref() {
            Expr::Value(value) => (&value.value, data_type),
            _ => return None,
        },
        Expr::TypedString(typed) => (&typed.value.value, &typed.data_type),
        _ => return None,
    };
    let Value::SingleQuotedString(word) = text else { return None };
    let word = word.trim().to_ascii_lowercase();
    let is_date = matches!(data_type, DataType::Date);
    if !is_date && !matches!(data_type, DataType::Timestamp(..) | DataType::Time(..)) {
        return None;
    }
    let meant = match (word.as_str(), data_type) {
        ("now", _) => "now()",
        ("epoch", DataType::Date | DataType::Timestamp(..)) => "'1970-01-01 00:00:00+00'",
        ("today", DataType::Date | DataType::Timestamp(..)) => "current_date",
        ("tomorrow", DataType::Date | DataType::Timestamp(..)) => "(current_date + 1)",
        ("yesterday", DataType::Date | DataType::Timestamp(..)) => "(current_date - 1)",
        _ => return None,
    };
    let meant = if is_date && word == "epoch" { "'1970-01-01'" } else { meant };
    parse_expression(&format!("CAST({meant} AS {data_type})")).ok()
}

/// `1e3` is `1000.`, a numeric without digits behind the point; a number that has too many digits for a numeric is a double. `None` for what the
/// planner reads as it is meant.
fn plain_number(text: &str) -> Option<Expr> {
    let is_plain = |text: &str| text.len() <= NUMBER_DIGITS_MAX && !text.contains(['e', 'E']);
    if is_plain(text) {
        return None;
    }
    let text = text.replace('_', "");
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((&text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let point = exponent.parse::<i64>().unwrap_or(i64::MAX / 2) + whole.len() as i64;
    let fits = digits.len() <= NUMBER_DIGITS_MAX && point.unsigned_abs() <= NUMBER_DIGITS_MAX as u64;
    let plain = fits.then(|| match usize::try_from(point) {
        Ok(point) if point < digits.len() => format!("{}.{}", &digits[..point], &digits[point..]),
        Ok(point) => format!("{digits:0<point$}."),
        Err(_) => format!("0.{}{digits}", "0".repeat(usize::try_from(-point).unwrap_or(0))),
    });
    let significant = |text: &str| text.trim_start_matches(['0', '.']).bytes().filter(u8::is_ascii_digit).count();
    let behind = |text: &str| text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    match plain {
        Some(plain) if significant(&plain) <= NUMBER_DIGITS_MAX && behind(&plain) <= NUMBER_DIGITS_MAX => Some(
            Expr::Value(Value::Number(if plain.starts_with('.') { format!("0{plain}") } else { plain }, false).into()),
        ),
        // The sign keeps the cast from giving its name to a column.
        _ => {
            let text = Expr::Value(Value::SingleQuotedString(text).into());
            let double = cast(text, DataType::DoublePrecision);
            Some(Expr::UnaryOp { op: UnaryOperator::Plus, expr: Box::new(double) })
        }
    }
}

/// `FETCH FIRST n ROWS ONLY` is LIMIT n, and one row when it says no number.
fn fetch_as_limit(query: &mut Query) {
    let Some(fetch) = query.fetch.take_if(|fetch| !fetch.with_ties && !fetch.percent) else { return };
    let one = Expr::Value(Value::Number("1".to_owned(), false).into());
    let count = Some(fetch.quantity.unwrap_or(one));
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => *limit = count,
        clause @ None => {
            *clause = Some(LimitClause::LimitOffset { limit: count, offset: None, limit_by: Vec::new() });
        }
        // Both is a syntax error of PostgreSQL's, which the planner is to find.
        Some(_) => query.fetch = Some(Fetch { with_ties: false, percent: false, quantity: count }),
    }
}

/// Texts and NULLs in a column of VALUES get the type that another row names.
fn type_texts(values: &mut Values) {
    let width = values.rows.first().map_or(0, |row| row.len());
    for at in 0..width {
        let Some(data_type) = values.rows.iter().filter_map(|row| row.get(at)).find_map(named_type) else { continue };
        for cell in values.rows.iter_mut().filter_map(|row| row.get_mut(at)) {
            if matches!(cell, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_) | Value::Null)) {
                let text = std::mem::replace(cell, Expr::Value(Value::Null.into()));
                *cell = cast(text, data_type.clone());
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
