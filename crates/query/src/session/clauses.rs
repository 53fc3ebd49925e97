//! Clauses that planning would pass over in silence, refused by their names.
//!
//! The parser reads more than PostgreSQL has, and the planner looks at less than the parser reads. What changes the answer, or promises
//! something, and is not done must not be accepted.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::helpers::stmt_create_table::CreateTableBuilder;
use datafusion::sql::sqlparser::ast::{
    ConstraintCharacteristics, CreateTable, DeferrableInitial, Expr, IndexColumn, Insert, JoinOperator,
    NullsDistinctOption, ObjectName, OrderByOptions, PrimaryKeyConstraint, Query, Select, SetExpr, Statement,
    TableFactor, UniqueConstraint, Visit, Visitor,
};

use crate::error::{Condition, Error};

/// Collations that order text as it is ordered here: by its bytes.
const BYTEWISE: [&str; 4] = ["c", "posix", "default", "ucs_basic"];

/// Refuses what nobody would do, wherever in the statement it is written.
///
/// # Errors
/// 0A000, with what to write instead.
pub(super) fn check(statement: &Statement) -> Result<(), Error> {
    match statement.visit(&mut Clauses) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

pub(super) fn refused(what: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::hinted(Condition::FeatureNotSupported, what, hint)
}

struct Clauses;

impl Visitor for Clauses {
    type Break = Error;

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<Error> {
        match statement {
            Statement::Insert(insert) => broken(of_insert(insert)),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        broken(of_query(query))
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
        broken(of_select(select))
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Error> {
        broken(of_factor(factor))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        match expr {
            Expr::Collate { collation, .. } => broken(check_collation(collation).err()),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn broken(error: Option<Error>) -> ControlFlow<Error> {
    error.map_or(ControlFlow::Continue(()), ControlFlow::Break)
}

/// Text is compared and ordered by its bytes, whatever the collation.
///
/// # Errors
/// 0A000 for a collation that says otherwise.
pub(super) fn check_collation(name: &ObjectName) -> Result<(), Error> {
    let last = name.0.last().and_then(|part| part.as_ident());
    if last.is_some_and(|last| BYTEWISE.contains(&last.value.to_lowercase().as_str())) {
        return Ok(());
    }
    Err(refused(format!("collation {name} is not supported"), "Text is ordered by its bytes, as COLLATE \"C\" says."))
}

fn of_query(query: &Query) -> Option<Error> {
    if let Some(lock) = query.locks.first() {
        let hint = "Rows are not locked: of two transactions that change one table, the second to commit gets 40001.";
        return Some(refused(format!("FOR {} is not supported", lock.lock_type), hint));
    }
    if let Some(fetch) = &query.fetch {
        if fetch.with_ties {
            return Some(refused("FETCH ... WITH TIES is not supported", "Use rank() in a subquery."));
        }
        if fetch.percent {
            return Some(refused("FETCH ... PERCENT is not supported", "Use percent_rank() in a subquery."));
        }
    }
    let written = query.with.iter().flat_map(|with| &with.cte_tables);
    let changes = |body: &SetExpr| {
        matches!(body, SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_))
    };
    if written.into_iter().any(|table| changes(table.query.body.as_ref())) {
        let hint = "Run them as statements of their own, between BEGIN and COMMIT.";
        return Some(refused("data-modifying statements in WITH are not supported", hint));
    }
    let others = query.for_clause.is_some()
        || query.settings.is_some()
        || query.format_clause.is_some()
        || !query.pipe_operators.is_empty();
    others.then(|| refused("this form of SELECT is not supported", "Write it as PostgreSQL has it."))
}

fn of_select(select: &Select) -> Option<Error> {
    let others = select.top.is_some()
        || select.prewhere.is_some()
        || select.select_modifiers.is_some()
        || select.value_table_mode.is_some()
        || !select.connect_by.is_empty()
        || !select.lateral_views.is_empty();
    if others {
        return Some(refused("this form of SELECT is not supported", "Write it as PostgreSQL has it."));
    }
    let joins = select.from.iter().flat_map(|from| &from.joins);
    let found = joins.into_iter().find_map(|join| match join.join_operator {
        JoinOperator::CrossApply | JoinOperator::OuterApply => Some("APPLY"),
        _ => None,
    });
    found.map(|what| refused(format!("{what} is not supported"), "Use JOIN LATERAL."))
}

fn of_factor(factor: &TableFactor) -> Option<Error> {
    match factor {
        TableFactor::Table { sample: Some(_), .. } | TableFactor::Derived { sample: Some(_), .. } => {
            Some(refused("TABLESAMPLE is not supported", "Use WHERE random() < 0.01, which reads all rows."))
        }
        TableFactor::Table { with_ordinality: true, .. }
        | TableFactor::Function { with_ordinality: true, .. }
        | TableFactor::UNNEST { with_ordinality: true, .. } => {
            let hint = "It is for unnest of one array and for generate_series; use row_number() OVER () otherwise.";
            Some(refused("WITH ORDINALITY is not supported for this function", hint))
        }
        TableFactor::Table { version, with_hints, partitions, json_path, index_hints, .. } => {
            let others = version.is_some()
                || json_path.is_some()
                || !with_hints.is_empty()
                || !partitions.is_empty()
                || !index_hints.is_empty();
            others.then(|| refused("this form of a table in FROM is not supported", "Name the table alone."))
        }
        _ => None,
    }
}

fn of_insert(insert: &Insert) -> Option<Error> {
    let others = insert.or.is_some()
        || insert.ignore
        || insert.overwrite
        || insert.replace_into
        || insert.priority.is_some()
        || insert.insert_alias.is_some()
        || insert.output.is_some()
        || insert.settings.is_some()
        || insert.format_clause.is_some()
        || insert.partitioned.is_some()
        || insert.multi_table_insert_type.is_some()
        || !insert.assignments.is_empty()
        || !insert.after_columns.is_empty();
    others.then(|| refused("this form of INSERT is not supported", "See ON CONFLICT for rows that are there already."))
}

/// Refuses whatever CREATE TABLE says beyond what is read of it.
///
/// # Errors
/// 0A000.
pub(super) fn check_create_table(create: &CreateTable) -> Result<(), Error> {
    let read = CreateTableBuilder::new(create.name.clone())
        .temporary(create.temporary)
        .global(create.global)
        .if_not_exists(create.if_not_exists)
        .columns(create.columns.clone())
        .constraints(create.constraints.clone())
        .table_options(create.table_options.clone())
        .query(create.query.clone())
        .on_commit(create.on_commit)
        // An empty description of a file format is no clause.
        .hive_formats(create.hive_formats.clone().filter(|formats| *formats == Default::default()))
        .build();
    if read == *create {
        return Ok(());
    }
    Err(refused("this form of CREATE TABLE is not supported", "Write it as PostgreSQL has it."))
}

/// Refuses clauses of UNIQUE.
///
/// # Errors
/// 0A000.
pub(super) fn check_unique(key: &UniqueConstraint) -> Result<(), Error> {
    if key.nulls_distinct == NullsDistinctOption::NotDistinct {
        return Err(refused("UNIQUE NULLS NOT DISTINCT is not supported", "Make the columns NOT NULL."));
    }
    check_key(key.characteristics.as_ref(), &key.columns)
}

/// Refuses clauses of PRIMARY KEY.
///
/// # Errors
/// 0A000.
pub(super) fn check_primary_key(key: &PrimaryKeyConstraint) -> Result<(), Error> {
    check_key(key.characteristics.as_ref(), &key.columns)
}

fn check_key(characteristics: Option<&ConstraintCharacteristics>, columns: &[IndexColumn]) -> Result<(), Error> {
    if let Some(said) = characteristics {
        let deferred = said.deferrable == Some(true) || matches!(said.initially, Some(DeferrableInitial::Deferred));
        if deferred {
            let hint = "Keys are looked at when a statement ends, and again before the commit.";
            return Err(refused("DEFERRABLE constraints are not supported", hint));
        }
        if said.enforced == Some(false) {
            return Err(refused("NOT ENFORCED constraints are not supported", "Leave the constraint out."));
        }
    }
    for column in columns {
        if column.column.options != OrderByOptions::default() || column.operator_class.is_some() {
            let word = match column.column.options.asc {
                Some(true) => "ASC",
                Some(false) => "DESC",
                None => "NULLS",
            };
            return Err(Error::report(Condition::SyntaxError, format!("syntax error at or near \"{word}\"")));
        }
    }
    Ok(())
}
