//! Functions and operators that look into JSON, and that make it.

mod build;
mod operators;
mod parts;
mod value;

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

pub(crate) use build::{LIST, OBJECT};
pub(crate) use operators::JsonOperators;

/// All functions.
pub(super) fn all() -> impl Iterator<Item = Arc<ScalarUDF>> {
    parts::all().into_iter().chain(build::all())
}
