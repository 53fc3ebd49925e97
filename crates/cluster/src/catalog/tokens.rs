//! Join tokens that nobody has used yet, as their hashes.

use std::collections::BTreeMap;

use event::limits::JOIN_TOKENS_MAX;
use serde::{Deserialize, Serialize};

use super::command::{Refusal, ShownToken};

/// Hashes of tokens, and until when they hold, in microseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Tokens(BTreeMap<String, i64>);

impl Tokens {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Another token; those that hold no longer go.
    pub(crate) fn add(&mut self, hash: &str, until_us: i64, at_us: i64) -> Result<(), Refusal> {
        self.0.retain(|_, until_us| *until_us > at_us);
        if self.0.len() >= JOIN_TOKENS_MAX {
            return Err(Refusal::TooManyTokens);
        }
        self.0.insert(hash.to_owned(), until_us);
        Ok(())
    }

    /// Uses a token up.
    pub(crate) fn spend(&mut self, shown: &ShownToken) -> Result<(), Refusal> {
        match self.0.remove(&shown.hash) {
            Some(until_us) if until_us > shown.at_us => Ok(()),
            _ => Err(Refusal::NoSuchToken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(hash: &str, at_us: i64) -> ShownToken {
        ShownToken { hash: hash.into(), at_us }
    }

    #[test]
    fn a_token_is_used_once_and_in_time() {
        let mut tokens = Tokens::default();
        tokens.add("a", 100, 0).unwrap();
        tokens.add("b", 100, 0).unwrap();
        assert_eq!(tokens.spend(&shown("c", 1)), Err(Refusal::NoSuchToken));
        assert_eq!(tokens.spend(&shown("a", 99)), Ok(()));
        assert_eq!(tokens.spend(&shown("a", 99)), Err(Refusal::NoSuchToken));
        assert_eq!(tokens.spend(&shown("b", 100)), Err(Refusal::NoSuchToken));
        assert!(tokens.is_empty());
    }

    #[test]
    fn tokens_that_nobody_uses_are_bounded_and_make_room_when_they_expire() {
        let mut tokens = Tokens::default();
        for number in 0..JOIN_TOKENS_MAX {
            tokens.add(&number.to_string(), 100, 0).unwrap();
        }
        assert_eq!(tokens.add("more", 100, 50), Err(Refusal::TooManyTokens));
        assert_eq!(tokens.add("more", 300, 200), Ok(()));
    }
}
