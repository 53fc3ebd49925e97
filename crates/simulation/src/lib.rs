//! The world in one thread: disk, faults, workloads, invariants. Not shipped.
