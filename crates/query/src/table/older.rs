//! Expressions over a table as expressions over its files: columns that were added after them, and types that lie as others.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory, replace_columns_with_literals,
};
use event::TableDefinition;
use event::interval::{has_intervals, read_intervals, stored_type};

/// Makes expressions over a table fit its files, whatever columns those have.
#[derive(Debug)]
pub(crate) struct OfFiles {
    /// What rows hold in columns that their file lacks, by names in files.
    initial: HashMap<String, ScalarValue>,
}

impl OfFiles {
    pub(crate) fn adapter(definition: &TableDefinition) -> Arc<dyn PhysicalExprAdapterFactory> {
        // An interval cannot be left to the library even when it is NULL.
        let told = definition.columns.iter();
        let told = told.filter(|column| column.initial.is_some() || has_intervals(&column.column_type.arrow()));
        let initial = told.filter_map(|column| {
            let value = ScalarValue::try_from_array(&column.of_older_rows(1), 0).ok()?;
            Some((column.stored_name().to_owned(), value))
        });
        match initial.collect::<HashMap<_, _>>() {
            none if none.is_empty() => Arc::new(DefaultPhysicalExprAdapterFactory),
            initial => Arc::new(OfFiles { initial }),
        }
    }
}

impl PhysicalExprAdapterFactory for OfFiles {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let lacks = |(name, _): &(&String, &ScalarValue)| file.index_of(name).is_err();
        let missing = self.initial.iter().filter(lacks).map(|(name, value)| (name.clone(), value.clone())).collect();
        let with_intervals = table.fields().iter().filter(|field| has_intervals(field.data_type()));
        let intervals = with_intervals.map(|field| (field.name().clone(), field.data_type().clone())).collect();
        let as_stored =
            |field: &FieldRef| Arc::new(field.as_ref().clone().with_data_type(stored_type(field.data_type())));
        let fields: Vec<FieldRef> = table.fields().iter().map(as_stored).collect();
        let table = Arc::new(Schema::new_with_metadata(fields, table.metadata().clone()));
        Ok(Arc::new(OfFile { missing, intervals, rest: DefaultPhysicalExprAdapterFactory.create(table, file)? }))
    }
}

/// What is particular about one file.
#[derive(Debug)]
struct OfFile {
    /// The columns it lacks.
    missing: HashMap<String, ScalarValue>,
    /// The columns of the table that have intervals in them, with their types.
    intervals: HashMap<String, DataType>,
    rest: Arc<dyn PhysicalExprAdapter>,
}

impl PhysicalExprAdapter for OfFile {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let expr = self.rest.rewrite(replace_columns_with_literals(expr, &self.missing)?)?;
        if self.intervals.is_empty() {
            return Ok(expr);
        }
        let read = expr.transform_up(|expr| {
            let column = (expr.as_ref() as &dyn Any).downcast_ref::<Column>();
            match column.and_then(|column| self.intervals.get(column.name()).cloned()) {
                Some(data_type) => {
                    let read: Arc<dyn PhysicalExpr> = Arc::new(ReadIntervals { stored: expr, data_type });
                    Ok(Transformed::yes(read))
                }
                None => Ok(Transformed::no(expr)),
            }
        });
        Ok(read?.data)
    }
}

/// Intervals, or arrays of them, from the bytes that lie in files.
#[derive(Debug, Eq)]
struct ReadIntervals {
    stored: Arc<dyn PhysicalExpr>,
    data_type: DataType,
}

impl PartialEq for ReadIntervals {
    fn eq(&self, other: &Self) -> bool {
        self.stored.eq(&other.stored) && self.data_type == other.data_type
    }
}

impl Hash for ReadIntervals {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.stored.hash(state);
    }
}

impl fmt::Display for ReadIntervals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.stored)
    }
}

impl PhysicalExpr for ReadIntervals {
    fn data_type(&self, _input: &Schema) -> Result<DataType> {
        Ok(self.data_type.clone())
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        self.stored.nullable(input)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let stored = self.stored.evaluate(batch)?.into_array(batch.num_rows())?;
        match read_intervals(&stored) {
            Some(intervals) => Ok(ColumnarValue::Array(intervals)),
            None => exec_err!("column {} of a file holds no intervals", self.stored),
        }
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.stored]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        match children.pop() {
            Some(stored) if children.is_empty() => {
                Ok(Arc::new(ReadIntervals { stored, data_type: self.data_type.clone() }))
            }
            _ => exec_err!("one column holds an interval"),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stored.fmt_sql(f)
    }
}
