//! Which segments of a split are merged, and the merge itself: read, written and installed without holding anybody up.
//!
//! A merge works beside everything else: it takes a turn of the encoder for each piece, and one command swaps its inputs for its output.
//! Whoever reads the inputs keeps them until done; their objects go when no checkpoint names them any more.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use event::{ShardId, SplitId, TableDefinition, limits};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use storage::command::Replace;
use storage::encode::SegmentPlace;
use storage::merge::merge_segments;
use storage::segment::SegmentRef;
use storage::{Command, Outcome, SequenceSet};

use crate::ddl::defect;
use crate::error::Error;
use crate::memory::Reservation;
use crate::node::{DataGroup, Node};
use crate::segments::store_error;
use crate::stage::StagedSegment;

/// A segment this many times larger than all smaller ones together is not rewritten for their sake.
const SIZE_RATIO: u64 = 4;
/// Below this, size does not matter.
const SMALL_BYTES: u64 = 1 << 20;
/// So many of like size are merged while the split's window is open.
const OPEN_INPUTS_MIN: usize = 4;
/// And so many once it has ended.
const ENDED_INPUTS_MIN: usize = 2;

/// Why segments are to be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// More rows of the window are to be expected.
    Open,
    /// Its window has ended, and none of its rows is in memory.
    Ended,
    /// Somebody asked.
    Forced,
}

/// Segments of one split to be merged.
#[derive(Clone, Debug)]
pub(crate) struct Merge {
    pub(crate) shard: ShardId,
    pub(crate) table: Arc<TableDefinition>,
    pub(crate) split: SplitId,
    pub(crate) inputs: Vec<SegmentRef>,
    /// Rows of the split that shall not be in the output.
    pub(crate) deleted: Option<Deleted>,
}

/// Deleted rows of a split.
#[derive(Clone, Debug)]
pub(crate) struct Deleted {
    pub(crate) rows: Arc<SequenceSet>,
    /// Whether none of them is anywhere but in the inputs.
    pub(crate) all: bool,
}

/// Whether all segments of a split are rewritten for the sake of its deleted rows: an eighth of it, or some when somebody asked.
pub(crate) fn is_worth_a_rewrite(segments: &[SegmentRef], deleted: &SequenceSet, occasion: Occasion) -> bool {
    let rows: u64 = segments.iter().map(|segment| segment.meta.rows).sum();
    !segments.is_empty()
        && fits_a_merge(segments)
        && (occasion == Occasion::Forced || deleted.len().saturating_mul(8) >= rows)
}

/// Whether all of them can be merged at once.
pub(crate) fn fits_a_merge(segments: &[SegmentRef]) -> bool {
    let bytes: u64 = segments.iter().map(|segment| segment.meta.bytes).sum();
    segments.len() <= limits::COMPACT_INPUTS_MAX && bytes <= limits::COMPACT_BYTES_MAX
}

/// Chooses among the segments of one split: the most that are of like size, smallest first. Each row is so rewritten about once for each
/// time the split grows by `SIZE_RATIO`. With `dedups` the table keeps one row of each key.
pub(crate) fn choose(segments: &[SegmentRef], occasion: Occasion, dedups: bool) -> Option<Vec<SegmentRef>> {
    if let ([segment], true) = (segments, occasion != Occasion::Open) {
        // It may hold rows that others of their key took the place of.
        let is_due = dedups && !segment.meta.distinct && segment.meta.bytes <= limits::COMPACT_BYTES_MAX;
        return is_due.then(|| segments.to_vec());
    }
    let mut sorted = segments.to_vec();
    sorted.sort_by(|a, b| (a.meta.bytes, &a.meta.name).cmp(&(b.meta.bytes, &b.meta.name)));
    let least = if occasion == Occasion::Open { OPEN_INPUTS_MIN } else { ENDED_INPUTS_MIN };
    (0..sorted.len()).find_map(|start| {
        let mut bytes = 0;
        let alike = sorted[start..].iter().take(limits::COMPACT_INPUTS_MAX).take_while(|segment| {
            let first = bytes == 0;
            let like = segment.meta.bytes <= SIZE_RATIO * bytes.max(SMALL_BYTES);
            bytes += segment.meta.bytes;
            bytes <= limits::COMPACT_BYTES_MAX && (first || like || occasion == Occasion::Forced)
        });
        let alike: Vec<SegmentRef> = alike.cloned().collect();
        (alike.len() >= least).then_some(alike)
    })
}

impl Node {
    /// Merges segments and swaps them; whether they were still there to be swapped.
    pub(crate) async fn merge(&self, data: &DataGroup, merge: Merge) -> Result<bool, Error> {
        let Merge { shard, table, split, inputs, deleted } = merge;
        let bytes: u64 = inputs.iter().map(|segment| segment.meta.bytes).sum();
        let mut memory = Reservation::empty(self.memory.clone());
        if !memory.try_grow(bytes as usize) {
            return Err(Error::Overloaded("not enough memory to merge segments now".into()));
        }
        let (term, node) = (data.group.term(), self.identity.node);
        let name = format!("{}/{shard}/{split}/merged-{term}-{node}-{}.parquet", table.id, self.next_object());
        let place = SegmentPlace { shard, split, seal: None, name };
        let (store, turns, sources) = (self.store.clone(), self.encoder.clone(), inputs.clone());
        let left_out = deleted.as_ref().map(|deleted| Arc::clone(&deleted.rows)).unwrap_or_default();
        let merged =
            self.encode.spawn(async move { merge_segments(&store, &table, &sources, &left_out, place, &turns).await });
        let (merged, purged) = merged.await.map_err(|e| Error::ShuttingDown(e.to_string()))??;
        let mut staged = None;
        if let Some((meta, object)) = merged {
            self.counters.count_segment(meta.bytes);
            let path = Path::from(meta.name.as_str());
            staged = Some(StagedSegment::new(data.reader().pin(meta), self.store.clone(), self.consensus.clone()));
            self.store.put(&path, PutPayload::from(object)).await.map_err(store_error)?;
        }
        let replace = Replace {
            shard,
            split,
            inputs: inputs.iter().map(|segment| segment.meta.name.clone()).collect(),
            outputs: staged.iter().map(|staged| staged.segment.meta.clone()).collect(),
            purged: deleted.filter(|deleted| deleted.all).map_or(purged, |deleted| SequenceSet::clone(&deleted.rows)),
        };
        self.swap(data, replace, staged).await
    }

    async fn swap(&self, data: &DataGroup, replace: Replace, staged: Option<StagedSegment>) -> Result<bool, Error> {
        let inputs = replace.inputs.len() as u64;
        let outputs: Vec<_> = staged.iter().map(|staged| Arc::clone(&staged.segment)).collect();
        self.share(data, &outputs).await?;
        let keep = |staged: Option<StagedSegment>| staged.into_iter().for_each(|mut staged| staged.keep());
        match self.propose(data.group.id(), vec![Command::Replace(replace)]).await {
            Ok(proposed) => match proposed.outcome {
                Outcome::Done { .. } => {
                    keep(staged);
                    self.counters.merged.fetch_add(inputs, Ordering::Relaxed);
                    data.note_garbage(self.clock.now_us());
                    Ok(true)
                }
                Outcome::Superseded => Ok(false),
                refused => Err(defect(format!("{refused:?}"))),
            },
            Err(error) => {
                if matches!(error, Error::Unknown(_)) {
                    self.promise(outputs);
                    keep(staged);
                }
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use event::{SchemaVersion, TableId};
    use storage::{Segment, SegmentMeta};

    use super::*;

    fn meta(n: usize, kib: u64) -> SegmentMeta {
        SegmentMeta {
            name: format!("{n:03}"),
            table: TableId(1),
            shard: ShardId(1),
            split: SplitId(0),
            version: SchemaVersion(1),
            rows: 1,
            bytes: kib << 10,
            checksum: 0,
            time_min_us: None,
            time_max_us: None,
            sequence_base: 0,
            distinct: false,
            columns: vec![],
        }
    }

    /// Sizes in KiB of what is chosen among segments of these sizes.
    fn check(sizes: &[u64], occasion: Occasion, expected: Option<&[u64]>) {
        let segments: Vec<SegmentRef> =
            sizes.iter().enumerate().map(|(n, kib)| Segment::unpinned(meta(n, *kib))).collect();
        let chosen =
            choose(&segments, occasion, false).map(|chosen| chosen.iter().map(|s| s.meta.bytes >> 10).collect());
        assert_eq!(chosen, expected.map(<[u64]>::to_vec), "{sizes:?}, {occasion:?}");
    }

    #[test]
    fn segments_of_like_size_are_merged_when_they_are_many() {
        check(&[], Occasion::Forced, None);
        check(&[10], Occasion::Forced, None);
        check(&[10, 20, 30], Occasion::Open, None);
        check(&[10, 40, 20, 30], Occasion::Open, Some(&[10, 20, 30, 40]));
        check(&[10, 20], Occasion::Ended, Some(&[10, 20]));
        check(&[10; 40], Occasion::Open, Some(&[10; 16]));
    }

    #[test]
    fn a_large_segment_is_not_rewritten_for_a_few_late_rows() {
        check(&[10, 50_000], Occasion::Ended, None);
        check(&[10, 50_000], Occasion::Forced, Some(&[10, 50_000]));
        check(&[10, 3_000, 12_000, 50_000], Occasion::Ended, Some(&[10, 3_000, 12_000, 50_000]));
        check(&[10, 30_000, 30_000, 30_000], Occasion::Ended, Some(&[30_000, 30_000, 30_000]));
    }

    #[test]
    fn a_segment_with_several_rows_of_a_key_is_rewritten() {
        let segment = |distinct: bool| Segment::unpinned(SegmentMeta { distinct, ..meta(0, 10) });
        let chosen = |distinct, occasion, dedups| choose(&[segment(distinct)], occasion, dedups).is_some();
        assert!(chosen(false, Occasion::Ended, true) && chosen(false, Occasion::Forced, true));
        assert!(!chosen(false, Occasion::Open, true) && !chosen(true, Occasion::Forced, true));
        assert!(!chosen(false, Occasion::Forced, false));
    }

    #[test]
    fn an_output_is_bounded() {
        check(&[100_000, 100_000], Occasion::Forced, None);
        check(&[60_000, 60_000, 60_000], Occasion::Forced, Some(&[60_000, 60_000]));
    }
}
