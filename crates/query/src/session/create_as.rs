//! CREATE TABLE AS: a table with the columns and rows of a query, all there or not at all.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use cluster::Filling;
use datafusion::sql::sqlparser::ast::{CreateTable, Query};
use event::{Column, ColumnId, ColumnType};
use futures::StreamExt;

use super::ddl::{query_spec, relation};
use super::defaults::DefaultValue;
use super::plan::as_query;
use super::rows::{Target, sql_name};
use super::{Outcome, Session, Statement, names, pg_catalog};
use crate::error::{Condition, Error};

impl Session {
    pub(super) async fn create_table_as(
        &mut self,
        statement: &Statement,
        create: &CreateTable,
        query: &Query,
    ) -> Result<Outcome, Error> {
        self.refuse_in_block("CREATE TABLE AS").await?;
        let (namespace, name) = relation(&create.name)?;
        let catalog = self.engine.node().catalog();
        let exists = catalog.table(&namespace, &name).is_some() || catalog.view(&namespace, &name).is_some();
        if exists {
            return self.exists_already(create, &name);
        }
        let planned = self.planned(statement, as_query(query)).await?;
        let columns = columns(create, &names::shown(planned.columns()))?;
        let spec = query_spec(create, columns)?;
        let filling = match self.engine.node().create_hidden(spec).await {
            Ok(filling) => filling,
            Err(cluster::Error::TableExists(_)) => return self.exists_already(create, &name),
            Err(error) => return Err(error.into()),
        };
        let ready = self.made_ready(statement, planned, &[]).await;
        let filled = match ready {
            Ok(runnable) => self.fill(statement, self.start(&runnable), &filling).await,
            Err(error) => Err(error),
        };
        match filled {
            Ok(rows) => {
                filling.publish().await?;
                Ok(Outcome::Done(format!("SELECT {rows}")))
            }
            Err(error) => {
                // What stopped the statement is what the client wants to know.
                if let Err(left) = filling.discard().await {
                    tracing::warn!(%left, "a table that was not filled is dropped later");
                }
                Err(error)
            }
        }
    }

    fn exists_already(&mut self, create: &CreateTable, name: &str) -> Result<Outcome, Error> {
        if create.if_not_exists {
            self.notice("NOTICE", "42P07", format!("relation \"{name}\" already exists, skipping"));
            return Ok(Outcome::Done("CREATE TABLE AS".to_owned()));
        }
        Err(Error::report(Condition::DuplicateTable, format!("relation \"{name}\" already exists")))
    }

    /// Commits the rows to the table nobody sees yet; how many there are.
    async fn fill(
        &self,
        statement: &Statement,
        mut batches: crate::run::ResultStream,
        filling: &Filling,
    ) -> Result<u64, Error> {
        let table = filling.table();
        let width = table.definition.columns.len();
        let target = Arc::new(Target {
            table: Arc::clone(&table.definition),
            positions: (0..width).collect(),
            defaults: vec![DefaultValue::none(); width],
            zone: self.zone(),
            checks: None,
        });
        let mut writes = self.engine.node().begin();
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|error| self.worded(error, statement))?;
            let target = Arc::clone(&target);
            let rows = self.engine.work(async move { Ok(target.rows(&batch)) }).await;
            let rows = rows.map_err(|error| self.worded(error, statement))??;
            writes.append(table, rows).await?;
        }
        Ok(writes.commit().await?.rows)
    }
}

/// The columns of the query.
fn columns(create: &CreateTable, given: &arrow::datatypes::Schema) -> Result<Vec<Column>, Error> {
    if !create.columns.is_empty() {
        let message = "CREATE TABLE AS with a list of columns is not supported";
        return Err(Error::hinted(Condition::FeatureNotSupported, message, "Name them in the query."));
    }
    let mut columns: Vec<Column> = Vec::new();
    for (at, field) in given.fields().iter().enumerate() {
        let name = field.name().clone();
        if columns.iter().any(|column| column.name == name) {
            let message = format!("column \"{name}\" specified more than once");
            return Err(Error::report(Condition::DuplicateColumn, message));
        }
        let id = ColumnId(at as u32 + 1);
        columns.push(Column {
            identity: None,
            initial: None,
            stored: None,
            id,
            column_type: column_type(&name, field)?,
            name,
            nullable: true,
            default: None,
        });
    }
    Ok(columns)
}

fn column_type(name: &str, field: &Field) -> Result<ColumnType, Error> {
    use DataType::{Duration, FixedSizeList, Interval, LargeList, List, Map, Struct};
    match field.data_type() {
        Interval(_) | Duration(_) | List(_) | LargeList(_) | FixedSizeList(..) | Map(..) | Struct(_) => {
            let message = format!("columns of type {} are not supported", sql_name(field.data_type()));
            Err(Error::hinted(Condition::FeatureNotSupported, message, format!("Cast column \"{name}\" to text.")))
        }
        data_type => Ok(ColumnType::json_of(field).unwrap_or_else(|| pg_catalog::column_type(data_type))),
    }
}
