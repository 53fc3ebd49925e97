//! `annal.flush([table])`: brings the rows in memory into segments, and returns once they are there.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::DataType;
use async_trait::async_trait;
use cluster::Node;
use datafusion::common::utils::take_function_args;
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use crate::error::Error;

/// Whole groups are flushed: the table named must exist, and its neighbours in the group are flushed with it.
#[derive(Debug)]
pub(crate) struct Flush {
    node: Arc<Node>,
    signature: Signature,
}

impl Flush {
    pub(crate) fn new(node: Arc<Node>) -> Flush {
        let signatures = vec![TypeSignature::Nullary, TypeSignature::Exact(vec![DataType::Utf8])];
        Flush { node, signature: Signature::one_of(signatures, Volatility::Volatile) }
    }

    pub(crate) fn into_scalar_udf(self) -> ScalarUDF {
        AsyncScalarUDF::new(Arc::new(self)).into_scalar_udf()
    }

    fn check_table(&self, name: &str) -> Result<()> {
        let (namespace, table) = name.split_once('.').unwrap_or(("public", name));
        match self.node.catalog().table(namespace, table) {
            Some(_) => Ok(()),
            None => Err(super::no_such_table(name)),
        }
    }
}

/// All instances on one node are the same function.
impl PartialEq for Flush {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.node, &other.node)
    }
}

impl Eq for Flush {}

impl Hash for Flush {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.node).hash(state);
    }
}

impl ScalarUDFImpl for Flush {
    fn name(&self) -> &'static str {
        "annal.flush"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("\"annal.flush\" is asynchronous")
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Flush {
    async fn invoke_async_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if !arguments.args.is_empty() {
            let [table] = take_function_args(self.name(), arguments.args)?;
            for name in table
                .into_array(arguments.number_rows)?
                .as_any()
                .downcast_ref::<arrow::array::StringArray>()
                .into_iter()
                .flatten()
            {
                match name {
                    Some(name) => self.check_table(name)?,
                    None => return Err(super::null_refused("the table to flush must not be NULL")),
                }
            }
        }
        self.node.flush().await.map_err(Error::in_plan)?;
        Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))))
    }
}
