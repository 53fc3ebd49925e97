//! RETURNING: the rows a statement has written or deleted, as a query over nothing but them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use arrow::record_batch::RecordBatch;
use cluster::{Table, TableSnapshot, Uncommitted};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::{Insert, SelectItem, Statement as Ast, TableWithJoins};
use event::ShardId;
use event::limits::RETURNING_BYTES_MAX;
use futures::{StreamExt, stream};
use storage::sequence::{sequenced_schema, with_sequence};
use storage::sequences::OWN_ROW;

use super::{Prepared, Rows, Session, Statement, names};
use crate::error::{Condition, Error};
use crate::table::{Reads, Snapshots};

/// What a RETURNING asks of which table.
#[derive(Clone, Copy)]
pub(super) struct Returning<'a> {
    /// The table.
    pub(super) table: &'a Arc<Table>,
    /// As the statement names it.
    pub(super) from: &'a TableWithJoins,
    /// What is asked for.
    pub(super) items: &'a [SelectItem],
}

impl Session {
    /// Computes RETURNING before the statement commits: an error in it leaves nothing of the statement.
    pub(super) async fn returning(
        &self,
        statement: &Statement,
        Returning { table, from, items }: Returning<'_>,
        rows: Vec<RecordBatch>,
        parameters: &[ScalarValue],
        tag: &'static str,
    ) -> Result<Rows, Error> {
        let bytes: usize = rows.iter().map(RecordBatch::get_array_memory_size).sum();
        if bytes > RETURNING_BYTES_MAX {
            return Err(Error::hinted(
                Condition::ProgramLimitExceeded,
                "RETURNING gives too many rows",
                "Write in smaller parts, or leave RETURNING out.",
            ));
        }
        let query = self.select(items.to_vec(), from.clone(), None).await?;
        let reads = Arc::new(self.only(table, rows)?);
        let planned = self.planned_over(statement, query, reads).await?;
        let runnable = self.made_ready(statement, planned, parameters).await?;
        let mut rows = self.rows(statement, self.start(&runnable), tag);
        let mut batches = Vec::new();
        while let Some(batch) = rows.batches.next().await {
            batches.push(Ok(batch?));
        }
        Ok(Rows { columns: rows.columns, batches: Box::pin(stream::iter(batches)), tag })
    }

    /// The columns RETURNING gives, and types of the parameters only it names.
    pub(super) async fn describe_returning(
        &self,
        prepared: &mut Prepared,
        Returning { table, from, items }: Returning<'_>,
        given: &[Option<FieldRef>],
    ) -> Result<(), Error> {
        let query = self.select(items.to_vec(), from.clone(), None).await?;
        let reads = Arc::new(self.only(table, Vec::new())?);
        let planned = self.planned_over(&prepared.statement, query, reads).await?;
        let types = self.types_of(&planned, given, &prepared.statement)?;
        prepared.parameters.extend(types.into_iter().skip(prepared.parameters.len()));
        prepared.columns = Some(names::shown(&planned.columns()));
        Ok(())
    }

    /// The table of an INSERT as a FROM, with its alias.
    pub(super) async fn table_of_insert(&self, insert: &Insert) -> Result<TableWithJoins, Error> {
        let alias = insert.table_alias.as_ref().map(|alias| format!(" AS {}", alias.alias)).unwrap_or_default();
        let text = format!("SELECT * FROM {}{alias}", insert.table);
        let parsed = self.engine().work(async move { Ok(super::statement::parse(&text)) });
        let parsed = parsed.await.map_err(|error| Error::report(Condition::Internal, error.to_string()))??;
        let select = parsed[0].ast.as_deref().and_then(|ast| match ast {
            Ast::Query(query) => query.body.as_select(),
            _ => None,
        });
        let from = select.and_then(|select| select.from.first().cloned());
        from.ok_or_else(|| Error::report(Condition::Internal, "the table of an INSERT has a name"))
    }

    /// Reads of nothing but `rows` where `table` is named.
    fn only(&self, table: &Arc<Table>, rows: Vec<RecordBatch>) -> Result<Reads, Error> {
        let schema = sequenced_schema(&table.definition);
        let number = |batch: RecordBatch| with_sequence(&schema, &batch, OWN_ROW, 0);
        let batches = rows.into_iter().map(number).collect::<Result<_, _>>();
        let batches = batches.map_err(|error| Error::report(Condition::Internal, error.to_string()))?;
        let nothing = TableSnapshot { table: Arc::clone(table), shards: Vec::new() };
        let snapshots = Snapshots::pinned(Arc::clone(self.engine().node()), vec![nothing]);
        let shard = table.shards.first().map_or(ShardId(0), |placement| placement.shard);
        let own = Uncommitted { shard, batches, segments: Vec::new(), deleted: BTreeMap::new() };
        let reads = Reads::new(Arc::new(snapshots), BTreeMap::from([(table.definition.id, vec![own])]));
        // What the statement wrote, whatever became of it.
        Ok(reads.with_all_rows())
    }
}
