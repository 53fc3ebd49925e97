//! Operators that PostgreSQL has and the planner has not, as functions and operators that it has.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, DataType as SqlType, Expr, Query, Subscript, UnaryOperator, Value, VisitMut, VisitorMut,
};

use super::compared_rows;
use super::insert::{call, parse_expression};
use crate::error::{Condition, Error};
use crate::functions::{ALL, ANY, knows_quantified};

/// The rows of a subquery that rows are compared with.
const ROWS_OF_IN: &str = "annal_in";

/// Rewrites `~x`, `|/ x`, `||/ x`, `@ x`, `a && b` of arrays, `a[2:]`, `(a, b) OVERLAPS (c, d)`, `SIMILAR TO`, ANY and ALL of arrays,
/// `(a, b) IN (SELECT ...)`, and comparisons of rows.
///
/// # Errors
/// 0A000 for a pattern that is no literal, for rows IN a subquery inside of others, and for OVERLAPS in an end of another.
pub(super) fn rewrite(part: &mut impl VisitMut) -> Result<(), Error> {
    match part.visit(&mut Operators::default()) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

#[derive(Default)]
struct Operators {
    /// How many OVERLAPS are open.
    overlaps: usize,
}

impl VisitorMut for Operators {
    type Break = Error;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        self.overlaps += usize::from(is_overlaps(expr));
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if is_overlaps(expr) {
            self.overlaps -= 1;
            // Each end is named several times, so that the statement would grow without bound.
            if self.overlaps > 0 {
                let message = "OVERLAPS inside of OVERLAPS is not supported";
                let hint = "Compute the inner one in a subquery in FROM.";
                return ControlFlow::Break(Error::hinted(Condition::FeatureNotSupported, message, hint));
            }
        }
        let rewritten = match expr {
            Expr::UnaryOp { op, expr } => unary(*op, expr),
            Expr::BinaryOp { left, op: BinaryOperator::PGOverlap, right } => {
                Ok(Some(call("array_has_any", vec![left.as_ref().clone(), right.as_ref().clone()])))
            }
            Expr::BinaryOp { left, op: BinaryOperator::Overlaps, right } => overlaps(left, right),
            Expr::SimilarTo { negated, expr, pattern, escape_char } => {
                let escape = escape_char.as_ref().map(|value| &value.value);
                similar(*negated, expr, pattern, escape).map(Some)
            }
            Expr::InSubquery { expr, subquery, negated } => row_in(expr, subquery, *negated),
            Expr::AnyOp { left, compare_op, right, .. } => match (in_parentheses(right), &*compare_op) {
                (Expr::Subquery(subquery), BinaryOperator::Eq) => row_in(left, subquery, false),
                (Expr::Subquery(_), _) => Ok(None),
                (array, op) => Ok(quantified(ANY, left, op, array)),
            },
            Expr::AllOp { left, compare_op, right } => match (in_parentheses(right), &*compare_op) {
                (Expr::Subquery(subquery), BinaryOperator::NotEq) => row_in(left, subquery, true),
                (Expr::Subquery(_), _) => Ok(None),
                (array, op) => Ok(quantified(ALL, left, op, array)),
            },
            Expr::CompoundFieldAccess { root, access_chain } => {
                close_slice(root, access_chain);
                Ok(None)
            }
            _ => compared_rows::spelled_out(expr),
        };
        match rewritten {
            Ok(Some(rewritten)) => *expr = rewritten,
            Ok(None) => {}
            Err(error) => return ControlFlow::Break(error),
        }
        ControlFlow::Continue(())
    }
}

fn is_overlaps(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op: BinaryOperator::Overlaps, .. })
}

fn unary(op: UnaryOperator, of: &Expr) -> Result<Option<Expr>, Error> {
    let name = match op {
        // All ones less the bits of the number, of whatever width it is.
        UnaryOperator::BitwiseNot => return parse_expression(&format!("(-1 - ({of}))")).map(Some),
        UnaryOperator::PGSquareRoot => "sqrt",
        UnaryOperator::PGCubeRoot => "cbrt",
        UnaryOperator::PGAbs => "abs",
        _ => return Ok(None),
    };
    Ok(Some(call(name, vec![of.clone()])))
}

/// Two spans have an instant in common; the end belongs to a span only when that is an instant itself.
fn overlaps(left: &Expr, right: &Expr) -> Result<Option<Expr>, Error> {
    let span = |expr: &Expr| {
        let Expr::Tuple(ends) = expr else { return None };
        let [begin, end] = ends.as_slice() else { return None };
        let is_length = match end {
            Expr::Interval(_) => true,
            Expr::Cast { data_type, .. } => matches!(data_type, SqlType::Interval { .. }),
            Expr::TypedString(typed) => matches!(typed.data_type, SqlType::Interval { .. }),
            _ => false,
        };
        let end = if is_length { format!("(({begin}) + ({end}))") } else { format!("({end})") };
        let either = |first: &str, last: &str| format!("(CASE WHEN ({begin}) <= {end} THEN {first} ELSE {last} END)");
        let begin = format!("({begin})");
        Some((either(&begin, &end), either(&end, &begin)))
    };
    let (Some((begin, end)), Some((other_begin, other_end))) = (span(left), span(right)) else { return Ok(None) };
    let text = format!("(({begin} < {other_end} AND {other_begin} < {end}) OR {begin} = {other_begin})");
    parse_expression(&text).map(Some)
}

fn similar(negated: bool, expr: &Expr, pattern: &Expr, escape: Option<&Value>) -> Result<Expr, Error> {
    let unsupported = || {
        let hint = "Write the pattern as a literal, or use a regular expression: ~ '^(a|b)$'.";
        Error::hinted(Condition::FeatureNotSupported, "SIMILAR TO with a computed pattern is not supported", hint)
    };
    let text = |value: &Value| match value {
        Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text.clone()),
        _ => None,
    };
    let Expr::Value(pattern) = pattern else { return Err(unsupported()) };
    let pattern = text(&pattern.value).ok_or_else(unsupported)?;
    let escape = match escape.map(text) {
        None => Some('\\'),
        Some(escape) => {
            let escape = escape.ok_or_else(unsupported)?;
            let mut characters = escape.chars();
            let first = characters.next();
            if characters.next().is_some() {
                let hint = "Escape string must be empty or one character.";
                return Err(Error::hinted(Condition::InvalidEscapeSequence, "invalid escape string", hint));
            }
            first
        }
    };
    let regex = Box::new(Expr::Value(Value::SingleQuotedString(regex_of(&pattern, escape)).into()));
    let op = if negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
    let matched = Expr::BinaryOp { left: Box::new(Expr::Nested(Box::new(expr.clone()))), op, right: regex };
    Ok(Expr::Nested(Box::new(matched)))
}

/// A pattern of SIMILAR TO as a regular expression over the whole text.
fn regex_of(pattern: &str, escape: Option<char>) -> String {
    let mut regex = String::from("(?s)^(?:");
    let mut escaped = false;
    let mut bracket = false;
    for c in pattern.chars() {
        let is_word = c.is_alphanumeric() || c == '_' || !c.is_ascii();
        match c {
            _ if escaped => {
                if !is_word {
                    regex.push('\\');
                }
                regex.push(c);
                escaped = false;
            }
            _ if Some(c) == escape => escaped = true,
            ']' if bracket => {
                regex.push(c);
                bracket = false;
            }
            '\\' => regex.push_str("\\\\"),
            _ if bracket => regex.push(c),
            '[' => {
                regex.push(c);
                bracket = true;
            }
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '(' => regex.push_str("(?:"),
            '.' | '^' | '$' => {
                regex.push('\\');
                regex.push(c);
            }
            _ => regex.push(c),
        }
    }
    regex.push_str(")$");
    regex
}

fn in_parentheses(expr: &Expr) -> &Expr {
    match expr {
        Expr::Nested(inner) => in_parentheses(inner),
        other => other,
    }
}

/// `value op ANY (array)` as a call; nothing for an operator that it does not know.
fn quantified(function: &str, value: &Expr, op: &BinaryOperator, array: &Expr) -> Option<Expr> {
    let op = op.to_string();
    knows_quantified(&op).then(|| {
        let op = Expr::Value(Value::SingleQuotedString(op).into());
        call(function, vec![op, value.clone(), array.clone()])
    })
}

/// `a[2:]` goes to the end, `a[:2]` begins at the first.
fn close_slice(array: &Expr, chain: &mut [AccessExpr]) {
    let [AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, .. })] = chain else { return };
    lower_bound.get_or_insert_with(|| Expr::Value(Value::Number("1".to_owned(), false).into()));
    if upper_bound.is_none() {
        *upper_bound = parse_expression(&format!("CAST(cardinality({array}) AS bigint)")).ok();
    }
}

/// True when one of the rows is equal; unknown when none is, but one might be.
fn row_in(row: &Expr, subquery: &Query, negated: bool) -> Result<Option<Expr>, Error> {
    let Some(columns) = compared_rows::row(row) else { return Ok(None) };
    let subquery = subquery.to_string();
    // It is named twice, so that the statement would grow without bound.
    if subquery.contains(ROWS_OF_IN) {
        let message = "IN with rows and a subquery inside of another is not supported";
        return Err(Error::hinted(Condition::FeatureNotSupported, message, "Use EXISTS."));
    }
    let names: Vec<String> = (1..=columns.len()).map(|at| format!("annal_{at}")).collect();
    let equal = columns.iter().zip(&names).map(|(column, name)| format!("{ROWS_OF_IN}.{name} = ({column})"));
    let equal = equal.collect::<Vec<_>>().join(" AND ");
    let names = names.join(", ");
    let any = |what: &str| format!("EXISTS (SELECT 1 FROM ({subquery}) AS {ROWS_OF_IN} ({names}) WHERE {what})");
    let (found, unknown) = (any(&equal), any(&format!("({equal}) IS NULL")));
    parse_expression(&format!("(CASE WHEN {found} THEN {} WHEN {unknown} THEN NULL ELSE {negated} END)", !negated))
        .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_the_whole_text() {
        for (pattern, regex) in [
            ("a%", "(?s)^(?:a.*)$"),
            ("%(b|d)_", "(?s)^(?:.*(?:b|d).)$"),
            ("1.5\\%", "(?s)^(?:1\\.5\\%)$"),
            ("[a-c%]+", "(?s)^(?:[a-c%]+)$"),
        ] {
            assert_eq!(regex_of(pattern, Some('\\')), regex, "{pattern}");
        }
        assert_eq!(regex_of("a!%\\", Some('!')), "(?s)^(?:a\\%\\\\)$");
        assert_eq!(regex_of("a\\%", None), "(?s)^(?:a\\\\.*)$");
    }
}
