//! Limits of the kernel's verifier: instructions and stack.
//!
//! The verifier gives up at a million instructions, and kernel versions count differently. A ceiling well below that
//! keeps the program loadable on versions that are not tested. Stack is counted as the oldest supported kernel does,
//! so that a chain that is too deep shows without that kernel.

use gateway::bpf::loader::OBJECT;
use tests::{
    bpf::stack::{MAX_STACK, deepest_call_chain},
    datapath::differential::with_harness,
};

/// Maximum of verified instructions.
const MAX_VERIFIED_INSTRUCTIONS: u32 = 500_000;

#[test]
fn verified_instructions_stay_below_the_ceiling() {
    with_harness(|harness| {
        let info = harness.program_info();
        let verified = info
            .verified_instructions
            .expect("a count, since Linux 5.16");
        println!(
            "{verified} instructions verified, {} bytes of machine code",
            info.machine_code_bytes
        );
        assert!(
            verified < MAX_VERIFIED_INSTRUCTIONS,
            "{verified} instructions verified"
        );
    });
}

#[test]
fn call_chains_fit_the_stack_of_linux_6_1() {
    let deepest = deepest_call_chain(OBJECT).expect("a BPF object");
    let stack = deepest.stack();
    println!("{stack} bytes: {:?}", deepest.frames);
    assert!(
        (1..=MAX_STACK).contains(&stack) && deepest.frames.len() > 2,
        "{stack} bytes of stack: {:?}",
        deepest.frames
    );
}
