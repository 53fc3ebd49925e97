//! The memory of running queries: their own bound, inside the budget they share with everything else on the node.

use std::fmt;
use std::sync::Arc;

use cluster::MemoryBudget;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryLimit, MemoryPool, MemoryReservation};

/// Bytes taken for each byte an operator asks for. DataFusion's operators grow first and ask afterwards, and a hash table that grows exists twice
/// meanwhile: a grouping that was granted 250 MB was seen to hold 540 MB when it was refused.
const CHARGE: usize = 2;

/// Gives to whoever asks first, as long as both bounds hold.
#[derive(Debug)]
pub(crate) struct QueryMemory {
    queries: GreedyMemoryPool,
    node: Arc<MemoryBudget>,
}

impl QueryMemory {
    /// At most `bytes` for all queries together, and no more than is free of `node`.
    pub(crate) fn new(bytes: usize, node: Arc<MemoryBudget>) -> QueryMemory {
        QueryMemory { queries: GreedyMemoryPool::new(bytes / CHARGE), node }
    }
}

impl MemoryPool for QueryMemory {
    fn name(&self) -> &'static str {
        "queries"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.queries.grow(reservation, additional);
        self.node.take(additional * CHARGE);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.queries.shrink(reservation, shrink);
        self.node.give(shrink * CHARGE);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.queries.try_grow(reservation, additional)?;
        if self.node.try_take(additional.saturating_mul(CHARGE)) {
            return Ok(());
        }
        self.queries.shrink(reservation, additional);
        let (used, limit) = (self.node.used(), self.node.limit());
        let message = format!("the node uses {used} of its {limit} bytes, and {additional} more were asked for");
        Err(DataFusionError::ResourcesExhausted(message))
    }

    fn reserved(&self) -> usize {
        self.queries.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.queries.memory_limit()
    }
}

impl fmt::Display for QueryMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "queries({} bytes reserved)", self.reserved())
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::MemoryConsumer;

    use super::*;

    #[test]
    fn both_bounds_hold() {
        let node = MemoryBudget::new(200);
        let pool: Arc<dyn MemoryPool> = Arc::new(QueryMemory::new(100, node.clone()));
        let query = MemoryConsumer::new("sort").register(&pool);
        assert!(query.try_grow(51).is_err());
        assert_eq!((pool.reserved(), node.used()), (0, 0));
        query.try_grow(40).unwrap();
        assert_eq!((pool.reserved(), node.used()), (40, 80));
        node.take(120);
        assert!(query.try_grow(5).unwrap_err().to_string().contains("200 of its 200 bytes"));
        assert_eq!((pool.reserved(), node.used()), (40, 200));
        drop(query);
        assert_eq!((pool.reserved(), node.used()), (0, 120));
    }
}
