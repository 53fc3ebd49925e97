//! The numbers by which formats know the column types.

use crate::element::ElementType;
use crate::types::ColumnType;

const NUMERIC: u8 = 11;
/// Added to the number of an array's elements.
const ARRAY: u8 = 64;

impl ColumnType {
    /// Number, precision and scale; the last two are 0 but for numeric.
    pub fn code(self) -> [u8; 3] {
        let number = match self {
            ColumnType::SmallInt => 1,
            ColumnType::Integer => 2,
            ColumnType::BigInt => 3,
            ColumnType::Real => 4,
            ColumnType::Double => 5,
            ColumnType::Boolean => 6,
            ColumnType::Text => 7,
            ColumnType::Date => 8,
            ColumnType::Timestamp => 9,
            ColumnType::TimestampTz => 10,
            ColumnType::Numeric { precision, scale } => return [NUMERIC, precision, scale.to_le_bytes()[0]],
            ColumnType::Bytea => 12,
            ColumnType::Uuid => 13,
            ColumnType::Json => 14,
            ColumnType::Jsonb => 15,
            ColumnType::Time => 16,
            ColumnType::Interval => 17,
            ColumnType::Array(element) => {
                let [number, precision, scale] = element.get().code();
                return [ARRAY | number, precision, scale];
            }
        };
        [number, 0, 0]
    }

    /// The reverse of [`ColumnType::code`]; `None` for bytes that it never gives.
    pub fn from_code([number, precision, scale]: [u8; 3]) -> Option<ColumnType> {
        if number & ARRAY != 0 {
            let element = ColumnType::from_code([number & !ARRAY, precision, scale])?;
            return ElementType::new(element).map(ColumnType::Array);
        }
        let exponent = i8::from_le_bytes([scale]);
        if number == NUMERIC {
            let fits = (1..=38).contains(&precision) && (0..=precision as i8).contains(&exponent);
            return fits.then_some(ColumnType::Numeric { precision, scale: exponent });
        }
        Some(match number {
            1 => ColumnType::SmallInt,
            2 => ColumnType::Integer,
            3 => ColumnType::BigInt,
            4 => ColumnType::Real,
            5 => ColumnType::Double,
            6 => ColumnType::Boolean,
            7 => ColumnType::Text,
            8 => ColumnType::Date,
            9 => ColumnType::Timestamp,
            10 => ColumnType::TimestampTz,
            12 => ColumnType::Bytea,
            13 => ColumnType::Uuid,
            14 => ColumnType::Json,
            15 => ColumnType::Jsonb,
            16 => ColumnType::Time,
            17 => ColumnType::Interval,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_of_one_type() {
        let mut found = 0;
        for number in 0..=255 {
            for (precision, scale) in [(0, 0), (10, 2), (38, 38)] {
                if let Some(column_type) = ColumnType::from_code([number, precision, scale]) {
                    assert_eq!(column_type.code()[0], number);
                    assert_eq!(ColumnType::from_code(column_type.code()), Some(column_type));
                    found += 1;
                }
            }
        }
        // 16 types and their arrays thrice, numeric and its arrays twice.
        assert_eq!(found, 16 * 2 * 3 + 2 * 2);
        assert_eq!(ColumnType::from_code([NUMERIC, 2, 3]), None, "more digits after the point than in all");
    }
}
