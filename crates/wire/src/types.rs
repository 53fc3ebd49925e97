//! PostgreSQL's types: which one an Arrow column is sent as, and which Arrow type a parameter becomes.

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use event::{ColumnType, Modifier, UUID_BYTES};
use std::sync::Arc;

/// Text whose length is bounded, or was said not to be.
const VARCHAR_OID: u32 = 1043;
const VARCHAR_LIST_OID: u32 = 1015;

/// A type as clients know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    Boolean,
    Bytea,
    BigInt,
    SmallInt,
    Integer,
    Text,
    Json,
    Jsonb,
    Uuid,
    Oid,
    Real,
    Double,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    /// Digits after the point.
    Numeric {
        precision: u8,
        scale: i8,
    },
}

/// A scalar, or a list of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PgType {
    Scalar(Scalar),
    List(Scalar),
}

impl Scalar {
    /// Object id of the type.
    pub(crate) fn oid(self) -> u32 {
        match self {
            Scalar::Boolean => 16,
            Scalar::Bytea => 17,
            Scalar::BigInt => 20,
            Scalar::SmallInt => 21,
            Scalar::Integer => 23,
            Scalar::Text => 25,
            Scalar::Json => 114,
            Scalar::Jsonb => 3802,
            Scalar::Uuid => 2950,
            Scalar::Oid => 26,
            Scalar::Real => 700,
            Scalar::Double => 701,
            Scalar::Date => 1082,
            Scalar::Time => 1083,
            Scalar::Timestamp => 1114,
            Scalar::TimestampTz => 1184,
            Scalar::Interval => 1186,
            Scalar::Numeric { .. } => 1700,
        }
    }

    /// Object id of the array of the type.
    fn list_oid(self) -> u32 {
        match self {
            Scalar::Boolean => 1000,
            Scalar::Bytea => 1001,
            Scalar::BigInt => 1016,
            Scalar::SmallInt => 1005,
            Scalar::Integer => 1007,
            Scalar::Text => 1009,
            Scalar::Json => 199,
            Scalar::Jsonb => 3807,
            Scalar::Uuid => 2951,
            Scalar::Oid => 1028,
            Scalar::Real => 1021,
            Scalar::Double => 1022,
            Scalar::Date => 1182,
            Scalar::Time => 1183,
            Scalar::Timestamp => 1115,
            Scalar::TimestampTz => 1185,
            Scalar::Interval => 1187,
            Scalar::Numeric { .. } => 1231,
        }
    }

    /// Bytes of a value; -1 when they vary.
    fn size(self) -> i16 {
        match self {
            Scalar::Boolean => 1,
            Scalar::SmallInt => 2,
            Scalar::Integer | Scalar::Oid | Scalar::Real | Scalar::Date => 4,
            Scalar::BigInt | Scalar::Double | Scalar::Time | Scalar::Timestamp | Scalar::TimestampTz => 8,
            Scalar::Interval | Scalar::Uuid => 16,
            Scalar::Bytea | Scalar::Text | Scalar::Json | Scalar::Jsonb | Scalar::Numeric { .. } => -1,
        }
    }

    /// The Arrow type a column is brought to before it is encoded.
    pub(crate) fn arrow(self) -> DataType {
        match self {
            Scalar::Boolean => DataType::Boolean,
            Scalar::Bytea => DataType::Binary,
            Scalar::BigInt => DataType::Int64,
            Scalar::SmallInt => DataType::Int16,
            Scalar::Integer => DataType::Int32,
            Scalar::Text | Scalar::Json | Scalar::Jsonb => DataType::Utf8,
            Scalar::Uuid => DataType::FixedSizeBinary(UUID_BYTES),
            Scalar::Oid => DataType::UInt32,
            Scalar::Real => DataType::Float32,
            Scalar::Double => DataType::Float64,
            Scalar::Date => DataType::Date32,
            Scalar::Time => DataType::Time64(TimeUnit::Microsecond),
            Scalar::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Scalar::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Scalar::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Scalar::Numeric { precision, scale } => DataType::Decimal128(precision, scale),
        }
    }
}

impl PgType {
    /// Object id.
    pub(crate) fn oid(self) -> u32 {
        match self {
            PgType::Scalar(scalar) => scalar.oid(),
            PgType::List(element) => element.list_oid(),
        }
    }

    /// Bytes of a value; -1 when they vary.
    pub(crate) fn size(self) -> i16 {
        match self {
            PgType::Scalar(scalar) => scalar.size(),
            PgType::List(_) => -1,
        }
    }

    /// What the type alone does not say: precision and scale of a numeric, -1 otherwise.
    pub(crate) fn modifier(self) -> i32 {
        match self {
            PgType::Scalar(Scalar::Numeric { precision, scale }) if scale >= 0 => {
                ((i32::from(precision) << 16) | i32::from(scale)) + 4
            }
            _ => -1,
        }
    }

    /// How a column of this Arrow field is sent.
    pub(crate) fn of(field: &Field) -> PgType {
        match field.data_type() {
            DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
                PgType::List(scalar_of(element))
            }
            _ => PgType::Scalar(scalar_of(field)),
        }
    }
}

/// Object id and modifier with which a column is announced.
pub(crate) fn announced(field: &Field) -> (u32, i32) {
    let pg_type = PgType::of(field);
    match (pg_type, query::modifier_of(field)) {
        (PgType::Scalar(Scalar::Text), Some(length @ Modifier::Varchar { .. })) => (VARCHAR_OID, length.number()),
        (PgType::List(Scalar::Text), Some(length @ Modifier::Varchar { .. })) => (VARCHAR_LIST_OID, length.number()),
        (_, Some(digits @ Modifier::Fraction { .. })) => (pg_type.oid(), digits.number()),
        _ => (pg_type.oid(), pg_type.modifier()),
    }
}

fn scalar_of(field: &Field) -> Scalar {
    match ColumnType::json_of(field) {
        Some(ColumnType::Json) => Scalar::Json,
        Some(_) => Scalar::Jsonb,
        None => scalar_of_type(field.data_type()),
    }
}

fn scalar_of_type(data_type: &DataType) -> Scalar {
    match data_type {
        DataType::Boolean => Scalar::Boolean,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => Scalar::SmallInt,
        DataType::UInt16 | DataType::Int32 => Scalar::Integer,
        DataType::UInt32 => Scalar::Oid,
        DataType::Int64 | DataType::UInt64 => Scalar::BigInt,
        DataType::Float16 | DataType::Float32 => Scalar::Real,
        DataType::Float64 => Scalar::Double,
        DataType::Date32 | DataType::Date64 => Scalar::Date,
        DataType::Time32(_) | DataType::Time64(_) => Scalar::Time,
        DataType::Timestamp(_, None) => Scalar::Timestamp,
        DataType::Timestamp(_, Some(_)) => Scalar::TimestampTz,
        DataType::Interval(_) | DataType::Duration(_) => Scalar::Interval,
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => Scalar::Numeric { precision: *precision, scale: *scale },
        DataType::Decimal256(_, scale) => Scalar::Numeric { precision: 38, scale: *scale },
        DataType::FixedSizeBinary(UUID_BYTES) => Scalar::Uuid,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Scalar::Bytea,
        DataType::Dictionary(_, value) => scalar_of_type(value),
        _ => Scalar::Text,
    }
}

/// The Arrow field of a parameter whose type the client named by object id; `None` where the server shall infer it.
pub(crate) fn parameter(oid: u32) -> Option<FieldRef> {
    let scalar = match oid {
        16 => Scalar::Boolean,
        17 => Scalar::Bytea,
        20 => Scalar::BigInt,
        21 => Scalar::SmallInt,
        23 => Scalar::Integer,
        26 => Scalar::BigInt,
        18 | 19 | 25 | 1042 | 1043 => Scalar::Text,
        114 => return Some(Arc::new(ColumnType::Json.field("", true))),
        3802 => return Some(Arc::new(ColumnType::Jsonb.field("", true))),
        2950 => Scalar::Uuid,
        700 => Scalar::Real,
        701 => Scalar::Double,
        1082 => Scalar::Date,
        1083 => Scalar::Time,
        1114 => Scalar::Timestamp,
        1184 => Scalar::TimestampTz,
        1186 => Scalar::Interval,
        // Without a modifier: wide enough for what fits 38 digits.
        1700 => Scalar::Numeric { precision: 38, scale: 10 },
        other => {
            let array = query::binary::array_of(other)?;
            return Some(Arc::new(array.field("", true)));
        }
    };
    Some(Arc::new(Field::new("", scalar.arrow(), true)))
}
