//! PRIMARY KEY and UNIQUE of a CREATE TABLE: of columns, and of the table.

use datafusion::sql::sqlparser::ast::{
    ColumnOption, ColumnOptionDef, CreateTable, Expr, Ident, IndexColumn, TableConstraint,
};
use event::{Column, UniqueKey};

use super::clauses;
use super::ddl::{constraint_refused, folded, position};
use crate::error::{Condition, Error};

/// The columns of the PRIMARY KEY, and the name of the constraint unless that is PostgreSQL's own.
///
/// # Errors
/// 42P16 for several, 0A000 for other constraints and for clauses of a key that nobody would do.
pub(super) fn primary_key(
    create: &CreateTable,
    table: &str,
    columns: &[Column],
) -> Result<(Vec<usize>, Option<String>), Error> {
    let mut keys: Vec<(Vec<usize>, Option<&Ident>)> = Vec::new();
    for (at, definition) in create.columns.iter().enumerate() {
        for option in &definition.options {
            if let ColumnOption::PrimaryKey(key) = &option.option {
                clauses::check_primary_key(key)?;
                keys.push((vec![at], option.name.as_ref()));
            }
        }
    }
    for constraint in &create.constraints {
        match constraint {
            TableConstraint::PrimaryKey(key) => {
                clauses::check_primary_key(key)?;
                let positions =
                    key.columns.iter().map(|column| key_column(column, columns)).collect::<Result<_, _>>()?;
                keys.push((positions, key.name.as_ref()));
            }
            TableConstraint::Check(_) | TableConstraint::Unique(_) => {}
            other => return Err(constraint_refused(&other.to_string())),
        }
    }
    if keys.len() > 1 {
        let message = format!("multiple primary keys for table \"{table}\" are not allowed");
        return Err(Error::report(Condition::InvalidTableDefinition, message));
    }
    let (positions, name) = keys.pop().unwrap_or_default();
    Ok((positions, name.map(folded).filter(|name| *name != format!("{table}_pkey"))))
}

/// The UNIQUE constraints of columns, then of the table. Their indexes cannot be called as that of the PRIMARY KEY.
pub(super) fn unique(
    create: &CreateTable,
    table: &str,
    columns: &[Column],
    primary_key: Option<&str>,
) -> Result<Vec<UniqueKey>, Error> {
    let mut keys: Vec<UniqueKey> = Vec::new();
    let mut stated: Vec<(Option<&Ident>, Vec<usize>)> = Vec::new();
    for (at, definition) in create.columns.iter().enumerate() {
        for ColumnOptionDef { name, option } in &definition.options {
            if let ColumnOption::Unique(key) = option {
                clauses::check_unique(key)?;
                stated.push((name.as_ref(), vec![at]));
            }
        }
    }
    let of_table = create.constraints.iter().filter_map(|constraint| match constraint {
        TableConstraint::Unique(key) => Some(key),
        _ => None,
    });
    for key in of_table {
        clauses::check_unique(key)?;
        let positions = key.columns.iter().map(|column| key_column(column, columns)).collect::<Result<_, _>>()?;
        stated.push((key.name.as_ref(), positions));
    }
    for (name, positions) in stated {
        let name = match name {
            Some(name) => folded(name),
            None => {
                let names: Vec<&str> = positions.iter().map(|at| columns[*at].name.as_str()).collect();
                let plain = format!("{table}_{}_key", names.join("_"));
                let numbered = (1..).map(|number| format!("{plain}{number}"));
                let is_free =
                    |name: &String| keys.iter().all(|key| key.name != *name) && primary_key != Some(name.as_str());
                std::iter::once(plain.clone()).chain(numbered).find(is_free).unwrap_or_default()
            }
        };
        if keys.iter().any(|key| key.name == name) || primary_key == Some(name.as_str()) {
            let message = format!("relation \"{name}\" already exists");
            return Err(Error::report(Condition::DuplicateTable, message));
        }
        keys.push(UniqueKey { name, columns: positions });
    }
    Ok(keys)
}

/// The position of a column that a key names.
///
/// # Errors
/// 42703.
pub(super) fn key_column(column: &IndexColumn, columns: &[Column]) -> Result<usize, Error> {
    let name = match &column.column.expr {
        Expr::Identifier(ident) => folded(ident),
        other => other.to_string(),
    };
    position(columns, &name).ok_or_else(|| {
        Error::report(Condition::UndefinedColumn, format!("column \"{name}\" named in key does not exist"))
    })
}
