//! `information_schema`: the standard's view of the catalog, for tools that ask it instead of `pg_catalog`.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use cluster::{Catalog, View};
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::MemTable;
use event::{ColumnType, FRACTION_DIGITS_MAX, IdentityKind, Modifier, TableDefinition};

use super::functions::OWNER;
use super::relations::default_of;
use super::relations::{Key, column_type, keys, view_definition};

const TABLES: [&str; 7] =
    ["schemata", "tables", "columns", "views", "table_constraints", "key_column_usage", "constraint_column_usage"];

/// The tables of `information_schema` for one statement.
pub(crate) struct InformationSchema {
    database: String,
    catalog: Arc<Catalog>,
    views: Arc<dyn SchemaProvider>,
}

/// A column under construction: its name, and its values as text or numbers.
enum Values {
    Text(Vec<Option<String>>),
    Number(Vec<Option<i32>>),
}

/// One column of a relation.
struct Described {
    namespace: String,
    table: String,
    name: String,
    number: i32,
    column_type: ColumnType,
    nullable: bool,
    default: Option<String>,
    modifier: Option<Modifier>,
    identity: Option<IdentityKind>,
}

impl InformationSchema {
    /// Describes the relations of `catalog`, and Annal's own `views`.
    pub(crate) fn new(database: &str, catalog: Arc<Catalog>, views: Arc<dyn SchemaProvider>) -> InformationSchema {
        InformationSchema { database: database.to_owned(), catalog, views }
    }

    fn tables(&self) -> impl Iterator<Item = &TableDefinition> {
        self.catalog.tables.values().map(|table| table.definition.as_ref())
    }

    fn same(&self, value: &str, rows: usize) -> Values {
        Values::Text(vec![Some(value.to_owned()); rows])
    }

    fn schemata(&self) -> Vec<(&'static str, Values)> {
        let mut names = vec!["annal", "information_schema", "pg_catalog", "public"];
        names.extend(self.catalog.schemas.keys().map(String::as_str));
        vec![
            ("catalog_name", self.same(&self.database, names.len())),
            ("schema_name", Values::Text(names.iter().map(|name| Some((*name).to_owned())).collect())),
            ("schema_owner", self.same(OWNER, names.len())),
        ]
    }

    fn relations(&self) -> Vec<(&'static str, Values)> {
        let mut rows: Vec<[String; 4]> = Vec::new();
        let row = |namespace: &str, name: &str, kind: &str, insertable: &str| {
            [namespace, name, kind, insertable].map(str::to_owned)
        };
        rows.extend(self.tables().map(|table| row(&table.namespace, &table.name, "BASE TABLE", "YES")));
        rows.extend(self.catalog.views.values().map(|view| row(&view.namespace, &view.name, "VIEW", "NO")));
        rows.extend(self.views.table_names().iter().map(|name| row("annal", name, "VIEW", "NO")));
        let column = |at: usize| Values::Text(rows.iter().map(|row| Some(row[at].clone())).collect());
        vec![
            ("table_catalog", self.same(&self.database, rows.len())),
            ("table_schema", column(0)),
            ("table_name", column(1)),
            ("table_type", column(2)),
            ("is_insertable_into", column(3)),
        ]
    }

    async fn described(&self) -> Result<Vec<Described>> {
        let mut rows = Vec::new();
        for table in self.tables() {
            for (number, column) in (1..).zip(&table.columns) {
                rows.push(Described {
                    namespace: table.namespace.clone(),
                    table: table.name.clone(),
                    name: column.name.clone(),
                    number,
                    column_type: column.column_type,
                    nullable: column.takes_null(),
                    default: default_of(table, column),
                    modifier: column.modifier,
                    identity: column.identity.map(|identity| identity.kind),
                });
            }
        }
        for view in self.catalog.views.values() {
            for (number, column) in (1..).zip(&view.columns) {
                rows.push(Described {
                    namespace: view.namespace.clone(),
                    table: view.name.clone(),
                    name: column.name.clone(),
                    number,
                    column_type: column.column_type,
                    nullable: true,
                    default: None,
                    modifier: None,
                    identity: None,
                });
            }
        }
        for name in self.views.table_names() {
            let Some(view) = self.views.table(&name).await? else { continue };
            for (number, field) in (1..).zip(view.schema().fields()) {
                rows.push(Described {
                    namespace: "annal".to_owned(),
                    table: name.clone(),
                    name: field.name().clone(),
                    number,
                    column_type: column_type(field.data_type()),
                    nullable: true,
                    default: None,
                    modifier: None,
                    identity: None,
                });
            }
        }
        Ok(rows)
    }

    fn view_queries(&self) -> Vec<(&'static str, Values)> {
        let views: Vec<_> = self.catalog.views.values().collect();
        let text =
            |of: &dyn Fn(&View) -> String| Values::Text(views.iter().map(|view| Some(of(view))).collect::<Vec<_>>());
        vec![
            ("table_catalog", self.same(&self.database, views.len())),
            ("table_schema", text(&|view| view.namespace.clone())),
            ("table_name", text(&|view| view.name.clone())),
            ("view_definition", text(&view_definition)),
            ("check_option", self.same("NONE", views.len())),
            ("is_updatable", self.same("NO", views.len())),
            ("is_insertable_into", self.same("NO", views.len())),
        ]
    }

    async fn columns(&self) -> Result<Vec<(&'static str, Values)>> {
        let rows = self.described().await?;
        let text = |of: &dyn Fn(&Described) -> Option<String>| Values::Text(rows.iter().map(of).collect::<Vec<_>>());
        let number = |of: &dyn Fn(&Described) -> Option<i32>| Values::Number(rows.iter().map(of).collect::<Vec<_>>());
        Ok(vec![
            ("table_catalog", self.same(&self.database, rows.len())),
            ("table_schema", text(&|row| Some(row.namespace.clone()))),
            ("table_name", text(&|row| Some(row.table.clone()))),
            ("column_name", text(&|row| Some(row.name.clone()))),
            ("ordinal_position", number(&|row| Some(row.number))),
            ("column_default", text(&|row| row.default.clone())),
            ("is_nullable", text(&|row| Some(if row.nullable { "YES" } else { "NO" }.to_owned()))),
            ("data_type", text(&|row| Some(type_name(row)))),
            ("character_maximum_length", number(&character_length)),
            ("numeric_precision", number(&|row| numeric_facts(row.column_type).0)),
            ("numeric_precision_radix", number(&|row| numeric_facts(row.column_type).1)),
            ("numeric_scale", number(&|row| numeric_facts(row.column_type).2)),
            ("datetime_precision", number(&|row| datetime_precision(row))),
            ("udt_catalog", self.same(&self.database, rows.len())),
            ("udt_schema", self.same("pg_catalog", rows.len())),
            ("udt_name", text(&|row| Some(udt_name(row)))),
            ("is_identity", text(&|row| Some(if generation(row).is_some() { "YES" } else { "NO" }.to_owned()))),
            ("identity_generation", text(&|row| generation(row).map(str::to_owned))),
            ("is_generated", self.same("NEVER", rows.len())),
            ("is_updatable", text(&|row| Some(if row.namespace == "annal" { "NO" } else { "YES" }.to_owned()))),
        ])
    }

    fn table_constraints(&self) -> Vec<(&'static str, Values)> {
        let keys = keys(&self.catalog);
        let text =
            |of: &dyn Fn(&Key<'_>) -> String| Values::Text(keys.iter().map(|key| Some(of(key))).collect::<Vec<_>>());
        let kind = |key: &Key<'_>| if key.is_primary { "PRIMARY KEY" } else { "UNIQUE" }.to_owned();
        vec![
            ("constraint_catalog", self.same(&self.database, keys.len())),
            ("constraint_schema", text(&|key| key.table.namespace.clone())),
            ("constraint_name", text(&|key| key.name.clone())),
            ("table_catalog", self.same(&self.database, keys.len())),
            ("table_schema", text(&|key| key.table.namespace.clone())),
            ("table_name", text(&|key| key.table.name.clone())),
            ("constraint_type", text(&kind)),
            ("is_deferrable", self.same("NO", keys.len())),
            ("initially_deferred", self.same("NO", keys.len())),
            ("enforced", text(&|key| if key.table.event().is_some() { "NO" } else { "YES" }.to_owned())),
        ]
    }

    fn key_columns(&self, numbered: bool) -> Vec<(&'static str, Values)> {
        let keys = keys(&self.catalog);
        let rows: Vec<(&Key<'_>, usize, i32)> = keys
            .iter()
            .flat_map(|key| key.columns.iter().zip(1..).map(move |(position, number)| (key, *position, number)))
            .collect();
        let text = |of: &dyn Fn(&Key<'_>, usize) -> String| {
            Values::Text(rows.iter().map(|(key, position, _)| Some(of(key, *position))).collect::<Vec<_>>())
        };
        let mut columns = vec![
            ("constraint_catalog", self.same(&self.database, rows.len())),
            ("constraint_schema", text(&|key, _| key.table.namespace.clone())),
            ("constraint_name", text(&|key, _| key.name.clone())),
            ("table_catalog", self.same(&self.database, rows.len())),
            ("table_schema", text(&|key, _| key.table.namespace.clone())),
            ("table_name", text(&|key, _| key.table.name.clone())),
            ("column_name", text(&|key, position| key.table.columns[position].name.clone())),
        ];
        if numbered {
            columns.push(("ordinal_position", Values::Number(rows.iter().map(|row| Some(row.2)).collect())));
            columns.push(("position_in_unique_constraint", Values::Number(vec![None; rows.len()])));
        }
        columns
    }
}

impl fmt::Debug for InformationSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InformationSchema").field("index", &self.catalog.index).finish_non_exhaustive()
    }
}

#[async_trait]
impl SchemaProvider for InformationSchema {
    fn table_names(&self) -> Vec<String> {
        TABLES.map(str::to_owned).to_vec()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let columns = match name {
            "schemata" => self.schemata(),
            "tables" => self.relations(),
            "columns" => self.columns().await?,
            "views" => self.view_queries(),
            "table_constraints" => self.table_constraints(),
            "key_column_usage" => self.key_columns(true),
            "constraint_column_usage" => self.key_columns(false),
            _ => return Ok(None),
        };
        Ok(Some(table(columns)?))
    }

    fn table_exist(&self, name: &str) -> bool {
        TABLES.contains(&name)
    }
}

fn table(columns: Vec<(&'static str, Values)>) -> Result<Arc<dyn TableProvider>> {
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns
        .into_iter()
        .map(|(name, values)| match values {
            Values::Text(values) => {
                (Field::new(name, DataType::Utf8, true), Arc::new(StringArray::from(values)) as ArrayRef)
            }
            Values::Number(values) => {
                (Field::new(name, DataType::Int32, true), Arc::new(Int32Array::from(values)) as ArrayRef)
            }
        })
        .unzip();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
    Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))
}

/// How an identity column numbers its rows; a serial is a default.
fn generation(row: &Described) -> Option<&'static str> {
    match row.identity? {
        IdentityKind::Always => Some("ALWAYS"),
        IdentityKind::ByDefault => Some("BY DEFAULT"),
        IdentityKind::Serial => None,
    }
}

fn type_name(row: &Described) -> String {
    match row.column_type {
        ColumnType::Text if is_varchar(row) => "character varying".to_owned(),
        ColumnType::Numeric { .. } => "numeric".to_owned(),
        ColumnType::Array(_) => "ARRAY".to_owned(),
        other => other.to_string(),
    }
}

fn is_varchar(row: &Described) -> bool {
    matches!(row.modifier, Some(Modifier::Varchar { .. }))
}

fn character_length(row: &Described) -> Option<i32> {
    match (row.column_type, row.modifier) {
        (ColumnType::Text, Some(Modifier::Varchar { length })) => length.and_then(|length| i32::try_from(length).ok()),
        _ => None,
    }
}

fn udt_name(row: &Described) -> String {
    match row.column_type {
        ColumnType::Text if is_varchar(row) => "varchar".to_owned(),
        ColumnType::Array(element) if element.get() == ColumnType::Text && is_varchar(row) => "_varchar".to_owned(),
        other => name_in_catalog(other),
    }
}

fn name_in_catalog(column_type: ColumnType) -> String {
    let name = match column_type {
        ColumnType::SmallInt => "int2",
        ColumnType::Integer => "int4",
        ColumnType::BigInt => "int8",
        ColumnType::Real => "float4",
        ColumnType::Double => "float8",
        ColumnType::Numeric { .. } => "numeric",
        ColumnType::Boolean => "bool",
        ColumnType::Text => "text",
        ColumnType::Bytea => "bytea",
        ColumnType::Uuid => "uuid",
        ColumnType::Json => "json",
        ColumnType::Jsonb => "jsonb",
        ColumnType::Date => "date",
        ColumnType::Time => "time",
        ColumnType::Timestamp => "timestamp",
        ColumnType::TimestampTz => "timestamptz",
        ColumnType::Interval => "interval",
        ColumnType::Array(element) => return format!("_{}", name_in_catalog(element.get())),
    };
    name.to_owned()
}

/// Precision, its radix, and scale.
fn numeric_facts(column_type: ColumnType) -> (Option<i32>, Option<i32>, Option<i32>) {
    match column_type {
        ColumnType::SmallInt => (Some(16), Some(2), Some(0)),
        ColumnType::Integer => (Some(32), Some(2), Some(0)),
        ColumnType::BigInt => (Some(64), Some(2), Some(0)),
        ColumnType::Real => (Some(24), Some(2), None),
        ColumnType::Double => (Some(53), Some(2), None),
        ColumnType::Numeric { precision, scale } => (Some(precision.into()), Some(10), Some(scale.into())),
        _ => (None, None, None),
    }
}

fn datetime_precision(row: &Described) -> Option<i32> {
    match row.column_type {
        ColumnType::Date => Some(0),
        ColumnType::Time | ColumnType::Timestamp | ColumnType::TimestampTz => Some(match row.modifier {
            Some(Modifier::Fraction { digits }) => digits.into(),
            _ => FRACTION_DIGITS_MAX.into(),
        }),
        _ => None,
    }
}
