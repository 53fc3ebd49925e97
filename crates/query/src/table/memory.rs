//! Rows in memory as a stream: projected, small batches put together, large ones cut.

use std::collections::VecDeque;
use std::sync::Arc;
use std::vec;

use arrow::compute::BatchCoalescer;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::error::Result;

/// Batches of about `batch_rows` rows with the columns at `projection`.
///
/// A memtable holds one batch per statement, often of a single row; operators above are made for thousands.
pub(crate) struct MemoryBatches {
    batches: vec::IntoIter<RecordBatch>,
    schema: SchemaRef,
    projection: Vec<usize>,
    batch_rows: usize,
    /// Pieces of the last large batch, given out as they are.
    pieces: VecDeque<RecordBatch>,
    /// Gathers small batches; `None` when no column is read, since only row counts are left then.
    small: Option<BatchCoalescer>,
}

impl MemoryBatches {
    /// `schema` is that of the projected columns.
    pub(crate) fn new(batches: Vec<RecordBatch>, schema: SchemaRef, projection: Vec<usize>, batch_rows: usize) -> Self {
        let batch_rows = batch_rows.max(1);
        let small = (!projection.is_empty()).then(|| BatchCoalescer::new(Arc::clone(&schema), batch_rows));
        MemoryBatches { batches: batches.into_iter(), schema, projection, batch_rows, pieces: VecDeque::new(), small }
    }

    fn project(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.projection.iter().map(|&position| Arc::clone(batch.column(position))).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    /// Takes a batch in: large ones become pieces, small ones are gathered.
    fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        let batch = self.project(batch)?;
        match &mut self.small {
            Some(small) if batch.num_rows() <= self.batch_rows / 2 => small.push_batch(batch)?,
            _ => {
                let pieces = (0..batch.num_rows())
                    .step_by(self.batch_rows)
                    .map(|start| batch.slice(start, self.batch_rows.min(batch.num_rows() - start)));
                self.pieces.extend(pieces);
            }
        }
        Ok(())
    }

    fn try_next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Ok(Some(piece));
            }
            if let Some(gathered) = self.small.as_mut().and_then(BatchCoalescer::next_completed_batch) {
                return Ok(Some(gathered));
            }
            match self.batches.next() {
                Some(batch) => self.take(&batch)?,
                None => return self.last(),
            }
        }
    }

    fn last(&mut self) -> Result<Option<RecordBatch>> {
        let Some(mut small) = self.small.take() else { return Ok(None) };
        small.finish_buffered_batch()?;
        Ok(small.next_completed_batch())
    }
}

impl Iterator for MemoryBatches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.try_next().transpose()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn batch(values: std::ops::Range<i64>) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, false)]));
        RecordBatch::try_new(schema, vec![Arc::new(values.collect::<Int64Array>())]).unwrap()
    }

    fn sizes(batches: Vec<RecordBatch>, batch_rows: usize) -> Vec<usize> {
        let schema = batch(0..0).schema();
        MemoryBatches::new(batches, schema, vec![0], batch_rows).map(|b| b.unwrap().num_rows()).collect()
    }

    #[test]
    fn small_batches_are_put_together_and_large_ones_cut() {
        assert_eq!(sizes((0..10).map(|i| batch(i..i + 1)).collect(), 4), vec![4, 4, 2]);
        assert_eq!(sizes(vec![batch(0..10)], 4), vec![4, 4, 2]);
        assert_eq!(sizes(vec![batch(0..1), batch(0..9), batch(0..1)], 4), vec![4, 4, 1, 2]);
        assert_eq!(sizes(vec![], 4), Vec::<usize>::new());
    }

    #[test]
    fn without_columns_the_rows_are_still_counted() {
        let schema = Arc::new(Schema::empty());
        let rows: usize =
            MemoryBatches::new(vec![batch(0..3), batch(0..9)], schema, vec![], 4).map(|b| b.unwrap().num_rows()).sum();
        assert_eq!(rows, 12);
    }
}
