//! The names a statement can use: the catalog of one moment, with tables that share one set of snapshots.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cluster::{Catalog, PUBLIC_SCHEMA, View};
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider};
use datafusion::datasource::{TableProvider, TableType};
use datafusion::error::Result;
use event::TableId;
use parking_lot::RwLock;

use super::reads::Reads;
use super::stored::StoredTable;
use crate::engine::Engine;
use crate::views;

/// The schema that holds Annal's own views.
pub(crate) const ANNAL_SCHEMA: &str = "annal";

/// The catalog list of one statement: one database, named as the client connected to it.
///
/// An unqualified name resolves to the default schema, `public`; a table that is not there is looked for along the rest of the search
/// path. No snapshot is opened before a scan is planned.
#[derive(Debug)]
pub(crate) struct StatementCatalog {
    database: String,
    schemas: Arc<Schemas>,
}

impl StatementCatalog {
    /// Tables of `catalog`, read through `reads`.
    pub(crate) fn new(
        engine: &Arc<Engine>,
        database: &str,
        catalog: Arc<Catalog>,
        search_path: Vec<String>,
        reads: Arc<Reads>,
    ) -> Arc<StatementCatalog> {
        let mut others: BTreeMap<String, Arc<dyn SchemaProvider>> = BTreeMap::new();
        others.insert(ANNAL_SCHEMA.to_owned(), views::schema(engine, &catalog));
        let (others, views) = (RwLock::new(others), RwLock::default());
        let schemas = Schemas { engine: Arc::clone(engine), catalog, search_path, reads, others, views };
        Arc::new(StatementCatalog { database: database.to_owned(), schemas: Arc::new(schemas) })
    }

    /// Whether the view was planned already.
    pub(crate) fn has_view(&self, id: TableId) -> bool {
        self.schemas.views.read().contains_key(&id)
    }

    /// Adds a view's plan, to be found under its name.
    pub(crate) fn add_view(&self, view: Arc<View>, plan: Arc<dyn TableProvider>) {
        self.schemas.views.write().insert(view.id, (view, plan));
    }

    /// Adds a schema that is not in the catalog, `pg_catalog` for one.
    pub(crate) fn add_schema(&self, name: &str, schema: Arc<dyn SchemaProvider>) {
        self.schemas.others.write().insert(name.to_owned(), schema);
    }
}

impl CatalogProviderList for StatementCatalog {
    /// There is one database; others are not taken.
    fn register_catalog(&self, _name: String, _catalog: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![self.database.clone()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == self.database).then(|| Arc::new(Database(Arc::clone(&self.schemas))) as Arc<dyn CatalogProvider>)
    }
}

/// A view, and what reads it.
type PlannedView = (Arc<View>, Arc<dyn TableProvider>);

/// All schemas of the database.
struct Schemas {
    engine: Arc<Engine>,
    catalog: Arc<Catalog>,
    search_path: Vec<String>,
    reads: Arc<Reads>,
    others: RwLock<BTreeMap<String, Arc<dyn SchemaProvider>>>,
    /// Those that were planned.
    views: RwLock<BTreeMap<TableId, PlannedView>>,
}

impl fmt::Debug for Schemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schemas")
            .field("index", &self.catalog.index)
            .field("search_path", &self.search_path)
            .finish_non_exhaustive()
    }
}

impl Schemas {
    fn other(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        self.others.read().get(name).cloned()
    }

    fn is_stored(&self, namespace: &str) -> bool {
        self.catalog.has_schema(namespace)
    }

    /// The table or planned view of that name.
    fn stored(&self, namespace: &str, name: &str) -> Option<Arc<dyn TableProvider>> {
        if let Some(own) = self.reads.named(name).filter(|_| namespace == "public") {
            return Some(own);
        }
        if let Some(table) = self.catalog.table(namespace, name) {
            self.reads.name(table);
            let (reads, segments) = (Arc::clone(&self.reads), Arc::clone(self.engine.segments()));
            return Some(Arc::new(StoredTable::new(Arc::clone(table), reads, segments)));
        }
        let views = self.views.read();
        let found = views.values().find(|(view, _)| view.namespace == namespace && view.name == name);
        found.map(|(_, plan)| Arc::clone(plan))
    }
}

/// The one database.
#[derive(Debug)]
struct Database(Arc<Schemas>);

impl CatalogProvider for Database {
    fn schema_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.others.read().keys().cloned().collect();
        names.push("public".to_owned());
        names.extend(self.0.catalog.schemas.keys().cloned());
        names.sort();
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if let Some(other) = self.0.other(name) {
            return Some(other);
        }
        let known = self.0.is_stored(name) || self.0.search_path.first().is_some_and(|first| first == name);
        known.then(|| {
            Arc::new(Namespace { schemas: Arc::clone(&self.0), name: name.to_owned() }) as Arc<dyn SchemaProvider>
        })
    }

    fn register_schema(&self, name: &str, schema: Arc<dyn SchemaProvider>) -> Result<Option<Arc<dyn SchemaProvider>>> {
        Ok(self.0.others.write().insert(name.to_owned(), schema))
    }
}

/// One schema that holds tables of the catalog.
#[derive(Debug)]
struct Namespace {
    schemas: Arc<Schemas>,
    name: String,
}

impl Namespace {
    /// The search path, when unqualified names lead here: those that the statement did not complete.
    fn further(&self) -> &[String] {
        if self.name == PUBLIC_SCHEMA { &self.schemas.search_path } else { &[] }
    }
}

#[async_trait]
impl SchemaProvider for Namespace {
    fn table_names(&self) -> Vec<String> {
        let definitions = self.schemas.catalog.tables.values().map(|table| &table.definition);
        definitions
            .filter(|definition| definition.namespace == self.name)
            .map(|definition| definition.name.clone())
            .collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(table) = self.schemas.stored(&self.name, name) {
            return Ok(Some(table));
        }
        for namespace in self.further() {
            let other = self.schemas.other(namespace);
            let found = match other {
                Some(other) => other.table(name).await?,
                None => self.schemas.stored(namespace, name),
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        Ok(self.table(name).await?.map(|table| table.table_type()))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.schemas.stored(&self.name, name).is_some()
    }
}

#[cfg(test)]
mod tests;
