//! The closed set of column types, and how each lies in Arrow.

use std::fmt;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::element::ElementType;

/// Key of the metadata of an Arrow field that says which of the types that lie as text it is.
const TYPE_KEY: &str = "annal.type";
/// Bytes of a UUID.
pub const UUID_BYTES: i32 = 16;

/// The type of a stored column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// 16-bit integer.
    SmallInt,
    /// 32-bit integer.
    Integer,
    /// 64-bit integer.
    BigInt,
    /// 32-bit float.
    Real,
    /// 64-bit float.
    Double,
    /// Exact decimal with at most 38 digits.
    Numeric {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits after the point, 0 to `precision`.
        scale: i8,
    },
    /// True or false.
    Boolean,
    /// UTF-8 of any length.
    Text,
    /// Bytes of any length.
    Bytea,
    /// A universally unique identifier.
    Uuid,
    /// A JSON text as it was written.
    Json,
    /// A JSON value; in memory the one text that PostgreSQL prints for it.
    Jsonb,
    /// Days since 1970-01-01.
    Date,
    /// Microseconds since midnight, no zone.
    Time,
    /// Microseconds since 1970-01-01, no zone.
    Timestamp,
    /// Microseconds since 1970-01-01 UTC.
    TimestampTz,
    /// Months, days and microseconds.
    Interval,
    /// Any number of elements, some of them NULL.
    Array(ElementType),
}

impl ColumnType {
    /// The Arrow type in which this column lies in log, memtable and query, and but for [`crate::interval`] in segments.
    pub fn arrow(&self) -> DataType {
        match *self {
            ColumnType::SmallInt => DataType::Int16,
            ColumnType::Integer => DataType::Int32,
            ColumnType::BigInt => DataType::Int64,
            ColumnType::Real => DataType::Float32,
            ColumnType::Double => DataType::Float64,
            ColumnType::Numeric { precision, scale } => DataType::Decimal128(precision, scale),
            ColumnType::Boolean => DataType::Boolean,
            ColumnType::Text | ColumnType::Json | ColumnType::Jsonb => DataType::Utf8,
            ColumnType::Bytea => DataType::Binary,
            ColumnType::Uuid => DataType::FixedSizeBinary(UUID_BYTES),
            ColumnType::Date => DataType::Date32,
            ColumnType::Time => DataType::Time64(TimeUnit::Microsecond),
            ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            ColumnType::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            ColumnType::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            ColumnType::Array(element) => DataType::List(element.field()),
        }
    }

    /// The type of arrays of this; `None` for an array.
    pub fn array(self) -> Option<ColumnType> {
        ElementType::new(self).map(ColumnType::Array)
    }

    /// The Arrow field of a column of that name.
    pub fn field(&self, name: impl Into<String>, nullable: bool) -> Field {
        let field = Field::new(name, self.arrow(), nullable);
        match self {
            ColumnType::Json | ColumnType::Jsonb => {
                field.with_metadata([(TYPE_KEY.to_owned(), self.to_string())].into())
            }
            _ => field,
        }
    }

    /// Which JSON type a field holds, if it holds one; its Arrow type alone does not say.
    pub fn json_of(field: &Field) -> Option<ColumnType> {
        let name = field.metadata().get(TYPE_KEY)?;
        [ColumnType::Json, ColumnType::Jsonb].into_iter().find(|json| json.to_string() == *name)
    }

    /// The type whose field this is; `None` for any other field.
    pub fn of(field: &Field) -> Option<ColumnType> {
        // Asked for each column of each entry: nothing is made to be compared.
        Some(match field.data_type() {
            DataType::Int16 => ColumnType::SmallInt,
            DataType::Int32 => ColumnType::Integer,
            DataType::Int64 => ColumnType::BigInt,
            DataType::Float32 => ColumnType::Real,
            DataType::Float64 => ColumnType::Double,
            DataType::Decimal128(precision, scale) => ColumnType::Numeric { precision: *precision, scale: *scale },
            DataType::Boolean => ColumnType::Boolean,
            DataType::Utf8 => ColumnType::json_of(field).unwrap_or(ColumnType::Text),
            DataType::Binary => ColumnType::Bytea,
            DataType::FixedSizeBinary(UUID_BYTES) => ColumnType::Uuid,
            DataType::Date32 => ColumnType::Date,
            DataType::Time64(TimeUnit::Microsecond) => ColumnType::Time,
            DataType::Timestamp(TimeUnit::Microsecond, None) => ColumnType::Timestamp,
            DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if **zone == *"UTC" => ColumnType::TimestampTz,
            DataType::Interval(IntervalUnit::MonthDayNano) => ColumnType::Interval,
            DataType::List(element) => ColumnType::of(element)?.array()?,
            _ => return None,
        })
    }

    /// Whether rows can be ordered by the column, and told apart.
    pub fn is_key(&self) -> bool {
        // PostgreSQL orders months by 30 days and days by 24 hours; nothing else here does.
        !matches!(self, ColumnType::Interval | ColumnType::Array(_))
    }

    /// Whether the column can be the time column of an event table.
    pub fn is_time(&self) -> bool {
        matches!(self, ColumnType::Timestamp | ColumnType::TimestampTz)
    }
}

/// The name PostgreSQL prints for the type.
impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ColumnType::SmallInt => "smallint",
            ColumnType::Integer => "integer",
            ColumnType::BigInt => "bigint",
            ColumnType::Real => "real",
            ColumnType::Double => "double precision",
            ColumnType::Numeric { precision, scale } => return write!(f, "numeric({precision},{scale})"),
            ColumnType::Boolean => "boolean",
            ColumnType::Text => "text",
            ColumnType::Bytea => "bytea",
            ColumnType::Uuid => "uuid",
            ColumnType::Json => "json",
            ColumnType::Jsonb => "jsonb",
            ColumnType::Date => "date",
            ColumnType::Time => "time without time zone",
            ColumnType::Timestamp => "timestamp without time zone",
            ColumnType::TimestampTz => "timestamp with time zone",
            ColumnType::Interval => "interval",
            ColumnType::Array(element) => return write!(f, "{}[]", element.get()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_tells_its_type() {
        let plain = [
            ColumnType::SmallInt,
            ColumnType::Integer,
            ColumnType::BigInt,
            ColumnType::Real,
            ColumnType::Double,
            ColumnType::Numeric { precision: 10, scale: 2 },
            ColumnType::Boolean,
            ColumnType::Text,
            ColumnType::Bytea,
            ColumnType::Uuid,
            ColumnType::Json,
            ColumnType::Jsonb,
            ColumnType::Date,
            ColumnType::Time,
            ColumnType::Timestamp,
            ColumnType::TimestampTz,
            ColumnType::Interval,
        ];
        let arrays = plain.iter().filter_map(|element| element.array());
        for column_type in plain.into_iter().chain(arrays) {
            assert_eq!(ColumnType::of(&column_type.field("x", true)), Some(column_type));
        }
        for other in [DataType::UInt8, DataType::Timestamp(TimeUnit::Second, None), DataType::FixedSizeBinary(4)] {
            assert_eq!(ColumnType::of(&Field::new("x", other, true)), None);
        }
    }
}
