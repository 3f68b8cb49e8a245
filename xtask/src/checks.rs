//! `cargo xtask lint`: runs all checks that are not tests.

use anyhow::Result;
use xtask::ebpf;

use crate::{
    build::{cargo, workspace},
    lint,
    run::{print_step, run},
};

/// Runs all checks that are not tests, the fast ones first.
pub(crate) fn check_all() -> Result<()> {
    print_step("checking the format");
    run(cargo()?.args(["fmt", "--check"]))?;
    lint::tidy(&workspace()?)?;
    print_step("checking with clippy");
    run(cargo()?.args([
        "clippy",
        "--locked",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    print_step("checking the documentation");
    run(cargo()?
        .args(["doc", "--no-deps", "--locked"])
        .env("RUSTDOCFLAGS", "-D warnings"))?;
    print_step("checking the XDP program");
    let target = workspace()?.join("target").join("ebpf");
    run(&mut ebpf::cargo(&workspace()?, &target, "check")?)?;
    if ebpf::find_in_path("cargo-deny").is_some() {
        print_step("checking licences and sources");
        run(cargo()?.args(["deny", "check", "licenses", "bans", "sources"]))?;
    } else {
        println!("licences are not checked, cargo-deny is missing: cargo install cargo-deny");
    }
    Ok(())
}
