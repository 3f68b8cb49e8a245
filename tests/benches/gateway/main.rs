//! What the gateway costs, measured: `cargo xtask bench`.

mod baselines;
mod maglev;
mod memory;
mod packets;
mod paths;
mod report;
mod traffic;
mod wrapper;

use std::{fs, path::PathBuf};

use clap::Parser;

use report::Report;

/// What is measured.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only what a packet costs, and only ways with this in their name
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// How often each is measured; the least time counts
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Where the results go: results.json and packets.svg
    #[arg(long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
    /// What cargo gives every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    eprintln!("==> what a packet costs");
    let alone = arguments.only.is_some();
    let costs = packets::measure(arguments.rounds, arguments.only);
    if alone {
        for cost in costs {
            println!("{:<40} {:>8.1} ns", cost.name, cost.nanoseconds);
        }
        return;
    }
    eprintln!("==> the backends' tables, and what a flow takes");
    let (tables, memory) = (maglev::measure(), memory::measure());
    let report = Report::new(costs, paths::measure(), memory, tables);
    println!("{}", report.text());
    if let Some(directory) = arguments.output {
        let json = serde_json::to_string_pretty(&report).expect("figures");
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join("results.json"), json).expect("a file");
        fs::write(directory.join("packets.svg"), report.svg()).expect("a file");
        println!("{} has the figures, and a picture", directory.display());
    }
}
