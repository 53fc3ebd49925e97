//! `a[i]`: the element at that place, counted from one, or NULL where there is none. The library counts from the end where `i` is negative, and has a
//! call of its own for an element of `array_agg`, which takes less than an element of an array does.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::functions_nested::expr_fn::array_element;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawFieldAccessExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, GetFieldAccess, lit, when};

/// Plans elements of arrays.
#[derive(Debug)]
pub(crate) struct Subscripts;

impl ExprPlanner for Subscripts {
    fn plan_field_access(
        &self,
        access: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let RawFieldAccessExpr { field_access, expr } = access;
        let is_array = matches!(expr.get_type(schema), Ok(DataType::List(_) | DataType::LargeList(_)));
        match field_access {
            GetFieldAccess::ListIndex { key } if is_array => {
                let element = array_element(expr, from_one(*key)?);
                Ok(PlannerResult::Planned(element))
            }
            field_access => Ok(PlannerResult::Original(RawFieldAccessExpr { field_access, expr })),
        }
    }
}

/// The place, NULL where it is none.
fn from_one(place: Expr) -> Result<Expr> {
    match place {
        Expr::Literal(ScalarValue::Int64(Some(1..)), _) => Ok(place),
        place => when(place.clone().gt(lit(0_i64)), place).end(),
    }
}
