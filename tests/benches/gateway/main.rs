//! The benchmarks: `cargo xtask bench`.

mod bare_flow_table;
mod baselines;
mod flows;
mod gc;
mod kernel_hash;
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

/// Arguments of the benchmarks.
#[derive(Debug, Parser)]
struct Arguments {
    /// Measure only packet costs, and only paths with this text in their name
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Number of rounds; the minimum counts
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Write results.json and packets.svg to this directory
    #[arg(long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
    /// Argument that cargo passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    eprintln!("==> packet costs");
    let alone = arguments.only.is_some();
    let costs = packets::measure(arguments.rounds, arguments.only);
    if alone {
        for cost in costs {
            println!("{:<40} {:>8.1} ns", cost.name, cost.nanoseconds);
        }
        return;
    }
    eprintln!("==> Maglev tables, memory of a flow, and garbage collection");
    let (tables, memory, collections) = (maglev::measure(), memory::measure(), gc::measure());
    let report = Report::new(costs, paths::measure(), memory, collections, tables);
    println!("{}", report.text());
    if let Some(directory) = arguments.output {
        let json = serde_json::to_string_pretty(&report).expect("figures");
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join("results.json"), json).expect("a file");
        fs::write(directory.join("packets.svg"), report.svg()).expect("a file");
        println!(
            "{}: results.json and packets.svg written",
            directory.display()
        );
    }
}
