//! The packet table: the verdict on each kind of packet.
//!
//! Every case sends its packets through the native data path and through the program in the kernel. Both must
//! return the same bytes and count the same.

mod address_conflict;
mod corpus;
mod extension_headers;
mod flow_gc;
mod flow_table;
mod helper_call_budget;
mod invariants;
mod ipv6;
mod local_replies;
mod malformed;
mod nat;
mod parsing;
mod priority_tag;
mod reject;
mod revocation;
mod scenarios;
mod special_addresses;
mod tcp;
mod udp;
mod verifier;

use std::panic::{AssertUnwindSafe, catch_unwind};

use tests::datapath::{
    differential::{DifferentialHarness, with_harness},
    scenario::Scenario,
};

/// A case: a sentence on the behaviour, and the code that shows it.
type Case = (&'static str, fn(&mut DifferentialHarness));

/// A case that is run for each [`Scenario`].
type ScenarioCase = (&'static str, fn(&mut DifferentialHarness, Scenario));

/// Writes the frames of a case to a file in the directory that `RECORD_CORPUS` names: the fuzzer's seed corpus.
fn record_corpus(recorded: &[u8]) {
    let Some(directory) = std::env::var_os("RECORD_CORPUS") else {
        return;
    };
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    recorded.hash(&mut hasher);
    let path = std::path::Path::new(&directory).join(format!("{:016x}", hasher.finish()));
    std::fs::write(path, recorded).expect("a file");
}

/// Runs cases in each scenario: IPv4, IPv6, NAT46 and NAT64.
fn run_scenarios(cases: &[ScenarioCase]) {
    let count = cases.len() * Scenario::ALL.len();
    let cases = cases.to_vec();
    let failed = with_harness(move |harness| {
        let mut failed = Vec::new();
        for scenario in Scenario::ALL {
            for (name, case) in &cases {
                harness.reset();
                let result = catch_unwind(AssertUnwindSafe(|| case(harness, scenario)));
                record_corpus(harness.recorded_frames());
                if result.is_err() {
                    failed.push(format!("{}: {name}", scenario.name));
                }
            }
        }
        failed
    });
    assert!(
        failed.is_empty(),
        "{} of {count} cases failed: {failed:#?}",
        failed.len()
    );
    println!("{count} cases");
}

/// Runs cases, each with a reset harness, and names those that fail.
fn run_cases(cases: &[Case]) {
    let count = cases.len();
    let cases = cases.to_vec();
    let failed = with_harness(move |harness| {
        let mut failed = Vec::new();
        for (name, case) in cases {
            harness.reset();
            let result = catch_unwind(AssertUnwindSafe(|| case(harness)));
            record_corpus(harness.recorded_frames());
            if result.is_err() {
                failed.push(name);
            }
        }
        failed
    });
    assert!(
        failed.is_empty(),
        "{} of {count} cases failed: {failed:#?}",
        failed.len()
    );
    println!("{count} cases");
}
