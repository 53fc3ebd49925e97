//! PRIMARY KEY and UNIQUE of reference tables: no two rows share a key, whoever writes.
//!
//! A statement looks at the keys of all rows, its own included, and its commit fails when rows came to the table since it looked. Whoever
//! waits to commit to a keyed table takes turns, so that this happens between nodes only.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use cluster::{Table, TableSnapshot};
use datafusion::sql::sqlparser::ast::{Ident, Statement as Ast};
use event::{TableDefinition, TableId, UniqueKey};
use futures::StreamExt;
use storage::sequences::OWN_ROW;
use tokio::sync::OwnedSemaphorePermit;

use super::report::{self, Known};
use super::{Block, Session, Statement, statement};
use crate::error::{Condition, Error, Report};
use crate::table::{Reads, Snapshots};

impl Session {
    /// Refuses what the open transaction has written when two rows share a key.
    ///
    /// # Errors
    /// 23505.
    pub(super) async fn check_keys(&mut self) -> Result<(), Error> {
        for table in self.keyed_tables().await {
            self.look_at_keys(&table).await?;
        }
        Ok(())
    }

    /// The same right before the commit, which then holds only for the rows that were looked at. The turns are to be kept until then.
    pub(super) async fn settle_keys(&mut self) -> Result<Vec<OwnedSemaphorePermit>, Error> {
        let mut turns = Vec::new();
        // In the order of their ids, as everybody takes them.
        for table in self.keyed_tables().await {
            if self.turn != Some(table.definition.id) {
                turns.push(self.engine.turn(table.definition.id).await);
            }
            let index = self.look_at_keys(&table).await?;
            if let Some(writes) = &self.writes {
                writes.lock().await.keys_are_unique(&table, index);
            }
        }
        Ok(turns)
    }

    /// The turn to change a table, for a statement that commits by itself: what it found there stays as it is until then. In a block there
    /// is none, for the client may take its time.
    pub(super) async fn take_turn(&mut self, table: TableId) -> Option<OwnedSemaphorePermit> {
        if self.block != Block::None {
            return None;
        }
        let turn = self.engine.turn(table).await;
        self.turn = Some(table);
        Some(turn)
    }

    async fn keyed_tables(&self) -> Vec<Arc<Table>> {
        let Some(writes) = &self.writes else { return Vec::new() };
        let catalog = self.visible();
        let written = writes.lock().await.keyed();
        // The transaction may have dropped the table.
        written.iter().filter_map(|table| catalog.tables.get(&table.definition.id)).cloned().collect()
    }

    /// Answers with the index of the snapshot that was looked at.
    async fn look_at_keys(&self, table: &Arc<Table>) -> Result<u64, Error> {
        let reads = self.all_rows();
        for key in table.definition.keys() {
            if let Some(values) = self.first_of(duplicates(&table.definition, &key), &reads).await? {
                if self.is_overtaken(table).await? {
                    return Err(cluster::Error::Conflict.into());
                }
                return Err(duplicate(&table.definition, &key, &values));
            }
        }
        let read = self.snapshot_of(&reads, table).await?;
        // A table with keys has one shard.
        Ok(read.shards.iter().map(|shard| shard.index).min().unwrap_or(0))
    }

    /// Whether somebody else has changed rows that the transaction has changed: the row that took the place of one of them has its key, and it is not
    /// that key which is wrong.
    async fn is_overtaken(&self, table: &Arc<Table>) -> Result<bool, Error> {
        let id = table.definition.id;
        let mut own = self.own_rows(&self.visible()).remove(&id).unwrap_or_default();
        let mut changed = 0;
        for shard in &mut own {
            shard.batches.clear();
            shard.segments.clear();
            changed += shard.deleted.values().map(|numbers| numbers.split_at(OWN_ROW).1.len()).sum::<u64>();
        }
        if changed == 0 {
            return Ok(false);
        }
        let snapshots = Arc::new(Snapshots::new(Arc::clone(self.engine.node())));
        let there = self.count(table, Reads::new(Arc::clone(&snapshots), BTreeMap::new())).await?;
        let left = self.count(table, Reads::new(snapshots, BTreeMap::from([(id, own)]))).await?;
        Ok(there.saturating_sub(left) < changed)
    }

    async fn count(&self, table: &Table, reads: Reads) -> Result<u64, Error> {
        let query = format!("SELECT count(*)::text AS n FROM {}", table_name(&table.definition));
        let counted = self.first_of(query, &Arc::new(reads)).await?;
        let count = counted.as_ref().and_then(|row| row.first()).and_then(|count| count.parse().ok());
        count.ok_or_else(|| Error::report(Condition::Internal, "a count is a number"))
    }

    /// All rows of this moment, with those that the transaction has written, whatever it is to see of others'.
    pub(super) fn all_rows(&self) -> Arc<Reads> {
        let snapshots = Arc::new(Snapshots::new(Arc::clone(self.engine.node())));
        Arc::new(Reads::new(snapshots, self.own_rows(&self.visible())))
    }

    /// The snapshot that was read of a table.
    pub(super) async fn snapshot_of(&self, reads: &Reads, table: &Arc<Table>) -> Result<Arc<TableSnapshot>, Error> {
        reads.snapshot(table).await.map_err(|error| report::report(error, "", 0, &Known::default()))
    }

    /// The first row that a query of the server's gives, whose columns are all text.
    ///
    /// # Errors
    /// What running it says.
    pub(super) async fn first_of(&self, query: String, reads: &Arc<Reads>) -> Result<Option<Vec<String>>, Error> {
        let (query, ast) = self.written(query).await?;
        let planned = self.planned_over(&query, ast, Arc::clone(reads)).await?;
        let runnable = self.made_ready(&query, planned, &[]).await?;
        let mut batches = self.start(&runnable);
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|error| self.worded(error, &query))?;
            if batch.num_rows() > 0 {
                let text = |column: &Arc<dyn Array>| column.as_string::<i32>().value(0).to_owned();
                return Ok(Some(batch.columns().iter().map(text).collect()));
            }
        }
        Ok(None)
    }

    /// A query that was written by the server.
    pub(super) async fn written(&self, text: String) -> Result<(Statement, Ast), Error> {
        // Parsing takes much stack; the caller's is deep already.
        let parsed = self.engine.work(async move { Ok(statement::parse(&text)) }).await;
        let mut parsed = parsed.map_err(|error| Error::report(Condition::Internal, error.to_string()))??;
        let query = parsed.remove(0);
        let ast = query.ast.as_deref().cloned();
        Ok((query, ast.ok_or_else(|| Error::report(Condition::Internal, "a query is not empty"))?))
    }
}

/// One value of a key that more than one row has, as text.
pub(super) fn duplicates(definition: &TableDefinition, key: &UniqueKey) -> String {
    let names: Vec<String> = key.columns.iter().map(|at| quoted(&definition.columns[*at].name)).collect();
    let texts: Vec<String> = names.iter().enumerate().map(|(at, name)| format!("{name}::text AS k{at}")).collect();
    let present: Vec<String> = names.iter().map(|name| format!("{name} IS NOT NULL")).collect();
    format!(
        "SELECT {} FROM {} WHERE {} GROUP BY {} HAVING count(*) > 1 LIMIT 1",
        texts.join(", "),
        table_name(definition),
        present.join(" AND "),
        names.join(", ")
    )
}

/// The table as a statement names it.
pub(super) fn table_name(definition: &TableDefinition) -> String {
    format!("{}.{}", quoted(&definition.namespace), quoted(&definition.name))
}

pub(super) fn quoted(name: &str) -> String {
    Ident::with_quote('"', name).to_string()
}

fn duplicate(definition: &TableDefinition, key: &UniqueKey, values: &[String]) -> Error {
    let message = format!("duplicate key value violates unique constraint \"{}\"", key.name);
    let detail = format!("Key ({})=({}) already exists.", columns_of(definition, key), values.join(", "));
    let report = Report::new(Condition::UniqueViolation, message).detailed(detail);
    report.of_constraint((&definition.namespace, &definition.name), &key.name).into()
}

/// The names of a key's columns.
pub(super) fn columns_of(definition: &TableDefinition, key: &UniqueKey) -> String {
    let names: Vec<&str> = key.columns.iter().map(|at| definition.columns[*at].name.as_str()).collect();
    names.join(", ")
}
