//! `a IS DISTINCT FROM b AND c` is `(a IS DISTINCT FROM b) AND c`, as in PostgreSQL; the parser takes all that comes behind FROM for one side. And
//! `a LIKE ANY (...)` is an operator, which it does not know with arrays.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Statement, UnaryOperator, Value, VisitMut, VisitorMut};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::words::{is_word, significant};

/// Puts the operators of a statement that was parsed from such tokens where they belong.
pub(super) fn settle(statement: &mut Statement, tokens: &[TokenWithSpan]) {
    let is = |token: &TokenWithSpan, word: &str| is_word(&token.token, word);
    if tokens.iter().any(|token| is(token, "DISTINCT")) && tokens.iter().any(|token| is(token, "IS")) {
        let _all = VisitMut::visit(statement, &mut Operators);
    }
}

/// `LIKE ANY (`, `NOT ILIKE ALL (` and their like as the operators that they are.
pub(super) fn like_any(tokens: &mut Vec<TokenWithSpan>) {
    let words = significant(tokens);
    let is = |at: usize, word: &str| is_word(&tokens[at].token, word);
    let mut operators = Vec::new();
    for (place, triple) in words.windows(3).enumerate() {
        let [like, any, open] = *triple else { continue };
        let quantified = ["ANY", "ALL", "SOME"].iter().any(|word| is(any, word)) && tokens[open].token == Token::LParen;
        if !quantified || !(is(like, "LIKE") || is(like, "ILIKE")) {
            continue;
        }
        let not = place.checked_sub(1).map(|before| words[before]).filter(|before| is(*before, "NOT"));
        let operator = match (is(like, "ILIKE"), not.is_some()) {
            (false, false) => Token::DoubleTilde,
            (false, true) => Token::ExclamationMarkDoubleTilde,
            (true, false) => Token::DoubleTildeAsterisk,
            (true, true) => Token::ExclamationMarkDoubleTildeAsterisk,
        };
        operators.push((not.unwrap_or(like), like, operator));
    }
    for (from, to, operator) in operators.into_iter().rev() {
        let span = tokens[from].span;
        tokens.splice(from..=to, [TokenWithSpan::new(operator, span)]);
    }
}

struct Operators;

impl VisitorMut for Operators {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        settle_one(expr);
        ControlFlow::Continue(())
    }
}

/// Lifts an AND or OR that came to stand on the right of what binds more strongly. No other than IS DISTINCT FROM leaves one there without
/// parentheses.
fn settle_one(expr: &mut Expr) {
    let right = match expr {
        Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) => right,
        Expr::UnaryOp { op: UnaryOperator::Not, expr: right } => right,
        Expr::BinaryOp { op: BinaryOperator::And, right, .. } => {
            if !is_binary(right, &BinaryOperator::Or) {
                return;
            }
            right
        }
        _ => return,
    };
    if !is_binary(right, &BinaryOperator::And) && !is_binary(right, &BinaryOperator::Or) {
        return;
    }
    let lifted = take(right);
    let Expr::BinaryOp { mut left, op, right: rest } = lifted else { return };
    std::mem::swap(right.as_mut(), left.as_mut());
    let mut inner = take(expr);
    settle_one(&mut inner);
    // In parentheses, for statements are printed and parsed again.
    if matches!(inner, Expr::IsDistinctFrom(..) | Expr::IsNotDistinctFrom(..)) {
        inner = Expr::Nested(Box::new(inner));
    }
    *expr = Expr::BinaryOp { left: Box::new(inner), op, right: rest };
}

fn is_binary(expr: &Expr, wanted: &BinaryOperator) -> bool {
    matches!(expr, Expr::BinaryOp { op, .. } if op == wanted)
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::Value(Value::Null.into()))
}

#[cfg(test)]
mod tests {
    use crate::session::insert::parse_expression;

    fn check(sql: &str, expected: &str) {
        assert_eq!(parse_expression(sql).expect("valid").to_string(), expected, "{sql}");
    }

    #[test]
    fn and_and_or_bind_more_weakly() {
        check("a IS DISTINCT FROM b AND c", "(a IS DISTINCT FROM b) AND c");
        check("a IS NOT DISTINCT FROM b + 1 > 2 OR c AND d", "(a IS NOT DISTINCT FROM b + 1 > 2) OR c AND d");
        check("a IS DISTINCT FROM b AND c OR d", "(a IS DISTINCT FROM b) AND c OR d");
        check("x AND a IS DISTINCT FROM b OR c", "x AND (a IS DISTINCT FROM b) OR c");
        check("NOT a IS DISTINCT FROM b AND c", "NOT (a IS DISTINCT FROM b) AND c");
        check(
            "a IS DISTINCT FROM b AND c IS DISTINCT FROM d OR e",
            "(a IS DISTINCT FROM b) AND (c IS DISTINCT FROM d) OR e",
        );
        check("a IS DISTINCT FROM (b AND c)", "a IS DISTINCT FROM (b AND c)");
        check("a IS DISTINCT FROM b BETWEEN 1 AND 2 AND c", "(a IS DISTINCT FROM b BETWEEN 1 AND 2) AND c");
        check("a IS DISTINCT FROM b", "a IS DISTINCT FROM b");
    }

    #[test]
    fn the_tree_is_what_it_says() {
        use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr};
        let expr = parse_expression("x AND a IS DISTINCT FROM b OR c").expect("valid");
        assert!(matches!(expr, Expr::BinaryOp { op: BinaryOperator::Or, .. }));
        let expr = parse_expression("NOT a IS DISTINCT FROM b AND c").expect("valid");
        assert!(matches!(expr, Expr::BinaryOp { op: BinaryOperator::And, .. }));
    }

    #[test]
    fn like_any_is_an_operator() {
        check("a LIKE ANY (ARRAY['x%'])", "a ~~ ANY(ARRAY['x%'])");
        check("a NOT ILIKE ALL (b) AND c LIKE 'd'", "a !~~* ALL(b) AND c LIKE 'd'");
    }
}
