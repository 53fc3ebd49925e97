//! How intervals lie in segments: Parquet's own intervals know milliseconds only, and Arrow's are not written as Parquet.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, IntervalMonthDayNanoArray, ListArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalMonthDayNanoType};

/// Bytes of an interval in a segment.
pub const INTERVAL_BYTES: i32 = 16;
/// An interval counts microseconds; Arrow's nanoseconds are multiples of them.
const NS_PER_US: i64 = 1000;

/// The type of a column in segments, which is its own but where that has intervals in it.
pub fn stored_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Interval(_) => DataType::FixedSizeBinary(INTERVAL_BYTES),
        DataType::List(element) => {
            let stored = stored_type(element.data_type());
            DataType::List(Arc::new(element.as_ref().clone().with_data_type(stored)))
        }
        other => other.clone(),
    }
}

/// Whether a type has intervals in it.
pub fn has_intervals(data_type: &DataType) -> bool {
    stored_type(data_type) != *data_type
}

/// Intervals, or arrays of them, as segments hold them, in PostgreSQL's binary form: microseconds, days, months, each with its highest
/// byte first.
pub fn stored_intervals(values: &dyn Array) -> ArrayRef {
    if let Some(lists) = values.as_list_opt::<i32>() {
        let stored = stored_intervals(lists.values());
        return Arc::new(of_elements(lists, stored).expect("there are as many elements"));
    }
    let values = values.as_primitive::<IntervalMonthDayNanoType>();
    let bytes = values.iter().map(|value| value.map(to_bytes));
    let stored = FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes, INTERVAL_BYTES);
    Arc::new(stored.expect("all are of one length"))
}

/// The reverse of [`stored_intervals`]; `None` for a column that is no such bytes, or holds a time part that Arrow's cannot.
pub fn read_intervals(stored: &dyn Array) -> Option<ArrayRef> {
    if let Some(lists) = stored.as_list_opt::<i32>() {
        return Some(Arc::new(of_elements(lists, read_intervals(lists.values())?)?));
    }
    if *stored.data_type() != DataType::FixedSizeBinary(INTERVAL_BYTES) {
        return None;
    }
    let stored = stored.as_fixed_size_binary();
    let mut values = Vec::with_capacity(stored.len());
    for bytes in stored {
        values.push(match bytes {
            Some(bytes) => Some(from_bytes(bytes.try_into().ok()?)?),
            None => None,
        });
    }
    Some(Arc::new(IntervalMonthDayNanoArray::from(values)))
}

/// Lists like these of other elements.
fn of_elements(lists: &ListArray, elements: ArrayRef) -> Option<ListArray> {
    let DataType::List(field) = lists.data_type() else { return None };
    let field = field.as_ref().clone().with_data_type(elements.data_type().clone());
    ListArray::try_new(Arc::new(field), lists.offsets().clone(), elements, lists.nulls().cloned()).ok()
}

fn to_bytes(interval: IntervalMonthDayNano) -> [u8; 16] {
    let us = (interval.nanoseconds / NS_PER_US).to_be_bytes();
    let (days, months) = (interval.days.to_be_bytes(), interval.months.to_be_bytes());
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&us);
    bytes[8..12].copy_from_slice(&days);
    bytes[12..].copy_from_slice(&months);
    bytes
}

/// An interval from PostgreSQL's binary form; `None` when its time part is longer than 292 years.
pub fn from_bytes(bytes: [u8; 16]) -> Option<IntervalMonthDayNano> {
    let (us, rest) = bytes.split_first_chunk::<8>()?;
    let (days, months) = rest.split_first_chunk::<4>()?;
    let nanoseconds = i64::from_be_bytes(*us).checked_mul(NS_PER_US)?;
    let months = i32::from_be_bytes(months.try_into().ok()?);
    Some(IntervalMonthDayNano::new(months, i32::from_be_bytes(*days), nanoseconds))
}

#[cfg(test)]
mod tests {
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn intervals_come_back() {
        let some = |months, days, us: i64| Some(IntervalMonthDayNano::new(months, days, us * NS_PER_US));
        let values = vec![some(1, -2, 3), None, some(i32::MIN, i32::MAX, i64::MIN / NS_PER_US), some(0, 0, 0)];
        let values: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(values));
        let stored = stored_intervals(&values);
        assert_eq!(stored.as_fixed_size_binary().value(0), [0, 0, 0, 0, 0, 0, 0, 3, 255, 255, 255, 254, 0, 0, 0, 1]);
        assert_eq!(&read_intervals(&stored).unwrap(), &values);
        assert!(read_intervals(&values).is_none());
        assert!(from_bytes([127; 16]).is_none(), "beyond what Arrow counts");
        let offsets = OffsetBuffer::from_lengths([1, 0, 3]);
        let element = Arc::new(Field::new_list_field(values.data_type().clone(), true));
        let lists: ArrayRef = Arc::new(ListArray::new(element, offsets, values, None));
        for lists in [lists.clone(), lists.slice(1, 2)] {
            let stored = stored_intervals(&lists);
            assert_eq!(stored.data_type(), &stored_type(lists.data_type()));
            assert_eq!(&read_intervals(&stored).unwrap(), &lists);
        }
    }
}
