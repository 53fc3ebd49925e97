//! Workloads and their measurement.
