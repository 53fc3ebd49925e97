//! Constraints that a table with rows gets: the rows that are there are looked at, whoever writes meanwhile.
//!
//! They are looked at right before the commit, which then holds only when no rows came since. Where rows keep coming, a statement that
//! does nothing else takes two steps: the constraint is made for new rows, NOT VALID, and holds for all once those that are there have
//! been looked at. What a crash leaves between the two says so, and can be validated or dropped.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use cluster::{Table, TableSnapshot};
use event::{Check, ColumnId, SchemaVersion, TableDefinition, TableId, UniqueKey};

use super::keys::{columns_of, duplicates, quoted, table_name};
use super::{Session, checks};
use crate::error::{Condition, Error, Report};

/// Attempts at a step while others change the same table.
const ATTEMPTS_MAX: u32 = 16;

/// What a definition asks of all rows that the one before did not.
#[derive(Debug, Default)]
pub(super) struct Demands {
    /// Columns in which no row may be NULL.
    columns: Vec<(ColumnId, String)>,
    checks: Vec<Check>,
    keys: Vec<UniqueKey>,
    /// Whether rows that were written under the definition before do not obey all of it anyway.
    of_new_rows: bool,
}

impl Demands {
    /// What `next` asks that `before` did not.
    pub(super) fn between(before: &TableDefinition, next: &TableDefinition) -> Demands {
        let mut demands = Demands::default();
        let said: Vec<Check> = before.checks.iter().map(|check| followed(check, before, next)).collect();
        for column in next.columns.iter().filter(|column| column.required) {
            if before.columns.iter().any(|old| old.id == column.id && !old.takes_null()) {
                continue;
            }
            let says_so = |check: &&Check| checks::not_null_column(&check.expression).as_ref() == Some(&column.name);
            match said.iter().filter(says_so).max_by_key(|check| check.validated) {
                Some(check) if check.validated => continue,
                enforced => demands.of_new_rows |= enforced.is_none(),
            }
            demands.columns.push((column.id, column.name.clone()));
        }
        for check in next.checks.iter().filter(|check| check.validated) {
            let same: Vec<&Check> = said.iter().filter(|old| old.expression == check.expression).collect();
            if same.iter().any(|old| old.validated) {
                continue;
            }
            demands.of_new_rows |= same.is_empty();
            demands.checks.push(check.clone());
        }
        let ids = |table: &TableDefinition, key: &UniqueKey| -> Vec<ColumnId> {
            key.columns.iter().map(|at| table.columns[*at].id).collect()
        };
        let held: Vec<Vec<ColumnId>> = before.keys().iter().map(|key| ids(before, key)).collect();
        demands.keys = next.keys().into_iter().filter(|key| !held.contains(&ids(next, key))).collect();
        demands.of_new_rows |= !demands.keys.is_empty();
        demands
    }

    /// Whether nothing is asked.
    pub(super) fn is_empty(&self) -> bool {
        self.columns.is_empty() && self.checks.is_empty() && self.keys.is_empty()
    }

    /// Whether they are all there is between two definitions, and can be made for new rows first.
    fn are_all(&self, before: &TableDefinition, next: &TableDefinition) -> bool {
        let mut without = next.clone();
        without.version = before.version;
        for column in &mut without.columns {
            column.required &= !self.columns.iter().any(|(id, _)| *id == column.id);
        }
        without.checks = before.checks.clone();
        let others = |check: &&Check| !self.checks.iter().any(|asked| asked.name == check.name);
        let kept = next.checks.iter().filter(others).eq(before.checks.iter().filter(others));
        self.keys.is_empty() && kept && without == *before
    }

    /// The constraints that make new rows obey.
    fn of_rows_to_come(&self, table: &str) -> Vec<Check> {
        let not_null = |(_, column): &(ColumnId, String)| Check {
            name: format!("{table}_{column}_not_null"),
            expression: format!("{} IS NOT NULL", quoted(column)),
            validated: false,
        };
        let checks = self.checks.iter().map(|check| Check { validated: false, ..check.clone() });
        self.columns.iter().map(not_null).chain(checks).collect()
    }
}

/// A constraint of `before` as it reads when the columns have the names of `next`.
fn followed(check: &Check, before: &TableDefinition, next: &TableDefinition) -> Check {
    let mut expression = check.expression.clone();
    let renamed = before.columns.iter().filter_map(|old| {
        let new = next.columns.iter().find(|new| new.id == old.id)?;
        (old.name != new.name).then(|| (old.name.clone(), format!("\u{1}{}", old.id), new.name.clone()))
    });
    let renamed: Vec<(String, String, String)> = renamed.collect();
    // By way of names that nobody has, for two columns may have changed theirs for each other's.
    let aside = renamed.iter().map(|(old, aside, _)| (old, aside));
    for (from, to) in aside.chain(renamed.iter().map(|(_, aside, new)| (aside, new))) {
        if let Ok(named) = checks::renamed(&expression, from, to) {
            expression = named;
        }
    }
    Check { expression, ..check.clone() }
}

impl Session {
    /// Refuses what ALTER TABLE asks of rows that are there when one does not obey, those of the open transaction included. Answers with
    /// the snapshot that was looked at.
    ///
    /// # Errors
    /// 23502, 23514, 23505 as PostgreSQL says them.
    pub(super) async fn look_at_rows(
        &self,
        table: &Arc<Table>,
        demands: &Demands,
    ) -> Result<Arc<TableSnapshot>, Error> {
        let reads = self.all_rows();
        let definition = &table.definition;
        let named = (definition.namespace.as_str(), definition.name.as_str());
        for (_, column) in &demands.columns {
            let query = format!("SELECT '' FROM {} WHERE {} IS NULL LIMIT 1", table_name(definition), quoted(column));
            if self.first_of(query, &reads).await?.is_some() {
                let message = format!("column \"{column}\" of relation \"{}\" contains null values", definition.name);
                return Err(Report::new(Condition::NotNullViolation, message).of_column(definition, column).into());
            }
        }
        for check in &demands.checks {
            let Check { name, expression, .. } = check;
            let query = format!("SELECT '' FROM {} WHERE NOT ({expression}) LIMIT 1", table_name(definition));
            if self.first_of(query, &reads).await?.is_some() {
                let message =
                    format!("check constraint \"{name}\" of relation \"{}\" is violated by some row", definition.name);
                return Err(Report::new(Condition::CheckViolation, message).of_constraint(named, name).into());
            }
        }
        for key in &demands.keys {
            if let Some(values) = self.first_of(duplicates(definition, key), &reads).await? {
                let detail = format!("Key ({})=({}) is duplicated.", columns_of(definition, key), values.join(", "));
                let message = format!("could not create unique index \"{}\"", key.name);
                let report = Report::new(Condition::UniqueViolation, message).detailed(detail);
                return Err(report.of_constraint(named, &key.name).into());
            }
        }
        self.snapshot_of(&reads, table).await
    }

    /// Right before the commit of what changes tables: all rows obey, and the commit holds only when no others came meanwhile.
    ///
    /// # Errors
    /// As [`Session::look_at_rows`].
    pub(super) async fn settle_demands(&mut self) -> Result<(), Error> {
        let Some(changes) = &self.changes else { return Ok(()) };
        let committed = self.engine.node().catalog();
        let altered: Vec<(Arc<Table>, Demands)> = changes
            .catalog()
            .tables
            .iter()
            .filter_map(|(id, table)| {
                // Nobody else has written to a table that the transaction has made.
                let before = committed.tables.get(id)?;
                let changed = before.definition.version != table.definition.version;
                changed.then(|| (Arc::clone(table), Demands::between(&before.definition, &table.definition)))
            })
            .filter(|(_, demands)| !demands.is_empty())
            .collect();
        for (table, demands) in altered {
            let read = self.look_at_rows(&table, &demands).await?;
            if let Some(changes) = self.changes.as_mut().filter(|_| demands.of_new_rows) {
                changes.rows_obey(&read);
            }
        }
        Ok(())
    }

    /// Rows kept coming while those that are there were looked at. When `next` does nothing but ask more of rows it is made in two steps;
    /// answers whether it was.
    ///
    /// # Errors
    /// As [`Session::look_at_rows`].
    pub(super) async fn alter_in_steps(
        &mut self,
        before: &TableDefinition,
        next: &TableDefinition,
    ) -> Result<bool, Error> {
        let demands = Demands::between(before, next);
        if demands.is_empty() || !demands.are_all(before, next) {
            return Ok(false);
        }
        let mut pending = demands.of_rows_to_come(&before.name);
        pending.retain(|check| !before.checks.iter().any(|there| there.name == check.name));
        let is_pending = |check: &Check| pending.iter().any(|added| added.name == check.name);
        self.redefine(before.id, |table| table.checks.extend(pending.iter().cloned())).await?;
        let finished = self.redefine(before.id, |table| {
            table
                .checks
                .retain(|check| !is_pending(check) || demands.checks.iter().any(|kept| kept.name == check.name));
            for check in &mut table.checks {
                check.validated |= demands.checks.iter().any(|asked| asked.name == check.name);
            }
            for column in &mut table.columns {
                column.required |= demands.columns.iter().any(|(id, _)| *id == column.id);
            }
        });
        if let Err(refused) = finished.await {
            self.redefine(before.id, |table| table.checks.retain(|check| !is_pending(check))).await?;
            return Err(refused);
        }
        Ok(true)
    }

    /// Changes a definition, and commits; again when somebody else has changed it meanwhile.
    async fn redefine(&mut self, id: TableId, change: impl Fn(&mut TableDefinition)) -> Result<(), Error> {
        for attempt in 1.. {
            let Some(table) = self.visible().tables.get(&id).cloned() else {
                return Err(Error::report(Condition::UndefinedTable, "the table was dropped meanwhile"));
            };
            let mut next = table.definition.as_ref().clone();
            change(&mut next);
            if next == *table.definition {
                return Ok(());
            }
            next.version = SchemaVersion(next.version.0 + 1);
            let altered = self.changing().await?.alter_table(next);
            match self.changed(altered).await {
                Err(Error::Cluster(cluster::Error::SchemaChanged(_))) if attempt < ATTEMPTS_MAX => {}
                outcome => return outcome.map(drop),
            }
        }
        unreachable!("the loop ends by returning")
    }
}
