//! Routing against a row-by-row reading.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::testing::{INTERVAL_US, small_rows, small_table};

fn pointer(batch: &RecordBatch) -> *const u8 {
    batch.column(2).to_data().buffers()[0].as_ptr()
}

#[test]
fn adjacent_rows_are_not_copied() {
    let rows = small_rows(&[1, 2, 1001, 1002]);
    let parts = split_rows(&small_table(1), &rows).unwrap();
    assert_eq!(parts.len(), 2);
    assert_eq!(pointer(&parts[0].rows), pointer(&rows));
    assert!(std::ptr::eq(pointer(&parts[1].rows), pointer(&rows).wrapping_add(16)));
}

#[test]
fn a_batch_without_times_is_refused() {
    let rows = small_rows(&[1]).project(&[1, 2]).unwrap();
    let error = split_rows(&small_table(1), &rows).unwrap_err();
    assert!(error.to_string().ends_with("the time column of table \"t1\" is no column of times"), "{error}");
}

proptest! {
    #[test]
    fn each_row_goes_to_its_split(
        times in prop_oneof![vec(-3 * INTERVAL_US..3 * INTERVAL_US, 0..50), vec(any::<i64>(), 0..20)],
    ) {
        let mut expected: BTreeMap<SplitId, Vec<i64>> = BTreeMap::new();
        for time in &times {
            expected.entry(split_of(*time, INTERVAL_US)).or_default().push(*time);
        }
        let table = small_table(1);
        let parts = split_rows(&table, &small_rows(&times)).unwrap();
        let found: BTreeMap<_, _> =
            parts.iter().map(|part| (part.split, event_times(&table, &part.rows).unwrap().to_vec())).collect();
        prop_assert_eq!(&found, &expected);
        prop_assert!(parts.is_sorted_by_key(|part| part.split));
        for part in &parts {
            let times = &found[&part.split];
            prop_assert_eq!(part.time_min_us, times.iter().min().copied());
            prop_assert_eq!(part.time_max_us, times.iter().max().copied());
            prop_assert_eq!(&part.rows, &small_rows(times));
        }
    }
}
