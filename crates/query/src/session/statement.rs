//! From a client's message to statements.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use parking_lot::Mutex;

use super::create_like::{self, Included};
use super::values::{self, ConstantRows, Scanned};
use super::words::{is_blank, is_word, significant};
use super::{create_as_clauses, cursor_words, in_values, precedence};
use crate::error::{Condition, Error, Report};

/// One parsed statement of a message.
#[derive(Clone, Debug)]
pub struct Statement {
    /// `None` for the empty statement.
    pub(crate) ast: Option<Arc<ast::Statement>>,
    /// What the client wrote, without the semicolon.
    pub(crate) text: Arc<str>,
    /// Characters of the message before `text`.
    pub(crate) offset: usize,
    /// The rows of an INSERT of constants, as places in `text`; the tree then has a row that stands for them.
    pub(crate) rows: Option<Arc<ConstantRows>>,
    /// CREATE TABLE AS ... WITH NO DATA.
    pub(crate) without_data: bool,
    /// MOVE, which the tree has as a FETCH.
    pub(crate) moves: bool,
    /// What CREATE TABLE (LIKE ...) takes over from the table that the tree names.
    pub(crate) like: Option<Included>,
    /// The types that the client declares for its parameters, as far as it does.
    pub(crate) declared: Arc<[Option<FieldRef>]>,
}

impl Statement {
    /// The statement with such parameters.
    pub(super) fn with_declared(&self, declared: &[Option<FieldRef>]) -> Statement {
        Statement { declared: Arc::from(declared), ..self.clone() }
    }
}

/// Parses all statements of a message.
///
/// # Errors
/// 42601 with the position of the token that does not fit.
pub(crate) fn parse(sql: &str) -> Result<Vec<Statement>, Error> {
    LastHead::default().parse(sql)
}

/// The head of the last INSERT of constants, parsed. Who inserts row after row writes the same head again, and to parse it costs more than
/// to read the row. What a head means does not depend on anything but its text.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastHead(Arc<Mutex<Option<ParsedHead>>>);

/// The text of a head, and what it means.
type ParsedHead = (Box<str>, Arc<ast::Statement>);

impl LastHead {
    /// As [`parse`].
    pub(crate) fn parse(&self, sql: &str) -> Result<Vec<Statement>, Error> {
        match self.parse_constants(sql) {
            Some(insert) => Ok(vec![insert]),
            None => parse_whole(sql),
        }
    }

    /// A message that is one INSERT of constants. Whatever is wrong with it is left to [`parse_whole`].
    fn parse_constants(&self, sql: &str) -> Option<Statement> {
        let text = sql.trim_ascii_start();
        let offset = sql.len() - text.len();
        let Scanned { head, end, rows } = values::scan(text)?;
        let ast = self.head(&text[..head])?;
        let (text, rows) = (Arc::from(&text[..end]), Some(Arc::new(rows)));
        Some(Statement {
            ast: Some(ast),
            text,
            offset,
            rows,
            without_data: false,
            moves: false,
            like: None,
            declared: Arc::default(),
        })
    }

    /// The statement that begins with `head` and has a row of one NULL.
    fn head(&self, head: &str) -> Option<Arc<ast::Statement>> {
        let mut last = self.0.lock();
        if let Some((text, ast)) = last.as_ref()
            && **text == *head
        {
            return Some(Arc::clone(ast));
        }
        let mut statements = parse_whole(&format!("{head} VALUES (NULL)")).ok()?;
        let ast = statements.pop().filter(|_| statements.is_empty())?.ast?;
        *last = Some((head.into(), Arc::clone(&ast)));
        Some(ast)
    }
}

/// Parses every token of a message.
pub(super) fn parse_whole(sql: &str) -> Result<Vec<Statement>, Error> {
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, sql)
        .tokenize_with_location()
        .map_err(|error| syntax_error(sql, &error.message, Some(error.location)))?;
    let mut statements = Vec::new();
    let mut start = 0;
    for (at, token) in tokens.iter().enumerate().chain([(tokens.len(), &end_token())]) {
        if at < tokens.len() && token.token != Token::SemiColon {
            continue;
        }
        let part = &tokens[start..at];
        start = at + 1;
        if let Some(statement) = parse_one(sql, part)? {
            statements.push(statement);
        }
    }
    if statements.is_empty() {
        statements.push(Statement {
            ast: None,
            text: Arc::from(""),
            offset: 0,
            rows: None,
            without_data: false,
            moves: false,
            like: None,
            declared: Arc::default(),
        });
    }
    Ok(statements)
}

/// The statements of a script as they were written, without semicolons; comments and blanks between them are left out.
///
/// # Errors
/// 42601 for a quote that is not closed.
pub fn split_statements(sql: &str) -> Result<Vec<&str>, Error> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql)
        .tokenize_with_location()
        .map_err(|error| syntax_error(sql, &error.message, Some(error.location)))?;
    let parts = tokens.split(|token| token.token == Token::SemiColon);
    let written = parts.filter_map(|part| {
        let first = part.iter().find(|token| !is_blank(token))?;
        let last = part.iter().rfind(|token| !is_blank(token))?;
        let from = byte_at(sql, first.span.start);
        Some(&sql[from..byte_at(sql, last.span.end).max(from)])
    });
    Ok(written.collect())
}

fn end_token() -> TokenWithSpan {
    TokenWithSpan::wrap(Token::EOF)
}

fn parse_one(sql: &str, tokens: &[TokenWithSpan]) -> Result<Option<Statement>, Error> {
    let Some(first) = tokens.iter().find(|token| !is_blank(token)) else { return Ok(None) };
    let last = tokens.iter().rfind(|token| !is_blank(token)).unwrap_or(first);
    let from = byte_at(sql, first.span.start);
    let to = byte_at(sql, last.span.end).max(from);
    let mut own: Vec<TokenWithSpan> = tokens.to_vec();
    super::depth::check(&own)?;
    rewrite(&mut own)?;
    drop_only(&mut own);
    precedence::like_any(&mut own);
    in_values::spell_out(&mut own);
    let clauses = create_as_clauses::take(&mut own);
    let like = create_like::take(&mut own);
    let fetch = cursor_words::parse(&own);
    let moves = matches!(fetch, Some((_, true)));
    let dialect = PostgreSqlDialect {};
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(own);
    let parsed = match fetch {
        Some((fetch, _)) => Ok(fetch),
        None => parser.parse_statement().and_then(|statement| match parser.peek_token().token {
            Token::EOF | Token::SemiColon => Ok(statement),
            _ => parser.expected("end of statement", parser.peek_token()),
        }),
    };
    let ast = parsed.map_err(|error| match error {
        ParserError::RecursionLimitExceeded => {
            Error::report(Condition::ProgramLimitExceeded, "stack depth limit exceeded")
        }
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
            syntax_error(sql, &message, location_in(&message))
        }
    })?;
    let mut ast = with_in_source(ast);
    precedence::settle(&mut ast, tokens);
    let without_data = clauses.is_some_and(|clauses| clauses.give_to(&mut ast));
    let like = like.and_then(|like| like.give_to(&mut ast));
    super::timescale::rewrite_calls(&mut ast);
    super::names::name_function_columns(&mut ast);
    super::clauses::check(&ast)?;
    super::typed::spread_types(&mut ast);
    let text = Arc::from(&sql[from..to]);
    let offset = sql[..from].chars().count();
    Ok(Some(Statement {
        ast: Some(Arc::new(ast)),
        text,
        offset,
        rows: None,
        without_data,
        moves,
        like,
        declared: Arc::default(),
    }))
}

/// `WITH ... INSERT INTO t SELECT` as `INSERT INTO t WITH ... SELECT`, which says the same.
fn with_in_source(written: ast::Statement) -> ast::Statement {
    let ast::Statement::Query(mut query) = written else { return written };
    let ast::Query { with, body, .. } = query.as_mut();
    let ast::SetExpr::Insert(ast::Statement::Insert(insert)) = body.as_mut() else {
        return ast::Statement::Query(query);
    };
    match &mut insert.source {
        Some(source) if source.with.is_none() => {
            source.with = with.take();
            ast::Statement::Insert(insert.clone())
        }
        _ => ast::Statement::Query(query),
    }
}

/// Turns what the stock parser cannot read into what it can: COPY needs its semicolon, option names may have dots, be
/// bare words, or stand without a value, TABLE is SELECT * FROM, ABORT is ROLLBACK, and TIME ZONE is the setting of that name.
fn rewrite(tokens: &mut Vec<TokenWithSpan>) -> Result<(), Error> {
    let words: Vec<(usize, String)> = tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| !is_blank(token))
        .take(3)
        .map(|(at, token)| (at, token.token.to_string().to_ascii_uppercase()))
        .collect();
    match words.iter().map(|(_, word)| word.as_str()).collect::<Vec<_>>().as_slice() {
        ["COPY", ..] => {
            check_copy_characters(tokens)?;
            tokens.push(TokenWithSpan::wrap(Token::SemiColon));
        }
        ["CREATE", "UNLOGGED", ..] => {
            let message = "unlogged tables are not supported";
            return Err(Error::hinted(Condition::FeatureNotSupported, message, "Every table is logged: leave it out."));
        }
        ["CREATE", "TABLE" | "TEMP" | "TEMPORARY", ..] => join_dotted_options(tokens),
        ["ALTER", "TABLE", ..] => reset_as_set(tokens),
        ["TABLE", ..] => {
            let (at, span) = (words[0].0, tokens[words[0].0].span);
            let select = [Token::make_keyword("SELECT"), Token::Mul, Token::make_keyword("FROM")];
            tokens.splice(at..=at, select.map(|token| TokenWithSpan::new(token, span)));
        }
        ["ABORT", ..] => tokens[words[0].0].token = Token::make_keyword("ROLLBACK"),
        ["RESET", "TIME", "ZONE"] => {
            tokens[words[1].0].token = Token::make_word("timezone", None);
            tokens.truncate(words[2].0);
        }
        _ => {}
    }
    Ok(())
}

/// `FROM ONLY t` is FROM t: no table inherits from another.
fn drop_only(tokens: &mut Vec<TokenWithSpan>) {
    let significant = significant(tokens);
    let is = |at: usize, word: &str| is_word(&tokens[at].token, word);
    let before = ["FROM", "UPDATE", "JOIN"];
    let is_only = |triple: &&[usize]| match **triple {
        [first, only, name] => {
            before.iter().any(|word| is(first, word))
                && is(only, "ONLY")
                && matches!(tokens[name].token, Token::Word(_) | Token::LParen)
        }
        _ => false,
    };
    let mut only: Vec<usize> = significant.windows(3).filter(is_only).map(|triple| triple[1]).collect();
    while let Some(at) = only.pop() {
        tokens.remove(at);
    }
}

/// The parser reads these characters as such and calls anything longer a syntax error.
fn check_copy_characters(tokens: &[TokenWithSpan]) -> Result<(), Error> {
    let words: Vec<&Token> = tokens.iter().filter(|token| !is_blank(token)).map(|token| &token.token).collect();
    for pair in words.windows(3) {
        let option = pair[0].to_string().to_ascii_lowercase();
        let value = if pair[1].to_string().eq_ignore_ascii_case("as") { pair[2] } else { pair[1] };
        if let Token::SingleQuotedString(value) = value
            && matches!(option.as_str(), "delimiter" | "quote" | "escape")
            && (value.chars().count() != 1 || !value.is_ascii())
        {
            let message = format!("COPY {option} must be a single one-byte character");
            return Err(Error::report(Condition::FeatureNotSupported, message));
        }
    }
    Ok(())
}

/// `WITH (tsdb.hypertable, tsdb.partition_column = 'ts')`: each name becomes one word, and a missing value `true`.
fn join_dotted_options(tokens: &mut Vec<TokenWithSpan>) {
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_)));
    let with = tokens
        .windows(2)
        .rposition(|pair| pair[0].token.to_string().eq_ignore_ascii_case("with") && pair[1].token == Token::LParen);
    let Some(with) = with else { return };
    let mut at = with + 2;
    while at < tokens.len() && tokens[at].token != Token::RParen {
        if at + 2 < tokens.len() && tokens[at + 1].token == Token::Period {
            let name = format!("{}.{}", tokens[at].token, tokens[at + 2].token);
            tokens[at].token = Token::make_word(&name, Some('"'));
            tokens.drain(at + 1..at + 3);
        }
        if matches!(tokens.get(at + 1).map(|t| &t.token), Some(Token::Comma | Token::RParen)) {
            let span = tokens[at].span;
            tokens.insert(at + 1, TokenWithSpan::new(Token::Eq, span));
            tokens.insert(at + 2, TokenWithSpan::new(Token::make_keyword("true"), span));
        }
        while at < tokens.len() && !matches!(tokens[at].token, Token::Comma | Token::RParen) {
            at += 1;
        }
        if tokens.get(at).is_some_and(|token| token.token == Token::Comma) {
            at += 1;
        }
    }
}

/// `RESET (a, b)` of a table's options becomes `SET (a = default, b = default)`.
fn reset_as_set(tokens: &mut Vec<TokenWithSpan>) {
    let is = |token: &TokenWithSpan, word: &str| token.token.to_string().eq_ignore_ascii_case(word);
    if !tokens.iter().any(|token| is(token, "reset")) {
        return;
    }
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_)));
    let reset = tokens.windows(2).rposition(|pair| is(&pair[0], "reset") && pair[1].token == Token::LParen);
    let Some(reset) = reset else { return };
    tokens[reset].token = Token::make_keyword("SET");
    let rest = tokens.split_off(reset + 2);
    for token in rest {
        if matches!(token.token, Token::Comma | Token::RParen) {
            tokens.push(TokenWithSpan::new(Token::Eq, token.span));
            tokens.push(TokenWithSpan::new(Token::make_word("default", None), token.span));
        }
        tokens.push(token);
    }
}

fn byte_at(sql: &str, location: Location) -> usize {
    let mut line = 1;
    let mut column = 1;
    for (at, character) in sql.char_indices() {
        if line == location.line && column == location.column {
            return at;
        }
        if character == '\n' {
            line += 1;
            column = 1;
        } else {
            column += 1;
        }
    }
    sql.len()
}

/// The parser writes the place into its message: ` at Line: 1, Column: 8`.
fn location_in(message: &str) -> Option<Location> {
    let rest = &message[message.rfind("Line: ")? + 6..];
    let (line, rest) = rest.split_once(", Column: ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some(Location { line: line.parse().ok()?, column: rest[..digits].parse().ok()? })
}

/// `syntax error at or near "x"` as PostgreSQL says it.
fn syntax_error(sql: &str, message: &str, location: Option<Location>) -> Error {
    let unterminated = message.contains("Unterminated");
    let Some(location) = location.filter(|location| location.line > 0) else {
        return end_of_input(sql, message);
    };
    let at = byte_at(sql, location);
    let rest = sql[at..].trim_start();
    let at = sql.len() - rest.len();
    let near = first_word(rest);
    if near.is_empty() {
        return end_of_input(sql, message);
    }
    let text = if unterminated {
        format!("unterminated quoted string at or near \"{rest}\"")
    } else {
        format!("syntax error at or near \"{near}\"")
    };
    Report { position: Some(sql[..at].chars().count() + 1), ..Report::new(Condition::SyntaxError, text) }.into()
}

fn end_of_input(sql: &str, _message: &str) -> Error {
    let report = Report::new(Condition::SyntaxError, "syntax error at end of input");
    Report { position: Some(sql.trim_end().chars().count() + 1), ..report }.into()
}

fn first_word(text: &str) -> &str {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    match text.chars().next() {
        Some(first) if is_part(first) => &text[..text.find(|c| !is_part(c)).unwrap_or(text.len())],
        Some(first) => &text[..first.len_utf8()],
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(sql: &str) -> (String, Option<usize>) {
        match parse(sql) {
            Err(Error::Reported(report)) => (report.message, report.position),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn messages_are_cut_into_statements() {
        let texts = |sql: &str| parse(sql).expect("valid").iter().map(|s| s.text.to_string()).collect::<Vec<_>>();
        assert_eq!(texts("select 1; select ';' ;"), ["select 1", "select ';'"]);
        assert_eq!(texts(" ; -- nothing\n;"), [""]);
        assert_eq!(texts(""), [""]);
        assert_eq!(parse("select 1;\n select 2").expect("valid")[1].offset, 11);
        assert_eq!(texts("copy t from stdin"), ["copy t from stdin"]);
        assert_eq!(texts("abort; reset time zone"), ["abort", "reset time zone"]);
        assert_eq!(texts("create table t (a int) with (tsdb.hypertable, tsdb.partition_column='a')").len(), 1);
    }

    #[test]
    fn a_head_is_parsed_once_and_means_the_same() {
        let last = LastHead::default();
        let parsed = |sql: &str| last.parse(sql).expect("valid").remove(0);
        let tree = |statement: &Statement| statement.ast.clone().expect("not empty");
        let first = parsed("INSERT INTO t VALUES (1)");
        let again = parsed("  INSERT INTO t VALUES (2, 'x'), (3, 'y');");
        assert!(Arc::ptr_eq(&tree(&first), &tree(&again)));
        assert_eq!((&*again.text, again.offset), ("INSERT INTO t VALUES (2, 'x'), (3, 'y')", 2));
        assert_eq!(again.rows.as_ref().map(|rows| (rows.len(), rows.width())), Some((2, 2)));
        let other = parsed("INSERT INTO T (a) VALUES (4)");
        assert!(!Arc::ptr_eq(&tree(&first), &tree(&other)));
        assert_eq!(tree(&other), tree(&parse("INSERT INTO T (a) VALUES (4)").expect("valid")[0]));
    }

    #[test]
    fn scripts_are_cut_as_they_were_written() {
        let script = "-- first\nselect 1;\n\nselect 'a;b' /* ; */ as x ; select $$;$$\n;;";
        assert_eq!(split_statements(script).expect("valid"), ["select 1", "select 'a;b' /* ; */ as x", "select $$;$$"]);
        assert_eq!(split_statements(" -- nothing").expect("valid"), Vec::<&str>::new());
        assert!(split_statements("select 'open").is_err());
    }

    #[test]
    fn syntax_errors_name_the_token() {
        assert_eq!(refusal("selec 1"), ("syntax error at or near \"selec\"".to_owned(), Some(1)));
        assert_eq!(refusal("create tabel t (a int)"), ("syntax error at or near \"tabel\"".to_owned(), Some(8)));
        assert_eq!(refusal("select (1"), ("syntax error at end of input".to_owned(), Some(10)));
        assert_eq!(refusal("select 'a").1, Some(8));
    }
}
