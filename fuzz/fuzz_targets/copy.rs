//! See `query::fuzz::copy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| query::fuzz::copy(data));
