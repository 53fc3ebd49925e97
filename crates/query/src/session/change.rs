//! DELETE and UPDATE: rows are found by a query that also gives their sequence numbers, and what was found is what is logged.
//!
//! A changed row is a deleted one and a new one. Outside a block a statement that meets a concurrent change of its rows is evaluated again;
//! inside, COMMIT answers 40001.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{FieldRef, TimestampMicrosecondType, UInt64Type};
use arrow::record_batch::RecordBatch;
use cluster::{Table, TableSnapshot, WriteSet};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    Assignment, AssignmentTarget, Delete, Expr, FromTable, ObjectName, SelectItem, SetExpr, Statement as Ast,
    TableFactor, TableWithJoins, Update, UpdateTableFromKind, Value, With,
};
use event::{IdentityKind, SplitId, TableDefinition};
use futures::StreamExt;
use storage::SequenceSet;
use storage::routing::shard_of;
use storage::sequence::SEQUENCE_ROW_BITS;

use super::ddl::{folded, relation};
use super::defaults::DefaultValue;
use super::insert::{cast, is_default, parse_expression, position};
use super::plan::Runnable;
use super::returning::Returning;
use super::rows::Target;
use super::versions::{ToChange, own_name, select_of};
use super::{Block, Outcome, Prepared, Session, Statement};
use crate::error::{Condition, Error};
use crate::table::Reads;

/// How often a statement is evaluated again because others changed its rows meanwhile.
pub(super) const EVALUATIONS_MAX: u32 = 64;

/// A statement that changes rows which are there.
struct Change<'a> {
    /// `DELETE`, `UPDATE`.
    word: &'static str,
    /// The table.
    from: &'a TableWithJoins,
    /// The tables of USING, or of FROM in an UPDATE.
    others: &'a [TableWithJoins],
    name: (String, String),
    /// What is assigned; nothing for DELETE.
    assignments: &'a [Assignment],
    selection: Option<&'a Expr>,
    returning: Option<&'a [SelectItem]>,
    /// What comes before the statement.
    with: Option<&'a With>,
}

/// Whether a statement is a DELETE or an UPDATE, with or without WITH.
pub(super) fn is_change(ast: &Ast) -> bool {
    match ast {
        Ast::Delete(_) | Ast::Update(_) => true,
        Ast::Query(query) => matches!(query.body.as_ref(), SetExpr::Delete(_) | SetExpr::Update(_)),
        _ => false,
    }
}

/// What a query of rows to change gave.
#[derive(Default)]
pub(super) struct Found {
    rows: u64,
    /// The shards and numbers there were so far, when a row may come several times: it is changed once.
    seen: Option<HashSet<(usize, u64)>>,
    /// The numbers by number of the shard.
    pub(super) shards: BTreeMap<usize, BTreeMap<SplitId, SequenceSet>>,
}

impl Session {
    pub(super) async fn change(
        &mut self,
        statement: &Statement,
        ast: &Ast,
        parameters: &[ScalarValue],
    ) -> Result<Outcome, Error> {
        let change = Change::of(ast)?;
        for evaluation in 1.. {
            let alone = self.block == Block::None;
            match Box::pin(self.change_once(statement, &change, parameters)).await {
                Err(Error::Cluster(cluster::Error::Conflict | cluster::Error::SchemaChanged(_)))
                    if alone && evaluation < EVALUATIONS_MAX =>
                {
                    self.writes = None;
                }
                outcome => return outcome,
            }
        }
        unreachable!("the loop ends by returning")
    }

    async fn change_once(
        &mut self,
        statement: &Statement,
        change: &Change<'_>,
        parameters: &[ScalarValue],
    ) -> Result<Outcome, Error> {
        let table = self.table(&change.name)?;
        change.check(&table.definition)?;
        let _turn = self.take_turn(table.definition.id).await;
        let reads = Arc::new(self.reads_to_change(&table));
        let runnable = self.rows_to_change(statement, change, &table, &reads, parameters).await?;
        let mut batches = self.start(&runnable);
        let checks = match change.assignments {
            [] => None,
            _ => self.checks(&table.definition).await?,
        };
        let target = Arc::new(Target {
            table: Arc::clone(&table.definition),
            positions: (0..table.definition.columns.len()).collect(),
            defaults: vec![DefaultValue::none(); table.definition.columns.len()],
            zone: self.zone(),
            checks,
        });
        let mut found = Found { seen: (!change.others.is_empty()).then(HashSet::new), ..Found::default() };
        let mut returned = Vec::new();
        let mut writes = self.take_writes().await;
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|error| self.worded(error, statement))?;
            let values = found.take(&table.definition, &batch)?;
            if !change.assignments.is_empty() || change.returning.is_some() {
                let target = Arc::clone(&target);
                let rows = self.engine().work(async move { Ok(target.rows(&values)) }).await;
                let rows = rows.map_err(|error| self.worded(error, statement))??;
                if change.returning.is_some() {
                    returned.push(rows.clone());
                }
                if !change.assignments.is_empty() {
                    writes.append(&table, rows).await?;
                }
            }
        }
        let read = reads.snapshot(&table).await.map_err(|error| self.worded(error, statement))?;
        found.delete_from(&mut writes, &table, &read)?;
        let Some(items) = change.returning else {
            self.finish_write(writes).await?;
            return Ok(Outcome::Done(format!("{} {}", change.word, found.rows)));
        };
        let rows = self
            .returning(
                statement,
                Returning { table: &table, from: change.from, items },
                returned,
                parameters,
                change.word,
            )
            .await?;
        self.finish_write(writes).await?;
        Ok(Outcome::Rows(rows))
    }

    async fn rows_to_change(
        &self,
        statement: &Statement,
        change: &Change<'_>,
        table: &Table,
        reads: &Arc<Reads>,
        parameters: &[ScalarValue],
    ) -> Result<Runnable, Error> {
        let query = self.change_query(change, &table.definition).await?;
        let planned = self.planned_over(statement, query, Arc::clone(reads)).await?;
        self.made_ready(statement, planned, parameters).await
    }

    /// Parameters and columns of a DELETE or UPDATE.
    pub(super) async fn describe_change(
        &self,
        prepared: &mut Prepared,
        ast: &Ast,
        given: &[Option<FieldRef>],
    ) -> Result<(), Error> {
        let change = Change::of(ast)?;
        let table = self.table(&change.name)?;
        change.check(&table.definition)?;
        let query = self.change_query(&change, &table.definition).await?;
        let reads = Arc::new(self.reads_to_change(&table));
        let planned = self.planned_over(&prepared.statement, query, reads).await?;
        prepared.parameters = self.types_of(&planned, given, &prepared.statement)?;
        match change.returning {
            Some(items) => {
                self.describe_returning(prepared, Returning { table: &table, from: change.from, items }, given).await
            }
            None => Ok(()),
        }
    }

    async fn change_query(&self, change: &Change<'_>, definition: &TableDefinition) -> Result<Ast, Error> {
        let wanted = ToChange {
            definition,
            own: &own_name(change.from, definition),
            from: change.from.to_string(),
            others: change.others,
            columns: !change.assignments.is_empty() || change.returning.is_some(),
            assigned: &assigned(change.assignments, definition)?,
            selection: change.selection,
            with: change.with,
        };
        self.query_of(wanted).await
    }

    /// A SELECT of its parts.
    pub(super) async fn select(
        &self,
        projection: Vec<SelectItem>,
        from: TableWithJoins,
        selection: Option<Expr>,
    ) -> Result<Ast, Error> {
        // Parsing takes much stack; the caller's is deep already.
        let parsed = self.engine().work(async { Ok(super::statement::parse("SELECT 1")) });
        let parsed = parsed.await.map_err(|error| Error::report(Condition::Internal, error.to_string()))??;
        let mut ast = parsed[0].ast.as_deref().expect("the statement is not empty").clone();
        let select = select_of(&mut ast);
        select.projection = projection;
        select.from = vec![from];
        select.selection = selection;
        Ok(ast)
    }
}

impl<'a> Change<'a> {
    fn of(ast: &'a Ast) -> Result<Change<'a>, Error> {
        match ast {
            Ast::Delete(delete) => Change::of_delete(delete),
            Ast::Update(update) => Change::of_update(update),
            Ast::Query(query) => match query.body.as_ref() {
                SetExpr::Delete(inner) | SetExpr::Update(inner) => {
                    Ok(Change { with: query.with.as_ref(), ..Change::of(inner)? })
                }
                _ => Err(Error::report(Condition::Internal, "a query changes no rows")),
            },
            other => Err(Error::report(Condition::FeatureNotSupported, format!("{other} changes no rows"))),
        }
    }

    fn of_delete(delete: &'a Delete) -> Result<Change<'a>, Error> {
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        let plain = delete.tables.is_empty() && delete.order_by.is_empty() && delete.limit.is_none();
        let [from] = from.as_slice() else { return Err(not_supported("DELETE of several tables")) };
        if !plain {
            return Err(not_supported("DELETE with ORDER BY or LIMIT"));
        }
        Ok(Change {
            word: "DELETE",
            from,
            name: target(from)?,
            others: delete.using.as_deref().unwrap_or_default(),
            assignments: &[],
            selection: delete.selection.as_ref(),
            returning: delete.returning.as_deref(),
            with: None,
        })
    }

    fn of_update(update: &'a Update) -> Result<Change<'a>, Error> {
        if !update.order_by.is_empty() || update.limit.is_some() {
            return Err(not_supported("UPDATE with ORDER BY or LIMIT"));
        }
        let others = match &update.from {
            None => &[][..],
            Some(UpdateTableFromKind::AfterSet(from)) => from,
            Some(UpdateTableFromKind::BeforeSet(_)) => {
                return Err(Error::report(Condition::SyntaxError, "syntax error at or near \"FROM\""));
            }
        };
        Ok(Change {
            word: "UPDATE",
            from: &update.table,
            name: target(&update.table)?,
            others,
            assignments: &update.assignments,
            selection: update.selection.as_ref(),
            returning: update.returning.as_deref(),
            with: None,
        })
    }

    /// Events without a key are facts: they are deleted, but not changed.
    fn check(&self, definition: &TableDefinition) -> Result<(), Error> {
        if self.returning.is_some() && !self.others.is_empty() {
            return Err(Error::hinted(
                Condition::FeatureNotSupported,
                format!("RETURNING of {} with other tables is not supported", self.word),
                "Name the rows by a subquery in WHERE.",
            ));
        }
        if self.word == "UPDATE" && definition.event().is_some() && definition.primary_key.is_empty() {
            return Err(Error::hinted(
                Condition::FeatureNotSupported,
                format!("UPDATE of event table \"{}\" is not supported: it has no primary key", definition.name),
                "Delete the rows and insert others.",
            ));
        }
        Ok(())
    }
}

impl Found {
    /// Deletes what was found, which was read from `read`.
    pub(super) fn delete_from(
        &self,
        writes: &mut WriteSet,
        table: &Arc<Table>,
        read: &TableSnapshot,
    ) -> Result<(), Error> {
        for (shard, splits) in &self.shards {
            let index = read.shards.get(*shard).map_or(0, |snapshot| snapshot.index);
            writes.delete(table, *shard, index, splits)?;
        }
        Ok(())
    }

    /// Takes the numbers in, and gives the columns behind them.
    pub(super) fn take(&mut self, definition: &TableDefinition, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        let internal = |message: String| Error::report(Condition::Internal, message);
        let numbers = batch.column(0).as_primitive_opt::<UInt64Type>();
        let numbers = numbers.ok_or_else(|| internal("rows without numbers".to_owned()))?;
        let last = (1 << SEQUENCE_ROW_BITS) - 1;
        if numbers.values().iter().any(|number| number & last == last) {
            let message = "rows of a statement that wrote more than 16777215 of them cannot be told apart";
            return Err(Error::hinted(Condition::ProgramLimitExceeded, message, "Drop the table instead."));
        }
        let mut shards = shards_in(definition, batch)?;
        let first = self.seen.as_mut().map(|seen| {
            let rows = shards.iter().zip(numbers.values());
            let first: BooleanArray = rows.map(|(shard, number)| Some(seen.insert((*shard, *number)))).collect();
            filter_record_batch(batch, &first)
        });
        let first = first.transpose().map_err(|error| internal(error.to_string()))?;
        if let Some(first) = &first {
            shards = shards_in(definition, first)?;
        }
        let batch = first.as_ref().unwrap_or(batch);
        let numbers = batch.column(0).as_primitive::<UInt64Type>();
        // Those that are there, among others of their keys.
        let visible =
            (!definition.dedup().is_none()).then(|| batch.columns().last().and_then(|last| last.as_boolean_opt()));
        let visible =
            visible.map(|visible| visible.ok_or_else(|| internal("rows without a mark".to_owned()))).transpose()?;
        self.rows += visible.map_or(batch.num_rows(), BooleanArray::true_count) as u64;
        let mut found: BTreeMap<(usize, SplitId), Vec<u64>> = BTreeMap::new();
        let mut skipped = 1;
        match definition.event() {
            Some(event) => {
                skipped += 1 + shard_columns(definition).len();
                let times = batch.column(1).as_primitive_opt::<TimestampMicrosecondType>();
                let times = times.ok_or_else(|| internal("rows without times".to_owned()))?;
                for ((time, number), shard) in times.values().iter().zip(numbers.values()).zip(shards) {
                    let split = event::split::split_of(*time, event.split_interval_us);
                    found.entry((shard, split)).or_default().push(*number);
                }
            }
            None => {
                found.insert((0, SplitId(0)), numbers.values().to_vec());
            }
        }
        for ((shard, split), numbers) in found {
            let found = self.shards.entry(shard).or_default().entry(split).or_default();
            *found = found.union(&SequenceSet::of(numbers));
        }
        let rest: Vec<usize> = (skipped..batch.num_columns() - usize::from(visible.is_some())).collect();
        let rest = batch.project(&rest).map_err(|error| internal(error.to_string()))?;
        match visible {
            Some(visible) => filter_record_batch(&rest, visible).map_err(|error| internal(error.to_string())),
            None => Ok(rest),
        }
    }
}

/// What a query of rows to change gives after number and time: the columns that say in which of several shards a row lies.
pub(super) fn shard_columns(definition: &TableDefinition) -> &[usize] {
    definition.event().map(|options| &options.sharding.by[..]).unwrap_or_default()
}

/// The number of the shard of each row.
fn shards_in(definition: &TableDefinition, batch: &RecordBatch) -> Result<Vec<usize>, Error> {
    let Some(sharding) = definition.event().map(|options| &options.sharding).filter(|by| !by.is_single()) else {
        return Ok(vec![0; batch.num_rows()]);
    };
    let by: Vec<_> = batch.columns().iter().skip(2).take(sharding.by.len()).collect();
    let shards = shard_of(&by, batch.num_rows(), sharding.shards);
    shards.map_err(|error| Error::report(Condition::Internal, error.to_string()))
}

/// The value of each assigned column by its position.
pub(super) fn assigned(
    assignments: &[Assignment],
    definition: &TableDefinition,
) -> Result<BTreeMap<usize, Expr>, Error> {
    let mut assigned = BTreeMap::new();
    for (ObjectName(parts), value) in one_by_one(assignments)? {
        let ident = parts.last().and_then(|part| part.as_ident());
        let name = ident.map(folded).unwrap_or_default();
        let at = position(definition, &name)?;
        let own = &definition.columns[at];
        match own.identity {
            Some(_) if is_default(value) => {
                return Err(Error::hinted(
                    Condition::FeatureNotSupported,
                    format!("DEFAULT for identity column \"{name}\" is not supported here"),
                    "Delete the row and insert it anew to give it another number.",
                ));
            }
            Some(identity) if identity.kind == IdentityKind::Always => {
                let message = format!("column \"{name}\" can only be updated to DEFAULT");
                return Err(Error::report(Condition::GeneratedAlways, message));
            }
            _ => {}
        }
        let value = match value {
            value if is_default(value) => parse_expression(own.default.as_deref().unwrap_or("NULL"))?,
            Expr::Value(written) if matches!(written.value, Value::Placeholder(_)) => {
                cast(value.clone(), &own.column_type.to_string())?
            }
            value => value.clone(),
        };
        if assigned.insert(at, value).is_some() {
            let message = format!("multiple assignments to same column \"{name}\"");
            return Err(Error::report(Condition::SyntaxError, message));
        }
    }
    Ok(assigned)
}

/// Each column with its value; `(a, b) = (1, 2)` are two.
fn one_by_one(assignments: &[Assignment]) -> Result<Vec<(&ObjectName, &Expr)>, Error> {
    let mut all = Vec::with_capacity(assignments.len());
    for Assignment { target, value } in assignments {
        match (target, value) {
            (AssignmentTarget::ColumnName(name), value) => all.push((name, value)),
            (AssignmentTarget::Tuple(names), Expr::Tuple(values)) if names.len() == values.len() => {
                all.extend(names.iter().zip(values));
            }
            (AssignmentTarget::Tuple(_), Expr::Tuple(_)) => {
                let message = "number of columns does not match number of values";
                return Err(Error::report(Condition::SyntaxError, message));
            }
            (AssignmentTarget::Tuple(_), _) => return Err(not_supported("UPDATE of several columns by a subquery")),
        }
    }
    Ok(all)
}

/// The one table of a FROM without joins.
fn target(from: &TableWithJoins) -> Result<(String, String), Error> {
    match &from.relation {
        TableFactor::Table { name, .. } if from.joins.is_empty() => relation(name),
        other => Err(not_supported(&format!("a change of {other}"))),
    }
}

fn not_supported(what: &str) -> Error {
    Error::hinted(
        Condition::FeatureNotSupported,
        format!("{what} is not supported"),
        "Name the rows by a subquery in WHERE.",
    )
}
