//! Tests of the whole product: the built binary, driven from outside. One test binary, one module for each concern.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says why on stderr")]

mod tidy;
