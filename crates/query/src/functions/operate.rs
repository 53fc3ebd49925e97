//! `annal.transfer_leader(group, node)`, `annal.move_replica(group, from, to)`, `annal.remove_node(node)` and `annal.scrub(table)`: the cluster tended through SQL.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};
use async_trait::async_trait;
use cluster::Node;
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use event::{GroupId, NodeId};

use crate::error::{Condition, Error};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    /// Gives the lead of a group to a node; true once that one leads.
    TransferLeader,
    /// Moves a replica that votes from a node to another; true once it votes there.
    MoveReplica,
    /// Takes a node out of the cluster; true once it is out of the catalog.
    RemoveNode,
    /// Reads all segments of a table on every node; how many were damaged and are another node's by now.
    Scrub,
}

impl Operation {
    pub(crate) const ALL: [Operation; 4] =
        [Operation::TransferLeader, Operation::MoveReplica, Operation::RemoveNode, Operation::Scrub];
}

/// One of these functions.
#[derive(Debug)]
pub(crate) struct Operate {
    node: Arc<Node>,
    operation: Operation,
    signature: Signature,
}

impl Operate {
    pub(crate) fn new(node: Arc<Node>, operation: Operation) -> Operate {
        let types = match operation {
            Operation::TransferLeader => vec![DataType::Int64, DataType::Int64],
            Operation::MoveReplica => vec![DataType::Int64; 3],
            Operation::RemoveNode => vec![DataType::Int64],
            Operation::Scrub => vec![DataType::Utf8],
        };
        Operate { node, operation, signature: Signature::exact(types, Volatility::Volatile) }
    }

    pub(crate) fn into_scalar_udf(self) -> ScalarUDF {
        AsyncScalarUDF::new(Arc::new(self)).into_scalar_udf()
    }

    async fn scrub(&self, name: &str) -> Result<i64> {
        let (namespace, table) = name.split_once('.').unwrap_or(("public", name));
        let catalog = self.node.catalog();
        let Some(table) = catalog.table(namespace, table) else {
            return Err(super::no_such_table(name));
        };
        let mut mended = 0;
        for found in self.node.scrub(table).await.map_err(Error::in_plan)? {
            let node = found.node;
            let scrubbed = found.scrubbed.map_err(Error::in_plan)?;
            if let Some(reason) = scrubbed.damaged.first() {
                return Err(damaged(&format!("node {node}: {reason}")));
            }
            if let Some(shard) = found.differs.first() {
                return Err(damaged(&format!("node {node} has another state of shard {shard} than its leader")));
            }
            mended += scrubbed.mended.len() as i64;
        }
        Ok(mended)
    }

    async fn one(&self, arguments: &[ArrayRef], row: usize) -> Result<i64> {
        if arguments.iter().any(|argument| argument.is_null(row)) {
            return Err(super::null_refused("an argument of this function must not be NULL"));
        }
        let number = |at: usize| arguments[at].as_primitive::<Int64Type>().value(row) as u64;
        match self.operation {
            Operation::TransferLeader => {
                let done = self.node.transfer_leader(GroupId(number(0)), NodeId(number(1))).await;
                done.map(|()| 1).map_err(Error::in_plan)
            }
            Operation::MoveReplica => {
                let (group, from, to) = (GroupId(number(0)), NodeId(number(1)), NodeId(number(2)));
                self.node.move_replica(group, from, to).await.map(|()| 1).map_err(Error::in_plan)
            }
            Operation::RemoveNode => self.node.remove_node(NodeId(number(0))).await.map(|()| 1).map_err(Error::in_plan),
            Operation::Scrub => self.scrub(arguments[0].as_string::<i32>().value(row)).await,
        }
    }
}

fn damaged(message: &str) -> datafusion::common::DataFusionError {
    datafusion::common::DataFusionError::External(Box::new(Error::report(Condition::DataCorrupted, message)))
}

/// All instances of one function on one node are the same.
impl PartialEq for Operate {
    fn eq(&self, other: &Self) -> bool {
        self.operation == other.operation && Arc::ptr_eq(&self.node, &other.node)
    }
}

impl Eq for Operate {}

impl Hash for Operate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.operation.hash(state);
        Arc::as_ptr(&self.node).hash(state);
    }
}

impl ScalarUDFImpl for Operate {
    fn name(&self) -> &'static str {
        match self.operation {
            Operation::TransferLeader => "annal.transfer_leader",
            Operation::MoveReplica => "annal.move_replica",
            Operation::RemoveNode => "annal.remove_node",
            Operation::Scrub => "annal.scrub",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(match self.operation {
            Operation::TransferLeader | Operation::MoveReplica | Operation::RemoveNode => DataType::Boolean,
            Operation::Scrub => DataType::Int64,
        })
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("\"{}\" is asynchronous", self.name())
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Operate {
    async fn invoke_async_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let columns = arguments.args.into_iter().map(|argument| argument.into_array(rows));
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        let mut values = Vec::with_capacity(rows);
        for row in 0..rows {
            values.push(self.one(&columns, row).await?);
        }
        Ok(ColumnarValue::Array(match self.operation {
            Operation::Scrub => Arc::new(Int64Array::from(values)),
            _ => Arc::new(values.iter().map(|value| Some(*value == 1)).collect::<BooleanArray>()),
        }))
    }
}
