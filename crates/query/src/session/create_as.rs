//! CREATE TABLE AS: a table with the columns and rows of a query, all there or not at all.

use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, IntervalUnit};
use cluster::Table;
use datafusion::sql::sqlparser::ast::{CreateTable, DataType as SqlType, Query};
use event::{Column, ColumnId, ColumnType};
use futures::StreamExt;

use super::ddl::{check_column_name, folded, query_spec, relation};
use super::defaults::DefaultValue;
use super::plan::as_query;
use super::rows::{Target, sql_name};
use super::{Outcome, Session, Statement, modifier_of, names, pg_catalog};
use crate::error::{Condition, Error};
use crate::functions::RECORD;

impl Session {
    pub(super) async fn create_table_as(
        &mut self,
        statement: &Statement,
        create: &CreateTable,
        query: &Query,
    ) -> Result<Outcome, Error> {
        let (namespace, name) = relation(&create.name)?;
        let catalog = self.visible();
        let exists = catalog.table(&namespace, &name).is_some() || catalog.view(&namespace, &name).is_some();
        if exists {
            return self.exists_already(create, &name);
        }
        let planned = self.planned(statement, as_query(query)).await?;
        let columns = columns(create, &names::shown(&planned.columns()), &planned.declared_numerics())?;
        let spec = query_spec(create, columns)?;
        let created = self.changing().await?.create_table(spec).await;
        self.note_on_commit(create, &created);
        let table = created?;
        let tag = match statement.without_data {
            true => "CREATE TABLE AS".to_owned(),
            false => {
                let runnable = self.made_ready(statement, planned, &[]).await?;
                format!("SELECT {}", self.fill(statement, self.start(&runnable), &table).await?)
            }
        };
        match self.changed(Ok(())).await {
            Err(Error::Cluster(cluster::Error::TableExists(_))) => self.exists_already(create, &name),
            Err(error) => Err(error),
            Ok(()) => {
                self.notice_fewer_nodes(&name, table.definition.replicas);
                Ok(Outcome::Done(tag))
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

    /// Writes the rows to the new table; how many there are.
    async fn fill(
        &mut self,
        statement: &Statement,
        mut batches: crate::run::ResultStream,
        table: &Arc<Table>,
    ) -> Result<usize, Error> {
        let width = table.definition.columns.len();
        let target = Arc::new(Target {
            table: Arc::clone(&table.definition),
            positions: (0..width).collect(),
            defaults: vec![DefaultValue::none(); width],
            zone: self.zone(),
            checks: None,
        });
        let (mut writes, mut count) = (self.take_writes().await, 0);
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|error| self.worded(error, statement))?;
            let target = Arc::clone(&target);
            let rows = self.engine.work(async move { Ok(target.rows(&batch)) }).await;
            let rows = rows.map_err(|error| self.worded(error, statement))??;
            count += rows.num_rows();
            writes.append(table, rows).await?;
        }
        Ok(count)
    }
}

/// The columns of the query, the first of them with the names that the statement lists.
fn columns(
    create: &CreateTable,
    given: &arrow::datatypes::Schema,
    declared_numerics: &[bool],
) -> Result<Vec<Column>, Error> {
    if create.columns.iter().any(|column| column.data_type != SqlType::Unspecified) {
        return Err(Error::report(Condition::SyntaxError, "syntax error at or near \"AS\""));
    }
    if create.columns.len() > given.fields().len() {
        return Err(Error::report(Condition::SyntaxError, "too many column names were specified"));
    }
    let mut columns: Vec<Column> = Vec::new();
    for (at, field) in given.fields().iter().enumerate() {
        let name = create.columns.get(at).map_or_else(|| field.name().clone(), |column| folded(&column.name));
        check_column_name(&name)?;
        if columns.iter().any(|column| column.name == name) {
            let message = format!("column \"{name}\" specified more than once");
            return Err(Error::report(Condition::DuplicateColumn, message));
        }
        let id = ColumnId(at as u32 + 1);
        columns.push(Column {
            identity: None,
            modifier: modifier_of(field),
            required: false,
            initial: None,
            stored: None,
            id,
            column_type: column_type(&name, field, declared_numerics.get(at) == Some(&true))?,
            name,
            nullable: true,
            default: None,
        });
    }
    Ok(columns)
}

fn column_type(name: &str, field: &Field, is_declared: bool) -> Result<ColumnType, Error> {
    use DataType::{Duration, FixedSizeList, Interval, LargeList, List, Map, Struct};
    let refused = || {
        let message = format!("columns of type {} are not supported", sql_name(field.data_type()));
        Err(Error::hinted(Condition::FeatureNotSupported, message, format!("Cast column \"{name}\" to text.")))
    };
    match field.data_type() {
        List(element) | LargeList(element) => column_type(name, element, is_declared)?.array().map_or_else(refused, Ok),
        Interval(IntervalUnit::DayTime | IntervalUnit::YearMonth)
        | Duration(_)
        | FixedSizeList(..)
        | Map(..)
        | Struct(_) => refused(),
        _ if field.metadata().contains_key(RECORD) => refused(),
        // Whoever writes the next row is not bound by how large the numbers of the first are.
        DataType::Decimal128(_, scale) if !is_declared => {
            Ok(ColumnType::Numeric { precision: DECIMAL128_MAX_PRECISION, scale: *scale })
        }
        data_type => Ok(ColumnType::json_of(field).unwrap_or_else(|| pg_catalog::column_type(data_type))),
    }
}
