//! Rejection of flags that a command would ignore: a user who gives one expects an effect.

use anyhow::{Result, bail};
use clap::{ArgMatches, parser::ValueSource};

/// Global flags of the parser, which only the commands that are clients of the agent use.
const CLIENT_FLAGS: [&str; 7] = [
    "socket",
    "server",
    "token_file",
    "ca",
    "client_certificate",
    "client_key",
    "output",
];

/// Flags that apply to a remote server and not to the control socket.
const REMOTE_FLAGS: [&str; 4] = ["token_file", "ca", "client_certificate", "client_key"];

/// Flags of `restore` that apply with `--offline` only.
const OFFLINE_FLAGS: [&str; 4] = ["config", "state_dir", "bpf_dir", "event_retention"];

/// Commands that are not clients of the agent.
const LOCAL_COMMANDS: [&str; 5] = ["run", "config", "unload", "openapi", "completions"];

/// Rejects flags of the command line that the command does not use. Environment variables are set for all commands,
/// so unused ones are accepted.
///
/// # Errors
/// Names the flag, the command and the remedy.
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
                "`plgw {shown}` does not connect to the agent, so {flag} has no effect: omit it"
            )
        })?;
    }
    if command == "restore" && !offline {
        reject_flags(arguments, &OFFLINE_FLAGS, |flag| {
            format!("{flag} requires --offline: omit it, or use `plgw restore --offline`")
        })?;
    }
    Ok(())
}

/// Rejects flags of the target that is not used.
fn check_target(matches: &ArgMatches) -> Result<()> {
    let by_socket = is_given(matches, "socket");
    if by_socket && is_given(matches, "server") {
        bail!("--socket and --server exclude each other: give one of them");
    }
    if by_socket || matches.get_one::<String>("server").is_none() {
        reject_flags(matches, &REMOTE_FLAGS, |flag| {
            format!("{flag} requires a remote connection: add --server, or omit it")
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

/// Returns true if the flag was given on the command line.
pub(super) fn is_given(matches: &ArgMatches, flag: &str) -> bool {
    matches.value_source(flag) == Some(ValueSource::CommandLine)
}

#[cfg(test)]
mod tests;
