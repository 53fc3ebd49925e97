//! `drop_chunks(table, older_than)`: forgets the splits whose window ended before a time; answers with how many.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, TimestampMicrosecondArray};
use arrow::compute::kernels::numeric::sub;
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit, TimestampMicrosecondType};
use async_trait::async_trait;
use cluster::Node;
use datafusion::common::utils::take_function_args;
use datafusion::common::{Result, internal_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use crate::error::{Condition, Error};

pub(super) const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// The type of a time that bounds splits.
pub(super) fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The times that bounds stand for, in microseconds: intervals are counted back from `now_us`.
///
/// # Errors
/// For an interval that leads beyond all times.
pub(super) fn moments(bounds: &ArrayRef, now_us: i64) -> Result<Vec<Option<i64>>> {
    let times = match bounds.data_type() {
        DataType::Interval(_) => sub(&TimestampMicrosecondArray::from(vec![now_us; bounds.len()]), bounds)?,
        _ => Arc::clone(bounds),
    };
    Ok(times.as_primitive::<TimestampMicrosecondType>().iter().collect())
}

/// `older_than` is a time, or an interval that is counted back from now. Late rows may begin such a window anew.
#[derive(Debug)]
pub(crate) struct DropChunks {
    node: Arc<Node>,
    signature: Signature,
}

impl DropChunks {
    pub(crate) fn new(node: Arc<Node>) -> DropChunks {
        let exact = |older_than| TypeSignature::Exact(vec![DataType::Utf8, older_than]);
        // Whatever can become one of these does, the first that fits.
        let signature = Signature::one_of(vec![exact(INTERVAL), exact(time())], Volatility::Volatile);
        let signature = signature.with_parameter_names(vec!["relation", "older_than"]);
        DropChunks { node, signature: signature.expect("both signatures have two parameters") }
    }

    pub(crate) fn into_scalar_udf(self) -> ScalarUDF {
        AsyncScalarUDF::new(Arc::new(self)).into_scalar_udf()
    }

    async fn drop_chunks(&self, name: &str, before_us: i64) -> Result<u64> {
        let (namespace, table) = name.split_once('.').unwrap_or(("public", name));
        let external = |error: cluster::Error| DataFusionError::External(Box::new(error));
        let catalog = self.node.catalog();
        let Some(table) = catalog.table(namespace, table) else {
            return Err(super::no_such_table(name));
        };
        if table.definition.event().is_none() {
            let message = format!("table \"{name}\" is not split by time");
            return Err(DataFusionError::External(Box::new(Error::report(Condition::WrongObjectType, message))));
        }
        self.node.drop_splits(table, before_us).await.map_err(external)
    }
}

/// All instances on one node are the same function.
impl PartialEq for DropChunks {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.node, &other.node)
    }
}

impl Eq for DropChunks {}

impl Hash for DropChunks {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.node).hash(state);
    }
}

impl ScalarUDFImpl for DropChunks {
    fn name(&self) -> &'static str {
        "drop_chunks"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("\"drop_chunks\" is asynchronous")
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for DropChunks {
    async fn invoke_async_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let [table, older_than] = take_function_args(self.name(), arguments.args)?;
        let (names, older_than) = (table.into_array(rows)?, older_than.into_array(rows)?);
        let mut dropped = Vec::with_capacity(rows);
        for (name, before_us) in names.as_string::<i32>().iter().zip(moments(&older_than, self.node.now_us())?) {
            let (Some(name), Some(before_us)) = (name, before_us) else {
                return Err(super::null_refused("neither the table nor older_than may be NULL"));
            };
            dropped.push(self.drop_chunks(name, before_us).await? as i64);
        }
        Ok(ColumnarValue::Array(Arc::new(Int64Array::from(dropped))))
    }
}
