//! Fewer rows at a time where a statement has large constants: an operator may make an array of one, with a copy for each row of a batch.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan};

/// What the copies of all constants of a batch may take.
const COPIES_BYTES_MAX: usize = 256 << 20;
/// A constant that counts.
const BYTES_MIN: usize = 1 << 10;

/// The most rows of a batch, `rows` unless constants are too large for so many.
///
/// # Errors
/// None but those of the plan's own.
pub(super) fn batch_rows(plan: &LogicalPlan, rows: usize) -> Result<usize> {
    let mut bytes = 0;
    plan.apply_with_subqueries(|plan| {
        // Its rows are what is written.
        if matches!(plan, LogicalPlan::Values(_)) {
            return Ok(TreeNodeRecursion::Continue);
        }
        plan.apply_expressions(|expr| {
            expr.apply(|part| {
                bytes += size(part);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(COPIES_BYTES_MAX.checked_div(bytes).map_or(rows, |fitting| fitting.clamp(1, rows)))
}

fn size(expr: &Expr) -> usize {
    let Expr::Literal(value, _) = expr else { return 0 };
    let bytes = match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            text.len()
        }
        ScalarValue::Binary(Some(bytes)) | ScalarValue::LargeBinary(Some(bytes)) => bytes.len(),
        ScalarValue::List(_) => value.size(),
        _ => 0,
    };
    if bytes < BYTES_MIN { 0 } else { bytes }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{LogicalPlanBuilder, lit};

    use super::*;

    fn rows(constants: &[usize]) -> usize {
        let constants = constants.iter().enumerate();
        let named = constants.map(|(at, bytes)| lit("x".repeat(*bytes)).alias(at.to_string()));
        let plan = LogicalPlanBuilder::empty(true).project(named).unwrap().build().unwrap();
        batch_rows(&plan, 8192).unwrap()
    }

    #[test]
    fn large_constants_come_with_few_rows() {
        assert_eq!(rows(&[1, 1000]), 8192);
        assert_eq!(rows(&[32 << 10]), 8192);
        assert_eq!(rows(&[256 << 10]), 1024);
        assert_eq!(rows(&[64 << 20, 64 << 20]), 2);
        assert_eq!(rows(&[200 << 20]), 1);
    }
}
