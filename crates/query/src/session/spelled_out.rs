//! What the planner does not know of PostgreSQL's queries, said by what it does know: of a statement, and of a view's query.

use arrow::datatypes::FieldRef;
use cluster::Catalog;
use datafusion::sql::sqlparser::ast::Statement as Ast;
use event::Modifier;

use super::{
    alike, arrays, calls, grouping_sets, joined_texts, modifiers, names, order_names, ordered_rows, outer_names,
    parameters, pg_catalog, result_modifiers, row_nulls, short_aliases, subqueries, using, whole_rows, zoned,
};
use crate::error::Error;

/// The statement as it is planned, and the lengths that its columns are cast to, which planning does not know. `text` is how it was written,
/// `declared` the types that its parameters are said to have.
///
/// # Errors
/// What cannot be said so: 0A000, 42883 and others of the parts.
pub(super) fn spelled_out(
    mut ast: Ast,
    text: &str,
    declared: &[Option<FieldRef>],
    catalog: &Catalog,
) -> Result<(Ast, Vec<Option<Modifier>>), Error> {
    short_aliases::spell_out(&mut ast, catalog);
    using::spell_out(&mut ast, catalog);
    names::name_columns(&mut ast);
    order_names::settle(&mut ast, catalog);
    parameters::spell_out(&mut ast, declared);
    whole_rows::spell_out(&mut ast, catalog);
    row_nulls::spell_out(&mut ast, catalog);
    outer_names::tell_apart(&mut ast, catalog);
    arrays::spell_out(&mut ast);
    ordered_rows::ask_for_order(&mut ast);
    joined_texts::settle(&mut ast);
    grouping_sets::spell_out(&mut ast)?;
    calls::rewrite(&mut ast)?;
    subqueries::settle(&mut ast);
    let written = result_modifiers::written(&ast);
    modifiers::apply(&mut ast)?;
    alike::tell_apart(&mut ast);
    zoned::cut_off_in_zone(&mut ast);
    Ok((pg_catalog::rewrite(ast, text, catalog)?, written))
}
