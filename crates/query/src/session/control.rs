//! Which statement does what: dispatch, DDL, INSERT, prepared statements of SQL.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use cluster::Table;
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    CopySource, DiscardObject, Expr, Ident, Insert, ObjectType, Reset, Statement as Ast, visit_expressions,
};
use event::{Column, ColumnType, Replicas, TableKind};
use futures::StreamExt;

use super::change::EVALUATIONS_MAX;
use super::change::is_change;
use super::checks::Checks;
use super::clauses::refused;
use super::conflict::{Conflicts, Gathered, Upsert};
use super::copy::{CopyPlan, check_target, encoding, source_sql};
use super::ddl::{folded, relation, table_spec};
use super::defaults::{DefaultValue, default_in_zone};
use super::insert::{self, InsertPlan, Source, read_constants, read_literals};
use super::parameters::with_digits;
use super::plan::{OneTime, as_query};
use super::report::nearest;
use super::returning::Returning;
use super::rows::Target;
use super::transaction::Writing;
use super::view::is_read;
use super::{Block, CopyIn, CopyOut, Outcome, Prepared, Rows, Session, Statement};
use crate::error::{Condition, Error};
use crate::text::{parse_json, parse_scalar};

/// Functions that act on the nodes of a cluster.
const OPERATIONS: [&str; 3] = ["annal.remove_node", "annal.move_replica", "annal.transfer_leader"];

impl Session {
    /// Runs one statement. What is awaited here is boxed: one future holding all of them would not fit a thread's stack.
    pub(super) async fn run(
        &mut self,
        prepared: &Prepared,
        mut parameters: Vec<ScalarValue>,
    ) -> Result<Outcome, Error> {
        let declared = with_digits(&mut parameters, &prepared.statement.declared);
        let declared = declared.map(|declared| Prepared {
            statement: prepared.statement.with_declared(&declared),
            planned: OneTime::default(),
            ..prepared.clone()
        });
        let prepared = declared.as_ref().unwrap_or(prepared);
        let statement = &prepared.statement;
        let Some(mut ast) = statement.ast.clone() else { return Ok(Outcome::Empty) };
        self.rebase_changes().await?;
        self.complete_names(&mut ast);
        if let (Ast::CreateTable(create), Some(included)) = (ast.as_ref(), statement.like) {
            ast = Arc::new(Ast::CreateTable(Box::pin(self.spelled_out(create, included)).await?));
        }
        self.note_begun(&ast).await?;
        let moment = chrono::Utc::now();
        self.statement_began = Some(moment);
        let transaction = self.started.filter(|_| matches!(self.block, Block::Explicit { .. }));
        self.activity.begins(&statement.text, moment, transaction);
        self.turn = None;
        match ast.as_ref() {
            changing if is_change(changing) => Box::pin(self.change(statement, &ast, &parameters)).await,
            Ast::Query(_) => {
                if matches!(self.block, Block::Explicit { .. }) {
                    refuse_operations(&ast)?;
                }
                let rows = Box::pin(self.query(statement, &ast, &parameters, &prepared.planned)).await?;
                check_described(prepared, &rows.columns, self.engine.node().catalog().index)?;
                Ok(Outcome::Rows(rows))
            }
            Ast::Explain { statement: inner, analyze, verbose, options, .. } => {
                let (analyze, verbose) = explain_options(*analyze, *verbose, options.as_deref())?;
                let rows = Box::pin(self.explain(statement, inner, analyze, verbose, &parameters)).await?;
                Ok(Outcome::Rows(rows))
            }
            Ast::Insert(insert) => self.insert_anew(statement, insert, &parameters).await,
            Ast::Copy { source, to, target, options: written, legacy_options, .. } => {
                check_target(target, *to)?;
                let encoding = encoding(written, legacy_options)?;
                if *to {
                    let rows = Box::pin(self.copy_source(statement, source)).await?;
                    Ok(Outcome::CopyOut(CopyOut { encoding, rows }))
                } else {
                    Ok(Outcome::CopyIn(Box::pin(self.copy_in(source, encoding)).await?))
                }
            }
            Ast::Truncate(truncate) => Box::pin(self.truncate(truncate)).await,
            Ast::CreateTable(create) if create.temporary => {
                let create = Box::pin(self.temporary(create)).await?;
                match &create.query {
                    Some(query) => Box::pin(self.create_table_as(statement, &create, query)).await,
                    None => Box::pin(self.create_table(&create)).await,
                }
            }
            Ast::CreateTable(create) if create.on_commit.is_some() => {
                let message = "ON COMMIT can only be used on temporary tables";
                Err(Error::report(Condition::InvalidTableDefinition, message))
            }
            Ast::CreateTable(create) => match &create.query {
                Some(query) => Box::pin(self.create_table_as(statement, create, query)).await,
                None => Box::pin(self.create_table(create)).await,
            },
            Ast::AlterTable(alter) => Box::pin(self.alter_table(alter)).await,
            Ast::Comment { .. } => Box::pin(self.comment(&ast)).await,
            Ast::CreateSchema { schema_name, if_not_exists, .. } => {
                Box::pin(self.create_schema(schema_name, *if_not_exists)).await
            }
            Ast::Drop { object_type: ObjectType::Schema, if_exists, names, cascade, .. } => {
                Box::pin(self.drop_schemas(names, *if_exists, *cascade)).await
            }
            Ast::CreateView(create) => Box::pin(self.create_view(create)).await,
            Ast::Drop { object_type: ObjectType::View, if_exists, names, cascade, .. } => {
                Box::pin(self.drop_views(names, *if_exists, *cascade)).await
            }
            Ast::Drop { object_type: ObjectType::Table, if_exists, names, cascade, .. } => {
                for name in names {
                    self.drop_table(&relation(name)?, *if_exists, *cascade).await?;
                }
                self.changed(Ok(())).await?;
                Ok(Outcome::Done("DROP TABLE".to_owned()))
            }
            Ast::StartTransaction { modes, .. } => self.begin(modes),
            Ast::Commit { chain, .. } => self.commit(*chain).await,
            Ast::Rollback { savepoint: None, chain } => self.rollback(*chain),
            Ast::Rollback { savepoint: Some(name), .. } => Box::pin(self.roll_back_to(&folded(name))).await,
            Ast::Savepoint { name } => self.savepoint(folded(name)).await,
            Ast::ReleaseSavepoint { name } => self.release(&folded(name)),
            Ast::Set(set) => self.set_statement(set),
            Ast::ShowVariable { variable } => self.show(variable),
            Ast::Reset(reset) => {
                match &reset.reset {
                    Reset::ALL => self.settings.lock().reset_all(),
                    Reset::ConfigurationParameter(name) => {
                        self.settings.lock().reset(&name.to_string().replace('"', ""))?
                    }
                }
                self.end_single();
                Ok(Outcome::Done("RESET".to_owned()))
            }
            Ast::Discard { object_type } => Box::pin(self.discard(*object_type)).await,
            Ast::Prepare { name, data_types, statement: inner } => {
                Box::pin(self.prepare_named(statement, name, data_types, inner)).await
            }
            Ast::Execute { name: Some(name), parameters: values, .. } => {
                Box::pin(self.execute_named(&name.to_string(), values)).await
            }
            Ast::Deallocate { name, .. } => self.deallocate(name),
            Ast::Analyze { .. } => Ok(Outcome::Done("ANALYZE".to_owned())),
            Ast::Vacuum(_) => Ok(Outcome::Done("VACUUM".to_owned())),
            // Nothing listens: there is nothing to end.
            Ast::UNLISTEN { .. } => Ok(Outcome::Done("UNLISTEN".to_owned())),
            Ast::Declare { stmts } => match stmts.as_slice() {
                [declare] => Box::pin(self.declare(statement, declare, &parameters)).await,
                _ => Err(unsupported(&ast)),
            },
            Ast::Fetch { name, direction, .. } => Box::pin(self.fetch(&folded(name), direction, statement.moves)).await,
            Ast::Close { cursor } => self.close_cursor(cursor),
            Ast::CreateExtension(extension) if folded(&extension.name).starts_with("timescaledb") => {
                self.notice(
                    "NOTICE",
                    "00000",
                    "extension \"timescaledb\" is not needed: its functions that are offered are built in",
                );
                Ok(Outcome::Done("CREATE EXTENSION".to_owned()))
            }
            other => Err(unsupported(other)),
        }
    }

    // Tables

    /// The public table of that name, with PostgreSQL's refusal and a guess.
    pub(super) fn table(&self, (namespace, name): &(String, String)) -> Result<Arc<Table>, Error> {
        let catalog = self.visible();
        if let Some(table) = catalog.table(namespace, name) {
            return Ok(Arc::clone(table));
        }
        if catalog.view(namespace, name).is_some() {
            let message = format!("\"{name}\" is a view");
            return Err(Error::hinted(Condition::WrongObjectType, message, "Views are read; name the table."));
        }
        let message = format!("relation \"{name}\" does not exist");
        let near = nearest(name, catalog.tables.values().map(|table| table.definition.name.as_str()));
        Err(match near {
            Some(near) => Error::hinted(
                Condition::UndefinedTable,
                message,
                format!("Perhaps you meant to reference the table \"{near}\"."),
            ),
            None => Error::report(Condition::UndefinedTable, message),
        })
    }

    async fn create_table(&mut self, create: &datafusion::sql::sqlparser::ast::CreateTable) -> Result<Outcome, Error> {
        let mut spec = table_spec(create)?;
        for column in &mut spec.columns {
            self.settle_default(column).await?;
        }
        self.ready_checks((&spec.namespace, &spec.name), &spec.columns, &spec.checks).await?;
        let (name, replicas) = (spec.name.clone(), spec.replicas);
        let unchecked_key =
            matches!(&spec.kind, TableKind::Event(options) if options.dedup.is_none()) && !spec.primary_key.is_empty();
        let done = Outcome::Done("CREATE TABLE".to_owned());
        let created = self.changing().await?.create_table(spec).await;
        self.note_on_commit(create, &created);
        match self.changed(created).await {
            Ok(_) => {}
            Err(Error::Cluster(cluster::Error::TableExists(_))) if create.if_not_exists => {
                self.notice("NOTICE", "42P07", format!("relation \"{name}\" already exists, skipping"));
                return Ok(done);
            }
            Err(error) => return Err(error),
        }
        if unchecked_key {
            self.notice(
                "NOTICE",
                "00000",
                format!(
                    "the primary key of event table \"{name}\" sorts its rows; it is not checked for duplicates \
                     (see the option dedup)"
                ),
            );
        }
        self.notice_fewer_nodes(&name, replicas);
        Ok(done)
    }

    /// Says that the cluster has fewer nodes than shall vote on the rows of a table that asks for more than others.
    pub(super) fn notice_fewer_nodes(&mut self, table: &str, replicas: Replicas) {
        let nodes = self.engine.node().catalog().nodes.len();
        if replicas <= Replicas::default() || nodes >= replicas.count() {
            return;
        }
        let count = replicas.count();
        let message = format!("table \"{table}\" has fewer than {count} replicas until the cluster has {count} nodes");
        self.notice("NOTICE", "00000", message);
    }

    /// Makes a DEFAULT mean the same in sessions of other zones. Refuses one that cannot be computed, or is no value of its column.
    pub(super) async fn settle_default(&self, column: &mut Column) -> Result<(), Error> {
        let Some(text) = &mut column.default else { return Ok(()) };
        if let Some(settled) = default_in_zone(text, column.column_type, self.zone()) {
            *text = settled;
        }
        let value = match insert::plain_default(text) {
            Some(value) => value,
            None => self.value_of(text).await?,
        };
        super::rows::default_column(&value, column, 1).map(drop)
    }

    async fn drop_table(&mut self, name: &(String, String), if_exists: bool, cascade: bool) -> Result<(), Error> {
        let catalog = self.visible();
        if catalog.view(&name.0, &name.1).is_some() {
            let message = format!("\"{}\" is not a table", name.1);
            return Err(Error::hinted(Condition::WrongObjectType, message, "Use DROP VIEW to remove a view."));
        }
        if let Some(table) = catalog.table(&name.0, &name.1) {
            let id = table.definition.id;
            if cascade {
                self.drop_readers(id).await?;
            }
            let dropped = self.changing().await?.drop_table(id);
            self.show_changes();
            return dropped.map_err(|error| match error {
                cluster::Error::IsRead { name, readers } => is_read("drop", "table", &name, &readers),
                error => error.into(),
            });
        }
        if if_exists {
            self.notice("NOTICE", "00000", format!("table \"{}\" does not exist, skipping", name.1));
            return Ok(());
        }
        let message = format!("table \"{}\" does not exist", name.1);
        let catalog = self.visible();
        let near = nearest(&name.1, catalog.tables.values().map(|table| table.definition.name.as_str()));
        Err(match near {
            Some(near) => {
                Error::hinted(Condition::UndefinedTable, message, format!("Perhaps you meant the table \"{near}\"."))
            }
            None => Error::report(Condition::UndefinedTable, message),
        })
    }

    /// What each column gets that is `needed`, in `rows` rows when that is known. What is computed is computed once.
    async fn defaults(&self, table: &Table, needed: &[bool], rows: usize) -> Result<Vec<DefaultValue>, Error> {
        let definition = &table.definition;
        let mut defaults = Vec::with_capacity(definition.columns.len());
        for (column, needed) in definition.columns.iter().zip(needed) {
            defaults.push(match (&column.default, column.identity) {
                (_, Some(identity)) if *needed => {
                    DefaultValue::numbers(self.engine.node(), definition, (column, identity), rows as u64).await?
                }
                (Some(expression), None) if *needed => match insert::plain_default(expression) {
                    Some(value) => DefaultValue::Value(value),
                    None => match Box::pin(self.each_default(expression)).await? {
                        Some(each) => each,
                        None => DefaultValue::Value(Box::pin(self.value_of(expression)).await?),
                    },
                },
                _ => DefaultValue::none(),
            });
        }
        Ok(defaults)
    }

    // INSERT and COPY

    pub(super) fn insert_plan(&self, statement: &Statement, insert: &Insert) -> Result<InsertPlan, Error> {
        let table = self.table(&insert::target_name(&insert.table)?)?;
        insert::plan(insert, statement.rows.as_ref(), table)
    }

    /// INSERT; one that commits by itself is done anew when its table was altered meanwhile.
    async fn insert_anew(
        &mut self,
        statement: &Statement,
        insert: &Insert,
        parameters: &[ScalarValue],
    ) -> Result<Outcome, Error> {
        for attempt in 0.. {
            match Box::pin(self.insert(statement, insert, parameters)).await {
                Err(Error::Cluster(cluster::Error::SchemaChanged(_)))
                    if self.block == Block::None && attempt < super::plan::REPLANS_MAX =>
                {
                    self.engine.node().schema_settled().await;
                }
                // Others wrote to a table with keys.
                Err(Error::Cluster(cluster::Error::Conflict))
                    if self.block == Block::None && attempt < EVALUATIONS_MAX => {}
                // One of them took a key that was free when ON CONFLICT looked.
                Err(Error::Reported(report))
                    if report.condition == Condition::UniqueViolation
                        && insert.on.is_some()
                        && self.block == Block::None
                        && attempt < super::plan::REPLANS_MAX => {}
                outcome => return outcome,
            }
        }
        unreachable!("the loop ends by returning")
    }

    /// INSERT. What few statements need is in boxes of its own: room for all that this may wait for is made with each statement.
    async fn insert(
        &mut self,
        statement: &Statement,
        insert: &Insert,
        parameters: &[ScalarValue],
    ) -> Result<Outcome, Error> {
        let InsertPlan { table, positions, source } = self.insert_plan(statement, insert)?;
        let needed = insert::needs_default(Some(&source), &positions, table.definition.columns.len());
        let mut defaults = self.defaults(&table, &needed, source.rows()).await?;
        let zone = self.zone();
        let definition = Arc::clone(&table.definition);
        let checks = self.checks(&definition).await?;
        let conflicts = Conflicts::of(insert, &definition)?;
        let _turn = match conflicts {
            Some(_) => Box::pin(self.take_turn(definition.id)).await,
            None => None,
        };
        let upsert =
            conflicts.as_ref().map(|conflicts| Upsert { statement, insert, conflicts, table: &table, parameters });
        let mut returned = insert.returning.is_some().then(Vec::new);
        let (rows, writes) = match source {
            Source::Constants(rows) => {
                let text = Arc::clone(&statement.text);
                let read = move || read_constants(&rows, &text, &positions, &definition, &defaults, zone);
                let batch = self.read_rows(statement, checks, read).await?;
                self.write_batch(&table, upsert.as_ref(), batch, returned.as_mut()).await?
            }
            Source::Literals(values) => {
                let given = parameters.to_vec();
                let read = move || read_literals(&values, &positions, &definition, &defaults, &given, zone);
                let batch = self.read_rows(statement, checks, read).await?;
                self.write_batch(&table, upsert.as_ref(), batch, returned.as_mut()).await?
            }
            Source::Query(query) => {
                let query = as_query(&query);
                let runnable = Box::pin(self.runnable(statement, &query, parameters, &OneTime::default())).await?;
                let mut batches = self.start(&runnable);
                let given = batches.schema().fields().len();
                check_width(given, positions.len(), insert.columns.is_empty())?;
                let positions = positions[..given].to_vec();
                if given < needed.len() {
                    let needed = insert::needs_default(None, &positions, needed.len());
                    defaults = self.defaults(&table, &needed, 0).await?;
                }
                let target = Arc::new(Target { table: definition, positions, defaults, zone, checks });
                let mut writes = match upsert {
                    None => Some(self.take_writes().await),
                    Some(_) => None,
                };
                let (mut rows, mut gathered) = (0, Gathered::default());
                while let Some(batch) = batches.next().await {
                    let batch = batch.map_err(|error| self.worded(error, statement))?;
                    let target = Arc::clone(&target);
                    let checked = self.engine.work(async move { Ok(target.rows(&batch)) }).await;
                    let checked = checked.map_err(|error| self.worded(error, statement))??;
                    let Some(writes) = writes.as_mut() else {
                        gathered.push(checked)?;
                        continue;
                    };
                    rows += checked.num_rows() as u64;
                    if let Some(returned) = &mut returned {
                        returned.push(checked.clone());
                    }
                    if checked.num_rows() > 0 {
                        writes.append(&table, checked).await?;
                    }
                }
                match (writes, &upsert) {
                    (Some(writes), _) => (rows, writes),
                    (None, None) => unreachable!("without conflicts rows are written as they come"),
                    (None, Some(upsert)) => Box::pin(self.write_or(upsert, gathered.rows, returned.as_mut())).await?,
                }
            }
        };
        let Some(items) = &insert.returning else {
            self.finish_write(writes).await?;
            return Ok(Outcome::Done(format!("INSERT 0 {rows}")));
        };
        let from = self.table_of_insert(insert).await?;
        let returning = Returning { table: &table, from: &from, items };
        let returned = returned.unwrap_or_default();
        let answer = Box::pin(self.returning(statement, returning, returned, parameters, "INSERT")).await?;
        self.finish_write(writes).await?;
        Ok(Outcome::Rows(answer))
    }

    /// Reads and checks the rows of a statement: here when that takes less than going to another thread, else on the query runtime.
    async fn read_rows(
        &self,
        statement: &Statement,
        checks: Option<Arc<Checks>>,
        read: impl FnOnce() -> Result<RecordBatch, Error> + Send + 'static,
    ) -> Result<RecordBatch, Error> {
        let read = move || {
            let rows = read()?;
            checks.map_or(Ok(()), |checks| checks.verify(&rows))?;
            Ok(rows)
        };
        if statement.text.len() <= super::DONE_HERE_BYTES_MAX {
            return read();
        }
        self.engine.work(async move { Ok(read()) }).await.map_err(|error| self.worded(error, statement))?
    }

    /// Writes the only batch of a statement, and keeps it when it is to be returned; its rows.
    async fn write_batch(
        &mut self,
        table: &Arc<Table>,
        upsert: Option<&Upsert<'_>>,
        batch: RecordBatch,
        kept: Option<&mut Vec<RecordBatch>>,
    ) -> Result<(u64, Writing), Error> {
        if let Some(upsert) = upsert {
            return Box::pin(self.write_or(upsert, vec![batch], kept)).await;
        }
        let rows = batch.num_rows() as u64;
        let mut writes = self.take_writes().await;
        if let Some(kept) = kept {
            kept.push(batch.clone());
        }
        writes.append(table, batch).await?;
        Ok((rows, writes))
    }

    /// Writes the rows of an INSERT with ON CONFLICT; how many were written.
    async fn write_or(
        &mut self,
        upsert: &Upsert<'_>,
        rows: Vec<RecordBatch>,
        kept: Option<&mut Vec<RecordBatch>>,
    ) -> Result<(u64, Writing), Error> {
        let (written, writes) = self.upsert(upsert, rows).await?;
        let rows = written.iter().map(|batch| batch.num_rows() as u64).sum();
        if let Some(kept) = kept {
            *kept = written;
        }
        Ok((rows, writes))
    }

    async fn copy_source(&mut self, statement: &Statement, source: &CopySource) -> Result<Rows, Error> {
        if let CopySource::Table { table_name, columns } = source {
            let table = self.table(&relation(table_name)?)?;
            for column in columns {
                insert::position(&table.definition, &folded(column))?;
            }
        }
        let query = super::statement::parse(&source_sql(source))?.remove(0);
        let ast = query.ast.as_deref().expect("the query is not empty");
        let mut rows = self.query(statement, ast, &[], &OneTime::default()).await?;
        rows.tag = "COPY";
        Ok(rows)
    }

    async fn copy_in(&mut self, source: &CopySource, encoding: super::CopyEncoding) -> Result<CopyIn, Error> {
        let CopySource::Table { table_name, columns } = source else {
            return Err(Error::report(Condition::SyntaxError, "COPY FROM needs a table"));
        };
        let table = self.table(&relation(table_name)?)?;
        let mut positions = Vec::new();
        for column in columns {
            let at = insert::position(&table.definition, &folded(column))?;
            if positions.contains(&at) {
                let message = format!("column \"{}\" specified more than once", folded(column));
                return Err(Error::report(Condition::DuplicateColumn, message));
            }
            positions.push(at);
        }
        if columns.is_empty() {
            positions = (0..table.definition.columns.len()).collect();
        }
        let needed = insert::needs_default(None, &positions, table.definition.columns.len());
        let defaults = self.defaults(&table, &needed, 0).await?;
        let checks = self.checks(&table.definition).await?;
        let writes = self.take_writes().await;
        Ok(CopyIn::start(self, CopyPlan { table, positions, defaults, checks, encoding, writes }))
    }

    // Settings

    /// Outside a block each statement is its own transaction.
    pub(super) fn end_single(&mut self) {
        if self.block == Block::None {
            self.settings.lock().end_transaction(true);
        }
    }

    // Prepared statements of SQL

    async fn prepare_named(
        &mut self,
        statement: &Statement,
        name: &Ident,
        data_types: &[datafusion::sql::sqlparser::ast::DataType],
        inner: &Ast,
    ) -> Result<Outcome, Error> {
        let key = folded(name);
        if self.named.contains_key(&key) {
            let message = format!("prepared statement \"{key}\" already exists");
            return Err(Error::report(Condition::DuplicatePreparedStatement, message));
        }
        let inner = Statement {
            ast: Some(Arc::new(inner.clone())),
            text: Arc::clone(&statement.text),
            offset: statement.offset,
            rows: None,
            without_data: false,
            moves: false,
            like: None,
            declared: Arc::default(),
        };
        let types = data_types
            .iter()
            .map(|sql| super::ddl::column_type(sql).map(|t| Some(Arc::new(t.field("", true)))))
            .collect::<Result<Vec<_>, _>>()?;
        let prepared = self.describe(&inner, &types).await?;
        self.named.insert(key, prepared);
        Ok(Outcome::Done("PREPARE".to_owned()))
    }

    async fn execute_named(&mut self, name: &str, values: &[Expr]) -> Result<Outcome, Error> {
        let Some(prepared) = self.named.get(name).cloned() else {
            let message = format!("prepared statement \"{name}\" does not exist");
            return Err(Error::report(Condition::UndefinedPreparedStatement, message));
        };
        if values.len() != prepared.parameters.len() {
            let message = format!("wrong number of parameters for prepared statement \"{name}\"");
            let detail = format!("Expected {} parameters but got {}.", prepared.parameters.len(), values.len());
            let mut error = Error::report(Condition::SyntaxError, message);
            if let Error::Reported(report) = &mut error {
                report.detail = Some(detail);
            }
            return Err(error);
        }
        let mut parameters = Vec::with_capacity(values.len());
        for (value, field) in values.iter().zip(&prepared.parameters) {
            let value = self.value_of(&value.to_string()).await?;
            parameters.push(match (&value, ColumnType::json_of(field)) {
                (ScalarValue::Utf8(Some(text)), Some(json)) => parse_json(text, json)?,
                (ScalarValue::Utf8(Some(text)), None) => parse_scalar(text, field.data_type(), &self.zone())?,
                (ScalarValue::Decimal128(..), None) if matches!(field.data_type(), DataType::Decimal128(..)) => value,
                _ => value.cast_to(field.data_type()).map_err(|error| self.worded(error, &prepared.statement))?,
            });
        }
        Box::pin(self.run(&prepared, parameters)).await
    }

    async fn discard(&mut self, what: DiscardObject) -> Result<Outcome, Error> {
        if what == DiscardObject::ALL {
            if self.block != Block::None {
                let message = "DISCARD ALL cannot run inside a transaction block";
                return Err(Error::report(Condition::ActiveTransaction, message));
            }
            self.named.clear();
            self.cursors.clear();
            self.settings.lock().reset_all();
            self.end_single();
        }
        if matches!(what, DiscardObject::ALL | DiscardObject::TEMP) {
            self.discard_temporary().await?;
        }
        Ok(Outcome::Done(format!("DISCARD {what}")))
    }

    fn deallocate(&mut self, name: &Ident) -> Result<Outcome, Error> {
        let key = folded(name);
        if key == "all" {
            self.named.clear();
            return Ok(Outcome::Done("DEALLOCATE ALL".to_owned()));
        }
        if self.named.remove(&key).is_none() {
            let message = format!("prepared statement \"{key}\" does not exist");
            return Err(Error::report(Condition::UndefinedPreparedStatement, message));
        }
        Ok(Outcome::Done("DEALLOCATE".to_owned()))
    }
}

fn check_width(given: usize, wanted: usize, all_columns: bool) -> Result<(), Error> {
    if given > wanted {
        return Err(Error::report(Condition::SyntaxError, "INSERT has more expressions than target columns"));
    }
    if given < wanted && !all_columns {
        return Err(Error::report(Condition::SyntaxError, "INSERT has more target columns than expressions"));
    }
    Ok(())
}

/// What is done to the nodes of a cluster is not taken back with the block.
///
/// # Errors
/// 25001.
fn refuse_operations(statement: &Ast) -> Result<(), Error> {
    let called = visit_expressions(statement, |expr| match expr {
        Expr::Function(function) if OPERATIONS.contains(&function.name.to_string().to_lowercase().as_str()) => {
            ControlFlow::Break(function.name.to_string())
        }
        _ => ControlFlow::Continue(()),
    });
    match called {
        ControlFlow::Break(name) => {
            let message = format!("{name} cannot run inside a transaction block");
            Err(Error::report(Condition::ActiveTransaction, message))
        }
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// A client was told which columns a prepared statement gives: it cannot read others.
///
/// # Errors
/// 0A000 when a table was altered since.
fn check_described(prepared: &Prepared, given: &Schema, catalog: u64) -> Result<(), Error> {
    let Some(described) = &prepared.columns else { return Ok(()) };
    // With the same tables a type differs only where that of a parameter was not known.
    let is_altered = prepared.catalog != catalog;
    let is_told = |(described, given): (&FieldRef, &FieldRef)| {
        let is_numeric = |field: &FieldRef| matches!(field.data_type(), DataType::Decimal128(..));
        let same_type = described.data_type() == given.data_type()
            || *described.data_type() == DataType::Utf8
            || is_numeric(described) && is_numeric(given);
        described.name() == given.name() && (same_type || !is_altered)
    };
    let same_count = described.fields().len() == given.fields().len();
    if same_count && described.fields().iter().zip(given.fields()).all(is_told) {
        return Ok(());
    }
    Err(refused("cached plan must not change result type", "Prepare the statement again."))
}

fn explain_options(
    analyze: bool,
    verbose: bool,
    options: Option<&[datafusion::sql::sqlparser::ast::UtilityOption]>,
) -> Result<(bool, bool), Error> {
    let (mut analyze, mut verbose) = (analyze, verbose);
    for option in options.unwrap_or_default() {
        let on = match &option.arg {
            None => true,
            Some(arg) => matches!(arg.to_string().to_lowercase().trim_matches('\''), "true" | "on" | "1" | "text"),
        };
        match folded(&option.name).as_str() {
            "analyze" => analyze = on,
            "verbose" => verbose = on,
            "costs" | "timing" | "summary" | "buffers" => {}
            "format" if on => {}
            other => {
                let message = format!("EXPLAIN option \"{other}\" is not supported");
                return Err(Error::report(Condition::FeatureNotSupported, message));
            }
        }
    }
    Ok((analyze, verbose))
}

fn unsupported(ast: &Ast) -> Error {
    let text = ast.to_string();
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    let what = match words.as_slice() {
        [first @ ("CREATE" | "DROP" | "ALTER" | "COMMENT" | "REFRESH"), second] => format!("{first} {second}"),
        [first, ..] => (*first).to_owned(),
        [] => "this statement".to_owned(),
    };
    let hint = "docs/sql.md lists the statements of this release.";
    Error::hinted(Condition::FeatureNotSupported, format!("{what} is not supported"), hint)
}
