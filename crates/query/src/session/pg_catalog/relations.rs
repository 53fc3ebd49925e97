//! The tables of `pg_catalog` that describe the node's own relations: namespaces, classes, attributes, defaults, keys.
//!
//! Their columns are those of PostgreSQL's catalog; a row gives the ones it knows, the others are NULL, zero or empty. An oid of a
//! table is its [`event::TableId`]; everything else has an oid of a range of its own, so that joins between the tables hold.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, new_empty_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use cluster::{Catalog, View};
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::datasource::{MemTable, TableType};
use event::{Check, Column, ColumnType, IdentityKind, Modifier, TableDefinition, UUID_BYTES};
use parking_lot::Mutex;

use super::super::settings::Settings;
use super::functions::OWNER;
use super::{activity, indexes, routines};
use crate::binary::type_oid;
use crate::session::activity::Sessions;
use crate::session::defaults::sequence_name;

/// The role that owns everything.
pub(super) const OWNER_OID: i32 = 10;
/// Namespaces and their oids.
const NAMESPACES: [(&str, i32); 4] =
    [("annal", ANNAL_OID), ("information_schema", 13_000), ("pg_catalog", 11), ("public", PUBLIC_OID)];
/// The schema of tables whose names say none.
pub(super) const PUBLIC_OID: i32 = 2200;
/// The schema of Annal's own views.
pub(super) const ANNAL_OID: i32 = 16_000;
/// The first of Annal's own views; the others follow. Below PostgreSQL's first user oid, where tables begin.
const FIRST_VIEW_OID: i32 = 16_100;
/// What a primary key's oid is above its table's.
pub(super) const KEY_OID: i32 = 1 << 30;
/// The oid of the first DEFAULT.
const FIRST_DEFAULT_OID: i32 = 1 << 29;
/// The oid of the first CHECK constraint.
const FIRST_CHECK_OID: i32 = 1 << 28;
/// The oid of the first UNIQUE constraint.
const FIRST_UNIQUE_OID: i32 = 1 << 27;
/// The one database.
pub(super) const DATABASE_OID: i32 = 15_999;
/// PostgreSQL's access methods.
const HEAP_OID: i32 = 2;
const BTREE_OID: i32 = 403;
/// The collation of text.
const DEFAULT_COLLATION_OID: i32 = 100;
/// Of types that columns hold as text.
const VARCHAR_OID: i32 = 1043;
const VARCHAR_ARRAY_OID: i32 = 1015;

/// `pg_catalog` for one statement: the node's own relations over PostgreSQL's fixed tables.
pub(crate) struct StatementPgCatalog {
    fixed: Arc<dyn SchemaProvider>,
    catalog: Arc<Catalog>,
    views: Arc<dyn SchemaProvider>,
    database: String,
    settings: Arc<Mutex<Settings>>,
    sessions: Arc<Sessions>,
}

/// A view as the catalog shows it.
struct DescribedView {
    oid: i32,
    namespace: i32,
    name: String,
    columns: Vec<Column>,
}

/// A row of a catalog table: what it knows, by column.
pub(super) type Row = BTreeMap<&'static str, ScalarValue>;

impl StatementPgCatalog {
    /// The relations of `catalog` and Annal's own `views`, over `fixed`; and what `sessions` are doing.
    pub(crate) fn new(
        fixed: Arc<dyn SchemaProvider>,
        catalog: Arc<Catalog>,
        views: Arc<dyn SchemaProvider>,
        database: &str,
        settings: &Arc<Mutex<Settings>>,
        sessions: &Arc<Sessions>,
    ) -> StatementPgCatalog {
        let (database, settings, sessions) = (database.to_owned(), Arc::clone(settings), Arc::clone(sessions));
        StatementPgCatalog { fixed, catalog, views, database, settings, sessions }
    }

    fn tables(&self) -> impl Iterator<Item = &TableDefinition> {
        self.catalog.tables.values().map(|table| table.definition.as_ref())
    }

    /// All views with their columns: Annal's own, then the user's.
    async fn views(&self) -> Result<Vec<DescribedView>> {
        let mut views = Vec::new();
        for (oid, name) in (FIRST_VIEW_OID..).zip(self.views.table_names()) {
            let Some(view) = self.views.table(&name).await? else { continue };
            let column = |field: &Arc<Field>| Column {
                identity: None,
                modifier: None,
                required: false,
                initial: None,
                stored: None,
                id: event::ColumnId(0),
                name: field.name().clone(),
                column_type: column_type(field.data_type()),
                nullable: true,
                default: None,
            };
            let columns = view.schema().fields().iter().map(column).collect();
            views.push(DescribedView { oid, namespace: ANNAL_OID, name, columns });
        }
        views.extend(self.catalog.views.values().map(|view| DescribedView {
            oid: view_oid(view),
            namespace: namespace_oid(&self.catalog, &view.namespace),
            name: view.name.clone(),
            columns: view.columns.clone(),
        }));
        Ok(views)
    }

    fn view_queries(&self) -> Vec<Row> {
        let row = |view: &Arc<View>| {
            Row::from([
                ("schemaname", view.namespace.as_str().into()),
                ("viewname", view.name.as_str().into()),
                ("viewowner", OWNER.into()),
                ("definition", view_definition(view).as_str().into()),
            ])
        };
        self.catalog.views.values().map(row).collect()
    }

    async fn classes(&self) -> Result<Vec<Row>> {
        let mut rows: Vec<Row> = Vec::new();
        for table in self.tables() {
            let keyed = !table.primary_key.is_empty() || !table.unique.is_empty();
            let mut row = class(
                oid_of(table),
                &table.name,
                namespace_oid(&self.catalog, &table.namespace),
                "r",
                table.columns.len(),
            );
            let checks = table.checks.len() as i16;
            row.extend([("relam", HEAP_OID.into()), ("relhasindex", keyed.into()), ("relchecks", checks.into())]);
            rows.push(row);
        }
        for Key { oid, table, columns, name, .. } in keys(&self.catalog) {
            let mut row = class(oid, &name, namespace_oid(&self.catalog, &table.namespace), "i", columns.len());
            row.extend([("relam", BTREE_OID.into())]);
            rows.push(row);
        }
        for view in self.views().await? {
            rows.push(class(view.oid, &view.name, view.namespace, "v", view.columns.len()));
        }
        Ok(rows)
    }

    async fn attributes(&self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for table in self.tables() {
            for (number, column) in (1..).zip(&table.columns) {
                rows.push(attribute(oid_of(table), number, column));
            }
        }
        for view in self.views().await? {
            rows.extend((1..).zip(&view.columns).map(|(number, column)| attribute(view.oid, number, column)));
        }
        Ok(rows)
    }

    fn defaults(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for table in self.tables() {
            for (number, column) in (1i16..).zip(&table.columns) {
                let Some(expression) = default_of(table, column) else { continue };
                rows.push(Row::from([
                    ("oid", (FIRST_DEFAULT_OID + rows.len() as i32).into()),
                    ("adrelid", oid_of(table).into()),
                    ("adnum", number.into()),
                    ("adbin", expression.into()),
                ]));
            }
        }
        rows
    }

    fn indexes(&self) -> Vec<Row> {
        let index = |key: Key<'_>| {
            let width = key.columns.len() as i16;
            let zeros = vec![0; key.columns.len()];
            let mut row = Row::from([
                ("indexrelid", key.oid.into()),
                ("indrelid", oid_of(key.table).into()),
                ("indnatts", width.into()),
                ("indnkeyatts", width.into()),
                ("indkey", numbers(&key.numbers())),
                ("indcollation", numbers(&zeros)),
                ("indclass", numbers(&zeros)),
                ("indoption", numbers(&zeros)),
            ]);
            for (flag, value) in [
                ("indisunique", true),
                ("indnullsnotdistinct", false),
                ("indisprimary", key.is_primary),
                ("indisexclusion", false),
                ("indimmediate", true),
                ("indisclustered", false),
                ("indisvalid", true),
                ("indcheckxmin", false),
                ("indisready", true),
                ("indislive", true),
                ("indisreplident", false),
            ] {
                row.insert(flag, value.into());
            }
            row
        };
        keys(&self.catalog).into_iter().map(index).collect()
    }

    fn constraints(&self) -> Vec<Row> {
        let constraint = |key: Key<'_>| {
            Row::from([
                ("oid", key.oid.into()),
                ("conname", key.name.as_str().into()),
                ("connamespace", namespace_oid(&self.catalog, &key.table.namespace).into()),
                ("contype", if key.is_primary { "p" } else { "u" }.into()),
                ("condeferrable", false.into()),
                ("condeferred", false.into()),
                ("convalidated", true.into()),
                ("conrelid", oid_of(key.table).into()),
                ("contypid", 0.into()),
                ("conindid", key.oid.into()),
                ("conparentid", 0.into()),
                ("confrelid", 0.into()),
                ("confupdtype", " ".into()),
                ("confdeltype", " ".into()),
                ("confmatchtype", " ".into()),
                ("conislocal", true.into()),
                ("coninhcount", 0.into()),
                ("connoinherit", true.into()),
                ("conkey", numbers(&key.numbers())),
            ])
        };
        let keys = keys(&self.catalog).into_iter().map(constraint);
        let checks = checks(&self.catalog).map(|(oid, table, check)| {
            Row::from([
                ("oid", oid.into()),
                ("conname", check.name.as_str().into()),
                ("connamespace", namespace_oid(&self.catalog, &table.namespace).into()),
                ("contype", "c".into()),
                ("condeferrable", false.into()),
                ("condeferred", false.into()),
                ("convalidated", check.validated.into()),
                ("conrelid", oid_of(table).into()),
                ("confupdtype", " ".into()),
                ("confdeltype", " ".into()),
                ("confmatchtype", " ".into()),
                ("conislocal", true.into()),
                ("conbin", check.expression.as_str().into()),
            ])
        });
        keys.chain(checks).collect()
    }

    fn databases(&self) -> Vec<Row> {
        vec![Row::from([
            ("oid", DATABASE_OID.into()),
            ("datname", self.database.as_str().into()),
            ("datdba", OWNER_OID.into()),
            ("encoding", 6.into()),
            ("datlocprovider", "c".into()),
            ("datistemplate", false.into()),
            ("datallowconn", true.into()),
            ("datconnlimit", (-1).into()),
            ("dattablespace", 1663.into()),
            ("datcollate", "C.UTF-8".into()),
            ("datctype", "C.UTF-8".into()),
        ])]
    }

    fn settings(&self) -> Vec<Row> {
        let row = |(name, value): (String, String)| {
            Row::from([
                ("name", name.as_str().into()),
                ("setting", value.as_str().into()),
                ("context", "user".into()),
                ("vartype", "string".into()),
                ("source", "session".into()),
            ])
        };
        self.settings.lock().all().into_iter().map(row).collect()
    }

    async fn rows(&self, table: &str) -> Result<Option<Vec<Row>>> {
        Ok(Some(match table {
            "pg_namespace" => namespaces(&self.catalog),
            "pg_class" => self.classes().await?,
            "pg_attribute" => self.attributes().await?,
            "pg_attrdef" => self.defaults(),
            "pg_index" => self.indexes(),
            "pg_constraint" => self.constraints(),
            "pg_database" => self.databases(),
            "pg_settings" => self.settings(),
            "pg_roles" => routines::roles(OWNER),
            "pg_views" => self.view_queries(),
            _ => return Ok(None),
        }))
    }
}

impl fmt::Debug for StatementPgCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatementPgCatalog").field("index", &self.catalog.index).finish_non_exhaustive()
    }
}

#[async_trait]
impl SchemaProvider for StatementPgCatalog {
    fn table_names(&self) -> Vec<String> {
        let mut names = self.fixed.table_names();
        for own in [activity::NAME, indexes::NAME] {
            if !names.iter().any(|name| name == own) {
                names.push(own.to_owned());
            }
        }
        names
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if name == activity::NAME {
            return Ok(Some(Arc::new(activity::ActivityTable(Arc::clone(&self.sessions)))));
        }
        if name == indexes::NAME {
            return filled(&indexes::COLUMNS, &indexes::rows(&self.catalog)).map(Some);
        }
        let fixed = self.fixed.table(name).await?;
        if let ("pg_proc", Some(fixed)) = (name, &fixed) {
            return extended(fixed, &routines::rows()).await.map(Some);
        }
        match (fixed, self.rows(name).await?) {
            (Some(fixed), Some(rows)) => Ok(Some(filled(&with_arrays(name, &fixed.schema()), &rows)?)),
            (fixed, _) => Ok(fixed),
        }
    }

    async fn table_type(&self, _name: &str) -> Result<Option<TableType>> {
        Ok(Some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        name == activity::NAME || name == indexes::NAME || self.fixed.table_exist(name)
    }
}

/// All CHECK constraints with their oids.
pub(super) fn checks(catalog: &Catalog) -> impl Iterator<Item = (i32, &TableDefinition, &Check)> {
    let tables = catalog.tables.values().map(|table| table.definition.as_ref());
    let checks = tables.flat_map(|table| table.checks.iter().map(move |check| (table, check)));
    (FIRST_CHECK_OID..).zip(checks).map(|(oid, (table, check))| (oid, table, check))
}

/// The columns of a table of PostgreSQL's own. The library knows those of arrays as text.
fn with_arrays(table: &str, schema: &SchemaRef) -> SchemaRef {
    let numbers = DataType::List(Arc::new(Field::new_list_field(DataType::Int16, true)));
    let column = |field: &Arc<Field>| match (table, field.name().as_str()) {
        ("pg_constraint", "conkey") => Field::new(field.name(), numbers.clone(), true),
        _ => field.as_ref().clone(),
    };
    Arc::new(Schema::new(schema.fields().iter().map(column).collect::<Vec<_>>()))
}

/// A table with these columns and rows.
pub(super) fn filled(schema: &SchemaRef, rows: &[Row]) -> Result<Arc<dyn TableProvider>> {
    let batch = rows_of(schema, rows)?;
    Ok(Arc::new(MemTable::try_new(Arc::clone(schema), vec![vec![batch]])?))
}

/// A table with the rows of `fixed` and these.
async fn extended(fixed: &Arc<dyn TableProvider>, rows: &[Row]) -> Result<Arc<dyn TableProvider>> {
    let Some(fixed) = fixed.downcast_ref::<MemTable>() else {
        return internal_err!("a table of PostgreSQL's own is not in memory");
    };
    let schema = fixed.schema();
    let mut batches = vec![rows_of(&schema, rows)?];
    for partition in &fixed.batches {
        batches.extend(partition.read().await.iter().cloned());
    }
    Ok(Arc::new(MemTable::try_new(schema, vec![batches])?))
}

fn rows_of(schema: &SchemaRef, rows: &[Row]) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| filled_column(field, rows)).collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

fn filled_column(field: &Field, rows: &[Row]) -> Result<ArrayRef> {
    let wanted = field.data_type();
    if rows.is_empty() {
        return Ok(new_empty_array(wanted));
    }
    let known = rows.iter().map(|row| match row.get(field.name().as_str()) {
        Some(value @ ScalarValue::List(_)) if !matches!(wanted, DataType::List(_)) => spaced(value).cast_to(wanted),
        Some(value) => value.cast_to(wanted),
        None => absent(field),
    });
    let array = ScalarValue::iter_to_array(known.collect::<Result<Vec<_>>>()?)?;
    if array.data_type() == wanted { Ok(array) } else { Ok(cast(&array, wanted)?) }
}

/// What stands in a column that a row says nothing of.
fn absent(field: &Field) -> Result<ScalarValue> {
    match field.data_type() {
        data_type if field.is_nullable() => ScalarValue::try_new_null(data_type),
        DataType::Utf8 => Ok("".into()),
        DataType::Boolean => Ok(false.into()),
        data_type => ScalarValue::new_zero(data_type),
    }
}

/// Numbers of columns, as `int2vector` keeps them.
fn numbers(values: &[i16]) -> ScalarValue {
    let values: Vec<ScalarValue> = values.iter().map(|value| ScalarValue::Int16(Some(*value))).collect();
    ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Int16))
}

/// `1 2`, as `int2vector` is written.
fn spaced(list: &ScalarValue) -> ScalarValue {
    let ScalarValue::List(list) = list else { return list.clone() };
    let values = list.value(0);
    let texts: Vec<String> = (0..values.len())
        .filter_map(|at| ScalarValue::try_from_array(&values, at).ok())
        .map(|value| value.to_string())
        .collect();
    texts.join(" ").as_str().into()
}

/// A view's oid is its [`event::TableId`], as a table's is.
fn view_oid(view: &View) -> i32 {
    i32::try_from(view.id.0).unwrap_or(i32::MAX)
}

/// The query of a view as PostgreSQL shows it.
pub(super) fn view_definition(view: &View) -> String {
    format!(" {};", view.query)
}

pub(super) fn oid_of(table: &TableDefinition) -> i32 {
    i32::try_from(table.id.0).unwrap_or(i32::MAX)
}

/// A PRIMARY KEY or UNIQUE constraint, which is its index as well: both have one oid.
pub(super) struct Key<'c> {
    pub(super) oid: i32,
    pub(super) table: &'c TableDefinition,
    pub(super) name: String,
    pub(super) columns: &'c [usize],
    pub(super) is_primary: bool,
}

impl Key<'_> {
    fn numbers(&self) -> Vec<i16> {
        self.columns.iter().map(|position| *position as i16 + 1).collect()
    }

    /// The statement that would make its index.
    pub(super) fn definition(&self) -> String {
        let TableDefinition { namespace, name, .. } = self.table;
        format!("CREATE UNIQUE INDEX {} ON {namespace}.{name} USING btree ({})", self.name, self.column_names())
    }

    /// Its columns, as a list.
    pub(super) fn column_names(&self) -> String {
        let names = self.columns.iter().map(|position| self.table.columns[*position].name.as_str());
        names.collect::<Vec<_>>().join(", ")
    }
}

/// All keys, whether they are checked or not.
pub(super) fn keys(catalog: &Catalog) -> Vec<Key<'_>> {
    let mut keys = Vec::new();
    let mut oid = FIRST_UNIQUE_OID;
    for table in catalog.tables.values().map(|table| table.definition.as_ref()) {
        if !table.primary_key.is_empty() {
            let (oid, name) = (oid_of(table) + KEY_OID, table.primary_key_name());
            keys.push(Key { oid, table, name, columns: &table.primary_key, is_primary: true });
        }
        for key in &table.unique {
            keys.push(Key { oid, table, name: key.name.clone(), columns: &key.columns, is_primary: false });
            oid += 1;
        }
    }
    keys
}

fn namespace_oid(catalog: &Catalog, name: &str) -> i32 {
    let known = NAMESPACES.iter().find(|known| known.0 == name).map(|known| known.1);
    let own = || catalog.schemas.get(name).and_then(|id| i32::try_from(id.0).ok());
    known.or_else(own).unwrap_or(0)
}

fn namespaces(catalog: &Catalog) -> Vec<Row> {
    let row = |name: &str| {
        let oid = namespace_oid(catalog, name);
        Row::from([("oid", oid.into()), ("nspname", name.into()), ("nspowner", OWNER_OID.into())])
    };
    let system = NAMESPACES.iter().map(|known| known.0);
    system.chain(catalog.schemas.keys().map(String::as_str)).map(row).collect()
}

fn class(oid: i32, name: &str, namespace: i32, kind: &'static str, columns: usize) -> Row {
    Row::from([
        ("oid", oid.into()),
        ("relname", name.into()),
        ("relnamespace", namespace.into()),
        ("reloftype", 0.into()),
        ("relowner", OWNER_OID.into()),
        ("relfilenode", oid.into()),
        // Never analyzed, as PostgreSQL says it.
        ("reltuples", (-1).into()),
        ("relpersistence", "p".into()),
        ("relkind", kind.into()),
        ("relnatts", (columns as i16).into()),
        ("relispopulated", true.into()),
        ("relreplident", if kind == "r" { "d" } else { "n" }.into()),
        ("relrewrite", 0.into()),
    ])
}

/// The default of a column as PostgreSQL shows it.
pub(super) fn default_of(table: &TableDefinition, column: &Column) -> Option<String> {
    let serial = column.identity.filter(|identity| identity.kind == IdentityKind::Serial);
    let numbers = serial.map(|_| format!("nextval('{}'::regclass)", sequence_name(table, column)));
    numbers.or_else(|| column.default.clone())
}

fn attribute(relation: i32, number: i16, column: &Column) -> Row {
    let oid = match (column.column_type, column.modifier) {
        (ColumnType::Text, Some(Modifier::Varchar { .. })) => VARCHAR_OID,
        (ColumnType::Array(_), Some(Modifier::Varchar { .. })) => VARCHAR_ARRAY_OID,
        (column_type, _) => type_oid(column_type).cast_signed(),
    };
    let (length, by_value, alignment, storage) = type_facts(column.column_type);
    let scalar = match column.column_type {
        ColumnType::Array(element) => element.get(),
        other => other,
    };
    let modifier = match scalar {
        ColumnType::Numeric { precision, scale } => ((i32::from(precision) << 16) | i32::from(scale)) + 4,
        _ => column.modifier.map_or(-1, Modifier::number),
    };
    let kind = column.identity.map(|identity| identity.kind);
    let identity = match kind {
        Some(IdentityKind::Always) => "a",
        Some(IdentityKind::ByDefault) => "d",
        Some(IdentityKind::Serial) | None => "",
    };
    let collation = if scalar == ColumnType::Text { DEFAULT_COLLATION_OID } else { 0 };
    Row::from([
        ("attrelid", relation.into()),
        ("attname", column.name.as_str().into()),
        ("atttypid", oid.into()),
        ("attstattarget", (-1).into()),
        ("attlen", length.into()),
        ("attnum", number.into()),
        ("attndims", i16::from(scalar != column.column_type).into()),
        ("attcacheoff", (-1).into()),
        ("atttypmod", modifier.into()),
        ("attbyval", by_value.into()),
        ("attalign", alignment.into()),
        ("attstorage", storage.into()),
        ("attnotnull", (!column.takes_null()).into()),
        ("atthasdef", (column.default.is_some() || kind == Some(IdentityKind::Serial)).into()),
        ("attidentity", identity.into()),
        ("attislocal", true.into()),
        ("attcollation", collation.into()),
    ])
}

/// Length, whether passed by value, alignment and storage of a type, as `pg_type` has them.
fn type_facts(column_type: ColumnType) -> (i16, bool, &'static str, &'static str) {
    match column_type {
        ColumnType::Boolean => (1, true, "c", "p"),
        ColumnType::SmallInt => (2, true, "s", "p"),
        ColumnType::Integer | ColumnType::Real | ColumnType::Date => (4, true, "i", "p"),
        ColumnType::BigInt
        | ColumnType::Double
        | ColumnType::Time
        | ColumnType::Timestamp
        | ColumnType::TimestampTz => (8, true, "d", "p"),
        ColumnType::Uuid => (16, false, "c", "p"),
        ColumnType::Interval => (16, false, "d", "p"),
        ColumnType::Numeric { .. } => (-1, false, "i", "m"),
        ColumnType::Text | ColumnType::Bytea | ColumnType::Json | ColumnType::Jsonb => (-1, false, "i", "x"),
        ColumnType::Array(element) => {
            // Elements that are aligned to 8 bytes make the array so.
            let (_, _, alignment, _) = type_facts(element.get());
            (-1, false, if alignment == "d" { "d" } else { "i" }, "x")
        }
    }
}

/// The column type that shows values of an Arrow type best.
pub(in crate::session) fn column_type(data_type: &DataType) -> ColumnType {
    match data_type {
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => ColumnType::SmallInt,
        DataType::Int32 | DataType::UInt16 => ColumnType::Integer,
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => ColumnType::BigInt,
        DataType::Float32 => ColumnType::Real,
        DataType::Float64 => ColumnType::Double,
        DataType::Decimal128(precision, scale) => ColumnType::Numeric { precision: *precision, scale: *scale },
        DataType::Boolean => ColumnType::Boolean,
        DataType::Binary => ColumnType::Bytea,
        DataType::FixedSizeBinary(UUID_BYTES) => ColumnType::Uuid,
        DataType::Date32 => ColumnType::Date,
        DataType::Time64(_) => ColumnType::Time,
        DataType::Timestamp(_, None) => ColumnType::Timestamp,
        DataType::Timestamp(_, Some(_)) => ColumnType::TimestampTz,
        DataType::Interval(_) => ColumnType::Interval,
        DataType::List(element) => {
            let element = ColumnType::json_of(element).unwrap_or_else(|| column_type(element.data_type()));
            element.array().unwrap_or(ColumnType::Text)
        }
        _ => ColumnType::Text,
    }
}
