//! The program `plgw`: the agent of the private link gateway, and its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    gateway::cli::main()
}
