//! FETCH and MOVE as PostgreSQL writes them: the stock parser wants a direction and FROM, and knows no MOVE.

use datafusion::sql::sqlparser::ast::{FetchDirection, FetchPosition, Ident, Statement, Value, ValueWithSpan};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::words::{is_blank, is_word};

/// What FETCH or MOVE says, as a FETCH, and whether it is a MOVE; `None` for other statements, and for what the stock parser is to refuse.
pub(super) fn parse(tokens: &[TokenWithSpan]) -> Option<(Statement, bool)> {
    let tokens: Vec<&Token> = tokens.iter().filter(|token| !is_blank(token)).map(|token| &token.token).collect();
    let (first, mut rest) = tokens.split_first()?;
    let moves = is_word(first, "MOVE");
    if !moves && !is_word(first, "FETCH") {
        return None;
    }
    let direction = direction(&mut rest);
    let position = match rest.first() {
        Some(word) if is_word(word, "IN") => FetchPosition::In,
        _ => FetchPosition::From,
    };
    if rest.len() > 1 && ["FROM", "IN"].iter().any(|word| is_word(rest[0], word)) {
        rest = &rest[1..];
    }
    let [Token::Word(name)] = rest else { return None };
    let name = match name.quote_style {
        Some(quote) => Ident::with_quote(quote, &name.value),
        None => Ident::new(&name.value),
    };
    Some((Statement::Fetch { name, direction, position, into: None }, moves))
}

/// The direction in front of the cursor's name. A word that nothing follows is the name.
fn direction(rest: &mut &[&Token]) -> FetchDirection {
    let word = match rest {
        [Token::Word(word), _, ..] if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
        _ => String::new(),
    };
    let after = rest.get(1..).unwrap_or_default();
    let (direction, taken) = match (word.as_str(), number(after)) {
        ("NEXT", _) => (FetchDirection::Next, 1),
        ("PRIOR", _) => (FetchDirection::Prior, 1),
        ("FIRST", _) => (FetchDirection::First, 1),
        ("LAST", _) => (FetchDirection::Last, 1),
        ("ALL", _) => (FetchDirection::All, 1),
        ("ABSOLUTE", Some((limit, taken))) => (FetchDirection::Absolute { limit }, 1 + taken),
        ("RELATIVE", Some((limit, taken))) => (FetchDirection::Relative { limit }, 1 + taken),
        ("FORWARD", Some((limit, taken))) => (FetchDirection::Forward { limit: Some(limit) }, 1 + taken),
        ("BACKWARD", Some((limit, taken))) => (FetchDirection::Backward { limit: Some(limit) }, 1 + taken),
        ("FORWARD", None) if is_word(after[0], "ALL") && after.len() > 1 => (FetchDirection::ForwardAll, 2),
        ("BACKWARD", None) if is_word(after[0], "ALL") && after.len() > 1 => (FetchDirection::BackwardAll, 2),
        ("FORWARD", None) => (FetchDirection::Forward { limit: None }, 1),
        ("BACKWARD", None) => (FetchDirection::Backward { limit: None }, 1),
        _ => match number(rest) {
            Some((limit, taken)) => (FetchDirection::Count { limit }, taken),
            None => (FetchDirection::Next, 0),
        },
    };
    *rest = rest.get(taken..).unwrap_or_default();
    direction
}

/// A whole number with or without a sign, and how many tokens it takes.
fn number(tokens: &[&Token]) -> Option<(ValueWithSpan, usize)> {
    let (sign, digits) = match tokens {
        [Token::Minus, Token::Number(digits, _), ..] => ("-", digits),
        [Token::Plus, Token::Number(digits, _), ..] => ("", digits),
        [Token::Number(digits, _), ..] => ("", digits),
        _ => return None,
    };
    let signed = usize::from(!matches!(tokens[0], Token::Number(..)));
    digits.parse::<i64>().ok()?;
    Some((Value::Number(format!("{sign}{digits}"), false).into(), 1 + signed))
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn check(sql: &str, expected: Option<&str>) {
        let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize_with_location().unwrap();
        let parsed = parse(&tokens).map(|(fetch, moves)| format!("{}{fetch}", if moves { "MOVE: " } else { "" }));
        assert_eq!(parsed.as_deref(), expected, "{sql}");
    }

    #[test]
    fn directions_come_in_many_forms() {
        check("fetch c", Some("FETCH NEXT FROM c"));
        check("FETCH FROM \"C\"", Some("FETCH NEXT FROM \"C\""));
        check("FETCH 10 IN c", Some("FETCH 10 IN c"));
        check("FETCH -2 c", Some("FETCH -2 FROM c"));
        check("FETCH FORWARD 5 FROM c", Some("FETCH FORWARD 5 FROM c"));
        check("FETCH FORWARD FROM c", Some("FETCH FORWARD FROM c"));
        check("FETCH BACKWARD ALL IN c", Some("FETCH BACKWARD ALL IN c"));
        check("FETCH ABSOLUTE -1 FROM c", Some("FETCH ABSOLUTE -1 FROM c"));
        check("FETCH next", Some("FETCH NEXT FROM next"));
        check("MOVE ALL c", Some("MOVE: FETCH ALL FROM c"));
        check("FETCH 1.5 FROM c", None);
        check("FETCH FROM a b", None);
        check("FETCH", None);
        check("SELECT 1", None);
    }
}
