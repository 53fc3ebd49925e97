//! A segment written from rows that come in order, piece by piece, so that not all of them are in memory at once.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use bytes::Bytes;
use event::TableDefinition;
use event::limits::ROW_GROUP_ROWS;
use parquet::arrow::ArrowWriter;

use super::stored::stored;
use super::{SegmentPlace, columns_error, parquet_error, properties, time_range};
use crate::Error;
use crate::segment::SegmentMeta;
use crate::sequence::sequenced_schema;
use crate::statistics::{ColumnTotals, column_statistics};

/// Writes one segment. Holds the encoded bytes, and the rows of one row group.
pub(crate) struct SegmentWriter<'a> {
    table: &'a TableDefinition,
    place: SegmentPlace,
    /// None until enough rows came to choose encodings by.
    writer: Option<ArrowWriter<Vec<u8>>>,
    sample: Vec<RecordBatch>,
    rows: u64,
    times: Option<(i64, i64)>,
    totals: Vec<ColumnTotals>,
}

impl<'a> SegmentWriter<'a> {
    /// A segment without rows.
    pub(crate) fn new(table: &'a TableDefinition, place: SegmentPlace) -> Self {
        let totals = table.columns.iter().map(ColumnTotals::new).collect();
        Self { table, place, writer: None, sample: Vec::new(), rows: 0, times: None, totals }
    }

    /// Adds rows (the table's columns and `__seq`) that come after all before in the order of segments.
    ///
    /// # Errors
    /// [`Error::Columns`] when they are not the table's, or when one lies outside the split.
    pub(crate) fn push(&mut self, rows: RecordBatch) -> Result<(), Error> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        if let Some((min, max)) = time_range(self.table, &rows, self.place.split)? {
            let (before_min, before_max) = self.times.unwrap_or((min, max));
            self.times = Some((min.min(before_min), max.max(before_max)));
        }
        for ((column, values), totals) in self.table.columns.iter().zip(rows.columns()).zip(&mut self.totals) {
            totals.add(column_statistics(column, values)?, rows.num_rows() as u64);
        }
        self.rows += rows.num_rows() as u64;
        match &mut self.writer {
            Some(writer) => writer.write(&stored(&rows)?).map_err(parquet_error),
            None => {
                self.sample.push(rows);
                if self.rows >= ROW_GROUP_ROWS as u64 { self.begin().map(drop) } else { Ok(()) }
            }
        }
    }

    fn begin(&mut self) -> Result<&mut ArrowWriter<Vec<u8>>, Error> {
        let schema = sequenced_schema(self.table);
        let sample = concat_batches(&schema, &std::mem::take(&mut self.sample)).map_err(columns_error)?;
        let sample = stored(&sample)?;
        let properties = properties(self.table, &sample, &self.place)?;
        let mut writer = ArrowWriter::try_new(Vec::new(), sample.schema(), Some(properties)).map_err(parquet_error)?;
        writer.write(&sample).map_err(parquet_error)?;
        Ok(self.writer.insert(writer))
    }

    /// The object and what the manifest says of it; `None` when no row came.
    pub(crate) fn finish(mut self) -> Result<Option<(SegmentMeta, Bytes)>, Error> {
        if self.rows == 0 {
            return Ok(None);
        }
        if self.writer.is_none() {
            self.begin()?;
        }
        let writer = self.writer.take().expect("there is one since rows came");
        let bytes: Bytes = writer.into_inner().map_err(parquet_error)?.into();
        let meta = SegmentMeta {
            name: self.place.name,
            table: self.table.id,
            shard: self.place.shard,
            split: self.place.split,
            version: self.table.version,
            rows: self.rows,
            bytes: bytes.len() as u64,
            checksum: crc32c::crc32c(&bytes),
            time_min_us: self.times.map(|(min, _)| min),
            time_max_us: self.times.map(|(_, max)| max),
            sequence_base: 0,
            distinct: !self.table.dedup().is_none(),
            columns: self.totals.into_iter().map(ColumnTotals::finish).collect(),
        };
        Ok(Some((meta, bytes)))
    }
}
