//! Functions of the library under the names that PostgreSQL has for them.

use std::sync::Arc;

use datafusion::functions::math;
use datafusion::functions_aggregate::bool_and_or::bool_and_udaf;
use datafusion::functions_aggregate::variance::var_samp_udaf;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

/// `sign`, `ceiling`.
pub(super) fn scalar() -> Vec<Arc<ScalarUDF>> {
    let named = |function: Arc<ScalarUDF>, name| Arc::new(function.as_ref().clone().with_aliases([name]));
    vec![named(math::signum(), "sign"), named(math::ceil(), "ceiling")]
}

/// `every`, `variance`.
pub(super) fn aggregate() -> Vec<Arc<AggregateUDF>> {
    let named = |function: Arc<AggregateUDF>, name| Arc::new(function.as_ref().clone().with_aliases([name]));
    vec![named(bool_and_udaf(), "every"), named(var_samp_udaf(), "variance")]
}
