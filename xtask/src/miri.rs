//! `cargo xtask miri`: runs tests of the flow table under Miri, which detects undefined behaviour and data races.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};
use xtask::ebpf::find_in_path;

use crate::{
    build::workspace,
    run::{print_step, run},
};

/// Toolchain of Miri. Pinned, because not every nightly has Miri, and separate, because the XDP program is built by the
/// toolchain named `nightly` if that has rust-src.
const TOOLCHAIN: &str = "nightly-2026-05-20";

/// Names of the tests begin with these.
const TESTS: &[&str] = &["flow::", "against_map::", "threads::"];

/// Tests of statistics, which touch no shared memory and would take a minute.
const SKIPPED: &str = "flow::hash::";

/// Installs Miri, or says that its tests will be skipped. Machines without access to other toolchains still run all other
/// tests.
pub(crate) fn setup_if_possible() {
    if let Err(error) = setup() {
        print_step(&format!(
            "Miri is missing, its tests are skipped: {error:#}"
        ));
    }
}

/// Runs the tests, or says that they are skipped because Miri is missing.
///
/// # Errors
/// If a test fails, or Miri detects an error.
pub(crate) fn test_if_installed() -> Result<()> {
    if !find_in_path("rustup").is_some_and(|rustup| is_installed(&rustup)) {
        print_step("Miri is missing, its tests are skipped: run `cargo xtask miri`");
        return Ok(());
    }
    test()
}

/// Returns true if Miri is installed.
fn is_installed(rustup: &Path) -> bool {
    let version = Command::new(rustup)
        .args(["run", TOOLCHAIN, "cargo", "miri", "--version"])
        .env_remove("RUSTUP_TOOLCHAIN")
        .output();
    version.is_ok_and(|output| output.status.success())
}

/// Installs Miri unless it is installed. Fast if it is.
///
/// # Errors
/// If rustup is missing or fails.
pub(crate) fn setup() -> Result<()> {
    let remedy = format!(
        "Miri can't be installed: \
         `rustup toolchain install {TOOLCHAIN} --profile minimal --component miri,rust-src`"
    );
    let rustup = find_in_path("rustup").with_context(|| format!("rustup is missing: {remedy}"))?;
    if is_installed(&rustup) {
        return Ok(());
    }
    print_step(&format!("installing Miri of {TOOLCHAIN}"));
    run(Command::new(rustup)
        .args(["toolchain", "install", TOOLCHAIN, "--no-self-update"])
        .args(["--profile", "minimal", "--component", "miri,rust-src"]))
    .context(remedy)
}

/// Runs the tests.
///
/// # Errors
/// If a test fails, or Miri detects an error.
pub(crate) fn test() -> Result<()> {
    print_step("running tests of the flow table under Miri");
    let mut command = Command::new(find_in_path("rustup").context(
        "rustup is missing, and Miri is a component of its toolchains: run `cargo xtask setup`",
    )?);
    // Variables that the outer cargo sets for its own toolchain.
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    command
        .current_dir(workspace()?)
        // Tests read the seed of their random cases from the environment.
        .env("MIRIFLAGS", "-Zmiri-disable-isolation")
        .args(["run", TOOLCHAIN, "cargo", "miri", "test", "--locked"])
        .args(["--package", "gateway-common", "--features", "sim"])
        .args(["--lib", "--test", "flow_table", "--"])
        .args(TESTS)
        .args(["--skip", SKIPPED]);
    run(&mut command)
}
