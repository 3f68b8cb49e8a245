//! The number of instructions that the kernel's verifier processes.
//!
//! The verifier gives up at a million, and kernel versions count differently. A ceiling well below that keeps the
//! program loadable on versions that are not tested.

use tests::datapath::differential::with_harness;

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
