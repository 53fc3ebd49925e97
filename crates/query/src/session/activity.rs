//! What the sessions of a node are doing: the rows of `pg_stat_activity`, and the moment of `statement_timestamp()`.
//!
//! A session tells of itself when a statement begins and when it has been answered; whoever lists the sessions reads that. Nothing here
//! is replicated: each node knows its own clients.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use chrono::{DateTime, Utc};
use datafusion::common::ScalarValue;
use parking_lot::Mutex;

use super::TransactionStatus;
use super::settings::Settings;

/// All sessions of a node.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<Vec<Weak<Activity>>>);

impl Sessions {
    /// Adds one. It goes when nobody holds it any more.
    pub(super) fn enter(&self, activity: &Arc<Activity>) {
        let mut sessions = self.0.lock();
        sessions.retain(|session| session.strong_count() > 0);
        sessions.push(Arc::downgrade(activity));
    }

    /// What each is doing, in the order in which they came.
    pub(super) fn all(&self) -> Vec<Arc<Activity>> {
        self.0.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

/// One session, as others see it.
#[derive(Debug)]
pub(crate) struct Activity {
    pub(super) user: String,
    pub(super) database: String,
    pub(super) settings: Arc<Mutex<Settings>>,
    pub(super) began: DateTime<Utc>,
    now: Mutex<Now>,
}

/// What changes while a session goes on.
#[derive(Clone, Debug)]
pub(super) struct Now {
    pub(super) pid: i32,
    pub(super) client: Option<SocketAddr>,
    pub(super) state: State,
    /// When it came to be in that state.
    pub(super) changed: DateTime<Utc>,
    /// The statement under way, or the last one.
    pub(super) query: Arc<str>,
    pub(super) query_began: Option<DateTime<Utc>>,
    pub(super) transaction_began: Option<DateTime<Utc>>,
}

/// Whether it works or waits for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Active,
    Waiting(TransactionStatus),
}

impl State {
    /// PostgreSQL's word.
    pub(super) fn name(self) -> &'static str {
        match self {
            State::Active => "active",
            State::Waiting(TransactionStatus::Idle) => "idle",
            State::Waiting(TransactionStatus::Active) => "idle in transaction",
            State::Waiting(TransactionStatus::Failed) => "idle in transaction (aborted)",
        }
    }
}

impl Activity {
    pub(super) fn new(user: &str, database: &str, settings: &Arc<Mutex<Settings>>) -> Activity {
        let began = Utc::now();
        let now = Now {
            pid: 0,
            client: None,
            state: State::Waiting(TransactionStatus::Idle),
            changed: began,
            query: Arc::from(""),
            query_began: None,
            transaction_began: None,
        };
        let (user, database, settings) = (user.to_owned(), database.to_owned(), Arc::clone(settings));
        Activity { user, database, settings, began, now: Mutex::new(now) }
    }

    /// Names the client that the session serves.
    pub(super) fn serves(&self, pid: i32, client: Option<SocketAddr>) {
        let mut now = self.now.lock();
        (now.pid, now.client) = (pid, client);
    }

    /// A statement begins; `transaction` is when the open block did.
    pub(super) fn begins(&self, query: &Arc<str>, moment: DateTime<Utc>, transaction: Option<DateTime<Utc>>) {
        let mut now = self.now.lock();
        now.state = State::Active;
        now.changed = moment;
        now.query = Arc::clone(query);
        now.query_began = Some(moment);
        now.transaction_began = transaction.or(Some(moment));
    }

    /// The last statement has been answered, and the next is waited for.
    pub(super) fn waits(&self, status: TransactionStatus) {
        let mut now = self.now.lock();
        let state = State::Waiting(status);
        if now.state != state {
            (now.state, now.changed) = (state, Utc::now());
        }
        if status == TransactionStatus::Idle {
            now.transaction_began = None;
        }
    }

    pub(super) fn now(&self) -> Now {
        self.now.lock().clone()
    }
}

/// A moment as a timestamptz.
pub(super) fn instant(moment: Option<DateTime<Utc>>) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(moment.map(|moment| moment.timestamp_micros()), Some("UTC".into()))
}
