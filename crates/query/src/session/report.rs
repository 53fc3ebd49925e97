//! What DataFusion and Arrow say, in PostgreSQL's words.

use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, SchemaError};
use parquet::errors::ParquetError;

use super::outer_names;
use crate::error::{Condition, Error, Report};

/// Names a mistyped one could have meant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Tables that can be named.
    pub(crate) tables: Vec<String>,
    /// Functions that can be called.
    pub(crate) functions: Vec<String>,
}

/// Words an error of planning or running `text`; positions count from the start of the message, where `text` begins at `offset`.
pub(crate) fn report(error: DataFusionError, text: &str, offset: usize, known: &Known) -> Error {
    let mut out = match unwrap(error) {
        Unwrapped::Own(error) => return error,
        Unwrapped::Theirs(error) => word(*error, known),
    };
    for said in [Some(&mut out.message), out.detail.as_mut(), out.hint.as_mut()].into_iter().flatten() {
        *said = outer_names::as_written(said);
    }
    locate(&mut out, text, offset);
    Error::Reported(Box::new(out))
}

/// An error of `statement` with its position, when it is about something that stands in the statement.
pub(crate) fn located(error: Error, statement: &super::Statement) -> Error {
    use datafusion::sql::sqlparser::ast::Statement as Ast;
    match (error, statement.ast.as_deref()) {
        (Error::Reported(mut report), Some(Ast::Query(_) | Ast::Insert(_))) if report.context.is_none() => {
            locate(&mut report, &statement.text, statement.offset);
            Error::Reported(report)
        }
        (error, _) => error,
    }
}

fn locate(report: &mut Report, text: &str, offset: usize) {
    if report.position.is_some() {
        return;
    }
    let at = match report.condition {
        Condition::UndefinedTable => {
            let found = quoted(&report.message).and_then(|name| find(text, &name).map(|at| (name, at)));
            found.map(|(name, at)| qualify(report, text, &name, at))
        }
        Condition::UndefinedFunction => {
            let called = between(&report.message, "function ", "(").map(str::to_owned);
            called.or_else(|| quoted(&report.message)).and_then(|name| find(text, &name))
        }
        Condition::UndefinedColumn | Condition::AmbiguousColumn | Condition::Grouping => {
            let name = quoted(&report.message);
            name.and_then(|name| find(text, &name).or_else(|| find(text, name.rsplit('.').next()?)))
        }
        Condition::InvalidTextRepresentation
        | Condition::InvalidDatetimeFormat
        | Condition::DatetimeOverflow
        | Condition::NumericOutOfRange => {
            let value =
                report.message.rsplit_once(": \"").map(|(_, rest)| rest).and_then(|rest| rest.strip_suffix('"'));
            let value = value.or_else(|| between(&report.message, "\"", "\" is out of range"));
            value.and_then(|value| text.find(&format!("'{value}'"))).map(|at| text[..at].chars().count())
        }
        _ => None,
    };
    report.position = at.map(|at| offset + at + 1);
}

/// A table written with its schema is named with it.
fn qualify(report: &mut Report, text: &str, name: &str, at: usize) -> usize {
    let before: String = text.chars().take(at).collect();
    // A name that is to become an oid stands in quotes.
    if before.ends_with('\'') {
        return at - 1;
    }
    let Some(schema) = before.strip_suffix('.') else { return at };
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let start = schema.char_indices().rev().take_while(|(_, c)| is_part(*c)).last().map(|(start, _)| start);
    let Some(start) = start else { return at };
    let schema = &schema[start..];
    report.message = format!("relation \"{}.{name}\" does not exist", schema.to_lowercase());
    if !schema.eq_ignore_ascii_case("public") {
        report.hint = None;
    }
    before[..start].chars().count()
}

enum Unwrapped {
    Own(Error),
    Theirs(Box<DataFusionError>),
}

/// Digs out our own error, or the one all wrapping is about.
fn unwrap(error: DataFusionError) -> Unwrapped {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => unwrap(*inner),
        DataFusionError::Collection(mut errors) if !errors.is_empty() => unwrap(errors.swap_remove(0)),
        DataFusionError::Shared(shared) => unwrap_shared(&shared),
        DataFusionError::ArrowError(inner, trace) => match *inner {
            ArrowError::ExternalError(source) => from_source(source),
            other => Unwrapped::Theirs(Box::new(DataFusionError::ArrowError(Box::new(other), trace))),
        },
        DataFusionError::ParquetError(inner) => match *inner {
            ParquetError::External(source) => from_source(source),
            other => Unwrapped::Theirs(Box::new(DataFusionError::ParquetError(Box::new(other)))),
        },
        DataFusionError::External(source) => from_source(source),
        other => Unwrapped::Theirs(Box::new(other)),
    }
}

fn from_source(source: Box<dyn std::error::Error + Send + Sync>) -> Unwrapped {
    let source = match source.downcast::<DataFusionError>() {
        Ok(error) => return unwrap(*error),
        Err(source) => source,
    };
    let source = match source.downcast::<ArrowError>() {
        Ok(error) => return unwrap(DataFusionError::ArrowError(error, None)),
        Err(source) => source,
    };
    let source = match source.downcast::<cluster::Error>() {
        Ok(error) => return Unwrapped::Own(Error::Cluster(*error)),
        Err(source) => source,
    };
    let source = match source.downcast::<storage::Error>() {
        Ok(error) => return Unwrapped::Own(Error::Cluster(cluster::Error::Storage(*error))),
        Err(source) => source,
    };
    match source.downcast::<Error>() {
        Ok(error) => Unwrapped::Own(*error),
        Err(source) => Unwrapped::Theirs(Box::new(DataFusionError::External(source))),
    }
}

/// A shared error cannot be taken apart; what it says is kept.
fn unwrap_shared(error: &DataFusionError) -> Unwrapped {
    let root = error.find_root();
    let source = match root {
        DataFusionError::External(source) => Some(source),
        DataFusionError::ParquetError(inner) => match inner.as_ref() {
            ParquetError::External(source) => Some(source),
            _ => None,
        },
        _ => None,
    };
    if let Some(source) = source {
        if let Some(Error::Reported(report)) = source.downcast_ref::<Error>() {
            return Unwrapped::Own(Error::Reported(report.clone()));
        }
        if let Some(storage::Error::Corrupt { file, offset, reason }) = source.downcast_ref::<storage::Error>() {
            let corrupt = storage::Error::Corrupt { file: file.clone(), offset: *offset, reason: reason.clone() };
            return Unwrapped::Own(Error::Cluster(cluster::Error::Storage(corrupt)));
        }
    }
    let copy = match root {
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            ArrowError::DivideByZero => DataFusionError::ArrowError(Box::new(ArrowError::DivideByZero), None),
            other => DataFusionError::Execution(other.to_string()),
        },
        DataFusionError::ResourcesExhausted(message) => DataFusionError::ResourcesExhausted(message.clone()),
        other => DataFusionError::Execution(other.strip_backtrace()),
    };
    Unwrapped::Theirs(Box::new(copy))
}

fn plain(condition: Condition, message: impl Into<String>) -> Report {
    Report::new(condition, message)
}

fn word(error: DataFusionError, known: &Known) -> Report {
    match error {
        DataFusionError::SchemaError(error, _) => schema(&error),
        DataFusionError::ArrowError(error, _) => arrow(&error),
        DataFusionError::ResourcesExhausted(message) => {
            let mut report = plain(Condition::OutOfMemory, "out of memory");
            report.detail = Some(message.lines().next().unwrap_or_default().to_owned());
            report.hint = Some(
                "The statement needs more memory than is free for queries; narrow it, or try again later.".to_owned(),
            );
            report
        }
        DataFusionError::NotImplemented(message) => not_implemented(&message),
        other => from_text(&other.strip_backtrace(), known),
    }
}

fn not_implemented(message: &str) -> Report {
    let expression = message.split_once("does not support logical expression ").map(|(_, rest)| rest);
    let (message, hint) = match expression {
        Some(outer) if outer.starts_with("OuterReferenceColumn") => (
            "this correlated subquery is not supported",
            "It refers to rows around it in a way that is not known here; write it as a join.",
        ),
        Some(subquery) if ["InSubquery", "Exists", "ScalarSubquery"].iter().any(|name| subquery.starts_with(name)) => {
            ("a subquery is not supported in this place", "Write it as a join, or in a WITH clause.")
        }
        _ => return plain(Condition::FeatureNotSupported, first_line(message)),
    };
    Report { hint: Some(hint.to_owned()), ..plain(Condition::FeatureNotSupported, message) }
}

fn schema(error: &SchemaError) -> Report {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let name = match &field.relation {
                Some(relation) => format!("{}.{}", relation.table(), field.name),
                None => field.name.clone(),
            };
            let quoted = if field.relation.is_some() { name.clone() } else { format!("\"{name}\"") };
            let mut report = plain(Condition::UndefinedColumn, format!("column {quoted} does not exist"));
            let candidates: Vec<(String, String)> = valid_fields
                .iter()
                .map(|column| {
                    let full = match &column.relation {
                        Some(relation) => format!("{}.{}", relation.table(), column.name),
                        None => column.name.clone(),
                    };
                    (column.name.clone(), full)
                })
                .collect();
            report.hint = nearest(&field.name, candidates.iter().map(|(name, _)| name.as_str()))
                .and_then(|name| candidates.iter().find(|candidate| candidate.0 == name))
                .map(|(_, full)| format!("Perhaps you meant to reference the column \"{full}\"."));
            report
        }
        SchemaError::AmbiguousReference { field } => {
            plain(Condition::AmbiguousColumn, format!("column reference \"{}\" is ambiguous", field.name))
        }
        SchemaError::DuplicateUnqualifiedField { name } | SchemaError::DuplicateQualifiedField { name, .. } => {
            plain(Condition::DuplicateColumn, format!("column \"{name}\" specified more than once"))
        }
    }
}

/// Words an error of Arrow's kernels.
pub(crate) fn arrow(error: &ArrowError) -> Report {
    let text = error.to_string();
    match error {
        ArrowError::DivideByZero => plain(Condition::DivisionByZero, "division by zero"),
        ArrowError::ArithmeticOverflow(_) => plain(Condition::NumericOutOfRange, "value out of range"),
        ArrowError::CastError(message) | ArrowError::ParseError(message) | ArrowError::ComputeError(message) => {
            cast(message)
        }
        ArrowError::InvalidArgumentError(message) if message.contains("overflow") || message.contains("too large") => {
            plain(Condition::NumericOutOfRange, "numeric field overflow")
        }
        ArrowError::MemoryError(_) => plain(Condition::OutOfMemory, "out of memory"),
        _ => plain(Condition::Internal, text),
    }
}

/// `Cannot cast string 'x' to value of Int32 type` and its relatives.
fn cast(message: &str) -> Report {
    let value = message.split('\'').nth(1);
    let type_name = |text: &str| {
        let text = text.to_owned();
        for (arrow, name) in [
            ("Int16", "smallint"),
            ("Int32", "integer"),
            ("Int64", "bigint"),
            ("Float32", "real"),
            ("Float64", "double precision"),
            ("Boolean", "boolean"),
            ("Decimal", "numeric"),
            ("Date", "date"),
            ("Timestamp", "timestamp"),
            ("Interval", "interval"),
        ] {
            if text.contains(arrow) {
                return name;
            }
        }
        "value"
    };
    if message.contains("can't cast") || message.contains("Can't cast value") || message.contains("out of range") {
        return plain(Condition::NumericOutOfRange, format!("{} out of range", type_name(message)));
    }
    if message.contains("timestamp")
        || message.contains("datetime")
        || message.contains("Date32")
        || message.contains("Timestamp")
    {
        let kind = if message.contains("Date32") { "date" } else { "timestamp" };
        let shown = value.unwrap_or_default();
        return plain(Condition::InvalidDatetimeFormat, format!("invalid input syntax for type {kind}: \"{shown}\""));
    }
    match value {
        Some(value) => plain(
            Condition::InvalidTextRepresentation,
            format!("invalid input syntax for type {}: \"{value}\"", type_name(message)),
        ),
        None if message.contains("verflow") => plain(Condition::NumericOutOfRange, "value out of range"),
        None => plain(Condition::InvalidTextRepresentation, first_line(message)),
    }
}

/// What is told apart by its words only.
fn from_text(text: &str, known: &Known) -> Report {
    let body = text
        .trim_start_matches("Error during planning: ")
        .trim_start_matches("Execution error: ")
        .trim_start_matches("Internal error: ")
        .trim_start_matches("External error: ");
    if let Some(name) = between(body, "table '", "' not found") {
        let name = name.rsplit('.').next().unwrap_or(name);
        let mut report = plain(Condition::UndefinedTable, format!("relation \"{name}\" does not exist"));
        report.hint = nearest(name, known.tables.iter().map(String::as_str))
            .map(|near| format!("Perhaps you meant to reference the table \"{near}\"."));
        return report;
    }
    if body.contains("Scalar subquery returned more than one row") {
        return plain(
            Condition::CardinalityViolation,
            "more than one row returned by a subquery used as an expression",
        );
    }
    if body.starts_with("LIMIT must be") {
        return plain(Condition::InvalidLimit, "LIMIT must not be negative");
    }
    if body.starts_with("OFFSET must be") {
        return plain(Condition::InvalidOffset, "OFFSET must not be negative");
    }
    if let Some(name) = between(body, "Invalid function '", "'") {
        return undefined_function(name, known);
    }
    if body.contains("Aggregate functions are not allowed in the WHERE clause")
        || body.contains("aggregate functions are not allowed in WHERE")
    {
        return plain(Condition::Grouping, "aggregate functions are not allowed in WHERE");
    }
    if let Some(found) = between(body, "Cannot create filter with non-boolean predicate", "\n")
        .or_else(|| body.split_once("Cannot create filter with non-boolean predicate").map(|(_, rest)| rest))
    {
        let found = found.rsplit(' ').next().unwrap_or_default().trim_end_matches('.');
        let message = format!("argument of WHERE must be type boolean, not type {}", sql_type(found));
        return plain(Condition::DatatypeMismatch, message);
    }
    let not_an_array = "op ANY/ALL (array) requires array on right side";
    if body.contains(not_an_array) {
        return plain(Condition::WrongObjectType, not_an_array);
    }
    // ANY and ALL are calls by then, and no functions for who wrote them.
    if let Some((value, element)) = between(body, "values are not compared: `", "`").and_then(|t| t.split_once(" and "))
    {
        return undefined_operator(format!("{} is not compared with {}.", sql_type(value), sql_type(element)));
    }
    if body.contains("No function matches") || body.contains("coerce") && body.contains("function") {
        let name = between(body, "unction '", "'").or_else(|| between(body, "'", "(")).unwrap_or("unknown");
        let types = between(body, "coercion from ", " to the signature");
        let types = types.or_else(|| between(body, "(DataType: ", ")")).unwrap_or_default();
        let types: Vec<&str> = types.split(", ").map(sql_type).collect();
        let message = format!("function {}({}) does not exist", name.to_lowercase(), types.join(", "));
        let mut report = plain(Condition::UndefinedFunction, message);
        report.hint = Some(
            "No function matches the given name and argument types. You might need to add explicit type casts."
                .to_owned(),
        );
        return report;
    }
    if body.contains("Cannot infer common argument type")
        || body.contains("Cannot coerce")
        || body.contains("not supported between")
        || body.contains("Cannot get result type")
    {
        return undefined_operator(first_line(body));
    }
    if body.contains("must appear in the GROUP BY clause")
        || body.contains("could not be resolved from available columns")
    {
        let column = between(body, "\"", "\"").unwrap_or("?");
        let message =
            format!("column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate function");
        return plain(Condition::Grouping, message);
    }
    if body.contains("Divide by zero") || body.contains("divide by zero") || body.contains("division by zero") {
        return plain(Condition::DivisionByZero, "division by zero");
    }
    if body.contains("verflow") {
        return plain(Condition::NumericOutOfRange, "value out of range");
    }
    if body.contains("Error parsing timestamp")
        || body.contains("Cannot cast string")
        || body.contains("Cast error")
        || body.contains("Parser error")
    {
        return cast(body);
    }
    if body.contains("Unsupported") || body.contains("not supported") || body.contains("not implemented") {
        return plain(Condition::FeatureNotSupported, first_line(body));
    }
    if text.starts_with("Error during planning") {
        return plain(Condition::SyntaxError, first_line(body));
    }
    let report = plain(Condition::Internal, first_line(body));
    match body.split_once('\n') {
        Some((_, more)) => report.detailed(more.trim().replace('\n', " ")),
        None => report,
    }
}

/// PostgreSQL's answer to an operator that is not there.
fn undefined_operator(detail: String) -> Report {
    let hint = "No operator matches the given name and argument types. You might need to add explicit type casts.";
    let report = plain(Condition::UndefinedFunction, "operator does not exist for these argument types");
    Report { hint: Some(hint.to_owned()), ..report }.detailed(detail)
}

/// PostgreSQL's answer to a function that is not there.
pub(crate) fn undefined_function(name: &str, known: &Known) -> Report {
    let mut report =
        plain(Condition::UndefinedFunction, format!("function \"{}\" does not exist", name.to_lowercase()));
    let near = nearest(&name.to_lowercase(), known.functions.iter().map(String::as_str));
    report.hint = Some(match near {
        Some(near) => format!("Perhaps you meant the function \"{near}\"."),
        None => "No function matches the given name and argument types. You might need to add explicit type casts."
            .to_owned(),
    });
    report
}

/// The name most like `name`, when it is like it at all.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |candidate: &str| strsim::damerau_levenshtein(name, candidate);
    let allowed = (name.chars().count() / 3).clamp(1, 4);
    candidates.map(|candidate| (distance(candidate), candidate)).min().filter(|(d, _)| *d <= allowed).map(|(_, c)| c)
}

/// What PostgreSQL calls the type that Arrow prints as `name`.
fn sql_type(name: &str) -> &str {
    match name {
        "Int16" => "smallint",
        "Int32" => "integer",
        "Int64" => "bigint",
        "Float32" => "real",
        "Float64" => "double precision",
        "Utf8" | "LargeUtf8" | "Utf8View" => "text",
        "Boolean" => "boolean",
        "Date32" => "date",
        name if name.starts_with("Decimal") => "numeric",
        name if name.starts_with("Timestamp") && name.contains("Some") => "timestamp with time zone",
        name if name.starts_with("Timestamp") => "timestamp without time zone",
        other => other,
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = &text[text.find(before)? + before.len()..];
    Some(&rest[..rest.find(after)?])
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim().trim_end_matches('.');
    let mut characters = line.chars();
    match (characters.next(), characters.next()) {
        // A word that is all capitals keeps them.
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            first.to_lowercase().chain(line.chars().skip(1)).collect()
        }
        _ => line.to_owned(),
    }
}

fn quoted(message: &str) -> Option<String> {
    match between(message, "\"", "\"") {
        Some(name) => Some(name.to_owned()),
        None => between(message, "column ", " ").map(str::to_owned),
    }
}

/// Characters before the first place where `name` stands as a word.
fn find(text: &str, name: &str) -> Option<usize> {
    let lower = text.to_lowercase();
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut from = 0;
    while let Some(at) = lower[from..].find(&name.to_lowercase()) {
        let at = from + at;
        let end = at + name.len();
        let before = lower[..at].chars().next_back();
        let after = lower.get(end..).and_then(|rest| rest.chars().next());
        if !before.is_some_and(is_part) && !after.is_some_and(is_part) {
            return Some(lower[..at].chars().count());
        }
        from = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn damage_that_a_reader_of_parquet_finds_is_told_as_such() {
        let damaged = || {
            let (file, reason) = ("segments/a/b".to_owned(), "a checksum".to_owned());
            let corrupt = storage::Error::Corrupt { file, offset: 7, reason };
            DataFusionError::ParquetError(Box::new(ParquetError::External(Box::new(corrupt))))
        };
        for error in [damaged(), DataFusionError::Shared(Arc::new(damaged()))] {
            let told = report(error, "", 0, &Known::default()).into_report();
            assert_eq!(told.condition, Condition::DataCorrupted);
            assert_eq!(told.message, "file \"segments/a/b\" is damaged at offset 7: a checksum");
        }
    }
}
