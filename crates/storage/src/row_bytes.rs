//! What rows take in memory.

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;

/// Bytes of the rows themselves: of each buffer only the slice that they use, without spare capacity.
///
/// Every statement is measured several times on its way, so this asks the arrays as they are: `to_data` would allocate for each column.
pub fn row_bytes(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(|column| column_bytes(column)).sum()
}

fn column_bytes(column: &dyn Array) -> usize {
    let values = column.len();
    let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0).map_or(0, |nulls| nulls.len().div_ceil(8));
    nulls
        + match column.data_type() {
            DataType::Boolean => values.div_ceil(8),
            DataType::Utf8 => offset_bytes(column.as_string::<i32>().value_offsets()).1,
            DataType::Binary => offset_bytes(column.as_binary::<i32>().value_offsets()).1,
            DataType::FixedSizeBinary(width) => values * usize::try_from(*width).unwrap_or(0),
            DataType::List(_) => {
                let list = column.as_list::<i32>();
                let (elements, bytes) = offset_bytes(list.value_offsets());
                bytes - elements.len() + column_bytes(&list.values().slice(elements.start, elements.len()))
            }
            other => match other.primitive_width() {
                Some(width) => values * width,
                None => column.get_array_memory_size(),
            },
        }
}

/// What lies between the first and the last offset, and the bytes of that and the offsets.
fn offset_bytes(offsets: &[i32]) -> (std::ops::Range<usize>, usize) {
    let at = |offset: Option<&i32>| offset.map_or(0, |offset| usize::try_from(*offset).unwrap_or(0));
    let within = at(offsets.first())..at(offsets.last());
    let bytes = within.len() + size_of_val(offsets);
    (within, bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_rows, every_type_table};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_is_what_arrow_says(rows in any_rows(every_type_table(), 60, None), start in 0usize..60, len in 0usize..60) {
            let start = start.min(rows.num_rows());
            let rows = rows.slice(start, len.min(rows.num_rows() - start));
            for column in rows.columns() {
                let expected = column.to_data().get_slice_memory_size().unwrap();
                let bytes = column_bytes(column);
                // Of the elements of a list arrow counts all, also those that a slice leaves out.
                let fits = if column.data_type().is_nested() { bytes <= expected } else { bytes == expected };
                prop_assert!(fits, "{}: {bytes}, and arrow says {expected}", column.data_type());
            }
        }
    }
}
