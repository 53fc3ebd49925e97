//! What a column's type says besides its kind: how long its texts may be, how fine its times are.

use serde::{Deserialize, Serialize};

/// The longest `varchar` that PostgreSQL lets anybody ask for, in characters.
pub const VARCHAR_LENGTH_MAX: u32 = 10_485_760;
/// Digits of a second's fraction that times are kept with.
pub const FRACTION_DIGITS_MAX: u8 = 6;
/// What PostgreSQL adds to the length in the number that stands for a type with it.
const LENGTH_HEADER: i32 = 4;

/// A modifier of a type, as PostgreSQL calls it. That of an array is of its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Modifier {
    /// `varchar`: text of at most so many characters, of any length when it is `None`.
    Varchar {
        /// At least 1.
        length: Option<u32>,
    },
    /// `timestamp(p)` and its like: digits of a second's fraction that are kept.
    Fraction {
        /// At most [`FRACTION_DIGITS_MAX`].
        digits: u8,
    },
}

impl Modifier {
    /// The number that stands for it in `pg_attribute`, -1 for none.
    pub fn number(self) -> i32 {
        match self {
            Modifier::Varchar { length: Some(length) } => length.cast_signed().saturating_add(LENGTH_HEADER),
            Modifier::Varchar { length: None } => -1,
            Modifier::Fraction { digits } => digits.into(),
        }
    }

    /// Whether every value that fits `from` fits `to`.
    pub fn widens(from: Option<Modifier>, to: Option<Modifier>) -> bool {
        let length = |modifier: Option<Modifier>| match modifier {
            Some(Modifier::Varchar { length: Some(length) }) => length,
            _ => u32::MAX,
        };
        let digits = |modifier: Option<Modifier>| match modifier {
            Some(Modifier::Fraction { digits }) => digits,
            _ => FRACTION_DIGITS_MAX,
        };
        length(from) <= length(to) && digits(from) <= digits(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_the_narrower_fits_the_wider() {
        let varchar = |length| Some(Modifier::Varchar { length });
        let fraction = |digits| Some(Modifier::Fraction { digits });
        for (from, to, widens) in [
            (None, None, true),
            (varchar(Some(3)), varchar(Some(4)), true),
            (varchar(Some(3)), None, true),
            (None, varchar(None), true),
            (varchar(Some(4)), varchar(Some(3)), false),
            (None, varchar(Some(3)), false),
            (fraction(3), None, true),
            (None, fraction(6), true),
            (None, fraction(3), false),
        ] {
            assert_eq!(Modifier::widens(from, to), widens, "{from:?} to {to:?}");
        }
    }
}
