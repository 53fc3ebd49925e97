//! Segments of one split merged into one: a k-way merge of sorted streams, which holds one batch of each input and one row group
//! of the output decoded, and the output encoded.
//!
//! Inputs are read with their checksums verified, so that damage is never copied into a segment that looks sound. Columns are
//! matched by id: those an input lacks get what older rows hold there.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{SchemaRef, UInt64Type};
use arrow::row::{RowConverter, Rows, SortField};
use bytes::Bytes;
use event::{EventOptions, TableDefinition};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use tokio::sync::Semaphore;

use crate::Error;
use crate::dedup::Survivors;
use crate::encode::stored::read;
use crate::encode::streamed::SegmentWriter;
use crate::encode::{SORT_ORDER, SegmentPlace, columns_error, sort_columns};
use crate::objects::{Proofs, ProvenSegment, SegmentStore};
use crate::segment::{SegmentMeta, SegmentRef};
use crate::sequence::sequenced_schema;
use crate::sequences::SequenceSet;

/// Rows decoded of an input at once.
const INPUT_ROWS: usize = 4096;
/// Rows handed to the encoder at once.
const OUTPUT_ROWS: usize = 8192;

/// Merges `inputs`, all of one split, into the object of one segment without the rows in `deleted`, and without those that others of
/// their key took the place of; `None` when no row is left. Answers also with the deleted rows there were. Takes a turn of `turns` for
/// each piece it encodes, so that others who encode wait for a piece at most.
///
/// # Errors
/// [`Error::Corrupt`] naming the input that is not what the manifest says.
pub async fn merge_segments(
    store: &SegmentStore,
    table: &TableDefinition,
    inputs: &[SegmentRef],
    deleted: &Arc<SequenceSet>,
    place: SegmentPlace,
    turns: &Semaphore,
) -> Result<(Option<(SegmentMeta, Bytes)>, SequenceSet), Error> {
    let schema = sequenced_schema(table);
    let (proofs, mut cursors) = (Proofs::new(store.clone()), Vec::with_capacity(inputs.len()));
    for input in inputs {
        let object = ObjectReader { object: proofs.segment(Arc::clone(input)) };
        cursors.push(Cursor::open(object, &input.meta, table, &schema, deleted).await?);
    }
    let mut merge = Merge { cursors, pieces: Vec::new(), rows: Vec::new() };
    let mut writer = SegmentWriter::new(table, place);
    let key = table.event().map(EventOptions::sort_key).unwrap_or_default();
    let mut survivors = Survivors::new(&schema, key, table.dedup()).map_err(columns_error)?;
    loop {
        let more = merge.gather().await?;
        {
            let _turn = turns.acquire().await.expect("the semaphore is never closed");
            writer.push(survivors.push(merge.take(&schema)?).map_err(columns_error)?)?;
        }
        if !more {
            survivors.finish().map_or(Ok(()), |last| writer.push(last))?;
            let purged = merge.cursors.iter().fold(SequenceSet::default(), |all, cursor| all.union(&cursor.purged));
            return Ok((writer.finish()?, purged));
        }
        tokio::task::yield_now().await;
    }
}

/// The inputs, and the rows taken of them so far.
struct Merge {
    cursors: Vec<Cursor>,
    /// Batches that rows were taken of.
    pieces: Vec<RecordBatch>,
    /// (piece, row), in order.
    rows: Vec<(usize, usize)>,
}

impl Merge {
    /// Takes the next rows, up to `OUTPUT_ROWS`; whether there are more.
    async fn gather(&mut self) -> Result<bool, Error> {
        while self.rows.len() < OUTPUT_ROWS {
            let Some((which, run)) = self.next_run() else { return Ok(false) };
            let cursor = &mut self.cursors[which];
            let piece = *cursor.piece.get_or_insert_with(|| {
                self.pieces.push(cursor.batch.clone());
                self.pieces.len() - 1
            });
            self.rows.extend(run.clone().map(|row| (piece, row)));
            cursor.at = run.end;
            if cursor.at == cursor.batch.num_rows() {
                cursor.advance().await?;
            }
        }
        Ok(true)
    }

    /// The input with the smallest row, and how many of its rows come before those of all others. Of equal rows the earlier
    /// input's come first.
    fn next_run(&self) -> Option<(usize, Range<usize>)> {
        let mut order: Vec<usize> = Vec::with_capacity(2);
        for (at, _) in self.cursors.iter().enumerate().filter(|(_, cursor)| !cursor.is_done()) {
            let before = |other: &usize| self.cursors[at].front().cmp(&self.cursors[*other].front()) == Ordering::Less;
            let position = order.iter().position(before).unwrap_or(order.len());
            order.insert(position, at);
            order.truncate(2);
        }
        let first = *order.first()?;
        let cursor = &self.cursors[first];
        let last = cursor.batch.num_rows().min(cursor.at + OUTPUT_ROWS - self.rows.len());
        let end = match order.get(1) {
            None => last,
            Some(second) => {
                let bound = self.cursors[*second].front();
                let precedes = |row: &usize| match cursor.keys.row(*row).cmp(&bound) {
                    Ordering::Less => true,
                    Ordering::Equal => first < *second,
                    Ordering::Greater => false,
                };
                (cursor.at + 1..last).find(|row| !precedes(row)).unwrap_or(last)
            }
        };
        Some((first, cursor.at..end))
    }

    /// The rows gathered, as one batch.
    fn take(&mut self, schema: &SchemaRef) -> Result<RecordBatch, Error> {
        let rows = std::mem::take(&mut self.rows);
        let pieces = std::mem::take(&mut self.pieces);
        for cursor in &mut self.cursors {
            cursor.piece = None;
        }
        if rows.is_empty() {
            return Ok(RecordBatch::new_empty(Arc::clone(schema)));
        }
        let pieces: Vec<&RecordBatch> = pieces.iter().collect();
        interleave_record_batch(&pieces, &rows).map_err(columns_error)
    }
}

/// One input being read from front to back.
struct Cursor {
    name: String,
    stream: ParquetRecordBatchStream<ObjectReader>,
    columns: Columns,
    converter: RowConverter,
    batch: RecordBatch,
    /// Of each row of the batch, what it is ordered by.
    keys: Rows,
    at: usize,
    /// The batch's number among the pieces.
    piece: Option<usize>,
    deleted: Arc<SequenceSet>,
    /// Deleted rows that were read.
    purged: SequenceSet,
}

impl Cursor {
    async fn open(
        object: ObjectReader,
        meta: &SegmentMeta,
        table: &TableDefinition,
        schema: &SchemaRef,
        deleted: &Arc<SequenceSet>,
    ) -> Result<Cursor, Error> {
        let builder = ParquetRecordBatchStreamBuilder::new(object).await.map_err(|e| unreadable(&meta.name, e))?;
        let stream = builder.with_batch_size(INPUT_ROWS).build().map_err(|e| unreadable(&meta.name, e))?;
        let fields = sort_columns(table).into_iter().map(|position| schema.field(position).data_type().clone());
        let fields = fields.map(|data_type| SortField::new_with_options(data_type, SORT_ORDER)).collect();
        let converter = RowConverter::new(fields).map_err(columns_error)?;
        let columns = Columns::new(meta, table, schema);
        let batch = RecordBatch::new_empty(Arc::clone(schema));
        let keys = converter.empty_rows(0, 0);
        let name = meta.name.clone();
        let (deleted, purged) = (Arc::clone(deleted), SequenceSet::default());
        let mut cursor = Cursor { name, stream, columns, converter, batch, keys, at: 0, piece: None, deleted, purged };
        cursor.advance().await?;
        Ok(cursor)
    }

    fn is_done(&self) -> bool {
        self.at == self.batch.num_rows()
    }

    fn front(&self) -> arrow::row::Row<'_> {
        self.keys.row(self.at)
    }

    fn without_deleted(&mut self, batch: RecordBatch) -> Result<RecordBatch, Error> {
        if self.deleted.is_empty() {
            return Ok(batch);
        }
        let left = self.deleted.filter(&batch, 0).map_err(columns_error)?;
        if left.num_rows() < batch.num_rows() {
            let numbers = batch.columns().last().expect("rows have numbers").as_primitive::<UInt64Type>();
            let gone = numbers.values().iter().copied().filter(|number| self.deleted.contains(*number));
            self.purged = self.purged.union(&SequenceSet::of(gone.collect()));
        }
        Ok(left)
    }

    /// Goes on to the next batch with rows, if there is one.
    async fn advance(&mut self) -> Result<(), Error> {
        while let Some(batch) = self.stream.next().await {
            let batch = self.columns.adapt(&self.name, &batch.map_err(|e| unreadable(&self.name, e))?)?;
            let batch = self.without_deleted(batch)?;
            if batch.num_rows() == 0 {
                continue;
            }
            let columns: Vec<ArrayRef> = self.columns.sort.iter().map(|at| Arc::clone(batch.column(*at))).collect();
            let keys = self.converter.convert_columns(&columns).map_err(columns_error)?;
            let before = self.batch.num_rows().checked_sub(1).map(|last| self.keys.row(last));
            let first = before.is_none_or(|before| before <= keys.row(0));
            if !first || (1..keys.num_rows()).any(|row| keys.row(row - 1) > keys.row(row)) {
                let reason = "its rows are not in order".to_owned();
                let file = format!("segments/{}", self.name);
                return Err(match self.columns.current {
                    true => Error::Corrupt { file, offset: 0, reason },
                    false => Error::Columns(format!("file \"{file}\" was sorted by another series key")),
                });
            }
            (self.batch, self.keys, self.at, self.piece) = (batch, keys, 0, None);
            return Ok(());
        }
        self.at = self.batch.num_rows();
        Ok(())
    }
}

/// How the columns of an input become the table's.
struct Columns {
    schema: SchemaRef,
    /// The columns of the table.
    columns: Vec<event::Column>,
    /// Of each column of the table, where it lies in the input.
    positions: Vec<Option<usize>>,
    /// Positions in the table of what rows are ordered by.
    sort: Vec<usize>,
    /// Columns of the input, without `__seq`.
    count: usize,
    /// Whether the input was written by this very definition.
    current: bool,
    sequence_base: u64,
}

impl Columns {
    fn new(meta: &SegmentMeta, table: &TableDefinition, schema: &SchemaRef) -> Columns {
        let position = |column: &event::Column| meta.columns.iter().position(|found| found.column == column.id);
        Columns {
            schema: Arc::clone(schema),
            columns: table.columns.clone(),
            positions: table.columns.iter().map(position).collect(),
            sort: sort_columns(table),
            count: meta.columns.len(),
            current: meta.version == table.version,
            sequence_base: meta.sequence_base,
        }
    }

    fn adapt(&self, name: &str, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        let sequences = batch.columns().get(self.count).and_then(|column| column.as_primitive_opt::<UInt64Type>());
        let Some(sequences) = sequences.filter(|_| batch.num_columns() == self.count + 1) else {
            let reason = format!("{} columns expected, {} there", self.count + 1, batch.num_columns());
            return Err(Error::Corrupt { file: format!("segments/{name}"), offset: 0, reason });
        };
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for (position, column) in self.positions.iter().zip(&self.columns) {
            columns.push(match position {
                Some(at) => read(batch.column(*at), column.column_type)?,
                None => column.of_older_rows(batch.num_rows()),
            });
        }
        let numbers = sequences.values().iter().map(|number| number + self.sequence_base);
        columns.push(Arc::new(UInt64Array::from_iter_values(numbers)));
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(columns_error)
    }
}

/// Reads ranges of one input.
struct ObjectReader {
    object: ProvenSegment,
}

impl AsyncFileReader for ObjectReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            let read = self.object.read(std::slice::from_ref(&range)).await;
            let read = read.map_err(|error| ParquetError::External(Box::new(error)))?;
            Ok(read.into_iter().next().expect("one range was asked for"))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let len = self.object.len();
            ParquetMetaDataReader::new().load_and_finish(self, len).await.map(Arc::new)
        }
        .boxed()
    }
}

fn unreadable(name: &str, error: ParquetError) -> Error {
    let other = |error: &dyn fmt::Display| Error::Columns(format!("file \"segments/{name}\": {error}"));
    match error {
        ParquetError::External(source) => match source.downcast::<Error>() {
            Ok(own) => *own,
            Err(source) => other(&source),
        },
        error => other(&error),
    }
}
