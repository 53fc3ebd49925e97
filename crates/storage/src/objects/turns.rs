//! One at a time for each name: whoever comes while another works on an object waits for its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// Who works on which object. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    names: Arc<Mutex<BTreeMap<String, Turn>>>,
}

type Turn = Arc<tokio::sync::Mutex<()>>;

/// A turn that was taken, or is waited for; given up when dropped.
#[derive(Debug)]
pub struct Taken {
    turns: Turns,
    name: String,
    turn: Turn,
    held: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits until nobody else works on the object.
    pub(super) async fn take(&self, name: &str) -> Taken {
        let turn = Arc::clone(self.names.lock().entry(name.to_owned()).or_default());
        let mut taken = Taken { turns: self.clone(), name: name.to_owned(), turn, held: None };
        taken.held = Some(Arc::clone(&taken.turn).lock_owned().await);
        taken
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.held = None;
        let mut names = self.turns.names.lock();
        // The map's and this one: nobody waits. Whoever comes later finds no name, and makes a turn of its own.
        if Arc::strong_count(&self.turn) == 2 {
            names.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn a_third_waits_for_the_second_although_the_first_has_ended() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        let mut second = Box::pin(turns.take("a"));
        assert!(poll!(&mut second).is_pending());
        drop(first);
        let mut third = Box::pin(turns.take("a"));
        assert!(poll!(&mut third).is_pending());
        let second = second.await;
        assert!(poll!(&mut third).is_pending());
        drop(second);
        drop(third.await);
        assert!(turns.names.lock().is_empty());
    }

    #[tokio::test]
    async fn who_gives_up_waiting_leaves_nothing_behind() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        let mut second = Box::pin(turns.take("a"));
        assert!(poll!(&mut second).is_pending());
        drop(first);
        drop(second);
        assert!(turns.names.lock().is_empty());
        drop(turns.take("b").await);
    }
}
