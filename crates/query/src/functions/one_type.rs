//! `coalesce`, `greatest`, `least`: the library's, with text beside a value of another type for one of that type, as a text that is written is one:
//! `coalesce(max(ts), '2024-01-01')`. The same of the elements of `ARRAY[ts, '2024-01-01']`.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::functions::core;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, cast,
};
use event::ColumnType;

/// What they are called.
pub(crate) const OF_ONE_TYPE: [&str; 3] = ["coalesce", "greatest", "least"];

/// All of them.
pub(super) fn all() -> [ScalarUDF; 3] {
    [core::coalesce(), core::greatest(), core::least()]
        .map(|theirs| ScalarUDF::from(OfOneType { theirs, signature: Signature::user_defined(Volatility::Immutable) }))
}

/// Plans arrays of such elements.
#[derive(Debug)]
pub(crate) struct ElementsOfOneType;

impl ExprPlanner for ElementsOfOneType {
    fn plan_array_literal(&self, elements: Vec<Expr>, schema: &DFSchema) -> Result<PlannerResult<Vec<Expr>>> {
        let is_typed = |data_type: &DataType| !data_type.is_null() && !data_type.is_string() && !data_type.is_decimal();
        let other = elements.iter().find_map(|element| element.get_type(schema).ok().filter(is_typed));
        let read = |element: Expr| match (&element, &other) {
            (Expr::Literal(ScalarValue::Utf8(Some(_)), _), Some(other)) => cast(element, other.clone()),
            _ => element,
        };
        Ok(PlannerResult::Original(elements.into_iter().map(read).collect()))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfOneType {
    theirs: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for OfOneType {
    fn name(&self) -> &str {
        self.theirs.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.theirs.return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let json = arguments.arg_fields.iter().find(|field| ColumnType::json_of(field).is_some());
        let metadata = json.map(|field| field.metadata().clone());
        let field = self.theirs.return_field_from_args(arguments)?;
        Ok(match metadata {
            Some(metadata) => Arc::new(field.as_ref().clone().with_metadata(metadata)),
            None => field,
        })
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let other = arguments.iter().find(|argument| !argument.is_null() && !argument.is_string());
        let Some(other) = other else { return self.theirs.inner().coerce_types(arguments) };
        let read = |argument: &DataType| if argument.is_string() { other } else { argument }.clone();
        let read: Vec<DataType> = arguments.iter().map(read).collect();
        // The library finds no type for two of some types that it has in common.
        match read.iter().all(|argument| argument == other || argument.is_null()) {
            true => Ok(vec![other.clone(); arguments.len()]),
            false => self.theirs.inner().coerce_types(&read),
        }
    }

    fn simplify(&self, arguments: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.theirs.simplify(arguments, info)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.theirs.invoke_with_args(arguments)
    }

    fn conditional_arguments<'a>(&self, arguments: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.theirs.conditional_arguments(arguments)
    }

    fn short_circuits(&self) -> bool {
        self.theirs.short_circuits()
    }
}
