//! INSERT: where the rows come from and where they go.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::record_batch::RecordBatch;
use cluster::Table;
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    CastKind, Expr, Insert, ObjectName, Parens, Query, SelectItem, SetExpr, Statement as Ast, TableObject,
    UnaryOperator, Value, Values,
};
use event::{ColumnType, TableDefinition};

use super::ddl::{folded, relation};
use super::report::nearest;
use super::rows::{build, check_not_null, default_column};
use crate::error::{Condition, Error};
use crate::text::{ColumnBuilder, Zone};

/// What an INSERT says, checked against its table.
#[derive(Debug)]
pub(crate) struct InsertPlan {
    /// The table.
    pub(crate) table: Arc<Table>,
    /// For each column of the source the position in the table.
    pub(crate) positions: Vec<usize>,
    /// Where rows come from.
    pub(crate) source: Source,
}

/// Where the rows of an INSERT come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// VALUES of nothing but literals and DEFAULT: read without planning.
    Literals(Values),
    /// Anything else: a query.
    Query(Box<Query>),
}

/// The table an INSERT or COPY names.
pub(crate) fn target_name(table: &TableObject) -> Result<(String, String), Error> {
    match table {
        TableObject::TableName(name) => relation(name),
        other => Err(Error::report(Condition::FeatureNotSupported, format!("INSERT into {other} is not supported"))),
    }
}

/// Checks an INSERT against its table.
///
/// # Errors
/// 42703, 42701, 42601 as PostgreSQL; 0A000 for RETURNING and ON CONFLICT.
pub(crate) fn plan(insert: &Insert, table: Arc<Table>) -> Result<InsertPlan, Error> {
    if insert.returning.is_some() {
        return Err(Error::hinted(
            Condition::FeatureNotSupported,
            "INSERT ... RETURNING is not supported",
            "Leave RETURNING out.",
        ));
    }
    if insert.on.is_some() {
        return Err(Error::hinted(
            Condition::FeatureNotSupported,
            "INSERT ... ON CONFLICT is not supported",
            "Rows of event tables never conflict; leave ON CONFLICT out.",
        ));
    }
    let definition = &table.definition;
    let positions = positions(definition, &insert.columns)?;
    let Some(query) = &insert.source else {
        // DEFAULT VALUES
        let values = Values { explicit_row: false, value_keyword: false, rows: Vec::new() };
        let mut plan = InsertPlan { table, positions: Vec::new(), source: Source::Literals(values) };
        plan.default_values();
        return Ok(plan);
    };
    let mut query = query.clone();
    let explicit = !insert.columns.is_empty();
    let positions = match query.body.as_ref() {
        SetExpr::Values(values) if is_bare(&query) => width(values, positions, explicit)?,
        _ => positions,
    };
    let source = match query.body.as_mut() {
        SetExpr::Values(values)
            if values.rows.iter().all(|row| row.iter().all(is_literal)) && query.order_by.is_none() =>
        {
            Source::Literals(values.clone())
        }
        SetExpr::Values(values) => {
            type_cells(values, &positions, definition)?;
            Source::Query(query)
        }
        _ => Source::Query(query),
    };
    Ok(InsertPlan { table, positions, source })
}

impl InsertPlan {
    fn default_values(&mut self) {
        if let Source::Literals(values) = &mut self.source {
            values.rows.push(Parens::with_empty_span(Vec::new()));
        }
    }
}

fn is_bare(query: &Query) -> bool {
    query.with.is_none() && query.order_by.is_none() && query.limit_clause.is_none()
}

/// Positions of the named columns; all of them when none is named.
pub(crate) fn positions(definition: &TableDefinition, columns: &[ObjectName]) -> Result<Vec<usize>, Error> {
    if columns.is_empty() {
        return Ok((0..definition.columns.len()).collect());
    }
    let mut positions = Vec::with_capacity(columns.len());
    for column in columns {
        let name = match column.0.last().and_then(|part| part.as_ident()) {
            Some(ident) => folded(ident),
            None => column.to_string(),
        };
        let at = position(definition, &name)?;
        if positions.contains(&at) {
            return Err(Error::report(
                Condition::DuplicateColumn,
                format!("column \"{name}\" specified more than once"),
            ));
        }
        positions.push(at);
    }
    Ok(positions)
}

/// The position of a column, with PostgreSQL's refusal.
pub(crate) fn position(definition: &TableDefinition, name: &str) -> Result<usize, Error> {
    definition.position(name).ok_or_else(|| {
        let message = format!("column \"{name}\" of relation \"{}\" does not exist", definition.name);
        let near = nearest(name, definition.columns.iter().map(|column| column.name.as_str()));
        match near {
            Some(near) => Error::hinted(
                Condition::UndefinedColumn,
                message,
                format!("Perhaps you meant to reference the column \"{}.{near}\".", definition.name),
            ),
            None => Error::report(Condition::UndefinedColumn, message),
        }
    })
}

/// All rows must be equally long; fewer values than columns are allowed when no columns are named.
fn width(values: &Values, mut positions: Vec<usize>, explicit: bool) -> Result<Vec<usize>, Error> {
    let first = values.rows.first().map_or(0, |row| row.len());
    if values.rows.iter().any(|row| row.len() != first) {
        return Err(Error::report(Condition::SyntaxError, "VALUES lists must all be the same length"));
    }
    if first > positions.len() {
        return Err(Error::report(Condition::SyntaxError, "INSERT has more expressions than target columns"));
    }
    if first < positions.len() && explicit {
        return Err(Error::report(Condition::SyntaxError, "INSERT has more target columns than expressions"));
    }
    positions.truncate(first);
    Ok(positions)
}

fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}

fn is_literal(expr: &Expr) -> bool {
    is_default(expr) || literal(expr).is_some()
}

/// A literal as text (`None` inside for NULL), and whether it was a number.
fn literal(expr: &Expr) -> Option<(Option<String>, bool)> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => Some((Some(text.to_string()), true)),
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some((Some(text.clone()), false)),
            Value::DollarQuotedString(text) => Some((Some(text.value.clone()), false)),
            Value::Boolean(value) => Some((Some(value.to_string()), false)),
            Value::Null => Some((None, false)),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match literal(expr)? {
            (Some(text), true) if !text.starts_with('-') => Some((Some(format!("-{text}")), true)),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Plus, expr } => literal(expr).filter(|(_, number)| *number),
        Expr::Nested(inner) => literal(inner),
        _ => None,
    }
}

/// Reads rows of literals straight into columns of the table.
///
/// # Errors
/// 22xxx for a literal that does not fit its column, 23502 for NULL where none may be.
pub(crate) fn read_literals(
    values: &Values,
    positions: &[usize],
    definition: &TableDefinition,
    defaults: &[ScalarValue],
    zone: Zone,
) -> Result<RecordBatch, Error> {
    let count = values.rows.len();
    let mut columns: Vec<Option<ArrayRef>> = vec![None; definition.columns.len()];
    for (cell, position) in positions.iter().enumerate() {
        let column = &definition.columns[*position];
        let default = default_text(&defaults[*position]);
        let mut builder = ColumnBuilder::new(column.column_type, zone);
        for row in &values.rows {
            let expr = &row[cell];
            if is_default(expr) {
                match &default {
                    Some(text) => builder.append_text(text)?,
                    None => builder.append_null(),
                }
                continue;
            }
            match literal(expr).expect("only literals come here") {
                (None, _) => builder.append_null(),
                (Some(text), number) => builder.append_text(&fitting(text, number, column.column_type))?,
            }
        }
        columns[*position] = Some(builder.finish());
    }
    let columns = columns
        .into_iter()
        .enumerate()
        .map(|(at, column)| match column {
            Some(column) => Ok(column),
            None => default_column(&defaults[at], &definition.columns[at], count),
        })
        .collect::<Result<Vec<_>, _>>()?;
    check_not_null(definition, &columns)?;
    build(definition, columns, count)
}

/// A number with a fraction assigned to an integer is rounded, as its cast from numeric would be.
fn fitting(text: String, number: bool, column_type: ColumnType) -> String {
    let integer = matches!(column_type, ColumnType::SmallInt | ColumnType::Integer | ColumnType::BigInt);
    if !number || !integer || text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return text;
    }
    match text.parse::<f64>() {
        Ok(value) if value.abs() < 9e15 => format!("{}", value.round() as i64),
        _ => text,
    }
}

fn default_text(value: &ScalarValue) -> Option<String> {
    if value.is_null() {
        return None;
    }
    match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            Some(text.clone())
        }
        ScalarValue::TimestampMicrosecond(Some(_), zone) | ScalarValue::TimestampNanosecond(Some(_), zone) => {
            let array = value.to_array().ok()?;
            let text = arrow::util::display::array_value_to_string(&array, 0).ok()?;
            Some(if zone.is_some() && !text.ends_with('Z') { format!("{text}Z") } else { text })
        }
        other => {
            let array = other.to_array().ok()?;
            arrow::util::display::array_value_to_string(&array, 0).ok()
        }
    }
}

/// Parameters get the type of their column, and DEFAULT its expression, so that a planned VALUES knows its types.
fn type_cells(values: &mut Values, positions: &[usize], definition: &TableDefinition) -> Result<(), Error> {
    for row in &mut values.rows {
        for (cell, position) in row.iter_mut().zip(positions) {
            let column = &definition.columns[*position];
            if is_default(cell) {
                *cell = parse_expression(column.default.as_deref().unwrap_or("NULL"))?;
            }
            let placeholder = matches!(cell, Expr::Value(value) if matches!(value.value, Value::Placeholder(_)));
            // Text literals beside computed cells are read in the column's own syntax, after the cast to text.
            if placeholder {
                let written = std::mem::replace(cell, Expr::Value(Value::Null.into()));
                *cell = cast(written, &column.column_type.to_string())?;
            }
        }
    }
    Ok(())
}

fn cast(expr: Expr, type_name: &str) -> Result<Expr, Error> {
    let template = parse_expression(&format!("CAST(NULL AS {type_name})"))?;
    match template {
        Expr::Cast { data_type, .. } => {
            Ok(Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, format: None, array: false })
        }
        other => Ok(other),
    }
}

/// Parses a stored expression.
pub(crate) fn parse_expression(text: &str) -> Result<Expr, Error> {
    let statement = super::statement::parse(&format!("SELECT {text}"))?.remove(0);
    if let Some(ast) = &statement.ast
        && let Ast::Query(query) = ast.as_ref()
        && let SetExpr::Select(select) = query.body.as_ref()
        && let [SelectItem::UnnamedExpr(expr)] = select.projection.as_slice()
    {
        return Ok(expr.clone());
    }
    Err(Error::report(Condition::SyntaxError, format!("cannot read the expression {text}")))
}
