//! Tests of the storage crate through its public face: what a disk promises, what the log and the object store make of it.

mod disk;
mod log;
mod objects;
