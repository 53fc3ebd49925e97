//! Merging of small batches, and what is counted.

use proptest::prelude::*;

use super::*;
use crate::routing::split_rows;
use crate::sequence::{sequenced_schema, with_sequence};
use crate::testing::{lines, small_rows, small_table};

/// A memtable after appends of the given numbers of rows, and all these rows.
fn filled(counts: &[usize]) -> (Memtable, RecordBatch) {
    let table = small_table(1);
    let total: usize = counts.iter().sum();
    let times: Vec<i64> = (0..total as i64).map(|n| n % 1000).collect();
    let all = with_sequence(&sequenced_schema(&table), &small_rows(&times), 0, 0).unwrap();
    let mut memtable = Memtable::new(5);
    let mut start = 0;
    for count in counts {
        split_rows(&table, &all.slice(start, *count)).unwrap().into_iter().for_each(|part| memtable.append(part));
        start += count;
    }
    (memtable, all)
}

#[test]
fn one_row_appends_leave_few_batches() {
    let (memtable, all) = filled(&[1; 5000]);
    assert!(memtable.batches.len() <= 13, "{} batches", memtable.batches.len());
    assert_eq!(concat_batches(&all.schema(), &memtable.batches).unwrap(), all);
}

#[test]
fn large_batches_are_not_copied() {
    let (memtable, all) = filled(&[9000, 9000]);
    let pointer = |batch: &RecordBatch| batch.column(2).to_data().buffers()[0].as_ptr();
    assert_eq!(memtable.batches.len(), 2);
    assert_eq!(pointer(&memtable.batches[0]), pointer(&all));
}

#[test]
fn merged_batches_stay_bounded() {
    let (memtable, _) = filled(&[100; 500]);
    assert!(memtable.batches.iter().all(|batch| batch.num_rows() <= MERGED_ROWS_MAX));
    assert!(memtable.batches.len() <= 20, "{} batches", memtable.batches.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn rows_keep_their_order_and_are_counted(counts in proptest::collection::vec(0usize..300, 0..40)) {
        let (memtable, all) = filled(&counts);
        let read = memtable.read(SplitId(0), false);
        prop_assert_eq!(concat_batches(&all.schema(), &read.batches).unwrap(), all.clone());
        prop_assert_eq!(read.rows, all.num_rows() as u64);
        prop_assert_eq!(lines(&read.batches, 0), lines([&all], 0));
        let last = all.num_rows().checked_sub(1).map(|last| last.min(999) as i64);
        prop_assert_eq!((read.time_min_us, read.time_max_us), (last.map(|_| 0), last));
    }
}
