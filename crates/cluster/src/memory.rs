//! The memory of a node that grows with what its clients do: one budget for memtables, uncommitted rows and running queries.
//!
//! Whoever wants more asks before taking it. Rows already committed are taken whether there is room or not ([`MemoryBudget::take`]): they must
//! be kept, and what waits for room sees them. Everybody else is refused, or waits until somebody gives back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use event::limits;
use tokio::sync::Notify;

/// Bytes that all users of a node's memory may hold together.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: usize,
    used: AtomicUsize,
    /// Users that wait for others to give back.
    waiting: AtomicUsize,
    given_back: Notify,
}

impl MemoryBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<MemoryBudget> {
        Arc::new(MemoryBudget {
            limit,
            used: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            given_back: Notify::new(),
        })
    }

    /// Bytes there are.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes taken; may exceed the limit by what had to be kept.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes` if they are there.
    #[must_use]
    pub fn try_take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Takes `bytes` in any case.
    pub fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back bytes that were taken.
    pub fn give(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "more was given back than taken");
        self.given_back.notify_waiters();
    }
}

/// What one user holds of a budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl Reservation {
    /// Holds nothing.
    pub(crate) fn empty(budget: Arc<MemoryBudget>) -> Reservation {
        Reservation { budget, bytes: 0 }
    }

    /// Takes `bytes` more if they are there.
    pub(crate) fn try_grow(&mut self, bytes: usize) -> bool {
        let grown = self.budget.try_take(bytes);
        self.bytes += if grown { bytes } else { 0 };
        grown
    }

    /// Takes `bytes` more, waiting up to `patience` for others to give them back; not when [`limits::MEMORY_WAITERS_MAX`] wait already.
    pub(crate) async fn grow(&mut self, bytes: usize, patience: Duration) -> bool {
        let budget = self.budget.clone();
        let waiting = Waiting::begin(&budget);
        if waiting.before >= limits::MEMORY_WAITERS_MAX {
            return self.try_grow(bytes);
        }
        let wait = async {
            loop {
                let given_back = budget.given_back.notified();
                if self.try_grow(bytes) {
                    return;
                }
                given_back.await;
            }
        };
        tokio::time::timeout(patience, wait).await.is_ok()
    }

    /// Gives back all but `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        self.budget.give(self.bytes.saturating_sub(bytes));
        self.bytes = self.bytes.min(bytes);
    }
}

/// One that waits for memory; no longer once dropped.
struct Waiting<'a> {
    budget: &'a MemoryBudget,
    /// How many waited already.
    before: usize,
}

impl<'a> Waiting<'a> {
    fn begin(budget: &'a MemoryBudget) -> Waiting<'a> {
        Waiting { budget, before: budget.waiting.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.budget.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_there_for_nobody_else() {
        let budget = MemoryBudget::new(100);
        let mut one = Reservation::empty(budget.clone());
        let mut other = Reservation::empty(budget.clone());
        assert!(one.try_grow(60));
        assert!(!other.try_grow(41));
        assert!(other.try_grow(40));
        one.shrink_to(10);
        assert_eq!(budget.used(), 50);
        drop(other);
        assert_eq!(budget.used(), 10);
        assert!(!one.try_grow(usize::MAX), "a sum beyond all numbers fits nowhere");
    }

    #[test]
    fn committed_rows_are_kept_and_keep_others_out() {
        let budget = MemoryBudget::new(100);
        budget.take(150);
        assert!(!budget.try_take(1));
        budget.give(100);
        assert!(budget.try_take(50));
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_room_is_made() {
        let budget = MemoryBudget::new(100);
        let mut one = Reservation::empty(budget.clone());
        assert!(one.try_grow(100));
        let mut other = Reservation::empty(budget.clone());
        assert!(!other.grow(10, Duration::ZERO).await);
        let waiting = tokio::spawn(async move { other.grow(10, Duration::MAX).await });
        tokio::task::yield_now().await;
        drop(one);
        assert!(waiting.await.unwrap());
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn so_many_wait_and_the_next_is_refused_at_once() {
        let budget = MemoryBudget::new(100);
        assert!(budget.try_take(100));
        let wait = |budget: Arc<MemoryBudget>| async move {
            let mut one = Reservation::empty(budget);
            one.grow(1, Duration::MAX).await
        };
        let mut waiting: Vec<_> = (0..limits::MEMORY_WAITERS_MAX).map(|_| Box::pin(wait(budget.clone()))).collect();
        for one in &mut waiting {
            assert!(futures::poll!(one).is_pending());
        }
        assert!(!wait(budget.clone()).await);
        waiting.pop();
        let mut next = Box::pin(wait(budget.clone()));
        assert!(futures::poll!(&mut next).is_pending(), "one has gone, and the next may wait");
        budget.give(100);
        assert!(next.await);
    }
}
