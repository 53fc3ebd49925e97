//! The thread that writes and syncs the log.

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A thread of its own for work that comes one after the other, all day. The runtime's pool would wake another of its threads each time, the one
/// that has slept the longest and whose caches are the coldest. It starts with the first work, and ends when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Syncer(OnceLock<Sender<Job>>);

impl Syncer {
    /// Runs blocking work after all that was asked for before.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (answer, answered) = oneshot::channel();
        // Who no longer waits need not be told.
        let job: Job = Box::new(move || drop(answer.send(work())));
        let ended = || io::Error::other("the thread that syncs has ended");
        self.jobs()?.send(job).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    fn jobs(&self) -> io::Result<&Sender<Job>> {
        if let Some(jobs) = self.0.get() {
            return Ok(jobs);
        }
        let (jobs, work) = channel::<Job>();
        thread::Builder::new().name("log".to_owned()).spawn(move || work.into_iter().for_each(|job| job()))?;
        // Of two that are started at once, one ends at once.
        Ok(self.0.get_or_init(|| jobs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_works_in_order_on_one_thread_and_tells_of_failures() {
        let syncer = Syncer::default();
        let thread = || syncer.run(|| Ok((thread::current().id(), thread::current().name() == Some("log"))));
        let (first, is_named) = thread().await.unwrap();
        assert!(is_named && first == thread().await.unwrap().0 && first != thread::current().id());
        let failed = syncer.run::<()>(|| Err(io::Error::other("no"))).await.unwrap_err();
        assert_eq!(failed.to_string(), "no");
        let gone = syncer.run::<()>(|| panic!("the thread ends with this")).await.unwrap_err();
        assert_eq!(gone.to_string(), "the thread that syncs has ended");
        assert!(syncer.run(|| Ok(())).await.is_err(), "and is not started again");
    }
}
