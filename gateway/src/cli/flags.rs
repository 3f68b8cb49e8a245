//! Flags that a command would not use: refused, since whoever gives one believes that it does something.

use anyhow::{Result, bail};
use clap::{ArgMatches, parser::ValueSource};

/// The flags that every command of the parser takes, and only those that talk to the agent use.
const CLIENT_FLAGS: [&str; 7] = [
    "socket",
    "server",
    "token_file",
    "ca",
    "client_certificate",
    "client_key",
    "output",
];

/// The flags that say something of a server, and nothing of a socket.
const REMOTE_FLAGS: [&str; 4] = ["token_file", "ca", "client_certificate", "client_key"];

/// The flags of `restore` that are for `--offline`.
const OFFLINE_FLAGS: [&str; 4] = ["config", "state_dir", "bpf_dir", "event_retention"];

/// The commands that do not talk to the agent.
const LOCAL_COMMANDS: [&str; 5] = ["run", "config", "unload", "openapi", "completions"];

/// Refuses flags of the command line that the command does not use. Variables of the environment are for
/// all commands and may stay unused.
///
/// # Errors
/// The flag, the command, and what to do.
pub(super) fn check(matches: &ArgMatches) -> Result<()> {
    let Some((command, arguments)) = matches.subcommand() else {
        return Ok(());
    };
    let offline = command == "restore" && arguments.get_flag("offline");
    let needs_agent = !LOCAL_COMMANDS.contains(&command) && !offline;
    if needs_agent {
        check_target(matches)?;
    } else {
        let shown = if offline {
            "restore --offline"
        } else {
            command
        };
        reject_flags(matches, &CLIENT_FLAGS, |flag| {
            format!(
                "`plgw {shown}` does not talk to the agent and has no use for {flag}: leave it out"
            )
        })?;
    }
    if command == "restore" && !offline {
        reject_flags(arguments, &OFFLINE_FLAGS, |flag| {
            format!("{flag} is for `plgw restore --offline`: leave it out, or add --offline")
        })?;
    }
    Ok(())
}

/// Refuses flags of the target that is not used.
fn check_target(matches: &ArgMatches) -> Result<()> {
    let by_socket = is_given(matches, "socket");
    if by_socket && is_given(matches, "server") {
        bail!("--socket and --server name two gateways: give one of them");
    }
    if by_socket || matches.get_one::<String>("server").is_none() {
        reject_flags(matches, &REMOTE_FLAGS, |flag| {
            format!("{flag} is for a gateway that --server names: add --server, or leave it out")
        })?;
    }
    Ok(())
}

fn reject_flags(
    matches: &ArgMatches,
    flags: &[&str],
    sentence: impl Fn(&str) -> String,
) -> Result<()> {
    match flags.iter().find(|flag| is_given(matches, flag)) {
        Some(flag) => bail!(sentence(&format!("--{}", flag.replace('_', "-")))),
        None => Ok(()),
    }
}

/// Returns whether a flag is on the command line.
pub(super) fn is_given(matches: &ArgMatches, flag: &str) -> bool {
    matches.value_source(flag) == Some(ValueSource::CommandLine)
}

#[cfg(test)]
mod tests;
