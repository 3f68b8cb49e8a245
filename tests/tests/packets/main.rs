//! The packet table: what becomes of each kind of packet. Every row goes through the native stages
//! and through the program in the kernel, and both must give the same bytes and count the same.

mod addresses;
mod conflicts;
mod corpus;
mod costs;
mod extensions;
mod ipv6;
mod local;
mod model;
mod nat;
mod nonsense;
mod parsing;
mod paths;
mod refusals;
mod revocation;
mod sweep;
mod tcp;
mod udp;
mod verifier;

use std::panic::{AssertUnwindSafe, catch_unwind};

use tests::{
    lab::{Lab, with_lab},
    path::Path,
};

/// One row: what it shows, and how.
type Row = (&'static str, fn(&mut Lab));

/// One row for a path: what it shows, and how.
type PathRow = (&'static str, fn(&mut Lab, Path));

/// Keeps the frames of a row as a file in the directory that `RECORD_CORPUS` names: what the fuzzer
/// begins with.
fn keep(recorded: &[u8]) {
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
fn run_paths(rows: &'static [PathRow]) {
    let failed = with_lab(move |lab| {
        let mut failed = Vec::new();
        for path in Path::ALL {
            for (name, row) in rows {
                lab.reset();
                let outcome = catch_unwind(AssertUnwindSafe(|| row(lab, path)));
                keep(lab.recorded());
                if outcome.is_err() {
                    failed.push(format!("{}: {name}", path.name));
                }
            }
        }
        failed
    });
    let count = rows.len() * Path::ALL.len();
    assert!(
        failed.is_empty(),
        "{} of {count} rows failed: {failed:#?}",
        failed.len()
    );
    println!("{count} rows");
}

/// Runs all rows, each in a laboratory as new, and names those that fail.
fn run(rows: &'static [Row]) {
    let failed = with_lab(move |lab| {
        let mut failed = Vec::new();
        for (name, row) in rows {
            lab.reset();
            let outcome = catch_unwind(AssertUnwindSafe(|| row(lab)));
            keep(lab.recorded());
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
        rows.len()
    );
    println!("{} rows", rows.len());
}
