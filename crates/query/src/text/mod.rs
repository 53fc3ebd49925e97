//! PostgreSQL's text forms: from what a client wrote to a value of a column's type, and ([`mod@write`]) back.
//!
//! Reading is used by COPY, by literals in VALUES and by text parameters, so that all three accept and refuse the same.

mod array;
pub(crate) mod base64;
mod builder;
mod bytes;
mod interval;
mod json;
pub(crate) mod modifier;
mod number;
mod parameter;
mod time;
pub mod write;
mod zone;

pub(crate) use builder::parse_json;
pub use builder::{ColumnBuilder, JSONB_VERSION, parse_scalar};
pub(crate) use bytes::{escape, parse_bytea, parse_escape, parse_hexadecimal};
pub use interval::parse_interval;
pub(crate) use number::parse_decimal;
pub use number::parse_numeric;
pub use parameter::{numerics_of, parse_parameter};
pub(crate) use time::{DAY_US, US_PER_SECOND};
pub use time::{parse_date, parse_time, parse_timestamp, parse_timestamptz};
pub use zone::Zone;

use crate::error::{Condition, Report};

/// Why a text is no value of a type.
pub(crate) type Refused = Box<Report>;

pub(crate) fn refused(condition: Condition, message: String) -> Refused {
    Box::new(Report::new(condition, message))
}

/// `invalid input syntax for type integer: "x"`
pub(crate) fn invalid(type_name: &str, text: &str) -> Refused {
    refused(Condition::InvalidTextRepresentation, format!("invalid input syntax for type {type_name}: \"{text}\""))
}
