//! Processes sequences of frames on the simulated platform. See `tests::datapath::fuzz` for the properties that must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tests::datapath::fuzz::run(data);
});
