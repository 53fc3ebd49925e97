//! What can interrupt a statement: CancelRequest, `statement_timeout`, the end of the process, a client that went away.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::cancel::Running;
use crate::error::Failure;
use crate::socket::{Lost, Presence};

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
            () = self.presence.absence() => Stopped::Gone,
        };
        if self.committing.load(Ordering::SeqCst) {
            return work.await.map_err(Into::into);
        }
        Err(interrupted)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.running.end();
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::oneshot;

    use super::*;
    use crate::cancel::Cancellations;

    /// A guard over a statement whose client is there, and what interrupts it.
    struct World {
        client: TcpStream,
        cancellations: Cancellations,
        key: crate::cancel::Key,
        kill: CancellationToken,
        committing: Arc<AtomicBool>,
        guard: Guard,
    }

    async fn world(timeout_ms: u64) -> World {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let cancellations = Cancellations::default();
        let (key, running) = cancellations.enter();
        let (kill, committing) = (CancellationToken::new(), Arc::<AtomicBool>::default());
        let presence = Presence::of(Arc::new(stream));
        let guard = Guard::begin(running, presence, kill.clone(), timeout_ms, committing.clone());
        World { client, cancellations, key, kill, committing, guard }
    }

    /// The message of what stopped a statement that would not have ended by itself.
    async fn stopped(guard: &Guard) -> String {
        let endless = std::future::pending::<Result<(), Failure>>();
        match guard.run(endless).await {
            Err(Stopped::Failed(failure)) => format!("{failure:?}"),
            Err(Stopped::Gone) => "gone".to_owned(),
            Ok(()) => unreachable!("it does not end"),
        }
    }

    #[tokio::test]
    async fn each_interruption_is_told_as_what_it_is() {
        let w = world(0).await;
        w.cancellations.cancel(w.key);
        assert!(stopped(&w.guard).await.contains("due to user request"));
        let w = world(0).await;
        w.kill.cancel();
        assert!(stopped(&w.guard).await.contains("administrator command"));
        let w = world(1).await;
        assert!(stopped(&w.guard).await.contains("due to statement timeout"));
        let w = world(0).await;
        drop(w.client);
        assert_eq!(stopped(&w.guard).await, "gone");
    }

    #[tokio::test]
    async fn a_commit_under_way_is_never_called_interrupted() {
        for interrupt in [
            (|w: &World| w.cancellations.cancel(w.key)) as fn(&World),
            |w| w.kill.cancel(),
            // Its time has passed before it is asked for the first time.
            |_| std::thread::sleep(Duration::from_millis(2)),
        ] {
            let w = world(1).await;
            let (decide, decided) = oneshot::channel();
            w.committing.store(true, Ordering::SeqCst);
            interrupt(&w);
            let commit = w.guard.run(async { decided.await.map_err(|_| Failure::new("XX000", "nobody decided")) });
            let mut commit = pin!(commit);
            assert!(futures::poll!(&mut commit).is_pending(), "it waits for the outcome");
            decide.send("committed").unwrap();
            assert!(matches!(commit.await, Ok("committed")));
        }
    }
}
