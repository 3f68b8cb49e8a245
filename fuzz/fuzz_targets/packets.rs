//! Runs sequences of frames through the native data path. `tests::fuzz` lists the properties that must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tests::fuzz::run(data);
});
