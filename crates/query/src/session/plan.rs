//! Planning and running what DataFusion runs: SELECT and its kin, EXPLAIN, and the sources of INSERT and COPY.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::StringArray;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use cluster::{Catalog, ReadLevel, Table};
use datafusion::common::{DFSchemaRef, DataFusionError, ParamValues, ScalarValue};
use datafusion::config::ConfigNonZeroUsize;
use datafusion::execution::TaskContext;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{self, Statement as Ast};
use event::{Consistency, Modifier};
use futures::{StreamExt, stream};
use parking_lot::Mutex;

use super::change::is_change;
use super::ddl::folded;
use super::insert::{Source, cell_types};
use super::report::{self, Known};
use super::returning::Returning;
use super::settings::duration_ms;
use super::view::add_views;
use super::{
    Block, Prepared, Rows, Session, large_constants, lateral_rows, literals, names, numbers, outer_names, parameters,
    result_modifiers, set_operations, spelled_out, tokens, whole_rows,
};
use crate::error::{Condition, Error};
use crate::run::ResultStream;
use crate::table::{Reads, Snapshots, StatementCatalog};

/// Replans after a table changed under a statement.
pub(super) const REPLANS_MAX: u32 = 3;

/// A plan ready to run.
pub(super) struct Runnable {
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    /// Lengths and precisions of the columns.
    modifiers: Vec<Option<Modifier>>,
}

/// A plan with the state it was made in.
#[derive(Debug)]
pub(super) struct Planned {
    plan: LogicalPlan,
    state: SessionState,
    moment: Moment,
    reads: Arc<Reads>,
    /// Lengths that were written and planning does not know.
    written: Vec<Option<Modifier>>,
}

impl Planned {
    /// What it gives, with the tables its columns come from.
    pub(super) fn schema(&self) -> DFSchemaRef {
        Arc::clone(self.plan.schema())
    }

    /// The names of its parameters.
    pub(super) fn parameters(&self) -> Vec<String> {
        let mut names: Vec<String> = self.plan.get_parameter_names().unwrap_or_default().into_iter().collect();
        names.sort();
        names
    }

    /// The columns it gives, with their lengths and precisions.
    pub(super) fn columns(&self) -> SchemaRef {
        result_modifiers::with_modifiers(self.plan.schema().inner(), &self.modifiers())
    }

    /// See [`result_modifiers::declared_numerics`].
    pub(super) fn declared_numerics(&self) -> Vec<bool> {
        result_modifiers::declared_numerics(&self.plan)
    }

    /// Lengths and precisions of the columns it gives.
    pub(super) fn modifiers(&self) -> Vec<Option<Modifier>> {
        let mut modifiers = result_modifiers::of_plan(&self.plan);
        for (found, written) in modifiers.iter_mut().zip(&self.written) {
            *found = found.or(*written);
        }
        modifiers
    }
}

/// What planning looks at besides the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moment {
    catalog: u64,
    settings: u64,
    written: u64,
    own_rows: bool,
    pinned: bool,
}

/// A plan that can be run once: it reads the snapshots of its first run.
#[derive(Clone, Debug, Default)]
pub(super) struct OneTime(Arc<Mutex<Option<Planned>>>);

impl OneTime {
    fn new(planned: Planned) -> OneTime {
        OneTime(Arc::new(Mutex::new(Some(planned))))
    }

    fn take(&self) -> Option<Planned> {
        self.0.lock().take()
    }
}

impl Session {
    /// The state an expression is planned in: the tables of this moment, with the block's own rows.
    pub(super) fn planning_state(&self) -> SessionState {
        self.state_over(Arc::new(self.reads())).0
    }

    /// What a query reads now: as new as its tables say, or as little new as the session is content with.
    pub(super) fn reads(&self) -> Reads {
        let snapshots = match &self.pinned {
            Some(pinned) => Arc::clone(pinned),
            None => Arc::new(Snapshots::new(Arc::clone(self.engine.node())).at_least_as_new_as(self.read_level())),
        };
        Reads::new(snapshots, self.own_rows(&self.visible()))
    }

    fn read_level(&self) -> ReadLevel {
        let settings = self.settings.lock();
        let get = |name: &str| settings.get(name).unwrap_or_default();
        let mut at_least = tokens::read(&get("annal.min_commit")).unwrap_or_default();
        for (group, index) in &self.written_up_to {
            tokens::add(&mut at_least, *group, *index);
        }
        ReadLevel {
            consistency: Consistency::named(&get("annal.consistency")).unwrap_or_default(),
            max_staleness: Duration::from_millis(duration_ms(&get("annal.max_staleness"))),
            at_least,
        }
    }

    /// What a statement reads that writes: always the newest there is.
    pub(super) fn newest_reads(&self) -> Reads {
        let snapshots = match &self.pinned {
            Some(pinned) => Arc::clone(pinned),
            None => Arc::new(Snapshots::new(Arc::clone(self.engine.node()))),
        };
        Reads::new(snapshots, self.own_rows(&self.visible()))
    }

    /// The state a statement over given reads is planned in, and the names it finds there.
    fn state_over(&self, reads: Arc<Reads>) -> (SessionState, Arc<StatementCatalog>) {
        let catalog = self.visible();
        let path = self.settings.lock().search_path();
        let list = StatementCatalog::new(&self.engine, &self.database, Arc::clone(&catalog), path, reads);
        self.catalog.describe(&self.engine, &catalog, &list);
        let mut state = self.base.clone();
        state.register_catalog_list(Arc::<StatementCatalog>::clone(&list));
        state.config_mut().options_mut().execution.time_zone = Some(self.zone().to_string());
        (state, list)
    }

    pub(super) fn own_rows(&self, catalog: &Catalog) -> BTreeMap<event::TableId, Vec<cluster::Uncommitted>> {
        // While a statement writes nothing is planned.
        let Some(writes) = self.writes.as_ref().and_then(|writes| writes.try_lock().ok()) else {
            return BTreeMap::new();
        };
        let own = |table: &Arc<Table>| (table.definition.id, writes.uncommitted(table));
        let all = catalog.tables.values().map(own);
        let any = |rows: &cluster::Uncommitted| {
            !rows.batches.is_empty() || !rows.segments.is_empty() || !rows.deleted.is_empty()
        };
        all.filter(|(_, shards)| shards.iter().any(any)).collect()
    }

    /// Names a mistyped one could have meant.
    fn known(&self) -> Known {
        let catalog = self.visible();
        let views = catalog.views.values().map(|view| view.name.clone());
        let tables = catalog.tables.values().map(|table| table.definition.name.clone()).chain(views).collect();
        let functions =
            self.base.scalar_functions().keys().chain(self.base.aggregate_functions().keys()).cloned().collect();
        Known { tables, functions }
    }

    /// Words an error about `statement`.
    pub(super) fn worded(&self, error: DataFusionError, statement: &super::Statement) -> Error {
        report::report(error, &statement.text, statement.offset, &self.known())
    }

    /// Parameters and columns of a statement, without running it.
    pub(super) async fn describe(
        &mut self,
        statement: &super::Statement,
        given: &[Option<FieldRef>],
    ) -> Result<Prepared, Error> {
        let statement = &statement.with_declared(given);
        let mut prepared = Prepared {
            parameters: Vec::new(),
            columns: None,
            catalog: self.engine.node().catalog().index,
            statement: statement.clone(),
            planned: OneTime::default(),
        };
        let Some(mut ast) = statement.ast.clone() else { return Ok(prepared) };
        self.complete_names(&mut ast);
        let ast = ast.as_ref();
        match ast {
            changing if is_change(changing) => self.describe_change(&mut prepared, ast, given).await?,
            Ast::Query(_) => {
                let planned = self.planned(statement, ast.clone()).await?;
                prepared.parameters = parameters::types(&planned.plan, given).map_err(|e| self.worded(e, statement))?;
                prepared.columns = Some(names::shown(&planned.columns()));
                prepared.planned = OneTime::new(planned);
            }
            Ast::Insert(insert) => {
                let plan = self.insert_plan(statement, insert)?;
                prepared.parameters = match plan.source {
                    Source::Constants(_) => Vec::new(),
                    Source::Literals(ref values) => cell_types(values, &plan, given),
                    Source::Query(query) => {
                        let planned = self.planned(statement, Ast::Query(query)).await?;
                        parameters::types(&planned.plan, given).map_err(|e| self.worded(e, statement))?
                    }
                };
                if insert.on.is_some() {
                    let from = self.table_of_insert(insert).await?;
                    self.describe_conflict(&mut prepared, (insert, &from), &plan.table, given).await?;
                }
                if let Some(items) = &insert.returning {
                    let from = self.table_of_insert(insert).await?;
                    self.describe_returning(&mut prepared, Returning { table: &plan.table, from: &from, items }, given)
                        .await?;
                }
            }
            Ast::Declare { stmts } => {
                if let Some(query) = stmts.first().and_then(|declare| declare.for_query.as_ref()) {
                    let planned = self.planned(statement, as_query(query)).await?;
                    prepared.parameters =
                        parameters::types(&planned.plan, given).map_err(|e| self.worded(e, statement))?;
                }
            }
            Ast::Fetch { name, .. } if !statement.moves => prepared.columns = self.cursor_columns(&folded(name)),
            Ast::Explain { .. } => prepared.columns = Some(explain_schema()),
            Ast::ShowVariable { variable } => prepared.columns = Some(super::set_show::show_schema(variable)),
            Ast::Execute { name: Some(name), .. } => {
                prepared.columns = self.named.get(&name.to_string()).and_then(|named| named.columns.clone());
            }
            _ => {}
        }
        Ok(prepared)
    }

    /// Plans on the query runtime. Types are settled as far as the parameters' allow.
    pub(super) async fn planned(&self, statement: &super::Statement, ast: Ast) -> Result<Planned, Error> {
        self.planned_over(statement, ast, Arc::new(self.reads())).await
    }

    /// The same over given reads.
    pub(super) async fn planned_over(
        &self,
        statement: &super::Statement,
        ast: Ast,
        reads: Arc<Reads>,
    ) -> Result<Planned, Error> {
        let catalog = self.visible();
        let (ast, written) = spelled_out::spelled_out(ast, &statement.text, &statement.declared, &catalog)?;
        let (mut state, list) = self.state_over(Arc::clone(&reads));
        numbers::read_as_meant(&mut state, &ast);
        let moment = self.moment();
        let planned = self.engine.work(async move {
            let ast = DfStatement::Statement(Box::new(ast));
            add_views(&state, &list, &catalog, &ast, 0).await?;
            let plan = state.statement_to_plan(ast).await?;
            refuse_statements(&plan)?;
            let plan = literals::narrow(set_operations::count(lateral_rows::flatten(plan)?)?)?;
            let plan = whole_rows::shown(plan)?;
            let settled = state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {});
            let plan = match settled {
                Ok(settled) => settled,
                // An operator over a parameter of a type yet unknown.
                Err(_) if !plan.get_parameter_types()?.is_empty() => plan,
                Err(error) => return Err(error),
            };
            Ok(Planned { plan, state, moment, reads, written })
        });
        // In a box: whoever may plan would be as large as what planning keeps, also where he does not.
        Box::pin(planned).await.map_err(|error| self.worded(error, statement))
    }

    /// Plans a query with its parameters, ready to run; plans anew when a table changed meanwhile. `planned` is taken when nothing
    /// that planning looks at has changed since it was made.
    pub(super) async fn runnable(
        &self,
        statement: &super::Statement,
        ast: &Ast,
        parameters: &[ScalarValue],
        planned: &OneTime,
    ) -> Result<Runnable, Error> {
        let mut ready = planned.take().filter(|planned| planned.moment == self.moment());
        for attempt in 0.. {
            let planned = match ready.take() {
                Some(planned) => planned,
                None => self.planned(statement, ast.clone()).await?,
            };
            match self.made_ready(statement, planned, parameters).await {
                Err(Error::Cluster(cluster::Error::SchemaChanged(_))) if attempt < REPLANS_MAX => {
                    self.engine.node().schema_settled().await;
                }
                outcome => return outcome,
            }
        }
        unreachable!("the loop ends by returning")
    }

    /// A plan with its parameters, ready to run.
    pub(super) async fn made_ready(
        &self,
        statement: &super::Statement,
        planned: Planned,
        parameters: &[ScalarValue],
    ) -> Result<Runnable, Error> {
        let modifiers = planned.modifiers();
        let Planned { plan, state, reads, .. } = planned;
        let parameters = parameters.to_vec();
        let mut state = self.begun(state);
        let runnable = self.engine.work(async move {
            let plan = match parameters.is_empty() {
                true => plan,
                false => plan.with_param_values(ParamValues::from(parameters))?,
            };
            let plan = state.optimize(&plan)?;
            let execution = &mut state.config_mut().options_mut().execution;
            let rows = large_constants::batch_rows(&plan, execution.batch_size.get())?;
            execution.batch_size = ConfigNonZeroUsize::try_new(rows)?;
            let plan = state.query_planner().create_physical_plan(&plan, &state).await?;
            Ok(Runnable { plan, context: state.task_ctx(), modifiers })
        });
        let runnable = Box::pin(runnable).await.map_err(|error| self.worded(error, statement))?;
        let staleness = match reads.staleness() {
            Some(age) => format!("{}ms", age.as_millis()),
            None => "unknown".to_owned(),
        };
        self.settings.lock().tell("annal.last_staleness", staleness);
        Ok(runnable)
    }

    /// The types of a plan's parameters.
    pub(super) fn types_of(
        &self,
        planned: &Planned,
        given: &[Option<FieldRef>],
        statement: &super::Statement,
    ) -> Result<Vec<FieldRef>, Error> {
        parameters::types(&planned.plan, given).map_err(|error| self.worded(error, statement))
    }

    /// Sets the time of `now()`: when the block began, else when the statement began; its defaults are planned apart and see the same.
    pub(super) fn begun(&self, mut state: SessionState) -> SessionState {
        state.mark_start_execution();
        let started = match self.block {
            Block::Explicit { .. } => self.started,
            Block::None | Block::Implicit => self.statement_began,
        };
        if let Some(started) = started {
            state.execution_props_mut().query_execution_start_time = Some(started);
        }
        state
    }

    fn moment(&self) -> Moment {
        Moment {
            catalog: self.engine.node().catalog().index,
            settings: self.settings.lock().changes(),
            written: self.written,
            own_rows: self.writes.is_some(),
            pinned: self.pinned.is_some(),
        }
    }

    /// Starts a plan. The rows stop when they are dropped.
    pub(super) fn start(&self, runnable: &Runnable) -> ResultStream {
        self.engine.run(Arc::clone(&runnable.plan), Arc::clone(&runnable.context))
    }

    /// Runs a query and gives its rows to the client.
    pub(super) async fn query(
        &mut self,
        statement: &super::Statement,
        ast: &Ast,
        parameters: &[ScalarValue],
        planned: &OneTime,
    ) -> Result<Rows, Error> {
        let runnable = self.runnable(statement, ast, parameters, planned).await?;
        let mut rows = self.rows(statement, self.start(&runnable), "SELECT");
        rows.columns = result_modifiers::with_modifiers(&rows.columns, &runnable.modifiers);
        Ok(rows)
    }

    /// A running plan as rows with the names the client sees and errors in PostgreSQL's words.
    pub(super) fn rows(&self, statement: &super::Statement, batches: ResultStream, tag: &'static str) -> Rows {
        let columns = names::shown(&batches.schema());
        let schema = Arc::clone(&columns);
        let statement = statement.clone();
        let known = Known::default();
        let batches = batches.map(move |batch| match batch {
            Ok(batch) => {
                let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                RecordBatch::try_new_with_options(Arc::clone(&schema), batch.columns().to_vec(), &options)
                    .map_err(|error| Error::report(Condition::Internal, error.to_string()))
            }
            Err(error) => Err(report::report(error, &statement.text, statement.offset, &known)),
        });
        Rows { columns, batches: Box::pin(batches), tag }
    }

    /// EXPLAIN [ANALYZE] [VERBOSE].
    pub(super) async fn explain(
        &mut self,
        statement: &super::Statement,
        inner: &Ast,
        analyze: bool,
        verbose: bool,
        parameters: &[ScalarValue],
    ) -> Result<Rows, Error> {
        let source = match inner {
            Ast::Insert(insert) if !analyze => insert.source.clone().map(Ast::Query),
            Ast::Query(_) => Some(inner.clone()),
            _ => None,
        };
        let Some(source) = source else {
            return Err(Error::report(Condition::FeatureNotSupported, "EXPLAIN of this statement is not supported"));
        };
        let mut lines = Vec::new();
        if verbose {
            let logical = self.planned(statement, source.clone()).await?.plan;
            lines.extend(logical.display_indent().to_string().lines().map(shown));
        }
        let runnable = self.runnable(statement, &source, parameters, &OneTime::default()).await?;
        if analyze {
            let mut rows = self.start(&runnable);
            while let Some(batch) = rows.next().await {
                batch.map_err(|error| self.worded(error, statement))?;
            }
            let text = DisplayableExecutionPlan::with_metrics(runnable.plan.as_ref()).indent(verbose).to_string();
            lines.extend(text.lines().map(shown));
        } else {
            let text = displayable(runnable.plan.as_ref()).indent(verbose).to_string();
            lines.extend(text.lines().map(shown));
        }
        Ok(text_rows(explain_schema(), lines, "EXPLAIN"))
    }

    /// Computes one value, for DEFAULT and EXECUTE.
    pub(super) async fn value_of(&self, expression: &str) -> Result<ScalarValue, Error> {
        let text = format!("SELECT {expression}");
        // Parsing takes much stack; the caller's is deep already.
        let parsed = self.engine.work(async move { Ok(super::statement::parse(&text)) });
        let parsed = parsed.await.map_err(|error| Error::report(Condition::Internal, error.to_string()))??;
        let [statement] = parsed.as_slice() else {
            return Err(Error::report(Condition::SyntaxError, format!("cannot read the expression {expression}")));
        };
        let ast = statement.ast.as_deref().expect("the statement is not empty");
        let runnable = Box::pin(self.runnable(statement, ast, &[], &OneTime::default())).await?;
        let mut rows = self.start(&runnable);
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(|error| self.worded(error, statement))?;
            if batch.num_rows() > 0 {
                return ScalarValue::try_from_array(batch.column(0), 0).map_err(|error| self.worded(error, statement));
            }
        }
        Ok(ScalarValue::Null)
    }
}

/// Only queries reach the executor: nothing that writes files, changes the library's settings or its catalog.
fn refuse_statements(plan: &LogicalPlan) -> Result<(), DataFusionError> {
    match plan {
        LogicalPlan::Ddl(_) | LogicalPlan::Dml(_) | LogicalPlan::Copy(_) | LogicalPlan::Statement(_) => {
            Err(DataFusionError::NotImplemented("this statement is not supported".to_owned()))
        }
        _ => Ok(()),
    }
}

/// A line of a plan without the marks that names have in it.
fn shown(line: &str) -> String {
    outer_names::as_written(&line.replace('\u{1}', "#"))
}

/// The one column of EXPLAIN.
pub(super) fn explain_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("QUERY PLAN", DataType::Utf8, false)]))
}

/// Rows of one text column.
pub(super) fn text_rows(columns: SchemaRef, lines: Vec<String>, tag: &'static str) -> Rows {
    let batch = RecordBatch::try_new(Arc::clone(&columns), vec![Arc::new(StringArray::from(lines))])
        .map_err(|error| Error::report(Condition::Internal, error.to_string()));
    Rows { columns, batches: Box::pin(stream::iter([batch])), tag }
}

/// The tables a query names could have changed; its text is what is planned again.
pub(super) fn as_query(query: &ast::Query) -> Ast {
    Ast::Query(Box::new(query.clone()))
}
