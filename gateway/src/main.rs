//! The private link gateway: one binary, the agent and its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    gateway::cli::main()
}
