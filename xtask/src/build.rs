//! `cargo xtask build` and `cargo xtask test`, and the cargo command that all tasks use.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::run::{is_root, print_step, run};

/// Returns the workspace's directory.
pub(crate) fn workspace() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .parent()
        .map(Path::to_owned)
        .context("the crate's directory has no parent")
}

/// Returns a cargo command that runs in the workspace.
pub(crate) fn cargo() -> Result<Command> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace()?);
    Ok(command)
}

/// Builds the gateway and returns the binary's path.
pub(crate) fn build(release: bool) -> Result<PathBuf> {
    print_step("building the gateway and its XDP program");
    let mut command = cargo()?;
    // The whole workspace: with the feature set of a single package, tests and benchmarks would rebuild all
    // dependencies.
    command.args(["build", "--locked"]);
    if release {
        command.args(["--release", "--bins"]);
    }
    run(&mut command)?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or(workspace()?.join("target"), PathBuf::from);
    Ok(target
        .join(if release { "release" } else { "debug" })
        .join("plgw"))
}

/// Runs all tests: unit, packet, network and fault tests.
pub(crate) fn test(filter: Option<&str>) -> Result<()> {
    if !is_root() {
        bail!(
            "the tests load a program into the kernel and create network namespaces: run them as root"
        );
    }
    let binary = build(false)?;
    print_step("running the tests");
    let mut command = cargo()?;
    command
        .args(["test", "--locked", "--no-fail-fast"])
        .env("PLGW_BIN", binary);
    command.args(filter);
    run(&mut command)
}
