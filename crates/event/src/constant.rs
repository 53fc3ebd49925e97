//! One value of a column, outside of a column.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryArray, ListArray, PrimitiveArray, StringArray,
    new_empty_array, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::concat;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimestampMicrosecondType,
};
use serde::{Deserialize, Serialize};

use crate::interval::{from_bytes, stored_intervals};
use crate::types::{ColumnType, UUID_BYTES};

/// A value that is not NULL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constant {
    /// Integers, dates (days), times and timestamps (µs).
    Integer(i64),
    /// Floats, as the bits of the 64-bit float, so that every value survives JSON.
    FloatBits(u64),
    /// Unscaled decimal.
    Decimal(i128),
    /// Text and JSON.
    Text(String),
    /// Boolean.
    Boolean(bool),
    /// Bytes and UUIDs, and intervals as segments hold them.
    Bytes(Vec<u8>),
    /// The elements of an array.
    Array(Vec<Option<Constant>>),
}

impl Constant {
    /// The first value of an array of one of the column types; `None` for NULL.
    pub fn first(values: &dyn Array) -> Option<Constant> {
        if values.is_empty() || values.is_null(0) {
            return None;
        }
        Some(match values.data_type() {
            DataType::Int16 => Constant::Integer(values.as_primitive::<Int16Type>().value(0).into()),
            DataType::Int32 => Constant::Integer(values.as_primitive::<Int32Type>().value(0).into()),
            DataType::Int64 => Constant::Integer(values.as_primitive::<Int64Type>().value(0)),
            DataType::Date32 => Constant::Integer(values.as_primitive::<Date32Type>().value(0).into()),
            DataType::Time64(_) => Constant::Integer(values.as_primitive::<Time64MicrosecondType>().value(0)),
            DataType::Timestamp(..) => Constant::Integer(values.as_primitive::<TimestampMicrosecondType>().value(0)),
            DataType::Float32 => {
                Constant::FloatBits(f64::from(values.as_primitive::<Float32Type>().value(0)).to_bits())
            }
            DataType::Float64 => Constant::FloatBits(values.as_primitive::<Float64Type>().value(0).to_bits()),
            DataType::Decimal128(..) => Constant::Decimal(values.as_primitive::<Decimal128Type>().value(0)),
            DataType::Utf8 => Constant::Text(values.as_string::<i32>().value(0).to_owned()),
            DataType::Boolean => Constant::Boolean(values.as_boolean().value(0)),
            DataType::Binary => Constant::Bytes(values.as_binary::<i32>().value(0).to_vec()),
            DataType::FixedSizeBinary(_) => Constant::Bytes(values.as_fixed_size_binary().value(0).to_vec()),
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                let stored = stored_intervals(values);
                Constant::Bytes(stored.as_fixed_size_binary().value(0).to_vec())
            }
            DataType::List(_) => {
                let elements = values.as_list::<i32>().value(0);
                Constant::Array((0..elements.len()).map(|at| Constant::first(&elements.slice(at, 1))).collect())
            }
            _ => return None,
        })
    }

    /// A column of `rows` times the value; `None` when it is no value of the type.
    pub fn repeated(&self, column_type: ColumnType, rows: usize) -> Option<ArrayRef> {
        Some(match (self, column_type.arrow()) {
            (Constant::Integer(v), DataType::Int16) => primitives::<Int16Type>(i16::try_from(*v).ok()?, rows),
            (Constant::Integer(v), DataType::Int32) => primitives::<Int32Type>(i32::try_from(*v).ok()?, rows),
            (Constant::Integer(v), DataType::Int64) => primitives::<Int64Type>(*v, rows),
            (Constant::Integer(v), DataType::Date32) => primitives::<Date32Type>(i32::try_from(*v).ok()?, rows),
            (Constant::Integer(v), DataType::Time64(_)) => primitives::<Time64MicrosecondType>(*v, rows),
            (Constant::Integer(v), DataType::Timestamp(_, zone)) => {
                let values = PrimitiveArray::<TimestampMicrosecondType>::from_value(*v, rows);
                Arc::new(values.with_timezone_opt(zone))
            }
            (Constant::FloatBits(bits), DataType::Float32) => {
                // It was widened from this type.
                #[allow(clippy::cast_possible_truncation)]
                let narrow = f64::from_bits(*bits) as f32;
                primitives::<Float32Type>(narrow, rows)
            }
            (Constant::FloatBits(bits), DataType::Float64) => primitives::<Float64Type>(f64::from_bits(*bits), rows),
            (Constant::Decimal(v), data_type @ DataType::Decimal128(..)) => {
                Arc::new(PrimitiveArray::<Decimal128Type>::from_value(*v, rows).with_data_type(data_type))
            }
            (Constant::Text(text), DataType::Utf8) => {
                Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, rows)))
            }
            (Constant::Boolean(v), DataType::Boolean) => Arc::new(BooleanArray::from(vec![*v; rows])),
            (Constant::Bytes(bytes), DataType::Binary) => {
                Arc::new(BinaryArray::from_iter_values(std::iter::repeat_n(bytes, rows)))
            }
            (Constant::Bytes(bytes), DataType::FixedSizeBinary(_)) => {
                let values = std::iter::repeat_n(Some(bytes), rows);
                Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values, UUID_BYTES).ok()?)
            }
            (Constant::Bytes(bytes), DataType::Interval(IntervalUnit::MonthDayNano)) => {
                let interval = from_bytes(bytes.as_slice().try_into().ok()?)?;
                primitives::<IntervalMonthDayNanoType>(interval, rows)
            }
            (Constant::Array(elements), DataType::List(field)) => {
                let ColumnType::Array(element) = column_type else { return None };
                let one = elements.iter().map(|value| match value {
                    Some(value) => value.repeated(element.get(), 1),
                    None => Some(new_null_array(field.data_type(), 1)),
                });
                let mut all = vec![new_empty_array(field.data_type())];
                // Each row has elements of its own.
                let one: Vec<ArrayRef> = one.collect::<Option<_>>()?;
                all.extend(std::iter::repeat_n(&one, rows).flatten().cloned());
                let all: Vec<&dyn Array> = all.iter().map(AsRef::as_ref).collect();
                let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(elements.len(), rows));
                Arc::new(ListArray::try_new(field, offsets, concat(&all).ok()?, None).ok()?)
            }
            _ => return None,
        })
    }
}

fn primitives<T: arrow::datatypes::ArrowPrimitiveType>(value: T::Native, rows: usize) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::from_value(value, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_every_type_comes_back() {
        let values = [
            (ColumnType::SmallInt, Constant::Integer(-7)),
            (ColumnType::Integer, Constant::Integer(1 << 30)),
            (ColumnType::BigInt, Constant::Integer(i64::MIN)),
            (ColumnType::Real, Constant::FloatBits(f64::from(0.1f32).to_bits())),
            (ColumnType::Double, Constant::FloatBits(f64::NAN.to_bits())),
            (ColumnType::Numeric { precision: 10, scale: 2 }, Constant::Decimal(-125)),
            (ColumnType::Boolean, Constant::Boolean(true)),
            (ColumnType::Text, Constant::Text("é".to_owned())),
            (ColumnType::Jsonb, Constant::Text("{}".to_owned())),
            (ColumnType::Bytea, Constant::Bytes(vec![0, 255])),
            (ColumnType::Uuid, Constant::Bytes(vec![7; 16])),
            (ColumnType::Date, Constant::Integer(-1)),
            (ColumnType::Time, Constant::Integer(1)),
            (ColumnType::Timestamp, Constant::Integer(i64::MAX)),
            (ColumnType::TimestampTz, Constant::Integer(0)),
            (ColumnType::Interval, Constant::Bytes(vec![0, 0, 0, 0, 0, 0, 0, 3, 255, 255, 255, 254, 0, 0, 0, 1])),
            (
                ColumnType::Integer.array().unwrap(),
                Constant::Array(vec![Some(Constant::Integer(7)), None, Some(Constant::Integer(-1))]),
            ),
            (ColumnType::Jsonb.array().unwrap(), Constant::Array(vec![])),
        ];
        for (column_type, value) in values {
            let column = value.repeated(column_type, 3).unwrap();
            assert_eq!((column.len(), column.data_type()), (3, &column_type.arrow()));
            assert_eq!(Constant::first(&column.slice(2, 1)), Some(value));
            assert_eq!(Constant::first(&column.slice(0, 0)), None);
        }
        assert!(Constant::Integer(1 << 20).repeated(ColumnType::SmallInt, 1).is_none());
        assert!(Constant::Text("1".to_owned()).repeated(ColumnType::Integer, 1).is_none());
    }
}
