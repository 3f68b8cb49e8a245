//! What the gateway costs, measured: `cargo xtask bench`.

mod assembler;
mod contenders;
mod packets;
mod traffic;
mod wrapper;

use clap::Parser;

/// What is measured.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only ways with this in their name
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// How often each is measured; the least time counts
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// What cargo gives every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    if arguments.only.as_deref() == Some("rates") {
        for contender in [contenders::gateway(), contenders::nftables()] {
            for mix in [traffic::Mix::Known, traffic::Mix::New] {
                let packets = if mix == traffic::Mix::New {
                    60_000
                } else {
                    1_000_000
                };
                println!(
                    "{} {mix:?} {:?}",
                    contender.name,
                    contender.packets(mix, packets, 3)
                );
            }
        }
        return;
    }
    for cost in packets::measure(arguments.rounds, arguments.only) {
        println!("{:<40} {:>8.1} ns", cost.name, cost.nanoseconds);
    }
}
