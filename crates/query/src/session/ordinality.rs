//! `unnest(...) WITH ORDINALITY` and `generate_series(...) WITH ORDINALITY`: rows with their numbers.
//!
//! The library numbers nothing in FROM. What numbers an array is a series as long as it, unnested beside it; the number of a value of a series
//! of integers follows from the value.

use datafusion::sql::sqlparser::ast::{
    FunctionArg, FunctionArgExpr, Ident, ObjectNamePart, TableAlias, TableAliasColumnDef, TableFactor,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::names::{are_integers, series_of_times};

/// What the number's column is called when nothing is said.
const ORDINALITY: &str = "ordinality";

/// The same rows without the words; `None` for other functions, and where they are not said.
pub(super) fn numbered(factor: &TableFactor) -> Option<TableFactor> {
    let text = match factor {
        TableFactor::UNNEST { with_ordinality: true, with_offset: false, array_exprs, alias, .. } => {
            let [array] = array_exprs.as_slice() else { return None };
            beside_numbers(&array.to_string(), &columns(alias.as_ref(), "unnest"))
        }
        TableFactor::Table { name, args: Some(arguments), with_ordinality: true, alias, .. } => {
            let function = name.0.last().and_then(ObjectNamePart::as_ident)?.value.to_lowercase();
            if function != "generate_series" {
                return None;
            }
            let alias = columns(alias.as_ref(), &function);
            match series_of_times(&function, &arguments.args) {
                Some(series) => beside_numbers(&series, &alias),
                None => counted(&arguments.args, &alias)?,
            }
        }
        _ => return None,
    };
    Parser::new(&PostgreSqlDialect {}).try_with_sql(&text).and_then(|mut parser| parser.parse_table_factor()).ok()
}

/// The alias with names for both columns.
fn columns(alias: Option<&TableAlias>, function: &str) -> TableAlias {
    let own = TableAlias { explicit: true, name: Ident::new(function), columns: Vec::new(), at: None };
    let mut alias = alias.cloned().unwrap_or(own);
    alias.explicit = true;
    let names = [alias.name.clone(), Ident::new(ORDINALITY)];
    for name in names.into_iter().skip(alias.columns.len()) {
        alias.columns.push(TableAliasColumnDef { name, data_type: None });
    }
    alias
}

fn beside_numbers(array: &str, alias: &TableAlias) -> String {
    format!("UNNEST({array}, generate_series(CAST(1 AS bigint), CAST(cardinality({array}) AS bigint))) {alias}")
}

/// A series of integers, each with its distance from the first.
fn counted(arguments: &[FunctionArg], alias: &TableAlias) -> Option<String> {
    let of = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.to_string()),
        _ => None,
    };
    let written: Vec<String> = arguments.iter().map(of).collect::<Option<_>>()?;
    let (first, step) = match written.as_slice() {
        [first, _] => (first.as_str(), "1"),
        [first, _, step] => (first.as_str(), step.as_str()),
        _ => return None,
    };
    let [value, number] = alias.columns.as_slice() else { return None };
    let (value, number, series) = (&value.name, &number.name, written.join(", "));
    let shown = match are_integers(arguments) {
        true => format!("CAST({value} AS integer) AS {value}"),
        false => value.to_string(),
    };
    Some(format!(
        "(SELECT {shown}, CAST(({value} - ({first})) / ({step}) + 1 AS bigint) AS {number} \
         FROM generate_series({series}) AS annal_series({value})) {alias}"
    ))
}
