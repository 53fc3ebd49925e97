//! COPY … FROM STDIN: from bytes cut anywhere to batches of a table's columns, as PostgreSQL reads them.

mod decoder;
mod fields;

pub use decoder::Decoder;
