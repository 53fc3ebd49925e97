//! `show_chunks(table [, older_than, newer_than])`: the splits that have rows, one row for each. A statement that says so gets
//! `unnest(annal_chunks(table, older_than, newer_than))` in its place (`session/timescale.rs`); this is the function inside.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{AsArray, ListBuilder, StringBuilder};
use arrow::datatypes::{DataType, Field};
use async_trait::async_trait;
use cluster::Node;
use datafusion::common::utils::take_function_args;
use datafusion::common::{Result, internal_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use event::split::window_of;

use super::drop_chunks::{INTERVAL, moments, time};
use crate::error::{Condition, Error};

/// Its name.
pub(crate) const CHUNKS: &str = "annal_chunks";

/// See the module. Bounds are times, intervals that are counted back from now, or NULL for none.
#[derive(Debug)]
pub(crate) struct ShowChunks {
    node: Arc<Node>,
    signature: Signature,
}

impl ShowChunks {
    pub(crate) fn new(node: Arc<Node>) -> ShowChunks {
        let exact = |older_than: &DataType, newer_than: &DataType| {
            TypeSignature::Exact(vec![DataType::Utf8, older_than.clone(), newer_than.clone()])
        };
        let bounds = [INTERVAL, time()];
        let pairs = bounds.iter().flat_map(|older| bounds.iter().map(move |newer| exact(older, newer)));
        ShowChunks { node, signature: Signature::one_of(pairs.collect(), Volatility::Volatile) }
    }

    pub(crate) fn into_scalar_udf(self) -> ScalarUDF {
        AsyncScalarUDF::new(Arc::new(self)).into_scalar_udf()
    }

    /// The names of the splits whose window ends at or before `older_us` and begins at or after `newer_us`, in order of time.
    async fn chunks(&self, name: &str, older_us: Option<i64>, newer_us: Option<i64>) -> Result<Vec<String>> {
        let (namespace, table) = name.split_once('.').unwrap_or(("public", name));
        let catalog = self.node.catalog();
        let Some(table) = catalog.table(namespace, table) else {
            return Err(super::no_such_table(name));
        };
        let Some(options) = table.definition.event() else {
            let message = format!("table \"{name}\" is not split by time");
            return Err(DataFusionError::External(Box::new(Error::report(Condition::WrongObjectType, message))));
        };
        let snapshot = self.node.snapshot(table).await.map_err(Error::in_plan)?;
        let mut splits = BTreeSet::new();
        for shard in &snapshot.shards {
            splits.extend(shard.memory.iter().filter(|memory| memory.rows > 0).map(|memory| memory.split));
            splits.extend(shard.segments.iter().map(|segment| segment.meta.split));
        }
        splits.retain(|split| {
            let (start_us, end_us) = window_of(*split, options.split_interval_us);
            older_us.is_none_or(|older_us| end_us <= older_us) && newer_us.is_none_or(|newer_us| start_us >= newer_us)
        });
        let (namespace, table) = (&table.definition.namespace, &table.definition.name);
        Ok(splits.into_iter().map(|split| format!("{namespace}.{table}/{split}")).collect())
    }
}

/// All instances on one node are the same function.
impl PartialEq for ShowChunks {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.node, &other.node)
    }
}

impl Eq for ShowChunks {}

impl Hash for ShowChunks {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.node).hash(state);
    }
}

impl ScalarUDFImpl for ShowChunks {
    fn name(&self) -> &'static str {
        CHUNKS
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))))
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("\"show_chunks\" is asynchronous")
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for ShowChunks {
    async fn invoke_async_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let [tables, older_than, newer_than] = take_function_args(CHUNKS, arguments.args)?;
        let tables = tables.into_array(rows)?;
        let older_us = moments(&older_than.into_array(rows)?, self.node.now_us())?;
        let newer_us = moments(&newer_than.into_array(rows)?, self.node.now_us())?;
        let mut lists = ListBuilder::new(StringBuilder::new());
        for ((table, older_us), newer_us) in tables.as_string::<i32>().iter().zip(older_us).zip(newer_us) {
            let Some(table) = table else { return Err(super::null_refused("the table must not be NULL")) };
            for name in self.chunks(table, older_us, newer_us).await? {
                lists.values().append_value(name);
            }
            lists.append(true);
        }
        Ok(ColumnarValue::Array(Arc::new(lists.finish())))
    }
}
