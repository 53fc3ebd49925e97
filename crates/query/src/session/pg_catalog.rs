//! `pg_catalog` as clients expect it: its tables, its functions, and the rewrites that make tools' queries plannable.
//!
//! What all sessions of a database share is made once: loading the static tables of PostgreSQL is not cheap. A session adds the
//! functions that answer for it alone.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray};
use arrow::datatypes::DataType;
use cluster::Catalog;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, MemorySchemaProvider, SchemaProvider};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::expr_fn::SimpleScalarUDF;
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Signature, TypeSignature, Volatility};
use datafusion::prelude::SessionContext;
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_pg_catalog::pg_catalog::oid_type_planner::PgOidTypePlanner;
use datafusion_pg_catalog::setup_pg_catalog;
use parking_lot::{Mutex, RwLock};

use self::information_schema::InformationSchema;
use self::relations::StatementPgCatalog;
pub(super) use self::relations::column_type;
use super::activity::Activity;
use super::arithmetic::CheckArithmetic;
use super::changing::Visible;
use super::interval_groups::GroupIntervals;
use super::keys_apart::KeysApart;
use super::literals::{Microseconds, ReadLiterals};
use super::quantified::SettleSubqueries;
use super::settings::Settings;
use crate::engine::Engine;
use crate::error::Error;
use crate::table::{Reads, Snapshots, StatementCatalog};
use crate::views;

mod activity;
mod functions;
mod hypertable;
mod indexes;
mod information_schema;
mod relations;
mod rewrite;
mod routines;
mod sizes;

pub(crate) use self::functions::{SAME_OFFSET, same_offset, timezone};
pub(crate) use self::hypertable::HYPERTABLE;
pub(crate) use self::rewrite::rewrite;

/// What all sessions of one database share.
pub(crate) struct Shared {
    database: String,
    state: SessionState,
    pg_catalog: Arc<dyn SchemaProvider>,
}

impl Shared {
    /// Registers PostgreSQL's catalog over the node's own.
    pub(crate) fn new(engine: &Arc<Engine>, database: &str) -> Shared {
        let mut state = engine.session_state(database);
        // The library's own information_schema knows Arrow's types only.
        state.config_mut().options_mut().catalog.information_schema = false;
        let live = Arc::new(Live {
            engine: Arc::downgrade(engine),
            database: database.to_owned(),
            registered: Arc::default(),
        });
        state.register_catalog_list(Arc::clone(&live) as Arc<dyn CatalogProviderList>);
        let context = SessionContext::new_with_state(state);
        setup_pg_catalog(&context, database, EmptyContextProvider).expect("the static catalog tables can be read");
        let pg_catalog = live.registered.read().get("pg_catalog").cloned().expect("it was registered just now");
        let planner = Microseconds(Some(Arc::new(PgOidTypePlanner)));
        let mut state =
            SessionStateBuilder::new_from_existing(context.state()).with_type_planner(Arc::new(planner)).build();
        state.config_mut().options_mut().sql_parser.parse_float_as_decimal = true;
        state.add_analyzer_rule(Arc::new(ReadLiterals));
        state.add_analyzer_rule(Arc::new(SettleSubqueries::default()));
        state.add_analyzer_rule(Arc::new(GroupIntervals::default()));
        state.add_analyzer_rule(Arc::new(KeysApart::default()));
        state.add_analyzer_rule(Arc::new(CheckArithmetic));
        for function in crate::functions::quoting() {
            state.register_udf(function).expect("a function is registered at any time");
        }
        Shared { database: database.to_owned(), state, pg_catalog }
    }
}

/// One session's view of `pg_catalog`.
pub(crate) struct SessionCatalog {
    shared: Arc<Shared>,
    functions: Vec<Arc<ScalarUDF>>,
    settings: Arc<Mutex<Settings>>,
}

impl SessionCatalog {
    /// The view of a session of `user`.
    pub(crate) fn new(
        engine: &Arc<Engine>,
        user: &str,
        database: &str,
        settings: &Arc<Mutex<Settings>>,
        visible: &Visible,
        activity: &Arc<Activity>,
    ) -> SessionCatalog {
        let shared = engine.shared(database);
        let text = |value: &str| ScalarValue::Utf8(Some(value.to_owned()));
        let version = format!("PostgreSQL 15.18 (Annal {}) on {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
        let mut functions = functions::all(visible, settings);
        functions.extend([
            constant("version", text(&version)),
            constant("session_user", text(user)),
            constant("current_user", text(user)),
            constant("pg_backend_pid", ScalarValue::Int32(Some(0))),
            constant("pg_is_in_recovery", ScalarValue::Boolean(Some(false))),
            current_setting(settings),
            set_config(settings),
            unlock_all(),
            activity::statement_timestamp(activity),
        ]);
        SessionCatalog { shared, functions, settings: Arc::clone(settings) }
    }

    /// What `pg_backend_pid()` answers.
    pub(crate) fn set_backend_pid(&mut self, pid: i32) {
        self.functions.retain(|function| function.name() != "pg_backend_pid");
        self.functions.push(constant("pg_backend_pid", ScalarValue::Int32(Some(pid))));
    }

    /// The state the session's statements are planned in, without tables.
    pub(crate) fn state(&self) -> SessionState {
        use datafusion::execution::FunctionRegistry;
        let mut state = self.shared.state.clone();
        for function in &self.functions {
            let replaced = state.register_udf(Arc::clone(function));
            debug_assert!(replaced.is_ok());
        }
        state
    }

    /// Adds the schemas that describe the tables of `catalog` to a statement's.
    pub(crate) fn describe(&self, engine: &Arc<Engine>, catalog: &Arc<Catalog>, statement: &StatementCatalog) {
        let views = views::schema(engine, catalog);
        let fixed = Arc::clone(&self.shared.pg_catalog);
        let pg_catalog = StatementPgCatalog::new(
            fixed,
            Arc::clone(catalog),
            Arc::clone(&views),
            &self.shared.database,
            &self.settings,
            engine.sessions(),
        );
        statement.add_schema("pg_catalog", Arc::new(pg_catalog));
        let standard = InformationSchema::new(&self.shared.database, Arc::clone(catalog), views);
        statement.add_schema("information_schema", Arc::new(standard));
    }
}

/// A function without arguments that always answers the same.
fn constant(name: &str, value: ScalarValue) -> Arc<ScalarUDF> {
    let data_type = value.data_type();
    let answer = Arc::new(move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(value.clone())));
    Arc::new(ScalarUDF::from(SimpleScalarUDF::new_with_signature(
        name,
        Signature::exact(Vec::new(), Volatility::Stable),
        data_type,
        answer,
    )))
}

fn texts(arguments: &[ColumnarValue]) -> DfResult<Vec<ArrayRef>> {
    ColumnarValue::values_to_arrays(arguments)
}

fn text_signature(counts: &[Vec<DataType>]) -> Signature {
    Signature::one_of(counts.iter().cloned().map(TypeSignature::Exact).collect(), Volatility::Volatile)
}

fn current_setting(settings: &Arc<Mutex<Settings>>) -> Arc<ScalarUDF> {
    let settings = Arc::clone(settings);
    let answer = Arc::new(move |arguments: &[ColumnarValue]| {
        let arrays = texts(arguments)?;
        let names = arrays[0].as_string::<i32>();
        let missing_ok = arrays.get(1).is_some_and(|flag| flag.as_boolean().iter().all(|value| value == Some(true)));
        let settings = settings.lock();
        let values = names.iter().map(|name| match name.map(|name| (name, settings.get(name))) {
            None => Ok(None),
            Some((_, Some(value))) => Ok(Some(value)),
            Some((_, None)) if missing_ok => Ok(None),
            Some((name, None)) => {
                let message = format!("unrecognized configuration parameter \"{name}\"");
                let error = Error::report(crate::error::Condition::UndefinedObject, message);
                Err(DataFusionError::External(Box::new(error)))
            }
        });
        let values: StringArray = values.collect::<DfResult<Vec<Option<String>>>>()?.into();
        Ok(ColumnarValue::Array(Arc::new(values)))
    });
    let signature = text_signature(&[vec![DataType::Utf8], vec![DataType::Utf8, DataType::Boolean]]);
    Arc::new(ScalarUDF::from(SimpleScalarUDF::new_with_signature("current_setting", signature, DataType::Utf8, answer)))
}

fn set_config(settings: &Arc<Mutex<Settings>>) -> Arc<ScalarUDF> {
    let settings = Arc::clone(settings);
    let answer = Arc::new(move |arguments: &[ColumnarValue]| {
        let arrays = texts(arguments)?;
        let (names, values) = (arrays[0].as_string::<i32>(), arrays[1].as_string::<i32>());
        let local = arrays[2].as_boolean();
        let mut settings = settings.lock();
        for at in 0..names.len() {
            if names.is_null(at) || values.is_null(at) {
                continue;
            }
            let outcome = if local.is_valid(at) && local.value(at) {
                settings.set_local(names.value(at), values.value(at))
            } else {
                settings.set(names.value(at), values.value(at))
            };
            outcome.map_err(|refused| DataFusionError::External(Box::new(Error::from(refused))))?;
        }
        Ok(ColumnarValue::Array(Arc::clone(&arrays[1])))
    });
    let signature = text_signature(&[vec![DataType::Utf8, DataType::Utf8, DataType::Boolean]]);
    Arc::new(ScalarUDF::from(SimpleScalarUDF::new_with_signature("set_config", signature, DataType::Utf8, answer)))
}

/// There are no advisory locks; poolers release them all the same.
fn unlock_all() -> Arc<ScalarUDF> {
    let answer =
        Arc::new(|_: &[ColumnarValue]| Ok(ColumnarValue::Array(Arc::new(BooleanArray::from(vec![true])) as ArrayRef)));
    Arc::new(ScalarUDF::from(SimpleScalarUDF::new_with_signature(
        "pg_advisory_unlock_all",
        Signature::exact(Vec::new(), Volatility::Stable),
        DataType::Boolean,
        answer,
    )))
}

/// The catalog of this very moment, for `pg_class` and its kin.
struct Live {
    engine: Weak<Engine>,
    database: String,
    registered: Arc<RwLock<BTreeMap<String, Arc<dyn SchemaProvider>>>>,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("database", &self.database).finish_non_exhaustive()
    }
}

impl CatalogProviderList for Live {
    /// There is one database; others are not taken.
    fn register_catalog(&self, _name: String, _catalog: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![self.database.clone()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        if name != self.database {
            return None;
        }
        let engine = self.engine.upgrade();
        let catalog = engine.as_ref().map_or_else(|| Arc::new(Catalog::default()), |engine| engine.node().catalog());
        let now = engine.and_then(|engine| {
            let reads = Arc::new(Reads::new(Arc::new(Snapshots::new(Arc::clone(engine.node()))), BTreeMap::new()));
            StatementCatalog::new(&engine, name, catalog, vec!["public".to_owned()], reads).catalog(name)
        });
        Some(Arc::new(LiveDatabase { now, registered: Arc::clone(&self.registered) }))
    }
}

/// The one database at this moment.
struct LiveDatabase {
    now: Option<Arc<dyn CatalogProvider>>,
    registered: Arc<RwLock<BTreeMap<String, Arc<dyn SchemaProvider>>>>,
}

impl fmt::Debug for LiveDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LiveDatabase")
    }
}

impl CatalogProvider for LiveDatabase {
    fn schema_names(&self) -> Vec<String> {
        let mut names = self.now.as_ref().map_or_else(Vec::new, |now| now.schema_names());
        names.extend(["pg_catalog".to_owned(), "information_schema".to_owned()]);
        names
    }

    /// The catalog's own tables are not listed as relations: no tool asks for them, and each would have to be built.
    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            "pg_catalog" | "information_schema" => Some(Arc::new(MemorySchemaProvider::new())),
            _ => self.now.as_ref().and_then(|now| now.schema(name)),
        }
    }

    fn register_schema(
        &self,
        name: &str,
        schema: Arc<dyn SchemaProvider>,
    ) -> DfResult<Option<Arc<dyn SchemaProvider>>> {
        Ok(self.registered.write().insert(name.to_owned(), schema))
    }
}
