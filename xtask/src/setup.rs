//! `cargo xtask setup`: installs missing programs. Fast if nothing is missing.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};
use xtask::ebpf::{Toolchain, bpf_linker, find_in_path};

use crate::{
    build::workspace,
    run::{is_root, print_step, run, run_silently},
};

/// Programs that build, demo and tests call, with the Debian packages that contain them.
const PROGRAMS: &[(&str, &str)] = &[
    ("cc", "build-essential"),
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("ethtool", "ethtool"),
    ("curl", "curl"),
    ("jq", "jq"),
    ("nginx", "nginx-light"),
    ("iperf3", "iperf3"),
    ("tcpdump", "tcpdump"),
    ("ping", "iputils-ping"),
    ("arping", "iputils-arping"),
    ("nsenter", "util-linux"),
    ("tracepath", "iputils-tracepath"),
    ("redis-server", "redis-server"),
    ("redis-benchmark", "redis-tools"),
    ("dnsmasq", "dnsmasq-base"),
    ("dig", "bind9-dnsutils"),
    ("scapy", "python3-scapy"),
    ("tshark", "tshark"),
    ("openssl", "openssl"),
    ("strace", "strace"),
    ("systemctl", "systemd"),
];

/// Oldest supported kernel version, which `test-kernel` boots.
pub(crate) const MIN_KERNEL: &str = "6.1";

/// Programs that `test-kernel` calls, with their packages.
const KERNEL_PROGRAMS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("strip", "binutils"),
];

/// Programs that `bench` compares the gateway with, with their packages.
const BENCH_PROGRAMS: &[(&str, &str)] = &[("nft", "nftables"), ("haproxy", "haproxy")];

/// Installs the programs that `bench` compares the gateway with.
///
/// # Errors
/// As [`setup`].
pub(crate) fn bench_programs() -> Result<()> {
    install_missing(BENCH_PROGRAMS)
}

/// Installs the programs that `test-kernel` calls.
///
/// # Errors
/// As [`setup`].
pub(crate) fn kernel_programs() -> Result<()> {
    install_missing(KERNEL_PROGRAMS)
}

fn install_missing(programs: &[(&str, &'static str)]) -> Result<()> {
    let missing: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| find_in_path(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing)
}

/// Packages of the distribution's compiler and its library source, for machines without a nightly with rust-src.
const COMPILER_PACKAGES: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];

/// Version of bpf-linker: the last one that the workspace's compiler can build.
const LINKER_VERSION: &str = "0.13.0";

/// Installs everything that is missing.
///
/// # Errors
/// If something can't be installed here. The message names the remedy.
pub(crate) fn setup() -> Result<()> {
    let missing: Vec<&(&str, &str)> = PROGRAMS
        .iter()
        .filter(|(program, _)| find_in_path(program).is_none())
        .collect();
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    if Toolchain::find().is_none() {
        packages.extend(COMPILER_PACKAGES);
    }
    if !packages.is_empty() {
        install(&packages)?;
    }
    let toolchain = Toolchain::find().context(
        "no toolchain for the XDP program: install a nightly with its library source, \
         `rustup toolchain install nightly --component rust-src`",
    )?;
    if bpf_linker().is_none() {
        install_linker(&toolchain)?;
    }
    schemathesis()?;
    mount_bpf()
}

/// Installs packages of the distribution. Needs apt-get and root.
fn install(packages: &[&str]) -> Result<()> {
    if find_in_path("apt-get").is_none() {
        bail!(
            "this machine has no apt-get: install these programs manually: {}. For the XDP \
             program: `rustup toolchain install nightly --component rust-src`",
            PROGRAMS
                .iter()
                .map(|(program, _)| *program)
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    if !is_root() {
        bail!(
            "packages are missing: run as root: apt-get install --no-install-recommends {}",
            packages.join(" ")
        );
    }
    print_step(&format!("installing packages: {}", packages.join(" ")));
    run_silently(Command::new("apt-get").args(["update", "-q"]))?;
    run_silently(
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "-y", "-q", "--no-install-recommends"])
            .args(packages),
    )?;
    Ok(())
}

/// Builds bpf-linker for the LLVM version of the compiler.
fn install_linker(toolchain: &Toolchain) -> Result<()> {
    let llvm = toolchain.llvm_version()?;
    let prefix = format!("/usr/lib/llvm-{llvm}");
    let libraries = [
        format!("llvm-{llvm}-dev"),
        format!("libpolly-{llvm}-dev"),
        "zlib1g-dev".to_owned(),
        "libzstd-dev".to_owned(),
        "libxml2-dev".to_owned(),
        "pkg-config".to_owned(),
    ];
    let packages: Vec<&str> = libraries.iter().map(String::as_str).collect();
    if !Path::new(&prefix).join("lib/libPolly.a").exists() || find_in_path("pkg-config").is_none() {
        install(&packages)?;
    }
    print_step(&format!(
        "building bpf-linker {LINKER_VERSION} for LLVM {llvm} (a minute or two)"
    ));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .env("LLVM_PREFIX", prefix)
        .args(["install", "bpf-linker", "--quiet", "--locked"])
        .args(["--version", LINKER_VERSION, "--no-default-features"])
        .args(["--features", &format!("llvm-{llvm}")]);
    run(&mut command)
}

/// Version of schemathesis, which tests the API against its OpenAPI document. Pinned: newer versions add checks.
const SCHEMATHESIS: &str = "4.32.5";

/// Installs schemathesis in a virtual environment of its own.
fn schemathesis() -> Result<()> {
    let at = workspace()?.join("target/schemathesis");
    let program = at.join("bin/schemathesis");
    let installed = Command::new(&program).arg("--version").output();
    if installed.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(SCHEMATHESIS))
    {
        return Ok(());
    }
    print_step(&format!("installing schemathesis {SCHEMATHESIS}"));
    let environment = || run_silently(Command::new("python3").args(["-m", "venv"]).arg(&at));
    if environment().is_err() {
        install(&["python3-venv"])?;
        environment()?;
    }
    run_silently(
        Command::new(at.join("bin/pip"))
            .args(["install", "--quiet"])
            .arg(format!("schemathesis=={SCHEMATHESIS}")),
    )?;
    Ok(())
}

/// Mounts the bpf file system, in which the agent pins programs and maps.
fn mount_bpf() -> Result<()> {
    const AT: &str = "/sys/fs/bpf";
    let mounts = fs::read_to_string("/proc/mounts").context("/proc/mounts can't be read")?;
    if mounts
        .lines()
        .any(|line| line.split(' ').nth(2) == Some("bpf"))
    {
        return Ok(());
    }
    if !is_root() {
        bail!("the bpf file system is not mounted: run as root: mount -t bpf bpf {AT}");
    }
    print_step("mounting the bpf file system");
    run_silently(Command::new("mount").args(["-t", "bpf", "bpf", AT]))?;
    Ok(())
}
