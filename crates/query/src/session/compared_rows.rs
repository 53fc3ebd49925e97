//! Rows beside each other: `(a, b) = (1, 2)`, `(a, b) < (1, 2)`, `(a, b) IN ((1, 2), (3, 4))` are comparisons of their columns, one after the other,
//! and `(a, b) IS NOT NULL` is said of each column. The planner would make values of them, which are equal where both have NULL, and never NULL.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectNamePart,
    UnaryOperator,
};

use crate::error::{Condition, Error};

/// The comparison of two rows, `None` for what compares no rows.
///
/// # Errors
/// 42601 for rows that are not as long as each other.
pub(super) fn spelled_out(expr: &Expr) -> Result<Option<Expr>, Error> {
    match expr {
        Expr::BinaryOp { left, op, right } => match (row(left), row(right)) {
            (Some(left), Some(right)) => comparison(&left, op, &right),
            _ => Ok(None),
        },
        Expr::InList { expr, list, negated } => {
            let (Some(row), Some(list)) = (row(expr), list.iter().map(self::row).collect::<Option<Vec<_>>>()) else {
                return Ok(None);
            };
            let equal = list.iter().map(|one| all_equal(&row, one)).collect::<Result<Vec<_>, _>>()?;
            Ok(any(equal).map(|found| if *negated { not(found) } else { found }))
        }
        Expr::IsNull(tested) => Ok(row(tested).and_then(|columns| all(columns, Expr::IsNull))),
        Expr::IsNotNull(tested) => Ok(row(tested).and_then(|columns| all(columns, Expr::IsNotNull))),
        Expr::IsDistinctFrom(left, right) => distinct(left, right),
        Expr::IsNotDistinctFrom(left, right) => Ok(distinct(left, right)?.map(not)),
        _ => Ok(None),
    }
}

/// The columns of `(a, b)` and `row(a, b)`.
pub(super) fn row(expr: &Expr) -> Option<Vec<Expr>> {
    match expr {
        Expr::Nested(inner) => row(inner),
        Expr::Tuple(columns) => Some(columns.clone()),
        Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) => {
            let [ObjectNamePart::Identifier(Ident { value, quote_style: None, .. })] = name.0.as_slice() else {
                return None;
            };
            let column = |argument: &FunctionArg| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(column)) => Some(column.clone()),
                _ => None,
            };
            value.eq_ignore_ascii_case("row").then(|| list.args.iter().map(column).collect()).flatten()
        }
        _ => None,
    }
}

fn comparison(left: &[Expr], op: &BinaryOperator, right: &[Expr]) -> Result<Option<Expr>, Error> {
    use BinaryOperator::{And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or};
    let strict = match op {
        Eq => return all_equal(left, right).map(Some),
        NotEq => return all_equal(left, right).map(|equal| Some(not(equal))),
        Lt | LtEq => Lt,
        Gt | GtEq => Gt,
        _ => return Ok(None),
    };
    check_length(left, right)?;
    let mut pairs = left.iter().zip(right).rev();
    let Some((left, right)) = pairs.next() else { return Ok(None) };
    // The last columns decide where all before them are equal.
    let last = binary(left.clone(), op.clone(), right.clone());
    Ok(Some(pairs.fold(last, |rest, (left, right)| {
        let decided = binary(left.clone(), strict.clone(), right.clone());
        let equal = binary(left.clone(), Eq, right.clone());
        binary(decided, Or, binary(equal, And, rest))
    })))
}

fn all_equal(left: &[Expr], right: &[Expr]) -> Result<Expr, Error> {
    check_length(left, right)?;
    let pairs = left.iter().zip(right).map(|(left, right)| binary(left.clone(), BinaryOperator::Eq, right.clone()));
    let equal = pairs.reduce(|all, one| binary(all, BinaryOperator::And, one));
    equal.ok_or_else(|| Error::report(Condition::FeatureNotSupported, "cannot compare rows of zero length"))
}

/// Whether two rows differ in any column.
fn distinct(left: &Expr, right: &Expr) -> Result<Option<Expr>, Error> {
    let (Some(left), Some(right)) = (row(left), row(right)) else { return Ok(None) };
    check_length(&left, &right)?;
    let pairs = left.into_iter().zip(right);
    let differ = |(left, right)| Expr::Nested(Box::new(Expr::IsDistinctFrom(Box::new(left), Box::new(right))));
    Ok(any(pairs.map(differ).collect()))
}

/// Whether something is true of all columns of a row.
fn all(columns: Vec<Expr>, what: fn(Box<Expr>) -> Expr) -> Option<Expr> {
    let tests = columns.into_iter().map(|column| Expr::Nested(Box::new(what(Box::new(column)))));
    tests.reduce(|all, one| binary(all, BinaryOperator::And, one))
}

fn check_length(left: &[Expr], right: &[Expr]) -> Result<(), Error> {
    if left.len() == right.len() {
        return Ok(());
    }
    Err(Error::report(Condition::SyntaxError, "unequal number of entries in row expressions"))
}

/// Half of them or the other half, so that a long list makes no deep tree.
fn any(mut conditions: Vec<Expr>) -> Option<Expr> {
    if conditions.len() <= 1 {
        return conditions.pop();
    }
    let others = conditions.split_off(conditions.len() / 2);
    Some(binary(any(conditions)?, BinaryOperator::Or, any(others)?))
}

fn not(expr: Expr) -> Expr {
    Expr::Nested(Box::new(Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(expr) }))
}

/// In parentheses, for statements are printed and parsed again.
fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::Nested(Box::new(Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::insert::parse_expression;

    fn check(sql: &str, expected: &str) {
        let expr = parse_expression(sql).expect("valid");
        assert_eq!(spelled_out(&expr).unwrap().expect("rows").to_string(), expected, "{sql}");
    }

    #[test]
    fn rows_are_compared_column_by_column() {
        check("(a, b) = (1, 2)", "((a = 1) AND (b = 2))");
        check("row(a, b) <> (1, 2)", "(NOT ((a = 1) AND (b = 2)))");
        check("(a, b) < (1, 2)", "((a < 1) OR ((a = 1) AND (b < 2)))");
        check("(a, b) >= (1, 2)", "((a > 1) OR ((a = 1) AND (b >= 2)))");
        check("row(a, b) IS NOT NULL", "((a IS NOT NULL) AND (b IS NOT NULL))");
        check("(a, b) IS NULL", "((a IS NULL) AND (b IS NULL))");
        check("(a, b) IS DISTINCT FROM (1, 2)", "((a IS DISTINCT FROM 1) OR (b IS DISTINCT FROM 2))");
        check("(a, b) IN ((1, 2), (3, 4))", "(((a = 1) AND (b = 2)) OR ((a = 3) AND (b = 4)))");
        assert!(spelled_out(&parse_expression("(a, b) = (1, 2, 3)").unwrap()).is_err());
        assert!(spelled_out(&parse_expression("a = 1").unwrap()).unwrap().is_none());
    }
}
