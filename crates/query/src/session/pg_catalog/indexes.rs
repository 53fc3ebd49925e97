//! `pg_indexes`: a row for each index, all of which are those of keys.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use cluster::Catalog;

use super::relations::{Row, keys};

/// The view's name.
pub(super) const NAME: &str = "pg_indexes";

/// Its columns, which are PostgreSQL's. There are no tablespaces.
pub(super) static COLUMNS: LazyLock<SchemaRef> = LazyLock::new(|| {
    let names = ["schemaname", "tablename", "indexname", "tablespace", "indexdef"];
    Arc::new(Schema::new(names.map(|name| Field::new(name, DataType::Utf8, true)).to_vec()))
});

/// Its rows.
pub(super) fn rows(catalog: &Catalog) -> Vec<Row> {
    let row = |key: super::relations::Key<'_>| {
        Row::from([
            ("schemaname", key.table.namespace.as_str().into()),
            ("tablename", key.table.name.as_str().into()),
            ("indexname", key.name.as_str().into()),
            ("indexdef", key.definition().as_str().into()),
        ])
    };
    keys(catalog).into_iter().map(row).collect()
}
