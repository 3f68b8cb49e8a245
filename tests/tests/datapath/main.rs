//! The packet table: what becomes of each kind of packet. Every row goes through the native stages
//! and through the program in the kernel, and both must give the same bytes and count the same.

mod address_conflict;
mod corpus;
mod extension_headers;
mod flow_gc;
mod helper_call_budget;
mod invariants;
mod ipv6;
mod local_replies;
mod malformed;
mod nat;
mod parsing;
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

/// One row: what it shows, and how.
type Case = (&'static str, fn(&mut DifferentialHarness));

/// One row for a path: what it shows, and how.
type ScenarioCase = (&'static str, fn(&mut DifferentialHarness, Scenario));

/// Keeps the frames of a row as a file in the directory that `RECORD_CORPUS` names: what the fuzzer
/// begins with.
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

/// Runs rows for both families and both mixes.
fn run_scenarios(cases: &'static [ScenarioCase]) {
    let failed = with_harness(move |harness| {
        let mut failed = Vec::new();
        for scenario in Scenario::ALL {
            for (name, row) in cases {
                harness.reset();
                let outcome = catch_unwind(AssertUnwindSafe(|| row(harness, scenario)));
                record_corpus(harness.recorded_frames());
                if outcome.is_err() {
                    failed.push(format!("{}: {name}", scenario.name));
                }
            }
        }
        failed
    });
    let count = cases.len() * Scenario::ALL.len();
    assert!(
        failed.is_empty(),
        "{} of {count} rows failed: {failed:#?}",
        failed.len()
    );
    println!("{count} rows");
}

/// Runs all rows, each in a laboratory as new, and names those that fail.
fn run_cases(cases: &'static [Case]) {
    let failed = with_harness(move |harness| {
        let mut failed = Vec::new();
        for (name, row) in cases {
            harness.reset();
            let outcome = catch_unwind(AssertUnwindSafe(|| row(harness)));
            record_corpus(harness.recorded_frames());
            if outcome.is_err() {
                failed.push(*name);
            }
        }
        failed
    });
    assert!(
        failed.is_empty(),
        "{} of {} rows failed: {failed:#?}",
        failed.len(),
        cases.len()
    );
    println!("{} rows", cases.len());
}
