//! Running a plan on the query runtime, away from the task that asked.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use event::limits::RESULT_QUEUE_LEN;
use futures::{Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::interrupt::Interrupt;

/// A task that ends with its handle.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs `work` on `runtime` and waits for it. Dropping the wait stops the work at its next yield.
pub(crate) async fn work<T: Send + 'static>(
    runtime: &Handle,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let mut task = Task(runtime.spawn(work));
    (&mut task.0).await.map_err(|error| interrupted(&error))?
}

/// The rows of a running plan. At most [`RESULT_QUEUE_LEN`] batches wait for the reader. Dropping it stops the query.
pub(crate) struct ResultStream {
    schema: SchemaRef,
    batches: mpsc::Receiver<Result<RecordBatch>>,
    /// `None` once its end was seen.
    task: Option<Task<()>>,
    _interrupt: Interrupt,
}

impl ResultStream {
    /// Starts `plan` on `runtime`.
    pub(crate) fn start(runtime: &Handle, plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> ResultStream {
        let schema = plan.schema();
        let interrupt = Interrupt::of(&plan);
        let (sender, batches) = mpsc::channel(RESULT_QUEUE_LEN);
        let task = Task(runtime.spawn(async move {
            let mut stream = match execute_stream(plan, context) {
                Ok(stream) => stream,
                Err(error) => {
                    // Whoever asked may be gone; then nobody misses the answer.
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            };
            while let Some(batch) = stream.next().await {
                let failed = batch.is_err();
                if sender.send(batch).await.is_err() || failed {
                    return;
                }
            }
        }));
        ResultStream { schema, batches, task: Some(task), _interrupt: interrupt }
    }

    /// The columns of the rows.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// How the task ended: an error only when it did not reach its own end.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        let Some(task) = &mut self.task else { return Poll::Ready(None) };
        let end = std::task::ready!(Pin::new(&mut task.0).poll(context));
        self.task = None;
        Poll::Ready(end.err().map(|error| Err(interrupted(&error))))
    }
}

impl Stream for ResultStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match std::task::ready!(self.batches.poll_recv(context)) {
            Some(batch) => Poll::Ready(Some(batch)),
            None => self.poll_end(context),
        }
    }
}

fn interrupted(error: &tokio::task::JoinError) -> DataFusionError {
    if error.is_panic() {
        DataFusionError::Internal("the query ended in a panic".to_owned())
    } else {
        DataFusionError::Execution("the query was stopped because the node is shutting down".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    struct Flag(Arc<AtomicBool>);

    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn dropping_the_wait_stops_the_work() {
        let stopped = Arc::new(AtomicBool::new(false));
        let flag = Flag(Arc::clone(&stopped));
        let runtime = Handle::current();
        let endless = work(&runtime, async move {
            let _flag = flag;
            std::future::pending::<Result<()>>().await
        });
        assert!(tokio::time::timeout(Duration::from_millis(10), endless).await.is_err());
        while !stopped.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    }

    /// The caller's runtime only waits; the plan runs on the other one, until nobody reads it any more.
    #[tokio::test]
    async fn a_result_nobody_reads_stops_its_query() {
        let other = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let context = datafusion::prelude::SessionContext::new();
        let endless = "SELECT value FROM generate_series(1, 9000000000000000000) WHERE value % 3 = 0";
        let plan = context.sql(endless).await.unwrap().create_physical_plan().await.unwrap();
        let mut rows = ResultStream::start(other.handle(), plan, context.task_ctx());
        assert!(rows.next().await.unwrap().unwrap().num_rows() > 0);
        assert!(other.metrics().num_alive_tasks() > 0);
        drop(rows);
        while other.metrics().num_alive_tasks() > 0 {
            tokio::task::yield_now().await;
        }
        other.shutdown_background();
    }

    async fn explode() -> Result<()> {
        panic!("boom")
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error() {
        let error = work(&Handle::current(), explode()).await.unwrap_err();
        assert!(matches!(error, DataFusionError::Internal(_)));
    }
}
