//! Numbers of identity columns. The catalog gives each node a range at a time, so that two nodes never give one number out; what a node
//! has not given out when it stops is lost, and makes a gap.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, mpsc};

use event::{ColumnId, TableId};
use parking_lot::Mutex;

use crate::catalog::command::{CatalogCommand, CatalogOutcome};
use crate::ddl::defect;
use crate::error::Error;
use crate::node::Node;

/// The fewest numbers that are reserved at once.
const RESERVED_MIN: u64 = 32;

/// What is left of the ranges this node was given.
pub(crate) type Reserved = Mutex<BTreeMap<(TableId, ColumnId), Range<u64>>>;

impl Node {
    /// Sees to it that [`Node::take_numbers`] finds `count` of them without waiting.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`] for a column without numbers.
    pub async fn reserve_numbers(&self, table: TableId, column: ColumnId, count: u64) -> Result<(), Error> {
        let left = self.numbers.lock().get(&(table, column)).map_or(0, |left| left.end - left.start);
        if left >= count {
            return Ok(());
        }
        let count = (count - left).max(RESERVED_MIN);
        let first = match self.catalog.propose(CatalogCommand::Reserve { table, column, count }).await?.outcome {
            CatalogOutcome::Reserved { first } => first,
            CatalogOutcome::NoSuchTable => return Err(Error::NoSuchTable(table.to_string())),
            refused => return Err(defect(format!("{refused:?}"))),
        };
        let mut numbers = self.numbers.lock();
        let left = numbers.entry((table, column)).or_default();
        // Others may have taken some meanwhile, or reserved more. What does not follow them is lost.
        *left = if left.end == first { left.start..first + count } else { first..first + count };
        Ok(())
    }

    /// The next `count` numbers, from 0. Waits for the catalog when fewer are reserved, so not for threads that must not wait.
    ///
    /// # Errors
    /// As [`Node::reserve_numbers`].
    pub fn take_numbers(self: &Arc<Self>, table: TableId, column: ColumnId, count: u64) -> Result<Range<u64>, Error> {
        loop {
            if let Some(left) = self.numbers.lock().get_mut(&(table, column))
                && left.end - left.start >= count
            {
                let first = left.start;
                left.start += count;
                return Ok(first..first + count);
            }
            let (node, (done, reserved)) = (Arc::clone(self), mpsc::channel());
            self.consensus.spawn(async move {
                // Whoever waited may have given up.
                let _gone = done.send(node.reserve_numbers(table, column, count).await);
            });
            reserved.recv().map_err(|_| Error::ShuttingDown("the node stops".into()))??;
        }
    }
}
