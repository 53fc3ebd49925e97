//! Sets of sequence numbers: which rows of a shard are deleted.
//!
//! Rows written together are often deleted together, so a set is kept as the ranges of its numbers. [`SequenceSet::filter`] is what
//! everybody asks who reads rows that may be deleted: scans and compaction.

use arrow::array::{AsArray, BooleanArray, UInt64Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::UInt64Type;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The bit that marks a row which is not committed yet: the other bits are its number within its statement and table.
pub const OWN_ROW: u64 = 1 << 63;

/// A set of sequence numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u64>", into = "Vec<u64>")]
pub struct SequenceSet {
    /// First and last of each range, ascending; between two ranges is a gap.
    ranges: Vec<(u64, u64)>,
}

impl SequenceSet {
    /// The numbers from `first` to `last`.
    pub fn range(first: u64, last: u64) -> SequenceSet {
        if first > last {
            return SequenceSet::default();
        }
        SequenceSet { ranges: vec![(first, last)] }
    }

    /// The set of some numbers, in any order.
    pub fn of(mut numbers: Vec<u64>) -> SequenceSet {
        numbers.sort_unstable();
        SequenceSet::joined(numbers.into_iter().map(|number| (number, number)))
    }

    /// Joins ranges that come in ascending order of their first number.
    fn joined(ascending: impl Iterator<Item = (u64, u64)>) -> SequenceSet {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (first, last) in ascending {
            match ranges.last_mut() {
                Some(range) if first <= range.1.saturating_add(1) => range.1 = range.1.max(last),
                _ => ranges.push((first, last)),
            }
        }
        SequenceSet { ranges }
    }

    /// Whether it has no number.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many numbers it has.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// The bytes it takes in an entry.
    pub fn bytes(&self) -> usize {
        let digits = |distance: u64| distance.checked_ilog10().unwrap_or(0) as usize + 2;
        Vec::from(self.clone()).into_iter().map(digits).sum()
    }

    /// Whether the row of that number is deleted.
    pub fn contains(&self, number: u64) -> bool {
        let after = self.ranges.partition_point(|(first, _)| *first <= number);
        after > 0 && self.ranges[after - 1].1 >= number
    }

    /// Whether both have a number.
    pub fn overlaps(&self, other: &SequenceSet) -> bool {
        let (mut mine, mut theirs) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        while let (Some(a), Some(b)) = (mine.peek(), theirs.peek()) {
            if a.1 < b.0 {
                mine.next();
            } else if b.1 < a.0 {
                theirs.next();
            } else {
                return true;
            }
        }
        false
    }

    /// The numbers of both.
    pub fn union(&self, other: &SequenceSet) -> SequenceSet {
        let mut all: Vec<(u64, u64)> = self.ranges.iter().chain(&other.ranges).copied().collect();
        all.sort_unstable();
        SequenceSet::joined(all.into_iter())
    }

    /// Its numbers without those of `other`.
    pub fn without(&self, other: &SequenceSet) -> SequenceSet {
        let mut left = Vec::new();
        let mut holes = other.ranges.iter().peekable();
        for &(mut first, last) in &self.ranges {
            while holes.next_if(|hole| hole.1 < first).is_some() {}
            let mut whole = true;
            for hole in holes.clone().take_while(|hole| hole.0 <= last) {
                if hole.0 > first {
                    left.push((first, hole.0 - 1));
                }
                if hole.1 >= last {
                    whole = false;
                    break;
                }
                first = first.max(hole.1 + 1);
            }
            if whole {
                left.push((first, last));
            }
        }
        SequenceSet { ranges: left }
    }

    /// Its numbers from `first` on, and those below.
    pub fn split_at(&self, first: u64) -> (SequenceSet, SequenceSet) {
        let from = self.without(&SequenceSet::range(0, first.saturating_sub(1)));
        let below = self.without(&from);
        (from, below)
    }

    /// Each number as `map` says, which keeps their order and distances.
    pub(crate) fn mapped(&self, map: impl Fn(u64) -> u64) -> SequenceSet {
        SequenceSet { ranges: self.ranges.iter().map(|(first, last)| (map(*first), map(*last))).collect() }
    }

    /// The rows of `batch` that are not deleted. Their numbers are those of its last column, `__seq`, plus `base`.
    ///
    /// # Errors
    /// When the last column is no column of sequence numbers.
    pub fn filter(&self, batch: &RecordBatch, base: u64) -> Result<RecordBatch, ArrowError> {
        let numbers = batch.columns().last().and_then(|column| column.as_primitive_opt::<UInt64Type>());
        let Some(numbers) = numbers else {
            return Err(ArrowError::SchemaError("rows without sequence numbers".to_owned()));
        };
        let kept = self.kept(numbers, base);
        if kept.true_count() == kept.len() { Ok(batch.clone()) } else { filter_record_batch(batch, &kept) }
    }

    /// For each number plus `base` whether it is not in the set.
    pub fn kept(&self, numbers: &UInt64Array, base: u64) -> BooleanArray {
        numbers.values().iter().map(|number| Some(!self.contains(base + number))).collect()
    }
}

impl From<SequenceSet> for Vec<u64> {
    /// The distance of each bound from the one before.
    fn from(set: SequenceSet) -> Vec<u64> {
        let mut before = 0;
        let bounds = set.ranges.into_iter().flat_map(|(first, last)| [first, last]);
        bounds.map(|bound| bound - std::mem::replace(&mut before, bound)).collect()
    }
}

impl TryFrom<Vec<u64>> for SequenceSet {
    type Error = Error;

    fn try_from(distances: Vec<u64>) -> Result<SequenceSet, Error> {
        let refuse = |reason: &str| Error::Decode { what: "sequence numbers", reason: reason.to_owned() };
        let mut bounds = Vec::with_capacity(distances.len());
        let mut bound: u64 = 0;
        for distance in distances {
            bound = bound.checked_add(distance).ok_or_else(|| refuse("a number is too large"))?;
            bounds.push(bound);
        }
        let (pairs, rest) = bounds.as_chunks::<2>();
        if !rest.is_empty() || !pairs.is_sorted_by(|a, b| a[1] < b[0]) {
            return Err(refuse("the ranges are not in order"));
        }
        Ok(SequenceSet { ranges: pairs.iter().map(|pair| (pair[0], pair[1])).collect() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn numbers(set: &SequenceSet) -> Vec<u64> {
        set.ranges.iter().flat_map(|(first, last)| *first..=*last).collect()
    }

    /// All sets over six numbers, two at a time, against plain sets of numbers.
    #[test]
    fn sets_agree_with_plain_ones() {
        let plain = |bits: u64| (0..6).filter(|bit| bits & (1 << bit) != 0).collect::<BTreeSet<u64>>();
        for (a, b) in (0..64).flat_map(|a| (0..64).map(move |b| (a, b))) {
            let (x, y) = (plain(a), plain(b));
            let (p, q) = (SequenceSet::of(x.iter().copied().collect()), SequenceSet::of(y.iter().copied().collect()));
            assert_eq!(numbers(&p.union(&q)), x.union(&y).copied().collect::<Vec<_>>());
            assert_eq!(numbers(&p.without(&q)), x.difference(&y).copied().collect::<Vec<_>>());
            assert_eq!(p.overlaps(&q), !x.is_disjoint(&y));
            assert_eq!(p.len(), x.len() as u64);
            assert!((0..7).all(|n| p.contains(n) == x.contains(&n)));
            assert_eq!(p.split_at(3).0, SequenceSet::of(x.range(3..).copied().collect()));
            assert_eq!(p.split_at(3).1, SequenceSet::of(x.range(..3).copied().collect()));
            assert_eq!(SequenceSet::try_from(Vec::from(p.clone())).unwrap(), p);
        }
    }

    #[test]
    fn damaged_sets_are_refused() {
        assert!(SequenceSet::try_from(vec![1]).is_err());
        assert!(SequenceSet::try_from(vec![5, 0, 0, 0]).is_err());
        assert!(SequenceSet::try_from(vec![u64::MAX, 1]).is_err());
    }
}
