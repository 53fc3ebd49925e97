//! Which split an event time falls into, and the window of a split.

use crate::ids::SplitId;

/// The split of an event: floor(`time_us` / `interval_us`). Times before 1970 fall into negative splits.
///
/// # Panics
/// When `interval_us` is not positive; the catalog never holds such a table.
pub fn split_of(time_us: i64, interval_us: i64) -> SplitId {
    assert!(interval_us > 0, "split interval must be positive");
    SplitId(time_us.div_euclid(interval_us))
}

/// The window of a split in microseconds: start inclusive, end exclusive, saturating at the ends of time.
pub fn window_of(split: SplitId, interval_us: i64) -> (i64, i64) {
    let start = split.0.saturating_mul(interval_us);
    (start, start.saturating_add(interval_us))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn negative_times_round_down() {
        assert_eq!(split_of(-1, 10), SplitId(-1));
        assert_eq!(split_of(-10, 10), SplitId(-1));
        assert_eq!(split_of(-11, 10), SplitId(-2));
        assert_eq!(split_of(0, 10), SplitId(0));
    }

    proptest! {
        #[test]
        fn every_time_lies_in_its_window(time in -(1i64 << 60)..(1i64 << 60), interval in 1i64..(1 << 50)) {
            let (start, end) = window_of(split_of(time, interval), interval);
            prop_assert!(start <= time && time < end);
        }
    }
}
