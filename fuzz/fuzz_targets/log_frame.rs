//! See `storage::fuzz::log_frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| storage::fuzz::log_frame(data));
