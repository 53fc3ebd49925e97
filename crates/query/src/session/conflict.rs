//! INSERT ... ON CONFLICT: rows whose key is there already are left out, or change those that are there.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{Array, BooleanArray};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{FieldRef, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::row::{OwnedRow, RowConverter, SortField};
use cluster::Table;
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::sql::sqlparser::ast::{
    AssignmentTarget, ConflictTarget, DoUpdate, Expr, Insert, OnConflict, OnConflictAction, OnInsert, TableWithJoins,
    Value,
};
use event::{TableDefinition, UniqueKey};
use futures::StreamExt;
use storage::segment::SEQUENCE_COLUMN;

use super::change::Found;
use super::ddl::folded;
use super::insert::{is_default, position};
use super::keys::{quoted, table_name};
use super::rows::Target;
use super::transaction::Writing;
use super::{Prepared, Session, Statement};
use crate::error::{Condition, Error};
use crate::table::Reads;

/// The name by which DO UPDATE calls the row that was to be inserted.
const EXCLUDED: &str = "excluded";

/// What an INSERT says about rows that are there.
pub(super) struct Conflicts<'a> {
    /// The keys that count.
    keys: Vec<UniqueKey>,
    action: &'a OnConflictAction,
}

impl<'a> Conflicts<'a> {
    /// What `insert` says, checked against its table; `None` when it says nothing.
    ///
    /// # Errors
    /// 42P10 for a target that is no key, 0A000 for tables that check none.
    pub(super) fn of(insert: &'a Insert, definition: &TableDefinition) -> Result<Option<Conflicts<'a>>, Error> {
        let conflict = match &insert.on {
            None => return Ok(None),
            Some(OnInsert::OnConflict(conflict)) => conflict,
            Some(other) => {
                return Err(Error::report(Condition::SyntaxError, format!("syntax error at or near \"{other}\"")));
            }
        };
        if definition.event().is_some() {
            return Err(Error::hinted(
                Condition::FeatureNotSupported,
                "INSERT ... ON CONFLICT is not supported for event tables",
                "Rows of event tables never conflict; leave ON CONFLICT out.",
            ));
        }
        let keys = wanted(conflict, definition)?;
        Ok(Some(Conflicts { keys, action: &conflict.action }))
    }
}

/// The keys that a target names: without one all of them.
fn wanted(conflict: &OnConflict, definition: &TableDefinition) -> Result<Vec<UniqueKey>, Error> {
    let all = definition.keys();
    match &conflict.conflict_target {
        None if matches!(conflict.action, OnConflictAction::DoUpdate(_)) => {
            let message = "ON CONFLICT DO UPDATE requires inference specification or constraint name";
            Err(Error::hinted(Condition::SyntaxError, message, "For example, ON CONFLICT (column_name)."))
        }
        None => Ok(all),
        Some(ConflictTarget::Columns(columns)) => {
            let columns = columns.iter().map(|column| position(definition, &folded(column)));
            let columns: BTreeSet<usize> = columns.collect::<Result<_, _>>()?;
            let found = all.into_iter().find(|key| key.columns.iter().copied().collect::<BTreeSet<_>>() == columns);
            let found = found.ok_or_else(|| {
                let message = "there is no unique or exclusion constraint matching the ON CONFLICT specification";
                Error::report(Condition::InvalidColumnReference, message)
            });
            Ok(vec![found?])
        }
        Some(ConflictTarget::OnConstraint(name)) => {
            let name = name.to_string().replace('"', "");
            let found = all.into_iter().find(|key| key.name == name).ok_or_else(|| {
                let message = format!("constraint \"{name}\" for table \"{}\" does not exist", definition.name);
                Error::report(Condition::UndefinedObject, message)
            });
            Ok(vec![found?])
        }
    }
}

/// The keys of rows, to be looked up.
struct Keys {
    converter: RowConverter,
    positions: Vec<usize>,
}

impl Keys {
    fn new(key: &UniqueKey, schema: &SchemaRef, positions: Vec<usize>) -> Result<Keys, Error> {
        let fields = key.columns.iter().map(|at| SortField::new(schema.field(*at).data_type().clone()));
        Ok(Keys { converter: RowConverter::new(fields.collect()).map_err(internal)?, positions })
    }

    /// The key of each row, `None` with a NULL in it: such a key is nobody else's.
    fn of(&self, rows: &RecordBatch) -> Result<Vec<Option<OwnedRow>>, Error> {
        let columns: Vec<_> = self.positions.iter().map(|at| Arc::clone(rows.column(*at))).collect();
        let keys = self.converter.convert_columns(&columns).map_err(internal)?;
        let present = |row: usize| columns.iter().all(|column| column.is_valid(row));
        Ok((0..rows.num_rows()).map(|row| present(row).then(|| keys.row(row).owned())).collect())
    }
}

fn internal(error: arrow::error::ArrowError) -> Error {
    Error::report(Condition::Internal, error.to_string())
}

impl Session {
    /// Writes `rows` but those that conflict; answers with the rows written, and those that were updated.
    pub(super) async fn insert_or(
        &mut self,
        statement: &Statement,
        (insert, from): (&Insert, &TableWithJoins),
        conflicts: &Conflicts<'_>,
        table: &Arc<Table>,
        rows: Vec<RecordBatch>,
        parameters: &[ScalarValue],
    ) -> Result<(Vec<RecordBatch>, Writing), Error> {
        let definition = &table.definition;
        let schema = definition.arrow_schema();
        let rows = concat_batches(&schema, &rows).map_err(internal)?;
        let is_update = matches!(conflicts.action, OnConflictAction::DoUpdate(_));
        let mut free = vec![true; rows.num_rows()];
        for key in &conflicts.keys {
            let taken = self.taken(table, key, &schema).await?;
            let mut own = HashSet::new();
            for (row, key) in Keys::new(key, &schema, key.columns.clone())?.of(&rows)?.into_iter().enumerate() {
                let Some(key) = key else { continue };
                let is_taken = taken.contains(&key);
                let is_second = !own.insert(key);
                if is_second && is_update {
                    return Err(Error::hinted(
                        Condition::CardinalityViolation,
                        "ON CONFLICT DO UPDATE command cannot affect row a second time",
                        "Ensure that no rows proposed for insertion within the same command have duplicate constrained values.",
                    ));
                }
                free[row] &= !is_taken && !is_second;
            }
        }
        let (free, conflicting) = parts(&rows, &BooleanArray::from(free))?;
        let mut written = vec![free.clone()];
        if is_update && conflicting.num_rows() > 0 {
            let key = &conflicts.keys[0];
            let updated =
                self.update_conflicting(statement, (insert, from), conflicts, table, key, conflicting, parameters);
            written.push(Box::pin(updated).await?);
        }
        let mut writes = self.take_writes().await;
        for rows in written.iter().filter(|rows| rows.num_rows() > 0) {
            writes.append(table, rows.clone()).await?;
        }
        Ok((written, writes))
    }

    /// The keys of the rows that are there, the transaction's own among them.
    async fn taken(&self, table: &Arc<Table>, key: &UniqueKey, schema: &SchemaRef) -> Result<HashSet<OwnedRow>, Error> {
        let names: Vec<String> = key.columns.iter().map(|at| quoted(&schema.field(*at).name().clone())).collect();
        let text = format!("SELECT {} FROM {}", names.join(", "), table_name(&table.definition));
        let (query, ast) = self.written(text).await?;
        let planned = self.planned(&query, ast).await?;
        let runnable = self.made_ready(&query, planned, &[]).await?;
        let mut batches = self.start(&runnable);
        let keys = Keys::new(key, schema, (0..key.columns.len()).collect())?;
        let mut taken = HashSet::new();
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|error| self.worded(error, &query))?;
            taken.extend(keys.of(&batch)?.into_iter().flatten());
        }
        Ok(taken)
    }

    /// The types of parameters that only DO UPDATE names.
    pub(super) async fn describe_conflict(
        &self,
        prepared: &mut Prepared,
        (insert, from): (&Insert, &TableWithJoins),
        table: &Arc<Table>,
        given: &[Option<FieldRef>],
    ) -> Result<(), Error> {
        let conflicts = Conflicts::of(insert, &table.definition)?;
        let Some(Conflicts { keys, action: OnConflictAction::DoUpdate(update) }) = conflicts else { return Ok(()) };
        let own = own_name(insert, &table.definition);
        let (_, query) = self.written(update_query(&table.definition, update, &own, from, &keys[0])?).await?;
        let nothing = RecordBatch::new_empty(table.definition.arrow_schema());
        let reads = self.beside_excluded(&prepared.statement, table, nothing)?;
        let planned = self.planned_over(&prepared.statement, query, reads).await?;
        let types = self.types_of(&planned, given, &prepared.statement)?;
        prepared.parameters.extend(types.into_iter().skip(prepared.parameters.len()));
        Ok(())
    }

    /// What a statement reads now, with numbers in `table`, and `rows` under the name of those that were to be inserted.
    fn beside_excluded(&self, statement: &Statement, table: &Table, rows: RecordBatch) -> Result<Arc<Reads>, Error> {
        let excluded = MemTable::try_new(rows.schema(), vec![vec![rows]]).map_err(|e| self.worded(e, statement))?;
        Ok(Arc::new(self.reads().with_numbers(table.definition.id).with_named(EXCLUDED, Arc::new(excluded))))
    }

    /// Deletes the rows that `excluded` conflict with, and gives what takes their place.
    #[expect(clippy::too_many_arguments, reason = "each is a part of one statement")]
    async fn update_conflicting(
        &mut self,
        statement: &Statement,
        (insert, from): (&Insert, &TableWithJoins),
        conflicts: &Conflicts<'_>,
        table: &Arc<Table>,
        key: &UniqueKey,
        excluded: RecordBatch,
        parameters: &[ScalarValue],
    ) -> Result<RecordBatch, Error> {
        let definition = &table.definition;
        let OnConflictAction::DoUpdate(update) = conflicts.action else { unreachable!("the caller looked") };
        let own = own_name(insert, definition);
        let (_, query) = self.written(update_query(definition, update, &own, from, key)?).await?;
        let reads = self.beside_excluded(statement, table, excluded)?;
        let planned = self.planned_over(statement, query, Arc::clone(&reads)).await?;
        let runnable = self.made_ready(statement, planned, parameters).await?;
        let mut batches = self.start(&runnable);
        let target = Target {
            table: Arc::clone(definition),
            positions: (0..definition.columns.len()).collect(),
            defaults: vec![ScalarValue::Null; definition.columns.len()],
            zone: self.zone(),
            checks: self.checks(definition).await?,
        };
        let (mut found, mut updated) = (Found::default(), Vec::new());
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|error| self.worded(error, statement))?;
            updated.push(target.rows(&found.take(definition, &batch)?)?);
        }
        let read = reads.snapshot(table).await.map_err(|error| self.worded(error, statement))?;
        let index = read.shards.iter().map(|shard| shard.index).min().unwrap_or(0);
        self.take_writes().await.delete(table, index, &found.splits)?;
        concat_batches(&definition.arrow_schema(), &updated).map_err(internal)
    }
}

/// How DO UPDATE calls the row that is there.
fn own_name(insert: &Insert, definition: &TableDefinition) -> String {
    match &insert.table_alias {
        Some(alias) => alias.alias.to_string(),
        None => quoted(&definition.name),
    }
}

/// `SELECT __seq, columns … FROM table JOIN excluded ON key WHERE …`, with what is assigned in place of the columns.
fn update_query(
    definition: &TableDefinition,
    update: &DoUpdate,
    own: &str,
    from: &TableWithJoins,
    key: &UniqueKey,
) -> Result<String, Error> {
    let mut columns: Vec<String> =
        definition.columns.iter().map(|column| format!("{own}.{}", quoted(&column.name))).collect();
    for assignment in &update.assignments {
        let name = match &assignment.target {
            AssignmentTarget::ColumnName(name) => {
                name.0.last().and_then(|part| part.as_ident()).map(folded).unwrap_or_default()
            }
            other => {
                let message = format!("assignment to {other} is not supported");
                return Err(Error::report(Condition::FeatureNotSupported, message));
            }
        };
        let at = position(definition, &name)?;
        let column = &definition.columns[at];
        columns[at] = match &assignment.value {
            value if is_default(value) => column.default.clone().unwrap_or_else(|| "NULL".to_owned()),
            Expr::Value(value) if matches!(value.value, Value::Placeholder(_)) => {
                format!("CAST({value} AS {})", column.column_type)
            }
            value => value.to_string(),
        };
    }
    let columns: Vec<String> =
        columns.into_iter().enumerate().map(|(at, column)| format!("{column} AS \"__{}\"", at + 1)).collect();
    let same: Vec<String> = key
        .columns
        .iter()
        .map(|at| quoted(&definition.columns[*at].name))
        .map(|name| format!("{own}.{name} = {EXCLUDED}.{name}"))
        .collect();
    let condition = update.selection.as_ref().map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
    Ok(format!(
        "SELECT {own}.{SEQUENCE_COLUMN} AS \"__0\", {} FROM {from} JOIN {EXCLUDED} ON {}{condition}",
        columns.join(", "),
        same.join(" AND ")
    ))
}

/// The rows for which `flags` is true, and the others.
fn parts(rows: &RecordBatch, flags: &BooleanArray) -> Result<(RecordBatch, RecordBatch), Error> {
    let others = arrow::compute::not(flags).map_err(internal)?;
    let part = |flags: &BooleanArray| filter_record_batch(rows, flags).map_err(internal);
    Ok((part(flags)?, part(&others)?))
}
