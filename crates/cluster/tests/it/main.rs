//! A node below SQL: what is acknowledged is there, whole, once, whatever happens to the process or its disk.

#![allow(clippy::unwrap_used)]

mod bulk;
mod compaction;
mod crash;
mod ddl;
mod flush;
mod full_disk;
mod heartbeats;
mod hosts;
mod join_tokens;
mod joint;
mod numbers;
mod overload;
mod patience;
mod placement;
mod reading;
mod replicas;
mod shared;
mod support;
mod three;
mod write;
