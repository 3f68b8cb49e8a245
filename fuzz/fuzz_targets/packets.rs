//! Processes sequences of frames on the simulated platform. See `tests::fuzz` for the properties that must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tests::fuzz::run(data);
});
