//! Tokens of a statement, looked at before it is parsed.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// Whether a token says nothing: white space, a comment or the end.
pub(super) fn is_blank(token: &TokenWithSpan) -> bool {
    matches!(token.token, Token::Whitespace(_) | Token::EOF)
}

/// Where tokens are that say something.
pub(super) fn significant(tokens: &[TokenWithSpan]) -> Vec<usize> {
    (0..tokens.len()).filter(|at| !is_blank(&tokens[*at])).collect()
}

/// Whether a token is that word, not quoted.
pub(super) fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(found) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
}
