//! Flags that a command would not use: refused, since whoever gives one believes that it does something.

use anyhow::{Result, bail};
use clap::{ArgMatches, parser::ValueSource};

/// The flags that every command of the parser takes, and only those that talk to the agent use.
const OF_CLIENTS: [&str; 7] = [
    "socket",
    "server",
    "token_file",
    "ca",
    "client_certificate",
    "client_key",
    "output",
];

/// The flags that say something of a server, and nothing of a socket.
const OF_SERVERS: [&str; 4] = ["token_file", "ca", "client_certificate", "client_key"];

/// The flags of `restore` that are for `--offline`.
const OF_OFFLINE: [&str; 4] = ["config", "state_dir", "bpf_dir", "events_kept"];

/// The commands that do not talk to the agent.
const LOCAL: [&str; 5] = ["run", "config", "unload", "openapi", "completions"];

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
    let talks = !LOCAL.contains(&command) && !offline;
    if talks {
        check_target(matches)?;
    } else {
        let shown = if offline {
            "restore --offline"
        } else {
            command
        };
        refuse(matches, &OF_CLIENTS, |flag| {
            format!(
                "`gateway {shown}` does not talk to the agent and has no use for {flag}: leave it out"
            )
        })?;
    }
    if command == "restore" && !offline {
        refuse(arguments, &OF_OFFLINE, |flag| {
            format!("{flag} is for `gateway restore --offline`: leave it out, or add --offline")
        })?;
    }
    Ok(())
}

/// Refuses flags of the target that is not used.
fn check_target(matches: &ArgMatches) -> Result<()> {
    let by_socket = given(matches, "socket");
    if by_socket && given(matches, "server") {
        bail!("--socket and --server name two gateways: give one of them");
    }
    if by_socket || matches.get_one::<String>("server").is_none() {
        refuse(matches, &OF_SERVERS, |flag| {
            format!("{flag} is for a gateway that --server names: add --server, or leave it out")
        })?;
    }
    Ok(())
}

fn refuse(matches: &ArgMatches, flags: &[&str], sentence: impl Fn(&str) -> String) -> Result<()> {
    match flags.iter().find(|flag| given(matches, flag)) {
        Some(flag) => bail!(sentence(&format!("--{}", flag.replace('_', "-")))),
        None => Ok(()),
    }
}

/// Returns whether a flag is on the command line.
pub(super) fn given(matches: &ArgMatches, flag: &str) -> bool {
    matches.value_source(flag) == Some(ValueSource::CommandLine)
}

#[cfg(test)]
mod tests;
