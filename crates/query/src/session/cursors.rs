//! Cursors: DECLARE, FETCH, MOVE, CLOSE.
//!
//! A cursor is a query that runs as far as its rows are fetched; it ends with its transaction. SCROLL keeps the rows that were fetched, and
//! WITH HOLD reads the rest before the transaction commits; both take the memory of queries, so that a cursor whose rows do not fit is
//! refused like a query that needs too much.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::sql::sqlparser::ast::{CloseCursor, Declare, FetchDirection, ValueWithSpan};
use event::limits::CURSORS_MAX;
use futures::{Stream, StreamExt, stream};
use tokio::sync::Mutex;

use super::ddl::folded;
use super::plan::{OneTime, as_query};
use super::report::{self, Known};
use super::{Block, Outcome, Rows, Session, Statement};
use crate::error::{Condition, Error};

type Batches = Pin<Box<dyn Stream<Item = Result<RecordBatch, Error>> + Send>>;

/// An open cursor.
pub(super) struct Cursor {
    columns: SchemaRef,
    source: Arc<Mutex<Source>>,
    hold: Hold,
    /// Savepoints that were open when it was declared: it goes with those that came after.
    savepoints: usize,
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor").field("hold", &self.hold).finish_non_exhaustive()
    }
}

/// What becomes of a cursor when its transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// It ends.
    No,
    /// WITH HOLD; its rows are still to be read.
    Asked,
    /// Its rows are read; it stays if the transaction commits.
    Ready,
    /// It outlived its transaction.
    Held,
}

/// Where a cursor's rows come from. Rows are numbered from 1.
struct Source {
    /// The rows that were not read yet; `None` once all were.
    batches: Option<Batches>,
    /// Rows that were read, with the bytes that were taken for them.
    kept: VecDeque<(RecordBatch, usize)>,
    /// Rows before the first that is kept.
    gone: usize,
    /// Rows read so far.
    read: usize,
    /// The current row: 0 before the first, one more than there are after the last.
    position: usize,
    /// Whether rows stay when they were fetched.
    scroll: bool,
    memory: MemoryReservation,
}

/// Where FETCH goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// So many rows forward, or backward when it is negative.
    By(i64),
    /// To the end, or to the beginning.
    All { forward: bool },
    /// To the row of that number, from the end when it is negative.
    To(i64),
    /// To the row so far from the current one.
    Over(i64),
}

impl Step {
    fn of(direction: &FetchDirection) -> Result<Step, Error> {
        let number = |limit: &ValueWithSpan| {
            limit
                .to_string()
                .parse::<i64>()
                .map_err(|_| Error::report(Condition::SyntaxError, format!("syntax error at or near \"{limit}\"")))
        };
        let counted = |limit: &Option<ValueWithSpan>| limit.as_ref().map_or(Ok(1), number);
        Ok(match direction {
            FetchDirection::Next => Step::By(1),
            FetchDirection::Prior => Step::By(-1),
            FetchDirection::First => Step::To(1),
            FetchDirection::Last => Step::To(-1),
            FetchDirection::Count { limit } => Step::By(number(limit)?),
            FetchDirection::Forward { limit } => Step::By(counted(limit)?),
            FetchDirection::Backward { limit } => Step::By(counted(limit)?.saturating_neg()),
            FetchDirection::All | FetchDirection::ForwardAll => Step::All { forward: true },
            FetchDirection::BackwardAll => Step::All { forward: false },
            FetchDirection::Absolute { limit } => Step::To(number(limit)?),
            FetchDirection::Relative { limit } => Step::Over(number(limit)?),
        })
    }
}

impl Source {
    /// Reads until row `number` is there; whether it is.
    async fn read_to(&mut self, number: usize, keep: bool) -> Result<bool, Error> {
        while self.read < number {
            let Some(batches) = &mut self.batches else { return Ok(false) };
            match batches.next().await {
                Some(batch) => self.keep(batch?, keep)?,
                None => self.batches = None,
            }
        }
        Ok(true)
    }

    fn keep(&mut self, batch: RecordBatch, charged: bool) -> Result<(), Error> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        // What is only passed on is bounded by the size of a batch.
        let bytes = if charged { batch.get_array_memory_size() } else { 0 };
        self.memory.try_grow(bytes).map_err(worded)?;
        self.read += batch.num_rows();
        self.kept.push_back((batch, bytes));
        Ok(())
    }

    /// At most `rows` rows behind the current one, as far as they lie in one batch; `None` at the end.
    async fn next(&mut self, rows: usize) -> Result<Option<RecordBatch>, Error> {
        if !self.read_to(self.position + 1, self.scroll).await? {
            self.position = self.read + 1;
            return Ok(None);
        }
        let mut before = self.gone;
        for (batch, _) in &self.kept {
            let at = self.position - before;
            if at < batch.num_rows() {
                let slice = batch.slice(at, rows.min(batch.num_rows() - at));
                self.position += slice.num_rows();
                self.forget();
                return Ok(Some(slice));
            }
            before += batch.num_rows();
        }
        Err(Error::report(Condition::Internal, "a row of a cursor is gone"))
    }

    /// Lets go of rows that will not be fetched again.
    fn forget(&mut self) {
        while !self.scroll
            && let Some((first, bytes)) = self.kept.front()
            && self.gone + first.num_rows() <= self.position
        {
            self.gone += first.num_rows();
            self.memory.shrink(*bytes);
            self.kept.pop_front();
        }
    }

    /// The rows with these numbers, the last one first.
    fn reversed(&self, first: usize, last: usize) -> Result<Vec<RecordBatch>, Error> {
        let mut end = self.read;
        let mut found = Vec::new();
        for (batch, _) in self.kept.iter().rev() {
            let before = end - batch.num_rows();
            let (from, to) = (first.max(before + 1), last.min(end));
            if from <= to {
                let rows = (from..=to).rev().map(|number| (number - before - 1) as u32);
                let rows = UInt32Array::from_iter_values(rows);
                found.push(take_record_batch(batch, &rows).map_err(|error| worded(error.into()))?);
            }
            end = before;
        }
        Ok(found)
    }

    /// Refuses to go back where rows that were fetched are gone.
    fn check_scroll(&self) -> Result<(), Error> {
        if self.scroll {
            return Ok(());
        }
        Err(Error::hinted(
            Condition::ObjectNotInPrerequisiteState,
            "cursor can only scan forward",
            "Declare it with SCROLL option to enable backward scan.",
        ))
    }

    /// `rows` rows back, or all of them.
    fn back(&mut self, rows: usize) -> Result<Vec<RecordBatch>, Error> {
        self.check_scroll()?;
        let last = self.position.saturating_sub(1).min(self.read);
        let first = self.position.saturating_sub(rows);
        self.position = first;
        self.reversed(first.max(1), last)
    }

    /// Goes to the row of that number, and gives it if it is there.
    async fn go_to(&mut self, number: i64) -> Result<Vec<RecordBatch>, Error> {
        let number = match usize::try_from(number) {
            Ok(number) => number,
            Err(_) => {
                self.check_scroll()?;
                self.read_to(usize::MAX, true).await?;
                let from_end = usize::try_from(number.unsigned_abs()).unwrap_or(usize::MAX);
                (self.read + 1).saturating_sub(from_end)
            }
        };
        if number <= self.position {
            self.check_scroll()?;
            self.position = number;
            return self.reversed(number.max(1), number);
        }
        while self.position + 1 < number {
            if self.next(number - self.position - 1).await?.is_none() {
                return Ok(Vec::new());
            }
        }
        Ok(self.next(1).await?.into_iter().collect())
    }

    /// Rows that are not fetched one after the other.
    async fn jump(&mut self, step: Step) -> Result<Vec<RecordBatch>, Error> {
        match step {
            Step::By(0) | Step::Over(0) => {
                self.check_scroll()?;
                self.reversed(self.position.max(1), self.position)
            }
            Step::By(rows) => self.back(usize::try_from(rows.unsigned_abs()).unwrap_or(usize::MAX)),
            Step::All { .. } => self.back(usize::MAX),
            Step::To(number) => self.go_to(number).await,
            Step::Over(distance) => {
                let position = i64::try_from(self.position).unwrap_or(i64::MAX);
                self.go_to(position.saturating_add(distance).max(0)).await
            }
        }
    }
}

fn worded(error: DataFusionError) -> Error {
    report::report(error, "", 0, &Known::default())
}

/// How many rows a step passes at most when it goes forward row by row; `None` for others.
fn forward(step: Step) -> Option<usize> {
    match step {
        Step::By(rows) if rows > 0 => usize::try_from(rows).ok(),
        Step::All { forward: true } => Some(usize::MAX),
        _ => None,
    }
}

/// The next `rows` rows of a cursor, read as they are sent.
fn fetched(source: Arc<Mutex<Source>>, rows: usize) -> Batches {
    Box::pin(stream::try_unfold((source, rows), |(source, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let next = source.lock().await.next(left).await?;
        Ok(next.map(|batch| {
            let left = left - batch.num_rows();
            (batch, (source, left))
        }))
    }))
}

impl Session {
    /// The columns of an open cursor, which clients describe as a portal.
    pub fn cursor_columns(&self, name: &str) -> Option<SchemaRef> {
        self.cursors.get(name).map(|cursor| Arc::clone(&cursor.columns))
    }

    /// DECLARE.
    pub(super) async fn declare(
        &mut self,
        statement: &Statement,
        declare: &Declare,
        parameters: &[ScalarValue],
    ) -> Result<Outcome, Error> {
        let (Some(name), Some(query)) = (declare.names.first().map(folded), &declare.for_query) else {
            return Err(Error::report(Condition::SyntaxError, "a cursor has a name and a query"));
        };
        let hold = declare.hold == Some(true);
        if self.block == Block::None && !hold {
            let message = "DECLARE CURSOR can only be used in transaction blocks";
            return Err(Error::report(Condition::NoActiveTransaction, message));
        }
        if declare.binary == Some(true) {
            let hint = "Clients say themselves, when they fetch rows, whether these are binary.";
            return Err(Error::hinted(Condition::FeatureNotSupported, "BINARY cursors are not supported", hint));
        }
        if self.cursors.contains_key(&name) {
            return Err(Error::report(Condition::DuplicateCursor, format!("cursor \"{name}\" already exists")));
        }
        if self.cursors.len() >= CURSORS_MAX {
            let message = format!("a session can have at most {CURSORS_MAX} open cursors");
            return Err(Error::hinted(Condition::LimitExceeded, message, "CLOSE those that are not needed."));
        }
        let rows = Box::pin(self.query(statement, &as_query(query), parameters, &OneTime::default())).await?;
        let pool = &self.base.runtime_env().memory_pool;
        let source = Source {
            batches: Some(rows.batches),
            kept: VecDeque::new(),
            gone: 0,
            read: 0,
            position: 0,
            scroll: declare.scroll == Some(true),
            memory: MemoryConsumer::new(format!("cursor {name}")).register(pool),
        };
        let cursor = Cursor {
            columns: rows.columns,
            source: Arc::new(Mutex::new(source)),
            hold: if hold { Hold::Asked } else { Hold::No },
            savepoints: self.savepoints.len(),
        };
        self.cursors.insert(name.clone(), cursor);
        if self.block == Block::None {
            let held = self.hold_cursors().await;
            self.end_cursors(held.is_ok());
            held?;
        }
        Ok(Outcome::Done("DECLARE CURSOR".to_owned()))
    }

    /// FETCH, and MOVE, which counts the rows instead of giving them.
    pub(super) async fn fetch(
        &mut self,
        name: &str,
        direction: &FetchDirection,
        moves: bool,
    ) -> Result<Outcome, Error> {
        let step = Step::of(direction)?;
        let cursor = self.cursors.get(name).ok_or_else(|| no_cursor(name))?;
        let (columns, source) = (Arc::clone(&cursor.columns), Arc::clone(&cursor.source));
        let mut batches: Batches = match forward(step) {
            Some(rows) => fetched(source, rows),
            None => {
                let found = source.lock().await.jump(step).await?;
                Box::pin(stream::iter(found.into_iter().map(Ok)))
            }
        };
        if !moves {
            return Ok(Outcome::Rows(Rows { columns, batches, tag: "FETCH" }));
        }
        let mut rows = 0;
        while let Some(batch) = batches.next().await {
            rows += batch?.num_rows();
        }
        Ok(Outcome::Done(format!("MOVE {rows}")))
    }

    /// CLOSE.
    pub(super) fn close_cursor(&mut self, cursor: &CloseCursor) -> Result<Outcome, Error> {
        match cursor {
            CloseCursor::All => {
                self.cursors.clear();
                Ok(Outcome::Done("CLOSE CURSOR ALL".to_owned()))
            }
            CloseCursor::Specific { name } => {
                let name = folded(name);
                self.cursors.remove(&name).ok_or_else(|| no_cursor(&name))?;
                Ok(Outcome::Done("CLOSE CURSOR".to_owned()))
            }
        }
    }

    /// Before a commit: reads what is left of the cursors WITH HOLD.
    ///
    /// # Errors
    /// 53200 when the rows do not fit; what reading them says.
    pub(super) async fn hold_cursors(&mut self) -> Result<(), Error> {
        for cursor in self.cursors.values_mut().filter(|cursor| cursor.hold == Hold::Asked) {
            cursor.source.lock().await.read_to(usize::MAX, true).await?;
            cursor.hold = Hold::Ready;
        }
        Ok(())
    }

    /// When a transaction ends.
    pub(super) fn end_cursors(&mut self, committed: bool) {
        for cursor in self.cursors.values_mut().filter(|cursor| committed && cursor.hold == Hold::Ready) {
            cursor.hold = Hold::Held;
        }
        self.cursors.retain(|_, cursor| cursor.hold == Hold::Held);
    }

    /// ROLLBACK TO the savepoint that `savepoints` were open before: cursors that were declared since go.
    pub(super) fn roll_back_cursors(&mut self, savepoints: usize) {
        self.cursors.retain(|_, cursor| cursor.hold == Hold::Held || cursor.savepoints <= savepoints);
    }

    /// RELEASE of that savepoint: what was declared since belongs to what was before.
    pub(super) fn release_cursors(&mut self, savepoints: usize) {
        for cursor in self.cursors.values_mut() {
            cursor.savepoints = cursor.savepoints.min(savepoints);
        }
    }
}

fn no_cursor(name: &str) -> Error {
    Error::report(Condition::UndefinedCursor, format!("cursor \"{name}\" does not exist"))
}
