//! `ROLLUP ((a, b), c)` and `CUBE ((a, b), c)` as the GROUPING SETS that they stand for: the planner knows the two of single columns only.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, GroupByExpr, Select, Statement as Ast, VisitMut, VisitorMut};

use crate::error::{Condition, Error};

/// Elements of one CUBE, as PostgreSQL limits them: each more doubles the sets.
const CUBE_MAX: usize = 12;

/// Spells out what a statement groups by.
///
/// # Errors
/// 54011 for a CUBE of more than twelve elements.
pub(super) fn spell_out(statement: &mut Ast) -> Result<(), Error> {
    match VisitMut::visit(statement, &mut Selects) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Selects;

impl VisitorMut for Selects {
    type Break = Error;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        let GroupByExpr::Expressions(keys, _) = &mut select.group_by else { return ControlFlow::Continue(()) };
        for key in keys {
            match key {
                Expr::Cube(elements) if elements.len() > CUBE_MAX => {
                    let reason = format!("CUBE is limited to {CUBE_MAX} elements");
                    return ControlFlow::Break(Error::report(Condition::TooManyColumns, reason));
                }
                Expr::Cube(elements) if has_several(elements) => *key = Expr::GroupingSets(subsets(elements)),
                Expr::Rollup(elements) if has_several(elements) => *key = Expr::GroupingSets(beginnings(elements)),
                _ => {}
            }
        }
        ControlFlow::Continue(())
    }
}

fn has_several(elements: &[Vec<Expr>]) -> bool {
    elements.iter().any(|element| element.len() != 1)
}

/// All elements, all but the last, and so on to none.
fn beginnings(elements: &[Vec<Expr>]) -> Vec<Vec<Expr>> {
    (0..=elements.len()).rev().map(|len| elements[..len].concat()).collect()
}

/// Each choice of elements, from all to none.
fn subsets(elements: &[Vec<Expr>]) -> Vec<Vec<Expr>> {
    let chosen = |choice: usize| {
        let is_in = |at: usize| choice >> (elements.len() - 1 - at) & 1 == 1;
        (0..elements.len()).filter(|at| is_in(*at)).flat_map(|at| elements[at].clone()).collect()
    };
    (0..1 << elements.len()).rev().map(chosen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::statement;

    fn spelled(sql: &str) -> Result<String, Error> {
        let parsed = statement::parse(sql).expect("valid").remove(0);
        let mut ast = parsed.ast.expect("a statement").as_ref().clone();
        spell_out(&mut ast).map(|()| ast.to_string())
    }

    #[test]
    fn elements_of_several_columns_are_sets() {
        let sets = |sql: &str| spelled(&format!("SELECT 1 FROM t GROUP BY {sql}")).expect("fits");
        assert!(sets("ROLLUP ((a, b), c)").ends_with("GROUPING SETS ((a, b, c), (a, b), ())"));
        assert!(sets("x, CUBE ((a, b), c)").ends_with("x, GROUPING SETS ((a, b, c), (a, b), (c), ())"));
        assert!(sets("ROLLUP (a, b)").ends_with("ROLLUP (a, b)"));
    }

    #[test]
    fn a_cube_is_no_larger_than_it_may_be() {
        let of = |elements: usize| {
            let names: Vec<String> = (0..elements).map(|at| format!("c{at}")).collect();
            spelled(&format!("SELECT 1 FROM t GROUP BY CUBE ({})", names.join(", "))).map(drop)
        };
        assert!(of(CUBE_MAX).is_ok());
        assert_eq!(of(CUBE_MAX + 1).expect_err("too many").to_string(), "CUBE is limited to 12 elements");
    }
}
