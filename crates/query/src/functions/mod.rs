//! Functions beyond DataFusion's own: buckets of time, values by time, and those that act on the node.

use std::sync::Arc;

use cluster::Node;
use datafusion::common::DataFusionError;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

use crate::error::{Condition, Error};

mod age;
mod all_elements;
pub(crate) mod arithmetic;
mod array_dims;
mod array_fill;
mod array_of;
mod average;
mod average_exact;
pub(crate) mod beside_parameter;
pub(crate) mod beside_text;
mod bounded;
mod by_time;
mod bytes;
mod cast_named;
mod checked;
mod compact;
mod date_trunc;
mod domain;
mod drop_chunks;
mod extract;
pub(crate) mod float_digits;
mod flush;
pub(crate) mod forms;
mod from_char;
pub(crate) mod interval;
mod interval_format;
mod join_token;
pub(crate) mod json;
mod justify;
mod make_time;
mod manifest;
mod maybe;
mod now;
mod number_format;
pub(crate) mod numeric;
pub(crate) mod one_type;
mod only;
mod operate;
mod or_empty;
mod ordered;
mod other_names;
mod quantified;
mod quote;
mod random_uuid;
pub(crate) mod regexp;
mod retention;
mod round_time;
mod row_text;
mod series;
mod shift;
mod show_chunks;
mod sleep;
pub(crate) mod subscript;
mod textcat;
mod time_bucket;
mod to_char;
mod to_number;
mod width_bucket;

pub(crate) use array_of::{ARRAY_OF, ELEMENT_OF};
pub(crate) use bytes::BytesSubstring;
pub(crate) use cast_named::CAST_NAMED;
pub(crate) use date_trunc::is_within_day;
pub(crate) use extract::EXTRACT;
pub(crate) use maybe::MAYBE;
pub(crate) use only::only;
pub(crate) use or_empty::OR_EMPTY;
pub(crate) use ordered::{FRACTION, MODE};
pub(crate) use quantified::{ALL, ANY, knows as knows_quantified};
pub(crate) use round_time::ROUND_TIME;
pub(crate) use row_text::{RECORD, row_text};
pub(crate) use shift::shift;
pub(crate) use show_chunks::CHUNKS;
pub(crate) use textcat::textcat;

/// What is added to DataFusion's functions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Functions {
    /// One row in, one value out.
    pub(crate) scalar: Vec<Arc<ScalarUDF>>,
    /// Many rows in, one value out.
    pub(crate) aggregate: Vec<Arc<AggregateUDF>>,
}

/// What PostgreSQL says of arguments that a function refuses.
pub(crate) fn refused(condition: Condition, message: impl Into<String>) -> DataFusionError {
    DataFusionError::External(Box::new(Error::report(condition, message)))
}

/// The refusal of a NULL where a function needs a value.
fn null_refused(message: &str) -> DataFusionError {
    refused(Condition::NullValueNotAllowed, message)
}

/// The refusal of a name that is no table's. What an open block has made is not there for functions that act on the node.
fn no_such_table(name: &str) -> DataFusionError {
    let hint = "A table that was made in the open block is found by this function after COMMIT.";
    let message = format!("relation \"{name}\" does not exist");
    DataFusionError::External(Box::new(Error::hinted(Condition::UndefinedTable, message, hint)))
}

impl Functions {
    /// Those that need no node.
    pub(crate) fn pure() -> Functions {
        Functions {
            scalar: vec![
                Arc::new(time_bucket::time_bucket()),
                Arc::new(date_trunc::date_trunc()),
                Arc::new(to_char::to_char()),
                Arc::new(to_number::to_number()),
                Arc::new(random_uuid::gen_random_uuid()),
                Arc::new(array_dims::array_dims()),
                Arc::new(array_fill::array_fill()),
                Arc::new(cast_named::cast_named()),
                Arc::new(maybe::maybe()),
                Arc::new(or_empty::or_empty()),
                Arc::new(round_time::round_time()),
                Arc::new(age::age()),
                Arc::new(now::now()),
                Arc::new(now::clock_timestamp()),
                Arc::new(sleep::pg_sleep()),
                Arc::new(width_bucket::width_bucket()),
            ]
            .into_iter()
            .chain(array_of::all().map(Arc::new))
            .chain(all_elements::all())
            .chain(bounded::all())
            .chain(bytes::all())
            .chain(domain::all())
            .chain([numeric::div(), textcat()])
            .chain(extract::all())
            .chain(json::all())
            .chain(from_char::all())
            .chain(ordered::all())
            .chain(quantified::all())
            .chain(quote::all())
            .chain(regexp::all())
            .chain(justify::all())
            .chain(make_time::all())
            .chain(one_type::all().map(Arc::new))
            .chain(other_names::scalar())
            .collect(),
            aggregate: vec![first(), last(), Arc::new(average::average())]
                .into_iter()
                .chain(other_names::aggregate())
                .collect(),
        }
    }
}

/// The functions that put text in quotes, of which the catalog's library has others.
pub(crate) fn quoting() -> Vec<Arc<ScalarUDF>> {
    quote::all().into_iter().collect()
}

/// `first(value, time)`.
pub(crate) fn first() -> Arc<AggregateUDF> {
    Arc::new(by_time::first())
}

/// `last(value, time)`.
pub(crate) fn last() -> Arc<AggregateUDF> {
    Arc::new(by_time::last())
}

/// All functions, those that act on `node` among them.
pub(crate) fn of_node(node: &Arc<Node>) -> Functions {
    let mut functions = Functions::pure();
    functions.scalar.push(Arc::new(compact::Compact::new(Arc::clone(node)).into_scalar_udf()));
    functions.scalar.push(Arc::new(drop_chunks::DropChunks::new(Arc::clone(node)).into_scalar_udf()));
    functions.scalar.push(Arc::new(show_chunks::ShowChunks::new(Arc::clone(node)).into_scalar_udf()));
    functions.scalar.push(Arc::new(flush::Flush::new(Arc::clone(node)).into_scalar_udf()));
    functions.scalar.push(Arc::new(join_token::MakeJoinToken::new(Arc::clone(node)).into_scalar_udf()));
    functions.scalar.push(Arc::new(manifest::Manifest::new(Arc::clone(node)).into_scalar_udf()));
    for operation in operate::Operation::ALL {
        functions.scalar.push(Arc::new(operate::Operate::new(Arc::clone(node), operation).into_scalar_udf()));
    }
    functions.scalar.push(Arc::new(retention::Retention::adding(Arc::clone(node)).into_scalar_udf()));
    functions.scalar.push(Arc::new(retention::Retention::removing(Arc::clone(node)).into_scalar_udf()));
    functions
}
