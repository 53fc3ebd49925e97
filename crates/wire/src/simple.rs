//! The simple protocol: one Query message, several statements, one implicit transaction.

use futures::StreamExt;
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse};
use query::{Outcome, Prepared, Rows, Statement};

use crate::connection::{Connection, End};
use crate::guard::{Guard, Stopped};
use crate::rows::{Encoder, Format, description};

impl Connection<'_> {
    /// Answers a Query message.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<(), End> {
        self.statements.remove("");
        self.portals.remove("");
        let parsed = self.guard().run(self.session.parse(sql)).await;
        match parsed {
            Ok(statements) => self.run_all(&statements).await?,
            Err(stopped) => self.report(stopped)?,
        }
        self.ready();
        Ok(())
    }

    async fn run_all(&mut self, statements: &[Statement]) -> Result<(), End> {
        for statement in statements {
            if statements.len() > 1 {
                self.session.begin_implicit();
            }
            if let Err(stopped) = self.run(statement).await {
                self.report(stopped)?;
                return self.end_implicit(false).await;
            }
        }
        self.end_implicit(true).await
    }

    async fn run(&mut self, statement: &Statement) -> Result<(), Stopped> {
        self.door.metrics.statements.inc();
        let _timed = self.door.metrics.statement_seconds.start_timer();
        let guard = self.guard();
        let prepared = match Prepared::as_written(statement) {
            Some(prepared) => prepared,
            None => guard.run(self.session.prepare(statement, &[])).await?,
        };
        let outcome = guard.run(self.session.execute(&prepared, Vec::new())).await?;
        match outcome {
            Outcome::Rows(rows) => self.send_rows(&guard, rows).await,
            other => self.send_other(&guard, other).await,
        }
    }

    async fn send_rows(&mut self, guard: &Guard, mut rows: Rows) -> Result<(), Stopped> {
        let formats = vec![Format::Text; rows.columns.fields().len()];
        let described = description(&rows.columns, &formats)?;
        self.socket.put(&described);
        let mut sent = 0;
        while let Some(batch) = guard.run(next_batch(&mut rows)).await? {
            let mut encoder = Encoder::new(&batch, self.session.zone())?;
            for row in 0..encoder.rows() {
                self.send_row(guard, &mut encoder, row, &formats).await?;
            }
            sent += encoder.rows();
        }
        self.complete_rows(rows.tag, sent);
        Ok(())
    }

    /// Queues a row, and sends what is queued when it is enough.
    pub(crate) async fn send_row(
        &mut self,
        guard: &Guard,
        encoder: &mut Encoder,
        row: usize,
        formats: &[Format],
    ) -> Result<(), Stopped> {
        encoder.data_row(self.socket.output(), row, formats);
        self.door.metrics.rows_sent.inc();
        if self.socket.is_full() {
            guard.run(self.socket.flush()).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// CommandComplete after rows.
    pub(crate) fn complete_rows(&mut self, tag: &str, sent: usize) {
        self.complete(match tag {
            "SELECT" | "UPDATE" | "DELETE" => format!("{tag} {sent}"),
            "INSERT" => format!("INSERT 0 {sent}"),
            _ => tag.to_owned(),
        });
    }

    /// CommandComplete, after everything the statement has to say.
    pub(crate) fn complete(&mut self, tag: String) {
        self.tell_changes();
        self.socket.put(&CommandComplete::new(tag));
    }

    /// What both protocols answer alike.
    pub(crate) async fn send_other(&mut self, guard: &Guard, outcome: Outcome) -> Result<(), Stopped> {
        match outcome {
            Outcome::Rows(_) => unreachable!("each protocol sends rows in its own way"),
            Outcome::Done(tag) => self.complete(tag),
            Outcome::Empty => self.socket.put(&EmptyQueryResponse::new()),
            Outcome::CopyIn(copy) => self.copy_in(guard, copy).await?,
            Outcome::CopyOut(copy) => self.copy_out(guard, copy).await?,
        }
        Ok(())
    }
}

/// The next batch of a result.
pub(crate) async fn next_batch(rows: &mut Rows) -> Result<Option<arrow::record_batch::RecordBatch>, query::Error> {
    rows.batches.next().await.transpose()
}
