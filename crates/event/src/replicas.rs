//! How many nodes shall vote on the rows of a table.

use serde::{Deserialize, Serialize};

use crate::limits;

/// How many nodes shall vote on the rows of a table, once the cluster has so many: an odd number up to [`limits::VOTERS_MAX`]. A table with
/// `2n + 1` stays readable and writable while any `n` of them are away.
///
/// It is what the table has at least: its rows share a group with those of other tables, which may ask for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Replicas(u8);

impl Replicas {
    /// The number, when it is one of those there can be.
    pub fn new(count: usize) -> Option<Replicas> {
        let is_offered = count % 2 == 1 && count <= limits::VOTERS_MAX;
        u8::try_from(count).ok().filter(|_| is_offered).map(Replicas)
    }

    /// The number.
    pub fn count(self) -> usize {
        self.0.into()
    }

    /// Whether it is what tables have that say nothing of it.
    pub fn is_default(&self) -> bool {
        *self == Replicas::default()
    }
}

impl Default for Replicas {
    fn default() -> Replicas {
        Replicas(limits::VOTERS as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_odd_and_bounded() {
        let offered: Vec<usize> = (0..20).filter_map(Replicas::new).map(Replicas::count).collect();
        assert_eq!(offered, [1, 3, 5, 7]);
        assert_eq!(Replicas::new(usize::MAX), None);
        assert_eq!(Replicas::default().count(), limits::VOTERS);
    }
}
