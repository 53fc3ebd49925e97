//! Views: CREATE VIEW and DROP VIEW, and how a statement that names views is planned.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster::{Catalog, View};
use datafusion::common::{DFSchema, DataFusionError, Result as PlanResult};
use datafusion::datasource::ViewTable;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{CreateTableOptions, CreateView, ObjectName, Query, Statement as Ast};
use event::{Column, ColumnId, ColumnType, Modifier, TableId};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::ddl::{folded, relation};
use super::names::shown_name;
use super::plan::REPLANS_MAX;
use super::report::nearest;
use super::{
    Block, Outcome, Session, lateral_rows, literals, modifier_of, names, numbers, pg_catalog, result_modifiers,
    spelled_out, statement,
};
use crate::error::{Condition, Error};
use crate::table::StatementCatalog;

/// Views in views in views; deeper ones are refused before planning runs out of stack.
const DEPTH_MAX: usize = 32;

impl Session {
    pub(super) async fn create_view(&mut self, create: &CreateView) -> Result<Outcome, Error> {
        refuse_clauses(create)?;
        let (namespace, name) = relation(&create.name)?;
        super::ddl::check_namespace(&namespace)?;
        let query = create.query.to_string();
        for attempt in 0.. {
            let catalog = self.visible();
            let view = self.asked_view(create, (&namespace, &name), &query).await?;
            let versions = view.reads.iter().filter_map(|id| catalog.tables.get(id));
            let seen = versions.map(|table| (table.definition.id, table.definition.version)).collect();
            let replaces = catalog.view(&namespace, &name).filter(|_| create.or_replace).cloned();
            if let Some(before) = &replaces {
                follows(before, &view.columns)?;
            }
            let alone = self.block == Block::None;
            let created = self.changing().await?.create_view(view, replaces, seen).await;
            match self.changed(created).await {
                Ok(()) => break,
                // It reads, or replaces, what was changed meanwhile.
                Err(Error::Cluster(cluster::Error::SchemaChanged(_))) if alone && attempt < REPLANS_MAX => {}
                Err(Error::Cluster(cluster::Error::TableExists(_))) if create.if_not_exists => {
                    self.notice("NOTICE", "42P07", format!("relation \"{name}\" already exists, skipping"));
                    break;
                }
                Err(Error::Cluster(cluster::Error::TableExists(_))) if create.or_replace => {
                    return Err(Error::report(Condition::WrongObjectType, format!("\"{name}\" is not a view")));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Outcome::Done("CREATE VIEW".to_owned()))
    }

    /// The view as the statement wants it, over the tables of this moment.
    async fn asked_view(
        &self,
        create: &CreateView,
        (namespace, name): (&str, &str),
        query: &str,
    ) -> Result<View, Error> {
        let (given, modifiers) = self.planned_view(query).await?;
        let mut columns = columns(&result_modifiers::with_modifiers(given.inner(), &modifiers))?;
        if create.columns.len() > columns.len() {
            let message = "CREATE VIEW specifies more column names than columns";
            return Err(Error::report(Condition::SyntaxError, message));
        }
        for (column, named) in columns.iter_mut().zip(&create.columns) {
            column.name = folded(&named.name);
        }
        let mut taken = BTreeSet::new();
        if let Some(twice) = columns.iter().find(|column| !taken.insert(column.name.as_str())) {
            let message = format!("column \"{}\" specified more than once", twice.name);
            return Err(Error::report(Condition::DuplicateColumn, message));
        }
        Ok(View {
            id: TableId(0),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            columns,
            outputs: given.fields().iter().map(|field| field.name().clone()).collect(),
            query: query.to_owned(),
            reads: reads(&create.query, &self.visible()),
        })
    }

    /// What the query of a view gives, with its lengths and precisions.
    async fn planned_view(&self, query: &str) -> Result<(Arc<DFSchema>, Vec<Option<Modifier>>), Error> {
        let parsed = statement::parse(query)?.remove(0);
        let Some(ast @ Ast::Query(_)) = parsed.ast.as_deref() else {
            return Err(Error::report(Condition::SyntaxError, "a view is a query"));
        };
        let prepared = self.planned(&parsed, ast.clone()).await?;
        if let Some(parameter) = prepared.parameters().first() {
            return Err(Error::report(Condition::UndefinedParameter, format!("there is no parameter {parameter}")));
        }
        Ok((prepared.schema(), prepared.modifiers()))
    }

    pub(super) async fn drop_views(
        &mut self,
        dropped: &[ObjectName],
        if_exists: bool,
        cascade: bool,
    ) -> Result<Outcome, Error> {
        for name in dropped {
            let (namespace, name) = relation(name)?;
            let catalog = self.visible();
            if catalog.table(&namespace, &name).is_some() {
                let message = format!("\"{name}\" is not a view");
                return Err(Error::hinted(Condition::WrongObjectType, message, "Use DROP TABLE to remove a table."));
            }
            let Some(view) = catalog.view(&namespace, &name) else {
                if if_exists {
                    self.notice("NOTICE", "00000", format!("view \"{name}\" does not exist, skipping"));
                    continue;
                }
                let near = nearest(&name, catalog.views.values().map(|view| view.name.as_str()));
                let message = format!("view \"{name}\" does not exist");
                return Err(match near {
                    Some(near) => {
                        let hint = format!("Perhaps you meant the view \"{near}\".");
                        Error::hinted(Condition::UndefinedTable, message, hint)
                    }
                    None => Error::report(Condition::UndefinedTable, message),
                });
            };
            if cascade {
                self.drop_readers(view.id).await?;
            }
            let dropped = self.changing().await?.drop_view(view.id);
            self.show_changes();
            dropped.map_err(|error| match error {
                cluster::Error::IsRead { name, readers } => is_read("drop", "view", &name, &readers),
                error => error.into(),
            })?;
        }
        self.changed(Ok(())).await?;
        Ok(Outcome::Done("DROP VIEW".to_owned()))
    }

    /// Drops the views that read `id`, those that read them first.
    pub(super) async fn drop_readers(&mut self, id: TableId) -> Result<(), Error> {
        for view in self.changing().await?.drop_readers(id)? {
            self.notice("NOTICE", "00000", format!("drop cascades to view {}", view.name));
        }
        self.show_changes();
        Ok(())
    }
}

/// What shall go, or change, is needed by views.
pub(super) fn is_read(doing: &str, kind: &str, name: &str, readers: &[String]) -> Error {
    let what = format!("{kind} {name}");
    let readers: Vec<String> = readers.iter().map(|reader| format!("view {reader}")).collect();
    depended_on(&format!("{doing} {what}"), &what, &readers)
}

/// PostgreSQL's refusal to do away with what others need.
pub(super) fn depended_on(doing: &str, what: &str, dependents: &[String]) -> Error {
    let message = format!("cannot {doing} because other objects depend on it");
    let lines: Vec<String> = dependents.iter().map(|dependent| format!("{dependent} depends on {what}")).collect();
    let hint = match doing.starts_with("drop") {
        true => "Use DROP ... CASCADE to drop the dependent objects too.",
        false => "Drop the dependent objects first, and create them again afterwards.",
    };
    Error::hinted(Condition::DependentObjects, message, hint).detailed(lines.join("\n"))
}

fn refuse_clauses(create: &CreateView) -> Result<(), Error> {
    let refused = [
        (create.materialized, "materialized views are"),
        (create.temporary, "temporary views are"),
        (create.options != CreateTableOptions::None, "options of views are"),
    ];
    match refused.iter().find(|(present, _)| *present) {
        Some((_, what)) => Err(Error::report(Condition::FeatureNotSupported, format!("{what} not supported"))),
        None => Ok(()),
    }
}

fn columns(schema: &arrow::datatypes::SchemaRef) -> Result<Vec<Column>, Error> {
    let shown = names::shown(schema);
    let column = |(number, field): (u32, &Arc<arrow::datatypes::Field>)| Column {
        identity: None,
        modifier: modifier_of(field),
        required: false,
        initial: None,
        stored: None,
        id: ColumnId(number),
        name: field.name().clone(),
        column_type: ColumnType::json_of(field).unwrap_or_else(|| pg_catalog::column_type(field.data_type())),
        nullable: true,
        default: None,
    };
    Ok((1..).zip(shown.fields()).map(column).collect())
}

/// What takes the place of a view gives its columns first, as those that read it know them.
fn follows(before: &View, columns: &[Column]) -> Result<(), Error> {
    let refuse = |message: String| Err(Error::report(Condition::InvalidTableDefinition, message));
    if columns.len() < before.columns.len() {
        return refuse("cannot drop columns from view".to_owned());
    }
    for (old, new) in before.columns.iter().zip(columns) {
        if old.name != new.name {
            return refuse(format!("cannot change name of view column \"{}\" to \"{}\"", old.name, new.name));
        }
        let are_numerics = |one: ColumnType, other: ColumnType| {
            matches!((one, other), (ColumnType::Numeric { .. }, ColumnType::Numeric { .. }))
        };
        if old.column_type != new.column_type && !are_numerics(old.column_type, new.column_type) {
            let (name, old, new) = (&old.name, old.column_type, new.column_type);
            return refuse(format!("cannot change data type of view column \"{name}\" from {old} to {new}"));
        }
    }
    Ok(())
}

/// The tables and views a query names.
fn reads(query: &Query, catalog: &Catalog) -> Vec<TableId> {
    let mut found = BTreeSet::new();
    let statement = Ast::Query(Box::new(query.clone()));
    let _ = datafusion::sql::sqlparser::ast::visit_relations(&statement, |name| {
        if let Ok((namespace, name)) = relation(name) {
            found.extend(catalog.table(&namespace, &name).map(|table| table.definition.id));
            found.extend(catalog.view(&namespace, &name).map(|view| view.id));
        }
        std::ops::ControlFlow::<()>::Continue(())
    });
    found.into_iter().collect()
}

/// Plans the views that `statement` names, and those they name, so that planning it finds them in `list`.
pub(super) fn add_views<'a>(
    state: &'a SessionState,
    list: &'a StatementCatalog,
    catalog: &'a Catalog,
    statement: &'a DfStatement,
    depth: usize,
) -> BoxFuture<'a, PlanResult<()>> {
    async move {
        if catalog.views.is_empty() {
            return Ok(());
        }
        for reference in state.resolve_table_references(statement)? {
            let Some(view) = catalog.view(reference.schema().unwrap_or("public"), reference.table()) else { continue };
            if list.has_view(view.id) {
                continue;
            }
            if depth == DEPTH_MAX {
                let message = format!("views are nested more than {DEPTH_MAX} deep");
                return Err(in_plan(Error::report(Condition::ProgramLimitExceeded, message)));
            }
            let plan = plan(state, list, catalog, view, depth).await?;
            list.add_view(Arc::clone(view), Arc::new(ViewTable::new(plan, Some(view.query.clone()))));
        }
        Ok(())
    }
    .boxed()
}

async fn plan(
    state: &SessionState,
    list: &StatementCatalog,
    catalog: &Catalog,
    view: &View,
    depth: usize,
) -> PlanResult<LogicalPlan> {
    let mut parsed = statement::parse(&view.query).map_err(in_plan)?;
    let ast = parsed.pop().and_then(|parsed| parsed.ast);
    let Some(ast) = ast else { return Err(DataFusionError::Internal("a view is a query".to_owned())) };
    let (ast, _) = spelled_out::spelled_out(Arc::unwrap_or_clone(ast), &view.query, &[], catalog).map_err(in_plan)?;
    let mut own = state.clone();
    numbers::read_as_meant(&mut own, &ast);
    let statement = DfStatement::Statement(Box::new(ast));
    add_views(state, list, catalog, &statement, depth + 1).await?;
    let plan = own.statement_to_plan(statement).await?;
    // What set operations count is counted where the view is read.
    let plan = literals::narrow(lateral_rows::flatten(plan)?)?;
    // The columns of the day it was made, whatever its tables have by now.
    let given = plan.schema().columns();
    let columns = view.outputs.iter().zip(&view.columns).map(|(output, column)| {
        let named = given.iter().find(|given| given.name == *output);
        // Names that the client does not see are given by the version that plans it.
        let found = named.or_else(|| given.iter().find(|given| shown_name(&given.name) == output));
        let found = found.ok_or_else(|| DataFusionError::Plan(format!("view {} has no {output}", view.name)))?;
        Ok(Expr::Column(found.clone()).alias(&column.name))
    });
    LogicalPlanBuilder::from(plan).project(columns.collect::<PlanResult<Vec<_>>>()?)?.build()
}

fn in_plan(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
