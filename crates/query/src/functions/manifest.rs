//! `annal.manifest(table [, hold])`: the Parquet files that hold a table, as JSON for readers outside.
//!
//! The table is flushed first, so every row acknowledged before the call lies in the files named; splits with rows that were deleted, or
//! that others of their key took the place of, are rewritten. Each statement is in them whole or not at
//! all, and each row once. The files stay for `hold`, whatever the server writes, compacts, expires or drops meanwhile.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray, StringArray};
use arrow::datatypes::{DataType, IntervalMonthDayNanoType, IntervalUnit};
use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat};
use cluster::{Node, TableSnapshot};
use datafusion::common::{Result, exec_err, internal_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use serde::Serialize;

use crate::error::{Condition, Error};

/// How long the files stay unless the caller says otherwise.
const HOLD_DEFAULT_US: i64 = 15 * 60 * 1_000_000;
/// Longer than this nobody may keep them.
const HOLD_MAX_US: i64 = DAY_US;
/// How often splits are rewritten while somebody deletes rows of them.
const REWRITES_MAX: u32 = 3;
const DAY_US: i64 = 24 * 3_600 * 1_000_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Manifest {
    node: Arc<Node>,
    signature: Signature,
}

/// The document. Readers must ignore fields they do not know.
#[derive(Serialize)]
struct Document<'m> {
    /// Grows when a field changes its meaning.
    version: u32,
    table_schema: &'m str,
    table_name: &'m str,
    columns: Vec<Column<'m>>,
    /// Rows of all files.
    rows: u64,
    /// The files stay until then.
    held_until: String,
    files: Vec<File>,
}

#[derive(Serialize)]
struct Column<'m> {
    name: &'m str,
    #[serde(rename = "type")]
    column_type: String,
    nullable: bool,
    /// Its name in the files, where that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_name: Option<&'m str>,
}

#[derive(Serialize)]
struct File {
    /// Below the data directory, or a URL.
    path: String,
    rows: u64,
    bytes: u64,
    /// CRC-32C of the whole file, in hexadecimal.
    crc32c: String,
    time_min: Option<String>,
    time_max: Option<String>,
}

impl Manifest {
    pub(crate) fn new(node: Arc<Node>) -> Manifest {
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        let signatures =
            vec![TypeSignature::Exact(vec![DataType::Utf8]), TypeSignature::Exact(vec![DataType::Utf8, interval])];
        Manifest { node, signature: Signature::one_of(signatures, Volatility::Volatile) }
    }

    pub(crate) fn into_scalar_udf(self) -> ScalarUDF {
        AsyncScalarUDF::new(Arc::new(self)).into_scalar_udf()
    }

    async fn of(&self, name: &str, hold_us: i64) -> Result<String> {
        let (namespace, table) = name.split_once('.').unwrap_or(("public", name));
        let mut attempt = 0;
        let snapshot = loop {
            self.node.flush().await.map_err(Error::in_plan)?;
            let catalog = self.node.catalog();
            let Some(table) = catalog.table(namespace, table) else {
                return Err(super::no_such_table(name));
            };
            let snapshot = self.node.snapshot(table).await.map_err(Error::in_plan)?;
            attempt += 1;
            match snapshot.is_stale() {
                false => break snapshot,
                true if attempt <= REWRITES_MAX => self.node.purge(table).await.map_err(Error::in_plan)?,
                true => return Err(stale(name)),
            }
        };
        let until_us = self.node.hold(&snapshot, hold_us).map_err(Error::in_plan)?;
        let text = serde_json::to_string(&document(&self.node, &snapshot, until_us));
        text.map_err(|error| DataFusionError::Internal(format!("a manifest is not JSON: {error}")))
    }
}

fn stale(name: &str) -> DataFusionError {
    let message = format!("the files of table \"{name}\" hold rows that are not there any more");
    let hint = "Rows were deleted or replaced while the files were written anew, or there are too many of them in one split. Try again.";
    DataFusionError::External(Box::new(Error::hinted(Condition::ObjectNotInPrerequisiteState, message, hint)))
}

fn document<'s>(node: &Node, snapshot: &'s TableSnapshot, until_us: i64) -> Document<'s> {
    let definition = &snapshot.table.definition;
    let segments = snapshot.shards.iter().flat_map(|shard| &shard.segments).map(|segment| &segment.meta);
    let mut files: Vec<File> = segments
        .map(|meta| File {
            path: node.segment_path(&meta.name),
            rows: meta.rows,
            bytes: meta.bytes,
            crc32c: format!("{:08x}", meta.checksum),
            time_min: meta.time_min_us.map(time),
            time_max: meta.time_max_us.map(time),
        })
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let columns = definition.columns.iter().map(|column| Column {
        name: &column.name,
        column_type: column.column_type.to_string(),
        nullable: column.takes_null(),
        stored_name: column.stored.as_deref(),
    });
    Document {
        version: 1,
        table_schema: &definition.namespace,
        table_name: &definition.name,
        columns: columns.collect(),
        rows: files.iter().map(|file| file.rows).sum(),
        held_until: time(until_us),
        files,
    }
}

/// RFC 3339 in UTC; microseconds since 1970 as a number for times beyond what it can write.
fn time(us: i64) -> String {
    match DateTime::from_timestamp_micros(us) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::Micros, true),
        None => us.to_string(),
    }
}

/// Microseconds of the interval given.
fn hold_of(intervals: &dyn Array, row: usize) -> Result<i64> {
    if intervals.is_null(row) {
        return Err(super::null_refused("the time to hold the files must not be NULL"));
    }
    let interval = intervals.as_primitive::<IntervalMonthDayNanoType>().value(row);
    let days_us = i64::from(interval.days) * DAY_US;
    match days_us.checked_add(interval.nanoseconds / 1000) {
        Some(us) if interval.months == 0 && (1..=HOLD_MAX_US).contains(&us) => Ok(us),
        _ => exec_err!("the time to hold the files must be more than nothing and at most one day"),
    }
}

/// All instances on one node are the same function.
impl PartialEq for Manifest {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.node, &other.node)
    }
}

impl Eq for Manifest {}

impl Hash for Manifest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.node).hash(state);
    }
}

impl ScalarUDFImpl for Manifest {
    fn name(&self) -> &'static str {
        "annal.manifest"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("\"annal.manifest\" is asynchronous")
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Manifest {
    async fn invoke_async_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let names = arrays[0].as_string::<i32>();
        let mut documents = Vec::with_capacity(names.len());
        for row in 0..names.len() {
            if names.is_null(row) {
                return Err(super::null_refused("the table must not be NULL"));
            }
            let hold_us = match arrays.get(1) {
                Some(intervals) => hold_of(intervals.as_ref(), row)?,
                None => HOLD_DEFAULT_US,
            };
            documents.push(self.of(names.value(row), hold_us).await?);
        }
        Ok(ColumnarValue::Array(Arc::new(StringArray::from(documents))))
    }
}
