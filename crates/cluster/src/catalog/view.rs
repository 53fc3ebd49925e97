//! Views: queries with a name. They have no rows, so a step of the catalog group is all their DDL.

use std::collections::BTreeMap;
use std::sync::Arc;

use event::{Column, TableDefinition, TableId};
use serde::{Deserialize, Serialize};

/// A query with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Its id, of one range with those of tables; given when it is created.
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

impl View {
    /// Whether its query may name that column: whether the word is in it.
    fn mentions(&self, column: &str) -> bool {
        let is_word = |word: &str| word.eq_ignore_ascii_case(column);
        let quoted = self.query.contains(&format!("\"{column}\""));
        quoted
            || self.outputs.iter().any(|output| is_word(output))
            || self.query.split(|c: char| !c.is_alphanumeric() && c != '_').any(is_word)
    }
}

/// Names of the views that may name columns of `before` which `next` has not under the same name and with the same type.
pub(super) fn losers(
    views: &BTreeMap<TableId, Arc<View>>,
    before: &TableDefinition,
    next: &TableDefinition,
) -> Vec<String> {
    let is_kept = |column: &Column| {
        let same =
            |new: &Column| new.id == column.id && new.name == column.name && new.column_type == column.column_type;
        next.columns.iter().any(same)
    };
    let lost: Vec<&Column> = before.columns.iter().filter(|column| !is_kept(column)).collect();
    let names_one = |view: &&Arc<View>| lost.iter().any(|column| view.mentions(&column.name));
    let readers = views.values().filter(|view| view.reads.contains(&before.id));
    readers.filter(names_one).map(|view| view.name.clone()).collect()
}

/// Whether one of `from` is `to`, or reads it. No view reads itself, so this ends.
pub(super) fn reaches(views: &BTreeMap<TableId, Arc<View>>, from: &[TableId], to: TableId) -> bool {
    from.iter().any(|id| *id == to || views.get(id).is_some_and(|view| reaches(views, &view.reads, to)))
}

/// Names of the views that read `id`, in order of their ids.
pub(super) fn readers(views: &BTreeMap<TableId, Arc<View>>, id: TableId) -> Vec<String> {
    views.values().filter(|view| view.reads.contains(&id)).map(|view| view.name.clone()).collect()
}
