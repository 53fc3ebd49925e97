//! See `query::fuzz::statements`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| query::fuzz::statements(data));
