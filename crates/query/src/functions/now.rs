//! `now()`, a timestamptz: when the transaction began; and `clock_timestamp()`, which goes on within a statement.

use std::sync::Arc;

use arrow::array::TimestampMicrosecondArray;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// `now()`, also as `current_timestamp` and `transaction_timestamp()`.
pub(super) fn now() -> ScalarUDF {
    ScalarUDF::from(Now {
        signature: Signature::nullary(Volatility::Stable),
        aliases: ["current_timestamp", "transaction_timestamp"].map(str::to_owned).into(),
    })
}

/// `clock_timestamp()`.
pub(super) fn clock_timestamp() -> ScalarUDF {
    ScalarUDF::from(ClockTimestamp(Signature::nullary(Volatility::Volatile)))
}

fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Now {
    signature: Signature,
    aliases: Vec<String>,
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &'static str {
        "now"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(instant())
    }

    /// The statement's moment is known when it is planned.
    fn simplify(&self, arguments: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let Some(moment) = context.query_execution_start_time() else {
            return Ok(ExprSimplifyResult::Original(arguments));
        };
        let moment = ScalarValue::TimestampMicrosecond(Some(moment.timestamp_micros()), Some("UTC".into()));
        Ok(ExprSimplifyResult::Simplified(Expr::Literal(moment, None)))
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("\"now\" is a literal once it is planned")
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ClockTimestamp(Signature);

impl ScalarUDFImpl for ClockTimestamp {
    fn name(&self) -> &'static str {
        "clock_timestamp"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(instant())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let times = (0..arguments.number_rows).map(|_| chrono::Utc::now().timestamp_micros());
        let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC");
        Ok(ColumnarValue::Array(Arc::new(times)))
    }
}
