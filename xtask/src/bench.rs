//! `cargo xtask bench`: runs the benchmarks of the data path and of the control plane.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Subcommand;

use crate::{
    bench_control_plane,
    build::{build, cargo, workspace},
    run::{print_step, run},
    setup,
};

/// Benchmarks.
#[derive(Subcommand)]
pub(crate) enum Benchmark {
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

/// Runs one benchmark, or all of them.
pub(crate) fn bench(benchmark: Option<Benchmark>, tenants: u32) -> Result<()> {
    match benchmark {
        Some(Benchmark::Packets) => bench_packets(&build(true)?),
        Some(Benchmark::Scale { tenants, binary }) => {
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
