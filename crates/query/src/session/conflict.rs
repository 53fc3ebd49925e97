//! INSERT ... ON CONFLICT: rows whose key is there already are left out, or change those that are there.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::{concat_batches, filter_record_batch, max, min};
use arrow::datatypes::{FieldRef, SchemaRef, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use arrow::row::{OwnedRow, RowConverter, SortField};
use cluster::Table;
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::sql::sqlparser::ast::{
    ConflictTarget, DoUpdate, Expr, Insert, OnConflict, OnConflictAction, OnInsert, Statement as Ast, TableWithJoins,
};
use event::limits::CONFLICT_BYTES_MAX;
use event::{TableDefinition, UniqueKey};
use futures::StreamExt;

use super::change::{Found, assigned};
use super::ddl::folded;
use super::defaults::DefaultValue;
use super::insert::position;
use super::keys::{quoted, table_name};
use super::rows::Target;
use super::transaction::Writing;
use super::versions::{ToChange, own_name};
use super::{Prepared, Session, Statement};
use crate::error::{Condition, Error};
use crate::table::Reads;

/// The name by which DO UPDATE calls the row that was to be inserted.
const EXCLUDED: &str = "excluded";

/// What an INSERT says about rows that are there.
pub(super) struct Conflicts<'a> {
    /// The keys that count.
    keys: Vec<UniqueKey>,
    /// What happens to the rows that are there; `None` is DO NOTHING.
    update: Option<Change<'a>>,
}

/// What DO UPDATE does.
struct Change<'a> {
    /// The value of each assigned column by its position.
    assigned: BTreeMap<usize, Expr>,
    selection: Option<&'a Expr>,
}

/// An INSERT with ON CONFLICT.
pub(super) struct Upsert<'a> {
    /// The statement.
    pub(super) statement: &'a Statement,
    /// What it says.
    pub(super) insert: &'a Insert,
    /// What it says about rows that are there.
    pub(super) conflicts: &'a Conflicts<'a>,
    /// Its table.
    pub(super) table: &'a Arc<Table>,
    /// Values of its parameters.
    pub(super) parameters: &'a [ScalarValue],
}

/// The rows of a query that are to be inserted, all of which must be known before the first is written.
#[derive(Default)]
pub(super) struct Gathered {
    /// The rows.
    pub(super) rows: Vec<RecordBatch>,
    bytes: usize,
}

impl Gathered {
    /// Adds some.
    ///
    /// # Errors
    /// 54000 when they are too many.
    pub(super) fn push(&mut self, rows: RecordBatch) -> Result<(), Error> {
        self.bytes += rows.get_array_memory_size();
        if self.bytes > CONFLICT_BYTES_MAX {
            return Err(Error::hinted(
                Condition::ProgramLimitExceeded,
                "INSERT ... ON CONFLICT has too many rows",
                "Write in smaller parts.",
            ));
        }
        self.rows.push(rows);
        Ok(())
    }
}

impl<'a> Conflicts<'a> {
    /// What `insert` says, checked against its table; `None` when it says nothing.
    ///
    /// # Errors
    /// 42P10 for a target that is no key, 42703 and 42601 for what is assigned, 0A000 for tables that check no keys.
    pub(super) fn of(insert: &'a Insert, definition: &TableDefinition) -> Result<Option<Conflicts<'a>>, Error> {
        let conflict = match &insert.on {
            None => return Ok(None),
            Some(OnInsert::OnConflict(conflict)) => conflict,
            Some(other) => {
                return Err(Error::report(Condition::SyntaxError, format!("syntax error at or near \"{other}\"")));
            }
        };
        let keys = wanted(conflict, definition, conflict_keys(definition)?)?;
        let update = match &conflict.action {
            OnConflictAction::DoNothing => None,
            OnConflictAction::DoUpdate(DoUpdate { assignments, selection }) => {
                Some(Change { assigned: assigned(assignments, definition)?, selection: selection.as_ref() })
            }
        };
        Ok(Some(Conflicts { keys, update }))
    }
}

/// The keys by which rows of the table conflict: of an event table the one of which it keeps one row.
fn conflict_keys(definition: &TableDefinition) -> Result<Vec<UniqueKey>, Error> {
    let Some(options) = definition.event() else { return Ok(definition.keys()) };
    if options.dedup.is_none() {
        return Err(Error::hinted(
            Condition::FeatureNotSupported,
            format!(
                "INSERT ... ON CONFLICT is not supported for event table \"{}\": it keeps all rows",
                definition.name
            ),
            "Leave ON CONFLICT out, or create the table with a primary key and the option dedup.",
        ));
    }
    Ok(vec![UniqueKey { name: definition.primary_key_name(), columns: options.sort_key() }])
}

/// The keys that a target names: without one all of them.
fn wanted(conflict: &OnConflict, definition: &TableDefinition, all: Vec<UniqueKey>) -> Result<Vec<UniqueKey>, Error> {
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

/// Reads the keys of rows.
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

/// The rows to be inserted by one of their keys.
struct Proposed {
    /// The row that has it, the first of several.
    rows: HashMap<OwnedRow, usize>,
    /// Rows with a key of one before them.
    repeated: Vec<usize>,
}

impl Proposed {
    fn new(keys: Vec<Option<OwnedRow>>) -> Proposed {
        let mut proposed = Proposed { rows: HashMap::with_capacity(keys.len()), repeated: Vec::new() };
        for (row, key) in keys.into_iter().enumerate() {
            let Some(key) = key else { continue };
            match proposed.rows.entry(key) {
                Entry::Vacant(vacant) => _ = vacant.insert(row),
                Entry::Occupied(_) => proposed.repeated.push(row),
            }
        }
        proposed
    }
}

fn internal(error: arrow::error::ArrowError) -> Error {
    Error::report(Condition::Internal, error.to_string())
}

impl Session {
    /// Writes `rows` but those that conflict; answers with the rows written, and those that were updated.
    pub(super) async fn upsert(
        &mut self,
        upsert: &Upsert<'_>,
        rows: Vec<RecordBatch>,
    ) -> Result<(Vec<RecordBatch>, Writing), Error> {
        let Upsert { conflicts, table, .. } = upsert;
        let schema = table.definition.arrow_schema();
        let mut rows = self.aside(move || concat_batches(&schema, &rows).map_err(internal)).await?;
        let mut free = vec![true; rows.num_rows()];
        for key in &conflicts.keys {
            let taken = self.conflicting(upsert, key, &rows).await?;
            taken.into_iter().for_each(|row| free[row] = false);
        }
        let (free, conflicting) = parts(&rows, &BooleanArray::from(free))?;
        rows = free;
        let mut written = Vec::new();
        if let Some(change) = conflicts.update.as_ref().filter(|_| conflicting.num_rows() > 0) {
            written.push(Box::pin(self.update_conflicting(upsert, change, conflicting)).await?);
        }
        written.insert(0, rows);
        let mut writes = self.take_writes().await;
        for rows in written.iter().filter(|rows| rows.num_rows() > 0) {
            writes.append(table, rows.clone()).await?;
        }
        Ok((written, writes))
    }

    /// Those of `rows` whose key is there already, in the table or in a row before them.
    async fn conflicting(&self, upsert: &Upsert<'_>, key: &UniqueKey, rows: &RecordBatch) -> Result<Vec<usize>, Error> {
        let definition = &upsert.table.definition;
        let schema = definition.arrow_schema();
        let own = Keys::new(key, &schema, key.columns.clone())?;
        let own_rows = rows.clone();
        let proposed = Arc::new(self.aside(move || Ok(Proposed::new(own.of(&own_rows)?))).await?);
        if upsert.conflicts.update.is_some() && !proposed.repeated.is_empty() {
            return Err(Error::hinted(
                Condition::CardinalityViolation,
                "ON CONFLICT DO UPDATE command cannot affect row a second time",
                "Ensure that no rows proposed for insertion within the same command have duplicate constrained values.",
            ));
        }
        let names: Vec<String> = key.columns.iter().map(|at| quoted(&definition.columns[*at].name)).collect();
        let during = between(definition, rows);
        let text = format!("SELECT {} FROM {}{during}", names.join(", "), table_name(definition));
        let (query, ast) = self.written(text).await?;
        let planned = self.planned(&query, ast).await?;
        let runnable = self.made_ready(&query, planned, &[]).await?;
        let mut batches = self.start(&runnable);
        let there = Arc::new(Keys::new(key, &schema, (0..key.columns.len()).collect())?);
        let mut conflicting = proposed.repeated.clone();
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|error| self.worded(error, &query))?;
            let (there, proposed) = (Arc::clone(&there), Arc::clone(&proposed));
            let found = self.aside(move || {
                let keys = there.of(&batch)?.into_iter().flatten();
                Ok(keys.filter_map(|key| proposed.rows.get(&key).copied()).collect::<Vec<_>>())
            });
            conflicting.extend(found.await?);
        }
        Ok(conflicting)
    }

    /// Does work that takes long on the query runtime.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let done = self.engine.work(async move { Ok(work()) }).await;
        done.map_err(|error| Error::report(Condition::Internal, error.to_string()))?
    }

    /// The types of parameters that only DO UPDATE names.
    pub(super) async fn describe_conflict(
        &self,
        prepared: &mut Prepared,
        (insert, from): (&Insert, &TableWithJoins),
        table: &Arc<Table>,
        given: &[Option<FieldRef>],
    ) -> Result<(), Error> {
        let Some(Conflicts { keys, update: Some(change) }) = Conflicts::of(insert, &table.definition)? else {
            return Ok(());
        };
        let query = self.update_query(&table.definition, &change, from, &keys[0]).await?;
        let nothing = RecordBatch::new_empty(table.definition.arrow_schema());
        let reads = self.beside_excluded(&prepared.statement, table, nothing)?;
        let planned = self.planned_over(&prepared.statement, query, reads).await?;
        let types = self.types_of(&planned, given, &prepared.statement)?;
        prepared.parameters.extend(types.into_iter().skip(prepared.parameters.len()));
        Ok(())
    }

    /// What a statement reads now, with numbers in `table`, and `rows` under the name of those that were to be inserted.
    fn beside_excluded(
        &self,
        statement: &Statement,
        table: &Arc<Table>,
        rows: RecordBatch,
    ) -> Result<Arc<Reads>, Error> {
        let excluded = MemTable::try_new(rows.schema(), vec![vec![rows]]).map_err(|e| self.worded(e, statement))?;
        Ok(Arc::new(self.reads_to_change(table).with_named(EXCLUDED, Arc::new(excluded))))
    }

    /// Deletes the rows that `excluded` conflict with, and gives what takes their place.
    async fn update_conflicting(
        &mut self,
        upsert: &Upsert<'_>,
        change: &Change<'_>,
        excluded: RecordBatch,
    ) -> Result<RecordBatch, Error> {
        let Upsert { statement, insert, conflicts, table, parameters } = upsert;
        let definition = &table.definition;
        let from = self.table_of_insert(insert).await?;
        let query = self.update_query(definition, change, &from, &conflicts.keys[0]).await?;
        let reads = self.beside_excluded(statement, table, excluded)?;
        let planned = self.planned_over(statement, query, Arc::clone(&reads)).await?;
        let runnable = self.made_ready(statement, planned, parameters).await?;
        let mut batches = self.start(&runnable);
        let target = Target {
            table: Arc::clone(definition),
            positions: (0..definition.columns.len()).collect(),
            defaults: vec![DefaultValue::none(); definition.columns.len()],
            zone: self.zone(),
            checks: self.checks(definition).await?,
        };
        let target = Arc::new(target);
        let (mut found, mut updated) = (Found::default(), Vec::new());
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|error| self.worded(error, statement))?;
            let values = found.take(definition, &batch)?;
            let target = Arc::clone(&target);
            updated.push(self.aside(move || target.rows(&values)).await?);
        }
        let read = reads.snapshot(table).await.map_err(|error| self.worded(error, statement))?;
        found.delete_from(&mut *self.take_writes().await, table, &read)?;
        concat_batches(&definition.arrow_schema(), &updated).map_err(internal)
    }

    /// The rows of the table that `excluded` conflict with, with what is assigned in place of the columns.
    async fn update_query(
        &self,
        definition: &TableDefinition,
        change: &Change<'_>,
        from: &TableWithJoins,
        key: &UniqueKey,
    ) -> Result<Ast, Error> {
        let own = own_name(from, definition);
        let names = key.columns.iter().map(|at| quoted(&definition.columns[*at].name));
        let same: Vec<String> = names.map(|name| format!("{own}.{name} = {EXCLUDED}.{name}")).collect();
        let wanted = ToChange {
            definition,
            own: &own,
            from: format!("{from} JOIN {EXCLUDED} ON {}", same.join(" AND ")),
            others: &[],
            columns: true,
            assigned: &change.assigned,
            selection: change.selection,
            with: None,
        };
        self.query_of(wanted).await
    }
}

/// ` WHERE time BETWEEN …`: rows of one key have one time.
fn between(definition: &TableDefinition, rows: &RecordBatch) -> String {
    let Some(options) = definition.event() else { return String::new() };
    let column = &definition.columns[options.time_column];
    let times = rows.column(options.time_column).as_primitive_opt::<TimestampMicrosecondType>();
    let Some((first, last)) = times.and_then(|times| min(times).zip(max(times))) else { return String::new() };
    let (name, data_type) = (quoted(&column.name), column.column_type.arrow());
    let literal = |us: i64| format!("arrow_cast({us}, '{data_type}')");
    format!(" WHERE {name} BETWEEN {} AND {}", literal(first), literal(last))
}

/// The rows for which `flags` is true, and the others.
fn parts(rows: &RecordBatch, flags: &BooleanArray) -> Result<(RecordBatch, RecordBatch), Error> {
    let others = arrow::compute::not(flags).map_err(internal)?;
    let part = |flags: &BooleanArray| filter_record_batch(rows, flags).map_err(internal);
    Ok((part(flags)?, part(&others)?))
}
