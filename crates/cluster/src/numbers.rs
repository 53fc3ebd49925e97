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
    /// The next `count` numbers, from 0.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`] for a column without numbers.
    pub async fn take_numbers(&self, table: TableId, column: ColumnId, count: u64) -> Result<Range<u64>, Error> {
        loop {
            if let Some(left) = self.numbers.lock().get_mut(&(table, column))
                && left.end - left.start >= count
            {
                let first = left.start;
                left.start += count;
                return Ok(first..first + count);
            }
            self.reserve_numbers(table, column, count.max(RESERVED_MIN)).await?;
        }
    }

    /// The same for a thread that works on rows, and may wait for a commit.
    ///
    /// # Errors
    /// As [`Node::take_numbers`].
    pub fn take_numbers_waiting(
        self: &Arc<Self>,
        table: TableId,
        column: ColumnId,
        count: u64,
    ) -> Result<Range<u64>, Error> {
        let (node, (done, taken)) = (Arc::clone(self), mpsc::channel());
        self.consensus.spawn(async move {
            // Whoever waited may have given up.
            let _gone = done.send(node.take_numbers(table, column, count).await);
        });
        taken.recv().map_err(|_| Error::ShuttingDown("the node stops".into()))?
    }

    async fn reserve_numbers(&self, table: TableId, column: ColumnId, count: u64) -> Result<(), Error> {
        let first = match self.propose_catalog(CatalogCommand::Reserve { table, column, count }).await? {
            CatalogOutcome::Reserved { first } => first,
            CatalogOutcome::Refused(_) => return Err(Error::NoSuchTable(table.to_string())),
            refused => return Err(defect(format!("{refused:?}"))),
        };
        let mut numbers = self.numbers.lock();
        let left = numbers.entry((table, column)).or_default();
        // Others may have reserved some meanwhile: what does not lie beside these is lost.
        *left = if left.end == first { left.start..first + count } else { first..first + count };
        Ok(())
    }
}
