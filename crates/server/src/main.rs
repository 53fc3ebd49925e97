//! The `annal` program.
fn main() {}
