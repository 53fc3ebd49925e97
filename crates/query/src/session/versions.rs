//! Rows that are to be changed, with their sequence numbers.
//!
//! In a table that keeps one row of each key, whoever takes a row away takes those along that it took the place of: else they would be
//! there again.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster::Table;
use datafusion::sql::sqlparser::ast::{
    Expr, Select, SelectItem, SetExpr, Statement as Ast, TableFactor, TableWithJoins, With,
};
use event::TableDefinition;
use storage::segment::SEQUENCE_COLUMN;

use super::Session;
use super::change::shard_columns;
use super::keys::quoted;
use crate::error::Error;
use crate::table::Reads;
use crate::table::stored::StoredTable;

/// All rows of the table that is changed, and one of them.
const VERSIONS: &str = "__versions";
const VERSION: &str = "__version";

/// Which rows of which table are to be changed.
pub(super) struct ToChange<'a> {
    /// The table.
    pub(super) definition: &'a TableDefinition,
    /// How the statement calls it.
    pub(super) own: &'a str,
    /// What the statement reads, the table first.
    pub(super) from: String,
    /// What else it reads.
    pub(super) others: &'a [TableWithJoins],
    /// Whether the columns of the rows are wanted.
    pub(super) columns: bool,
    /// What takes the place of columns, by their positions.
    pub(super) assigned: &'a BTreeMap<usize, Expr>,
    /// Which rows.
    pub(super) selection: Option<&'a Expr>,
    /// Queries that the statement names.
    pub(super) with: Option<&'a With>,
}

impl Session {
    /// `SELECT __seq, time, shard columns, columns … FROM table WHERE …`, with what is assigned in place of the columns. In a table that keeps one row of
    /// each key the rows of that key come along, and a last column says which of them is there.
    pub(super) async fn query_of(&self, change: ToChange<'_>) -> Result<Ast, Error> {
        let ToChange { definition, own, from, others, columns, assigned, selection, with } = change;
        let of_own = |at: usize| format!("{own}.{}", quoted(&definition.columns[at].name));
        let keeps_one = definition.event().filter(|options| !options.dedup.is_none());
        let mut wanted = vec![match keeps_one {
            Some(_) => format!("{VERSION}.__version_s"),
            None => format!("{own}.{SEQUENCE_COLUMN}"),
        }];
        wanted.extend(definition.event().map(|options| of_own(options.time_column)));
        wanted.extend(shard_columns(definition).iter().map(|at| of_own(*at)));
        let before = wanted.len();
        if columns {
            wanted.extend((0..definition.columns.len()).map(of_own));
        }
        let join = keeps_one.map(|options| {
            let key = options.sort_key();
            let named = key.iter().map(|at| format!("{} AS __version_k{at}", quoted(&definition.columns[*at].name)));
            let same = key.iter().map(|at| format!("{VERSION}.__version_k{at} = {}", of_own(*at)));
            let (named, same) = (named.collect::<Vec<_>>().join(", "), same.collect::<Vec<_>>().join(" AND "));
            format!(" JOIN (SELECT {SEQUENCE_COLUMN} AS __version_s, {named} FROM {VERSIONS}) AS {VERSION} ON {same}")
        });
        wanted.extend(keeps_one.map(|_| format!("{VERSION}.__version_s = {own}.{SEQUENCE_COLUMN}")));
        // Equal names would be one column; each gets its own.
        let wanted: Vec<String> =
            wanted.into_iter().enumerate().map(|(at, column)| format!("{column} AS \"__{at}\"")).collect();
        let others: String = others.iter().map(|other| format!(", {other}")).collect();
        let text = format!("SELECT {} FROM {from}{}{others}", wanted.join(", "), join.unwrap_or_default());
        let (_, mut query) = self.written(text).await?;
        if let Ast::Query(query) = &mut query {
            query.with = with.cloned();
        }
        let select = select_of(&mut query);
        select.selection = selection.cloned();
        for (at, value) in assigned {
            if let Some(SelectItem::ExprWithAlias { expr, .. }) = select.projection.get_mut(before + at) {
                *expr = value.clone();
            }
        }
        Ok(query)
    }

    /// What a statement that changes rows of `table` reads.
    pub(super) fn reads_to_change(&self, table: &Arc<Table>) -> Reads {
        let reads = self.newest_reads().with_numbers(table.definition.id);
        if table.definition.dedup().is_none() {
            return reads;
        }
        let (all, segments) = (reads.clone().with_all_rows(), Arc::clone(self.engine().segments()));
        reads.with_named(VERSIONS, Arc::new(StoredTable::new(Arc::clone(table), Arc::new(all), segments)))
    }
}

/// How a statement calls the one table of `from`.
pub(super) fn own_name(from: &TableWithJoins, definition: &TableDefinition) -> String {
    match &from.relation {
        TableFactor::Table { alias: Some(alias), .. } => alias.name.to_string(),
        _ => quoted(&definition.name),
    }
}

/// The SELECT of a query that the server wrote.
pub(super) fn select_of(query: &mut Ast) -> &mut Select {
    let Ast::Query(query) = query else { unreachable!("a SELECT is a query") };
    let SetExpr::Select(select) = query.body.as_mut() else { unreachable!("a SELECT is a query") };
    select
}
