//! Reads segments some of whose rows are deleted: with their sequence numbers, by which the deleted ones are left out.
//!
//! The same way gives the numbers themselves to statements that delete.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, SchemaRef, UInt32Type, UInt64Type};
use datafusion::common::{Result, ScalarValue, internal_datafusion_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchemaBuilder;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use event::TableDefinition;
use futures::StreamExt;
use futures::stream::BoxStream;
use storage::segment::SegmentRef;
use storage::sequence::sequenced_schema;

use super::unit::HoledSegment;

/// Tells the segments of a scan apart.
const SEGMENT_COLUMN: &str = "__segment";

/// The segments of a scan that may have deleted rows.
#[derive(Debug)]
pub(crate) struct HoledFiles {
    segments: Arc<[HoledSegment]>,
    files: Arc<DataSourceExec>,
    /// The columns it gives.
    schema: SchemaRef,
    /// Where `__seq` is among them, when it is asked for.
    sequence: Option<usize>,
}

impl HoledFiles {
    /// Prepares to read `groups`, one for each partition. `open` finishes the configuration of the Parquet reader; `projection` may name
    /// `__seq`, which comes after the table's columns.
    pub(crate) fn open(
        groups: Vec<Vec<HoledSegment>>,
        definition: &TableDefinition,
        projection: &[usize],
        schema: SchemaRef,
        open: impl FnOnce(ParquetSource, Vec<FileGroup>) -> FileScanConfigBuilder,
        source: impl FnOnce(datafusion::datasource::table_schema::TableSchema) -> ParquetSource,
    ) -> Result<Option<HoledFiles>> {
        let segments: Arc<[HoledSegment]> = groups.iter().flatten().cloned().collect();
        if segments.is_empty() {
            return Ok(None);
        }
        let mut numbers = 0u32..;
        let mut file = |holed: &HoledSegment| {
            let number = numbers.next().expect("segments of a scan are far fewer");
            PartitionedFile::new(holed.segment.meta.name.clone(), holed.segment.meta.bytes)
                .with_extension::<SegmentRef>(Arc::clone(&holed.segment))
                .with_partition_values(vec![ScalarValue::UInt32(Some(number))])
        };
        let groups = groups.iter().map(|group| FileGroup::new(group.iter().map(&mut file).collect())).collect();
        let all = sequenced_schema(definition);
        let columns = definition.columns.len();
        let segment = Arc::new(Field::new(SEGMENT_COLUMN, DataType::UInt32, false));
        let table_schema = TableSchemaBuilder::new(all).with_table_partition_cols(vec![segment]).build();
        // The scan's columns, then the two that tell which rows are deleted.
        let mut read: Vec<usize> = projection.iter().copied().filter(|position| *position < columns).collect();
        read.extend([columns, columns + 1]);
        let config = open(source(table_schema), groups).with_projection_indices(Some(read))?.build();
        let sequence = projection.iter().position(|position| *position == columns);
        Ok(Some(HoledFiles { segments, files: DataSourceExec::from_data_source(config), schema, sequence }))
    }

    /// The reader below, for its metrics.
    pub(crate) fn files(&self) -> &Arc<DataSourceExec> {
        &self.files
    }

    /// The rows of one partition that are not deleted.
    pub(crate) fn rows(
        &self,
        partition: usize,
        context: &Arc<TaskContext>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let rows = self.files.execute(partition, Arc::clone(context))?;
        let (segments, schema, sequence) = (Arc::clone(&self.segments), Arc::clone(&self.schema), self.sequence);
        Ok(rows.map(move |batch| left(&batch?, &segments, &schema, sequence)).boxed())
    }
}

/// The rows of a batch, which come from one segment, without the deleted ones.
fn left(
    batch: &RecordBatch,
    segments: &[HoledSegment],
    schema: &SchemaRef,
    sequence: Option<usize>,
) -> Result<RecordBatch> {
    let (columns, [numbers, segment]) =
        batch.columns().split_last_chunk::<2>().ok_or_else(|| internal_datafusion_err!("rows without numbers"))?;
    let numbers = numbers.as_primitive::<UInt64Type>();
    let segment = segment.as_primitive::<UInt32Type>();
    if segment.is_empty() {
        return Ok(RecordBatch::new_empty(Arc::clone(schema)));
    }
    let HoledSegment { deleted, base, .. } = &segments[segment.value(0) as usize];
    let mut columns: Vec<ArrayRef> = columns.to_vec();
    if let Some(at) = sequence {
        let numbers: UInt64Array = numbers.unary(|number| base + number);
        columns.insert(at, Arc::new(numbers));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let rows = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?;
    let kept = deleted.kept(numbers, *base);
    Ok(if kept.true_count() == kept.len() { rows } else { filter_record_batch(&rows, &kept)? })
}
