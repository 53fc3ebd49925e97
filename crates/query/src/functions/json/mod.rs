//! Functions and operators that look into JSON, and that make it.

mod build;
mod cast;
mod change;
mod normal;
mod operators;
mod order;
mod parts;
mod tree;
mod value;

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

pub(crate) use build::{LINES, LIST, OBJECT, ROW};
pub(crate) use cast::from_jsonb;
pub(crate) use normal::normal;
pub(crate) use operators::JsonOperators;
pub(crate) use order::order_key;

/// All functions.
pub(super) fn all() -> impl Iterator<Item = Arc<ScalarUDF>> {
    parts::all().into_iter().chain(build::all()).chain(change::all())
}
