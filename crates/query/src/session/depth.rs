//! A bound on how deep a statement's tree can be, taken from its tokens before there is a tree.
//!
//! The parser bounds nesting, but reads a chain of operators (`1 + 1 + …`, `a OR b OR …`, `… UNION ALL …`) in a loop and hangs each
//! link below the one before. Walking, copying or dropping such a tree is recursion, and an overflowing stack ends the process.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::{Condition, Error};

/// Tokens between two commas of one level, summed over the levels that are open. A link takes two tokens or more.
const CHAIN_TOKENS_MAX: usize = 8_000;

/// # Errors
/// 54000 as PostgreSQL words it when the statement could be deeper than the stack.
pub(super) fn check(tokens: &[TokenWithSpan]) -> Result<(), Error> {
    let (mut levels, mut open) = (vec![0_usize], 0);
    for token in tokens {
        match token.token {
            Token::Whitespace(_) => {}
            Token::LParen | Token::LBracket => levels.push(0),
            Token::RParen | Token::RBracket => {
                if levels.len() > 1 {
                    open -= levels.pop().unwrap_or_default();
                }
                add(&mut levels, &mut open);
            }
            Token::Comma => {
                if let Some(level) = levels.last_mut() {
                    open -= std::mem::take(level);
                }
            }
            _ => add(&mut levels, &mut open),
        }
        if open + levels.len() > CHAIN_TOKENS_MAX {
            let hint = "The statement chains too many operators; IN (...), VALUES or a join with a table hold more.";
            return Err(Error::hinted(Condition::ProgramLimitExceeded, "stack depth limit exceeded", hint));
        }
    }
    Ok(())
}

fn add(levels: &mut [usize], open: &mut usize) {
    if let Some(level) = levels.last_mut() {
        *level += 1;
        *open += 1;
    }
}

#[cfg(test)]
mod tests {
    use crate::session::statement::parse;

    fn refused(sql: &str) -> bool {
        parse(sql).is_err_and(|error| error.to_string() == "stack depth limit exceeded")
    }

    #[test]
    fn chains_are_bounded_and_lists_are_not() {
        assert!(refused(&format!("SELECT {}", ["1"; 20_000].join("+"))));
        assert!(refused(&format!("SELECT 1{}", "::int".repeat(20_000))));
        assert!(refused(&["SELECT 1"; 20_000].join(" UNION ALL ")));
        assert!(!refused(&format!("SELECT {}", ["1"; 1_000].join("+"))));
        assert!(!refused(&format!("INSERT INTO t VALUES {}", ["(1, -2 + 3, 'x')"; 20_000].join(","))));
        assert!(!refused(&format!("SELECT 1 IN ({})", ["1"; 20_000].join(","))));
    }
}
