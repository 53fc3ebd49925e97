//! COPY … FROM STDIN: from bytes cut anywhere to batches of a table's columns, as PostgreSQL reads them.

mod blocks;
mod decoder;
mod fields;
mod tuples;

pub(crate) use blocks::{Block, Blocks, Decoded};
pub use decoder::Decoder;
pub use tuples::{SIGNATURE, TupleDecoder};
