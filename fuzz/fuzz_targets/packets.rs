//! Sequences of frames through the native stages; see `tests::fuzz` for what must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tests::fuzz::run(data);
});
