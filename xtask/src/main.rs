//! `cargo xtask`: set-up, build, demo, tests, lints and benchmarks of the workspace.

mod bench;
mod bench_control_plane;
mod build;
mod checks;
mod codegen_client;
mod demo;
mod demo_server;
mod lint;
mod miri;
mod openapi;
mod reachability_probe;
mod run;
mod setup;
mod topology;
mod vm;

use std::{net::SocketAddr, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use bench::Benchmark;
use build::{build, workspace};

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
    /// Run tests of the flow table under Miri, which detects undefined behaviour and data races
    Miri,
    /// Run the packet tests and selected network tests on the oldest supported kernel, in an emulated machine
    TestKernel,
    /// Check formatting, lints, documentation, words, layers and licences
    Lint {
        /// Print the edges between modules as a draft of `xtask/layers.txt`. DEPTH is the number of path segments that
        /// identify a module
        #[arg(long, hide = true, value_name = "DEPTH", num_args = 0..=1, default_missing_value = "1")]
        layers_draft: Option<usize>,
    },
    /// Check words, layers and the size of files, the part of `lint` that needs no compiler
    Tidy,
    /// Measure the data path and the control plane, and write figures and charts
    Bench {
        #[command(subcommand)]
        benchmark: Option<Benchmark>,
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

fn main() -> ExitCode {
    match run_task(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_task(task: Task) -> Result<()> {
    match task {
        Task::Setup => {
            setup::setup()?;
            miri::setup_if_possible();
            Ok(())
        }
        Task::Build { release } => {
            println!("{}", build(release)?.display());
            Ok(())
        }
        Task::Demo { remove: true, .. } => demo::remove(),
        Task::Demo { keep, .. } => {
            setup::setup()?;
            demo::demo(&build(false)?, keep)
        }
        Task::Test { filter } => {
            setup::setup()?;
            build::test(filter.as_deref())?;
            // A filter names one test, and Miri needs a build of its own.
            if filter.is_some() {
                return Ok(());
            }
            miri::test_if_installed()
        }
        Task::Miri => {
            miri::setup()?;
            miri::test()
        }
        Task::TestKernel => {
            setup::setup()?;
            vm::test()
        }
        Task::Lint {
            layers_draft: Some(depth),
        } => lint::draft_layers(&workspace()?, depth),
        Task::Lint { layers_draft: None } => checks::check_all(),
        Task::Tidy => lint::tidy(&workspace()?),
        Task::Bench { benchmark, tenants } => {
            setup::setup()?;
            bench::bench(benchmark, tenants)
        }
        Task::Openapi => openapi::write_openapi(&build(false)?),
        Task::Serve { address, name } => demo_server::serve_name(address, &name),
    }
}
