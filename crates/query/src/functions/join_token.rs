//! `annal.join_token()`: a token with which one node can join the cluster.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::StringArray;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use cluster::Node;
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::error::Error;

/// How long a token holds, in microseconds: an hour.
const HOLDS_US: i64 = 3_600_000_000;

/// Each row has a token of its own.
#[derive(Debug)]
pub(crate) struct MakeJoinToken {
    node: Arc<Node>,
    signature: Signature,
}

impl MakeJoinToken {
    pub(crate) fn new(node: Arc<Node>) -> MakeJoinToken {
        MakeJoinToken { node, signature: Signature::nullary(Volatility::Volatile) }
    }

    pub(crate) fn into_scalar_udf(self) -> ScalarUDF {
        AsyncScalarUDF::new(Arc::new(self)).into_scalar_udf()
    }
}

/// All instances on one node are the same function.
impl PartialEq for MakeJoinToken {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.node, &other.node)
    }
}

impl Eq for MakeJoinToken {}

impl Hash for MakeJoinToken {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.node).hash(state);
    }
}

impl ScalarUDFImpl for MakeJoinToken {
    fn name(&self) -> &'static str {
        "annal.join_token"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("\"annal.join_token\" is asynchronous")
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for MakeJoinToken {
    async fn invoke_async_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut tokens = Vec::with_capacity(arguments.number_rows);
        for _ in 0..arguments.number_rows {
            let token = self.node.make_join_token(HOLDS_US).await.map_err(Error::in_plan)?;
            tokens.push(token.secret().to_owned());
        }
        Ok(ColumnarValue::Array(Arc::new(StringArray::from(tokens))))
    }
}
