//! `x IN (VALUES (1), (2))` is `x IN (SELECT * FROM (VALUES (1), (2)) v)`; the parser takes VALUES for a function there.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::words::{is_word, significant};

/// What the rows are called.
const ROWS: &str = "values";

/// Writes such lists as the queries that they are.
pub(super) fn spell_out(tokens: &mut Vec<TokenWithSpan>) {
    let words = significant(tokens);
    let is = |at: usize, word: &str| is_word(&tokens[at].token, word);
    let lists: Vec<usize> = words
        .windows(3)
        .filter(|triple| is(triple[0], "IN") && tokens[triple[1]].token == Token::LParen && is(triple[2], "VALUES"))
        .map(|triple| triple[1])
        .collect();
    // From the last one on, so that those before stay where they are.
    for open in lists.into_iter().rev() {
        let Some(close) = closing(tokens, open) else { continue };
        let keyword = Token::make_keyword;
        let begin = [keyword("SELECT"), Token::Mul, keyword("FROM"), Token::LParen];
        let end = [Token::RParen, keyword("AS"), Token::make_word(ROWS, Some('"'))];
        let (begins, ends) = (tokens[open].span, tokens[close].span);
        tokens.splice(close..close, end.map(|token| TokenWithSpan::new(token, ends)));
        tokens.splice(open + 1..=open, begin.map(|token| TokenWithSpan::new(token, begins)));
    }
}

/// Where the parenthesis that opens there is closed.
fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}
