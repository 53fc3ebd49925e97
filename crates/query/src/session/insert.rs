//! INSERT: where the rows come from and where they go.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::record_batch::RecordBatch;
use cluster::Table;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::sql::sqlparser::ast::{
    CastKind, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, Insert,
    ObjectName, Parens, Query, SelectItem, SetExpr, Statement as Ast, TableObject, UnaryOperator, Value, Values,
};
use event::{Column, ColumnType, IdentityKind, TableDefinition};

use super::ddl::{folded, relation};
use super::defaults::DefaultValue;
use super::report::nearest;
use super::rows::{assign, build, check_not_null};
use super::typed;
use super::values::ConstantRows;
use crate::error::{Condition, Error};
use crate::text::{ColumnBuilder, Zone, write};

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
    /// VALUES of nothing but constants, still in the text of the statement.
    Constants(Arc<ConstantRows>),
    /// VALUES of nothing but literals, parameters and DEFAULT: read without planning.
    Literals(Values),
    /// Anything else: a query.
    Query(Box<Query>),
}

impl Source {
    /// How many rows it gives, 0 when nobody knows.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Source::Constants(rows) => rows.len(),
            Source::Literals(values) => values.rows.len(),
            Source::Query(_) => 0,
        }
    }
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
/// 42703, 42701, 42601 as PostgreSQL.
pub(crate) fn plan(
    insert: &Insert,
    constants: Option<&Arc<ConstantRows>>,
    table: Arc<Table>,
) -> Result<InsertPlan, Error> {
    let definition = &table.definition;
    let positions = positions(definition, &insert.columns)?;
    let Some(query) = &insert.source else {
        // DEFAULT VALUES
        let values = Values { explicit_row: false, value_keyword: false, rows: Vec::new() };
        let mut plan = InsertPlan { table, positions: Vec::new(), source: Source::Literals(values) };
        plan.default_values();
        return Ok(plan);
    };
    let explicit = !insert.columns.is_empty();
    if let Some(rows) = constants {
        let positions = width(rows.width(), positions, explicit)?;
        check_generated(definition, &positions, |at| rows.says_only_default(at))?;
        return Ok(InsertPlan { table, positions, source: Source::Constants(Arc::clone(rows)) });
    }
    let mut query = query.clone();
    let bare = is_bare(&query);
    let positions = match query.body.as_ref() {
        SetExpr::Values(values) if bare => width(even(values)?, positions, explicit)?,
        _ => positions,
    };
    let only_default = |at: usize| match query.body.as_ref() {
        SetExpr::Values(values) => values.rows.iter().all(|row| row.get(at).is_some_and(is_default)),
        _ => false,
    };
    if explicit || bare {
        check_generated(definition, &positions, only_default)?;
    }
    let mut positions = positions;
    let readable = match query.body.as_mut() {
        SetExpr::Values(values) if bare && values.rows.iter().all(|row| row.iter().all(|e| cell(e).is_some())) => true,
        SetExpr::Values(values) => {
            leave_out_defaults(values, &mut positions);
            type_cells(values, &positions, definition)?;
            false
        }
        _ => false,
    };
    let source = match *query.body {
        SetExpr::Values(values) if readable => Source::Literals(values),
        body => {
            query.body = Box::new(body);
            Source::Query(query)
        }
    };
    Ok(InsertPlan { table, positions, source })
}

/// Refuses values for columns that are GENERATED ALWAYS. `only_default` tells whether no row has a value for a column of the source.
fn check_generated(
    definition: &TableDefinition,
    positions: &[usize],
    only_default: impl Fn(usize) -> bool,
) -> Result<(), Error> {
    let always = |column: &Column| column.identity.is_some_and(|identity| identity.kind == IdentityKind::Always);
    for (at, position) in positions.iter().enumerate() {
        let column = &definition.columns[*position];
        if always(column) && !only_default(at) {
            let message = format!("cannot insert a non-DEFAULT value into column \"{}\"", column.name);
            let hint = "Leave the column out, or declare it GENERATED BY DEFAULT.";
            let error = Error::hinted(Condition::GeneratedAlways, message, hint);
            let name = &column.name;
            let detail = format!("Column \"{name}\" is an identity column defined as GENERATED ALWAYS.");
            return Err(error.detailed(detail));
        }
    }
    Ok(())
}

/// Columns for which every row says DEFAULT are as if they were not named.
fn leave_out_defaults(values: &mut Values, positions: &mut Vec<usize>) {
    for at in (0..positions.len()).rev() {
        if positions.len() > 1 && values.rows.iter().all(|row| row.get(at).is_some_and(is_default)) {
            positions.remove(at);
            for row in &mut values.rows {
                row.remove(at);
            }
        }
    }
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

/// Values of each row.
fn even(values: &Values) -> Result<usize, Error> {
    let first = values.rows.first().map_or(0, |row| row.len());
    if values.rows.iter().any(|row| row.len() != first) {
        return Err(Error::report(Condition::SyntaxError, "VALUES lists must all be the same length"));
    }
    Ok(first)
}

/// The columns that rows of `first` values are for; fewer than there are when no columns are named.
fn width(first: usize, mut positions: Vec<usize>, explicit: bool) -> Result<Vec<usize>, Error> {
    if first > positions.len() {
        return Err(Error::report(Condition::SyntaxError, "INSERT has more expressions than target columns"));
    }
    if first < positions.len() && explicit {
        return Err(Error::report(Condition::SyntaxError, "INSERT has more target columns than expressions"));
    }
    positions.truncate(first);
    Ok(positions)
}

pub(crate) fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}

/// What stands in a place of VALUES that needs no planning.
enum Cell<'a> {
    /// The word DEFAULT.
    Default,
    Null,
    /// Text in quotes, or a boolean.
    Text(Cow<'a, str>),
    /// A number with its sign.
    Number(Cow<'a, str>),
    /// `$1` is 0.
    Parameter(usize),
}

fn cell(expr: &Expr) -> Option<Cell<'_>> {
    match expr {
        _ if is_default(expr) => Some(Cell::Default),
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => Some(Cell::Number(Cow::Borrowed(text))),
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => {
                Some(Cell::Text(Cow::Borrowed(text)))
            }
            Value::DollarQuotedString(text) => Some(Cell::Text(Cow::Borrowed(&text.value))),
            Value::Boolean(value) => Some(Cell::Text(Cow::Borrowed(if *value { "true" } else { "false" }))),
            Value::Null => Some(Cell::Null),
            Value::Placeholder(name) => {
                let number: usize = name.strip_prefix('$')?.parse().ok()?;
                Some(Cell::Parameter(number.checked_sub(1)?))
            }
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match cell(expr)? {
            Cell::Number(text) if !text.starts_with('-') => Some(Cell::Number(Cow::Owned(format!("-{text}")))),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Plus, expr } => cell(expr).filter(|cell| matches!(cell, Cell::Number(_))),
        Expr::Nested(inner) => cell(inner).filter(|cell| !matches!(cell, Cell::Default)),
        _ => None,
    }
}

/// Types of the parameters in VALUES: what the client named, else that of the column each is for.
pub(crate) fn cell_types(values: &Values, plan: &InsertPlan, given: &[Option<FieldRef>]) -> Vec<FieldRef> {
    let mut types: Vec<Option<FieldRef>> = given.to_vec();
    for row in &values.rows {
        for (expr, position) in row.iter().zip(&plan.positions) {
            if let Some(Cell::Parameter(number)) = cell(expr) {
                types.resize(types.len().max(number + 1), None);
                let own = || Arc::new(plan.table.definition.columns[*position].column_type.field("", true));
                types[number].get_or_insert_with(own);
            }
        }
    }
    types.into_iter().map(|data_type| data_type.unwrap_or_else(text_parameter)).collect()
}

/// A parameter nobody knows the type of.
pub(super) fn text_parameter() -> FieldRef {
    Arc::new(Field::new("", DataType::Utf8, true))
}

/// Which columns a statement with these values leaves to their defaults.
pub(crate) fn needs_default(source: Option<&Source>, positions: &[usize], columns: usize) -> Vec<bool> {
    let mut needed = vec![true; columns];
    for (at, position) in positions.iter().enumerate() {
        let says_default = |row: &Parens<Vec<Expr>>| row.get(at).is_some_and(is_default);
        needed[*position] = match source {
            Some(Source::Constants(rows)) => rows.says_default(at),
            Some(Source::Literals(values)) => values.rows.iter().any(says_default),
            Some(Source::Query(_)) | None => false,
        };
    }
    needed
}

/// The value of a DEFAULT that is nothing but a literal, as text to be read in the column's syntax.
pub(crate) fn plain_default(expression: &str) -> Option<ScalarValue> {
    let text = expression.trim();
    let quoted = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).filter(|inner| !inner.contains('\''));
    let digits = text.strip_prefix('-').unwrap_or(text);
    let number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if text.eq_ignore_ascii_case("null") {
        return Some(ScalarValue::Null);
    }
    if number || text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
        return Some(text.into());
    }
    quoted.map(ScalarValue::from)
}

/// Reads rows of literals and parameters straight into columns of the table.
///
/// # Errors
/// 22xxx for a value that does not fit its column, 23502 for NULL where none may be.
pub(crate) fn read_literals(
    values: &Values,
    positions: &[usize],
    definition: &TableDefinition,
    defaults: &[DefaultValue],
    parameters: &[ScalarValue],
    zone: Zone,
) -> Result<RecordBatch, Error> {
    let count = values.rows.len();
    let mut columns: Vec<Option<ArrayRef>> = vec![None; definition.columns.len()];
    for (at, position) in positions.iter().enumerate() {
        let column = &definition.columns[*position];
        let mut builder = ColumnBuilder::of(column, zone, count);
        for row in &values.rows {
            match cell(&row[at]).expect("only what needs no planning comes here") {
                Cell::Null => builder.append_null(),
                Cell::Text(text) => builder.append_text(&text)?,
                Cell::Number(text) => builder.append_text(&fitting(text, column.column_type))?,
                Cell::Default => add_value(&mut builder, &defaults[*position].one(column)?, column, zone)?,
                Cell::Parameter(number) => match parameters.get(number) {
                    Some(value) => add_value(&mut builder, value, column, zone)?,
                    None => {
                        let message = format!("there is no parameter ${}", number + 1);
                        return Err(Error::report(Condition::UndefinedObject, message));
                    }
                },
            }
        }
        columns[*position] = Some(builder.finish());
    }
    complete(columns, definition, defaults, count)
}

/// Reads rows of constants from the text of their statement straight into columns of the table.
///
/// # Errors
/// As [`read_literals`].
pub(crate) fn read_constants(
    rows: &ConstantRows,
    text: &str,
    positions: &[usize],
    definition: &TableDefinition,
    defaults: &[DefaultValue],
    zone: Zone,
) -> Result<RecordBatch, Error> {
    let mut columns: Vec<Option<ArrayRef>> = vec![None; definition.columns.len()];
    for (at, position) in positions.iter().enumerate() {
        columns[*position] = Some(rows.read(at, text, definition, *position, defaults, zone)?);
    }
    complete(columns, definition, defaults, rows.len())
}

/// Columns that were not given get their defaults.
fn complete(
    columns: Vec<Option<ArrayRef>>,
    definition: &TableDefinition,
    defaults: &[DefaultValue],
    count: usize,
) -> Result<RecordBatch, Error> {
    let columns = columns
        .into_iter()
        .enumerate()
        .map(|(at, column)| match column {
            Some(column) => Ok(column),
            None => defaults[at].column(&definition.columns[at], count),
        })
        .collect::<Result<Vec<_>, _>>()?;
    check_not_null(definition, &columns)?;
    build(definition, columns, count)
}

/// Adds a computed value: as it is, read from text, or cast as on assignment.
pub(super) fn add_value(
    builder: &mut ColumnBuilder,
    value: &ScalarValue,
    column: &Column,
    zone: Zone,
) -> Result<(), Error> {
    match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            return Ok(builder.append_text(text)?);
        }
        value if builder.append_scalar(value) => return Ok(()),
        // It is rounded, or refused, as one that is written.
        ScalarValue::Decimal128(Some(value), _, scale) if matches!(column.column_type, ColumnType::Numeric { .. }) => {
            let mut text = String::new();
            write::decimal(&mut text, *value, *scale);
            return Ok(builder.append_text(&text)?);
        }
        _ => {}
    }
    let internal = |error: DataFusionError| Error::report(Condition::Internal, error.to_string());
    let one = assign(&value.to_array_of_size(1).map_err(internal)?, column, zone)?;
    let value = ScalarValue::try_from_array(&one, 0).map_err(internal)?;
    match value {
        ScalarValue::Utf8(Some(text)) => Ok(builder.append_text(&text)?),
        value => {
            let added = builder.append_scalar(&value);
            assert!(added, "an assigned value has its column's type");
            Ok(())
        }
    }
}

/// A number with a fraction assigned to an integer is rounded, as its cast from numeric would be.
pub(super) fn fitting(text: Cow<'_, str>, column_type: ColumnType) -> Cow<'_, str> {
    let integer = matches!(column_type, ColumnType::SmallInt | ColumnType::Integer | ColumnType::BigInt);
    if !integer || text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return text;
    }
    match text.parse::<f64>() {
        Ok(value) if value.abs() < 9e15 => Cow::Owned(format!("{}", value.round() as i64)),
        _ => text,
    }
}

/// Parameters and texts get the type of their column, and DEFAULT its expression, so that a planned VALUES knows its types.
fn type_cells(values: &mut Values, positions: &[usize], definition: &TableDefinition) -> Result<(), Error> {
    for row in &mut values.rows {
        for (cell, position) in row.iter_mut().zip(positions) {
            let column = &definition.columns[*position];
            typed::settle(cell);
            if is_default(cell) {
                if column.identity.is_some() {
                    let message =
                        "DEFAULT of an identity column beside other values needs VALUES of literals and parameters";
                    return Err(Error::report(Condition::FeatureNotSupported, message));
                }
                *cell = parse_expression(column.default.as_deref().unwrap_or("NULL"))?;
            }
            let written = literal(cell);
            let is_parameter = matches!(written, Some(Value::Placeholder(_)));
            // Each value is one of its column, whatever others of other rows are.
            let wanted = match column.column_type {
                ColumnType::Json | ColumnType::Jsonb => {
                    matches!(written, Some(Value::Null)) || written.is_some_and(is_quoted)
                }
                ColumnType::Text => matches!(written, Some(Value::Number(..) | Value::Boolean(_))),
                _ => written.is_some_and(is_quoted),
            };
            if is_parameter || wanted {
                let written = std::mem::replace(cell, Expr::Value(Value::Null.into()));
                *cell = cast(written, &column.column_type.to_string())?;
            }
        }
    }
    Ok(())
}

/// The literal that an expression is, in parentheses or not.
fn literal(expr: &Expr) -> Option<&Value> {
    match expr {
        Expr::Value(value) => Some(&value.value),
        Expr::Nested(inner) => literal(inner),
        _ => None,
    }
}

/// Whether a literal is of no type before its place gives it one.
fn is_quoted(value: &Value) -> bool {
    matches!(value, Value::SingleQuotedString(_) | Value::EscapedStringLiteral(_) | Value::DollarQuotedString(_))
}

/// `CAST(expr AS type_name)`.
pub(crate) fn cast(expr: Expr, type_name: &str) -> Result<Expr, Error> {
    let template = parse_expression(&format!("CAST(NULL AS {type_name})"))?;
    match template {
        Expr::Cast { data_type, .. } => {
            Ok(Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, format: None, array: false })
        }
        other => Ok(other),
    }
}

/// `name(arguments)`.
pub(super) fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)));
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args.collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
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
