//! Types with a length or a precision: `varchar(10)`, `timestamp(3)`.
//!
//! A column keeps what its type says ([`event::Modifier`]) and holds its values to it. A cast to such a type cuts texts off and rounds
//! times, which is written here as calls before planning: the library's types know neither.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, CastKind, CharLengthUnits, CharacterLength, DataType as SqlType, Expr, Value, VisitMut,
    VisitorMut,
};
use event::{FRACTION_DIGITS_MAX, Modifier, VARCHAR_LENGTH_MAX};

use super::insert::call;
use crate::error::{Condition, Error};
use crate::functions::ROUND_TIME;

/// What a type says besides its kind.
///
/// # Errors
/// 22023 for a length that is none, 0A000 for one that is not in characters.
pub(super) fn modifier(sql: &SqlType) -> Result<Option<Modifier>, Error> {
    Ok(match sql {
        SqlType::Varchar(length) | SqlType::CharacterVarying(length) | SqlType::CharVarying(length) => {
            Some(Modifier::Varchar { length: length.as_ref().map(length_of).transpose()? })
        }
        SqlType::Time(Some(digits), _) | SqlType::Timestamp(Some(digits), _) => {
            // PostgreSQL takes more digits for as many as it has, too.
            Some(Modifier::Fraction { digits: u8::try_from(*digits).map_or(FRACTION_DIGITS_MAX, at_most_all) })
        }
        SqlType::Array(
            ArrayElemTypeDef::SquareBracket(element, _)
            | ArrayElemTypeDef::Parenthesis(element)
            | ArrayElemTypeDef::AngleBracket(element),
        ) => modifier(element)?,
        _ => None,
    })
}

fn at_most_all(digits: u8) -> u8 {
    digits.min(FRACTION_DIGITS_MAX)
}

fn length_of(written: &CharacterLength) -> Result<u32, Error> {
    let invalid = |message: String| Err(Error::report(Condition::InvalidParameterValue, message));
    match written {
        CharacterLength::IntegerLength { unit: Some(CharLengthUnits::Octets), .. } | CharacterLength::Max => {
            let message = format!("varchar({written}) is not supported");
            Err(Error::hinted(Condition::FeatureNotSupported, message, "Give the length in characters, or use text."))
        }
        CharacterLength::IntegerLength { length: 0, .. } => {
            invalid("length for type varchar must be at least 1".to_owned())
        }
        CharacterLength::IntegerLength { length, .. } => match u32::try_from(*length) {
            Ok(length) if length <= VARCHAR_LENGTH_MAX => Ok(length),
            _ => invalid(format!("length for type varchar cannot exceed {VARCHAR_LENGTH_MAX}")),
        },
    }
}

/// The refusal of `char(n)`, whose values PostgreSQL fills up with blanks that then count in some places and not in others.
pub(super) fn blank_padded(sql: &SqlType) -> Option<Error> {
    let (SqlType::Char(_) | SqlType::Character(_)) = sql else { return None };
    let message = format!("type {} is not supported", sql.to_string().to_lowercase());
    Some(Error::hinted(Condition::FeatureNotSupported, message, "Use varchar(n), or text with a CHECK constraint."))
}

/// Makes the casts of a statement, or of an expression, to types with a length or a precision do what they say. The columns of a statement
/// are named already.
///
/// # Errors
/// As [`modifier`]; 0A000 for `char(n)` and for arrays of such types.
pub(super) fn apply(part: &mut impl VisitMut) -> Result<(), Error> {
    match part.visit(&mut Casts) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Casts;

impl VisitorMut for Casts {
    type Break = Error;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let sql = match expr {
            Expr::Cast { data_type, .. } => data_type,
            Expr::TypedString(typed) => &mut typed.data_type,
            _ => return ControlFlow::Continue(()),
        };
        let wrapped = match kept_by(sql) {
            Ok(Some(kept)) => kept,
            Ok(None) => return ControlFlow::Continue(()),
            Err(error) => return ControlFlow::Break(error),
        };
        *sql = plain(sql);
        let number = |number: u32| Expr::Value(Value::Number(number.to_string(), false).into());
        let value = std::mem::replace(expr, Expr::Value(Value::Null.into()));
        *expr = match (wrapped, value) {
            // Only a cast is taken for text.
            (Kept::Characters(length), Expr::TypedString(typed)) => {
                let cast = Expr::Cast {
                    kind: CastKind::Cast,
                    expr: Box::new(Expr::Value(typed.value)),
                    data_type: typed.data_type,
                    array: false,
                    format: None,
                };
                call("left", vec![cast, number(length)])
            }
            (Kept::Characters(length), value) => call("left", vec![value, number(length)]),
            (Kept::Digits(digits), value) => call(ROUND_TIME, vec![value, number(digits.into())]),
            (Kept::All, value) => value,
        };
        ControlFlow::Continue(())
    }
}

/// What a cast leaves of a value.
enum Kept {
    All,
    Characters(u32),
    Digits(u8),
}

/// `None` for a type that planning knows as it is.
fn kept_by(sql: &SqlType) -> Result<Option<Kept>, Error> {
    // A single character is what tools ask for that read the catalog.
    if matches!(
        sql,
        SqlType::Char(None | Some(CharacterLength::IntegerLength { length: 1, .. }))
            | SqlType::Character(None | Some(CharacterLength::IntegerLength { length: 1, .. }))
    ) {
        return Ok(Some(Kept::Characters(1)));
    }
    if let Some(refused) = blank_padded(sql) {
        return Err(refused);
    }
    let kept = match modifier(sql)? {
        None => return Ok(None),
        Some(Modifier::Varchar { length: None }) => Kept::All,
        Some(Modifier::Varchar { length: Some(length) }) => Kept::Characters(length),
        Some(Modifier::Fraction { digits }) if digits >= FRACTION_DIGITS_MAX => Kept::All,
        Some(Modifier::Fraction { digits }) => Kept::Digits(digits),
    };
    if matches!(sql, SqlType::Array(_)) {
        return match kept {
            Kept::All => Ok(None),
            _ => {
                let message = format!("a cast to {} is not supported", sql.to_string().to_lowercase());
                let hint = "Leave the length or precision of the elements out.";
                Err(Error::hinted(Condition::FeatureNotSupported, message, hint))
            }
        };
    }
    Ok(Some(kept))
}

/// The type without its length or precision.
fn plain(sql: &SqlType) -> SqlType {
    match sql {
        SqlType::Time(_, zone) => SqlType::Time(None, *zone),
        SqlType::Timestamp(_, zone) => SqlType::Timestamp(None, *zone),
        _ => SqlType::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::statement;

    fn check(sql: &str, expected: &str) {
        let mut ast = statement::parse(sql).expect("valid").remove(0).ast.expect("not empty").as_ref().clone();
        let applied = apply(&mut ast).map_or_else(|error| error.to_string(), |()| ast.to_string());
        assert_eq!(applied, expected, "{sql}");
    }

    #[test]
    fn casts_cut_off_and_round() {
        check("SELECT a::varchar(3), b::character varying", "SELECT left(a::TEXT, 3), b::TEXT");
        check("SELECT varchar(3) 'abcd'", "SELECT left(CAST('abcd' AS TEXT), 3)");
        check(
            "SELECT CAST(ts AS timestamp(3)), ts::timestamptz(6)",
            "SELECT annal_round_time(CAST(ts AS TIMESTAMP), 3), ts::TIMESTAMPTZ",
        );
        check("SELECT 'a'::char, a::text", "SELECT left('a'::TEXT, 1), a::TEXT");
        check("SELECT a::char(3)", "type char(3) is not supported");
        check("SELECT a::varchar(0)", "length for type varchar must be at least 1");
        check("SELECT a::varchar(2)[]", "a cast to varchar(2)[] is not supported");
    }
}
