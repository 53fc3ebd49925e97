use std::collections::BTreeMap;

use arrow::array::{AsArray, Int64Array, UInt64Array};
use arrow::datatypes::{Int64Type, UInt64Type};
use proptest::prelude::*;

use super::*;

fn batch(rows: &[(i64, u64)]) -> RecordBatch {
    let keys = Int64Array::from_iter_values(rows.iter().map(|row| row.0));
    let numbers = UInt64Array::from_iter_values(rows.iter().map(|row| row.1));
    RecordBatch::try_from_iter([("key", Arc::new(keys) as _), ("number", Arc::new(numbers) as _)]).unwrap()
}

fn rows(batch: &RecordBatch) -> Vec<(i64, u64)> {
    let keys = batch.column(0).as_primitive::<Int64Type>().values();
    keys.iter().copied().zip(batch.column(1).as_primitive::<UInt64Type>().values().iter().copied()).collect()
}

proptest! {
    /// However the rows are cut into batches, one of each key is left: the one a map would keep.
    #[test]
    fn one_row_of_each_key_is_left(
        keys in proptest::collection::vec(0..6i64, 0..40),
        cuts in proptest::collection::vec(1..7usize, 1..40),
        first in any::<bool>(),
    ) {
        let dedup = if first { Dedup::First } else { Dedup::Last };
        let mut sorted: Vec<(i64, u64)> = keys.into_iter().zip(0..).collect();
        let mut model = BTreeMap::new();
        for (key, number) in &sorted {
            let kept = model.entry(*key).or_insert(*number);
            if !first {
                *kept = *number;
            }
        }
        sorted.sort_unstable();
        prop_assert_eq!(are_distinct(&batch(&sorted), &[0]).unwrap(), model.len() == sorted.len());
        let mut survivors = Survivors::new(&batch(&[]).schema(), vec![0], dedup).unwrap();
        let (mut left, mut rest) = (Vec::new(), &sorted[..]);
        for cut in cuts.iter().cycle().take(sorted.len()) {
            let (piece, more) = rest.split_at((*cut).min(rest.len()));
            left.extend(rows(&survivors.push(batch(piece)).unwrap()));
            rest = more;
        }
        left.extend(survivors.finish().iter().flat_map(rows));
        prop_assert_eq!(left, model.into_iter().collect::<Vec<_>>());
    }
}
