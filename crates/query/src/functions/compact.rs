//! `annal.compact(table)`: merges the segments of each split into one, and returns once that is done.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use cluster::Node;
use datafusion::common::utils::take_function_args;
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// Rows in memory stay there; `annal.flush` brings them into segments first.
#[derive(Debug)]
pub(crate) struct Compact {
    node: Arc<Node>,
    signature: Signature,
}

impl Compact {
    pub(crate) fn new(node: Arc<Node>) -> Compact {
        Compact { node, signature: Signature::exact(vec![DataType::Utf8], Volatility::Volatile) }
    }

    pub(crate) fn into_scalar_udf(self) -> ScalarUDF {
        AsyncScalarUDF::new(Arc::new(self)).into_scalar_udf()
    }

    async fn compact(&self, name: &str) -> Result<()> {
        let (namespace, table) = name.split_once('.').unwrap_or(("public", name));
        let external = |error: cluster::Error| DataFusionError::External(Box::new(error));
        let catalog = self.node.catalog();
        let Some(table) = catalog.table(namespace, table) else {
            return Err(super::no_such_table(name));
        };
        self.node.compact(table).await.map_err(external)
    }
}

/// All instances on one node are the same function.
impl PartialEq for Compact {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.node, &other.node)
    }
}

impl Eq for Compact {}

impl Hash for Compact {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.node).hash(state);
    }
}

impl ScalarUDFImpl for Compact {
    fn name(&self) -> &'static str {
        "annal.compact"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("\"annal.compact\" is asynchronous")
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Compact {
    async fn invoke_async_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [table] = take_function_args(self.name(), arguments.args)?;
        let names = table.into_array(arguments.number_rows)?;
        for name in names.as_string::<i32>() {
            match name {
                Some(name) => self.compact(name).await?,
                None => return Err(super::null_refused("the table to compact must not be NULL")),
            }
        }
        Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))))
    }
}
