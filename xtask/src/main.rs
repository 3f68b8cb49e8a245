//! `cargo xtask`: set-up, build, demo, tests, lints and benchmarks of the workspace.

mod bench_control_plane;
mod demo;
mod demo_server;
mod lint;
mod reachability_probe;
mod run;
mod setup;
mod topology;
mod vm;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

use run::{is_root, print_step, run};

/// Set up, build, demonstrate, test and measure the private link gateway
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install the missing programs for building and testing
    Setup,
    /// Build the gateway, one binary that contains the XDP program, and print its path
    Build {
        /// Build with optimizations
        #[arg(long)]
        release: bool,
    },
    /// Run the demo: two consumers and a provider, a connection request, its approval, and traffic
    Demo {
        /// Keep the demo running for experiments
        #[arg(long)]
        keep: bool,
        /// Remove a demo that was kept
        #[arg(long, conflicts_with = "keep")]
        remove: bool,
    },
    /// Run all tests
    Test {
        /// Run tests only whose names contain this text
        filter: Option<String>,
    },
    /// Run the packet tests and selected network tests on the oldest supported kernel, in an emulated machine
    TestKernel,
    /// Check formatting, lints, documentation, words, layers and licences
    Lint {
        /// Only print the edges between modules, as a draft of `xtask/layers.txt`: DEPTH is how
        /// many parts of a module's path tell it from others
        #[arg(long, hide = true, value_name = "DEPTH", num_args = 0..=1, default_missing_value = "1")]
        layers_draft: Option<usize>,
    },
    /// Check words, layers and the size of files: the part of `lint` that needs no compiler
    Tidy,
    /// Measure the data path and the control plane, and write figures and charts
    Bench {
        #[command(subcommand)]
        benchmark: Option<Bench>,
        /// Number of tenants in the control plane benchmark, each with one service and ten endpoints
        #[arg(long, default_value_t = 10_000)]
        tenants: u32,
    },
    /// Generate the OpenAPI document and the API client
    Openapi,
    /// Serve HTTP for the demo where nginx is not installed: every response is a name
    #[command(hide = true)]
    Serve {
        /// Address and port to listen on
        address: SocketAddr,
        /// The name to respond with
        name: String,
    },
}

#[derive(Subcommand)]
enum Bench {
    /// Measure the data path: cost per packet and subprogram, and end to end beside nftables and HAProxy
    Packets,
    /// Measure the control plane with few and with many objects
    Scale {
        /// Number of tenants, each with one service and ten endpoints
        #[arg(long, default_value_t = 10_000)]
        tenants: u32,
        /// Measure this binary instead of building one
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Task::Setup => setup::setup(),
        Task::Build { release } => build(release).map(|binary| println!("{}", binary.display())),
        Task::Demo { remove: true, .. } => demo::remove(),
        Task::Demo { keep, .. } => setup::setup()
            .and_then(|()| build(false))
            .and_then(|binary| demo::demo(&binary, keep)),
        Task::Test { filter } => setup::setup().and_then(|()| test(filter.as_deref())),
        Task::TestKernel => setup::setup().and_then(|()| vm::test()),
        Task::Lint {
            layers_draft: Some(depth),
        } => workspace().and_then(|workspace| lint::draft_layers(&workspace, depth)),
        Task::Lint { layers_draft: None } => lint(),
        Task::Tidy => workspace().and_then(|workspace| lint::tidy(&workspace)),
        Task::Bench {
            benchmark: what,
            tenants,
        } => setup::setup().and_then(|()| bench(what, tenants)),
        Task::Openapi => build(false).and_then(|binary| write_openapi(&binary)),
        Task::Serve { address, name } => demo_server::serve_name(address, &name),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the workspace's directory.
fn workspace() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .parent()
        .map(Path::to_owned)
        .context("the crate's directory has no parent")
}

fn cargo() -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace()?);
    Ok(command)
}

/// Builds the gateway and returns the binary's path.
fn build(release: bool) -> Result<PathBuf> {
    print_step("building the gateway and its XDP program");
    let mut command = cargo()?;
    // The whole workspace: with the feature set of a single package, tests and benchmarks would rebuild all
    // dependencies.
    command.args(["build", "--locked"]);
    if release {
        command.args(["--release", "--bins"]);
    }
    run(&mut command)?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or(workspace()?.join("target"), PathBuf::from);
    Ok(target
        .join(if release { "release" } else { "debug" })
        .join("plgw"))
}

/// Runs all tests: unit, packet, network and fault tests.
fn test(filter: Option<&str>) -> Result<()> {
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

/// Runs the benchmarks.
fn bench(benchmark: Option<Bench>, tenants: u32) -> Result<()> {
    match benchmark {
        Some(Bench::Packets) => bench_packets(&build(true)?),
        Some(Bench::Scale { tenants, binary }) => {
            let binary = binary.map_or_else(|| build(true), Ok)?;
            bench_control_plane::measure_all(&binary, tenants)
        }
        None => {
            let binary = build(true)?;
            bench_packets(&binary)?;
            bench_control_plane::measure_all(&binary, tenants)
        }
    }
}

/// Runs the data path's benchmark.
fn bench_packets(binary: &Path) -> Result<()> {
    setup::bench_programs()?;
    print_step("measuring the data path");
    let output = workspace()?.join("target").join("bench");
    let mut command = cargo()?;
    command
        .args(["bench", "--locked", "--bench", "gateway", "--", "--output"])
        .arg(output)
        .env("PLGW_BIN", binary);
    run(&mut command)
}

/// Path of the OpenAPI document in the workspace.
const DOCUMENT: &str = "docs/openapi.json";

/// Writes the OpenAPI document that the program prints, and the client that is generated from it.
fn write_openapi(binary: &Path) -> Result<()> {
    print_step("generating the OpenAPI document and the client");
    let output = Command::new(binary).arg("openapi").output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    let document = String::from_utf8(output.stdout)?;
    let client = workspace()?.join("gateway/src/client/operations.rs");
    fs::write(&client, xtask::codegen_client::generate(&document)?)?;
    fs::write(workspace()?.join(DOCUMENT), document)?;
    run(cargo()?.args(["fmt", "--package", "gateway"]))
}

/// Runs every check that is no test, the fast ones first.
fn lint() -> Result<()> {
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
    run(&mut xtask::ebpf::cargo(&workspace()?, &target, "check")?)?;
    if xtask::ebpf::find_in_path("cargo-deny").is_some() {
        print_step("checking licences and sources");
        run(cargo()?.args(["deny", "check", "licenses", "bans", "sources"]))?;
    } else {
        println!(
            "licences are not checked, cargo-deny is missing: cargo install cargo-deny"
        );
    }
    Ok(())
}
