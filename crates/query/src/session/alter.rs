//! ALTER TABLE: from the parsed statement to a new version of the table's definition.
//!
//! A change never rewrites rows. Columns keep their ids and their names in files, rows of older versions read in columns they do not have
//! what was the default when those were added.

use arrow::compute::cast;
use datafusion::sql::sqlparser::ast::{
    AlterColumnOperation, AlterTable, AlterTableOperation, ColumnDef, ColumnOption, DataType, Ident,
    RenameTableNameKind, SqlOption,
};
use event::{Column, ColumnType, Constant, IdentityKind, Modifier, SchemaVersion, TableDefinition, TableKind};

use super::create_like::declared_type;
use super::ddl::{self, folded, relation};
use super::insert::{self, position};
use super::validate::Demands;
use super::view::is_read;
use super::{Block, Outcome, Session, checks, clauses, constraints, modifiers, rows};
use crate::error::{Condition, Error};

/// Attempts when somebody else changes the same table meanwhile.
const ATTEMPTS_MAX: u32 = 3;
/// Attempts when rows come while those that are there are looked at.
const LOOKS_MAX: u32 = 16;

impl Session {
    pub(super) async fn alter_table(&mut self, alter: &AlterTable) -> Result<Outcome, Error> {
        let name = relation(&alter.name)?;
        let alone = self.block == Block::None;
        let mut asked = None;
        for attempt in 1.. {
            let table = match self.table(&name) {
                Ok(table) => table,
                Err(_) if alter.if_exists => {
                    self.notice("NOTICE", "00000", format!("relation \"{}\" does not exist, skipping", name.1));
                    break;
                }
                Err(error) => return Err(error),
            };
            let mut changed = table.definition.as_ref().clone();
            for operation in &alter.operations {
                self.alter(&mut changed, operation).await?;
            }
            if changed == *table.definition {
                break;
            }
            asked = Some(changed.replicas).filter(|replicas| *replicas != table.definition.replicas);
            changed.version = SchemaVersion(changed.version.0 + 1);
            let demands = Demands::between(&table.definition, &changed);
            let _turn = match demands.is_empty() {
                true => None,
                false => Box::pin(self.take_turn(changed.id)).await,
            };
            let altered = self.changing().await?.alter_table(changed.clone());
            if let Ok(table) = &altered {
                self.follow(table).await?;
                // Alone it is looked at right before the commit, which comes now.
                if !alone && !demands.is_empty() {
                    self.show_changes();
                    Box::pin(self.look_at_rows(table, &demands)).await?;
                }
            }
            match self.changed(altered).await {
                Ok(_) => break,
                Err(Error::Cluster(cluster::Error::SchemaChanged(_))) if alone && attempt < ATTEMPTS_MAX => {}
                Err(Error::Cluster(cluster::Error::Conflict)) if alone && attempt < LOOKS_MAX => {
                    if Box::pin(self.alter_in_steps(&table.definition, &changed)).await? {
                        break;
                    }
                }
                Err(Error::Cluster(cluster::Error::IsRead { readers, .. })) => {
                    return Err(is_read("alter", "table", &table.definition.name, &readers));
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(replicas) = asked {
            self.notice_fewer_nodes(&name.1, replicas);
        }
        Ok(Outcome::Done("ALTER TABLE".to_owned()))
    }

    async fn alter(&mut self, table: &mut TableDefinition, operation: &AlterTableOperation) -> Result<(), Error> {
        match operation {
            AlterTableOperation::AddColumn { if_not_exists, column_def, .. } => {
                self.add_column(table, column_def, *if_not_exists).await
            }
            AlterTableOperation::DropColumn { column_names, if_exists, .. } => {
                column_names.iter().try_for_each(|name| self.drop_column(table, &folded(name), *if_exists))
            }
            AlterTableOperation::RenameColumn { old_column_name, new_column_name } => {
                rename_column(table, &folded(old_column_name), folded(new_column_name))
            }
            AlterTableOperation::AlterColumn { column_name, op } => self.alter_column(table, column_name, op).await,
            AlterTableOperation::RenameTable { table_name: RenameTableNameKind::To(name) } => {
                (_, table.name) = relation(name)?;
                Ok(())
            }
            AlterTableOperation::AddConstraint { constraint, not_valid } => {
                self.add_constraint(table, constraint, *not_valid).await
            }
            AlterTableOperation::ValidateConstraint { name } => constraints::validate(table, &folded(name)),
            AlterTableOperation::RenameConstraint { old_name, new_name } => {
                constraints::rename(table, &folded(old_name), folded(new_name))
            }
            AlterTableOperation::DropConstraint { if_exists, name, .. } => {
                self.drop_constraint(table, &folded(name), *if_exists)
            }
            AlterTableOperation::SetOptionsParens { options } => set_options(table, options),
            other => Err(Error::hinted(
                Condition::FeatureNotSupported,
                format!("ALTER TABLE {other} is not supported"),
                "ALTER TABLE can ADD, DROP and RENAME COLUMN, RENAME TO, ADD, VALIDATE, RENAME and DROP CONSTRAINT, SET and RESET options, and of a column SET and DROP DEFAULT, SET and DROP NOT NULL and TYPE.",
            )),
        }
    }

    async fn add_column(
        &mut self,
        table: &mut TableDefinition,
        written: &ColumnDef,
        if_not_exists: bool,
    ) -> Result<(), Error> {
        let name = folded(&written.name);
        if table.position(&name).is_some() {
            let message = format!("column \"{name}\" of relation \"{}\" already exists", table.name);
            if if_not_exists {
                self.notice("NOTICE", "42701", format!("{message}, skipping"));
                return Ok(());
            }
            return Err(Error::report(Condition::DuplicateColumn, message));
        }
        let mut added = ddl::columns(std::slice::from_ref(written))?;
        let mut column = added.remove(0);
        if column.identity.is_some() {
            return Err(Error::hinted(
                Condition::FeatureNotSupported,
                "added columns cannot number the rows that are there",
                "Create another table with the column and INSERT INTO it what SELECT gives.",
            ));
        }
        self.settle_default(&mut column).await?;
        column.initial = self.initial(&column).await?;
        if !column.nullable && column.initial.is_none() {
            // Rows that are there would be NULL in it; whether there are any is seen before the commit.
            (column.nullable, column.required) = (true, true);
        }
        table.add_column(column);
        let last = table.columns.len() - 1;
        for option in &written.options {
            let named = option.name.as_ref();
            match &option.option {
                ColumnOption::Check(check) => {
                    self.add_check(table, named.or(check.name.as_ref()), &check.expr, false).await?;
                }
                ColumnOption::Unique(key) => {
                    clauses::check_unique(key)?;
                    constraints::add_unique(table, named, vec![last])?;
                }
                ColumnOption::PrimaryKey(key) => {
                    clauses::check_primary_key(key)?;
                    constraints::add_primary_key(table, named, vec![last])?;
                }
                // The others are of the column itself.
                _ => {}
            }
        }
        Ok(())
    }

    /// What rows that are there get in an added column: its default, computed now.
    async fn initial(&mut self, column: &Column) -> Result<Option<Constant>, Error> {
        let Some(text) = &column.default else { return Ok(None) };
        let value = match insert::plain_default(text) {
            Some(value) => value,
            None => {
                let value = self.value_of(text).await?;
                if self.value_of(text).await? != value {
                    return Err(Error::hinted(
                        Condition::FeatureNotSupported,
                        format!("default {text} of an added column would differ from row to row"),
                        "Add the column without it, then ALTER COLUMN ... SET DEFAULT for rows to come.",
                    ));
                }
                value
            }
        };
        Ok(Constant::first(&rows::default_column(&value, column, 1)?))
    }

    /// Constraints that name the column go with it.
    fn drop_column(&mut self, table: &mut TableDefinition, name: &str, if_exists: bool) -> Result<(), Error> {
        if if_exists && table.position(name).is_none() {
            let message = format!("column \"{name}\" of relation \"{}\" does not exist, skipping", table.name);
            self.notice("NOTICE", "00000", message);
            return Ok(());
        }
        let at = position(table, name)?;
        let orders = table.event().is_some_and(|options| {
            options.time_column == at || options.series.contains(&at) || table.primary_key.contains(&at)
        });
        if orders {
            return Err(Error::hinted(
                Condition::FeatureNotSupported,
                format!("cannot drop column \"{name}\": the rows of event table \"{}\" are ordered by it", table.name),
                "Create another table and INSERT INTO it what SELECT gives.",
            ));
        }
        if table.columns.len() == 1 {
            let message = format!("cannot drop column \"{name}\": a table has at least one column");
            return Err(Error::report(Condition::FeatureNotSupported, message));
        }
        let mut kept = Vec::new();
        for check in std::mem::take(&mut table.checks) {
            if !checks::names(&check.expression, name)? {
                kept.push(check);
            }
        }
        table.checks = kept;
        table.drop_column(at);
        Ok(())
    }

    async fn alter_column(
        &mut self,
        table: &mut TableDefinition,
        name: &Ident,
        operation: &AlterColumnOperation,
    ) -> Result<(), Error> {
        let at = position(table, &folded(name))?;
        let defaults = matches!(operation, AlterColumnOperation::SetDefault { .. } | AlterColumnOperation::DropDefault);
        if let Some(identity) = table.columns[at].identity.filter(|_| defaults) {
            if identity.kind != IdentityKind::Serial {
                let (column, table) = (&table.columns[at].name, &table.name);
                let message = format!("column \"{column}\" of relation \"{table}\" is an identity column");
                return Err(Error::report(Condition::SyntaxError, message));
            }
            table.columns[at].identity = None;
        }
        match operation {
            AlterColumnOperation::SetDefault { value } => {
                table.columns[at].default = Some(value.to_string());
                self.settle_default(&mut table.columns[at]).await
            }
            AlterColumnOperation::DropDefault => {
                table.columns[at].default = None;
                Ok(())
            }
            AlterColumnOperation::SetNotNull => {
                constraints::set_not_null(table, at);
                Ok(())
            }
            AlterColumnOperation::DropNotNull => constraints::drop_not_null(table, at),
            AlterColumnOperation::SetDataType { data_type, using: None, .. } => {
                self.widen_column(table, at, data_type).await
            }
            other => Err(Error::hinted(
                Condition::FeatureNotSupported,
                format!("ALTER COLUMN {other} is not supported"),
                "A column can SET and DROP DEFAULT, SET and DROP NOT NULL, and take a wider TYPE without USING.",
            )),
        }
    }

    async fn widen_column(
        &mut self,
        table: &mut TableDefinition,
        at: usize,
        data_type: &DataType,
    ) -> Result<(), Error> {
        let (column_type, modifier) = (ddl::column_type(data_type)?, modifiers::modifier(data_type)?);
        let says_shard = table.event().is_some_and(|options| options.sharding.by.contains(&at));
        let column = &mut table.columns[at];
        let is_whole =
            |column_type| matches!(column_type, ColumnType::SmallInt | ColumnType::Integer | ColumnType::BigInt);
        if says_shard && !(is_whole(column.column_type) && is_whole(column_type)) {
            return Err(Error::hinted(
                Condition::FeatureNotSupported,
                format!("cannot alter type of column \"{}\": it says the shard of each row", column.name),
                "Create another table and INSERT INTO it what SELECT gives.",
            ));
        }
        if !column.column_type.widens_to(column_type) || !Modifier::widens(column.modifier, modifier) {
            return Err(Error::hinted(
                Condition::FeatureNotSupported,
                format!(
                    "column \"{}\" cannot change from {} to {}",
                    column.name,
                    declared_type(column),
                    data_type.to_string().to_lowercase()
                ),
                "Rows are not rewritten: a type can become a wider one, such as integer to bigint, real to double precision, numeric(8,2) to numeric(12,2).",
            ));
        }
        let older = column.initial.as_ref().map(|_| cast(&column.of_older_rows(1), &column_type.arrow()));
        let older = older.transpose().map_err(|error| Error::report(Condition::Internal, error.to_string()))?;
        column.initial = older.and_then(|value| Constant::first(&value));
        column.column_type = column_type;
        column.modifier = modifier;
        self.settle_default(&mut table.columns[at]).await?;
        self.ready_checks((&table.namespace, &table.name), &table.columns, &table.checks).await.map(drop)
    }
}

/// Constraints name the column as it is called then.
fn rename_column(table: &mut TableDefinition, name: &str, new: String) -> Result<(), Error> {
    let Some(at) = table.position(name) else {
        return Err(Error::report(Condition::UndefinedColumn, format!("column \"{name}\" does not exist")));
    };
    if table.position(&new).is_some() {
        let message = format!("column \"{new}\" of relation \"{}\" already exists", table.name);
        return Err(Error::report(Condition::DuplicateColumn, message));
    }
    ddl::check_column_name(&new)?;
    for check in &mut table.checks {
        check.expression = checks::renamed(&check.expression, name, &new)?;
    }
    table.rename_column(at, new);
    Ok(())
}

/// SET (name = value, ...); RESET comes here with `default` for a value.
fn set_options(table: &mut TableDefinition, written: &[SqlOption]) -> Result<(), Error> {
    let options = ddl::options(written)?;
    if let Some(name) = options.fixed() {
        return Err(Error::hinted(
            Condition::FeatureNotSupported,
            format!("option \"{name}\" of an existing table cannot be changed"),
            "Options that can be changed are retention, compression, consistency and replicas.",
        ));
    }
    let given = |value: &str| value != "default";
    if let Some(said) = &options.retention {
        let said = Some(said.as_str()).filter(|value| given(value));
        let retention_us = said.map(|text| ddl::interval_us("retention", text)).transpose()?;
        match &mut table.kind {
            TableKind::Event(event) => event.retention_us = retention_us,
            TableKind::Reference => return Err(ddl::needs_time("retention")),
        }
    }
    if let Some(said) = &options.consistency {
        table.consistency = ddl::consistency(Some(said.as_str()).filter(|value| given(value)))?;
    }
    if let Some(said) = &options.replicas {
        table.replicas = ddl::replicas(Some(said.as_str()).filter(|value| given(value)))?;
    }
    if let Some(said) = &options.compression {
        table.compression = ddl::compression(Some(said.as_str()).filter(|value| given(value)))?;
    }
    Ok(())
}
