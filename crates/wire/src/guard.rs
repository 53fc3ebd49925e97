//! What can interrupt a statement: CancelRequest, `statement_timeout`, the end of the process, a client that went away.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::cancel::Running;
use crate::error::Failure;
use crate::socket::{Lost, Presence};

/// How often a running statement looks whether its client is still there.
const PRESENCE_INTERVAL: Duration = Duration::from_millis(100);

/// Watches over the statement of one connection.
#[derive(Debug)]
pub(crate) struct Guard {
    running: Arc<Running>,
    presence: Presence,
    /// Fires when the process has no more patience with running statements.
    kill: CancellationToken,
    cancel: CancellationToken,
    deadline: Option<Instant>,
    /// True from before a commit is proposed until its outcome is known.
    committing: Arc<AtomicBool>,
}

/// Why a statement did not come to its end.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// It failed, or was interrupted; the client is told.
    Failed(Failure),
    /// There is nobody to tell.
    Gone,
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Stopped::Failed(failure)
    }
}

impl From<query::Error> for Stopped {
    fn from(error: query::Error) -> Self {
        Stopped::Failed(error.into())
    }
}

impl From<std::io::Error> for Stopped {
    fn from(_: std::io::Error) -> Self {
        Stopped::Gone
    }
}

impl From<Lost> for Stopped {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Gone => Stopped::Gone,
            Lost::Broken(failure) | Lost::Unreadable { failure, .. } => Stopped::Failed(failure),
        }
    }
}

impl Guard {
    /// Begins a statement that may take `timeout_ms`, or forever when that is 0.
    pub(crate) fn begin(
        running: Arc<Running>,
        presence: Presence,
        kill: CancellationToken,
        timeout_ms: u64,
        committing: Arc<AtomicBool>,
    ) -> Guard {
        let cancel = running.begin();
        let deadline = (timeout_ms > 0).then(|| Instant::now() + Duration::from_millis(timeout_ms));
        Guard { running, presence, kill, cancel, deadline, committing }
    }

    /// Runs a part of the statement to its end, or drops it when the statement is interrupted. A commit under way is not
    /// interrupted: it may be decided already, and nobody may be told that it failed.
    pub(crate) async fn run<T, E: Into<Stopped>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Stopped> {
        let timeout = async {
            match self.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let mut work = pin!(work);
        let interrupted = tokio::select! {
            biased;
            () = self.kill.cancelled() => Failure::shutdown().into(),
            () = self.cancel.cancelled() => Failure::cancelled().into(),
            () = timeout => Failure::timed_out().into(),
            done = work.as_mut() => return done.map_err(Into::into),
            () = self.absence() => Stopped::Gone,
        };
        if self.committing.load(Ordering::SeqCst) {
            return work.await.map_err(Into::into);
        }
        Err(interrupted)
    }

    /// Completes once the client has gone away.
    async fn absence(&self) {
        let mut ticks = interval(PRESENCE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once; most statements end before the second.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            if self.presence.is_gone() {
                return;
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.running.end();
    }
}
