//! What CREATE TABLE AS can say that the stock parser cannot read: a list of names without types, and WITH [NO] DATA. They are taken out of
//! the tokens before parsing.

use datafusion::sql::sqlparser::ast::{ColumnDef, DataType, Ident, Statement};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::words::{is_blank, is_word, significant};

/// What was taken out.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Clauses {
    /// Names of the first columns.
    columns: Vec<Ident>,
    /// WITH NO DATA.
    without_data: bool,
}

impl Clauses {
    /// Puts the names into the parsed statement, as columns without a type; answers whether it is to have no rows.
    pub(super) fn give_to(self, ast: &mut Statement) -> bool {
        let Statement::CreateTable(create) = ast else { return false };
        let column = |name| ColumnDef { name, data_type: DataType::Unspecified, options: Vec::new() };
        create.columns.extend(self.columns.into_iter().map(column));
        self.without_data
    }
}

/// Takes the clauses out of the tokens of a statement; `None` when it is no CREATE TABLE AS.
pub(super) fn take(tokens: &mut Vec<TokenWithSpan>) -> Option<Clauses> {
    let first = tokens.iter().find(|token| !is_blank(token))?;
    if !is_word(&first.token, "CREATE") {
        return None;
    }
    let significant = significant(tokens);
    let token = |at: usize| significant.get(at).map(|at| &tokens[*at]);
    let says = |at: usize, word: &str| token(at).is_some_and(|token| is_word(&token.token, word));
    let mut at = 1;
    while ["GLOBAL", "LOCAL", "TEMP", "TEMPORARY", "UNLOGGED"].iter().any(|word| says(at, word)) {
        at += 1;
    }
    if !says(at, "TABLE") {
        return None;
    }
    at += 1;
    if says(at, "IF") && says(at + 1, "NOT") && says(at + 2, "EXISTS") {
        at += 3;
    }
    // The name, with or without a schema.
    at += 1;
    while token(at).is_some_and(|token| token.token == Token::Period) {
        at += 2;
    }
    let list = names(&significant[at.min(significant.len())..], tokens);
    let after_list = at + list.as_ref().map_or(0, |(_, length)| *length);
    let begins = outer_as(&significant[after_list.min(significant.len())..], tokens)?;
    let query = after_list + begins + 1;

    let mut clauses = Clauses::default();
    let mut end = significant.len();
    if end > query + 2 && says(end - 1, "DATA") {
        if says(end - 2, "WITH") {
            end -= 2;
        } else if says(end - 2, "NO") && says(end - 3, "WITH") {
            end -= 3;
            clauses.without_data = true;
        }
    }
    let cut = significant.get(end).copied();
    let list_tokens = list.as_ref().map(|(_, length)| (significant[at], significant[at + length - 1]));
    let table = says(query, "TABLE").then(|| significant[query]);
    clauses.columns = list.map(|(names, _)| names).unwrap_or_default();
    if let Some(cut) = cut {
        tokens.truncate(cut);
    }
    if let Some(table) = table {
        let span = tokens[table].span;
        let select = [Token::make_keyword("SELECT"), Token::Mul, Token::make_keyword("FROM")];
        tokens.splice(table..=table, select.map(|token| TokenWithSpan::new(token, span)));
    }
    if let Some((from, to)) = list_tokens {
        tokens.drain(from..=to);
    }
    Some(clauses)
}

/// A list of names in parentheses at the front, and how many tokens it has.
fn names(significant: &[usize], tokens: &[TokenWithSpan]) -> Option<(Vec<Ident>, usize)> {
    let mut rest = significant.iter().map(|at| &tokens[*at].token);
    if rest.next() != Some(&Token::LParen) {
        return None;
    }
    let mut names = Vec::new();
    loop {
        let Some(Token::Word(word)) = rest.next() else { return None };
        names.push(match word.quote_style {
            Some(quote) => Ident::with_quote(quote, &word.value),
            None => Ident::new(&word.value),
        });
        match rest.next() {
            Some(Token::Comma) => {}
            Some(Token::RParen) => return Some((names.clone(), names.len() * 2 + 1)),
            _ => return None,
        }
    }
}

/// The place of the first AS outside of parentheses.
fn outer_as(significant: &[usize], tokens: &[TokenWithSpan]) -> Option<usize> {
    let mut depth = 0_usize;
    significant.iter().position(|at| {
        match tokens[*at].token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && is_word(&tokens[*at].token, "AS")
    })
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    /// What is left of a statement, the names, and whether it is to have no rows; nothing when it is left alone.
    fn check(sql: &str, expected: Option<(&str, &[&str], bool)>) {
        let mut tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize_with_location().unwrap();
        let taken = take(&mut tokens);
        let left: String = tokens.iter().map(|token| token.token.to_string()).collect();
        let left = left.split_whitespace().collect::<Vec<_>>().join(" ");
        let taken = taken.map(|clauses| {
            let names: Vec<String> = clauses.columns.iter().map(ToString::to_string).collect();
            (names, clauses.without_data)
        });
        let expected = expected.map(|(left, names, without)| {
            (left.to_owned(), (names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), without))
        });
        assert_eq!(taken.map(|taken| (left, taken)), expected, "{sql}");
    }

    #[test]
    fn clauses_are_taken_out_of_create_table_as_alone() {
        check("create table x as select 1", Some(("create table x as select 1", &[], false)));
        check(
            "CREATE TEMP TABLE IF NOT EXISTS s.x (a, \"B\") AS SELECT 1, 2",
            Some(("CREATE TEMP TABLE IF NOT EXISTS s.x AS SELECT 1, 2", &["a", "\"B\""], false)),
        );
        check("create table x (a) as select 1 with no data", Some(("create table x as select 1", &["a"], true)));
        check("create table x as select 1 with data", Some(("create table x as select 1", &[], false)));
        check("create table x as table y", Some(("create table x as SELECT*FROM y", &[], false)));
        check(
            "create table x with (time_column = 'a') as select a from y",
            Some(("create table x with (time_column = 'a') as select a from y", &[], false)),
        );
        check("create table x (a int, b text)", None);
        check("create table x (a, b)", None);
        check("create view v as select 1", None);
        check("select 1 as data", None);
    }
}
