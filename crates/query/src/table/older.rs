//! What rows of segments hold in columns that were added after them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::{Result, ScalarValue};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory, replace_columns_with_literals,
};
use event::TableDefinition;

/// Makes expressions over a table fit its files, whatever columns those have.
#[derive(Debug)]
pub(crate) struct OlderRows {
    /// By their names in files.
    initial: HashMap<String, ScalarValue>,
}

impl OlderRows {
    pub(crate) fn adapter(definition: &TableDefinition) -> Arc<dyn PhysicalExprAdapterFactory> {
        let added = definition.columns.iter().filter(|column| column.initial.is_some());
        let initial = added.filter_map(|column| {
            let value = ScalarValue::try_from_array(&column.of_older_rows(1), 0).ok()?;
            Some((column.stored_name().to_owned(), value))
        });
        match initial.collect::<HashMap<_, _>>() {
            none if none.is_empty() => Arc::new(DefaultPhysicalExprAdapterFactory),
            initial => Arc::new(OlderRows { initial }),
        }
    }
}

impl PhysicalExprAdapterFactory for OlderRows {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let lacks = |(name, _): &(&String, &ScalarValue)| file.index_of(name).is_err();
        let missing = self.initial.iter().filter(lacks).map(|(name, value)| (name.clone(), value.clone())).collect();
        Ok(Arc::new(OfFile { missing, rest: DefaultPhysicalExprAdapterFactory.create(table, file)? }))
    }
}

/// The columns that one file lacks.
#[derive(Debug)]
struct OfFile {
    missing: HashMap<String, ScalarValue>,
    rest: Arc<dyn PhysicalExprAdapter>,
}

impl PhysicalExprAdapter for OfFile {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        self.rest.rewrite(replace_columns_with_literals(expr, &self.missing)?)
    }
}
