//! CHECK constraints: from CREATE TABLE to the catalog, and from the catalog to what judges rows before they are written.
//!
//! An expression is kept as SQL text and made ready once per table, version and settings of the session; one that looks at the time
//! is made ready for each statement.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr_rewriter::unalias;
use datafusion::logical_expr::{EmptyRelation, Expr, ExprSchemable, LogicalPlan, Projection, Volatility};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::sqlparser::ast::{
    self, ColumnOption, CreateTable, Query, SelectItem, SetExpr, Statement as Ast, TableConstraint, Visit, Visitor,
};
use event::{Check, Column, SchemaVersion, TableDefinition, TableId};

use super::ddl::folded;
use super::insert::parse_expression;
use super::report::{self, Known};
use super::rows::failing_row;
use super::{Session, calls, literals, modifiers, pg_catalog};
use crate::error::{Condition, Error, Report};

/// The constraints of one table, ready to judge rows.
#[derive(Debug)]
pub(crate) struct Checks {
    schema: String,
    table: String,
    /// In the order of their names, as PostgreSQL goes through them.
    ready: Vec<(String, Arc<dyn PhysicalExpr>)>,
    /// Whether they say the same whenever they are asked.
    lasting: bool,
}

/// The checks a session made ready last, and for what.
pub(crate) type KnownChecks = Option<(TableId, SchemaVersion, u64, Arc<Checks>)>;

impl Checks {
    /// Refuses the first row for which a constraint is false; NULL passes.
    ///
    /// # Errors
    /// 23514; what evaluating an expression says.
    pub(crate) fn verify(&self, rows: &RecordBatch) -> Result<(), Error> {
        let mut first: Option<(usize, &str)> = None;
        for (name, expression) in &self.ready {
            let judged =
                expression.evaluate(rows).and_then(|value| value.into_array(rows.num_rows())).map_err(worded)?;
            if *judged.data_type() == DataType::Null {
                continue;
            }
            let failing = judged.as_boolean().iter().position(|verdict| verdict == Some(false));
            if let Some(row) = failing
                && first.is_none_or(|(earlier, _)| row < earlier)
            {
                first = Some((row, name));
            }
        }
        let Some((row, name)) = first else { return Ok(()) };
        let (schema, table) = (&self.schema, &self.table);
        let message = format!("new row for relation \"{table}\" violates check constraint \"{name}\"");
        let report = Report::new(Condition::CheckViolation, message).of_constraint((schema, table), name);
        Err(report.detailed(failing_row(rows.columns(), row)).into())
    }
}

impl Session {
    /// The constraints of a table, or `None` when it has none.
    ///
    /// # Errors
    /// What planning an expression says.
    pub(super) async fn checks(&mut self, table: &TableDefinition) -> Result<Option<Arc<Checks>>, Error> {
        if !table.is_checked() {
            return Ok(None);
        }
        let settings = self.settings.lock().changes();
        if let Some((id, version, changes, checks)) = &self.known_checks
            && (*id, *version, *changes) == (table.id, table.version, settings)
        {
            return Ok(Some(Arc::clone(checks)));
        }
        let ready = Box::pin(self.ready_checks((&table.namespace, &table.name), &table.columns, &table.checks));
        let checks = Arc::new(ready.await?);
        if checks.lasting {
            self.known_checks = Some((table.id, table.version, settings, Arc::clone(&checks)));
        }
        Ok(Some(checks))
    }

    /// Makes expressions over a table's columns ready, which shows whether they can be constraints at all.
    ///
    /// # Errors
    /// 42703, 42883, 42804, 42803, 0A000 as PostgreSQL.
    pub(super) async fn ready_checks(
        &self,
        (schema, table): (&str, &str),
        columns: &[Column],
        checks: &[Check],
    ) -> Result<Checks, Error> {
        let mut expressions = Vec::with_capacity(checks.len());
        for check in checks {
            let text = format!("SELECT {}", check.expression);
            let ast = super::statement::parse(&text)?.remove(0).ast.expect("the statement is not empty");
            let mut ast = ast.as_ref().clone();
            calls::rewrite(&mut ast)?;
            modifiers::apply(&mut ast)?;
            let ast = pg_catalog::rewrite(ast, &text, &self.visible())?;
            expressions.push((check.name.clone(), only_expression(ast)?));
        }
        expressions.sort_by(|a, b| a.0.cmp(&b.0));
        let fields = columns.iter().map(|c| c.column_type.field(&c.name, true));
        let rows = Schema::new(fields.collect::<Vec<_>>());
        let state = self.begun(self.planning_state());
        let (schema, table) = (schema.to_owned(), table.to_owned());
        let ready = self.engine().work(async move {
            let rows = Arc::new(DFSchema::try_from_qualified_schema(table.as_str(), &rows)?);
            let mut ready = Vec::with_capacity(expressions.len());
            let mut lasting = true;
            for (check, expression) in expressions {
                let expr = settled(&state, expression, &rows)?;
                lasting &= is_lasting(&expr);
                ready.push((check, state.create_physical_expr(expr, &rows)?));
            }
            Ok(Checks { schema, table, ready, lasting })
        });
        ready.await.map_err(worded)
    }
}

/// Whether an expression over the columns of one table names that one.
///
/// # Errors
/// 42601 for what is no expression.
pub(super) fn names(expression: &str, column: &str) -> Result<bool, Error> {
    let expression = parse_expression(expression)?;
    let found = ast::visit_expressions(&expression, |part| match column_of(part) {
        Some(ident) if folded(ident) == column => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    Ok(found.is_break())
}

/// The expression with another name for a column.
///
/// # Errors
/// 42601 for what is no expression.
pub(super) fn renamed(expression: &str, column: &str, new: &str) -> Result<String, Error> {
    if !names(expression, column)? {
        return Ok(expression.to_owned());
    }
    let mut expression = parse_expression(expression)?;
    let plain = matches!(parse_expression(new), Ok(ast::Expr::Identifier(ident)) if folded(&ident) == new);
    let _all = ast::visit_expressions_mut(&mut expression, |part| {
        let ident = match part {
            ast::Expr::Identifier(ident) => Some(ident),
            ast::Expr::CompoundIdentifier(parts) => parts.last_mut(),
            _ => None,
        };
        if let Some(ident) = ident.filter(|ident| folded(ident) == column) {
            *ident = if plain { ast::Ident::new(new) } else { ast::Ident::with_quote('"', new) };
        }
        ControlFlow::<()>::Continue(())
    });
    Ok(expression.to_string())
}

fn column_of(expression: &ast::Expr) -> Option<&ast::Ident> {
    match expression {
        ast::Expr::Identifier(ident) => Some(ident),
        ast::Expr::CompoundIdentifier(parts) => parts.last(),
        _ => None,
    }
}

/// The expression of a constraint as planning settles it.
fn settled(state: &SessionState, expression: ast::Expr, schema: &Arc<DFSchema>) -> Result<Expr, DataFusionError> {
    let expr = analyzed(state, expression, schema)?;
    match expr.get_type(schema)? {
        DataType::Boolean | DataType::Null => Ok(expr),
        other => {
            let message = format!("argument of CHECK must be type boolean, not type {}", super::rows::sql_name(&other));
            Err(refusal(Condition::DatatypeMismatch, &message))
        }
    }
}

/// An expression about one row as planning settles it: names resolved, literals read, types agreed.
pub(super) fn analyzed(
    state: &SessionState,
    expression: ast::Expr,
    schema: &Arc<DFSchema>,
) -> Result<Expr, DataFusionError> {
    let expr = state.create_logical_expr_from_sql_expr(ast::ExprWithAlias { expr: expression, alias: None }, schema)?;
    if expr.exists(|part| Ok(matches!(part, Expr::AggregateFunction(_))))? {
        return Err(refusal(Condition::Grouping, "aggregate functions are not allowed in check constraints"));
    }
    if expr.exists(|part| Ok(matches!(part, Expr::WindowFunction(_))))? {
        return Err(refusal(Condition::Grouping, "window functions are not allowed in check constraints"));
    }
    let empty = EmptyRelation { produce_one_row: false, schema: Arc::clone(schema) };
    let input = Arc::new(LogicalPlan::EmptyRelation(empty));
    let plan = literals::narrow(LogicalPlan::Projection(Projection::try_new(vec![expr], input)?))?;
    let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
    match plan {
        LogicalPlan::Projection(mut projection) => Ok(unalias(projection.expr.remove(0))),
        other => Err(DataFusionError::Internal(format!("a projection was analyzed into {other}"))),
    }
}

/// Whether every function in it gives the same for the same arguments for ever.
fn is_lasting(expr: &Expr) -> bool {
    let changes = |part: &Expr| match part {
        Expr::ScalarFunction(call) => Ok(call.func.signature().volatility != Volatility::Immutable),
        _ => Ok(false),
    };
    !expr.exists(changes).unwrap_or(true)
}

fn refusal(condition: Condition, message: &str) -> DataFusionError {
    DataFusionError::External(Box::new(Error::report(condition, message)))
}

fn worded(error: DataFusionError) -> Error {
    report::report(error, "", 0, &Known::default())
}

fn only_expression(ast: Ast) -> Result<ast::Expr, Error> {
    if let Ast::Query(query) = ast
        && let SetExpr::Select(mut select) = *query.body
        && select.projection.len() == 1
        && let Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = select.projection.pop()
    {
        return Ok(expr);
    }
    Err(Error::report(Condition::SyntaxError, "a check constraint is one expression"))
}

/// The column that an expression says is not NULL, when it says nothing else.
pub(super) fn not_null_column(expression: &str) -> Option<String> {
    match parse_expression(expression).ok()? {
        ast::Expr::IsNotNull(inner) => column_of(&inner).map(folded),
        ast::Expr::Nested(inner) => not_null_column(&inner.to_string()),
        _ => None,
    }
}

/// A CHECK constraint for a table that is there, named as PostgreSQL names it.
///
/// # Errors
/// 42710 for a name that is taken, 0A000 for subqueries.
pub(super) fn added(table: &TableDefinition, name: Option<&ast::Ident>, expr: &ast::Expr) -> Result<Check, Error> {
    let keys = table.keys();
    let taken =
        |name: &str| table.checks.iter().any(|check| check.name == name) || keys.iter().any(|key| key.name == name);
    let refused = |name: &str| format!("constraint \"{name}\" for relation \"{}\" already exists", table.name);
    named(&table.name, &table.columns, (name, expr), taken, refused)
}

/// The CHECK constraints that a CREATE TABLE states, named as PostgreSQL names them.
///
/// # Errors
/// 42710 for a name given twice, 0A000 for subqueries.
pub(super) fn stated(create: &CreateTable, table: &str, columns: &[Column]) -> Result<Vec<Check>, Error> {
    let mut written = Vec::new();
    for column in &create.columns {
        for option in &column.options {
            if let ColumnOption::Check(check) = &option.option {
                written.push((option.name.as_ref().or(check.name.as_ref()), check.expr.as_ref()));
            }
        }
    }
    for constraint in &create.constraints {
        if let TableConstraint::Check(check) = constraint {
            written.push((check.name.as_ref(), check.expr.as_ref()));
        }
    }
    let mut checks: Vec<Check> = Vec::with_capacity(written.len());
    for (name, expr) in written {
        let taken = |name: &str| checks.iter().any(|check| check.name == name);
        let refused = |name: &str| format!("check constraint \"{name}\" already exists");
        let check = named(table, columns, (name, expr), taken, refused)?;
        checks.push(check);
    }
    Ok(checks)
}

/// A constraint with the name it was given, or the first one of PostgreSQL's that is not taken.
fn named(
    table: &str,
    columns: &[Column],
    (name, expr): (Option<&ast::Ident>, &ast::Expr),
    taken: impl Fn(&str) -> bool,
    refused: impl Fn(&str) -> String,
) -> Result<Check, Error> {
    let (named, has_subquery) = look(expr, columns);
    if has_subquery {
        return Err(Error::report(Condition::FeatureNotSupported, "cannot use subquery in check constraint"));
    }
    let name = match name.map(folded) {
        Some(name) if taken(&name) => return Err(Error::report(Condition::DuplicateObject, refused(&name))),
        Some(name) => name,
        None => {
            let stem = match named.iter().collect::<Vec<_>>().as_slice() {
                [column] => format!("{table}_{column}_check"),
                _ => format!("{table}_check"),
            };
            let numbered = (1..).map(|number| format!("{stem}{number}"));
            let mut names = std::iter::once(stem.clone()).chain(numbered);
            names.find(|name| !taken(name)).expect("there are more numbers than constraints")
        }
    };
    Ok(Check { name, expression: expr.to_string(), validated: true })
}

/// The columns an expression names, and whether it holds a query.
fn look(expr: &ast::Expr, columns: &[Column]) -> (BTreeSet<String>, bool) {
    let mut look = Look { columns, named: BTreeSet::new(), has_query: false };
    let _ = expr.visit(&mut look);
    (look.named, look.has_query)
}

struct Look<'a> {
    columns: &'a [Column],
    named: BTreeSet<String>,
    has_query: bool,
}

impl Visitor for Look<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.has_query = true;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
        let ident = match expr {
            ast::Expr::Identifier(ident) => Some(ident),
            ast::Expr::CompoundIdentifier(parts) => parts.last(),
            _ => None,
        };
        let name = ident.map(folded).filter(|name| self.columns.iter().any(|column| column.name == *name));
        self.named.extend(name);
        ControlFlow::Continue(())
    }
}
