//! Who has had how much of late: whom to refuse first. Pure.
//!
//! What a client was admitted is remembered and halved with each [`HALF_LIFE`]. A client with no more than the mean of those that were active
//! of late has not used its share.

use std::collections::BTreeMap;
use std::time::Duration;

use event::NodeId;

/// After this time half of what a client had is forgotten.
const HALF_LIFE: Duration = Duration::from_secs(1);
/// Less than this is nothing.
const FORGOTTEN_BYTES: f64 = 1024.0;

/// One connection somewhere in the cluster: the node it is made to, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Client {
    pub(crate) node: NodeId,
    pub(crate) number: u64,
}

/// What each client had of late.
#[derive(Debug, Default)]
pub(super) struct Shares {
    clients: BTreeMap<Client, f64>,
    total: f64,
    at: Duration,
}

impl Shares {
    /// Lets time pass. `now` is the time since some fixed moment.
    pub(super) fn pass(&mut self, now: Duration) {
        let left = 0.5_f64.powf(now.saturating_sub(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64());
        self.at = now;
        self.clients.retain(|_, bytes| {
            *bytes *= left;
            *bytes >= FORGOTTEN_BYTES
        });
        self.total = self.clients.values().sum();
    }

    /// The client was admitted.
    #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
    pub(super) fn add(&mut self, client: Client, bytes: u64) {
        *self.clients.entry(client).or_default() += bytes as f64;
        self.total += bytes as f64;
    }

    /// Whether the client had no more than its share.
    #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
    pub(super) fn is_below(&self, client: Client) -> bool {
        let had = self.clients.get(&client).copied().unwrap_or_default();
        // What was summed in another order differs in the last bits.
        had <= self.total / self.clients.len().max(1) as f64 * 1.001
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u64) -> Client {
        Client { node: NodeId(1), number }
    }

    #[test]
    fn a_client_alone_has_not_used_its_share() {
        let mut shares = Shares::default();
        for _ in 0..100 {
            shares.add(client(1), 1 << 20);
            assert!(shares.is_below(client(1)));
        }
    }

    #[test]
    fn who_has_had_more_than_the_others_is_above() {
        let mut shares = Shares::default();
        shares.add(client(1), 50 << 20);
        (2..10).for_each(|number| shares.add(client(number), 1 << 20));
        assert!(!shares.is_below(client(1)));
        assert!(shares.is_below(client(2)) && shares.is_below(client(77)), "also one that comes just now");
    }

    #[test]
    fn what_was_is_forgotten() {
        let mut shares = Shares::default();
        shares.add(client(1), 64 << 20);
        shares.add(client(2), 1 << 20);
        shares.pass(Duration::from_secs(4));
        shares.add(client(2), 8 << 20);
        assert!(shares.is_below(client(1)) && !shares.is_below(client(2)));
        shares.pass(Duration::from_secs(60));
        assert!(shares.clients.is_empty(), "clients that are gone take no room");
    }
}
