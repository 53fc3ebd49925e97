//! ALTER TABLE about constraints: what it makes of the definition. Whether rows that are there obey is seen before the commit
//! ([`super::validate`]).

use datafusion::sql::sqlparser::ast::{Expr, Ident, IndexColumn, TableConstraint};
use event::{TableDefinition, UniqueKey};

use super::ddl::{self, folded};
use super::{Session, checks, clauses, stated_keys};
use crate::error::{Condition, Error};

impl Session {
    /// ADD CONSTRAINT.
    ///
    /// # Errors
    /// 42710 and 42P07 for names that are taken, 42P16 for a second primary key, 0A000 for keys of event tables and other constraints; what
    /// planning an expression says.
    pub(super) async fn add_constraint(
        &mut self,
        table: &mut TableDefinition,
        constraint: &TableConstraint,
        not_valid: bool,
    ) -> Result<(), Error> {
        match constraint {
            TableConstraint::Check(check) => self.add_check(table, check.name.as_ref(), &check.expr, not_valid).await,
            TableConstraint::Unique(_) | TableConstraint::PrimaryKey(_) if not_valid => {
                let kind = if matches!(constraint, TableConstraint::Unique(_)) { "UNIQUE" } else { "PRIMARY KEY" };
                let message = format!("{kind} constraints cannot be marked NOT VALID");
                Err(Error::report(Condition::FeatureNotSupported, message))
            }
            TableConstraint::Unique(key) => {
                clauses::check_unique(key)?;
                add_unique(table, key.name.as_ref(), positions(table, &key.columns)?)
            }
            TableConstraint::PrimaryKey(key) => {
                clauses::check_primary_key(key)?;
                add_primary_key(table, key.name.as_ref(), positions(table, &key.columns)?)
            }
            other => Err(Error::hinted(
                Condition::FeatureNotSupported,
                format!("constraint {other} is not supported"),
                "Tables can have CHECK, and reference tables UNIQUE and PRIMARY KEY.",
            )),
        }
    }

    /// ADD CHECK; with `not_valid` rows that are there are not looked at.
    ///
    /// # Errors
    /// As [`Session::add_constraint`].
    pub(super) async fn add_check(
        &mut self,
        table: &mut TableDefinition,
        name: Option<&Ident>,
        expr: &Expr,
        not_valid: bool,
    ) -> Result<(), Error> {
        let mut check = checks::added(table, name, expr)?;
        check.validated = !not_valid;
        table.checks.push(check);
        self.ready_checks((&table.namespace, &table.name), &table.columns, &table.checks).await.map(drop)
    }

    /// DROP CONSTRAINT.
    ///
    /// # Errors
    /// 42704.
    pub(super) fn drop_constraint(
        &mut self,
        table: &mut TableDefinition,
        name: &str,
        if_exists: bool,
    ) -> Result<(), Error> {
        if let Some(at) = table.unique.iter().position(|key| key.name == name) {
            table.unique.remove(at);
            return Ok(());
        }
        if is_primary_key(table, name) {
            table.primary_key.clear();
            table.primary_key_named = None;
            return Ok(());
        }
        let Some(at) = table.checks.iter().position(|check| check.name == name) else {
            let message = missing(table, name);
            if if_exists {
                self.notice("NOTICE", "00000", format!("{message}, skipping"));
                return Ok(());
            }
            return Err(Error::report(Condition::UndefinedObject, message));
        };
        table.checks.remove(at);
        Ok(())
    }
}

/// ADD UNIQUE over the columns at `positions`.
///
/// # Errors
/// 42P07 for a name that is taken, 0A000 for event tables and types that are no keys.
pub(super) fn add_unique(
    table: &mut TableDefinition,
    name: Option<&Ident>,
    positions: Vec<usize>,
) -> Result<(), Error> {
    refuse_event_table(table, "unique constraints")?;
    ddl::refuse_as_keys(&table.columns, &positions)?;
    let taken = |name: &str| is_taken(table, name);
    let name = match name.map(folded) {
        Some(name) if taken(&name) => {
            return Err(Error::report(Condition::DuplicateTable, format!("relation \"{name}\" already exists")));
        }
        Some(name) => name,
        None => {
            let names: Vec<&str> = positions.iter().map(|at| table.columns[*at].name.as_str()).collect();
            let plain = format!("{}_{}_key", table.name, names.join("_"));
            let numbered = (1..).map(|number| format!("{plain}{number}"));
            let mut names = std::iter::once(plain.clone()).chain(numbered);
            names.find(|name| !taken(name)).expect("there are more numbers than constraints")
        }
    };
    table.unique.push(UniqueKey { name, columns: positions });
    Ok(())
}

/// ADD PRIMARY KEY over the columns at `positions`, which are NOT NULL from now on.
///
/// # Errors
/// 42P16 when there is one, 42P07 for a name that is taken, 0A000 for event tables and types that are no keys.
pub(super) fn add_primary_key(
    table: &mut TableDefinition,
    name: Option<&Ident>,
    positions: Vec<usize>,
) -> Result<(), Error> {
    refuse_event_table(table, "primary keys")?;
    ddl::refuse_as_keys(&table.columns, &positions)?;
    if !table.primary_key.is_empty() {
        let message = format!("multiple primary keys for table \"{}\" are not allowed", table.name);
        return Err(Error::report(Condition::InvalidTableDefinition, message));
    }
    let own = table.primary_key_name();
    let name = name.map(folded).filter(|name| *name != own);
    if let Some(name) = name.as_ref().filter(|name| is_taken(table, name)) {
        return Err(Error::report(Condition::DuplicateTable, format!("relation \"{name}\" already exists")));
    }
    table.primary_key_named = name;
    positions.iter().for_each(|at| set_not_null(table, *at));
    table.primary_key = positions;
    Ok(())
}

/// VALIDATE CONSTRAINT: what it says holds for all rows.
///
/// # Errors
/// 42704, and 42809 for a key.
pub(super) fn validate(table: &mut TableDefinition, name: &str) -> Result<(), Error> {
    if table.keys().iter().any(|key| key.name == name) {
        let message =
            format!("constraint \"{name}\" of relation \"{}\" is not a foreign key or check constraint", table.name);
        return Err(Error::report(Condition::WrongObjectType, message));
    }
    match table.checks.iter().position(|check| check.name == name) {
        Some(at) => {
            table.checks[at].validated = true;
            Ok(())
        }
        None => Err(Error::report(Condition::UndefinedObject, missing(table, name))),
    }
}

/// RENAME CONSTRAINT.
///
/// # Errors
/// 42704, 42710 for a name that is taken.
pub(super) fn rename(table: &mut TableDefinition, name: &str, new: String) -> Result<(), Error> {
    if is_taken(table, &new) {
        let message = format!("constraint \"{new}\" for relation \"{}\" already exists", table.name);
        return Err(Error::report(Condition::DuplicateObject, message));
    }
    if let Some(check) = table.checks.iter_mut().find(|check| check.name == name) {
        check.name = new;
        return Ok(());
    }
    if let Some(key) = table.unique.iter_mut().find(|key| key.name == name) {
        key.name = new;
        return Ok(());
    }
    if is_primary_key(table, name) {
        table.primary_key_named = Some(new);
        return Ok(());
    }
    Err(Error::report(Condition::UndefinedObject, missing(table, name)))
}

/// SET NOT NULL. Rows that were deleted may be NULL still, so that files and memory take NULLs as before.
pub(super) fn set_not_null(table: &mut TableDefinition, at: usize) {
    let column = &mut table.columns[at];
    column.required = column.nullable;
}

/// DROP NOT NULL.
///
/// # Errors
/// 42P16 for a column of the primary key, and for the time column.
pub(super) fn drop_not_null(table: &mut TableDefinition, at: usize) -> Result<(), Error> {
    let name = &table.columns[at].name;
    if table.primary_key.contains(&at) {
        let message = format!("column \"{name}\" is in a primary key");
        return Err(Error::report(Condition::InvalidTableDefinition, message));
    }
    if table.event().is_some_and(|options| options.time_column == at) {
        let message = format!("time column \"{name}\" must be NOT NULL");
        return Err(Error::report(Condition::InvalidTableDefinition, message));
    }
    let column = &mut table.columns[at];
    (column.nullable, column.required) = (true, false);
    Ok(())
}

fn positions(table: &TableDefinition, columns: &[IndexColumn]) -> Result<Vec<usize>, Error> {
    columns.iter().map(|column| stated_keys::key_column(column, &table.columns)).collect()
}

fn is_taken(table: &TableDefinition, name: &str) -> bool {
    table.checks.iter().any(|check| check.name == name) || table.keys().iter().any(|key| key.name == name)
}

fn is_primary_key(table: &TableDefinition, name: &str) -> bool {
    table.event().is_none() && !table.primary_key.is_empty() && table.primary_key_name() == name
}

fn missing(table: &TableDefinition, name: &str) -> String {
    format!("constraint \"{name}\" of relation \"{}\" does not exist", table.name)
}

fn refuse_event_table(table: &TableDefinition, what: &str) -> Result<(), Error> {
    if table.event().is_none() {
        return Ok(());
    }
    Err(Error::hinted(
        Condition::FeatureNotSupported,
        format!("{what} cannot be added to event table \"{}\"", table.name),
        "Its rows are not checked for duplicates; CREATE TABLE with a primary key and the option dedup keeps one row of each key.",
    ))
}
