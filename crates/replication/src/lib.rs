//! One group, many nodes: propose, apply, checkpoint, read index. openraft stays inside.

mod error;

pub use error::Error;
