//! Build of the XDP program: selects a toolchain and runs it.
//!
//! The BPF target has no precompiled `core`, so `core` is built from source. That requires either a nightly toolchain
//! with rust-src, or the distribution's stable toolchain with its library source. The latter accepts unstable options
//! if `RUSTC_BOOTSTRAP` is set.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// File name of the compiled program: the name of its crate.
pub const OBJECT: &str = "gateway-ebpf";

const TARGET: &str = "bpfel-unknown-none";

/// Toolchain that can build `core` for the BPF target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// Nightly of rustup, with the rust-src component.
    Nightly,
    /// Toolchain of the distribution, with its library source. The path is the directory of `rustc` and `cargo`.
    Distribution(PathBuf),
}

impl Toolchain {
    /// Returns the toolchain of this machine, if there is one. A nightly of rustup is preferred.
    #[must_use]
    pub fn find() -> Option<Self> {
        let nightly =
            sysroot(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]));
        if nightly.is_some_and(|sysroot| has_source(&sysroot)) {
            return Some(Self::Nightly);
        }
        let directory = PathBuf::from("/usr/bin");
        let rustc = directory.join("rustc");
        let distribution = sysroot(Command::new(rustc).args(["--print", "sysroot"]));
        let usable = directory.join("cargo").exists()
            && distribution.is_some_and(|sysroot| has_source(&sysroot));
        usable.then_some(Self::Distribution(directory))
    }

    /// Returns the major version of the compiler's LLVM, which bpf-linker must be built for.
    ///
    /// # Errors
    /// If the compiler can't be run or does not print its LLVM version.
    pub fn llvm_version(&self) -> Result<u32> {
        let mut command = match self {
            Self::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "rustc"]);
                command
            }
            Self::Distribution(directory) => Command::new(directory.join("rustc")),
        };
        let output = command.env_remove("RUSTUP_TOOLCHAIN").arg("-vV").output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines()
            .find_map(|line| line.strip_prefix("LLVM version: "))
            .and_then(|version| version.split('.').next())
            .and_then(|major| major.parse().ok())
            .with_context(|| format!("the compiler's version names no LLVM version: {text}"))
    }

    /// Returns a `cargo` command that uses the toolchain.
    #[must_use]
    pub fn cargo(&self) -> Command {
        match self {
            Self::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]);
                command.env_remove("RUSTC");
                command
            }
            Self::Distribution(directory) => {
                let mut command = Command::new(directory.join("cargo"));
                command.env("RUSTC", directory.join("rustc"));
                command.env("RUSTC_BOOTSTRAP", "1");
                command
            }
        }
    }
}

/// Returns the path that a compiler prints as its sysroot, if it runs.
fn sysroot(command: &mut Command) -> Option<PathBuf> {
    let output = command.env_remove("RUSTUP_TOOLCHAIN").output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim()))
}

fn has_source(sysroot: &Path) -> bool {
    sysroot
        .join("lib/rustlib/src/rust/library/core/Cargo.toml")
        .exists()
        || sysroot
            .join("lib/rustlib/src/rust/library/core/src/lib.rs")
            .exists()
}

/// Returns the path of `bpf-linker`, if it is installed.
#[must_use]
pub fn bpf_linker() -> Option<PathBuf> {
    find_in_path("bpf-linker")
}

/// Returns the path of a program: on `PATH`, in cargo's install directory, or in the directories of system programs,
/// which are on root's `PATH` only.
#[must_use]
pub fn find_in_path(program: &str) -> Option<PathBuf> {
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        let home = env::var_os("HOME")?;
        Some(PathBuf::from(home).join(".cargo"))
    });
    let search = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&search)
        .chain(cargo_home.map(|home| home.join("bin")))
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Returns a cargo command for the XDP program's crate, with target, flags and linker.
///
/// # Errors
/// If a toolchain or the linker is missing. The message names the remedy.
pub fn cargo(workspace: &Path, target_directory: &Path, subcommand: &str) -> Result<Command> {
    let toolchain = Toolchain::find().context(
        "no toolchain for the XDP program, neither a nightly with rust-src nor the distribution's \
         with its library source: run `cargo xtask setup`",
    )?;
    let linker = bpf_linker().context("bpf-linker is not installed: run `cargo xtask setup`")?;
    let mut command = toolchain.cargo();
    // Variables that the outer cargo sets for its build must not affect this one.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_") && text != "CARGO_HOME" && text != "CARGO_NET_OFFLINE" {
            command.env_remove(&name);
        }
    }
    for name in [
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
        "RUSTUP_TOOLCHAIN",
    ] {
        command.env_remove(name);
    }
    let mut path = OsString::from(linker.parent().unwrap_or(Path::new("/")));
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_default());
    command
        .current_dir(workspace)
        .env("PATH", path)
        // Version 3 of the instruction set (Linux 5.12) has 32-bit arithmetic and jumps.
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            [
                "-Cdebuginfo=2",
                "-Clink-arg=--btf",
                "-Ctarget-cpu=v3",
                "-Cpanic=abort",
            ]
            .join("\u{1f}"),
        )
        .arg(subcommand)
        .args(["--package", OBJECT, "--release", "--locked"])
        .args(["--target", TARGET, "-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(target_directory);
    Ok(command)
}

/// Compiles the XDP program and returns the path of the object file.
///
/// # Errors
/// If a tool is missing or the compilation fails. The compiler's output goes to stderr.
pub fn build(workspace: &Path, target_directory: &Path) -> Result<PathBuf> {
    let mut command = cargo(workspace, target_directory, "build")?;
    let status = command
        .status()
        .with_context(|| format!("{command:?} can't be run"))?;
    if !status.success() {
        bail!("the build of the XDP program failed: {command:?}");
    }
    Ok(target_directory.join(TARGET).join("release").join(OBJECT))
}
