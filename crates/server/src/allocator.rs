//! What the allocator of the `annal` program knows: the measured side of the memory budget.

use tikv_jemalloc_ctl::{epoch, stats};

/// What the process holds, whatever the budget says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allocated {
    /// Bytes asked for and not yet freed.
    pub allocated: usize,
    /// Bytes of memory that back them, and freed ones not yet given back to the system.
    pub resident: usize,
}

impl Allocated {
    /// As of now; zeros in a program that has another allocator.
    pub(crate) fn now() -> Allocated {
        let read = || {
            epoch::advance()?;
            Ok::<_, tikv_jemalloc_ctl::Error>(Allocated {
                allocated: stats::allocated::read()?,
                resident: stats::resident::read()?,
            })
        };
        read().unwrap_or_default()
    }
}
