//! How units are spread over the partitions of a scan: balanced by size, each partition in time order.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::stats::Statistics;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileGroupPartitioner};
use event::TableDefinition;
use storage::segment::SegmentRef;

use super::statistics::statistics;
use super::unit::{HoledSegment, ScanUnit};

/// Rows below which a second partition costs more than it gains.
const PARALLEL_ROWS_MIN: u64 = 8 << 10;
/// Bytes of few segments above which they are cut at row groups to occupy all partitions.
const CUT_BYTES_MIN: u64 = 4 << 20;

/// What each partition reads. Both have one element per partition.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Segments, or ranges of them.
    pub(crate) files: Vec<FileGroup>,
    /// Batches in memory, with all columns of the table.
    pub(crate) memory: Vec<Vec<RecordBatch>>,
    /// Segments whose rows are read with their numbers.
    pub(crate) holed: Vec<Vec<HoledSegment>>,
}

/// Spreads `units` over at most `partitions` partitions, at least one. `newest_first` turns the time order within a partition round.
pub(crate) fn lay_out(
    units: &[ScanUnit],
    definition: &TableDefinition,
    projection: &[usize],
    partitions: usize,
    newest_first: bool,
) -> Layout {
    let rows: u64 = units.iter().map(ScanUnit::rows).sum();
    let partitions = if rows <= PARALLEL_ROWS_MIN { 1 } else { partitions.max(1) };

    let mut ordered: Vec<&ScanUnit> = units.iter().collect();
    ordered.sort_by_key(|unit| unit.time_us().map_or(0, |(min, _)| min));
    if newest_first {
        ordered.sort_by_key(|unit| std::cmp::Reverse(unit.time_us().map_or(i64::MAX, |(_, max)| max)));
    }
    let segments: Vec<(u64, SegmentRef)> = ordered
        .iter()
        .filter_map(|unit| match unit {
            ScanUnit::Segment(segment) => Some((segment.meta.bytes, Arc::clone(segment))),
            _ => None,
        })
        .collect();
    let holed: Vec<(u64, HoledSegment)> = ordered
        .iter()
        .filter_map(|unit| match unit {
            ScanUnit::Holed(holed) => Some((holed.segment.meta.bytes, holed.clone())),
            _ => None,
        })
        .collect();
    let batches: Vec<(u64, RecordBatch)> =
        ordered.iter().flat_map(|unit| unit.batches()).map(|batch| (batch.num_rows() as u64, batch.clone())).collect();

    let bytes: u64 = segments.iter().map(|(bytes, _)| bytes).sum();
    let few = segments.len() < 2 * partitions;
    let files: Vec<FileGroup> = balance(segments, partitions)
        .into_iter()
        .map(|group| FileGroup::new(group.iter().map(|segment| file(segment, definition, projection)).collect()))
        .collect();
    let cut = (few && partitions > 1 && bytes >= CUT_BYTES_MIN).then(|| {
        FileGroupPartitioner::new()
            .with_target_partitions(partitions)
            .with_repartition_file_min_size(0)
            .repartition_file_groups(&files)
    });
    let mut files = cut.flatten().unwrap_or(files);
    files.resize_with(partitions, || FileGroup::new(Vec::new()));
    Layout { files, memory: balance(batches, partitions), holed: balance(holed, partitions) }
}

/// Deals items to the lightest bin, heaviest first; within a bin they keep their order.
fn balance<T>(items: Vec<(u64, T)>, bins: usize) -> Vec<Vec<T>> {
    let mut by_weight: Vec<usize> = (0..items.len()).collect();
    by_weight.sort_by_key(|&index| std::cmp::Reverse(items[index].0));
    let mut weights = vec![0u64; bins];
    let mut bin_of = vec![0usize; items.len()];
    for index in by_weight {
        let lightest = (0..bins).min_by_key(|&bin| weights[bin]).unwrap_or(0);
        weights[lightest] += items[index].0;
        bin_of[index] = lightest;
    }
    let mut balanced: Vec<Vec<T>> = (0..bins).map(|_| Vec::new()).collect();
    for (index, (_, item)) in items.into_iter().enumerate() {
        balanced[bin_of[index]].push(item);
    }
    balanced
}

/// The file of a segment, with its handle and, for the columns read, its statistics.
fn file(segment: &SegmentRef, definition: &TableDefinition, projection: &[usize]) -> PartitionedFile {
    let unit = [ScanUnit::Segment(Arc::clone(segment))];
    let read = statistics(&unit, definition, projection);
    let mut whole = Statistics::new_unknown(&definition.arrow_schema()).with_num_rows(read.num_rows);
    for (&position, column) in projection.iter().zip(read.column_statistics) {
        whole.column_statistics[position] = column;
    }
    PartitionedFile::new(segment.meta.name.clone(), segment.meta.bytes)
        .with_extension::<SegmentRef>(Arc::clone(segment))
        .with_statistics(Arc::new(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balance_deals_to_the_lightest_and_keeps_order() {
        let bins = balance(vec![(1, 'a'), (9, 'b'), (4, 'c'), (4, 'd'), (1, 'e')], 2);
        assert_eq!(bins, vec![vec!['b', 'e'], vec!['a', 'c', 'd']]);
    }
}
