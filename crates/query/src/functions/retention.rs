//! `add_retention_policy(table, drop_after)` and `remove_retention_policy(table)`: TimescaleDB's words for the option `retention`.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array};
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit};
use async_trait::async_trait;
use cluster::Node;
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use event::{SchemaVersion, TableDefinition, TableKind};

use super::refused;
use crate::error::{Condition, Error};

const US_PER_DAY: i64 = 86_400_000_000;
const NS_PER_US: i64 = 1_000;
/// TimescaleDB answers with the number of a job; here the table itself says it.
const JOB: i32 = 0;

/// One of the two.
#[derive(Debug)]
pub(crate) struct Retention {
    node: Arc<Node>,
    adds: bool,
    signature: Signature,
}

impl Retention {
    /// `add_retention_policy(relation, drop_after)`.
    pub(crate) fn adding(node: Arc<Node>) -> Retention {
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        let exact = TypeSignature::Exact(vec![DataType::Utf8, interval]);
        let signature = Signature::new(exact, Volatility::Volatile);
        let signature = signature.with_parameter_names(vec!["relation", "drop_after"]);
        Retention { node, adds: true, signature: signature.expect("the signature has two parameters") }
    }

    /// `remove_retention_policy(relation)`.
    pub(crate) fn removing(node: Arc<Node>) -> Retention {
        let signature = Signature::new(TypeSignature::Exact(vec![DataType::Utf8]), Volatility::Volatile);
        let signature = signature.with_parameter_names(vec!["relation"]);
        Retention { node, adds: false, signature: signature.expect("the signature has one parameter") }
    }

    pub(crate) fn into_scalar_udf(self) -> ScalarUDF {
        AsyncScalarUDF::new(Arc::new(self)).into_scalar_udf()
    }

    async fn set(&self, name: &str, retention_us: Option<i64>) -> Result<()> {
        let (namespace, table) = name.split_once('.').unwrap_or(("public", name));
        let catalog = self.node.catalog();
        let Some(table) = catalog.table(namespace, table) else {
            return Err(super::no_such_table(name));
        };
        let TableKind::Event(options) = &table.definition.kind else {
            return Err(refused(Condition::WrongObjectType, format!("table \"{name}\" is not split by time")));
        };
        let mut options = options.clone();
        match (options.retention_us, retention_us) {
            (Some(_), Some(_)) => {
                let message = format!("retention policy already exists for table \"{name}\"");
                return Err(refused(Condition::DuplicateObject, message));
            }
            (None, None) => {
                let message = format!("retention policy not found for table \"{name}\"");
                return Err(refused(Condition::UndefinedObject, message));
            }
            (_, next) => options.retention_us = next,
        }
        let version = SchemaVersion(table.definition.version.0 + 1);
        let next = TableDefinition { kind: TableKind::Event(options), version, ..table.definition.as_ref().clone() };
        self.node.alter_table(next).await.map(drop).map_err(Error::in_plan)
    }
}

/// The width of an interval that has one.
fn width_us(interval: IntervalMonthDayNano) -> Result<i64> {
    let days = i64::from(interval.days).checked_mul(US_PER_DAY);
    let width = days.and_then(|days| days.checked_add(interval.nanoseconds / NS_PER_US));
    match width {
        _ if interval.months != 0 => {
            Err(refused(Condition::FeatureNotSupported, "an interval of months has no fixed width"))
        }
        Some(width) if width > 0 => Ok(width),
        _ => Err(refused(Condition::InvalidParameterValue, "drop_after must be a positive interval")),
    }
}

/// All instances on one node are the same function.
impl PartialEq for Retention {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.node, &other.node) && self.adds == other.adds
    }
}

impl Eq for Retention {}

impl Hash for Retention {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.node).hash(state);
        self.adds.hash(state);
    }
}

impl ScalarUDFImpl for Retention {
    fn name(&self) -> &'static str {
        if self.adds { "add_retention_policy" } else { "remove_retention_policy" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("\"{}\" is asynchronous", self.name())
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Retention {
    async fn invoke_async_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let arrays = arguments.args.iter().map(|argument| argument.to_array(rows));
        let arrays: Vec<ArrayRef> = arrays.collect::<Result<_>>()?;
        for row in 0..rows {
            if arrays.iter().any(|array| array.is_null(row)) {
                return Err(super::null_refused("neither the table nor drop_after may be NULL"));
            }
            let after =
                arrays.get(1).map(|widths| width_us(widths.as_primitive::<IntervalMonthDayNanoType>().value(row)));
            self.set(arrays[0].as_string::<i32>().value(row), after.transpose()?).await?;
        }
        Ok(ColumnarValue::Array(Arc::new(Int32Array::from(vec![JOB; rows]))))
    }
}
