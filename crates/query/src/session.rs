//! One connection's view: settings, transaction, statements.
//!
//! A [`Session`] is driven by one task. Its futures do their CPU work on the query runtime, so they may be polled on a socket's runtime;
//! dropping a future or a row stream stops the work behind it at its next yield.

mod activity;
mod alike;
mod alter;
mod arithmetic;
mod arrays;
mod as_of;
mod calls;
mod change;
mod changing;
mod checks;
mod clauses;
mod comment;
mod compared_rows;
mod conflict;
mod constraints;
mod control;
mod copy;
mod create_as;
mod create_as_clauses;
mod create_like;
mod cursor_words;
mod cursors;
mod ddl;
mod defaults;
mod dependent;
mod depth;
mod first_rows;
mod group_columns;
mod grouping_sets;
mod in_values;
mod insert;
mod interval_groups;
mod joined_texts;
mod kept_names;
mod keys;
mod keys_apart;
mod large_constants;
mod lateral_joins;
mod lateral_rows;
mod literals;
mod modifiers;
mod names;
mod null_if;
mod numbers;
mod operators;
mod order_names;
mod ordered_rows;
mod ordinality;
mod outer_names;
mod outer_types;
mod parameters;
mod pg_catalog;
mod plan;
mod precedence;
mod protect;
mod pull_up;
mod quantified;
mod relations;
mod report;
mod result_modifiers;
mod returning;
mod row_functions;
mod row_nulls;
mod rows;
mod schemas;
mod select_list;
mod set_operations;
mod set_show;
mod settings;
mod short_aliases;
mod spelled_out;
mod stated_keys;
mod statement;
mod subqueries;
mod temporary;
#[cfg(test)]
mod tests;
mod timescale;
mod tokens;
mod transaction;
mod truncate;
mod truth;
mod typed;
mod using;
mod validate;
mod values;
mod versions;
mod view;
mod whole_rows;
mod words;
mod zoned;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::datatypes::{FieldRef, SchemaRef};
use arrow::record_batch::RecordBatch;
use cluster::{CatalogChanges, Positions, WriteSet};
use datafusion::common::ScalarValue;
use datafusion::execution::session_state::SessionState;
use datafusion::sql::sqlparser::ast;
use futures::Stream;
use parking_lot::Mutex;

use self::activity::Activity;
pub(crate) use self::activity::Sessions;
use self::changing::Visible;
pub use self::copy::CopyIn;
use self::pg_catalog::SessionCatalog;
pub(crate) use self::pg_catalog::Shared;
pub use self::result_modifiers::modifier_of;
use self::settings::Settings;
pub(crate) use self::statement::parse;
pub use self::statement::{Statement, split_statements};
use self::transaction::{Modes, Savepoint};
use crate::engine::Engine;
use crate::error::{Condition, Error};
use crate::table::Snapshots;
use crate::text::Zone;

/// Longer statements are parsed, and their constants read, on the query runtime: the caller's threads serve everybody's logins.
const DONE_HERE_BYTES_MAX: usize = 4 << 10;

/// A planned statement with its parameters and columns.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The type of each parameter.
    pub parameters: Vec<FieldRef>,
    /// The columns it will give; `None` when it gives no rows.
    pub columns: Option<SchemaRef>,
    pub(crate) statement: Statement,
    /// The catalog that it was planned with.
    catalog: u64,
    /// What planning gave, for the first execution.
    planned: plan::OneTime,
}

impl Prepared {
    /// A statement that takes no parameters, gives no rows and is planned when it is run: an INSERT of constants. Nothing is known about
    /// it to whoever asks before that.
    pub fn as_written(statement: &Statement) -> Option<Prepared> {
        statement.rows.as_ref()?;
        Some(Prepared {
            parameters: Vec::new(),
            columns: None,
            catalog: 0,
            statement: statement.clone(),
            planned: plan::OneTime::default(),
        })
    }
}

/// Rows as they come.
pub struct Rows {
    /// The columns, named as PostgreSQL names them.
    pub columns: SchemaRef,
    /// The batches. Dropping it stops the query.
    pub batches: Pin<Box<dyn Stream<Item = Result<RecordBatch, Error>> + Send>>,
    /// The command word of the tag: `SELECT`, `EXPLAIN`, `SHOW`.
    pub tag: &'static str,
}

/// What executing a statement leads to.
pub enum Outcome {
    /// Rows.
    Rows(Rows),
    /// No rows; the whole command tag, `INSERT 0 3`.
    Done(String),
    /// COPY … FROM STDIN: feed bytes.
    CopyIn(CopyIn),
    /// COPY … TO STDOUT: encode rows.
    CopyOut(CopyOut),
    /// The empty query.
    Empty,
}

/// Formats of COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    /// Tab-separated with backslash escapes.
    Text,
    /// CSV as PostgreSQL reads and writes it.
    Csv,
}

/// How the data of a COPY are encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyEncoding {
    /// As lines.
    Lines(CopyOptions),
    /// As tuples of binary values.
    Binary,
}

/// Options of COPY in lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    /// The format.
    pub format: CopyFormat,
    /// First line names the columns.
    pub header: bool,
    /// Between fields.
    pub delimiter: u8,
    /// Stands for NULL.
    pub null: String,
    /// CSV only.
    pub quote: u8,
    /// CSV only.
    pub escape: u8,
}

/// A COPY … TO STDOUT under way; `wire` encodes the rows in the format asked for.
pub struct CopyOut {
    /// How they are to be encoded.
    pub encoding: CopyEncoding,
    /// The rows.
    pub rows: Rows,
}

/// A NOTICE or WARNING for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// `NOTICE` or `WARNING`.
    pub severity: &'static str,
    /// SQLSTATE, `00000` for a plain notice.
    pub code: &'static str,
    /// The message.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What ReadyForQuery says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`
    Idle,
    /// `T`
    Active,
    /// `E`
    Failed,
}

/// What is open between statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    /// Each statement commits by itself.
    None,
    /// The statements of one message commit together.
    Implicit,
    /// Between BEGIN and COMMIT.
    Explicit {
        /// A statement failed; only ROLLBACK helps.
        failed: bool,
    },
}

/// One connection's session.
pub struct Session {
    engine: Arc<Engine>,
    user: String,
    database: String,
    base: SessionState,
    catalog: SessionCatalog,
    settings: Arc<Mutex<Settings>>,
    /// What others see of it.
    activity: Arc<Activity>,
    notices: Vec<Notice>,
    block: Block,
    /// Whose statements these are, for the node that may refuse what is too much.
    client: cluster::ClientId,
    /// What the open block wrote. Whoever writes holds it; it comes back when a statement ends or is dropped.
    writes: Option<Arc<tokio::sync::Mutex<WriteSet>>>,
    /// What the open block changes in the catalog.
    changes: Option<CatalogChanges>,
    visible: Visible,
    /// Temporary tables of the open block that go with it.
    on_commit_drop: Vec<event::TableId>,
    /// Savepoints of the open block, oldest first.
    savepoints: Vec<Savepoint>,
    /// The characteristics of the open block.
    modes: Modes,
    /// Whether a statement of the open block has read or written.
    begun: bool,
    /// What every statement of the open block reads, when it reads repeatably.
    pinned: Option<Arc<Snapshots>>,
    /// The table whose turn the statement under way has.
    turn: Option<event::TableId>,
    /// See [`Session::committing`].
    committing: Arc<AtomicBool>,
    /// The entries up to which the session has written.
    written_up_to: Positions,
    /// Counts the statements that wrote, so that a plan made before one is not run after it.
    written: u64,
    /// When the last block began: `now()` within it.
    started: Option<chrono::DateTime<chrono::Utc>>,
    /// When the last statement began: `now()` outside a block.
    statement_began: Option<chrono::DateTime<chrono::Utc>>,
    named: BTreeMap<String, Prepared>,
    cursors: BTreeMap<String, cursors::Cursor>,
    last_head: statement::LastHead,
    known_checks: checks::KnownChecks,
    /// Where its temporary tables are, once it has some.
    temporary: Option<temporary::TemporarySchema>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("user", &self.user).field("block", &self.block).finish_non_exhaustive()
    }
}

impl Session {
    /// A session with all defaults.
    pub(crate) fn new(engine: Arc<Engine>, user: &str, database: &str) -> Session {
        let settings = Arc::new(Mutex::new(Settings::new(user)));
        let visible = Visible::new(&engine);
        let activity = Arc::new(Activity::new(user, database, &settings));
        engine.sessions().enter(&activity);
        let catalog = SessionCatalog::new(&engine, user, database, &settings, &visible, &activity);
        let base = catalog.state();
        let client = engine.node().client();
        Session {
            engine,
            user: user.to_owned(),
            database: database.to_owned(),
            base,
            catalog,
            settings,
            activity,
            notices: Vec::new(),
            block: Block::None,
            client,
            writes: None,
            changes: None,
            visible,
            on_commit_drop: Vec::new(),
            savepoints: Vec::new(),
            modes: Modes::default(),
            begun: false,
            pinned: None,
            turn: None,
            committing: Arc::default(),
            written_up_to: Positions::new(),
            written: 0,
            started: None,
            statement_began: None,
            named: BTreeMap::new(),
            cursors: BTreeMap::new(),
            last_head: statement::LastHead::default(),
            known_checks: None,
            temporary: None,
        }
    }

    /// Parses a message into its statements. An empty message gives one empty statement.
    ///
    /// # Errors
    /// 42601 with position.
    pub async fn parse(&self, sql: &str) -> Result<Vec<Statement>, Error> {
        if sql.len() <= DONE_HERE_BYTES_MAX {
            return self.last_head.parse(sql);
        }
        let (sql, last_head) = (sql.to_owned(), self.last_head.clone());
        let parsed = self.engine.work(async move { Ok(last_head.parse(&sql)) }).await;
        parsed.map_err(|error| Error::report(Condition::Internal, error.to_string()))?
    }

    /// Plans a statement. `parameters` are the types the client named, `None` where the server shall infer.
    ///
    /// # Errors
    /// What is wrong with the statement.
    pub async fn prepare(&mut self, statement: &Statement, parameters: &[Option<FieldRef>]) -> Result<Prepared, Error> {
        self.refuse_in_failed_block(statement)?;
        match Box::pin(self.describe(statement, parameters)).await {
            Ok(prepared) => Ok(prepared),
            Err(error) => {
                self.statement_failed();
                Err(report::located(error, statement))
            }
        }
    }

    /// Runs a prepared statement. Outside a transaction block, a write commits before this (or the COPY's `finish`) returns,
    /// unless [`Session::begin_implicit`] was called. Errors put an open block into the failed state.
    ///
    /// # Errors
    /// What went wrong; nothing of the statement stays.
    pub async fn execute(&mut self, prepared: &Prepared, parameters: Vec<ScalarValue>) -> Result<Outcome, Error> {
        self.refuse_in_failed_block(&prepared.statement)?;
        // What the statement before has set is settled now: it may have done so while its rows were read.
        self.end_single();
        match Box::pin(self.run(prepared, parameters)).await {
            Ok(outcome) => Ok(outcome),
            Err(error) => {
                self.statement_failed();
                Err(report::located(error, &prepared.statement))
            }
        }
    }

    /// Several statements of one message run in one implicit transaction, ended by `end_implicit` (or an explicit COMMIT between).
    pub fn begin_implicit(&mut self) {
        if self.block == Block::None {
            self.block = Block::Implicit;
        }
    }

    /// Commits (`true`) or discards the implicit transaction, if one is still open.
    ///
    /// # Errors
    /// What the commit says.
    pub async fn end_implicit(&mut self, commit: bool) -> Result<(), Error> {
        if self.block != Block::Implicit {
            return Ok(());
        }
        if !commit {
            self.writes = None;
            self.drop_changes();
        }
        let held = if commit { Box::pin(self.hold_cursors()).await } else { Ok(()) };
        if held.is_err() {
            self.writes = None;
            self.drop_changes();
        }
        let outcome = held.and(self.commit_writes().await);
        self.end_block(commit && outcome.is_ok());
        outcome
    }

    /// Tells the session that a statement failed outside it (encoding, cancel, COPY): an open block becomes failed.
    pub fn statement_failed(&mut self) {
        match &mut self.block {
            Block::Explicit { failed } => *failed = true,
            Block::Implicit => {}
            Block::None => self.settings.lock().end_transaction(false),
        }
        // Rows of a failed block are never committed, unless it goes on from a savepoint; let go of them now.
        if self.savepoints.is_empty() {
            self.writes = None;
            self.drop_changes();
        }
    }

    /// For ReadyForQuery.
    pub fn status(&self) -> TransactionStatus {
        match self.block {
            Block::None | Block::Implicit => TransactionStatus::Idle,
            Block::Explicit { failed: false } => TransactionStatus::Active,
            Block::Explicit { failed: true } => TransactionStatus::Failed,
        }
    }

    /// The current value of a setting, as SHOW prints it.
    pub fn setting(&self, name: &str) -> Option<String> {
        self.settings.lock().get(name)
    }

    /// Sets a setting as SET does (also from the startup packet).
    ///
    /// # Errors
    /// 42704 for an unknown name, 22023 for a bad value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        self.settings.lock().set(name, value)?;
        self.end_single();
        Ok(())
    }

    /// Settings whose change must be reported (ParameterStatus), changed since the last call.
    pub fn take_reported(&mut self) -> Vec<(String, String)> {
        self.settings.lock().take_reported()
    }

    /// Notices since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// `statement_timeout` in milliseconds, 0 when off.
    pub fn statement_timeout_ms(&self) -> u64 {
        self.setting("statement_timeout").map_or(0, |value| settings::duration_ms(&value))
    }

    /// True while a commit is under way. A statement must not be dropped then: it may be committed although nobody waits for it,
    /// and to call it cancelled would be a lie.
    pub fn committing(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.committing)
    }

    /// The zone of `SET TimeZone`.
    pub fn zone(&self) -> Zone {
        self.settings.lock().zone()
    }

    /// Says whom the session serves: what `pg_backend_pid()` answers, and where the client is.
    pub fn serves(&mut self, pid: i32, client: Option<SocketAddr>) {
        self.activity.serves(pid, client);
        self.catalog.set_backend_pid(pid);
        self.base = self.catalog.state();
    }

    /// Says that everything asked for has been answered, and the session waits for its client.
    pub fn waits(&self) {
        self.activity.waits(self.status());
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    fn notice(&mut self, severity: &'static str, code: &'static str, message: impl Into<String>) {
        self.notices.push(Notice { severity, code, message: message.into(), hint: None });
    }

    fn refuse_in_failed_block(&self, statement: &Statement) -> Result<(), Error> {
        if self.block != (Block::Explicit { failed: true }) {
            return Ok(());
        }
        match statement.ast.as_deref() {
            None | Some(ast::Statement::Commit { .. } | ast::Statement::Rollback { .. }) => Ok(()),
            Some(_) => Err(Error::report(
                Condition::InFailedTransaction,
                "current transaction is aborted, commands ignored until end of transaction block",
            )),
        }
    }
}
