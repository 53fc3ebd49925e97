//! `ARRAY[d.low, d.high]`: the planner reads the elements of an array as if no query stood around the one that it is in, and finds no `d` there.
//! The arguments of a function it reads as anything else.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, Expr, Statement as Ast, Value, VisitMut, VisitorMut};

use super::insert::call;

/// The function that an array is.
const ARRAY: &str = "make_array";

/// Makes calls of arrays of columns.
pub(super) fn spell_out(statement: &mut Ast) {
    let _all = VisitMut::visit(statement, &mut Arrays);
}

struct Arrays;

impl VisitorMut for Arrays {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Array(array) = expr
            && array.elem.iter().any(names_columns)
            // A text that is written is read as what stands beside it, and there alone.
            && !array.elem.iter().any(is_text)
        {
            *expr = call(ARRAY, std::mem::take(&mut array.elem));
        }
        ControlFlow::Continue(())
    }
}

fn names_columns(element: &Expr) -> bool {
    let named = ast::visit_expressions(element, |part| match part {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    named.is_break()
}

fn is_text(element: &Expr) -> bool {
    matches!(element, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)))
}

#[cfg(test)]
mod tests {
    use crate::session::statement;

    fn check(sql: &str, expected: &str) {
        let parsed = statement::parse(sql).expect("valid").remove(0);
        let mut ast = parsed.ast.expect("not empty").as_ref().clone();
        super::spell_out(&mut ast);
        assert_eq!(ast.to_string(), expected, "{sql}");
    }

    #[test]
    fn arrays_of_columns_are_calls() {
        check("SELECT ARRAY[a, t.b + 1]", "SELECT make_array(a, t.b + 1)");
        check(
            "SELECT (SELECT max(x) FROM UNNEST(ARRAY[d.a]) AS x)",
            "SELECT (SELECT max(x) FROM LATERAL (SELECT unnest(make_array(d.a)) AS x) AS x (x))",
        );
        for sql in ["SELECT ARRAY[1, 2]", "SELECT ARRAY[ts, '2024-01-01']"] {
            check(sql, sql);
        }
    }
}
