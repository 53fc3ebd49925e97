//! What all sessions of a node share: node, memory pool, functions, segment store, runtime.
//!
//! A client reaches nothing but the catalog through it: no file or URL can be named as a table, and no store but the segments' is known.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use cluster::Node;
use datafusion::error::Result;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::TrackConsumersPool;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::execution::{SessionStateDefaults, TaskContext};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use event::TableId;
use event::limits::SEGMENT_FOOTER_CACHE_BYTES;
use parking_lot::Mutex;
use storage::objects::SegmentStore;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ambiguous::cover_names;
use crate::functions;
use crate::interrupt::InterruptibleJoins;
use crate::memory::QueryMemory;
use crate::run::{self, ResultStream};
use crate::session::{Session, Sessions, Shared};
use crate::table::covered::DropCoveredFilters;
use crate::table::segments::SegmentSource;

/// Consumers of memory that an error about its end names.
const CONSUMERS_NAMED: NonZeroUsize = NonZeroUsize::new(3).expect("three is not zero");

/// What an engine needs.
#[derive(Debug)]
pub struct EngineOptions {
    /// The node.
    pub node: Arc<Node>,
    /// Plans and runs queries and decodes COPY; no socket is served there.
    pub runtime: tokio::runtime::Handle,
    /// Bytes all running queries may use together.
    pub memory_bytes: usize,
    /// Partitions of a plan.
    pub partitions: usize,
}

/// The query engine of a node.
pub struct Engine {
    node: Arc<Node>,
    runtime: tokio::runtime::Handle,
    environment: Environment,
    /// What sessions of a database share, by its name.
    shared: Mutex<BTreeMap<String, Arc<Shared>>>,
    /// Who is connected.
    sessions: Arc<Sessions>,
    /// Whose turn it is to change rows of a table, so that statements do not evaluate in vain.
    turns: Mutex<BTreeMap<TableId, Arc<Semaphore>>>,
}

impl Engine {
    /// Registers functions, views and the segment store.
    pub fn new(options: EngineOptions) -> Arc<Engine> {
        let EngineOptions { node, runtime, memory_bytes, partitions } = options;
        let environment = {
            let memory = QueryMemory::new(memory_bytes, node.memory().clone());
            Environment::new(node.segment_store(), memory, partitions, functions::of_node(&node))
        };
        let (shared, sessions, turns) = (Mutex::default(), Arc::default(), Mutex::default());
        Arc::new(Engine { node, runtime, environment, shared, sessions, turns })
    }

    /// A session with its own settings, prepared plans and transaction.
    pub fn session(self: &Arc<Self>, user: &str, database: &str) -> Session {
        Session::new(Arc::clone(self), user, database)
    }

    /// The node.
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Who is connected.
    pub(crate) fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    /// Where segments are read.
    pub(crate) fn segments(&self) -> &Arc<SegmentSource> {
        self.environment.segments()
    }

    /// Waits for the turn to change rows of a table, until the answer is dropped.
    pub(crate) async fn turn(&self, table: TableId) -> OwnedSemaphorePermit {
        let turns = Arc::clone(self.turns.lock().entry(table).or_insert_with(|| Arc::new(Semaphore::new(1))));
        turns.acquire_owned().await.expect("the semaphore is never closed")
    }

    /// What sessions of `database` share, made by the first of them.
    pub(crate) fn shared(self: &Arc<Self>, database: &str) -> Arc<Shared> {
        let found = self.shared.lock().get(database).cloned();
        match found {
            Some(shared) => shared,
            None => {
                let shared = Arc::new(Shared::new(self, database));
                Arc::clone(self.shared.lock().entry(database.to_owned()).or_insert(shared))
            }
        }
    }

    /// Where queries run.
    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    /// The state a session of `database` begins with. It has no tables: a statement brings its own catalog list
    /// ([`crate::table::StatementCatalog`]) and gives it to a clone of the state.
    pub(crate) fn session_state(&self, database: &str) -> SessionState {
        self.environment.session_state(database)
    }

    /// Does CPU work on the query runtime. Dropping the wait stops it at its next yield.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        run::work(&self.runtime, work).await
    }

    /// Runs a plan on the query runtime.
    pub(crate) fn run(&self, plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> ResultStream {
        ResultStream::start(&self.runtime, plan, context)
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("node", &self.node).finish_non_exhaustive()
    }
}

/// What plans are made and run in.
pub(crate) struct Environment {
    segments: Arc<SegmentSource>,
    state: SessionState,
}

impl Environment {
    /// Nothing is spilled to disk: a query that needs more is refused.
    pub(crate) fn new(
        store: SegmentStore,
        memory: QueryMemory,
        partitions: usize,
        functions: functions::Functions,
    ) -> Environment {
        let runtime = runtime_env(memory);
        let segments = SegmentSource::register(store, &runtime).expect("the segment store's URL is well formed");
        let state = session_state(runtime, partitions, functions);
        Environment { segments: Arc::new(segments), state }
    }

    /// Where segments are read.
    pub(crate) fn segments(&self) -> &Arc<SegmentSource> {
        &self.segments
    }

    /// See [`Engine::session_state`].
    pub(crate) fn session_state(&self, database: &str) -> SessionState {
        let mut state = self.state.clone();
        database.clone_into(&mut state.config_mut().options_mut().catalog.default_catalog);
        state
    }
}

fn runtime_env(memory: QueryMemory) -> Arc<RuntimeEnv> {
    let pool = TrackConsumersPool::new(memory, CONSUMERS_NAMED);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .with_metadata_cache_limit(SEGMENT_FOOTER_CACHE_BYTES)
        .build_arc()
        .expect("an environment without disk and network can always be made");
    // The library knows the local file system unless told to forget it.
    let _ = runtime.deregister_object_store(ObjectStoreUrl::local_filesystem().as_ref());
    runtime
}

fn session_state(runtime: Arc<RuntimeEnv>, partitions: usize, own: functions::Functions) -> SessionState {
    let mut scalar = SessionStateDefaults::default_scalar_functions();
    // What ours takes the place of would come back under its other names.
    scalar.retain(|theirs| own.scalar.iter().all(|ours| ours.name() != theirs.name()));
    scalar.extend(own.scalar);
    let mut aggregate = SessionStateDefaults::default_aggregate_functions();
    aggregate.extend(own.aggregate);
    let table = SessionStateDefaults::default_table_functions().into_iter().map(|f| (f.name().to_owned(), f)).collect();
    let mut planners = SessionStateDefaults::default_expr_planners();
    planners.insert(0, Arc::new(functions::BytesSubstring::default()));
    planners.insert(0, Arc::new(functions::subscript::Subscripts));
    planners.insert(0, Arc::new(functions::one_type::ElementsOfOneType));
    planners.insert(0, Arc::new(functions::numeric::NumericArithmetic));
    planners.insert(0, Arc::new(functions::interval::IntervalArithmetic));
    planners.insert(0, Arc::new(functions::beside_text::NumbersBesideText));
    planners.insert(0, Arc::new(functions::json::JsonOperators));
    planners.insert(0, Arc::new(functions::beside_parameter::ParametersBeside));
    SessionStateBuilder::new()
        .with_config(session_config(partitions))
        .with_runtime_env(runtime)
        .with_expr_planners(planners)
        .with_scalar_functions(scalar)
        .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
        .with_aggregate_functions(aggregate)
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .with_table_functions(table)
        .with_physical_optimizer_rules(physical_rules())
        .build()
}

/// The library's rules and our own: what pruning has answered must be gone before aggregates look for exact statistics, joins are
/// wrapped where the library wraps what else would never yield, and filters are pushed down where names are unique.
pub(crate) fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    let cooperation = rules.iter().position(|rule| rule.name() == "EnsureCooperative");
    rules.insert(cooperation.expect("the library ensures cooperation"), Arc::new(InterruptibleJoins));
    rules.insert(0, Arc::new(DropCoveredFilters));
    cover_names(&mut rules);
    rules
}

fn session_config(partitions: usize) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_target_partitions(partitions.max(2))
        .with_information_schema(true)
        .with_create_default_catalog_and_schema(false);
    let options = config.options_mut();
    options.catalog.default_schema = "public".to_owned();
    options.sql_parser.dialect = datafusion::config::Dialect::PostgreSQL;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.execution.parquet.schema_force_view_types = false;
    options.execution.parquet.pruning = true;
    options.execution.parquet.enable_page_index = true;
    config
}
