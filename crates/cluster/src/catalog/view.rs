//! Views: queries with a name. They have no rows, so a step of the catalog group is all their DDL.

use std::collections::BTreeMap;
use std::sync::Arc;

use event::{Column, TableId};
use serde::{Deserialize, Serialize};

/// A query with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Its id, of one range with those of tables. Ignored in what CREATE VIEW asks for.
    pub id: TableId,
    /// The schema it lies in.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it gives, under these names and types, whatever is added to the tables it reads.
    pub columns: Vec<Column>,
    /// The names its query gives to these columns.
    pub outputs: Vec<String>,
    /// Its query, as it was written.
    pub query: String,
    /// The tables and views it reads.
    pub reads: Vec<TableId>,
}

/// Whether one of `from` is `to`, or reads it. No view reads itself, so this ends.
pub(super) fn reaches(views: &BTreeMap<TableId, Arc<View>>, from: &[TableId], to: TableId) -> bool {
    from.iter().any(|id| *id == to || views.get(id).is_some_and(|view| reaches(views, &view.reads, to)))
}

/// Names of the views that read `id`, in order of their ids.
pub(super) fn readers(views: &BTreeMap<TableId, Arc<View>>, id: TableId) -> Vec<String> {
    views.values().filter(|view| view.reads.contains(&id)).map(|view| view.name.clone()).collect()
}
