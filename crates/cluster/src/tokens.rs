//! One-time tokens by which a running cluster lets a node join it.
//!
//! A token is 128 random bits. The catalog keeps its SHA-256 and until when it holds, never the token; whoever joins with it uses it up. A node
//! that asks again because it did not hear the answer is in already, and needs none.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::catalog::command::{CatalogCommand, CatalogOutcome, Refusal, ShownToken};
use crate::ddl::defect;
use crate::error::Error;
use crate::message::Joining;
use crate::node::Node;

/// How every token begins, so that one is known for what it is.
const PREFIX: &str = "annal-join-";

/// Where a token comes from.
pub(crate) const TOKEN_HINT: &str = "Make one with annal cluster token, and give it to the node with --join-token.";

/// A join token, which logs do not show.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JoinToken(String);

impl JoinToken {
    /// The token of that text.
    pub fn new(text: impl Into<String>) -> JoinToken {
        JoinToken(text.into())
    }

    /// What its owner passes on.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    fn hash(&self) -> String {
        Sha256::digest(self.0.as_bytes()).iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("text can be written to");
            text
        })
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken")
    }
}

impl Node {
    /// Makes a token with which one node can join the cluster within `for_us` microseconds.
    ///
    /// # Errors
    /// [`Error::NotInState`] while there are too many that nobody has used.
    pub async fn make_join_token(&self, for_us: i64) -> Result<JoinToken, Error> {
        let (high, low) = (self.entropy.next_u64(), self.entropy.next_u64());
        let token = JoinToken(format!("{PREFIX}{high:016x}{low:016x}"));
        let at_us = self.clock.now_us();
        let command = CatalogCommand::Token { hash: token.hash(), until_us: at_us.saturating_add(for_us), at_us };
        match self.propose_catalog(command).await? {
            CatalogOutcome::Done => Ok(token),
            CatalogOutcome::Refused(Refusal::TooManyTokens) => Err(Error::NotInState {
                reason: "too many join tokens wait to be used".into(),
                hint: "Use those there are, or wait until they expire.".into(),
            }),
            refused => Err(defect(format!("a join token cannot be made: {refused:?}"))),
        }
    }

    /// What the catalog is shown of the token that a node joins with.
    ///
    /// # Errors
    /// [`Error::NotInState`] when there is none and this node demands one.
    pub(crate) fn shown_token(&self, joining: &Joining) -> Result<Option<ShownToken>, Error> {
        if let Some(token) = &joining.token {
            return Ok(Some(ShownToken { hash: token.hash(), at_us: self.clock.now_us() }));
        }
        let is_known = self.catalog().nodes.values().any(|node| node.nonce == joining.nonce);
        if self.demands_tokens && !is_known {
            return Err(Error::NotInState {
                reason: "a node joins this cluster with a token, and shows none".into(),
                hint: TOKEN_HINT.into(),
            });
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown_by_accident() {
        assert!(!format!("{:?}", JoinToken::new("secret")).contains("secret"));
    }

    #[test]
    fn what_is_kept_is_the_sha_256() {
        assert_eq!(JoinToken::new("abc").hash(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
