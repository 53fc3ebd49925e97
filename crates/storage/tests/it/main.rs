//! Tests of the storage crate through its public face: what a disk promises, what the log and the object store make of it.

#![allow(clippy::unwrap_used, reason = "all of this is tests")]

mod cached;
mod crash;
mod disk;
mod log;
mod objects;
