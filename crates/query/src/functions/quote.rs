//! `format(template, ...)`, `quote_ident`, `quote_literal`, `quote_nullable`: text that can stand in a statement.

use std::sync::Arc;

use arrow::array::{Array, StringArray, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::forms;
use crate::error::{Condition, Error};
use crate::text::Zone;

/// Words that are no names without quotes: PostgreSQL's keywords but for those that are not reserved in any place.
const KEYWORDS: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "between",
    "bigint",
    "binary",
    "bit",
    "boolean",
    "both",
    "case",
    "cast",
    "char",
    "character",
    "check",
    "coalesce",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "dec",
    "decimal",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "exists",
    "extract",
    "false",
    "fetch",
    "float",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "greatest",
    "group",
    "grouping",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "inout",
    "int",
    "integer",
    "intersect",
    "interval",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "least",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "national",
    "natural",
    "nchar",
    "none",
    "normalize",
    "not",
    "notnull",
    "null",
    "nullif",
    "numeric",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "out",
    "outer",
    "overlaps",
    "overlay",
    "placing",
    "position",
    "precision",
    "primary",
    "real",
    "references",
    "returning",
    "right",
    "row",
    "select",
    "session_user",
    "setof",
    "similar",
    "smallint",
    "some",
    "substring",
    "symmetric",
    "table",
    "tablesample",
    "then",
    "time",
    "timestamp",
    "to",
    "trailing",
    "treat",
    "trim",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "values",
    "varchar",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlexists",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
];

/// All of them.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    [What::Format, What::Ident, What::Literal, What::Nullable]
        .into_iter()
        .map(|what| {
            let signature = match what {
                What::Format => Signature::variadic_any(Volatility::Stable),
                _ => Signature::any(1, Volatility::Stable),
            };
            Arc::new(ScalarUDF::from(Quote { what, signature }))
        })
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    Format,
    Ident,
    Literal,
    Nullable,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Quote {
    what: What,
    signature: Signature,
}

impl ScalarUDFImpl for Quote {
    fn name(&self) -> &'static str {
        match self.what {
            What::Format => "format",
            What::Ident => "quote_ident",
            What::Literal => "quote_literal",
            What::Nullable => "quote_nullable",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let zone = Zone::of_session(&arguments.config_options);
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let texts = arrays.iter().map(|array| match array.data_type() {
            DataType::Null => Ok((array, StringArray::new_null(array.len()))),
            _ => Ok((array, forms::texts(array, zone)?)),
        });
        let texts = texts.collect::<Result<Vec<_>>>()?;
        let at = |column: usize, row: usize| {
            let (array, texts) = &texts[column];
            (array.is_valid(row) && texts.is_valid(row)).then(|| texts.value(row))
        };
        let Some(first) = arrays.first() else { return plan_err!("{} takes a text", self.name()) };
        let mut out = StringBuilder::new();
        for row in 0..first.len() {
            let value = at(0, row);
            out.append_option(match self.what {
                What::Format => {
                    let values: Vec<Option<&str>> = (1..texts.len()).map(|column| at(column, row)).collect();
                    value.map(|template| format(template, &values)).transpose()?
                }
                What::Ident => value.map(identifier),
                What::Literal => value.map(literal),
                What::Nullable => Some(value.map_or_else(|| "NULL".to_owned(), literal)),
            });
        }
        Ok(ColumnarValue::Array(Arc::new(out.finish())))
    }
}

/// The name as it is, or in quotes when it would be another one without.
fn identifier(name: &str) -> String {
    let begins = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
    let plain = begins && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    match plain && KEYWORDS.binary_search(&name).is_err() {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

/// A text in quotes.
fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    match quoted.contains('\\') {
        true => format!("E'{}'", quoted.replace('\\', "\\\\")),
        false => format!("'{quoted}'"),
    }
}

/// Replaces `%s`, `%I` and `%L`, with a place `2$`, and a width that `-` fills on the right.
fn format(template: &str, values: &[Option<&str>]) -> Result<String> {
    let mut out = String::new();
    let mut rest = template;
    let mut next = 0;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('%') {
            out.push('%');
            rest = behind;
            continue;
        }
        if let Some((place, behind)) = place(rest) {
            (next, rest) = (place, behind);
        }
        let left = rest.starts_with('-');
        rest = rest.trim_start_matches('-');
        let mut width = 0;
        if let Some(behind) = rest.strip_prefix('*') {
            let (place, behind) = place(behind).unwrap_or((next, behind));
            (next, rest) = (place + 1, behind);
            let given = values.get(place).ok_or_else(too_few)?;
            width = given.map_or(Ok(0), |given| given.parse::<i64>().map_err(|_| not_a_width(given)))?;
        } else {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits > 0 {
                width = rest[..digits].parse().map_err(|_| not_a_width(&rest[..digits]))?;
                rest = &rest[digits..];
            }
        }
        let Some(kind) = rest.chars().next() else {
            return Err(specifier("unterminated format() type specifier".to_owned()));
        };
        rest = &rest[kind.len_utf8()..];
        let value = *values.get(next).ok_or_else(too_few)?;
        next += 1;
        let text = match (kind, value) {
            ('s', value) => value.unwrap_or_default().to_owned(),
            ('I', Some(name)) => identifier(name),
            ('I', None) => {
                let message = "null values cannot be formatted as an SQL identifier";
                return Err(refusal(Error::report(Condition::NullValueNotAllowed, message)));
            }
            ('L', value) => value.map_or_else(|| "NULL".to_owned(), literal),
            (other, _) => return Err(specifier(format!("unrecognized format() type specifier \"{other}\""))),
        };
        pad(&mut out, &text, width, left)?;
    }
    out.push_str(rest);
    Ok(out)
}

/// `2$` at the beginning: the place, which counts from 0, and what is behind it.
fn place(text: &str) -> Option<(usize, &str)> {
    let (digits, behind) = text.split_once('$')?;
    let place: usize = digits.parse().ok()?;
    Some((place.checked_sub(1)?, behind))
}

/// The longest text that one width makes.
const WIDTH_MAX: u64 = 1 << 20;

fn pad(out: &mut String, text: &str, width: i64, left: bool) -> Result<()> {
    let wanted = width.unsigned_abs();
    if wanted > WIDTH_MAX {
        return Err(not_a_width(&width.to_string()));
    }
    let missing = (wanted as usize).saturating_sub(text.chars().count());
    let blanks = " ".repeat(missing);
    match left || width < 0 {
        true => out.extend([text, &blanks]),
        false => out.extend([blanks.as_str(), text]),
    }
    Ok(())
}

fn too_few() -> DataFusionError {
    refusal(Error::report(Condition::InvalidParameterValue, "too few arguments for format()"))
}

fn not_a_width(given: &str) -> DataFusionError {
    refusal(Error::report(Condition::InvalidParameterValue, format!("format() width \"{given}\" is out of range")))
}

fn specifier(message: String) -> DataFusionError {
    refusal(Error::hinted(Condition::InvalidParameterValue, message, "For a single \"%\" use \"%%\"."))
}

fn refusal(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_in_order() {
        assert!(KEYWORDS.is_sorted());
    }

    #[test]
    fn templates_are_filled() {
        let filled =
            |template: &str, values: &[Option<&str>]| format(template, values).unwrap_or_else(|e| e.to_string());
        assert_eq!(filled("a %s, %I and %L%%", &[Some("x"), Some("My"), Some("it's")]), "a x, \"My\" and 'it''s'%");
        assert_eq!(filled("%2$s %1$s %s", &[Some("a"), Some("b")]), "b a b");
        assert_eq!(filled("|%5s|%-5s|%*s|", &[Some("a"), Some("b"), Some("3"), Some("c")]), "|    a|b    |  c|");
        assert_eq!(filled("%s%L", &[None, None]), "NULL");
        assert!(format("%s", &[]).is_err() && format("%x", &[Some("")]).is_err() && format("%", &[]).is_err());
        assert_eq!(identifier("select"), "\"select\"");
        assert_eq!(identifier("a_1"), "a_1");
        assert_eq!(literal("a\\b"), "E'a\\\\b'");
    }
}
