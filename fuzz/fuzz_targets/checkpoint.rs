//! See `storage::fuzz::checkpoint`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| storage::fuzz::checkpoint(data));
